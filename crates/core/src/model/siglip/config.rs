//! `vision_config` of a SigLIP tower.

use crate::error::Result;
use crate::model::config::ConfigFile;
use crate::model::encoder::EncoderConfig;

/// Section `key` of the file; what it leaves out is as in `class`.
pub(crate) fn parse(file: &ConfigFile, key: &str, class: &EncoderConfig) -> Result<EncoderConfig> {
    let config = EncoderConfig::parse(file, key, file.section(Some(key))?, class)?;
    if config.image_size < config.patch_size {
        let (image, patch) = (config.image_size, config.patch_size);
        return Err(file.bad(format!("`{key}`: an image of {image} has no whole patch of {patch}")));
    }
    Ok(config)
}
