//! `vision_config` of a LLaVA, with Hugging Face's defaults for what is omitted.

use serde::Deserialize;
use serde_json::Value;

use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::ConfigFile;

/// A checked CLIP vision configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct ClipConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: Activation,
}

/// Hugging Face's CLIPVisionConfig.
impl Default for ClipConfig {
    fn default() -> Self {
        ClipConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
        }
    }
}

impl ClipConfig {
    /// Parses section `key`. When it is absent as a whole, LLaVA's own default applies: CLIP ViT-L/14 at 336 pixels.
    pub(crate) fn parse(file: &ConfigFile, key: &str) -> Result<Self> {
        let section = file.section(Some(key))?;
        if let Some(kind) = section.get("model_type").and_then(Value::as_str)
            && kind != "clip_vision_model"
        {
            return Err(file.unsupported(format!("a vision tower of type `{kind}`; only `clip_vision_model` is known")));
        }
        let config: ClipConfig = if section.is_empty() {
            ClipConfig {
                hidden_size: 1024,
                intermediate_size: 4096,
                num_hidden_layers: 24,
                num_attention_heads: 16,
                image_size: 336,
                patch_size: 14,
                ..ClipConfig::default()
            }
        } else {
            file.parse(Some(key), section)?
        };
        let sizes = [
            ("hidden_size", config.hidden_size, 1 << 16),
            ("intermediate_size", config.intermediate_size, 1 << 18),
            ("num_hidden_layers", config.num_hidden_layers, 512),
            ("num_attention_heads", config.num_attention_heads, 512),
            ("image_size", config.image_size, 4096),
            ("patch_size", config.patch_size, 1024),
        ];
        for (name, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(file.bad(format!("`{key}.{name}` is {value}, expected 1 to {limit}")));
            }
        }
        file.require_epsilon(Some(key), "layer_norm_eps", config.layer_norm_eps)?;
        if config.num_channels != 3 {
            return Err(file.unsupported(format!("images of {} channels; only 3 are known", config.num_channels)));
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
            return Err(file.bad(format!("`{key}`: {heads} heads do not divide hidden size {hidden}")));
        }
        if !config.image_size.is_multiple_of(config.patch_size) {
            let (image, patch) = (config.image_size, config.patch_size);
            return Err(file.bad(format!("`{key}`: patches of {patch} do not fill an image of {image}")));
        }
        Ok(config)
    }

    /// Patches of an image.
    pub(crate) fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}
