//! The SigLIP vision tower: no class token, a position for each patch. Zhai et al. 2023, arXiv 2303.15343.

mod config;

pub(super) use config::parse;

use super::encoder::{EncoderConfig, Layer};
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
    /// Cells are squares of so many patches along a side.
    merge: usize,
    /// The patch convolution as a product: stride equals kernel, so each patch is one row.
    patches: Linear<B>,
    /// Of the patches in the order in which they are read, `[side * side, hidden]`.
    positions: Matrix<B>,
    layers: Vec<Layer<B>>,
    /// Behind the last layer.
    norm: LayerNorm<B>,
}

impl<B: Backend> Siglip<B> {
    /// Loads the tower under `prefix` (`...vision_model.`) for cells of `merge` x `merge` patches, which must fill a tile.
    pub(super) fn load(
        config: EncoderConfig,
        merge: usize,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        loader.backend.require_heads(config.heads())?;
        let layers = Layer::load(&config, config.num_hidden_layers, loader, prefix, loaded)?;
        let (convolution, table) =
            (format!("{prefix}embeddings.patch_embedding"), format!("{prefix}embeddings.position_embedding.weight"));
        Ok(Siglip {
            patches: loader.convolution(&convolution, &[hidden, 3, patch, patch])?,
            positions: loader.ordered(&table, &patches::order(config.side(), config.side(), merge), hidden)?,
            layers,
            norm: LayerNorm::load(loader, &format!("{prefix}post_layernorm"), hidden, config.layer_norm_eps)?,
            backend: loader.backend.clone(),
            merge,
            config,
        })
    }

    /// The hidden states of a tile behind the last norm, `[side * side, hidden]`, the patches of a cell one behind the other.
    pub(super) fn forward(&self, tile: &Pixels, check: Check<'_>) -> Result<Matrix<B>> {
        let (patch, side) = (self.config.patch_size, self.config.side());
        if (tile.height / patch, tile.width / patch) != (side, side) {
            let (width, height) = (tile.width, tile.height);
            return Err(Error::Internal(format!(
                "a tile of {width} x {height} for a tower of {side} x {side} patches"
            )));
        }
        let rows = self.backend.matrix(patches::rows(tile, patch, self.merge), side * side, 3 * patch * patch)?;
        let mut x = self.patches.forward(&self.backend.input(&rows))?.plus(&self.positions)?;
        for layer in &self.layers {
            check()?;
            let fused = layer.fused(&x)?;
            x = layer.forward(x, fused, &self.config, &self.backend)?;
        }
        self.norm.rows(&x)
    }
}
