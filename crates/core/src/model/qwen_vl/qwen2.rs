//! The tower of Qwen2-VL: layers with a mean and a variance, an MLP of two, attention over all of a picture. Wang et al. 2024,
//! arXiv 2409.12191.

use serde_json::json;

use super::config::{Extras, Sizes, Variant};
use super::tower::{MlpNames, Plan};
use super::videos::{Marks, Videos};
use crate::nn::NormKind;

pub(super) const QWEN2: Variant = Variant {
    architecture: "Qwen2VLForConditionalGeneration",
    model_type: "qwen2_vl",
    text: "qwen2_vl_text",
    own_head_dim: false,
    defaults: || {
        json!({
            "depth": 32, "embed_dim": 1280, "hidden_size": 3584, "hidden_act": "quick_gelu", "mlp_ratio": 4, "num_heads": 16,
            "patch_size": 14,
        })
    },
    // The width by this name is the language model's.
    sizes: |fields| Sizes {
        width: ("embed_dim", fields.embed_dim),
        inner: ("mlp_ratio", fields.embed_dim.saturating_mul(fields.mlp_ratio)),
        out: ("hidden_size", fields.hidden_size),
    },
    extras: |_, _| Ok(Extras::default()),
    plan: Plan {
        norms: NormKind::Layer,
        mlp: MlpNames::Two(["mlp.fc1", "mlp.fc2"]),
        merger: ["ln_q", "mlp.0", "mlp.2"],
        patch_bias: false,
    },
    videos: Videos { together: false, marks: Marks::Steps },
};
