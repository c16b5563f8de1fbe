//! The CLIP vision tower. Radford et al. 2021, arXiv 2103.00020.

mod config;
mod notes;

pub(super) use config::parse;

use super::encoder::{EncoderConfig, Layer, States};
use super::network::Loaded;
use super::patches;
use crate::backend::{Activations, Backend};
use crate::check::Check;
use crate::error::Result;
use crate::fields::refuse;
use crate::media::Pixels;
use crate::method::pictures::Notes;
use crate::nn::{LayerNorm, Linear, Loader, Matrix};

pub(super) struct Clip<B: Backend> {
    config: EncoderConfig,
    backend: B,
    /// The patch convolution as a product: stride equals kernel, so each patch is one row.
    patches: Linear<B>,
    /// `[1, hidden]`.
    class: Matrix<B>,
    /// `[patches + 1, hidden]`.
    positions: Matrix<B>,
    norm: LayerNorm<B>,
    layers: Vec<Layer<B>>,
}

impl<B: Backend> Clip<B> {
    /// Loads the first `depth` layers under `prefix` (`...vision_model.`).
    pub(super) fn load(
        config: EncoderConfig,
        depth: usize,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        loader.backend.require_heads(config.heads())?;
        let at = |name: &str| format!("{prefix}{name}");
        let kernel = [hidden, 3, patch, patch];
        let layers = Layer::load(&config, depth, loader, prefix, loaded)?;
        Ok(Clip {
            patches: loader.reshaped(&at("embeddings.patch_embedding.weight"), &kernel, hidden, 3 * patch * patch)?,
            class: loader.matrix(&at("embeddings.class_embedding"), &[hidden], 1, hidden)?,
            positions: {
                let (name, rows) = (at("embeddings.position_embedding.weight"), config.patches() + 1);
                loader.matrix(&name, &[rows, hidden], rows, hidden)?
            },
            norm: LayerNorm::load(loader, &at("pre_layrnorm"), hidden, config.layer_norm_eps)?,
            layers,
            backend: loader.backend.clone(),
            config,
        })
    }

    /// The hidden states after each of `depths` layers (0: after the embeddings), `[patches + 1, hidden]` each, the class
    /// token first; and, when `noting`, what the last layer that was loaded has looked at.
    pub(super) fn forward(
        &self,
        pixels: &Pixels,
        depths: &[usize],
        noting: bool,
        check: Check<'_>,
    ) -> Result<(Vec<Matrix<B>>, Option<Notes>)> {
        if noting && self.layers.is_empty() {
            return Err(refuse(
                "this model takes the embeddings of its images as they are, so no attention says which positions matter; use another method",
            ));
        }
        let mut notes = None;
        let (side, patch) = (self.config.side(), self.config.patch_size);
        let rows = self.backend.matrix(patches::rows(pixels, patch, 1), side * side, 3 * patch * patch)?;
        let x = B::Matrix::cat(&[self.class.clone(), self.patches.forward(&self.backend.input(&rows))?])?;
        let mut x = self.norm.rows(&x.plus(&self.positions)?)?;
        let mut states = States::<B>::of(depths, &x);
        for (index, layer) in self.layers.iter().enumerate() {
            check()?;
            let fused = layer.fused(&x)?;
            if noting && index + 1 == self.layers.len() {
                notes = Some(notes::of(&fused.to_vec()?, self.config.heads()));
            }
            x = layer.forward(x, fused, &self.config, &self.backend)?;
            states.see(index + 1, &x);
        }
        Ok((states.found()?, notes))
    }
}
