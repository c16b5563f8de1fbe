//! Results that are no numbers.

use crate::error::{Error, Result};
use crate::weights::WeightFormat;
use crate::weights::numbers::all_finite;

/// Errors with [`Error::Numbers`] when any of `values` is NaN or infinite; `weights` is the format that the model was loaded with.
pub(super) fn require_finite(what: &str, values: &[f32], weights: &str) -> Result<()> {
    if all_finite(values) {
        return Ok(());
    }
    let nan = values.iter().filter(|value| value.is_nan()).count();
    let infinite = values.iter().filter(|value| value.is_infinite()).count();
    let found =
        format!("the model computes no numbers: of {} {what}, {nan} are NaN and {infinite} infinite", values.len());
    Err(Error::Numbers { fits: fits(weights), reason: format!("{found}; {}", cure(weights)) })
}

/// The formats that may hold what `weights` does not.
fn fits(weights: &str) -> Vec<&'static str> {
    if weights == WeightFormat::F32.name() { Vec::new() } else { vec![WeightFormat::F32.name()] }
}

fn cure(weights: &str) -> String {
    match fits(weights).as_slice() {
        [] => "its weights or its configuration are damaged: take another revision of it".into(),
        _ => format!("weights \"{weights}\" and an f16 cache may be too narrow for it: load with weights \"f32\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_number_is_found() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 40, 99] {
                let mut values = vec![f32::MAX; 100];
                values[50] = f32::MIN;
                assert!(require_finite("logits", &values, "f32").is_ok());
                values[place] = bad;
                let error = require_finite("logits", &values, "q8_0").expect_err("no number");
                assert_eq!((error.code(), error.details()["fits"][0].as_str()), ("numbers", Some("f32")));
                let message = error.to_string();
                assert!(
                    message.contains("of 100 logits") && message.contains("load with weights \"f32\""),
                    "{message}"
                );
                let error = require_finite("logits", &values, "f32").expect_err("no number");
                assert!(error.details()["fits"] == serde_json::json!([]) && error.to_string().contains("revision"));
            }
        }
        assert!(require_finite("logits", &[], "f32").is_ok());
    }
}
