//! LLaVA-1.5's: a CLIP tower and two layers. Its files come of llama.cpp's `convert_image_encoder_to_gguf.py`.

use serde_json::{Map, Value, json};

use super::super::tower::{Place, Tower};
use super::{Projector, object};
use crate::error::{Error, Result};

const VISION: &str = "model.vision_tower.";
const PROJECTOR: &str = "model.multi_modal_projector.";

pub(super) const MLP: Projector = Projector {
    name: "mlp",
    architecture: "LlavaForConditionalGeneration",
    family: "LLaVA-1.5",
    texts: &["llama", "qwen2", "qwen3", "phi3"],
    prefix: "model.language_model.",
    // Language models of the original layout (Vicuna) have none.
    image: ("<image>", true),
    image_key: "image_token_index",
    out: "mm.2.weight",
    place,
    config,
    settings,
};

fn place(tower: &Tower<'_>, name: &str) -> Option<Place> {
    let theirs = match name {
        "v.class_embd" => format!("{VISION}embeddings.class_embedding"),
        "v.patch_embd.weight" => format!("{VISION}embeddings.patch_embedding.weight"),
        "v.position_embd.weight" => format!("{VISION}embeddings.position_embedding.weight"),
        "v.pre_ln.weight" => format!("{VISION}pre_layrnorm.weight"),
        "v.pre_ln.bias" => format!("{VISION}pre_layrnorm.bias"),
        "mm.0.weight" => format!("{PROJECTOR}linear_1.weight"),
        "mm.0.bias" => format!("{PROJECTOR}linear_1.bias"),
        "mm.2.weight" => format!("{PROJECTOR}linear_2.weight"),
        "mm.2.bias" => format!("{PROJECTOR}linear_2.bias"),
        other => return tower.encoder(&format!("{VISION}encoder.layers."), other),
    };
    Some(Place::Whole(theirs))
}

fn config(tower: &Tower<'_>) -> Result<Value> {
    let merge = tower.text("mm_patch_merge_type")?.filter(|kind| *kind != "flat");
    if merge.is_some() || tower.integers("image_grid_pinpoints")?.is_some_and(|sides| !sides.is_empty()) {
        let reason = format!(
            "{} is the tower of a LLaVA-1.6 (NeXT), which cuts a picture into tiles (`clip.vision.image_grid_pinpoints`); of GGUF files it is \
             not read: load the model's folder with safetensors",
            tower.file.path().display()
        );
        return Err(Error::UnsupportedModel { reason, known: vec![] });
    }
    let layers = tower.need("block_count")?;
    // The converter leaves out the layers behind those whose states are taken.
    let taken = match tower.integers("feature_layer")? {
        Some(taken) if !taken.is_empty() => taken.to_vec(),
        _ => vec![layers as i64],
    };
    Ok(json!({
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": tower.need("embedding_length")?,
            "intermediate_size": tower.inner()?,
            "num_hidden_layers": layers,
            "num_attention_heads": tower.need("attention.head_count")?,
            "image_size": tower.need("image_size")?,
            "patch_size": tower.need("patch_size")?,
            "layer_norm_eps": tower.epsilon()?,
            // The converter asks for `gelu` by this name, which is not the one that ggml computes.
            "hidden_act": tower.activation("gelu")?,
        },
        "vision_feature_layer": taken,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": tower.has("mm.0.bias"),
    }))
}

/// As in the folders of `llava-hf`: the shorter side resized to the tower's, the centre cut out.
fn settings(tower: &Tower<'_>) -> Result<Map<String, Value>> {
    let side = tower.need("image_size")?;
    let mut settings = object(json!({
        "image_processor_type": "CLIPImageProcessor",
        "size": { "shortest_edge": side },
        "crop_size": { "height": side, "width": side },
    }));
    if tower.text("image_aspect_ratio")? == Some("pad") {
        settings.insert("image_aspect_ratio".into(), json!("pad"));
    }
    settings.extend(tower.normalisation()?);
    Ok(settings)
}
