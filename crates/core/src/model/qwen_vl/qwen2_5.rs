//! The tower of Qwen2.5-VL: as Qwen2-VL's, with root-mean-square norms, a gated MLP, and windows in most blocks. Bai et al. 2025,
//! arXiv 2502.13923.

use serde_json::json;

use super::config::{Extras, Fields, Sizes, Variant};
use super::tower::{MlpNames, Plan};
use super::videos::{Marks, Videos};
use super::windows::Windows;
use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::nn::NormKind;

pub(super) const QWEN2_5: Variant = Variant {
    architecture: "Qwen2_5_VLForConditionalGeneration",
    model_type: "qwen2_5_vl",
    text: "qwen2_5_vl_text",
    own_head_dim: false,
    defaults: || {
        json!({
            "depth": 32, "hidden_size": 3584, "hidden_act": "silu", "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
            "window_size": 112, "out_hidden_size": 3584, "fullatt_block_indexes": [7, 15, 23, 31],
        })
    },
    sizes: |fields| Sizes {
        width: ("hidden_size", fields.hidden_size),
        inner: ("intermediate_size", fields.intermediate_size),
        out: ("out_hidden_size", fields.out_hidden_size),
    },
    extras: |file, fields| Ok(Extras { windows: Some(windows(file, fields)?), ..Extras::default() }),
    plan: Plan {
        norms: NormKind::RootMeanSquare,
        mlp: MlpNames::Gated,
        merger: ["ln_q", "mlp.0", "mlp.2"],
        patch_bias: false,
    },
    videos: Videos { together: false, marks: Marks::Seconds },
};

fn windows(file: &ConfigFile, fields: &Fields) -> Result<Windows> {
    let side = fields.window_size / fields.spatial_merge_size.max(1) / fields.patch_size.max(1);
    if side == 0 {
        let window = fields.window_size;
        return Err(file.bad(format!("`vision_config.window_size` is {window}, which holds no cell of an image")));
    }
    Ok(Windows { side, whole: fields.fullatt_block_indexes.clone() })
}
