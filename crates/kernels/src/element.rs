//! The number formats in which cache entries are stored.
//!
//! Inlined by name: an incremental build, which cuts the crate into many units, would call them for every entry and decode in f16 at half
//! the speed.

use half::f16;

/// A format that widens to f32 for arithmetic.
pub trait Element: Copy + Send + Sync + Default + 'static {
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
    /// `Some(self)` when the format is f32 already, so that no conversion is needed.
    fn as_f32(slice: &[Self]) -> Option<&[f32]>;
    /// `Some(self)` when the format is f16, for the vector conversion of the CPU.
    fn as_f16(slice: &[Self]) -> Option<&[f16]>;
}

impl Element for f32 {
    #[inline]
    fn widen(self) -> f32 {
        self
    }
    #[inline]
    fn narrow(value: f32) -> Self {
        value
    }
    #[inline]
    fn as_f32(slice: &[Self]) -> Option<&[f32]> {
        Some(slice)
    }
    #[inline]
    fn as_f16(_: &[Self]) -> Option<&[f16]> {
        None
    }
}

impl Element for f16 {
    #[inline]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline]
    fn narrow(value: f32) -> Self {
        f16::from_f32(value)
    }
    #[inline]
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
    #[inline]
    fn as_f16(slice: &[Self]) -> Option<&[f16]> {
        Some(slice)
    }
}
