//! config.json of a LLaVA, with the defaults of its Hugging Face class for what is omitted.

use serde::Deserialize;

use super::original;
use super::tower::TowerKind;
use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::{ConfigFile, one_spelling};
use crate::model::encoder::EncoderConfig;
use crate::model::llama::LlamaConfig;

/// Which rows of the tower's output are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::model) enum SelectStrategy {
    /// Patches only.
    Default,
    /// The class token too.
    Full,
}

/// The defaults in which the classes differ.
pub(in crate::model) struct Class {
    pub image_token: u32,
    pub strategy: SelectStrategy,
    /// The layer of the tower whose states are taken, as Hugging Face counts.
    pub layer: i64,
    pub tower: TowerKind,
    /// The `model_type` of the language model.
    pub text: &'static str,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Layers {
    One(i64),
    Many(Vec<i64>),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    image_token_index: Option<u32>,
    projector_hidden_act: Option<Activation>,
    vision_feature_select_strategy: Option<SelectStrategy>,
    vision_feature_layer: Option<Layers>,
    multimodal_projector_bias: Option<bool>,
    projector_layernorm_eps: Option<f64>,
    tie_word_embeddings: bool,
}

pub(in crate::model) struct LlavaConfig {
    pub text: LlamaConfig,
    pub tower: TowerKind,
    pub vision: EncoderConfig,
    pub image_token: u32,
    pub projector_act: Activation,
    pub projector_bias: bool,
    /// The epsilon of the norm before the projector, where there is one.
    pub projector_norm: Option<f64>,
    pub strategy: SelectStrategy,
    /// After how many layers of the tower features are taken; several are joined side by side.
    pub feature_depths: Vec<usize>,
}

impl LlavaConfig {
    pub(in crate::model) fn parse(file: &ConfigFile, class: &Class) -> Result<Self> {
        original::require_converted(file)?;
        // Cai et al. 2023, arXiv 2312.00784: features of several layers, and a norm before the projector.
        let vip = file.architecture().is_ok_and(|name| name == super::VIP);
        let mut root = file.section(None)?;
        // transformers lets the new spelling win.
        one_spelling(&mut root, "image_token_index", "image_token_id", "image_token_index");
        if vip {
            one_spelling(&mut root, "vision_feature_layer", "vision_feature_layers", "vision_feature_layer");
        }
        let fields: Fields = file.parse(None, root)?;
        let mut text = LlamaConfig::parse_as(file, Some("text_config"), class.text)?;
        text.tie_word_embeddings |= fields.tie_word_embeddings;
        let (tower, vision) = TowerKind::parse(file, "vision_config", class.tower)?;
        // The class of ViP has no such key.
        let strategy = fields.vision_feature_select_strategy.filter(|_| !vip).unwrap_or(class.strategy);
        if tower == TowerKind::Siglip && strategy == SelectStrategy::Default {
            return Err(file.bad(
                "`vision_feature_select_strategy` is \"default\", which leaves out a class token, but the vision tower, a SigLIP, has none: it \
                 must be \"full\"",
            ));
        }
        let layers = match fields.vision_feature_layer {
            None if vip => vec![-2, -5, -8, -11, 6],
            None => vec![class.layer],
            Some(Layers::One(layer)) => vec![layer],
            Some(Layers::Many(layers)) => layers,
        };
        let count = vision.num_hidden_layers as i64;
        let feature_depths: Vec<usize> = layers
            .iter()
            .map(|&layer| {
                // Hugging Face indexes the hidden states: 0 is the embeddings, -1 the last layer.
                let depth = if layer < 0 { count + 1 + layer } else { layer };
                match (0..=count).contains(&depth) {
                    true => Ok(depth as usize),
                    false => Err(file.bad(format!("`vision_feature_layer` {layer} is not one of {count} layers"))),
                }
            })
            .collect::<Result<_>>()?;
        if feature_depths.is_empty() || feature_depths.len() > 64 {
            return Err(file.bad("`vision_feature_layer` must name 1 to 64 layers"));
        }
        let eps = fields.projector_layernorm_eps.unwrap_or(1e-5);
        file.require_epsilon(None, "projector_layernorm_eps", eps)?;
        Ok(LlavaConfig {
            text,
            tower,
            vision,
            image_token: fields.image_token_index.unwrap_or(class.image_token),
            projector_act: fields.projector_hidden_act.unwrap_or(Activation::Gelu),
            projector_bias: vip || fields.multimodal_projector_bias.unwrap_or(true),
            projector_norm: vip.then_some(eps),
            strategy,
            feature_depths,
        })
    }

    /// Whether the class token of the tower is one of the features.
    pub(in crate::model) fn has_class_token(&self) -> bool {
        self.tower == TowerKind::Clip && self.strategy == SelectStrategy::Full
    }

    /// Positions that one square takes.
    pub(super) fn image_tokens(&self) -> usize {
        self.vision.patches() + usize::from(self.has_class_token())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::config::golden;
    use crate::model::llava::CLASS;

    #[test]
    fn resolved_as_transformers_does() {
        let mut checked = 0;
        for (name, file, want) in golden::configs("llava") {
            let config = LlavaConfig::parse(&file, &CLASS).unwrap_or_else(|e| panic!("{name}: {e}"));
            golden::check_llama(&name, &config.text, &want);
            let vision = &want["vision"];
            let got = [
                ("hidden_size", config.vision.hidden_size),
                ("intermediate_size", config.vision.intermediate_size),
                ("num_hidden_layers", config.vision.num_hidden_layers),
                ("num_attention_heads", config.vision.num_attention_heads),
                ("image_size", config.vision.image_size),
                ("patch_size", config.vision.patch_size),
            ];
            for (key, got) in got {
                assert_eq!(vision[key].as_u64(), Some(got as u64), "{name}: vision {key}");
            }
            assert_eq!(vision["layer_norm_eps"].as_f64(), Some(config.vision.layer_norm_eps), "{name}");
            assert_eq!(vision["hidden_act"], "quick_gelu", "{name}");
            assert_eq!(config.vision.hidden_act, Activation::QuickGelu, "{name}");
            assert_eq!(want["image_token_index"].as_u64(), Some(u64::from(config.image_token)), "{name}");
            assert_eq!(want["multimodal_projector_bias"].as_bool(), Some(config.projector_bias), "{name}");
            let act: Activation = serde_json::from_value(want["projector_hidden_act"].clone()).unwrap();
            assert_eq!(act, config.projector_act, "{name}");
            // Generation in transformers reads the outer token first.
            let outer = file.section(None).unwrap().get("eos_token_id").and_then(Value::as_u64);
            let eos = outer.or(want["eos_token_id"].as_u64()).unwrap();
            assert_eq!(file.eos_tokens(None).unwrap(), [eos as u32], "{name}");
            let strategy: SelectStrategy =
                serde_json::from_value(want["vision_feature_select_strategy"].clone()).unwrap();
            assert_eq!(strategy, config.strategy, "{name}");
            let layers = match want["vision_feature_layer"].clone() {
                Value::Array(list) => list,
                one => vec![one],
            };
            let count = config.vision.num_hidden_layers as i64;
            let depths: Vec<usize> = layers
                .iter()
                .map(|layer| layer.as_i64().unwrap())
                .map(|layer| if layer < 0 { count + 1 + layer } else { layer } as usize)
                .collect();
            assert_eq!(depths, config.feature_depths, "{name}");
            checked += 1;
        }
        assert!(checked >= 12, "{checked} configurations");
    }

    #[test]
    fn null_is_no_second_spelling_of_the_image_token() {
        for (config, expected) in [
            (json!({ "image_token_id": null, "image_token_index": 31998 }), 31998),
            (json!({ "image_token_id": 31999, "image_token_index": null }), 31999),
            (json!({ "image_token_id": 31999, "image_token_index": 31998 }), 31999),
            (json!({ "image_token_id": null }), 32000),
        ] {
            assert_eq!(LlavaConfig::parse(&golden::file(config), &CLASS).unwrap().image_token, expected);
        }
    }

    #[test]
    fn vip_has_a_norm_and_several_layers() {
        let depths = |config: Value| LlavaConfig::parse(&golden::file(config), &CLASS).unwrap().feature_depths;
        assert_eq!(depths(json!({ "model_type": "vipllava" })), [23, 20, 17, 14, 6]);
        assert_eq!(depths(json!({ "model_type": "vipllava", "vision_feature_layers": [-1, 3] })), [24, 3]);
        assert_eq!(depths(json!({ "model_type": "vipllava", "vision_feature_layer": -3 })), [22]);
        assert_eq!(depths(json!({ "model_type": "llava", "vision_feature_layers": [-1, 3] })), [23]);
        let full = json!({
            "model_type": "vipllava", "vision_feature_select_strategy": "full", "multimodal_projector_bias": false,
            "projector_layernorm_eps": 1e-3,
        });
        let config = LlavaConfig::parse(&golden::file(full), &CLASS).unwrap();
        assert_eq!((config.projector_norm, config.projector_bias, config.image_tokens()), (Some(1e-3), true, 576));
        assert_eq!(
            LlavaConfig::parse(&golden::file(json!({ "model_type": "llava" })), &CLASS).unwrap().projector_norm,
            None
        );
        let file = golden::file(json!({ "model_type": "vipllava", "projector_layernorm_eps": 0 }));
        assert!(
            LlavaConfig::parse(&file, &CLASS).err().unwrap().to_string().contains("`projector_layernorm_eps` is 0")
        );
    }

    #[test]
    fn bad_numbers_of_the_tower_are_named() {
        for (vision, name) in [
            (json!({ "layer_norm_eps": -1 }), "`vision_config.layer_norm_eps` is -1"),
            (json!({ "layer_norm_eps": 0 }), "`vision_config.layer_norm_eps` is 0"),
            (json!({ "layer_norm_eps": 1e-50 }), "`vision_config.layer_norm_eps`"),
            (json!({ "layer_norm_eps": "x" }), "`vision_config.layer_norm_eps`: invalid type"),
            (json!({ "patch_size": 14.5 }), "`vision_config.patch_size`: invalid type"),
        ] {
            let file = golden::file(json!({ "vision_config": vision }));
            let error = LlavaConfig::parse(&file, &CLASS).err().unwrap();
            assert!(error.code() == "model-file" && error.to_string().contains(name), "{error}");
        }
    }
}
