//! config.json of a Llama, with the defaults of Hugging Face's LlamaConfig for what is omitted.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::rope::{Rope, RopeFields};
use crate::cache::{self, Format};
use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::nn::Activation;
use crate::nn::attention::Heads;

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
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    tie_word_embeddings: bool,
    attention_bias: bool,
    mlp_bias: bool,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeFields>,
    rope_parameters: Option<RopeFields>,
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
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            attention_bias: false,
            mlp_bias: false,
            rope_theta: None,
            rope_scaling: None,
            rope_parameters: None,
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
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub rope: Rope,
    pub format: Format,
}

impl LlamaConfig {
    /// Parses the whole file (None) or the section `key` of a larger model's file.
    pub(crate) fn parse(file: &ConfigFile, key: Option<&str>) -> Result<Self> {
        let section = file.section(key)?;
        if let Some(kind) = section.get("model_type").and_then(Value::as_str)
            && kind != "llama"
        {
            return Err(file.unsupported(format!("a text model of type `{kind}`; only `llama` is known")));
        }
        Self::from_section(file, section)
    }

    fn from_section(file: &ConfigFile, section: Map<String, Value>) -> Result<Self> {
        let fields: Fields = file.parse(section)?;
        if fields.hidden_act != Activation::Silu {
            return Err(file.unsupported(format!("activation {:?} in a Llama; only silu is known", fields.hidden_act)));
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
                return Err(file.bad(format!("`{name}` is {value}, expected 1 to {limit}")));
            }
        }
        let heads = fields.num_attention_heads;
        let kv_heads = fields.num_key_value_heads.unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(file.bad(format!("`num_key_value_heads` is {kv_heads}, which does not divide {heads} heads")));
        }
        let head_dim = fields.head_dim.unwrap_or(fields.hidden_size / heads);
        if head_dim == 0 || head_dim > 1024 || !head_dim.is_multiple_of(2) {
            return Err(file.bad(format!("`head_dim` is {head_dim}, expected an even number up to 1024")));
        }
        if !(fields.rms_norm_eps > 0.0 && fields.rms_norm_eps < 1.0) {
            return Err(file.bad(format!("`rms_norm_eps` is {}, expected 0 to 1", fields.rms_norm_eps)));
        }
        let rope = Rope::new(file, fields.rope_theta, fields.rope_parameters.or(fields.rope_scaling))?;
        Ok(LlamaConfig {
            vocab_size: fields.vocab_size,
            hidden_size: fields.hidden_size,
            intermediate_size: fields.intermediate_size,
            num_hidden_layers: fields.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings: fields.max_position_embeddings,
            rms_norm_eps: fields.rms_norm_eps,
            tie_word_embeddings: fields.tie_word_embeddings,
            attention_bias: fields.attention_bias,
            mlp_bias: fields.mlp_bias,
            rope,
            format: Format::F32,
        })
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

    pub(crate) fn inverse_frequencies(&self) -> Vec<f32> {
        self.rope.inverse_frequencies(self.head_dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::golden;

    #[test]
    fn resolved_as_transformers_does() {
        let (mut checked, mut refused) = (0, 0);
        for (name, file, want) in golden::configs("llama") {
            match LlamaConfig::parse(&file, None) {
                Ok(config) => golden::check_llama(&name, &config, &want),
                Err(error) => {
                    let kind = want["rope"]["rope_type"].as_str();
                    assert!(error.code() == "unsupported-model" && kind == Some("dynamic"), "{name}: {error}");
                    refused += 1;
                }
            }
            checked += 1;
        }
        assert!(checked >= 8 && refused == 1, "{checked} configurations, {refused} refused");
    }
}
