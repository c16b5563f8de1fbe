//! Llama: the text decoder, alone or under a vision tower. Touvron et al. 2023, arXiv 2302.13971.

mod config;
mod rope;

use candle_core::Tensor;
use prefixkv_kernels::activation::swiglu;

pub(super) use config::LlamaConfig;

use super::info::ImageInfo;
use super::network::{Check, Describe, Family, Loaded, Network, NetworkShape};
use crate::cache::Sequence;
use crate::error::{Error, Result};
use crate::live;
use crate::nn::attention::{self, Heads, Rotary};
use crate::nn::{Linear, Loader, RmsNorm, WeightFormat, slice};

pub(super) const FAMILY: Family = Family {
    architectures: &["LlamaForCausalLM"],
    inspect: |config| Ok(Box::new(LlamaConfig::parse(config, None)?)),
    load: |file, loader, _, loaded| {
        let config = LlamaConfig::parse(file, None)?;
        Ok(Box::new(Llama::load(config, loader, &["model."], &["lm_head"], loaded)?))
    },
};

/// Rows of the prompt that go through the MLP at a time: bounds its widest buffer to this many rows.
const MLP_ROWS: usize = 512;

impl Describe for LlamaConfig {
    fn shape(&self) -> NetworkShape {
        NetworkShape {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            vocab_size: self.vocab_size,
            max_positions: self.max_position_embeddings,
            cache: self.cache_shape(),
        }
    }

    fn image(&self) -> Option<ImageInfo> {
        None
    }
}

/// The decoder with its weights.
pub(super) struct Llama {
    config: LlamaConfig,
    embeddings: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    inverse_frequencies: Vec<f32>,
}

struct Layer {
    attention_norm: RmsNorm,
    /// Queries, keys and values in one product.
    fused: Linear,
    output: Linear,
    mlp_norm: RmsNorm,
    /// Gate and up in one product.
    gate_up: Linear,
    down: Linear,
}

impl Llama {
    /// `prefixes` and `heads` are the names under which weight layouts keep the decoder and the output head.
    pub(super) fn load(
        mut config: LlamaConfig,
        loader: &Loader<'_>,
        prefixes: &[&'static str],
        heads: &[&'static str],
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let prefix = loader.checkpoint.find_prefix(prefixes, "embed_tokens.weight")?;
        config.format = loader.format.cache_format();
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let table = [config.vocab_size, hidden];
        let embeddings_name = format!("{prefix}embed_tokens.weight");
        let embeddings = loader.table(&embeddings_name, &table)?;
        let norm = |name: &str| RmsNorm::new(loader.f32(&format!("{prefix}{name}.weight"), &[hidden])?, eps);
        let heads_of = config.heads();
        let (q, kv) = (heads_of.query * heads_of.dim, heads_of.kv * heads_of.dim);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for index in 0..config.num_hidden_layers {
            let at = |name: &str| format!("{prefix}layers.{index}.{name}");
            let (wq, wk, wv) = (at("self_attn.q_proj"), at("self_attn.k_proj"), at("self_attn.v_proj"));
            let (gate, up) = (at("mlp.gate_proj"), at("mlp.up_proj"));
            let inner = config.intermediate_size;
            layers.push(Layer {
                attention_norm: norm(&format!("layers.{index}.input_layernorm"))?,
                fused: loader.linear(&[(&wq, q), (&wk, kv), (&wv, kv)], hidden, config.attention_bias)?,
                output: loader.linear(&[(&at("self_attn.o_proj"), hidden)], q, config.attention_bias)?,
                mlp_norm: norm(&format!("layers.{index}.post_attention_layernorm"))?,
                gate_up: loader.linear(&[(&gate, inner), (&up, inner)], hidden, config.mlp_bias)?,
                down: loader.linear(&[(&at("mlp.down_proj"), hidden)], inner, config.mlp_bias)?,
            });
            loaded(loader.tally().bytes)?;
        }
        let own_head = heads.iter().any(|head| loader.checkpoint.has(&format!("{head}.weight")));
        // A head of its own in the file counts for more than the configuration, as in transformers.
        let head = if config.tie_word_embeddings && !own_head {
            match loader.format {
                WeightFormat::F32 | WeightFormat::F16 => loader.share(&embeddings),
                // From the file, so that quantisation starts from its numbers.
                _ => loader.hold(loader.checkpoint.tensor(&embeddings_name, &table)?, None)?,
            }
        } else {
            let name = loader.checkpoint.find_prefix(heads, ".weight")?;
            loader.linear(&[(name, config.vocab_size)], hidden, false)?
        };
        let inverse_frequencies = config.inverse_frequencies();
        Ok(Llama { norm: norm("norm")?, embeddings, layers, head, inverse_frequencies, config })
    }

    fn mlp(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let width = self.config.intermediate_size;
        let rows = x.dim(0)?;
        let one = |x: &Tensor| -> Result<Tensor> {
            let both = layer.gate_up.forward(&layer.mlp_norm.forward(x)?)?;
            let n = x.dim(0)?;
            let mut inner = vec![0.0; n * width];
            slice::with(&both, |both| swiglu(both, width, &mut inner))?;
            layer.down.forward(&Tensor::from_vec(inner, (n, width), x.device())?)
        };
        if rows <= MLP_ROWS {
            return one(x);
        }
        let parts: Vec<Tensor> = (0..rows)
            .step_by(MLP_ROWS)
            .map(|start| one(&x.narrow(0, start, MLP_ROWS.min(rows - start))?))
            .collect::<Result<_>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }
}

impl Describe for Llama {
    fn shape(&self) -> NetworkShape {
        self.config.shape()
    }

    fn image(&self) -> Option<ImageInfo> {
        None
    }
}

impl Network for Llama {
    fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(tokens, self.embeddings.device())?;
        // A placeholder may lie past the table; its row is replaced by image features.
        let ids = ids.minimum(self.config.vocab_size as u32 - 1)?;
        Ok(self.embeddings.index_select(&ids, 0)?.to_dtype(candle_core::DType::F32)?)
    }

    fn forward(&self, x: Tensor, sequence: &mut Sequence, check: Check<'_>) -> Result<Tensor> {
        let n = x.dim(0)?;
        let first = sequence.next_position();
        let end = first as usize + n;
        if end > self.config.max_position_embeddings {
            return Err(Error::ContextOverflow {
                needed: end,
                available: self.config.max_position_embeddings,
                image_tokens: 0,
            });
        }
        let rotary = Rotary::new(&self.inverse_frequencies, sequence, n);
        let heads: Heads = self.config.heads();
        let mut x = x;
        for (index, layer) in self.layers.iter().enumerate() {
            check()?;
            live::LAYERS_RUN.add(1);
            let fused = layer.fused.forward(&layer.attention_norm.forward(&x)?)?;
            let mixed = attention::causal(&fused, heads, &rotary, index, sequence)?;
            x = (x + layer.output.forward(&mixed)?)?;
            let mlp = self.mlp(layer, &x)?;
            x = (x + mlp)?;
        }
        self.norm.forward(&x)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(hidden)
    }
}
