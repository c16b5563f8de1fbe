//! Sampler options of a request.

use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::{Error, Result};

/// How to choose tokens. The options act in the order of transformers: `repetitionPenalty`, then `frequencyPenalty` and `presencePenalty`, which it
/// lacks, `temperature`, `topK`, `topP`, `minP`, and a draw with `seed`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, rename = "SamplingOptions")]
pub struct SamplerOptions {
    /// 0 takes the most likely token each time; higher values spread the choice.
    ///
    /// Divides the logits. With 0, `topK`, `topP`, `minP` and `seed` do nothing. At most 100.
    ///
    /// Default: 0.
    pub temperature: f32,
    /// Choose among this many likeliest tokens.
    ///
    /// Those as likely as the last of them stay too. 0 is no limit.
    ///
    /// Default: no limit.
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability.
    ///
    /// Acts on what `topK` has left. 1 is no limit.
    ///
    /// Default: no limit.
    pub top_p: f32,
    /// Choose among tokens at least this share as likely as the likeliest.
    ///
    /// 0 is no limit.
    ///
    /// Default: no limit.
    pub min_p: f32,
    /// Above 1, tokens that have occurred become less likely.
    ///
    /// Those of the prompt count too. Acts first, with a temperature of 0 as well. From 0.01 to 100.
    ///
    /// Default: 1.
    pub repetition_penalty: f32,
    /// Above 0, tokens become less likely with each time that the answer has had them.
    ///
    /// So much is taken from a token's logit for each time, and added below 0. The prompt does not count. From -2 to 2, as OpenAI has it.
    ///
    /// Default: 0.
    pub frequency_penalty: f32,
    /// Above 0, tokens that the answer has had become less likely.
    ///
    /// So much is taken from their logits, however often they came. The prompt does not count. From -2 to 2, as OpenAI has it.
    ///
    /// Default: 0.
    pub presence_penalty: f32,
    /// The same seed and request give the same text.
    ///
    /// Default: random.
    pub seed: Option<u64>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
        }
    }
}

impl SamplerOptions {
    /// # Errors
    /// [`Error::Option`] for a number out of range or NaN.
    pub fn validate(&self) -> Result<()> {
        check("temperature", self.temperature, 0.0..=100.0)?;
        check("topP", self.top_p, 0.0..=1.0)?;
        check("minP", self.min_p, 0.0..=1.0)?;
        check("repetitionPenalty", self.repetition_penalty, 0.01..=100.0)?;
        check("frequencyPenalty", self.frequency_penalty, -2.0..=2.0)?;
        check("presencePenalty", self.presence_penalty, -2.0..=2.0)
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
            (SamplerOptions { frequency_penalty: 2.5, ..base() }, "`frequencyPenalty` is 2.5; it must be from -2 to 2"),
            (SamplerOptions { presence_penalty: -3.0, ..base() }, "`presencePenalty` is -3; it must be from -2 to 2"),
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
