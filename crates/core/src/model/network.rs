//! The interface that a family must offer.

use prefixkv_kernels::attention::AttentionParams;

use super::config::ConfigFile;
use super::images::Images;
use super::info::ImageInfo;
use super::inputs::Inputs;
use crate::backend::Backend;
use crate::cache::{self, LayerCache, Span};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::Prepared;
use crate::method::directions::Projection;
use crate::method::pictures::Notes;
use crate::nn::{Loader, Matrix};
use crate::sequence::{Pass, Placing};
use crate::weights::Layouts;

/// Called with the bytes loaded so far; an error stops the load.
pub(super) type Loaded<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// Sizes that do not depend on weights.
#[derive(Clone, Copy, Debug)]
pub struct NetworkShape {
    pub hidden_size: usize,
    pub heads: usize,
    pub vocab_size: usize,
    pub max_positions: usize,
    pub cache: cache::Shape,
}

/// Sizes of a network, with or without its weights.
pub trait Describe {
    fn shape(&self) -> NetworkShape;
    /// How each layer uses the cache.
    fn layers(&self) -> Vec<LayerCache>;
    /// The attention of each layer.
    fn attention(&self) -> Vec<AttentionParams>;
    /// None for a text-only model.
    fn image(&self) -> Option<ImageInfo>;
    /// How images become positions; None for a text-only model.
    fn images(&self) -> Option<&dyn Images> {
        None
    }
    /// Whether the Hadamard transform of values is in its weights, in those before attention and those behind it.
    fn rotates_values(&self) -> bool {
        false
    }
    /// Whether the positions of an image see each other while a prompt is read.
    fn has_blocks(&self) -> bool {
        false
    }
    /// The names that files of different versions have for the same tensors.
    fn layouts(&self) -> Layouts {
        Layouts::USUAL
    }
    /// Where rotary embedding turns the positions of a prompt.
    fn place(&self, spans: &[Span]) -> Placing {
        let _ = spans;
        Placing::InOrder
    }
}

/// An image as the vision tower has seen it.
pub struct Seen<B: Backend> {
    /// The features that the projector takes, those of all pieces, `[image tokens, width]` in f32; or those of all tiles, in families that
    /// [`assemble`](Network::assemble) them afterwards.
    pub features: Matrix<B>,
    /// Added by the language model to the rows of the image behind each of its first layers, `[image tokens, hidden]`; mostly nothing.
    pub behind: Vec<Matrix<B>>,
    /// Notes of the layer that they come from.
    pub notes: Option<Notes>,
}

/// A network with its weights.
pub trait Network<B: Backend>: Describe + Send + Sync {
    /// Token embeddings, `[n, hidden]` in f32. Tokens must be below the vocabulary's size.
    fn embed(&self, tokens: &[u32]) -> Result<Matrix<B>>;
    /// The rows of `pass` through all layers: final hidden states before the last norm.
    fn forward(&self, x: Inputs<B>, pass: &mut Pass<'_, '_, B::Memory>, check: Check<'_>) -> Result<Matrix<B>>;
    /// Logits of hidden states, `[n, vocab]` in f32.
    fn logits(&self, hidden: &Matrix<B>) -> Result<Matrix<B>>;
    /// Hidden states behind the last norm, `[n, hidden]` in f32.
    fn normed(&self, hidden: &Matrix<B>) -> Result<Matrix<B>>;
    /// The weights from which a layer's keys and values come, without that transform; None where it reads those of another. Refuses a network whose keys and values
    /// come from more than a product with weights.
    fn projection(&self, layer: usize) -> Result<Option<Projection>>;
    /// Bytes of the vision tower and of what brings its features to the language model.
    fn vision_bytes(&self) -> u64 {
        0
    }
    /// An image through the vision tower. When `noting`, with what methods choose by; refuses that with an [`Error::Option`] where the tower
    /// has no class token that has looked at the image.
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        let _ = (image, noting, check);
        Err(text_only())
    }
    /// Features in the language model's space, `[image tokens, hidden]` in f32, row by row.
    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        let _ = features;
        Err(text_only())
    }
    /// The rows of an image, `[image tokens, hidden]`, from its projected features: mostly the same.
    fn assemble(&self, projected: Matrix<B>, image: &Prepared) -> Result<Matrix<B>> {
        let _ = image;
        Ok(projected)
    }
}

fn text_only() -> Error {
    Error::Prompt { reason: "this model is text-only and cannot take images".into() }
}

type Load<B> = fn(&ConfigFile, &Loader<'_, B>, Loaded<'_>) -> Result<Box<dyn Network<B>>>;

/// A model family: which architectures it is and how it comes to be.
pub struct Family<B: Backend> {
    /// Values of `architectures[0]` in config.json.
    pub architectures: &'static [&'static str],
    /// The architecture of a config.json that names none, by its `model_type`.
    pub implied: fn(&str) -> Option<&'static str>,
    pub inspect: fn(&ConfigFile) -> Result<Box<dyn Describe>>,
    pub load: Load<B>,
    /// The names of tensors that belong to no language model begin with one of these.
    pub vision: &'static [&'static str],
}
