//! How many positions a picture takes, from its size alone.

use std::sync::Arc;

use serde::Serialize;

use super::images::{self, ImageProcessor};
use super::source::Source;
use super::videos::{self, VideoMark};
use super::{Model, family};
use crate::backend::Backend;
use crate::cache::Piece;
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::media::{Clip, Timing};
use crate::text::{Rendered, SpecialTokens, Tokenizer};

/// The positions that a picture of some size, or a video of such frames, takes in a prompt.
///
/// ```ts
/// import { load } from "prefixkv";
///
/// await using model = await load();
/// const { tokens, marks, pieces } = await model.imageTokens(1920, 1080);
/// console.log(tokens + marks, pieces.length);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageTokens {
    /// Positions of the image itself, all its pieces together.
    pub tokens: usize,
    /// Tokens of the text that the model writes around pieces, as it is tokenised alone; 0 where it writes none.
    pub marks: usize,
    /// The pieces, in the order of their positions.
    pub pieces: Vec<PieceTokens>,
}

/// A piece of a picture and its positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PieceTokens {
    /// Which one it is, with its rows and columns of cells.
    pub piece: Piece,
    /// Positions that it takes.
    pub tokens: usize,
}

/// Counts the positions of pictures without a model.
#[derive(Clone)]
pub struct ImageCounter {
    processor: Arc<dyn ImageProcessor>,
    tokenizer: Arc<Tokenizer>,
    placeholder: u32,
    video: Option<VideoMark>,
    architecture: String,
}

/// A picture whose positions are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Columns of the upright picture, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// It is each frame of a video.
    pub timing: Option<Timing>,
}

impl ImageCounter {
    /// Of a model that was found; None of a text-only model.
    ///
    /// # Errors
    /// Those of its image processor and of its tokenizer.
    pub(super) fn of(source: &Source) -> Result<Option<Self>> {
        let described = (family::<Cpu>(&source.config)?.inspect)(&source.config)?;
        let Some(images) = described.images() else { return Ok(None) };
        Ok(Some(ImageCounter {
            processor: images.processor(&source.settings())?,
            tokenizer: Arc::new(source.tokenizer()?),
            placeholder: images.placeholder(),
            video: images.video_mark(),
            architecture: source.config.architecture()?.to_owned(),
        }))
    }

    /// Of a picture of `width` x `height` pixels.
    ///
    /// # Errors
    /// [`Error::Image`] for a size that the model takes no pictures of.
    pub fn count(&self, width: usize, height: usize) -> Result<ImageTokens> {
        let plan = self.processor.plan(&mut || Ok((width, height)))?;
        let missing = || Error::Internal(format!("no token {} to stand for an image", self.placeholder));
        self.counted(plan, &self.tokenizer.token(self.placeholder).ok_or_else(missing)?, None)
    }

    /// Of what is asked: an image, or a video.
    ///
    /// # Errors
    /// As [`ImageCounter::count`]; [`Error::Prompt`] for a video where the model takes none, [`Error::Option`] for one that it does not take.
    pub fn count_asked(&self, asked: &Asked) -> Result<ImageTokens> {
        let Asked { width, height, timing } = asked;
        let (width, height) = (*width, *height);
        let Some(timing) = timing else { return self.count(width, height) };
        let refusal = || videos::no_videos(&self.architecture);
        let processor = self.processor.videos().ok_or_else(refusal)?;
        let plan = processor.plan(&Clip { width, height, timing })?;
        let image = || self.tokenizer.token(self.placeholder);
        match self.video {
            Some(VideoMark::Token(id)) => self.counted(plan, &self.tokenizer.token(id).ok_or_else(refusal)?, None),
            Some(VideoMark::Text { word, .. }) => self.counted(plan, word, image().as_deref()),
            None => Err(refusal()),
        }
    }

    /// The positions of a plan that stands for `text`; `frame` stands for the pieces of a video where that is another text.
    fn counted(&self, plan: images::ImagePlan, text: &str, frame: Option<&str>) -> Result<ImageTokens> {
        let pieces: Vec<PieceTokens> = plan.pieces().map(|(piece, tokens)| PieceTokens { piece, tokens }).collect();
        let tokens = pieces.iter().map(|piece| piece.tokens).sum();
        let encoded = |plans: &[_]| {
            let pictures = std::iter::once(0..text.len()).collect();
            let chat = Rendered { pictures, text: text.to_owned(), said: Vec::new() };
            let chat = images::expand(&chat, plans, frame)?.into_owned();
            let encoded = self.tokenizer.encode_chat(&chat, Some(self.placeholder), SpecialTokens::Parse)?;
            Ok::<usize, Error>(encoded.tokens.len() - encoded.pictures.len())
        };
        // A token that leads every text is no mark.
        let plain = images::ImagePlan::whole(Piece::base(1, 1), 1);
        let marks = encoded(&[plan])?.saturating_sub(encoded(&[plain])?);
        Ok(ImageTokens { tokens, marks, pieces })
    }
}

impl<B: Backend> Model<B> {
    /// Counts the positions of pictures for as long as it is kept; None of a text-only model.
    pub fn image_counter(&self) -> Option<ImageCounter> {
        let (processor, images) = (self.image_processor.clone()?, self.network.images()?);
        Some(ImageCounter {
            processor,
            tokenizer: self.tokenizer.clone(),
            placeholder: images.placeholder(),
            video: images.video_mark(),
            architecture: self.info.architecture.clone(),
        })
    }
}
