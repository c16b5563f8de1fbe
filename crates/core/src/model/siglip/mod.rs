//! The SigLIP vision tower: no class token, a position for each patch. Zhai et al. 2023, arXiv 2303.15343.

mod config;

pub(super) use config::SiglipConfig;

use super::network::Loaded;
use super::patches;
use crate::backend::Heads;
use crate::backend::{Activations, Backend};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::Pixels;
use crate::nn::{LayerNorm, Linear, Loader, Matrix};

pub(super) struct Siglip<B: Backend> {
    config: SiglipConfig,
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

struct Layer<B: Backend> {
    attention_norm: LayerNorm<B>,
    fused: Linear<B>,
    output: Linear<B>,
    mlp_norm: LayerNorm<B>,
    up: Linear<B>,
    down: Linear<B>,
}

impl<B: Backend> Siglip<B> {
    /// Loads the tower under `prefix` (`...vision_model.`) for cells of `merge` x `merge` patches, which must fill a tile.
    pub(super) fn load(
        config: SiglipConfig,
        merge: usize,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        loader.backend.require_heads(heads(&config))?;
        let norm = |name: &str| LayerNorm::load(loader, &format!("{prefix}{name}"), hidden, config.layer_norm_eps);
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                let at = |name: &str| format!("{prefix}encoder.layers.{index}.{name}");
                let (q, k, v) = (at("self_attn.q_proj"), at("self_attn.k_proj"), at("self_attn.v_proj"));
                let layer = Layer {
                    attention_norm: norm(&format!("encoder.layers.{index}.layer_norm1"))?,
                    fused: loader.linear(&[(&q, hidden), (&k, hidden), (&v, hidden)], hidden, true)?,
                    output: loader.linear(&[(&at("self_attn.out_proj"), hidden)], hidden, true)?,
                    mlp_norm: norm(&format!("encoder.layers.{index}.layer_norm2"))?,
                    up: loader.linear(&[(&at("mlp.fc1"), config.intermediate_size)], hidden, true)?,
                    down: loader.linear(&[(&at("mlp.fc2"), hidden)], config.intermediate_size, true)?,
                };
                loaded(loader.tally().bytes)?;
                Ok(layer)
            })
            .collect::<Result<_>>()?;
        let (convolution, table) =
            (format!("{prefix}embeddings.patch_embedding"), format!("{prefix}embeddings.position_embedding.weight"));
        Ok(Siglip {
            patches: loader.convolution(&convolution, &[hidden, 3, patch, patch])?,
            positions: loader.ordered(&table, &patches::order(config.side(), config.side(), merge), hidden)?,
            layers,
            norm: norm("post_layernorm")?,
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
        let heads = heads(&self.config);
        for layer in &self.layers {
            check()?;
            let fused = layer.fused.forward(&layer.attention_norm.forward(&x)?)?;
            x = x.plus(&layer.output.forward(&self.backend.bidirectional(&fused, heads)?)?)?;
            let up = layer.up.forward(&layer.mlp_norm.forward(&x)?)?;
            let inner = self.backend.activate(&up, self.config.hidden_act)?;
            x = x.plus(&layer.down.forward(&inner)?)?;
        }
        self.norm.rows(&x)
    }
}

fn heads(config: &SiglipConfig) -> Heads {
    let heads = config.num_attention_heads;
    Heads { query: heads, kv: heads, dim: config.hidden_size / heads }
}
