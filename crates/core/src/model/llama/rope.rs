//! The frequencies of rotary embedding and their scalings, as Hugging Face computes them.

use serde::Deserialize;

use crate::error::Result;
use crate::model::config::ConfigFile;

/// `rope_parameters` (new spelling) or `rope_scaling` (old spelling) of config.json.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RopeFields {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

/// Base and scaling of the frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rope {
    pub theta: f64,
    pub scaling: Scaling,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// Every frequency divided by the factor.
    Linear {
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided, short ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

impl Rope {
    pub(crate) fn new(file: &ConfigFile, theta: Option<f64>, fields: Option<RopeFields>) -> Result<Self> {
        // 10000 is the default of Hugging Face's LlamaConfig.
        let theta = fields.as_ref().and_then(|fields| fields.rope_theta).or(theta).unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 1.0) {
            return Err(file.bad(format!("`rope_theta` is {theta}, expected more than 1")));
        }
        let Some(fields) = fields else {
            return Ok(Rope { theta, scaling: Scaling::None });
        };
        let need = |name: &str, value: Option<f64>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            other => Err(file.bad(format!("rope `{name}` is {other:?}, expected a positive number"))),
        };
        let scaling = match fields.rope_type.as_deref() {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: need("factor", fields.factor)? },
            Some("llama3") => Scaling::Llama3 {
                factor: need("factor", fields.factor)?,
                low: need("low_freq_factor", fields.low_freq_factor)?,
                high: need("high_freq_factor", fields.high_freq_factor)?,
                original: need("original_max_position_embeddings", fields.original_max_position_embeddings)?,
            },
            Some(other) => {
                return Err(
                    file.unsupported(format!("rotary embedding of type `{other}`; known are default, linear, llama3"))
                );
            }
        };
        Ok(Rope { theta, scaling })
    }

    /// `head_dim / 2` frequencies, computed in f32 as the reference does.
    pub(crate) fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|i| {
                let plain = 1.0 / (self.theta as f32).powf((2 * i) as f32 / head_dim as f32);
                match self.scaling {
                    Scaling::None => plain,
                    Scaling::Linear { factor } => plain / factor as f32,
                    Scaling::Llama3 { factor, low, high, original } => {
                        let wavelength = 2.0 * std::f64::consts::PI / f64::from(plain);
                        if wavelength < original / high {
                            plain
                        } else if wavelength > original / low {
                            plain / factor as f32
                        } else {
                            let smooth = (original / wavelength - low) / (high - low);
                            ((1.0 - smooth) * f64::from(plain) / factor + smooth * f64::from(plain)) as f32
                        }
                    }
                }
            })
            .collect()
    }
}
