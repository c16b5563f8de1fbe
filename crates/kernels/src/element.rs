//! The number formats in which cache entries are stored.

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
    fn widen(self) -> f32 {
        self
    }
    fn narrow(value: f32) -> Self {
        value
    }
    fn as_f32(slice: &[Self]) -> Option<&[f32]> {
        Some(slice)
    }
    fn as_f16(_: &[Self]) -> Option<&[f16]> {
        None
    }
}

impl Element for f16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
    fn as_f16(slice: &[Self]) -> Option<&[f16]> {
        Some(slice)
    }
}
