//! `vision_config` of a SigLIP tower, with the defaults of the family's class for what is omitted.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::backend::Activation;
use crate::error::Result;
use crate::model::config::ConfigFile;

/// A checked SigLIP vision configuration.
#[derive(Clone, Debug)]
pub(crate) struct SiglipConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: Activation,
}

#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_channels: usize,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<Activation>,
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            hidden_size: None,
            intermediate_size: None,
            num_hidden_layers: None,
            num_attention_heads: None,
            num_channels: 3,
            image_size: None,
            patch_size: None,
            layer_norm_eps: None,
            hidden_act: None,
        }
    }
}

impl SiglipConfig {
    /// Section `key` of the file; what it leaves out is as in `class`.
    pub(crate) fn parse(file: &ConfigFile, key: &str, class: &SiglipConfig) -> Result<Self> {
        let section: Map<String, Value> = file.section(Some(key))?;
        let fields: Fields = file.parse(Some(key), section)?;
        let config = SiglipConfig {
            hidden_size: fields.hidden_size.unwrap_or(class.hidden_size),
            intermediate_size: fields.intermediate_size.unwrap_or(class.intermediate_size),
            num_hidden_layers: fields.num_hidden_layers.unwrap_or(class.num_hidden_layers),
            num_attention_heads: fields.num_attention_heads.unwrap_or(class.num_attention_heads),
            image_size: fields.image_size.unwrap_or(class.image_size),
            patch_size: fields.patch_size.unwrap_or(class.patch_size),
            layer_norm_eps: fields.layer_norm_eps.unwrap_or(class.layer_norm_eps),
            hidden_act: fields.hidden_act.unwrap_or(class.hidden_act),
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
        if fields.num_channels != 3 {
            return Err(file.unsupported(format!("images of {} channels; only 3 are known", fields.num_channels)));
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
            return Err(file.bad(format!("`{key}`: {heads} heads do not divide hidden size {hidden}")));
        }
        if config.image_size < config.patch_size {
            let (image, patch) = (config.image_size, config.patch_size);
            return Err(file.bad(format!("`{key}`: an image of {image} has no whole patch of {patch}")));
        }
        Ok(config)
    }

    /// Patches along a side of a tile; pixels beyond the last whole one are not seen.
    pub(crate) fn side(&self) -> usize {
        self.image_size / self.patch_size
    }
}
