//! `vision_config` of a SigLIP tower.

use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::model::encoder::EncoderConfig;

/// Hugging Face's SiglipVisionConfig.
pub(crate) const CLASS: EncoderConfig = EncoderConfig {
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 16,
    layer_norm_eps: 1e-6,
    hidden_act: Activation::GeluTanh,
};

/// Section `key` of the file; what it leaves out is as in `class`.
pub(crate) fn parse(file: &ConfigFile, key: &str, class: &EncoderConfig) -> Result<EncoderConfig> {
    let config = EncoderConfig::parse(file, key, file.section(Some(key))?, class)?;
    if config.image_size < config.patch_size {
        let (image, patch) = (config.image_size, config.patch_size);
        return Err(file.bad(format!("`{key}`: an image of {image} has no whole patch of {patch}")));
    }
    Ok(config)
}
