//! The form that videos take in a prompt, by the family: frames one after the other, in groups that the vision tower sees together.

use image::RgbImage;

use super::images::ImagePlan;
use super::{Model, idefics3, qwen_vl};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::media::{Clip, Pixels};

/// The placeholder of videos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoMark {
    /// A token of its own, in the text that the chat template writes and at the positions of the video.
    Token(u32),
    /// A text of the chat template; the positions have the token of images.
    Text {
        word: &'static str,
        /// The chat template of conversations with videos, whatever the folder has.
        template: &'static str,
    },
}

/// A video processor: what the frames of a video become in a prompt, and what the vision tower takes of them. All frames that are given are
/// seen.
pub trait VideoProcessor {
    /// Frames that the tower sees together; the last is repeated where some are missing.
    fn together(&self) -> usize;

    /// The form that a video takes in a prompt: a piece for each of its groups.
    ///
    /// # Errors
    /// [`Error::Image`] of a size, [`Error::Option`] of a number of frames that the model does not take.
    fn plan(&self, clip: &Clip<'_>) -> Result<ImagePlan>;

    /// A decoded frame of `clip` as the vision tower takes it.
    fn prepare(&self, frame: &RgbImage, clip: &Clip<'_>) -> Pixels;

    /// Most bytes that [`VideoProcessor::prepare`] takes for a frame: what it gives, and what it needs besides.
    fn bytes(&self, clip: &Clip<'_>) -> u64;
}

/// The architectures that take videos.
pub fn video_architectures() -> Vec<&'static str> {
    [qwen_vl::VIDEOS, idefics3::VIDEOS].concat()
}

/// The refusal of videos by a model that takes none.
pub(super) fn no_videos(architecture: &str) -> Error {
    let reason = format!("{architecture} reads no videos; {} do", video_architectures().join(", "));
    Error::Prompt { reason }
}

impl<B: Backend> Model<B> {
    /// How videos are seen.
    ///
    /// # Errors
    /// [`Error::Prompt`] of a model that takes none.
    pub fn video_processor(&self) -> Result<&dyn VideoProcessor> {
        let found = self.image_processor().and_then(|processor| processor.videos());
        found.filter(|_| self.template.video_placeholder().is_some()).ok_or_else(|| no_videos(&self.info.architecture))
    }
}
