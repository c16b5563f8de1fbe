//! config.json of a Gemma 3 with a vision tower, with the defaults of Hugging Face's classes for what is omitted.

use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::model::config::{ConfigFile, one_spelling};
use crate::model::encoder::EncoderConfig;
use crate::model::llama::LlamaConfig;
use crate::model::siglip;

const TOWER: &str = "siglip_vision_model";

#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    image_token_index: u32,
    mm_tokens_per_image: Option<usize>,
}

impl Default for Fields {
    fn default() -> Self {
        Fields { image_token_index: 262_144, mm_tokens_per_image: None }
    }
}

pub(super) struct Gemma3Config {
    pub text: LlamaConfig,
    pub vision: EncoderConfig,
    pub image_token: u32,
    /// Positions along a side of a picture.
    pub cells: usize,
}

impl Gemma3Config {
    pub(super) fn parse(file: &ConfigFile) -> Result<Self> {
        let mut root = file.section(None)?;
        one_spelling(&mut root, "image_token_index", "image_token_id", "image_token_index");
        let tied = root.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(true);
        let fields: Fields = file.parse(None, root)?;
        let mut text = LlamaConfig::parse_as(file, Some("text_config"), "gemma3_text")?;
        // Said outside of the section, where transformers looks for it.
        text.tie_word_embeddings = tied;
        if let Some(kind) = file.section(Some("vision_config"))?.get("model_type").and_then(Value::as_str)
            && kind != TOWER
        {
            return Err(file.unsupported(format!("a vision tower of type `{kind}`; known is `{TOWER}`")));
        }
        let vision = siglip::parse(file, "vision_config", &siglip::CLASS)?;
        let tokens = fields.mm_tokens_per_image.unwrap_or(256);
        let (cells, side) = (tokens.isqrt(), vision.side());
        if cells == 0 || cells * cells != tokens || !side.is_multiple_of(cells) {
            return Err(file.bad(format!(
                "`mm_tokens_per_image` is {tokens}, which is no square that divides the {side} x {side} patches of a picture \
                 (`vision_config.image_size` {} by `vision_config.patch_size` {})",
                vision.image_size, vision.patch_size
            )));
        }
        Ok(Gemma3Config { text, vision, image_token: fields.image_token_index, cells })
    }

    /// Patches along a side of a position.
    pub(super) fn pool(&self) -> usize {
        self.vision.side() / self.cells
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::Activation;
    use crate::model::config::golden;

    #[test]
    fn defaults_are_those_of_the_classes() {
        // As the 4B model of the hub has it.
        let vision = json!({
            "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": false,
        });
        let text = json!({
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": { "factor": 8.0, "rope_type": "linear" }, "sliding_window": 1024,
        });
        let config =
            Gemma3Config::parse(&golden::file(json!({ "text_config": text, "vision_config": vision }))).unwrap();
        assert_eq!((config.image_token, config.cells, config.pool()), (262_144, 16, 4));
        assert_eq!((config.text.num_attention_heads, config.text.head_dim, config.text.vocab_size), (8, 256, 262_208));
        assert!(config.text.tie_word_embeddings && config.vision.layer_norm_eps == 1e-6);
        assert_eq!(config.vision.hidden_act, Activation::GeluTanh);
        let small = json!({ "vision_config": {}, "mm_tokens_per_image": 49, "image_token_id": 7, "tie_word_embeddings": false });
        let config = Gemma3Config::parse(&golden::file(small)).unwrap();
        assert_eq!((config.image_token, config.cells, config.pool()), (7, 7, 2));
        assert_eq!((config.vision.hidden_size, config.vision.num_hidden_layers), (768, 12));
        assert!(!config.text.tie_word_embeddings);
    }

    #[test]
    fn numbers_that_do_not_go_together_are_named() {
        for (config, code, name) in [
            (json!({ "mm_tokens_per_image": 48 }), "model-file", "`mm_tokens_per_image` is 48"),
            (json!({ "mm_tokens_per_image": 0 }), "model-file", "`mm_tokens_per_image` is 0"),
            // 14 patches a side.
            (json!({ "mm_tokens_per_image": 9 }), "model-file", "divides the 14 x 14 patches"),
            (json!({ "image_token_index": -1 }), "model-file", "`image_token_index`"),
            (
                json!({ "vision_config": { "model_type": "clip_vision_model" } }),
                "unsupported-model",
                "`clip_vision_model`",
            ),
            (
                json!({ "vision_config": { "image_size": 100_000 } }),
                "model-file",
                "`vision_config.image_size` is 100000",
            ),
        ] {
            let mut whole = json!({ "vision_config": {}, "mm_tokens_per_image": 49 });
            whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
            let error = Gemma3Config::parse(&golden::file(whole)).err().unwrap();
            assert!(error.code() == code && error.to_string().contains(name), "{error}");
        }
    }
}
