//! LLaVA in the layout of its own training code, which is not read: its vision tower lies in another repository, its image token is no token, and
//! its template is code. Says by name which conversion to load instead.

use serde_json::Value;

use crate::error::Result;
use crate::model::config::ConfigFile;

/// Values of `model_type` that the code of LLaVA, and what was made of it, write; very early checkpoints say `llava`, as conversions do.
const TYPES: &[&str] = &[
    "llava_llama",
    "llava_mistral",
    "llava_mixtral",
    "llava_mpt",
    "llava_phi",
    "llava_phi3",
    "llava_qwen",
    "llava_qwen2",
    "llava_gemma",
];

/// A released checkpoint, by what its configuration says, and its conversion.
struct Released {
    /// A part of `model_type` or of the architecture.
    text: &'static str,
    hidden: u64,
    /// Whether pictures are cut into tiles.
    tiles: bool,
    conversion: &'static str,
}

const RELEASED: &[Released] = &[
    Released { text: "llama", hidden: 4096, tiles: false, conversion: "llava-hf/llava-1.5-7b-hf" },
    Released { text: "llama", hidden: 5120, tiles: false, conversion: "llava-hf/llava-1.5-13b-hf" },
    Released { text: "llama", hidden: 4096, tiles: true, conversion: "llava-hf/llava-v1.6-vicuna-7b-hf" },
    Released { text: "llama", hidden: 5120, tiles: true, conversion: "llava-hf/llava-v1.6-vicuna-13b-hf" },
    Released { text: "llama", hidden: 7168, tiles: true, conversion: "llava-hf/llava-v1.6-34b-hf" },
    Released { text: "mistral", hidden: 4096, tiles: false, conversion: "llava-hf/bakLlava-v1-hf" },
    Released { text: "mistral", hidden: 4096, tiles: true, conversion: "llava-hf/llava-v1.6-mistral-7b-hf" },
    Released { text: "phi", hidden: 3072, tiles: false, conversion: "xtuner/llava-phi-3-mini-hf" },
    Released { text: "qwen", hidden: 896, tiles: true, conversion: "llava-hf/llava-onevision-qwen2-0.5b-ov-hf" },
    Released { text: "qwen", hidden: 3584, tiles: true, conversion: "llava-hf/llava-onevision-qwen2-7b-ov-hf" },
];

/// Towers of ViP-LLaVA, whose features come of several layers.
const VIP_TOWER: &str = "clip_4layer";

/// Whether a model of this type is one.
pub(super) fn is(model_type: &str) -> bool {
    TYPES.contains(&model_type)
}

/// Refuses a checkpoint in that layout, with its conversion where one is known.
pub(super) fn require_converted(file: &ConfigFile) -> Result<()> {
    let root = file.section(None)?;
    let tower = root.get("mm_vision_tower").and_then(Value::as_str);
    let kind = file.model_type().unwrap_or_default();
    if tower.is_none() && !is(kind) {
        return Ok(());
    }
    let named = root.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str).unwrap_or(kind);
    let text = format!("{kind} {named}").to_ascii_lowercase();
    let aspect = root.get("image_aspect_ratio").and_then(Value::as_str).unwrap_or_default();
    let tiles = aspect.starts_with("anyres") || file.has("image_grid_pinpoints");
    let hidden = root.get("hidden_size").and_then(Value::as_u64).unwrap_or(0);
    let conversion = match tower {
        Some(tower) if tower.starts_with(VIP_TOWER) && hidden == 5120 => Some("llava-hf/vip-llava-13b-hf"),
        Some(tower) if tower.starts_with(VIP_TOWER) => Some("llava-hf/vip-llava-7b-hf"),
        _ => RELEASED
            .iter()
            .find(|one| text.contains(one.text) && one.hidden == hidden && one.tiles == tiles)
            .map(|one| one.conversion),
    };
    let tower = tower.map_or_else(String::new, |tower| format!(", with its vision tower in {:?}", shown(tower)));
    let released = conversion.map_or_else(String::new, |name| format!("a released model is there as \"{name}\"; "));
    Err(file.unsupported(format!(
        "{} is a LLaVA in the layout of its own training code ({:?}{tower}), which is not read: {released}one that you have trained is \
         converted by convert_llava_weights_to_hf.py of transformers 4 (src/transformers/models/llava), with the tower as `--vision_model_id`",
        file.path().display(),
        shown(named)
    )))
}

/// A name of anybody's, in a message.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::model::config::golden;
    use crate::model::llava::{CLASS, LlavaConfig};

    #[test]
    fn released_models_are_named() {
        let clip = "openai/clip-vit-large-patch14-336";
        for (architecture, kind, hidden, tower, aspect, conversion) in [
            ("LlavaLlamaForCausalLM", "llava_llama", 4096, clip, "pad", "\"llava-hf/llava-1.5-7b-hf\""),
            ("LlavaLlamaForCausalLM", "llava", 4096, clip, "pad", "\"llava-hf/llava-1.5-7b-hf\""),
            ("LlavaLlamaForCausalLM", "llava_llama", 5120, clip, "pad", "\"llava-hf/llava-1.5-13b-hf\""),
            ("LlavaLlamaForCausalLM", "llava_llama", 7168, clip, "anyres", "\"llava-hf/llava-v1.6-34b-hf\""),
            ("LlavaLlamaForCausalLM", "llava_llama", 4096, "clip_4layer_336", "pad", "\"llava-hf/vip-llava-7b-hf\""),
            ("LlavaMistralForCausalLM", "llava_mistral", 4096, clip, "square", "\"llava-hf/bakLlava-v1-hf\""),
            ("LlavaMistralForCausalLM", "llava_mistral", 4096, clip, "anyres", "\"llava-hf/llava-v1.6-mistral-7b-hf\""),
            ("LlavaPhiForCausalLM", "llava_phi", 3072, clip, "pad", "\"xtuner/llava-phi-3-mini-hf\""),
            ("LlavaQwenForCausalLM", "llava_qwen", 3584, "google/siglip", "anyres_max_9", "onevision-qwen2-7b"),
            ("LlavaLlamaForCausalLM", "llava_llama", 999, clip, "pad", "with its vision tower in \"openai/clip"),
        ] {
            let config = json!({
                "architectures": [architecture], "model_type": kind, "hidden_size": hidden, "mm_vision_tower": tower,
                "image_aspect_ratio": aspect, "mm_projector_type": "mlp2x_gelu",
            });
            let file = golden::file(config);
            assert_eq!(file.architecture().unwrap(), super::super::ARCHITECTURE, "{architecture}, {kind}");
            let error = LlavaConfig::parse(&file, &CLASS).err().expect("refused");
            let message = error.to_string();
            assert_eq!(error.code(), "unsupported-model");
            for part in [conversion, architecture, "convert_llava_weights_to_hf.py"] {
                assert!(message.contains(part), "{part}: {message}");
            }
        }
        let sparse = golden::file(json!({ "model_type": "llava_llama" }));
        assert!(LlavaConfig::parse(&sparse, &CLASS).err().expect("refused").to_string().contains("is not read"));
        assert!(LlavaConfig::parse(&golden::file(json!({ "model_type": "llava" })), &CLASS).is_ok());
    }
}
