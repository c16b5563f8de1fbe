//! The tower of Qwen3-VL: as Qwen2-VL's, with a table of places besides rotary embedding, and rows for the first layers of the decoder.
//! Bai et al. 2025, arXiv 2511.21631; the rows: Meng et al. 2024, arXiv 2406.04334.

use serde_json::json;

use super::config::{Extras, Fields, Sizes, Variant};
use super::tower::{MlpNames, Plan};
use super::videos::{Marks, Videos};
use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::nn::NormKind;

pub(super) const QWEN3: Variant = Variant {
    architecture: "Qwen3VLForConditionalGeneration",
    model_type: "qwen3_vl",
    text: "qwen3_vl_text",
    own_head_dim: true,
    defaults: || {
        json!({
            "depth": 27, "hidden_size": 1152, "hidden_act": "gelu_pytorch_tanh", "intermediate_size": 4304, "num_heads": 16,
            "patch_size": 16, "out_hidden_size": 3584, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
        })
    },
    sizes: |fields| Sizes {
        width: ("hidden_size", fields.hidden_size),
        inner: ("intermediate_size", fields.intermediate_size),
        out: ("out_hidden_size", fields.out_hidden_size),
    },
    extras,
    plan: Plan {
        norms: NormKind::Layer,
        mlp: MlpNames::Two(["mlp.linear_fc1", "mlp.linear_fc2"]),
        merger: ["norm", "linear_fc1", "linear_fc2"],
        patch_bias: true,
    },
    videos: Videos { together: true, marks: Marks::Written },
};

fn extras(file: &ConfigFile, fields: &Fields) -> Result<Extras> {
    let places = fields.num_position_embeddings;
    let side = places.isqrt();
    if side == 0 || side * side != places || side > 4096 {
        return Err(file.bad(format!("`vision_config.num_position_embeddings` is {places}, expected a square number")));
    }
    let deepstack = fields.deepstack_visual_indexes.clone();
    if let Some(index) = deepstack.iter().find(|index| **index >= fields.depth) {
        let depth = fields.depth;
        return Err(file.bad(format!("`vision_config.deepstack_visual_indexes` names block {index} of {depth}")));
    }
    Ok(Extras { table: Some(side), deepstack, windows: None })
}
