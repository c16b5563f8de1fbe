//! Noise, the formats it is stored in, and how far results are from what they should be.

use half::{bf16, f16};

use crate::cuda::{Element, Error, Result};

/// A format that the host can read and write.
pub(super) trait Format: Element + PartialEq {
    /// Largest relative error of rounding an f32 to the format.
    const ROUNDING: f64;
    /// Largest absolute error for numbers that are too small for all the digits of the format.
    const SMALLEST: f64;
    fn narrow(x: f32) -> Self;
    fn widen(self) -> f32;
}

impl Format for f32 {
    const ROUNDING: f64 = 0.0;
    const SMALLEST: f64 = 0.0;
    fn narrow(x: f32) -> Self {
        x
    }
    fn widen(self) -> f32 {
        self
    }
}

impl Format for f16 {
    const ROUNDING: f64 = 1.0 / (1 << 11) as f64;
    const SMALLEST: f64 = 1.0 / (1 << 25) as f64;
    fn narrow(x: f32) -> Self {
        f16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Format for bf16 {
    const ROUNDING: f64 = 1.0 / (1 << 8) as f64;
    const SMALLEST: f64 = 0.0;
    fn narrow(x: f32) -> Self {
        bf16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

pub(super) fn narrowed<T: Format>(from: &[f32]) -> Vec<T> {
    from.iter().map(|x| T::narrow(*x)).collect()
}

pub(super) fn widened<T: Format>(from: &[T]) -> Vec<f32> {
    from.iter().map(|x| x.widen()).collect()
}

/// The same numbers in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// In -1..1.
pub(super) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..n).map(|_| (random.next() >> 24) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// 0 when the bits are the same, else how far the furthest is off; not finite when that cannot be said.
pub(super) fn exact<T: Format>(got: &[T], want: &[T]) -> f64 {
    let mut worst = if got.len() == want.len() { 0.0 } else { f64::INFINITY };
    for (got, want) in got.iter().zip(want) {
        if got != want {
            let off = f64::from((got.widen() - want.widen()).abs());
            worst = f64::max(worst, if off > 0.0 { off } else { f64::INFINITY });
        }
    }
    worst
}

/// How far the furthest is off, in parts of the largest.
pub(super) fn of_largest(got: &[f32], want: &[f32]) -> f64 {
    let largest = want.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
    furthest(got, want, |got, want| f64::from((got - want).abs()) / f64::from(largest))
}

/// The largest relative error. Errors up to 1e-9 (and `SMALLEST`) do not count: the number itself may be 0 there.
pub(super) fn of_each<T: Format>(got: &[T], want: &[f64]) -> f64 {
    furthest(got, want, |got, want| {
        let off = (f64::from(got.widen()) - want).abs();
        // NaN stays what it is.
        if off <= 1e-9 + T::SMALLEST { 0.0 } else { off / want.abs() }
    })
}

/// The largest of the errors of pairs; infinite when one is no number.
pub(super) fn furthest<A: Copy, B: Copy>(got: &[A], want: &[B], error: impl Fn(A, B) -> f64) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    got.iter().zip(want).fold(0.0, |worst, (got, want)| {
        let error = error(*got, *want);
        if error.is_nan() { f64::INFINITY } else { f64::max(worst, error) }
    })
}

/// Runs twice, because the same work on the same device must give the same bits.
pub(super) fn twice<T: Format>(run: impl Fn() -> Result<Vec<T>>) -> Result<Vec<T>> {
    let (first, second) = (run()?, run()?);
    // By their bytes: NaN is not equal to itself.
    if crate::cuda::memory::bytes(&first) == crate::cuda::memory::bytes(&second) {
        return Ok(first);
    }
    Err(Error::Driver("two runs gave different bits".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_by_every_measure() {
        let (nan, inf) = (f32::NAN, f64::INFINITY);
        assert_eq!(exact(&[1.0f32, 2.0], &[1.0, 2.0]), 0.0);
        assert_eq!(exact(&[1.0f32, 2.5], &[1.0, 2.0]), 0.5);
        assert_eq!((exact(&[nan], &[1.0]), exact(&[1.0], &[1.0, 2.0])), (inf, inf));
        assert_eq!(of_largest(&[1.0, -4.0], &[2.0, -4.0]), 0.25);
        assert_eq!((of_largest(&[nan], &[1.0]), of_largest(&[], &[1.0])), (inf, inf));
        assert_eq!(of_each(&[1.0f32, 1e-10], &[2.0, 0.0]), 0.5);
        assert_eq!(of_each(&[f16::from_f32(2.9e-8), f16::ONE], &[0.0, 2.0]), 0.5);
        assert_eq!((of_each(&[nan], &[1.0]), of_each(&[0.1], &[0.0])), (inf, inf));
        let runs = std::cell::Cell::new(0.0);
        let counted = || {
            runs.set(runs.get() + 1.0f32);
            Ok(vec![runs.get()])
        };
        assert!(matches!(twice(counted), Err(Error::Driver(_))));
        assert!(twice(|| Ok(vec![nan])).is_ok());
    }
}
