//! config.json of a LLaVA, with the defaults of Hugging Face's LlavaConfig for what is omitted.

use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::model::clip::ClipConfig;
use crate::model::config::ConfigFile;
use crate::model::llama::LlamaConfig;
use crate::nn::Activation;

/// Which rows of the tower's output are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SelectStrategy {
    /// Patches only.
    Default,
    /// The class token too.
    Full,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Layers {
    One(i64),
    Many(Vec<i64>),
}

#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(alias = "image_token_id")]
    image_token_index: u32,
    projector_hidden_act: Activation,
    vision_feature_select_strategy: SelectStrategy,
    vision_feature_layer: Layers,
    multimodal_projector_bias: bool,
    tie_word_embeddings: Option<bool>,
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            image_token_index: 32_000,
            projector_hidden_act: Activation::Gelu,
            vision_feature_select_strategy: SelectStrategy::Default,
            vision_feature_layer: Layers::One(-2),
            multimodal_projector_bias: true,
            tie_word_embeddings: None,
        }
    }
}

pub(super) struct LlavaConfig {
    pub text: LlamaConfig,
    pub vision: ClipConfig,
    pub image_token: u32,
    pub projector_act: Activation,
    pub projector_bias: bool,
    pub strategy: SelectStrategy,
    /// After how many layers of the tower features are taken; several are joined side by side.
    pub feature_depths: Vec<usize>,
}

impl LlavaConfig {
    pub(super) fn parse(file: &ConfigFile) -> Result<Self> {
        let mut root = file.section(None)?;
        // Both spellings at once would be a duplicate field.
        if root.contains_key("image_token_index") {
            root.remove("image_token_id");
        }
        let fields: Fields = file.parse(root)?;
        let mut text = LlamaConfig::parse(file, Some("text_config"))?;
        let text_says = file.section(Some("text_config"))?.get("tie_word_embeddings").and_then(Value::as_bool);
        text.tie_word_embeddings = fields.tie_word_embeddings.or(text_says).unwrap_or(false);
        let vision = ClipConfig::parse(file, "vision_config")?;
        let layers = match fields.vision_feature_layer {
            Layers::One(layer) => vec![layer],
            Layers::Many(layers) => layers,
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
        Ok(LlavaConfig {
            text,
            vision,
            image_token: fields.image_token_index,
            projector_act: fields.projector_hidden_act,
            projector_bias: fields.multimodal_projector_bias,
            strategy: fields.vision_feature_select_strategy,
            feature_depths,
        })
    }

    /// Positions that one image takes.
    pub(super) fn image_tokens(&self) -> usize {
        match self.strategy {
            SelectStrategy::Default => self.vision.patches(),
            SelectStrategy::Full => self.vision.patches() + 1,
        }
    }
}
