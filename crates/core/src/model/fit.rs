//! Whether weights fit the machine, asked before they are read.

use crate::device::Place;
use crate::error::{Error, Result};
use crate::weights::WeightFormat;

/// Errors when `needed` bytes are more than the machine, or the device, has available. Where that is not known, nothing is refused.
pub(super) fn require(needed: u64, format: WeightFormat, place: &Place) -> Result<()> {
    let available = match place {
        Place::Cpu => available(),
        Place::Gpu { gpu, .. } => Some(gpu.memory()?.free),
    };
    match available {
        Some(available) if needed > available => {
            Err(Error::OutOfMemory { needed, available, advice: advice(format, place).into() })
        }
        _ => Ok(()),
    }
}

/// [`Error::OutOfMemory`] of a load, with what helps there.
pub(super) fn of_load(error: Error, format: WeightFormat, place: &Place) -> Error {
    match error {
        Error::OutOfMemory { needed, available, .. } => {
            Error::OutOfMemory { needed, available, advice: advice(format, place).into() }
        }
        other => other,
    }
}

/// What takes less memory than weights in `format`.
fn advice(format: WeightFormat, place: &Place) -> &'static str {
    match (place, format) {
        (Place::Gpu { .. }, WeightFormat::F32) => {
            "weights \"f16\" take half; or close what else runs on the GPU, or use the CPU"
        }
        (Place::Gpu { .. }, _) => "close what else runs on the GPU, or use a smaller model, a larger GPU or the CPU",
        (Place::Cpu, WeightFormat::F32) => "weights \"f16\", \"q8_0\" or \"q4_k\" take 2, 4 and 7 times less",
        (Place::Cpu, WeightFormat::F16) => "weights \"q8_0\" or \"q4_k\" take 2 and 3.5 times less",
        (Place::Cpu, WeightFormat::Q8_0) => "weights \"q4_k\" take half",
        (Place::Cpu, WeightFormat::Q4K) => "use a smaller model or a larger machine",
    }
}

/// Bytes that new allocations can get without swapping.
fn available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_advice() {
        assert!(require(1, WeightFormat::F32, &Place::Cpu).is_ok());
        if available().is_some() {
            let error = require(u64::MAX, WeightFormat::F32, &Place::Cpu).expect_err("no machine has that");
            assert!(error.code() == "out-of-memory" && error.to_string().contains("q8_0"), "{error}");
        }
    }
}
