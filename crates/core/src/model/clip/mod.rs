//! The CLIP vision tower. Radford et al. 2021, arXiv 2103.00020.

mod config;

use prefixkv_kernels::cuda::Number;

pub(super) use config::ClipConfig;

use super::network::Loaded;
use crate::check::Check;
use crate::device::Place;
use crate::error::{Error, Result};
use crate::media::Pixels;
use crate::nn::attention::{self, Heads};
use crate::nn::{LayerNorm, Linear, Loader, Matrix};

pub(super) struct Clip {
    config: ClipConfig,
    place: Place,
    /// The patch convolution as a product: stride equals kernel, so each patch is one row.
    patches: Linear,
    /// `[1, hidden]`.
    class: Matrix,
    /// `[patches + 1, hidden]`.
    positions: Matrix,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    attention_norm: LayerNorm,
    fused: Linear,
    output: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Clip {
    /// Loads the first `depth` layers under `prefix` (`...vision_model.`).
    pub(super) fn load(
        config: ClipConfig,
        depth: usize,
        loader: &Loader<'_>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        heads(&config).require(&loader.place)?;
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
            place: loader.place.clone(),
            config,
        })
    }

    /// The hidden states after each of `depths` layers (0: after the embeddings), `[patches + 1, hidden]` each, the class
    /// token first.
    pub(super) fn forward(&self, pixels: &Pixels, depths: &[usize], check: Check<'_>) -> Result<Vec<Matrix>> {
        let (side, patch) = (self.config.image_size / self.config.patch_size, self.config.patch_size);
        let rows = Matrix::new(&self.place, patches(&pixels.data, side, patch), side * side, 3 * patch * patch)?;
        let x = Matrix::cat(&[self.class.clone(), self.patches.forward(&rows)?])?;
        let mut x = self.norm.forward(&x.plus(&self.positions)?, Number::F32)?;
        let heads = heads(&self.config);
        // Only what is asked for, so that the sums of a layer can lie where its input was.
        let mut states: Vec<Option<Matrix>> = depths.iter().map(|depth| (*depth == 0).then(|| x.clone())).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            check()?;
            let fused = layer.fused.forward(&layer.attention_norm.forward(&x, layer.fused.input())?)?;
            x = x.plus(&layer.output.forward(&attention::bidirectional(&fused, heads)?)?)?;
            let up = layer.up.forward(&layer.mlp_norm.forward(&x, layer.up.input())?)?;
            let inner = self.config.hidden_act.forward(&up, layer.down.input())?;
            x = x.plus(&layer.down.forward(&inner)?)?;
            for (state, depth) in states.iter_mut().zip(depths) {
                if *depth == index + 1 {
                    *state = Some(x.clone());
                }
            }
        }
        let missing = || Error::Internal(format!("the tower has {} layers, asked for {depths:?}", self.layers.len()));
        states.into_iter().map(|state| state.ok_or_else(missing)).collect()
    }
}

fn heads(config: &ClipConfig) -> Heads {
    let heads = config.num_attention_heads;
    Heads { query: heads, kv: heads, dim: config.hidden_size / heads }
}

/// The pixels of each patch as a row: of `[3, side * patch, side * patch]` to `[side * side, 3 * patch * patch]`.
fn patches(pixels: &[f32], side: usize, patch: usize) -> Vec<f32> {
    let width = side * patch;
    let mut rows = Vec::with_capacity(pixels.len());
    for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
        for (channel, y) in (0..3).flat_map(|channel| (0..patch).map(move |y| (channel, y))) {
            let start = (channel * width + row * patch + y) * width + column * patch;
            rows.extend_from_slice(&pixels[start..start + patch]);
        }
    }
    rows
}
