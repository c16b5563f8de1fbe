//! Those of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

use serde_json::{Map, Value, json};

use super::super::tower::{Place, Tower};
use super::{Projector, object};
use crate::error::Result;

const VISION: &str = "model.visual.";

pub(super) const QWEN2: Projector = Projector {
    name: "qwen2vl_merger",
    architecture: "Qwen2VLForConditionalGeneration",
    family: "Qwen2-VL",
    texts: &["qwen2vl"],
    prefix: "model.language_model.",
    image: ("<|image_pad|>", false),
    image_key: "image_token_id",
    out: "mm.2.weight",
    place: |tower, name| place(tower, name, &SECOND),
    config: |tower| {
        let (width, inner) = (tower.need("embedding_length")?, tower.inner()?);
        if width == 0 || !inner.is_multiple_of(width) {
            return Err(tower.bad(&format!("MLPs of {inner} in a tower of {width}, expected a multiple")));
        }
        let mut vision = common(tower)?;
        vision.extend(object(json!({
            "embed_dim": width,
            "hidden_size": tower.text_width,
            "mlp_ratio": inner / width,
            "hidden_act": tower.activation("gelu")?,
        })));
        Ok(json!({ "vision_config": vision }))
    },
    settings: |tower| settings(tower, LIMITS_2),
};

pub(super) const QWEN2_5: Projector = Projector {
    name: "qwen2.5vl_merger",
    architecture: "Qwen2_5_VLForConditionalGeneration",
    family: "Qwen2.5-VL",
    config: |tower| {
        let mut vision = common(tower)?;
        let patch = tower.need("patch_size")?;
        vision.extend(object(json!({
            "hidden_size": tower.need("embedding_length")?,
            "intermediate_size": tower.inner()?,
            "out_hidden_size": tower.text_width,
            "hidden_act": tower.activation("gelu")?,
            "fullatt_block_indexes": whole(tower)?,
            // 112 pixels for patches of 14.
            "window_size": tower.size("window_size")?.unwrap_or(patch.saturating_mul(8)),
        })));
        Ok(json!({ "vision_config": vision }))
    },
    ..QWEN2
};

pub(super) const QWEN3: Projector = Projector {
    name: "qwen3vl_merger",
    architecture: "Qwen3VLForConditionalGeneration",
    family: "Qwen3-VL",
    texts: &["qwen3vl"],
    place: |tower, name| place(tower, name, &THIRD),
    config: |tower| {
        let mut vision = common(tower)?;
        vision.extend(object(json!({
            "hidden_size": tower.need("embedding_length")?,
            "intermediate_size": tower.inner()?,
            "out_hidden_size": tower.text_width,
            "hidden_act": tower.activation("gelu_pytorch_tanh")?,
            "num_position_embeddings": tower.side("v.position_embd.weight", 0)?,
            "deepstack_visual_indexes": deepstack(tower)?,
        })));
        Ok(json!({ "vision_config": vision }))
    },
    settings: |tower| {
        let half = object(json!({ "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5] }));
        Ok(half.into_iter().chain(settings(tower, LIMITS_3)?).collect())
    },
    ..QWEN2
};

/// Least and most pixels of a picture, as in the folders on the hub.
const LIMITS_2: (usize, usize) = (3_136, 12_845_056);
const LIMITS_3: (usize, usize) = (65_536, 16_777_216);

/// Names that differ between the generations.
struct Names {
    /// Of the two layers of an MLP that has no gate.
    mlp: [&'static str; 2],
    /// Of the norm and the two layers of the merger.
    merger: [&'static str; 3],
    /// Whether there is a table of places.
    table: bool,
}

const SECOND: Names = Names { mlp: ["fc1", "fc2"], merger: ["ln_q", "mlp.0", "mlp.2"], table: false };
const THIRD: Names =
    Names { mlp: ["linear_fc1", "linear_fc2"], merger: ["norm", "linear_fc1", "linear_fc2"], table: true };

fn place(tower: &Tower<'_>, name: &str, names: &Names) -> Option<Place> {
    match name {
        "v.patch_embd.weight" => return Some(Place::Frame(format!("{VISION}patch_embed.proj.weight"), 0)),
        "v.patch_embd.weight.1" => return Some(Place::Frame(format!("{VISION}patch_embed.proj.weight"), 1)),
        "v.patch_embd.bias" if names.table => return Some(Place::Whole(format!("{VISION}patch_embed.proj.bias"))),
        "v.position_embd.weight" if names.table => return Some(Place::Whole(format!("{VISION}pos_embed.weight"))),
        // Old files have one without a meaning.
        "v.position_embd.weight" => return Some(Place::Unused),
        _ => {}
    }
    let [norm, first, second] = names.merger;
    for (ours, theirs) in [("v.post_ln.", norm), ("mm.0.", first), ("mm.2.", second)] {
        if let Some(kind @ ("weight" | "bias")) = name.strip_prefix(ours) {
            return Some(Place::Whole(format!("{VISION}merger.{theirs}.{kind}")));
        }
    }
    if let Some(rest) = name.strip_prefix("v.deepstack.") {
        let (layer, rest) = rest.split_once('.')?;
        let (part, kind) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        let index = deepstack(tower).ok()?.iter().position(|taken| *taken == layer)?;
        let theirs = [("norm", norm), ("fc1", first), ("fc2", second)].iter().find(|(ours, _)| *ours == part)?.1;
        let known = names.table && matches!(kind, "weight" | "bias");
        return known.then(|| Place::Whole(format!("{VISION}deepstack_merger_list.{index}.{theirs}.{kind}")));
    }
    let (layer, part, kind) = tower.layer(name)?;
    let [up, down] = if tower.has("v.blk.0.ffn_gate.weight") { ["up_proj", "down_proj"] } else { names.mlp };
    let at = |theirs: &str| format!("{VISION}blocks.{layer}.{theirs}.{kind}");
    Some(match part {
        "attn_q" => Place::Rows(at("attn.qkv"), 0),
        "attn_k" => Place::Rows(at("attn.qkv"), 1),
        "attn_v" => Place::Rows(at("attn.qkv"), 2),
        "attn_qkv" => Place::Whole(at("attn.qkv")),
        "attn_out" => Place::Whole(at("attn.proj")),
        "ln1" => Place::Whole(at("norm1")),
        "ln2" => Place::Whole(at("norm2")),
        "ffn_gate" => Place::Whole(at("mlp.gate_proj")),
        "ffn_up" => Place::Whole(at(&format!("mlp.{up}"))),
        "ffn_down" => Place::Whole(at(&format!("mlp.{down}"))),
        _ => return None,
    })
}

/// The epsilon of a file is the language model's; those of the towers are fixed.
fn common(tower: &Tower<'_>) -> Result<Map<String, Value>> {
    Ok(object(json!({
        "depth": tower.need("block_count")?,
        "num_heads": tower.need("attention.head_count")?,
        "patch_size": tower.need("patch_size")?,
        "spatial_merge_size": merge(tower)?,
        "temporal_patch_size": frames(tower),
    })))
}

fn merge(tower: &Tower<'_>) -> Result<usize> {
    Ok(tower.size("spatial_merge_size")?.unwrap_or(2))
}

fn frames(tower: &Tower<'_>) -> usize {
    if tower.has("v.patch_embd.weight.1") { 2 } else { 1 }
}

/// The blocks that attend to all of a picture: those that the file lists, else every so manyth.
fn whole(tower: &Tower<'_>) -> Result<Vec<usize>> {
    let depth = tower.need("block_count")?;
    if let Some(listed) = tower.integers("wa_layer_indexes")? {
        return Ok(listed.iter().filter_map(|block| usize::try_from(*block).ok()).collect());
    }
    match tower.need("n_wa_pattern")? {
        0 => Ok((0..depth.min(512)).collect()),
        every => Ok((0..depth.min(512)).filter(|block| (block + 1).is_multiple_of(every)).collect()),
    }
}

/// The blocks behind which rows for the language model are made.
fn deepstack(tower: &Tower<'_>) -> Result<Vec<usize>> {
    let flags = tower.flags("is_deepstack_layers")?.unwrap_or_default();
    Ok(flags.iter().enumerate().filter(|(_, taken)| **taken).map(|(block, _)| block).collect())
}

fn settings(tower: &Tower<'_>, (least, most): (usize, usize)) -> Result<Map<String, Value>> {
    let mut settings = object(json!({
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": tower.need("patch_size")?,
        "merge_size": merge(tower)?,
        "temporal_patch_size": frames(tower),
        "min_pixels": tower.size("image_min_pixels")?.unwrap_or(least),
        "max_pixels": tower.size("image_max_pixels")?.unwrap_or(most),
    }));
    settings.extend(tower.normalisation()?);
    Ok(settings)
}
