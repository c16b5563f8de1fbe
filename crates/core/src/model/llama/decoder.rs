//! The decoders that are a Llama but for a few details: a line for each, which says how its Hugging Face class differs.

use serde_json::{Map, Value, json};

/// A relative of Llama.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) model_type: &'static str,
    architecture: &'static str,
    /// The defaults that differ from Llama's.
    defaults: fn() -> Value,
    pub(super) windows: Windows,
    /// Whether queries, keys and values have a bias, and whether what follows attention has one; None: both as `attention_bias` says.
    biases: Option<(bool, bool)>,
    /// Whether the MLP may have biases.
    pub(super) mlp_bias: bool,
    /// Whether the heads of queries and keys are normalised.
    pub(super) head_norms: bool,
    /// Whether some layers know no positions.
    pub(super) still_layers: bool,
}

/// Which layers have a window of `sliding_window` positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    None,
    All,
    /// Those that `layer_types` names, else all.
    Named,
    /// With `use_sliding_window` those that `layer_types` names, else those from `max_window_layers` on.
    Upper,
    /// With `use_sliding_window` those that `layer_types` names, else those that know no positions.
    Still,
}

const LLAMA: Decoder = Decoder {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    defaults: || json!({}),
    windows: Windows::None,
    biases: None,
    mlp_bias: true,
    head_norms: false,
    still_layers: false,
};

const ALL: &[Decoder] = &[
    LLAMA,
    // Jiang et al. 2023, arXiv 2310.06825.
    Decoder {
        model_type: "mistral",
        architecture: "MistralForCausalLM",
        defaults: || {
            json!({
                "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096,
            })
        },
        windows: Windows::All,
        biases: Some((false, false)),
        mlp_bias: false,
        ..LLAMA
    },
    // Mistral AI 2024, Ministral.
    Decoder {
        model_type: "ministral",
        architecture: "MinistralForCausalLM",
        defaults: || {
            json!({
                "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096,
            })
        },
        windows: Windows::Named,
        biases: Some((false, false)),
        mlp_bias: false,
        ..LLAMA
    },
    // Yang et al. 2024, arXiv 2407.10671.
    Decoder {
        model_type: "qwen2",
        architecture: "Qwen2ForCausalLM",
        defaults: || {
            json!({
                "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
                "sliding_window": 4096, "max_window_layers": 28,
            })
        },
        windows: Windows::Upper,
        biases: Some((true, false)),
        mlp_bias: false,
        ..LLAMA
    },
    // Yang et al. 2025, arXiv 2505.09388.
    Decoder {
        model_type: "qwen3",
        architecture: "Qwen3ForCausalLM",
        defaults: || {
            json!({
                "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
                "sliding_window": 4096, "max_window_layers": 28, "head_dim": 128,
            })
        },
        windows: Windows::Upper,
        mlp_bias: false,
        head_norms: true,
        ..LLAMA
    },
    // Bakouch et al. 2025, SmolLM3.
    Decoder {
        model_type: "smollm3",
        architecture: "SmolLM3ForCausalLM",
        defaults: || {
            json!({
                "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
                "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32_768, "rope_theta": 2e6,
                "tie_word_embeddings": true, "no_rope_layer_interval": 4,
            })
        },
        windows: Windows::Still,
        still_layers: true,
        ..LLAMA
    },
];

/// `architectures[0]` of each.
pub(super) const ARCHITECTURES: &[&str] = &{
    let mut names = [""; ALL.len()];
    let mut index = 0;
    while index < ALL.len() {
        names[index] = ALL[index].architecture;
        index += 1;
    }
    names
};

/// The architecture of a configuration that does not name it.
pub(super) fn architecture(model_type: &str) -> Option<&'static str> {
    Decoder::named(model_type).map(|decoder| decoder.architecture)
}

impl Decoder {
    /// The `model_type` of each.
    pub(super) fn names() -> Vec<&'static str> {
        ALL.iter().map(|decoder| decoder.model_type).collect()
    }

    pub(super) fn named(model_type: &str) -> Option<&'static Self> {
        ALL.iter().find(|decoder| decoder.model_type == model_type)
    }

    /// Writes the defaults of the class to where nothing is said. A null is something that is said.
    pub(super) fn fill_in(&self, section: &mut Map<String, Value>) {
        let Value::Object(defaults) = (self.defaults)() else { return };
        for (key, value) in defaults {
            section.entry(key).or_insert(value);
        }
    }

    /// Whether queries, keys and values have a bias, and whether what follows attention has one.
    pub(super) fn biases(&self, attention_bias: bool) -> (bool, bool) {
        self.biases.unwrap_or((attention_bias, attention_bias))
    }
}
