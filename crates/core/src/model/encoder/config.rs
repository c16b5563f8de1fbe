//! `vision_config` of a tower of encoder layers, with the defaults of the family's class for what is omitted.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::backend::{Activation, Heads};
use crate::error::Result;
use crate::model::config::ConfigFile;

/// The checked sizes of a tower.
#[derive(Clone, Debug)]
pub(crate) struct EncoderConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: Activation,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<Activation>,
}

impl EncoderConfig {
    /// `section` stands under `key`; what it leaves out is as in `class`.
    pub(crate) fn parse(file: &ConfigFile, key: &str, section: Map<String, Value>, class: &Self) -> Result<Self> {
        let fields: Fields = file.parse(Some(key), section)?;
        let config = EncoderConfig {
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
        if let Some(channels) = fields.num_channels.filter(|channels| *channels != 3) {
            return Err(file.unsupported(format!("images of {channels} channels; only 3 are known")));
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
            return Err(file.bad(format!("`{key}`: {heads} heads do not divide hidden size {hidden}")));
        }
        Ok(config)
    }

    /// Patches along a side of an image; pixels beyond the last whole one are not seen.
    pub(crate) fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of a square image.
    pub(crate) fn patches(&self) -> usize {
        self.side().pow(2)
    }

    pub(crate) fn heads(&self) -> Heads {
        let heads = self.num_attention_heads;
        Heads { query: heads, kv: heads, dim: self.hidden_size / heads }
    }
}
