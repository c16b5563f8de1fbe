//! The SigLIP vision tower: no class token, a position for each patch. Zhai et al. 2023, arXiv 2303.15343.

mod config;

pub(super) use config::{CLASS, parse};

use super::encoder::{EncoderConfig, Layer, States};
use super::network::Loaded;
use super::patches;
use crate::backend::{Activations, Backend};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::Pixels;
use crate::nn::{LayerNorm, Linear, Loader, Matrix};

pub(super) struct Siglip<B: Backend> {
    config: EncoderConfig,
    backend: B,
    /// The numbers, row by row, of the patches in the order in which they are read.
    order: Vec<usize>,
    /// The patch convolution as a product: stride equals kernel, so each patch is one row.
    patches: Linear<B>,
    /// Of the patches in the order in which they are read, `[side * side, hidden]`.
    positions: Matrix<B>,
    layers: Vec<Layer<B>>,
    /// Behind the last layer, where that is loaded.
    norm: Option<LayerNorm<B>>,
}

impl<B: Backend> Siglip<B> {
    /// Loads the tower under `prefix` (`...vision_model.`), which reads the patches of a tile in `order`.
    pub(super) fn load(
        config: EncoderConfig,
        order: Vec<usize>,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let depth = config.num_hidden_layers;
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        let mut tower = Self::load_layers(config, depth, order, loader, prefix, loaded)?;
        tower.norm = Some(LayerNorm::load(loader, &format!("{prefix}post_layernorm"), hidden, eps)?);
        Ok(tower)
    }

    /// As [`Siglip::load`] for [`Siglip::states`]: the first `depth` layers, without the last norm.
    pub(super) fn load_layers(
        config: EncoderConfig,
        depth: usize,
        order: Vec<usize>,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        loader.backend.require_heads(config.heads())?;
        let layers = Layer::load(&config, depth, loader, prefix, loaded)?;
        let (convolution, table) =
            (format!("{prefix}embeddings.patch_embedding"), format!("{prefix}embeddings.position_embedding.weight"));
        Ok(Siglip {
            patches: loader.convolution(&convolution, &[hidden, 3, patch, patch])?,
            positions: loader.ordered(&table, &[order.len(), hidden], &order, hidden)?,
            layers,
            norm: None,
            backend: loader.backend.clone(),
            order,
            config,
        })
    }

    /// The hidden states of a tile behind the last norm, `[side * side, hidden]`, in the order of its patches.
    pub(super) fn forward(&self, tile: &Pixels, check: Check<'_>) -> Result<Matrix<B>> {
        let norm = self.norm.as_ref().ok_or_else(|| Error::Internal("a tower without its last norm".into()))?;
        let mut states = self.states(tile, &[self.layers.len()], check)?;
        let last = states.pop().ok_or_else(|| Error::Internal("a tower without states".into()))?;
        norm.rows(&last)
    }

    /// The hidden states of a tile after each of `depths` layers (0: after the embeddings), before the last norm; else as
    /// [`Siglip::forward`].
    pub(super) fn states(&self, tile: &Pixels, depths: &[usize], check: Check<'_>) -> Result<Vec<Matrix<B>>> {
        let (patch, side) = (self.config.patch_size, self.config.side());
        if (tile.height / patch, tile.width / patch) != (side, side) {
            let (width, height) = (tile.width, tile.height);
            return Err(Error::Internal(format!(
                "a tile of {width} x {height} for a tower of {side} x {side} patches"
            )));
        }
        let rows = self.backend.matrix(patches::numbered(tile, patch, &self.order), side * side, 3 * patch * patch)?;
        let mut x = self.patches.forward(&self.backend.input(&rows))?.plus(&self.positions)?;
        let mut states = States::<B>::of(depths, &x);
        for (index, layer) in self.layers.iter().enumerate() {
            check()?;
            let fused = layer.fused(&x)?;
            x = layer.forward(x, fused, &self.config, &self.backend)?;
            states.see(index + 1, &x);
        }
        states.found()
    }
}
