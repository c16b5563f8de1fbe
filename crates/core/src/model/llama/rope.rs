//! The frequencies of rotary embedding and their scalings, as Hugging Face computes them.

use std::sync::Arc;

use prefixkv_kernels::rotary::{Frequencies, Sections};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::model::config::{ConfigFile, one_spelling, path};

/// `rope_scaling` (old spelling) or `rope_parameters` (new spelling) of config.json.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f64>>,
    mrope_section: Option<[usize; 3]>,
    mrope_interleaved: bool,
}

/// Base and scaling of the frequencies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    pub theta: f64,
    pub scaling: Scaling,
    /// The part of each head's channels that is turned, its first ones.
    pub part: f64,
    /// Which axis each frequency turns along; None: all positions are numbers.
    pub sections: Option<Sections>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// Nothing is rotated: every frequency is 0.
    Off,
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
    /// YaRN, Peng et al. 2023, arXiv 2309.00071: frequencies that turn less than `slow` times in `original` positions divided, those that
    /// turn more than `fast` times kept, a ramp between; queries and keys multiplied by `attention`.
    Yarn {
        factor: f64,
        fast: f64,
        slow: f64,
        original: f64,
        /// Whether the ends of the ramp are whole frequencies.
        truncate: bool,
        attention: f64,
    },
    /// LongRoPE, Ding et al. 2024, arXiv 2402.13753, of sequences of up to `original` positions: each frequency divided by a number of its
    /// own; queries and keys multiplied by `attention`. Longer sequences would have other divisors.
    LongRope {
        short: Arc<[f32]>,
        original: f64,
        attention: f64,
    },
}

impl Rope {
    /// From the whole configuration of the language model, which is section `key` of the file. Where it says things twice, what
    /// transformers takes: `rope_scaling` before `rope_parameters` unless it is empty, `rope_type` before `type`, and the section's
    /// `rope_theta` before the one beside it, which is called `theta_key`.
    pub(crate) fn parse(
        file: &ConfigFile,
        key: Option<&str>,
        config: &Map<String, Value>,
        theta_key: &str,
        positions: usize,
    ) -> Result<Self> {
        let mut found = ("rope_parameters", Map::new());
        for name in ["rope_scaling", "rope_parameters"] {
            match config.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::Object(section)) if section.is_empty() => {}
                Some(Value::Object(section)) => {
                    found = (name, section.clone());
                    break;
                }
                Some(other) => return Err(file.bad(format!("`{}` must be an object, found {other}", path(key, name)))),
            }
        }
        let (name, mut section) = found;
        let at = path(key, name);
        one_spelling(&mut section, "rope_type", "rope_type", "type");
        let fields: Fields = file.parse(Some(&at), section)?;
        let beside = |name: &str| match config.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_f64()
                .map(Some)
                .ok_or_else(|| file.bad(format!("`{}` must be a number, found {value}", path(key, name)))),
        };
        let (theta_at, theta) = match fields.rope_theta {
            Some(theta) => (path(Some(&at), "rope_theta"), theta),
            // 10000 is the default of Hugging Face's LlamaConfig.
            None => (path(key, theta_key), beside(theta_key)?.unwrap_or(10_000.0)),
        };
        if !(theta > 1.0 && (theta as f32).is_finite()) {
            return Err(file.bad(format!("`{theta_at}` is {theta}, expected more than 1")));
        }
        let need = |name: &str, value: Option<f64>| match value {
            Some(value) if value as f32 >= f32::MIN_POSITIVE && (value as f32).is_finite() => Ok(value),
            Some(value) => Err(file.bad(format!("`{}` is {value}, expected a positive number", path(Some(&at), name)))),
            None => Err(file.bad(format!("`{}` is missing, expected a positive number", path(Some(&at), name)))),
        };
        let interleaved = fields.mrope_interleaved;
        let sections = fields.mrope_section.map(|sizes| Sections { sizes, interleaved });
        let original = || -> Result<f64> {
            let beside = beside("original_max_position_embeddings")?;
            let found = beside.or(fields.original_max_position_embeddings).unwrap_or(positions as f64);
            need("original_max_position_embeddings", Some(found))
        };
        let scaling = match fields.rope_type.as_deref() {
            None | Some("default" | "mrope") => Scaling::None,
            // It changes frequencies behind the positions that the model was made for, which no sequence here goes beyond.
            Some("dynamic") => {
                need("factor", fields.factor)?;
                Scaling::None
            }
            Some("linear") => Scaling::Linear { factor: need("factor", fields.factor)? },
            Some("llama3") => Scaling::Llama3 {
                factor: need("factor", fields.factor)?,
                low: need("low_freq_factor", fields.low_freq_factor)?,
                high: need("high_freq_factor", fields.high_freq_factor)?,
                original: original()?,
            },
            Some("yarn") => {
                let original = original()?;
                let factor = need("factor", fields.factor.or(Some(positions as f64 / original)))?;
                // 0 is nothing said, as in transformers.
                let said = |name: &str, value: Option<f64>| {
                    value.filter(|value| *value != 0.0).map(|value| need(name, Some(value))).transpose()
                };
                let scales = (said("mscale", fields.mscale)?, said("mscale_all_dim", fields.mscale_all_dim)?);
                let grown = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
                let inferred = match scales {
                    (Some(scale), Some(all)) => grown(scale) / grown(all),
                    _ => grown(1.0),
                };
                Scaling::Yarn {
                    factor,
                    fast: said("beta_fast", fields.beta_fast)?.unwrap_or(32.0),
                    slow: said("beta_slow", fields.beta_slow)?.unwrap_or(1.0),
                    original,
                    truncate: fields.truncate.unwrap_or(true),
                    attention: need("attention_factor", fields.attention_factor.or(Some(inferred)))?,
                }
            }
            Some("longrope" | "su") => {
                let original = original()?;
                let Some(short) = fields.short_factor else {
                    let name = path(Some(&at), "short_factor");
                    return Err(file.bad(format!("`{name}` is missing, expected a list of positive numbers")));
                };
                let factor = need("factor", fields.factor.or(Some(positions as f64 / original)))?;
                let inferred = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
                let short = short.into_iter().map(|by| need("short_factor", Some(by)).map(|by| by as f32));
                Scaling::LongRope {
                    short: short.collect::<Result<_>>()?,
                    original,
                    attention: need("attention_factor", fields.attention_factor.or(Some(inferred)))?,
                }
            }
            Some(other) => {
                return Err(file.unsupported(format!(
                    "rotary embedding of type `{other}`; known are default, linear, dynamic, llama3, yarn, longrope"
                )));
            }
        };
        let part = fields.partial_rotary_factor.or(beside("partial_rotary_factor")?).unwrap_or(1.0);
        if !(part > 0.0 && part <= 1.0) {
            return Err(file.bad(format!("`partial_rotary_factor` is {part}, expected more than 0 and at most 1")));
        }
        Ok(Rope { theta, scaling, part, sections })
    }

    /// Channels of a head that are turned.
    pub(crate) fn turned(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.part) as usize
    }

    /// The channel of a head that each one of it is as it is held: channel `c` is turned together with `c + head_dim / 2`, and those that are
    /// not turned lie behind those that are in both halves. None where all are turned.
    pub(crate) fn order(&self, head_dim: usize) -> Option<Vec<usize>> {
        let (half, pairs) = (head_dim / 2, self.turned(head_dim) / 2);
        let of_half = |second: usize| {
            (0..half).map(move |at| match at.checked_sub(pairs) {
                None => second * pairs + at,
                Some(still) => 2 * pairs + second * (half - pairs) + still,
            })
        };
        (pairs < half).then(|| of_half(0).chain(of_half(1)).collect())
    }

    /// The frequencies of a head, dealt out to their axes.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Frequencies {
        Frequencies::new(self.inverse_frequencies(head_dim), self.sections)
    }

    /// The factor of queries and keys, which is the same for all of their channels.
    pub(crate) fn attention(&self) -> f64 {
        if self.part < 1.0 { 1.0 } else { self.attention_of_turned() }
    }

    /// The factor of the channels of queries and keys that are turned; of a part of them it is for the weights.
    pub(crate) fn attention_of_turned(&self) -> f64 {
        match &self.scaling {
            Scaling::Yarn { attention, .. } | Scaling::LongRope { attention, .. } => *attention,
            _ => 1.0,
        }
    }

    /// `head_dim / 2` frequencies, computed in f32 as the reference does; 0 for channels that are not turned.
    pub(crate) fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let half = head_dim / 2;
        let head_dim = self.turned(head_dim);
        (0..half)
            .map(|i| {
                if i >= head_dim / 2 {
                    return 0.0;
                }
                let power = (self.theta as f32).powf((2 * i) as f32 / head_dim as f32);
                let plain = 1.0 / power;
                match self.scaling {
                    Scaling::None => plain,
                    Scaling::Off => 0.0,
                    Scaling::LongRope { ref short, .. } => 1.0 / (short.get(i).copied().unwrap_or(1.0) * power),
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
                    Scaling::Yarn { factor, fast, slow, original, truncate, .. } => {
                        let turning = |turns: f64| {
                            head_dim as f64 * (original / (turns * 2.0 * std::f64::consts::PI)).ln()
                                / (2.0 * self.theta.ln())
                        };
                        let (mut low, mut high) = (turning(fast), turning(slow));
                        if truncate {
                            (low, high) = (low.floor(), high.ceil());
                        }
                        (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
                        if low == high {
                            high += 0.001;
                        }
                        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                        let kept = 1.0 - ramp;
                        1.0 / (factor as f32 * power) * (1.0 - kept) + plain * kept
                    }
                }
            })
            .collect()
    }
}
