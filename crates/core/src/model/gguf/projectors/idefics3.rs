//! Idefics3's and SmolVLM's: a SigLIP tower and one layer over the joined patches of a cell.

use serde_json::{Map, Value, json};

use super::super::tower::{Place, Tower};
use super::{Projector, object};
use crate::error::Result;

const VISION: &str = "model.vision_model.";

pub(super) const IDEFICS3: Projector = Projector {
    name: "idefics3",
    architecture: "Idefics3ForConditionalGeneration",
    family: "Idefics3 or SmolVLM",
    texts: &["llama"],
    prefix: "model.text_model.",
    image: ("<image>", false),
    image_key: "image_token_id",
    out: "mm.model.fc.weight",
    place,
    config,
    settings,
};

fn place(tower: &Tower<'_>, name: &str) -> Option<Place> {
    let theirs = match name {
        "v.patch_embd.weight" => format!("{VISION}embeddings.patch_embedding.weight"),
        "v.patch_embd.bias" => format!("{VISION}embeddings.patch_embedding.bias"),
        "v.position_embd.weight" => format!("{VISION}embeddings.position_embedding.weight"),
        "v.post_ln.weight" => format!("{VISION}post_layernorm.weight"),
        "v.post_ln.bias" => format!("{VISION}post_layernorm.bias"),
        "mm.model.fc.weight" => "model.connector.modality_projection.proj.weight".to_owned(),
        other => return tower.encoder(&format!("{VISION}encoder.layers."), other),
    };
    Some(Place::Whole(theirs))
}

fn config(tower: &Tower<'_>) -> Result<Value> {
    let width = tower.need("embedding_length")?;
    // Squares of patches make a cell: as many as fill a row of the layer behind the tower.
    let joined = tower.side("mm.model.fc.weight", 1)?.checked_div(width).unwrap_or(0);
    Ok(json!({
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": tower.inner()?,
            "num_hidden_layers": tower.need("block_count")?,
            "num_attention_heads": tower.need("attention.head_count")?,
            "image_size": tower.need("image_size")?,
            "patch_size": tower.need("patch_size")?,
            "layer_norm_eps": tower.epsilon()?,
            "hidden_act": tower.activation("gelu_pytorch_tanh")?,
        },
        "scale_factor": tower.size("projector.scale_factor")?.unwrap_or(joined.isqrt()),
    }))
}

/// As in the folders of the models: a long side of four tiles, where the file does not say another.
fn settings(tower: &Tower<'_>) -> Result<Map<String, Value>> {
    let tile = tower.need("image_size")?;
    let longest = tower.size("preproc_image_size")?.unwrap_or(tile.saturating_mul(4));
    let mut settings = object(json!({
        "image_processor_type": "Idefics3ImageProcessor",
        "size": { "longest_edge": longest },
        "max_image_size": { "longest_edge": tile },
        "do_image_splitting": true,
    }));
    settings.extend(tower.normalisation()?);
    Ok(settings)
}
