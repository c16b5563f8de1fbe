//! config.json of a Qwen-VL, with the defaults of Hugging Face's classes for what is omitted.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::qwen2::QWEN2;
use super::qwen2_5::QWEN2_5;
use super::qwen3::QWEN3;
use super::tower::Plan;
use super::videos::Videos;
use super::windows::Windows;
use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::{ConfigFile, one_spelling};
use crate::model::llama::LlamaConfig;

/// A generation of the family.
pub(super) struct Variant {
    pub architecture: &'static str,
    pub model_type: &'static str,
    /// The `model_type` of its decoder.
    pub text: &'static str,
    /// Whether the decoder's `head_dim` counts.
    pub own_head_dim: bool,
    /// The defaults of the tower's class.
    pub defaults: fn() -> Value,
    pub sizes: fn(&Fields) -> Sizes,
    pub extras: fn(&ConfigFile, &Fields) -> Result<Extras>,
    pub plan: Plan,
    pub videos: Videos,
}

pub(super) const ALL: [&Variant; 3] = [&QWEN2, &QWEN2_5, &QWEN3];

/// `vision_config` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    pub depth: usize,
    num_heads: usize,
    pub hidden_size: usize,
    pub embed_dim: usize,
    pub mlp_ratio: usize,
    pub intermediate_size: usize,
    pub out_hidden_size: usize,
    hidden_act: Option<Activation>,
    in_channels: usize,
    pub patch_size: usize,
    pub spatial_merge_size: usize,
    temporal_patch_size: usize,
    pub window_size: usize,
    pub fullatt_block_indexes: Vec<usize>,
    pub num_position_embeddings: usize,
    pub deepstack_visual_indexes: Vec<usize>,
    tokens_per_second: f32,
    rope_parameters: RopeFields,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RopeFields {
    rope_theta: Option<f64>,
}

/// Widths, each with the key that says it.
pub(super) struct Sizes {
    pub width: (&'static str, usize),
    pub inner: (&'static str, usize),
    /// Of the language model.
    pub out: (&'static str, usize),
}

/// Traits that one generation has and another has not.
#[derive(Default)]
pub(super) struct Extras {
    pub windows: Option<Windows>,
    /// Places along a side of the table of places.
    pub table: Option<usize>,
    /// The blocks behind which rows for the decoder are made.
    pub deepstack: Vec<usize>,
}

/// A checked vision configuration.
#[derive(Clone, Debug)]
pub(super) struct TowerConfig {
    pub width: usize,
    pub inner: usize,
    pub out: usize,
    pub depth: usize,
    pub heads: usize,
    pub act: Activation,
    /// Pixels along a side of a patch.
    pub patch: usize,
    /// Patches along a side of a cell, which takes one position.
    pub merge: usize,
    /// Frames of a patch, all of them equal for a picture that stands still.
    pub frames: usize,
    /// The base of the rotary frequencies.
    pub theta: f32,
    pub windows: Option<Windows>,
    pub table: Option<usize>,
    pub deepstack: Vec<usize>,
    pub plan: Plan,
    pub videos: Videos,
    /// Phases in time that a second of a video takes, where they go by seconds.
    pub per_second: f32,
}

const VISION: &str = "vision_config";

impl TowerConfig {
    fn parse(file: &ConfigFile, variant: &Variant) -> Result<Self> {
        let mut section = file.section(Some(VISION))?;
        one_spelling(&mut section, "num_heads", "num_heads", "num_attention_heads");
        one_spelling(&mut section, "depth", "depth", "num_hidden_layers");
        let common = serde_json::json!({ "in_channels": 3, "spatial_merge_size": 2, "temporal_patch_size": 2, "tokens_per_second": 4 });
        for defaults in [(variant.defaults)(), common] {
            for (key, value) in defaults.as_object().into_iter().flatten() {
                match section.get(key) {
                    Some(Value::Null) | None => section.insert(key.clone(), value.clone()),
                    Some(_) => None,
                };
            }
        }
        let fields: Fields = file.parse(Some(VISION), section)?;
        let Sizes { width, inner, out } = (variant.sizes)(&fields);
        let sizes = [
            ("depth", fields.depth, 512),
            ("num_heads", fields.num_heads, 512),
            ("patch_size", fields.patch_size, 256),
            ("spatial_merge_size", fields.spatial_merge_size, 16),
            ("temporal_patch_size", fields.temporal_patch_size, 16),
            (width.0, width.1, 1 << 16),
            (inner.0, inner.1, 1 << 18),
            (out.0, out.1, 1 << 17),
        ];
        for (name, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(file.bad(format!("`{VISION}.{name}` is {value}, expected 1 to {limit}")));
            }
        }
        if fields.in_channels != 3 {
            return Err(file.unsupported(format!("images of {} channels; only 3 are known", fields.in_channels)));
        }
        let (width, heads) = (width.1, fields.num_heads);
        if !width.is_multiple_of(heads) || !(width / heads).is_multiple_of(4) {
            return Err(file.bad(format!(
                "`{VISION}`: {heads} heads of a width of {width} cannot be turned by rows and columns; a head needs a multiple of 4"
            )));
        }
        let theta = fields.rope_parameters.rope_theta.unwrap_or(10_000.0);
        if !(theta > 1.0 && (theta as f32).is_finite()) {
            return Err(file.bad(format!("`{VISION}.rope_parameters.rope_theta` is {theta}, expected more than 1")));
        }
        let per_second = fields.tokens_per_second;
        if !(0.0..=1e3).contains(&per_second) {
            return Err(file.bad(format!("`{VISION}.tokens_per_second` is {per_second}, expected 0 to 1000")));
        }
        let Extras { windows, table, deepstack } = (variant.extras)(file, &fields)?;
        Ok(TowerConfig {
            width,
            inner: inner.1,
            out: out.1,
            depth: fields.depth,
            heads,
            act: fields.hidden_act.unwrap_or(Activation::Gelu),
            patch: fields.patch_size,
            merge: fields.spatial_merge_size,
            frames: fields.temporal_patch_size,
            theta: theta as f32,
            windows,
            table,
            deepstack,
            plan: variant.plan,
            videos: variant.videos,
            per_second: fields.tokens_per_second,
        })
    }

    /// Pixels along a side of a cell.
    pub(super) fn cell(&self) -> usize {
        self.patch * self.merge
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Root {
    image_token_id: u32,
    video_token_id: u32,
    tie_word_embeddings: bool,
}

impl Default for Root {
    fn default() -> Self {
        Root { image_token_id: 151_655, video_token_id: 151_656, tie_word_embeddings: false }
    }
}

#[derive(Clone, Debug)]
pub(super) struct QwenVlConfig {
    pub text: LlamaConfig,
    pub tower: TowerConfig,
    pub image_token: u32,
    pub video_token: u32,
}

impl QwenVlConfig {
    pub(super) fn parse(file: &ConfigFile) -> Result<Self> {
        let architecture = file.architecture()?;
        let Some(variant) = ALL.into_iter().find(|variant| variant.architecture == architecture) else {
            return Err(file.unsupported(format!("architecture `{architecture}` is no Qwen-VL")));
        };
        let whole = file.section(None)?;
        let root: Root = file.parse(None, whole.clone())?;
        let (key, mut section) = text_section(file, whole)?;
        if !variant.own_head_dim {
            section.remove("head_dim");
        }
        let mut text = LlamaConfig::named(file, key, variant.text, section)?;
        text.tie_word_embeddings |= root.tie_word_embeddings;
        let tower = TowerConfig::parse(file, variant)?;
        if tower.out != text.hidden_size {
            let (out, hidden) = (tower.out, text.hidden_size);
            return Err(file.bad(format!("`{VISION}` makes rows of {out} numbers for a language model of {hidden}")));
        }
        if tower.deepstack.len() > text.num_hidden_layers {
            let (made, layers) = (tower.deepstack.len(), text.num_hidden_layers);
            return Err(file.bad(format!("`{VISION}` makes rows for {made} layers of a language model of {layers}")));
        }
        Ok(QwenVlConfig { text, tower, image_token: root.image_token_id, video_token: root.video_token_id })
    }
}

/// The section of the language model: of its own, or, as in older files, the whole.
fn text_section(file: &ConfigFile, whole: Map<String, Value>) -> Result<(Option<&'static str>, Map<String, Value>)> {
    const TEXT: &str = "text_config";
    match whole.get(TEXT) {
        None | Some(Value::Null) => Ok((None, whole)),
        Some(_) => Ok((Some(TEXT), file.section(Some(TEXT))?)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::model::config::golden;

    #[test]
    fn resolved_as_transformers_does() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/qwen_vl_configs.json");
        let read: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = read["cases"].as_array().unwrap();
        for case in cases {
            let (name, want) = (&case["name"], &case["resolved"]);
            let file = golden::file(case["config"].clone());
            let QwenVlConfig { text, tower, image_token, .. } =
                QwenVlConfig::parse(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
            let rope = &text.ropes[0];
            let windows = text.kinds.iter().filter(|kind| kind.window.is_some()).map(|kind| kind.layer);
            let got = json!({
                "hidden_size": text.hidden_size,
                "intermediate_size": text.intermediate_size,
                "num_hidden_layers": text.num_hidden_layers,
                "num_attention_heads": text.num_attention_heads,
                "num_key_value_heads": text.num_key_value_heads,
                "vocab_size": text.vocab_size,
                "max_position_embeddings": text.max_position_embeddings,
                "rms_norm_eps": text.rms_norm_eps,
                "head_dim": text.head_dim,
                "theta": rope.theta,
                "sections": rope.sections.unwrap().sizes,
                "windows": windows.collect::<Vec<_>>(),
                "tied": text.tie_word_embeddings,
                "image_token_id": image_token,
                "tower": {
                    "depth": tower.depth,
                    "num_heads": tower.heads,
                    "patch_size": tower.patch,
                    "spatial_merge_size": tower.merge,
                    "temporal_patch_size": tower.frames,
                    "width": tower.width,
                    "inner": tower.inner,
                    "out": tower.out,
                    "theta": tower.theta,
                    "act": want["tower"]["act"],
                    "whole": tower.windows.as_ref().map_or(Vec::new(), |windows| windows.whole.clone()),
                    "window": tower.windows.as_ref().map(|windows| windows.side * tower.cell()),
                    "deepstack": tower.deepstack,
                    "places": tower.table.map(|side| side * side),
                },
            });
            assert_eq!(&got, want, "{name}");
            let act: Activation = serde_json::from_value(want["tower"]["act"].clone()).unwrap();
            assert_eq!(tower.act, act, "{name}");
            // Qwen3-VL normalises heads and has no biases; the others the other way round.
            let third = case["config"]["model_type"] == "qwen3_vl";
            assert_eq!((text.head_norms, text.attention_bias, text.output_bias), (third, !third, false), "{name}");
            assert_eq!(rope.sections.unwrap().interleaved, third, "{name}");
        }
        assert!(cases.len() >= 16, "{} configurations", cases.len());
    }
}
