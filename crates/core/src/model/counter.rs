//! How many positions a picture takes, from its size alone.

use std::sync::Arc;

use serde::Serialize;

use super::Model;
use super::images::{self, ImageProcessor};
use super::source::Source;
use crate::backend::Backend;
use crate::cache::Piece;
use crate::error::{Error, Result};
use crate::text::{Rendered, SpecialTokens, Tokenizer};

/// The positions that a picture of some size takes in a prompt.
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
}

impl ImageCounter {
    /// Of a model that was found; None of a text-only model.
    ///
    /// # Errors
    /// Those of its image processor and of its tokenizer.
    pub(super) fn of(source: &Source) -> Result<Option<Self>> {
        let Some((placeholder, processor)) = images::processor_of(source)? else { return Ok(None) };
        Ok(Some(ImageCounter { processor, tokenizer: Arc::new(source.tokenizer()?), placeholder }))
    }

    /// Of a picture of `width` x `height` pixels.
    ///
    /// # Errors
    /// [`Error::Image`] for a size that the model takes no pictures of.
    pub fn count(&self, width: usize, height: usize) -> Result<ImageTokens> {
        let plan = self.processor.plan(&mut || Ok((width, height)))?;
        let pieces: Vec<PieceTokens> = plan.pieces().map(|(piece, tokens)| PieceTokens { piece, tokens }).collect();
        let tokens = pieces.iter().map(|piece| piece.tokens).sum();
        let missing = || Error::Internal(format!("no token {} to stand for an image", self.placeholder));
        let text = self.tokenizer.token(self.placeholder).ok_or_else(missing)?;
        let encoded = |plans: &[_]| {
            let pictures = std::iter::once(0..text.len()).collect();
            let chat = Rendered { pictures, text: text.clone(), said: Vec::new() };
            let chat = images::expand(&chat, plans)?.into_owned();
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
        let (processor, placeholder) = (self.image_processor.clone()?, self.placeholder()?);
        Some(ImageCounter { processor, tokenizer: self.tokenizer.clone(), placeholder })
    }
}
