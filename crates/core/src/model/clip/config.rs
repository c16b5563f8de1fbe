//! `vision_config` of a LLaVA, with Hugging Face's defaults for what is omitted.

use serde_json::Value;

use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::model::encoder::EncoderConfig;

/// Hugging Face's CLIPVisionConfig.
const CLASS: EncoderConfig = EncoderConfig {
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 32,
    layer_norm_eps: 1e-5,
    hidden_act: Activation::QuickGelu,
};

/// LLaVA's own default where the section is absent as a whole: CLIP ViT-L/14 at 336 pixels.
const ABSENT: EncoderConfig = EncoderConfig {
    hidden_size: 1024,
    intermediate_size: 4096,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    image_size: 336,
    patch_size: 14,
    ..CLASS
};

/// Section `key` of the file.
pub(crate) fn parse(file: &ConfigFile, key: &str) -> Result<EncoderConfig> {
    let section = file.section(Some(key))?;
    if let Some(kind) = section.get("model_type").and_then(Value::as_str)
        && kind != "clip_vision_model"
    {
        return Err(file.unsupported(format!("a vision tower of type `{kind}`; only `clip_vision_model` is known")));
    }
    let class = if section.is_empty() { &ABSENT } else { &CLASS };
    let config = EncoderConfig::parse(file, key, section, class)?;
    if !config.image_size.is_multiple_of(config.patch_size) {
        let (image, patch) = (config.image_size, config.patch_size);
        return Err(file.bad(format!("`{key}`: patches of {patch} do not fill an image of {image}")));
    }
    Ok(config)
}
