//! Numbers in three digits of eight bits, as products in integers take them (VNNI).
//!
//! Numbers that are summed together share a unit, by which the largest is [`MOST`]: each is within half a unit of what it was, 2^-24 of the
//! largest, and within the rounding of the unit and of one product, 2^-22 of itself at most. Digits lie between -128 and 127, `n = (d2 * 256 + d1) * 256 + d0`.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_cvtps_epi32, _mm512_mul_ps, _mm512_set1_epi32, _mm512_xor_si512,
};

/// Digits of a number.
pub(super) const DIGITS: usize = 3;

/// The largest number of three digits, less what rounding may add.
const MOST: f32 = (127 * 65536 + 127 * 256 + 126) as f32;

/// How many units make 1 where the largest number is `largest`, and the unit. None: there is no such unit in f32, nothing to share, or
/// something that is no number among them.
pub(super) fn unit_of(largest: f32) -> Option<(f32, f32)> {
    // Far enough from both ends of f32 that units and their products with scales are normal numbers.
    (1e-28..=1e28).contains(&largest).then(|| (MOST / largest, largest / MOST))
}

/// The digits of sixteen numbers in the three lower bytes of each word, the last one in the lowest; and the numbers in units.
///
/// # Safety
/// For machines with AVX-512.
#[inline(always)]
pub(super) unsafe fn split(numbers: __m512, units: __m512) -> (__m512i, __m512i) {
    // SAFETY: as the caller says.
    unsafe {
        let n = _mm512_cvtps_epi32(_mm512_mul_ps(numbers, units));
        // With 128 on each digit they are bytes without a borrow.
        let half = _mm512_set1_epi32(0x0080_8080);
        (_mm512_xor_si512(_mm512_add_epi32(n, half), half), n)
    }
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::{_mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_si512};

    use super::*;

    #[test]
    fn digits_are_the_number() {
        if !super::super::counts() {
            return;
        }
        for largest in [1e-28f32, 3.7e-9, 0.3, 1.0, 777.7, 1e28] {
            let (units, unit) = unit_of(largest).expect("a unit");
            let numbers: [f32; 16] = std::array::from_fn(|i| match i {
                0 => largest,
                1 => -largest,
                2 => 0.0,
                i => largest * ((i * 7919 % 1000) as f32 / 500.0 - 1.0),
            });
            let (mut bytes, mut whole) = ([[0i8; 4]; 16], [0i32; 16]);
            // SAFETY: the features were detected; the arrays have 64 bytes.
            unsafe {
                let (digits, n) = split(_mm512_loadu_ps(numbers.as_ptr()), _mm512_set1_ps(units));
                _mm512_storeu_si512(bytes.as_mut_ptr().cast(), digits);
                _mm512_storeu_si512(whole.as_mut_ptr().cast(), n);
            }
            for ((number, digits), n) in numbers.iter().zip(bytes).zip(whole) {
                let of = |i: usize| i32::from(digits[i]);
                assert_eq!((of(2) * 256 + of(1)) * 256 + of(0), n);
                let off = (f64::from(n) * f64::from(unit) - f64::from(*number)).abs();
                let bound = f64::from(largest) * 0.5 / f64::from(MOST) + f64::from(number.abs()) / f64::from(1 << 22);
                assert!(off <= bound, "{number} of {largest}: {off:e} off");
            }
        }
        for none in [0.0, f32::NAN, f32::INFINITY, 1e-30, 1e30] {
            assert!(unit_of(none).is_none());
        }
    }
}
