//! The CLIP vision tower. Radford et al. 2021, arXiv 2103.00020.

mod config;

use candle_core::{D, Device, Tensor};

pub(super) use config::ClipConfig;

use super::network::Check;
use crate::error::Result;
use crate::media::Pixels;
use crate::nn::attention::{self, Heads};
use crate::nn::{LayerNorm, Linear, Loader};

pub(super) struct Clip {
    config: ClipConfig,
    /// The patch convolution as a product: stride equals kernel, so each patch is one row.
    patches: Linear,
    class: Tensor,
    positions: Tensor,
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
    pub(super) fn load(config: ClipConfig, depth: usize, loader: &Loader<'_>, prefix: &str) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        let at = |name: &str| format!("{prefix}{name}");
        let kernel = [hidden, 3, patch, patch];
        let kernel = loader.checkpoint.tensor(&at("embeddings.patch_embedding.weight"), &kernel)?;
        let norm = |name: &str| {
            let weight = loader.f32(&format!("{prefix}{name}.weight"), &[hidden])?;
            LayerNorm::new(weight, loader.f32(&format!("{prefix}{name}.bias"), &[hidden])?, config.layer_norm_eps)
        };
        let layers = (0..depth)
            .map(|index| {
                let at = |name: &str| format!("{prefix}encoder.layers.{index}.{name}");
                let (q, k, v) = (at("self_attn.q_proj"), at("self_attn.k_proj"), at("self_attn.v_proj"));
                Ok(Layer {
                    attention_norm: norm(&format!("encoder.layers.{index}.layer_norm1"))?,
                    fused: loader.linear(&[(&q, hidden), (&k, hidden), (&v, hidden)], hidden, true)?,
                    output: loader.linear(&[(&at("self_attn.out_proj"), hidden)], hidden, true)?,
                    mlp_norm: norm(&format!("encoder.layers.{index}.layer_norm2"))?,
                    up: loader.linear(&[(&at("mlp.fc1"), config.intermediate_size)], hidden, true)?,
                    down: loader.linear(&[(&at("mlp.fc2"), hidden)], config.intermediate_size, true)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Clip {
            patches: loader.hold(kernel.reshape((hidden, 3 * patch * patch))?, None)?,
            class: loader.f32(&at("embeddings.class_embedding"), &[hidden])?,
            positions: loader.f32(&at("embeddings.position_embedding.weight"), &[config.patches() + 1, hidden])?,
            norm: norm("pre_layrnorm")?,
            layers,
            config,
        })
    }

    /// The hidden states after each of `depths` layers (0: after the embeddings), `[patches + 1, hidden]` each, the class
    /// token first.
    pub(super) fn forward(&self, pixels: &Pixels, depths: &[usize], check: Check<'_>) -> Result<Vec<Tensor>> {
        let (side, patch) = (self.config.image_size / self.config.patch_size, self.config.patch_size);
        let image = Tensor::from_slice(&pixels.data, (3, side, patch, side, patch), &Device::Cpu)?;
        let rows = image.permute((1, 3, 0, 2, 4))?.reshape((side * side, 3 * patch * patch))?;
        let embedded = self.patches.forward(&rows)?;
        let x = Tensor::cat(&[&self.class.unsqueeze(0)?, &embedded], 0)?;
        let mut x = self.norm.forward(&(x + &self.positions)?)?;
        let n = side * side + 1;
        let heads = Heads {
            query: self.config.num_attention_heads,
            kv: self.config.num_attention_heads,
            dim: self.config.hidden_size / self.config.num_attention_heads,
        };
        let mut states = vec![x.clone()];
        for layer in &self.layers {
            check()?;
            let fused = layer.fused.forward(&layer.attention_norm.forward(&x)?)?;
            x = (x + layer.output.forward(&attention::bidirectional(&fused, n, heads)?)?)?;
            let inner = self.config.hidden_act.forward(&layer.up.forward(&layer.mlp_norm.forward(&x)?)?)?;
            x = (x + layer.down.forward(&inner)?)?;
            states.push(x.clone());
        }
        debug_assert_eq!(x.dim(D::Minus1)?, self.config.hidden_size);
        Ok(depths.iter().map(|depth| states[*depth].clone()).collect())
    }
}
