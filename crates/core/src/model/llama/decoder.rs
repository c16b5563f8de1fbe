//! The decoders that are a Llama but for a few details: a line for each, which says how its Hugging Face class differs.

use prefixkv_kernels::rotary::Sections;
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
    /// Whether the weights of queries, keys and values are one tensor, and those of gate and up another.
    pub(super) fused: bool,
    /// Whether a rotary embedding that is called `yarn` is `longrope`.
    pub(super) other_yarn: bool,
    /// Whether a part of the channels of a head may be turned alone; only where weights are `fused`.
    pub(super) partial: bool,
    /// Whether there are norms behind attention and behind the MLP too, before their results are added.
    pub(super) branch_norms: bool,
    /// The number that the weights of norms lack.
    pub(super) norm_offset: f32,
    /// Whether embeddings are multiplied by `sqrt(hidden_size)`, and scores divided by `sqrt(query_pre_attn_scalar)`.
    pub(super) scaled: bool,
    /// Whether `attn_logit_softcapping` counts.
    pub(super) capped_scores: bool,
    /// Whether `final_logit_softcapping` counts.
    pub(super) capped_logits: bool,
    /// The key of the function of the gate.
    pub(super) activation: &'static str,
    /// The key of the base of the rotary embedding of layers with a window, where they have one of their own.
    pub(super) local_theta: Option<&'static str>,
    /// How rotary embedding deals out the frequencies to three axes, where it does: the sizes are those that the class assumes.
    pub(super) sections: Option<Sections>,
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
    /// Those that `layer_types` names, else all but every `sliding_window_pattern`th.
    Pattern,
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
    fused: false,
    other_yarn: false,
    partial: false,
    branch_norms: false,
    norm_offset: 0.0,
    scaled: false,
    capped_scores: true,
    capped_logits: false,
    activation: "hidden_act",
    local_theta: None,
    sections: None,
};

// Gemma Team 2024, arXiv 2408.00118.
const GEMMA2: Decoder = Decoder {
    model_type: "gemma2",
    architecture: "Gemma2ForCausalLM",
    defaults: || {
        json!({
            "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 8192, "tie_word_embeddings": true, "query_pre_attn_scalar": 256,
            "sliding_window": 4096, "sliding_window_pattern": 2, "final_logit_softcapping": 30.0,
            "attn_logit_softcapping": 50.0,
        })
    },
    windows: Windows::Pattern,
    mlp_bias: false,
    branch_norms: true,
    norm_offset: 1.0,
    scaled: true,
    capped_logits: true,
    activation: "hidden_activation",
    ..LLAMA
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
    // Abdin et al. 2024, arXiv 2404.14219.
    Decoder {
        model_type: "phi3",
        architecture: "Phi3ForCausalLM",
        defaults: || {
            json!({
                "vocab_size": 32_064, "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096,
            })
        },
        windows: Windows::All,
        biases: Some((false, false)),
        mlp_bias: false,
        fused: true,
        other_yarn: true,
        partial: true,
        ..LLAMA
    },
    GEMMA2,
    // Gemma Team 2025, arXiv 2503.19786. transformers reads a cap of the scores and does not use it.
    Decoder {
        model_type: "gemma3_text",
        architecture: "Gemma3ForCausalLM",
        defaults: || {
            json!({
                "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
                "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
                "max_position_embeddings": 131_072, "tie_word_embeddings": true, "query_pre_attn_scalar": 256,
                "sliding_window": 4096, "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
            })
        },
        head_norms: true,
        capped_scores: false,
        local_theta: Some("rope_local_base_freq"),
        ..GEMMA2
    },
];

/// The text part of a Qwen2-VL or a Qwen2.5-VL. Wang et al. 2024, arXiv 2409.12191.
const QWEN2_VL: Decoder = Decoder {
    model_type: "qwen2_vl_text",
    defaults: || {
        json!({
            "vocab_size": 152_064, "hidden_size": 8192, "intermediate_size": 29_568, "num_hidden_layers": 80, "num_attention_heads": 64,
            "num_key_value_heads": 8, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": 4096,
            "max_window_layers": 80,
        })
    },
    windows: Windows::Upper,
    biases: Some((true, false)),
    mlp_bias: false,
    sections: Some(Sections { sizes: [16, 24, 24], interleaved: false }),
    ..LLAMA
};

/// Decoders that stand under a vision tower alone.
const PARTS: &[Decoder] = &[
    QWEN2_VL,
    // Bai et al. 2025, arXiv 2502.13923.
    Decoder { model_type: "qwen2_5_vl_text", ..QWEN2_VL },
    // Bai et al. 2025, arXiv 2511.21631.
    Decoder {
        model_type: "qwen3_vl_text",
        defaults: || {
            json!({
                "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32, "head_dim": 128,
                "max_position_embeddings": 128_000, "rope_theta": 5e5,
            })
        },
        mlp_bias: false,
        head_norms: true,
        sections: Some(Sections { sizes: [24, 20, 20], interleaved: true }),
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
pub(in crate::model) fn architecture(model_type: &str) -> Option<&'static str> {
    ALL.iter().find(|decoder| decoder.model_type == model_type).map(|decoder| decoder.architecture)
}

impl Decoder {
    /// The `model_type` of each.
    pub(super) fn names() -> Vec<&'static str> {
        ALL.iter().map(|decoder| decoder.model_type).collect()
    }

    pub(super) fn named(model_type: &str) -> Option<&'static Self> {
        ALL.iter().chain(PARTS).find(|decoder| decoder.model_type == model_type)
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
