//! The CLIP vision tower. Radford et al. 2021, arXiv 2103.00020.

mod config;
mod notes;

pub(super) use config::ClipConfig;

use super::network::Loaded;
use super::patches;
use crate::backend::Heads;
use crate::backend::{Activations, Backend};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::media::Pixels;
use crate::method::pictures::Notes;
use crate::nn::{LayerNorm, Linear, Loader, Matrix};

pub(super) struct Clip<B: Backend> {
    config: ClipConfig,
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

struct Layer<B: Backend> {
    attention_norm: LayerNorm<B>,
    fused: Linear<B>,
    output: Linear<B>,
    mlp_norm: LayerNorm<B>,
    up: Linear<B>,
    down: Linear<B>,
}

impl<B: Backend> Clip<B> {
    /// Loads the first `depth` layers under `prefix` (`...vision_model.`).
    pub(super) fn load(
        config: ClipConfig,
        depth: usize,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        loader.backend.require_heads(heads(&config))?;
        let at = |name: &str| format!("{prefix}{name}");
        let kernel = [hidden, 3, patch, patch];
        let norm = |name: &str| LayerNorm::load(loader, &format!("{prefix}{name}"), hidden, config.layer_norm_eps);
        let layers = (0..depth)
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
        Ok(Clip {
            patches: loader.reshaped(&at("embeddings.patch_embedding.weight"), &kernel, hidden, 3 * patch * patch)?,
            class: loader.matrix(&at("embeddings.class_embedding"), &[hidden], 1, hidden)?,
            positions: {
                let (name, rows) = (at("embeddings.position_embedding.weight"), config.patches() + 1);
                loader.matrix(&name, &[rows, hidden], rows, hidden)?
            },
            norm: norm("pre_layrnorm")?,
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
        let (side, patch) = (self.config.image_size / self.config.patch_size, self.config.patch_size);
        let rows = self.backend.matrix(patches::rows(pixels, patch, 1), side * side, 3 * patch * patch)?;
        let x = B::Matrix::cat(&[self.class.clone(), self.patches.forward(&self.backend.input(&rows))?])?;
        let mut x = self.norm.rows(&x.plus(&self.positions)?)?;
        let heads = heads(&self.config);
        // Only what is asked for, so that the sums of a layer can lie where its input was.
        let mut states: Vec<Option<Matrix<B>>> = depths.iter().map(|depth| (*depth == 0).then(|| x.clone())).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            check()?;
            let fused = layer.fused.forward(&layer.attention_norm.forward(&x)?)?;
            if noting && index + 1 == self.layers.len() {
                notes = Some(notes::of(&fused.to_vec()?, heads));
            }
            x = x.plus(&layer.output.forward(&self.backend.bidirectional(&fused, heads)?)?)?;
            let up = layer.up.forward(&layer.mlp_norm.forward(&x)?)?;
            let inner = self.backend.activate(&up, self.config.hidden_act)?;
            x = x.plus(&layer.down.forward(&inner)?)?;
            for (state, depth) in states.iter_mut().zip(depths) {
                if *depth == index + 1 {
                    *state = Some(x.clone());
                }
            }
        }
        let missing = || Error::Internal(format!("the tower has {} layers, asked for {depths:?}", self.layers.len()));
        Ok((states.into_iter().map(|state| state.ok_or_else(missing)).collect::<Result<_>>()?, notes))
    }
}

fn heads(config: &ClipConfig) -> Heads {
    let heads = config.num_attention_heads;
    Heads { query: heads, kv: heads, dim: config.hidden_size / heads }
}
