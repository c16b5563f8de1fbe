//! The decoders that are a Llama but for a few details, by `model_type`.

use serde_json::{Map, Value, json};

/// A relative of Llama.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    Llama,
    /// Jiang et al. 2023, arXiv 2310.06825.
    Mistral,
    /// Yang et al. 2024, arXiv 2407.10671.
    Qwen2,
    /// Yang et al. 2025, arXiv 2505.09388.
    Qwen3,
    /// Bakouch et al. 2025, SmolLM3.
    SmolLm3,
}

impl Decoder {
    pub(super) const NAMES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "smollm3"];

    pub(super) fn named(model_type: &str) -> Option<Self> {
        Some(match model_type {
            "llama" => Decoder::Llama,
            "mistral" => Decoder::Mistral,
            "qwen2" => Decoder::Qwen2,
            "qwen3" => Decoder::Qwen3,
            "smollm3" => Decoder::SmolLm3,
            _ => return None,
        })
    }

    /// Writes the defaults of the Hugging Face class that differ from Llama's to where nothing is said. A null is something that is
    /// said.
    pub(super) fn fill_in(self, section: &mut Map<String, Value>) {
        let defaults = match self {
            Decoder::Llama => json!({}),
            Decoder::Mistral => json!({
                "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096,
            }),
            Decoder::Qwen2 => json!({
                "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
                "sliding_window": 4096, "max_window_layers": 28,
            }),
            Decoder::Qwen3 => json!({
                "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
                "sliding_window": 4096, "max_window_layers": 28, "head_dim": 128,
            }),
            Decoder::SmolLm3 => json!({
                "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
                "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32_768, "rope_theta": 2e6,
                "tie_word_embeddings": true, "no_rope_layer_interval": 4,
            }),
        };
        let Value::Object(defaults) = defaults else { return };
        for (key, value) in defaults {
            section.entry(key).or_insert(value);
        }
    }

    /// Whether queries, keys and values have a bias, and whether what follows attention has one.
    pub(super) fn biases(self, attention_bias: bool) -> (bool, bool) {
        match self {
            Decoder::Llama | Decoder::Qwen3 | Decoder::SmolLm3 => (attention_bias, attention_bias),
            Decoder::Mistral => (false, false),
            Decoder::Qwen2 => (true, false),
        }
    }
}
