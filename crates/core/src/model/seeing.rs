//! A language model behind a vision tower: all that families with pictures have in common.

use prefixkv_kernels::attention::AttentionParams;

use super::images::Images;
use super::info::ImageInfo;
use super::inputs::Inputs;
use super::llama::{Llama, LlamaConfig};
use super::network::{Describe, Loaded, Network, NetworkShape, Seen};
use crate::backend::Backend;
use crate::cache::{LayerCache, Span};
use crate::check::Check;
use crate::error::Result;
use crate::media::Prepared;
use crate::method::directions::Projection;
use crate::nn::{Loader, Matrix};
use crate::sequence::{Pass, Placing};
use crate::weights::Layouts;

/// The configuration of a family with pictures.
pub(super) trait Pictured: Images {
    /// The configuration of the language model.
    fn text(&self) -> &LlamaConfig;
    /// The pictures that the tower takes.
    fn image(&self) -> ImageInfo;
    /// As [`Describe::has_blocks`].
    fn has_blocks(&self) -> bool {
        false
    }
    /// As [`Describe::layouts`].
    fn layouts(&self) -> Layouts {
        Layouts::USUAL
    }
}

impl<C: Pictured> Describe for C {
    fn shape(&self) -> NetworkShape {
        self.text().shape()
    }

    fn layers(&self) -> Vec<LayerCache> {
        Describe::layers(self.text())
    }

    fn attention(&self) -> Vec<AttentionParams> {
        Describe::attention(self.text())
    }

    fn image(&self) -> Option<ImageInfo> {
        Some(Pictured::image(self))
    }

    fn images(&self) -> Option<&dyn Images> {
        Some(self)
    }

    fn has_blocks(&self) -> bool {
        Pictured::has_blocks(self)
    }

    fn layouts(&self) -> Layouts {
        Pictured::layouts(self)
    }

    fn place(&self, spans: &[Span]) -> Placing {
        self.text().place(spans)
    }
}

/// The tower of a family, and what brings its features to the language model.
pub(super) trait Vision<B: Backend>: Send + Sync {
    /// As [`Network::image_features`].
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>>;
    /// As [`Network::project`].
    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>>;
    /// As [`Network::assemble`].
    fn assemble(&self, projected: Matrix<B>, image: &Prepared) -> Result<Matrix<B>> {
        let _ = image;
        Ok(projected)
    }
}

/// A language model and its tower.
pub(super) struct Seeing<B: Backend, C, V> {
    config: C,
    text: Llama<B>,
    vision: V,
    vision_bytes: u64,
}

impl<B: Backend, C: Pictured, V: Vision<B>> Seeing<B, C, V> {
    /// The language model under one of the names `prefixes`, its head under one of `heads`, then what `vision` loads.
    pub(super) fn load(
        config: C,
        prefixes: &[&'static str],
        heads: &[&'static str],
        loader: &Loader<'_, B>,
        loaded: Loaded<'_>,
        vision: impl FnOnce(&C, Loaded<'_>) -> Result<V>,
    ) -> Result<Self> {
        let text = Llama::load(config.text().clone(), loader, prefixes, heads, loaded)?;
        let text_bytes = loader.tally().bytes;
        let vision = vision(&config, loaded)?;
        Ok(Seeing { config, text, vision, vision_bytes: loader.tally().bytes - text_bytes })
    }
}

impl<B: Backend, C: Pictured, V> Describe for Seeing<B, C, V> {
    fn shape(&self) -> NetworkShape {
        // The loaded model's: its cache has the format that goes with its weights.
        self.text.shape()
    }

    fn layers(&self) -> Vec<LayerCache> {
        self.text.layers()
    }

    fn attention(&self) -> Vec<AttentionParams> {
        self.text.attention()
    }

    fn image(&self) -> Option<ImageInfo> {
        Describe::image(&self.config)
    }

    fn images(&self) -> Option<&dyn Images> {
        Some(&self.config)
    }

    fn has_blocks(&self) -> bool {
        Pictured::has_blocks(&self.config)
    }

    fn rotates_values(&self) -> bool {
        self.text.rotates_values()
    }

    fn place(&self, spans: &[Span]) -> Placing {
        self.text.place(spans)
    }
}

impl<B: Backend, C: Pictured + Send + Sync, V: Vision<B>> Network<B> for Seeing<B, C, V> {
    fn embed(&self, tokens: &[u32]) -> Result<Matrix<B>> {
        self.text.embed(tokens)
    }

    fn forward(&self, x: Inputs<B>, pass: &mut Pass<'_, '_, B::Memory>, check: Check<'_>) -> Result<Matrix<B>> {
        self.text.forward(x, pass, check)
    }

    fn logits(&self, hidden: &Matrix<B>) -> Result<Matrix<B>> {
        self.text.logits(hidden)
    }

    fn normed(&self, hidden: &Matrix<B>) -> Result<Matrix<B>> {
        self.text.normed(hidden)
    }

    fn projection(&self, layer: usize) -> Result<Option<Projection>> {
        self.text.projection(layer)
    }

    fn vision_bytes(&self) -> u64 {
        self.vision_bytes
    }

    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        self.vision.image_features(image, noting, check)
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        self.vision.project(features)
    }

    fn assemble(&self, projected: Matrix<B>, image: &Prepared) -> Result<Matrix<B>> {
        self.vision.assemble(projected, image)
    }
}
