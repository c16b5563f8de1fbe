//! The form that images take in a prompt, by the family: found by arithmetic, before anything is decoded.

use std::borrow::Cow;

use crate::cache::Piece;
use crate::error::{Error, Result};
use crate::media::ImageProcessor;
use crate::text::{Rendered, Written};

/// Says the width and height of an image, in pixels; asked by families whose plans depend on them.
pub type SizeOf<'a> = &'a mut dyn FnMut() -> Result<(usize, usize)>;

/// How a family sees images.
pub trait Images {
    /// The token that stands for an image in a prompt.
    fn placeholder(&self) -> u32;

    /// The form that an image takes.
    fn plan(&self, size: SizeOf<'_>) -> Result<ImagePlan>;

    /// Why the folder's image processor does not make what the vision tower takes.
    fn mismatch(&self, processor: &ImageProcessor) -> Option<String>;
}

/// The parts that stand in a prompt for one image, in order: pieces, and text that marks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlan(pub Vec<PlanPart>);

/// A part of an [`ImagePlan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanPart {
    /// Tokenised with the text around it.
    Text(String),
    Piece {
        piece: Piece,
        /// Positions that it takes.
        tokens: usize,
    },
}

impl ImagePlan {
    /// An image that is one piece without marks.
    pub fn whole(piece: Piece, tokens: usize) -> Self {
        ImagePlan(vec![PlanPart::Piece { piece, tokens }])
    }

    /// The pieces and how many positions each takes.
    pub fn pieces(&self) -> impl Iterator<Item = (Piece, usize)> + '_ {
        self.0.iter().filter_map(|part| match part {
            PlanPart::Text(_) => None,
            PlanPart::Piece { piece, tokens } => Some((*piece, *tokens)),
        })
    }

    fn is_one_piece(&self) -> bool {
        matches!(self.0[..], [PlanPart::Piece { .. }])
    }
}

/// Whether images change the text, since they are more than a piece each.
pub(super) fn are_written(plans: &[ImagePlan]) -> bool {
    !plans.iter().all(ImagePlan::is_one_piece)
}

/// The conversation with the marks of its images in the text and one placeholder per piece. Nothing is copied where every image is one
/// piece.
pub(super) fn expand<'a>(chat: &'a Rendered, plans: &[ImagePlan]) -> Result<Cow<'a, Rendered>> {
    if !are_written(plans) {
        return Ok(Cow::Borrowed(chat));
    }
    if chat.pictures.len() != plans.len() {
        let (found, images) = (chat.pictures.len(), plans.len());
        return Err(Error::Prompt { reason: format!("it has {found} image placeholders for {images} images") });
    }
    let written = |part: &PlanPart| match part {
        PlanPart::Text(text) => Written::Text(text.clone()),
        PlanPart::Piece { .. } => Written::Placeholder,
    };
    let images: Vec<Vec<Written>> = plans.iter().map(|plan| plan.0.iter().map(written).collect()).collect();
    Ok(Cow::Owned(chat.with_images(&images)))
}
