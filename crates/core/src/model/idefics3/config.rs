//! config.json of an Idefics3 or SmolVLM, with the defaults of Hugging Face's classes for what is omitted.

use serde::Deserialize;

use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::model::encoder::EncoderConfig;
use crate::model::llama::LlamaConfig;
use crate::model::siglip;

/// Hugging Face's Idefics3VisionConfig and SmolVLMVisionConfig. Files of the hub leave out much of it.
const VISION: EncoderConfig = EncoderConfig {
    hidden_size: 1152,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 16,
    image_size: 224,
    patch_size: 32,
    layer_norm_eps: 1e-6,
    hidden_act: Activation::GeluTanh,
};
/// Of a language model without any section; one with a section has Llama's own.
const NORM_EPS: f64 = 1e-5;

#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    image_token_id: u32,
    scale_factor: usize,
    tie_word_embeddings: bool,
}

impl Default for Fields {
    fn default() -> Self {
        Fields { image_token_id: 128_257, scale_factor: 2, tie_word_embeddings: false }
    }
}

pub(super) struct Idefics3Config {
    pub text: LlamaConfig,
    pub vision: EncoderConfig,
    pub image_token: u32,
    /// Cells are squares of so many patches along a side.
    pub scale: usize,
    /// Whether its class takes videos.
    pub has_videos: bool,
}

impl Idefics3Config {
    pub(super) fn parse(file: &ConfigFile) -> Result<Self> {
        let fields: Fields = file.parse(None, file.section(None)?)?;
        let vision = siglip::parse(file, "vision_config", &VISION)?;
        let mut text = LlamaConfig::parse(file, Some("text_config"))?;
        if !file.has("text_config") {
            text.rms_norm_eps = NORM_EPS;
        }
        text.tie_word_embeddings |= fields.tie_word_embeddings;
        let (scale, side) = (fields.scale_factor, vision.side());
        if scale == 0 || !side.is_multiple_of(scale) {
            return Err(file.bad(format!(
                "`scale_factor` is {scale}, which does not divide the {side} patches along a side of a tile \
                 (`vision_config.image_size` {} by `vision_config.patch_size` {})",
                vision.image_size, vision.patch_size
            )));
        }
        let has_videos = file.architecture().is_ok_and(|architecture| super::VIDEOS.contains(&architecture));
        Ok(Idefics3Config { text, vision, image_token: fields.image_token_id, scale, has_videos })
    }

    /// Positions along a side of a tile.
    pub(super) fn cells(&self) -> usize {
        self.vision.side() / self.scale
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::config::golden;

    #[test]
    fn defaults_are_those_of_the_classes() {
        let config = Idefics3Config::parse(&golden::file(json!({ "vision_config": { "image_size": 384 } }))).unwrap();
        assert_eq!((config.image_token, config.scale, config.cells()), (128_257, 2, 6));
        assert_eq!((config.text.rms_norm_eps, config.text.num_attention_heads), (1e-5, 32));
        let vision = &config.vision;
        let sizes = [
            vision.hidden_size,
            vision.intermediate_size,
            vision.num_hidden_layers,
            vision.num_attention_heads,
            vision.patch_size,
        ];
        assert_eq!((sizes, vision.layer_norm_eps), ([1152, 3072, 12, 16, 32], 1e-6));
        assert_eq!(vision.hidden_act, Activation::GeluTanh);
        // As transformers 5.23 reads a section, even an empty one.
        for text in [json!({}), json!({ "model_type": "llama", "hidden_size": 64 })] {
            let file = golden::file(json!({ "text_config": text, "vision_config": { "image_size": 64 } }));
            assert_eq!(Idefics3Config::parse(&file).unwrap().text.rms_norm_eps, 1e-6);
        }
    }

    #[test]
    fn numbers_that_do_not_go_together_are_named() {
        for (config, name) in [
            (json!({ "scale_factor": 3 }), "`scale_factor` is 3"),
            (json!({ "scale_factor": 0 }), "`scale_factor` is 0"),
            (json!({ "vision_config": { "image_size": 16, "patch_size": 32 } }), "`vision_config`: an image of 16"),
            (json!({ "vision_config": { "hidden_size": 100 } }), "16 heads do not divide hidden size 100"),
            (json!({ "vision_config": { "image_size": 100_000 } }), "`vision_config.image_size` is 100000"),
            (json!({ "vision_config": { "layer_norm_eps": 0 } }), "`vision_config.layer_norm_eps` is 0"),
            (json!({ "image_token_id": -1 }), "`image_token_id`"),
        ] {
            let error = Idefics3Config::parse(&golden::file(config)).err().unwrap();
            assert!(error.code() == "model-file" && error.to_string().contains(name), "{error}");
        }
    }
}
