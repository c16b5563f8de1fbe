//! config.json of a Llama or one of its relatives, with the defaults of Hugging Face's classes for what is omitted.

use std::sync::Arc;

use prefixkv_kernels::activation::Gate;
use prefixkv_kernels::attention::AttentionParams;
use prefixkv_kernels::rotary::{Frequencies, Sections};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::decoder::Decoder;
use super::kinds;
use super::rope::{Rope, Scaling};
use crate::backend::{Activation, Heads, LayerKind};
use crate::cache::{self, Format, LayerCache};
use crate::error::Result;
use crate::model::config::{ConfigFile, path};

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Fields {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Activation,
    hidden_activation: Activation,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    tie_word_embeddings: bool,
    attention_bias: bool,
    mlp_bias: bool,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    use_bidirectional_attention: bool,
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: Activation::Silu,
            hidden_activation: Activation::GeluTanh,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            attention_bias: false,
            mlp_bias: false,
            attn_logit_softcapping: None,
            final_logit_softcapping: None,
            use_bidirectional_attention: false,
        }
    }
}

/// A checked Llama configuration.
#[derive(Clone, Debug)]
pub(crate) struct LlamaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
    /// Of queries, keys and values.
    pub attention_bias: bool,
    /// Of the projection behind attention.
    pub output_bias: bool,
    pub mlp_bias: bool,
    /// Whether the weights of queries, keys and values are one tensor, and those of gate and up another.
    pub fused: bool,
    /// Whether queries and keys are normalised head by head.
    pub head_norms: bool,
    /// Whether the results of attention and of the MLP are normalised before they are added.
    pub branch_norms: bool,
    /// The number that the weights of norms lack.
    pub norm_offset: f32,
    /// Whether embeddings are multiplied by `sqrt(hidden_size)`.
    pub scaled_embeddings: bool,
    /// Whether that factor has the type of the table.
    pub rounded_scale: bool,
    pub gate: Gate,
    /// A logit `x` becomes `cap * tanh(x / cap)`.
    pub logit_cap: Option<f32>,
    /// The variants of rotary embedding, the first for layers without a window.
    pub ropes: Vec<Rope>,
    /// Numbers by which their frequencies are divided.
    divisors: Option<Arc<[f32]>>,
    pub kinds: Vec<LayerKind>,
    pub format: Format,
}

impl LlamaConfig {
    /// Parses the whole file (None) or the section `key` of a larger model's file.
    pub(crate) fn parse(file: &ConfigFile, key: Option<&str>) -> Result<Self> {
        Self::parse_as(file, key, "llama")
    }

    /// As [`LlamaConfig::parse`], where a section without a `model_type` is of `model_type`.
    pub(crate) fn parse_as(file: &ConfigFile, key: Option<&str>, model_type: &str) -> Result<Self> {
        let section = file.section(key)?;
        let named = section.get("model_type").and_then(Value::as_str).unwrap_or(model_type).to_owned();
        Self::named(file, key, &named, section)
    }

    /// Reads `section`, which lies under `key` in the file, as the configuration of a text model of the type `named`.
    pub(crate) fn named(
        file: &ConfigFile,
        key: Option<&str>,
        named: &str,
        section: Map<String, Value>,
    ) -> Result<Self> {
        let Some(decoder) = Decoder::named(named) else {
            let known = Decoder::names().join("`, `");
            return Err(file.unsupported(format!("a text model of type `{named}`; known are `{known}`")));
        };
        Self::from_section(file, key, decoder, section)
    }

    fn from_section(
        file: &ConfigFile,
        key: Option<&str>,
        decoder: &Decoder,
        mut section: Map<String, Value>,
    ) -> Result<Self> {
        decoder.fill_in(&mut section);
        let fields: Fields = file.parse(key, section.clone())?;
        let activation = if decoder.activation == "hidden_act" { fields.hidden_act } else { fields.hidden_activation };
        let gate = match activation {
            Activation::Silu => Gate::Silu,
            Activation::GeluTanh => Gate::GeluTanh,
            other => {
                let name = path(key, decoder.activation);
                return Err(file.unsupported(format!(
                    "activation {other:?} in a gated MLP (`{name}`); known are silu and gelu_pytorch_tanh"
                )));
            }
        };
        if fields.use_bidirectional_attention && decoder.scaled {
            let name = path(key, "use_bidirectional_attention");
            return Err(file.unsupported(format!("a text model that attends to what comes after (`{name}`)")));
        }
        let sizes = [
            ("vocab_size", fields.vocab_size, 4 << 20),
            ("hidden_size", fields.hidden_size, 1 << 17),
            ("intermediate_size", fields.intermediate_size, 1 << 19),
            ("num_hidden_layers", fields.num_hidden_layers, 1024),
            ("num_attention_heads", fields.num_attention_heads, 1024),
            ("max_position_embeddings", fields.max_position_embeddings, 1 << 24),
        ];
        for (name, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(file.bad(format!("`{}` is {value}, expected 1 to {limit}", path(key, name))));
            }
        }
        let heads = fields.num_attention_heads;
        let kv_heads = fields.num_key_value_heads.unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let name = path(key, "num_key_value_heads");
            return Err(file.bad(format!("`{name}` is {kv_heads}, which does not divide {heads} heads")));
        }
        let head_dim = fields.head_dim.unwrap_or(fields.hidden_size / heads);
        if head_dim == 0 || head_dim > 1024 || !head_dim.is_multiple_of(2) {
            let name = path(key, "head_dim");
            return Err(file.bad(format!("`{name}` is {head_dim}, expected an even number up to 1024")));
        }
        file.require_epsilon(key, "rms_norm_eps", fields.rms_norm_eps)?;
        let mut ropes = kinds::ropes(file, key, decoder, &section, fields.max_position_embeddings)?;
        if let Some(usual) = decoder.sections {
            let sizes = |rope: &Rope| rope.sections.map_or(usual.sizes, |named| named.sizes);
            ropes.iter_mut().for_each(|rope| rope.sections = Some(Sections { sizes: sizes(rope), ..usual }));
        }
        for rope in &ropes {
            let name = path(key, "rope_parameters");
            let turned = rope.turned(head_dim);
            if turned < head_dim && !decoder.partial {
                return Err(file.unsupported(format!("rotary embedding of a part ({}) of each head", rope.part)));
            }
            if turned == 0 || !turned.is_multiple_of(2) {
                let part = rope.part;
                return Err(file
                    .bad(format!("`{name}` turns a part of {part} of {head_dim} channels, expected an even number")));
            }
            if let Scaling::LongRope { short, .. } = &rope.scaling
                && short.len() != turned / 2
            {
                let (found, half) = (short.len(), turned / 2);
                return Err(file.bad(format!("`short_factor` of `{name}` has {found} numbers, expected {half}")));
            }
            if let Some(bad) = rope.inverse_frequencies(head_dim).iter().find(|frequency| !frequency.is_finite()) {
                return Err(
                    file.bad(format!("`{name}` makes a rotary frequency of {bad}: its numbers do not go together"))
                );
            }
            if let Some(Sections { sizes, .. }) = rope.sections
                && sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size)) != Some(head_dim / 2)
            {
                let half = head_dim / 2;
                return Err(file.bad(format!("`mrope_section` of `{name}` is {sizes:?}, which must add up to {half}")));
            }
        }
        let divisors = file.divisors().cloned();
        if let Some(found) = divisors.as_ref().map(|divisors| divisors.len()).filter(|found| *found != head_dim / 2) {
            let half = head_dim / 2;
            return Err(file.bad(format!("its rotary frequencies have {found} divisors, expected {half}")));
        }
        // Behind these a sequence would need other divisors, those that it began with included.
        let original = |rope: &Rope| match rope.scaling {
            Scaling::LongRope { original, .. } => original as usize,
            _ => usize::MAX,
        };
        let positions = ropes.iter().map(original).fold(fields.max_position_embeddings, usize::min);
        let heads_of = Heads { query: heads, kv: kv_heads, dim: head_dim };
        let mut kinds = kinds::kinds(file, key, decoder, &section, fields.num_hidden_layers, heads_of, &ropes)?;
        let cap = |name: &str, cap: Option<f32>| match cap {
            Some(cap) if !cap.is_normal() || cap < 0.0 => {
                Err(file.bad(format!("`{}` is {cap}, expected a positive number", path(key, name))))
            }
            cap => Ok(cap),
        };
        let score_cap = cap("attn_logit_softcapping", fields.attn_logit_softcapping)?.filter(|_| decoder.capped_scores);
        let logit_cap =
            cap("final_logit_softcapping", fields.final_logit_softcapping)?.filter(|_| decoder.capped_logits);
        kinds.iter_mut().for_each(|kind| kind.softcap = score_cap);
        let (attention_bias, output_bias) = decoder.biases(fields.attention_bias);
        Ok(LlamaConfig {
            vocab_size: fields.vocab_size,
            hidden_size: fields.hidden_size,
            intermediate_size: fields.intermediate_size,
            num_hidden_layers: fields.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings: positions,
            rms_norm_eps: fields.rms_norm_eps,
            tie_word_embeddings: fields.tie_word_embeddings,
            attention_bias,
            output_bias,
            mlp_bias: fields.mlp_bias && decoder.mlp_bias,
            fused: decoder.fused,
            head_norms: decoder.head_norms,
            branch_norms: decoder.branch_norms,
            // In GGUF files it is added already.
            norm_offset: if file.is_gguf() { 0.0 } else { decoder.norm_offset },
            scaled_embeddings: decoder.scaled,
            rounded_scale: !file.is_gguf(),
            gate,
            logit_cap,
            ropes,
            divisors,
            kinds,
            format: Format::F32,
        })
    }

    /// The frequencies of one of its rotary embeddings, dealt out to their axes.
    pub(crate) fn frequencies(&self, rope: &Rope) -> Frequencies {
        let Some(divisors) = &self.divisors else { return rope.frequencies(self.head_dim) };
        let plain = rope.inverse_frequencies(self.head_dim);
        Frequencies::new(plain.iter().zip(divisors.iter()).map(|(plain, by)| plain / by).collect(), rope.sections)
    }

    /// The row of queries, keys and values that each row is as it is held; None where they are held as the file has them.
    pub(super) fn row_order(&self) -> Option<Arc<[u32]>> {
        let order = self.ropes[0].order(self.head_dim)?;
        let (turned, heads) = (self.num_attention_heads + self.num_key_value_heads, self.head_dim);
        let rows = (0..turned).flat_map(|head| order.iter().map(move |channel| head * heads + channel));
        let values = turned * heads..(turned + self.num_key_value_heads) * heads;
        Some(rows.chain(values).map(|row| row as u32).collect())
    }

    /// Factors of the rows of queries, keys and values as they are held, where a part of the channels is turned and has one.
    pub(super) fn row_factors(&self) -> Option<Arc<[f32]>> {
        let rope = &self.ropes[0];
        let (order, factor) = (rope.order(self.head_dim)?, rope.attention_of_turned() as f32);
        let turned = rope.turned(self.head_dim);
        let of_head = || order.iter().map(|channel| if *channel < turned { factor } else { 1.0 });
        let heads = self.num_attention_heads + self.num_key_value_heads;
        let values = std::iter::repeat_n(1.0, self.num_key_value_heads * self.head_dim);
        (factor != 1.0).then(|| (0..heads).flat_map(|_| of_head()).chain(values).collect())
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads { query: self.num_attention_heads, kv: self.num_key_value_heads, dim: self.head_dim }
    }

    pub(crate) fn cache_shape(&self) -> cache::Shape {
        cache::Shape {
            layers: self.num_hidden_layers,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            format: self.format,
        }
    }

    pub(crate) fn attention(&self) -> Vec<AttentionParams> {
        self.kinds.iter().map(LayerKind::params).collect()
    }

    pub(crate) fn layers(&self) -> Vec<LayerCache> {
        let one = |kind: &LayerKind| LayerCache { source: kind.source, window: kind.window, rope: kind.rope };
        self.kinds.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::config::golden;

    #[test]
    fn resolved_as_transformers_does() {
        let mut checked = 0;
        for (name, file, want) in golden::configs("llama") {
            let config = LlamaConfig::parse(&file, None).unwrap_or_else(|error| panic!("{name}: {error}"));
            golden::check_llama(&name, &config, &want);
            checked += 1;
        }
        assert!(checked >= 22, "{checked} configurations");
    }

    fn parse(config: Value) -> Result<LlamaConfig> {
        LlamaConfig::parse(&golden::file(config), None)
    }

    #[test]
    fn null_is_no_second_spelling() {
        for section in ["rope_scaling", "rope_parameters"] {
            for rope in [
                json!({ "type": "linear", "rope_type": null, "factor": 4 }),
                json!({ "type": null, "rope_type": "linear", "factor": 4 }),
            ] {
                let config = parse(json!({ "model_type": "llama", section: rope })).unwrap();
                assert_eq!(config.ropes[0].inverse_frequencies(config.head_dim)[0], 0.25, "{section} {rope}");
            }
        }
        let both =
            parse(json!({ "rope_theta": null, "rope_scaling": null, "rope_parameters": { "rope_theta": 500.0 } }))
                .unwrap();
        assert_eq!(both.ropes[0].theta, 500.0);
    }

    #[test]
    fn numbers_out_of_range_are_named_with_their_section() {
        let llama3 = |change: Value| {
            let mut rope = json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4 });
            rope.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({ "rope_parameters": rope })
        };
        for (config, name) in [
            (json!({ "rms_norm_eps": -1e-6 }), "`rms_norm_eps` is -0.000001"),
            (json!({ "rms_norm_eps": 0 }), "`rms_norm_eps` is 0"),
            (json!({ "rms_norm_eps": 1e-60 }), "`rms_norm_eps`"),
            (json!({ "rms_norm_eps": 2 }), "`rms_norm_eps` is 2"),
            (json!({ "rms_norm_eps": "1e-6" }), "`rms_norm_eps`: invalid type: string"),
            (json!({ "hidden_size": 64.5 }), "`hidden_size`: invalid type"),
            (json!({ "hidden_size": -64 }), "`hidden_size`: invalid value"),
            (json!({ "rope_theta": 0 }), "`rope_theta` is 0"),
            (json!({ "rope_theta": -10000 }), "`rope_theta` is -10000"),
            (json!({ "rope_theta": 1e39 }), "`rope_theta`"),
            (json!({ "rope_theta": "big" }), "`rope_theta` must be a number"),
            (json!({ "rope_scaling": { "rope_theta": 1e300 } }), "`rope_scaling.rope_theta`"),
            (json!({ "rope_scaling": { "type": "linear" } }), "`rope_scaling.factor` is missing"),
            (json!({ "rope_scaling": { "type": "linear", "factor": 0 } }), "`rope_scaling.factor` is 0"),
            (json!({ "rope_scaling": { "type": "linear", "factor": 1e39 } }), "`rope_scaling.factor`"),
            (json!({ "rope_scaling": { "type": "linear", "factor": 1e-45 } }), "`rope_scaling.factor`"),
            (json!({ "rope_scaling": { "type": "linear", "factor": "4" } }), "`rope_scaling.factor`: invalid type"),
            (json!({ "rope_scaling": [1] }), "`rope_scaling` must be an object"),
            (llama3(json!({ "low_freq_factor": 0 })), "`rope_parameters.low_freq_factor` is 0"),
            (json!({ "rope_scaling": { "type": "yarn", "factor": -4 } }), "`rope_scaling.factor` is -4"),
            (
                json!({ "rope_scaling": { "type": "yarn", "factor": 4, "beta_fast": -1 } }),
                "`rope_scaling.beta_fast` is -1",
            ),
            (
                json!({ "rope_scaling": { "type": "yarn", "factor": 4, "attention_factor": -1 } }),
                "`rope_scaling.attention_factor` is -1",
            ),
            (
                llama3(json!({ "original_max_position_embeddings": -1 })),
                "`rope_parameters.original_max_position_embeddings`",
            ),
        ] {
            for key in [None, Some("text_config")] {
                let file = golden::file(key.map_or_else(|| config.clone(), |key| json!({ key: config })));
                let error = LlamaConfig::parse(&file, key).unwrap_err();
                let message = error.to_string();
                let named = key.map_or_else(|| name.to_owned(), |key| name.replacen('`', &format!("`{key}."), 1));
                assert!(
                    error.code() == "model-file" && message.contains(&named) && message.contains("config.json"),
                    "{message}"
                );
            }
        }
        let part = json!({ "rope_scaling": { "type": "linear", "factor": 2, "partial_rotary_factor": 0.5 } });
        assert_eq!(parse(part).unwrap_err().code(), "unsupported-model");
        for part in [0.0, -0.5, 1.5] {
            let error = parse(json!({ "model_type": "phi3", "partial_rotary_factor": part })).unwrap_err().to_string();
            assert!(error.contains(&format!("`partial_rotary_factor` is {part}")), "{error}");
        }
    }
}
