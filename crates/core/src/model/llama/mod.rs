//! Llama and its relatives: the text decoder, alone or under a vision tower. Touvron et al. 2023, arXiv 2302.13971.

mod config;
mod decoder;
mod kinds;
mod rope;

pub(super) use config::LlamaConfig;

use prefixkv_kernels::attention::AttentionParams;
use prefixkv_kernels::codec::Transform;
use prefixkv_kernels::fold::Fold;
use prefixkv_kernels::rotary::Frequencies;

use super::info::ImageInfo;
use super::inputs::Inputs;
use super::network::{Describe, Family, Loaded, Network, NetworkShape};
use super::placing;
use crate::backend::{Activations, Backend, LayerKind};
use crate::cache::{LayerCache, Span};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::directions::Projection;
use crate::metrics;
use crate::nn::{HeadNorms, Linear, Loader, Matrix, RmsNorm};
use crate::sequence::{Pass, Placing};
use crate::weights::Folding;

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: decoder::ARCHITECTURES,
        implied: decoder::architecture,
        inspect: |config| Ok(Box::new(LlamaConfig::parse(config, None)?)),
        load: |file, loader, loaded| {
            let config = LlamaConfig::parse(file, None)?;
            Ok(Box::new(Llama::load(config, loader, &["model."], &["lm_head"], loaded)?))
        },
        vision: &[],
    }
}

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

    fn layers(&self) -> Vec<LayerCache> {
        LlamaConfig::layers(self)
    }

    fn attention(&self) -> Vec<AttentionParams> {
        LlamaConfig::attention(self)
    }

    /// Along three axes where the rotary embedding has sections.
    fn place(&self, spans: &[Span]) -> Placing {
        if self.ropes.iter().any(|rope| rope.sections.is_some()) { placing::on_grids(spans) } else { Placing::InOrder }
    }

    fn image(&self) -> Option<ImageInfo> {
        None
    }
}

/// The decoder with its weights.
pub(super) struct Llama<B: Backend> {
    config: LlamaConfig,
    backend: B,
    embeddings: B::Table,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    head: Linear<B>,
    /// By [`LayerKind::rope`].
    ropes: Vec<Frequencies>,
    embedding_scale: Option<f32>,
    /// Whether the Hadamard transform of values is in the weights.
    rotates_values: bool,
}

struct Layer<B: Backend> {
    kind: LayerKind,
    attention_norm: RmsNorm<B>,
    /// Queries, keys and values in one product; of a layer that reads another's keys and values, queries alone.
    fused: Linear<B>,
    head_norms: Option<HeadNorms<B>>,
    output: Linear<B>,
    mlp_norm: RmsNorm<B>,
    /// Gate and up in one product.
    gate_up: Linear<B>,
    down: Linear<B>,
    /// Of the results of attention and of the MLP.
    branch_norms: Option<[RmsNorm<B>; 2]>,
}

impl<B: Backend> Llama<B> {
    /// `prefixes` and `heads` are the names under which weight layouts keep the decoder and the output head.
    pub(super) fn load(
        mut config: LlamaConfig,
        loader: &Loader<'_, B>,
        prefixes: &[&'static str],
        heads: &[&'static str],
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        if loader.rotates_values {
            Transform::Hadamard.check(config.head_dim).map_err(|reason| {
                refuse(format!("`rotateValues` cannot be had for {reason}: load this model without it"))
            })?;
        }
        let prefix = loader.checkpoint.find_prefix(prefixes, "embed_tokens.weight")?;
        config.format = loader.format.cache_format();
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let embeddings_name = format!("{prefix}embed_tokens.weight");
        let embeddings = loader.table(&embeddings_name, config.vocab_size, hidden)?;
        let offset = config.norm_offset;
        let norm = |name: &str| RmsNorm::load(loader, &format!("{prefix}{name}"), hidden, offset, eps);
        let heads_of = config.heads();
        loader.backend.require_heads(heads_of)?;
        let (q, kv) = (heads_of.query * heads_of.dim, heads_of.kv * heads_of.dim);
        let rotated = loader.rotates_values.then_some(heads_of.dim);
        let (order, factors) = (config.row_order(), config.row_factors());
        let head_norms = |index: usize, kind: &LayerKind| -> Result<Option<HeadNorms<B>>> {
            let at = |name: &str| format!("{prefix}layers.{index}.self_attn.{name}_norm");
            let keys = kind.stores().then(|| at("k"));
            let load = || HeadNorms::load(loader, &at("q"), keys.as_deref(), kind.heads, offset, eps);
            config.head_norms.then(load).transpose()
        };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for (index, kind) in config.kinds.iter().enumerate() {
            let at = |name: &str| format!("{prefix}layers.{index}.{name}");
            let inner = config.intermediate_size;
            let (projections, gate_up) = if config.fused {
                (vec![("self_attn.qkv_proj", q + 2 * kv)], vec![("mlp.gate_up_proj", 2 * inner)])
            } else {
                let mut own = vec![("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)];
                own.truncate(if kind.stores() { 3 } else { 1 });
                (own, vec![("mlp.gate_proj", inner), ("mlp.up_proj", inner)])
            };
            let folded = |parts: &[(&str, usize)], columns: usize, bias: bool, folding: Option<Folding>| {
                let names: Vec<_> = parts.iter().map(|(name, rows)| (at(name), *rows)).collect();
                let names: Vec<_> = names.iter().map(|(name, rows)| (&name[..], *rows)).collect();
                loader.folded(&names, columns, bias, folding)
            };
            let linear = |parts: &[(&str, usize)], columns: usize, bias: bool| folded(parts, columns, bias, None);
            let (part, first) = if config.fused { (0, q + kv) } else { (2, 0) };
            let values = rotated.filter(|_| kind.stores()).map(|dim| Folding { part, first, fold: Fold::Rows(dim) });
            let outputs = rotated.map(|dim| Folding { part: 0, first: 0, fold: Fold::Columns(dim) });
            let norm = |name: &str| norm(&format!("layers.{index}.{name}"));
            let branch_norms = if config.branch_norms {
                Some([norm("post_attention_layernorm")?, norm("post_feedforward_layernorm")?])
            } else {
                None
            };
            let before_mlp = if config.branch_norms { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
            layers.push(Layer {
                kind: *kind,
                attention_norm: norm("input_layernorm")?,
                fused: match &order {
                    Some(order) => {
                        loader.in_order(&at("self_attn.qkv_proj"), order, factors.as_deref(), hidden, values)?
                    }
                    None => folded(&projections, hidden, config.attention_bias, values)?,
                },
                head_norms: head_norms(index, kind)?,
                output: folded(&[("self_attn.o_proj", hidden)], q, config.output_bias, outputs)?,
                mlp_norm: norm(before_mlp)?,
                gate_up: linear(&gate_up, hidden, config.mlp_bias)?,
                down: linear(&[("mlp.down_proj", hidden)], inner, config.mlp_bias)?,
                branch_norms,
            });
            loaded(loader.tally().bytes)?;
        }
        let own_head = heads.iter().any(|head| loader.checkpoint.has(&format!("{head}.weight")));
        // A head of its own in the file counts for more than the configuration, as in transformers.
        let head = if config.tie_word_embeddings && !own_head {
            loader.tied(&embeddings, &embeddings_name, config.vocab_size, hidden)?
        } else {
            let name = loader.checkpoint.find_prefix(heads, ".weight")?;
            loader.linear(&[(name, config.vocab_size)], hidden, false)?
        };
        let ropes = config.ropes.iter().map(|rope| config.frequencies(rope)).collect();
        let backend = loader.backend.clone();
        let root = (hidden as f64).sqrt() as f32;
        let embedding_scale = match (config.scaled_embeddings, config.rounded_scale) {
            (false, _) => None,
            (true, false) => Some(root),
            // transformers rounds the factor to the type of the table that it multiplies.
            (true, true) => Some(loader.checkpoint.rounded(&embeddings_name, root)?),
        };
        let rotates_values = loader.rotates_values;
        let norm = norm("norm")?;
        Ok(Llama { backend, norm, embeddings, layers, head, ropes, embedding_scale, config, rotates_values })
    }

    /// The rotations of the `n` rows on their way, also for what a method has to know of them.
    fn rotary(&self, pass: &mut Pass<'_, '_, B::Memory>, n: usize) -> Result<B::Rotary> {
        if let Pass::Prompt(sequence) = pass {
            sequence.look_ahead(&self.ropes, n)?;
        }
        let kinds: Vec<LayerKind> = self.layers.iter().map(|layer| layer.kind).collect();
        self.backend.rotary(&self.ropes, &kinds, pass, n)
    }

    /// `x` and the result of the layer's MLP, added up.
    fn mlp(&self, layer: &Layer<B>, x: Matrix<B>, check: Check<'_>) -> Result<Matrix<B>> {
        let rows = x.rows();
        let one = |x: Matrix<B>| -> Result<Matrix<B>> {
            let both = layer.gate_up.forward(&layer.mlp_norm.forward(&x)?)?;
            let inner = self.backend.glu(&both, self.config.gate)?;
            match &layer.branch_norms {
                Some([_, norm]) => x.plus(&norm.rows(&layer.down.forward(&inner)?)?),
                None => layer.down.onto(&inner, x),
            }
        };
        if rows <= B::MLP_ROWS {
            return one(x);
        }
        let (mut parts, mut start) = (Vec::new(), 0);
        while start < rows {
            check()?;
            let part = super::rows::next(rows - start, B::MLP_ROWS);
            parts.push(one(x.narrow(start, part)?)?);
            start += part;
        }
        B::Matrix::cat(&parts)
    }
}

impl<B: Backend> Describe for Llama<B> {
    fn shape(&self) -> NetworkShape {
        self.config.shape()
    }

    fn layers(&self) -> Vec<LayerCache> {
        self.config.layers()
    }

    fn attention(&self) -> Vec<AttentionParams> {
        self.config.attention()
    }

    fn rotates_values(&self) -> bool {
        self.rotates_values
    }

    fn place(&self, spans: &[Span]) -> Placing {
        self.config.place(spans)
    }

    fn image(&self) -> Option<ImageInfo> {
        None
    }
}

impl<B: Backend> Network<B> for Llama<B> {
    fn embed(&self, tokens: &[u32]) -> Result<Matrix<B>> {
        // A placeholder may lie past the table; its row is replaced by image features.
        let rows = self.backend.rows(&self.embeddings, tokens)?;
        match self.embedding_scale {
            Some(factor) => rows.times(factor),
            None => Ok(rows),
        }
    }

    fn forward(&self, x: Inputs<B>, pass: &mut Pass<'_, '_, B::Memory>, check: Check<'_>) -> Result<Matrix<B>> {
        let n = x.len();
        let available = self.config.max_position_embeddings;
        match pass {
            Pass::Prompt(sequence) => require_room(sequence.reach(n), available)?,
            Pass::Step(members) => {
                for member in members.iter_mut() {
                    member.attempt(|sequence| require_room(sequence.reach(1), available));
                }
            }
        }
        let mut rotary = self.rotary(pass, n)?;
        let Inputs { rows: mut x, behind } = x;
        let mut behind = behind.into_iter();
        for (index, layer) in self.layers.iter().enumerate() {
            check()?;
            metrics::LAYERS_RUN.add(1);
            metrics::ROWS_RUN.add(x.rows() as u64);
            let kind = layer.kind.in_pass(pass);
            if !kind.stores() {
                metrics::ROWS_SHARED.add(x.rows() as u64);
            }
            if let Some(sequence) = pass.seeing_inputs().filter(|_| kind.stores()) {
                let inputs = layer.attention_norm.rows(&x)?;
                sequence.see_inputs(index, inputs.rows(), &inputs.column_magnitudes()?);
            }
            let fused = layer.fused.first(&layer.attention_norm.forward(&x)?, kind.fused())?;
            let fused = match &layer.head_norms {
                Some(norms) => norms.forward(&fused)?,
                None => fused,
            };
            let mixed = self.backend.causal(&fused, &kind, &rotary, pass, check)?;
            check()?;
            x = match &layer.branch_norms {
                Some([norm, _]) => x.plus(&norm.rows(&layer.output.forward(&mixed)?)?)?,
                None => layer.output.onto(&mixed, x)?,
            };
            if let Some(rows) = pass.take_chosen() {
                x = x.select(&rows)?;
                behind = behind.map(|of| of.select(&rows)).collect::<Result<Vec<_>>>()?.into_iter();
                rotary = self.rotary(pass, rows.len())?;
            }
            x = self.mlp(layer, x, check)?;
            if let Some(of_images) = behind.next() {
                x = x.plus(&of_images)?;
            }
            if let Some(sequence) = pass.watching(index) {
                sequence.see_peaks(&x.row_peaks()?);
            }
        }
        Ok(x)
    }

    fn logits(&self, hidden: &Matrix<B>) -> Result<Matrix<B>> {
        let logits = self.head.forward(&self.norm.forward(hidden)?)?;
        match self.config.logit_cap {
            Some(cap) => logits.capped(cap),
            None => Ok(logits),
        }
    }

    fn normed(&self, hidden: &Matrix<B>) -> Result<Matrix<B>> {
        self.norm.rows(hidden)
    }

    fn projection(&self, layer: usize) -> Result<Option<Projection>> {
        let Layer { kind, fused, head_norms, .. } = &self.layers[layer];
        if !kind.stores() {
            return Ok(None);
        }
        if head_norms.is_some() {
            return Err(refuse(
                "this model normalises its keys behind their weights, so the weights alone do not say where keys lie; use another method",
            ));
        }
        let (query, width) = (kind.heads.query * kind.heads.dim, kind.heads.kv * kind.heads.dim);
        let mut values = fused.read(query + width..query + 2 * width)?;
        if self.rotates_values {
            Fold::Rows(kind.heads.dim).apply(&mut values, self.config.hidden_size);
        }
        Ok(Some(Projection {
            keys: fused.read(query..query + width)?,
            values,
            frequencies: self.ropes[kind.rope].inverse().to_vec(),
        }))
    }
}

fn require_room(needed: usize, available: usize) -> Result<()> {
    if needed > available {
        return Err(Error::ContextOverflow { needed, available, image_tokens: 0 });
    }
    Ok(())
}
