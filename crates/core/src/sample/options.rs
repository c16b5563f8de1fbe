//! What a request can ask of the sampler.

use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::{Error, Result};

/// How to choose tokens. The default is greedy: always the most likely token.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SamplerOptions {
    /// Logits are divided by it; 0, the default, is greedy, where the other options but `repetition_penalty` do nothing.
    /// At most 100.
    pub temperature: f32,
    /// Only this many of the most likely tokens, and those as likely as the last of them; 0, the default: no limit.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 0 to 1, default 1: no limit.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the most likely one; 0 to 1, default 0: no limit.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens that already occur, the prompt included;
    /// 0.01 to 100, default 1: none.
    pub repetition_penalty: f32,
    /// The same seed, logits and options give the same tokens. Default: a fresh one.
    pub seed: Option<u64>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: None }
    }
}

impl SamplerOptions {
    /// # Errors
    /// [`Error::Option`] for a number out of range or NaN.
    pub fn validate(&self) -> Result<()> {
        check("temperature", self.temperature, 0.0..=100.0)?;
        check("topP", self.top_p, 0.0..=1.0)?;
        check("minP", self.min_p, 0.0..=1.0)?;
        check("repetitionPenalty", self.repetition_penalty, 0.01..=100.0)
    }
}

fn check(name: &str, value: f32, range: RangeInclusive<f32>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let reason = format!("`{name}` is {value}; it must be from {} to {}", range.start(), range.end());
    Err(Error::Option { reason, suggestion: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_greedy_and_valid() {
        let options: SamplerOptions = serde_json::from_str("{}").unwrap();
        assert_eq!(format!("{options:?}"), format!("{:?}", SamplerOptions::default()));
        options.validate().unwrap();
        let json =
            r#"{ "temperature": 0.5, "topK": 3, "topP": 0.9, "minP": 0.1, "repetitionPenalty": 1.1, "seed": 7 }"#;
        let options: SamplerOptions = serde_json::from_str(json).unwrap();
        assert_eq!((options.top_k, options.seed), (3, Some(7)));
        options.validate().unwrap();
    }

    #[test]
    fn out_of_range() {
        let base = SamplerOptions::default;
        for (options, expected) in [
            (SamplerOptions { temperature: -0.5, ..base() }, "`temperature` is -0.5; it must be from 0 to 100"),
            (SamplerOptions { temperature: f32::NAN, ..base() }, "`temperature` is NaN; it must be from 0 to 100"),
            (SamplerOptions { temperature: f32::INFINITY, ..base() }, "`temperature` is inf"),
            (SamplerOptions { top_p: 1.5, ..base() }, "`topP` is 1.5; it must be from 0 to 1"),
            (SamplerOptions { min_p: f32::NAN, ..base() }, "`minP` is NaN"),
            (
                SamplerOptions { repetition_penalty: 0.0, ..base() },
                "`repetitionPenalty` is 0; it must be from 0.01 to 100",
            ),
        ] {
            let error = options.validate().unwrap_err();
            assert_eq!(error.code(), "option");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
