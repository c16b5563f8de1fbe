//! The number formats in which cache entries are stored.
//!
//! Inlined by name: an incremental build, which cuts the crate into many units, would call them for every entry and decode in f16 at half
//! the speed.

use half::f16;

use crate::codec::Dtype;

/// A format that widens to f32 for arithmetic.
pub trait Element: Copy + Send + Sync + Default + sealed::Sealed + 'static {
    const DTYPE: Dtype;
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
    /// `Some(self)` when the format is f32 already, so that no conversion is needed.
    fn as_f32(slice: &[Self]) -> Option<&[f32]>;
    /// `Some(self)` when the format is f16, for the vector conversion of the CPU.
    fn as_f16(slice: &[Self]) -> Option<&[f16]>;

    /// The bytes of the elements.
    fn bytes(slice: &[Self]) -> &[u8] {
        // SAFETY: numbers without padding, whose bytes are initialised; the length is theirs.
        unsafe { std::slice::from_raw_parts(slice.as_ptr().cast(), size_of_val(slice)) }
    }

    /// Like [`Self::bytes`].
    fn bytes_mut(slice: &mut [Self]) -> &mut [u8] {
        // SAFETY: as above, and every pattern of bits is a number.
        unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast(), size_of_val(slice)) }
    }

    /// The elements that these bytes are. They begin at an address that is aligned for one, and none is cut off.
    #[inline]
    fn of_bytes(bytes: &[u8]) -> &[Self] {
        // SAFETY: every pattern of bits is a number.
        let (before, elements, behind) = unsafe { bytes.align_to() };
        assert!(before.is_empty() && behind.is_empty(), "{} bytes that are no aligned elements", bytes.len());
        elements
    }

    /// Like [`Self::of_bytes`].
    #[inline]
    fn of_bytes_mut(bytes: &mut [u8]) -> &mut [Self] {
        let len = bytes.len();
        // SAFETY: as above, in both directions.
        let (before, elements, behind) = unsafe { bytes.align_to_mut() };
        assert!(before.is_empty() && behind.is_empty(), "{len} bytes that are no aligned elements");
        elements
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

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
    const DTYPE: Dtype = Dtype::F16;

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
