//! The pictures behind the placeholders of a prompt: an image of the request, or several as the frames of a video.

use std::ops::Range;
use std::sync::Arc;

use crate::media::Timing;

/// A video of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// Its frames among the images of the request.
    pub frames: Range<usize>,
    pub timing: Timing,
}

/// An image or a video.
#[derive(Clone, Debug, PartialEq)]
pub enum Medium {
    /// By its number among the images of the request.
    Image(usize),
    Video(Arc<Video>),
}

impl Medium {
    /// Its images among those of the request.
    pub fn images(&self) -> Range<usize> {
        match self {
            Medium::Image(index) => *index..index + 1,
            Medium::Video(video) => video.frames.clone(),
        }
    }

    /// The same, where its first image has another number.
    pub fn beginning_at(&self, first: usize) -> Medium {
        match self {
            Medium::Image(_) => Medium::Image(first),
            Medium::Video(video) => {
                let frames = first..first + video.frames.len();
                Medium::Video(Arc::new(Video { frames, timing: video.timing.clone() }))
            }
        }
    }
}
