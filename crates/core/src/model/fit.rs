//! Whether weights fit the machine, and the model what was asked for.

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::weights::WeightFormat;

/// Errors when `needed` bytes are more than the machine, or the device, has available. Where that is not known, nothing is refused.
pub(super) fn require<B: Backend>(needed: u64, format: WeightFormat, backend: &B) -> Result<()> {
    match backend.available()? {
        Some(available) if needed > available => {
            Err(Error::OutOfMemory { needed, available, advice: backend.advice(format).into() })
        }
        _ => Ok(()),
    }
}

/// [`Error::OutOfMemory`] of a load, with what helps there.
pub(super) fn of_load<B: Backend>(error: Error, format: WeightFormat, backend: &B) -> Error {
    match error {
        Error::OutOfMemory { needed, available, .. } => {
            Error::OutOfMemory { needed, available, advice: backend.advice(format).into() }
        }
        other => other,
    }
}

/// Errors when the transform of values was asked for and the family does not fold it into its weights.
pub(super) fn require_rotated(asked: bool, rotates: bool) -> Result<()> {
    if asked && !rotates {
        return Err(refuse("`rotateValues` is not there for this architecture: load the model without it"));
    }
    Ok(())
}

/// Errors when an option that changes weights was asked for and the weights are to stay as a file has them.
pub(super) fn require_changeable(option: &str, asked: bool, format: WeightFormat) -> Result<()> {
    if asked && format == WeightFormat::Stored {
        return Err(refuse(format!(
            "{option} changes weights, and those of a GGUF file stay as they are: give `weights`, for instance \"q8_0\", or load the model \
             without it"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;

    #[test]
    fn a_transform_that_nobody_folds_is_refused() {
        assert!(require_rotated(false, false).is_ok() && require_rotated(true, true).is_ok());
        assert_eq!(require_rotated(true, false).expect_err("not folded").code(), "option");
        for option in ["`rotateValues`", "`adapter`"] {
            assert!(require_changeable(option, true, WeightFormat::Q8_0).is_ok());
            assert!(require_changeable(option, false, WeightFormat::Stored).is_ok());
            let error = require_changeable(option, true, WeightFormat::Stored).expect_err("stays");
            assert!(error.code() == "option" && error.to_string().contains(option), "{error}");
        }
    }

    #[test]
    fn what_cannot_fit_is_refused_with_advice() {
        assert!(require(1, WeightFormat::F32, &Cpu).is_ok());
        if Cpu.available().expect("the system is asked").is_some() {
            let error = require(u64::MAX, WeightFormat::F32, &Cpu).expect_err("no machine has that");
            assert!(error.code() == "out-of-memory" && error.to_string().contains("q8_0"), "{error}");
        }
    }
}
