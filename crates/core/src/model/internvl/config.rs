//! config.json of an InternVL in transformers' layout, with the defaults of its classes for what is omitted; and what both layouts come to.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::images::Pictures;
use super::names::{Names, ORIGINAL, OWN};
use super::original;
use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::model::encoder::EncoderConfig;
use crate::model::llama::LlamaConfig;
use crate::nn::NormKind;

pub(super) const VISION: &str = "vision_config";
/// The decoder of a configuration that names none.
const TEXT: &str = "qwen2";

/// Hugging Face's InternVLVisionConfig: the tower of 300 million parameters.
const CLASS: EncoderConfig = EncoderConfig {
    hidden_size: 1024,
    intermediate_size: 4096,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    image_size: 448,
    patch_size: 14,
    layer_norm_eps: 1e-6,
    hidden_act: Activation::Gelu,
};
/// Of the norms of whole queries and keys; the class takes no other.
const WIDE_EPS: f64 = 1e-6;

/// `norm_type` of a tower.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum Norms {
    #[serde(rename = "layer_norm")]
    Layer,
    #[serde(rename = "rms_norm")]
    RootMeanSquare,
}

impl Norms {
    pub(super) fn kind(self) -> NormKind {
        match self {
            Norms::Layer => NormKind::Layer,
            Norms::RootMeanSquare => NormKind::RootMeanSquare,
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    image_token_id: u32,
    downsample_ratio: f64,
    projector_hidden_act: Activation,
    vision_feature_layer: i64,
    vision_feature_select_strategy: String,
    tie_word_embeddings: bool,
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            image_token_id: 151_667,
            downsample_ratio: 0.5,
            projector_hidden_act: Activation::Gelu,
            vision_feature_layer: -1,
            vision_feature_select_strategy: "default".into(),
            tie_word_embeddings: true,
        }
    }
}

/// The parts that other towers of encoder layers lack.
#[derive(Deserialize)]
#[serde(default)]
struct VisionFields {
    attention_bias: bool,
    use_qk_norm: bool,
    norm_type: Norms,
    use_absolute_position_embeddings: bool,
    use_mean_pooling: bool,
}

impl Default for VisionFields {
    fn default() -> Self {
        VisionFields {
            attention_bias: false,
            use_qk_norm: false,
            norm_type: Norms::Layer,
            use_absolute_position_embeddings: true,
            use_mean_pooling: true,
        }
    }
}

/// A checked tower.
#[derive(Clone, Debug)]
pub(super) struct TowerConfig {
    pub encoder: EncoderConfig,
    /// Layers that are run.
    pub depth: usize,
    /// Of queries, keys and values.
    pub attention_bias: bool,
    /// The epsilon of the norms of whole queries and keys, where these are normalised.
    pub wide_norms: Option<f64>,
    pub norm: NormKind,
    /// Whether there is a norm behind the last layer.
    pub last_norm: bool,
    /// Cells are squares of so many patches along a side.
    pub merge: usize,
}

impl TowerConfig {
    /// Positions along a side of a tile.
    pub(super) fn cells(&self) -> usize {
        self.encoder.side() / self.merge
    }

    /// The width of the joined patches of a cell.
    pub(super) fn joined(&self) -> usize {
        self.merge.pow(2) * self.encoder.hidden_size
    }
}

/// The connector: widths, and what is between its layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Projector {
    pub joined: usize,
    pub out: usize,
    pub act: Activation,
}

pub(super) struct InternVlConfig {
    pub text: LlamaConfig,
    pub tower: TowerConfig,
    pub image_token: u32,
    pub act: Activation,
    pub names: &'static Names,
    pub pictures: Pictures,
}

impl InternVlConfig {
    pub(super) fn parse(file: &ConfigFile) -> Result<Self> {
        match file.architecture()? {
            architecture if architecture == ORIGINAL.architecture => original::parse(file),
            _ => Self::parse_own(file),
        }
    }

    fn parse_own(file: &ConfigFile) -> Result<Self> {
        let fields: Fields = file.parse(None, file.section(None)?)?;
        let mut text = LlamaConfig::parse_as(file, Some("text_config"), TEXT)?;
        text.tie_word_embeddings |= fields.tie_word_embeddings;
        if fields.vision_feature_select_strategy != "default" {
            let found = fields.vision_feature_select_strategy;
            let reason =
                format!("`vision_feature_select_strategy` {found:?}: only \"default\", without the class token");
            return Err(file.unsupported(reason));
        }
        let mut section = file.section(Some(VISION))?;
        for key in ["image_size", "patch_size"] {
            square(file, &mut section, key)?;
        }
        let vision: VisionFields = file.parse(Some(VISION), section.clone())?;
        if !vision.use_absolute_position_embeddings {
            return Err(file.unsupported("a vision tower without positions (`use_absolute_position_embeddings`)"));
        }
        let encoder = encoder(file, section, &CLASS)?;
        let (depth, is_last) = depth(file, "vision_feature_layer", fields.vision_feature_layer, &encoder)?;
        let merge = merge(file, fields.downsample_ratio, &encoder)?;
        let tower = TowerConfig {
            encoder,
            depth,
            attention_bias: vision.attention_bias,
            wide_norms: vision.use_qk_norm.then_some(WIDE_EPS),
            norm: vision.norm_type.kind(),
            last_norm: is_last && !vision.use_mean_pooling,
            merge,
        };
        Ok(InternVlConfig {
            text,
            tower,
            image_token: fields.image_token_id,
            act: fields.projector_hidden_act,
            names: &OWN,
            pictures: Pictures::Processor,
        })
    }

    pub(super) fn projector(&self) -> Projector {
        Projector { joined: self.tower.joined(), out: self.text.hidden_size, act: self.act }
    }
}

/// The sizes of the tower.
pub(super) fn encoder(file: &ConfigFile, section: Map<String, Value>, class: &EncoderConfig) -> Result<EncoderConfig> {
    let encoder = EncoderConfig::parse(file, VISION, section, class)?;
    if encoder.side() == 0 {
        let (image, patch) = (encoder.image_size, encoder.patch_size);
        return Err(file.bad(format!("`{VISION}`: an image of {image} has no whole patch of {patch}")));
    }
    Ok(encoder)
}

/// A size that may be written as the two sides of a rectangle, as one number.
fn square(file: &ConfigFile, section: &mut Map<String, Value>, key: &str) -> Result<()> {
    match section.get(key) {
        Some(Value::Array(sides)) if sides.len() == 2 && sides[0] == sides[1] => {
            let side = sides[0].clone();
            section.insert(key.to_owned(), side);
        }
        Some(found @ Value::Array(_)) => {
            return Err(file.unsupported(format!("`{VISION}.{key}` {found}: only squares are known")));
        }
        _ => {}
    }
    Ok(())
}

/// After how many layers features are taken, and whether that is written as the last one.
pub(super) fn depth(file: &ConfigFile, key: &str, layer: i64, encoder: &EncoderConfig) -> Result<(usize, bool)> {
    // transformers counts the hidden states: 0 is the embeddings, -1 the last layer.
    let count = encoder.num_hidden_layers as i64;
    let depth = if layer < 0 { count + 1 + layer } else { layer };
    match (0..=count).contains(&depth) {
        true => Ok((depth as usize, layer == -1)),
        false => Err(file.bad(format!("`{key}` {layer} is not one of {count} layers"))),
    }
}

/// Patches along a side of a cell.
pub(super) fn merge(file: &ConfigFile, ratio: f64, encoder: &EncoderConfig) -> Result<usize> {
    let Some(merge) = [1, 2, 4, 8].into_iter().find(|merge| ratio * f64::from(*merge) == 1.0) else {
        return Err(file.bad(format!("`downsample_ratio` is {ratio}, expected 1, 0.5, 0.25 or 0.125")));
    };
    let (merge, side) = (merge as usize, encoder.side());
    if !side.is_multiple_of(merge) {
        return Err(file.bad(format!(
            "`downsample_ratio` is {ratio}, so {merge} must divide the {side} patches along a side of a tile (`{VISION}.image_size` {} by \
             `{VISION}.patch_size` {})",
            encoder.image_size, encoder.patch_size
        )));
    }
    Ok(merge)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::config::golden;

    fn parse(config: Value) -> Result<InternVlConfig> {
        let mut config = config;
        config["model_type"] = json!("internvl");
        InternVlConfig::parse(&golden::file(config))
    }

    #[test]
    fn defaults_are_those_of_the_classes() {
        let config = parse(json!({})).unwrap();
        let tower = &config.tower;
        assert_eq!((config.image_token, tower.merge, tower.cells(), tower.joined()), (151_667, 2, 16, 4096));
        let encoder = &tower.encoder;
        let sizes = [
            encoder.hidden_size,
            encoder.intermediate_size,
            encoder.num_hidden_layers,
            encoder.num_attention_heads,
            encoder.image_size,
            encoder.patch_size,
        ];
        assert_eq!((sizes, encoder.layer_norm_eps), ([1024, 4096, 24, 16, 448, 14], 1e-6));
        assert_eq!((encoder.hidden_act, config.act), (Activation::Gelu, Activation::Gelu));
        assert_eq!((tower.norm, tower.depth, tower.last_norm), (NormKind::Layer, 24, false));
        assert!(!tower.attention_bias && tower.wide_norms.is_none());
        // The decoder is a Qwen2 with the head tied, unless it is said otherwise.
        assert!(config.text.tie_word_embeddings && config.text.attention_bias && !config.text.head_norms);
        let config = parse(json!({ "tie_word_embeddings": false, "text_config": { "model_type": "qwen3" } })).unwrap();
        assert!(!config.text.tie_word_embeddings && config.text.head_norms && config.text.head_dim == 128);
    }

    #[test]
    fn the_tower_of_six_billion_parameters() {
        let vision = json!({
            "hidden_size": 3200, "intermediate_size": 12_800, "num_hidden_layers": 45, "num_attention_heads": 25,
            "image_size": [448, 448], "patch_size": [14, 14], "use_qk_norm": true, "norm_type": "rms_norm", "use_mean_pooling": false,
        });
        let tower = parse(json!({ "vision_config": vision })).unwrap().tower;
        assert_eq!((tower.norm, tower.wide_norms, tower.last_norm), (NormKind::RootMeanSquare, Some(1e-6), true));
        assert_eq!((tower.encoder.heads().dim, tower.cells(), tower.joined()), (128, 16, 12_800));
        for (layer, depth) in [(-1, 45), (-4, 42), (45, 45), (0, 0)] {
            let config = parse(json!({ "vision_config": vision, "vision_feature_layer": layer })).unwrap();
            assert_eq!((config.tower.depth, config.tower.last_norm), (depth, layer == -1), "{layer}");
        }
    }

    #[test]
    fn numbers_that_do_not_go_together_are_named() {
        for (config, code, name) in [
            (json!({ "downsample_ratio": 0.3 }), "model-file", "`downsample_ratio` is 0.3"),
            (json!({ "downsample_ratio": 0 }), "model-file", "`downsample_ratio` is 0"),
            (json!({ "vision_config": { "image_size": 42 } }), "model-file", "2 must divide the 3 patches"),
            (
                json!({ "vision_config": { "image_size": [448, 224] } }),
                "unsupported-model",
                "`vision_config.image_size`",
            ),
            (json!({ "vision_config": { "image_size": 8 } }), "model-file", "no whole patch of 14"),
            (json!({ "vision_config": { "norm_type": "group" } }), "unsupported-model", "`vision_config.norm_type`"),
            (
                json!({ "vision_config": { "use_absolute_position_embeddings": false } }),
                "unsupported-model",
                "positions",
            ),
            (json!({ "vision_config": { "layer_norm_eps": 0 } }), "model-file", "`vision_config.layer_norm_eps`"),
            (json!({ "vision_config": { "num_channels": 4 } }), "unsupported-model", "4 channels"),
            (json!({ "vision_feature_layer": 25 }), "model-file", "`vision_feature_layer` 25"),
            (json!({ "vision_feature_layer": [-1, -2] }), "model-file", "`vision_feature_layer`"),
            (json!({ "vision_feature_select_strategy": "full" }), "unsupported-model", "\"full\""),
            (json!({ "text_config": { "model_type": "gpt_oss" } }), "unsupported-model", "`gpt_oss`"),
            (json!({ "image_token_id": -1 }), "model-file", "`image_token_id`"),
        ] {
            let error = parse(config.clone()).err().unwrap();
            assert!(error.code() == code && error.to_string().contains(name), "{config}: {error}");
        }
    }
}
