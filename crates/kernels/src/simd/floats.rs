//! Floating-point entries of any dtype to f32 and back.

use half::{bf16, f16};

use super::*;
use crate::codec::Dtype;

/// Numbers that are read eight at a time.
trait Float {
    const BYTES: usize;
    /// Eight of them.
    fn load<S: Level>(from: &[u8]) -> S::Vector;
    fn widen(from: &[u8]) -> f32;
    fn narrow(from: f32, to: &mut [u8]);
}

struct Brain;

impl Float for Brain {
    const BYTES: usize = 2;
    #[inline(always)]
    fn load<S: Level>(from: &[u8]) -> S::Vector {
        S::load_brain(from)
    }
    #[inline(always)]
    fn widen(from: &[u8]) -> f32 {
        bf16::from_le_bytes([from[0], from[1]]).to_f32()
    }
    #[inline(always)]
    fn narrow(from: f32, to: &mut [u8]) {
        to.copy_from_slice(&bf16::from_f32(from).to_le_bytes());
    }
}

/// E4M3FN. Its exponent and mantissa are those of an f16 that is 2^-8 as large, numbers below the normal ones included.
struct Eight;

/// No number: all bits of exponent and mantissa.
const NONE: u8 = 0x7f;
/// As bits, 448.
const LARGEST: u8 = 0x7e;

impl Float for Eight {
    const BYTES: usize = 1;
    #[inline(always)]
    fn load<S: Level>(from: &[u8]) -> S::Vector {
        S::load_float8(from)
    }
    #[inline(always)]
    fn widen(from: &[u8]) -> f32 {
        float8(from[0])
    }
    #[inline(always)]
    fn narrow(from: f32, to: &mut [u8]) {
        to[0] = to_float8(from);
    }
}

pub(crate) fn float8(bits: u8) -> f32 {
    if bits & NONE == NONE {
        return f32::NAN;
    }
    f16::from_bits(u16::from(bits & 0x80) << 8 | u16::from(bits & NONE) << 7).to_f32() * 256.0
}

/// The nearest of E4M3FN, of two the one with an even mantissa; 448 for all that is larger.
fn to_float8(x: f32) -> u8 {
    let sign = (x.to_bits() >> 24) as u8 & 0x80;
    if x.is_nan() {
        return sign | NONE;
    }
    let size = x.abs().min(448.0);
    if size < 2f32.powi(-6) {
        // Steps of 2^-9; 8 of them are the smallest normal number, with the bits that follow.
        return sign | (size * 512.0).round_ties_even() as u8;
    }
    // Half a step less one bit, and the bit that makes a half even; the exponent counts from 127 there and from 7 here.
    let bits = size.to_bits();
    let rounded = (bits + 0x7_ffff + (bits >> 20 & 1)) >> 20;
    sign | ((rounded - (120 << 3)) as u8).min(LARGEST)
}

#[inline(always)]
fn decode_body<S: Level, F: Float>(from: &[u8], to: &mut [f32]) {
    let (eights, rest) = to.as_chunks_mut::<LANES>();
    let (narrow, narrow_rest) = from.split_at(eights.len() * LANES * F::BYTES);
    for (narrow, eight) in narrow.chunks_exact(LANES * F::BYTES).zip(eights) {
        S::store(F::load::<S>(narrow), eight);
    }
    for (narrow, wide) in narrow_rest.chunks_exact(F::BYTES).zip(rest) {
        *wide = F::widen(narrow);
    }
}

#[inline(always)]
fn decode_floats_body<S: Level>(dtype: Dtype, from: &[u8], to: &mut [f32]) {
    match dtype {
        Dtype::F32 => to.copy_from_slice(f32::of_bytes(from)),
        Dtype::F16 => widen(f16::of_bytes(from), to),
        Dtype::Bf16 => decode_body::<S, Brain>(from, to),
        Dtype::F8 => decode_body::<S, Eight>(from, to),
        other => panic!("codes of {other} without scales"),
    }
}

dispatch! {
    /// Numbers that stand for themselves.
    pub fn decode_floats(dtype: Dtype, from: &[u8], to: &mut [f32]) = decode_floats_body
}

/// Narrows `from` to a dtype that stands for itself, rounding to nearest even.
pub fn encode_floats(dtype: Dtype, from: &[f32], to: &mut [u8]) {
    fn each<F: Float>(from: &[f32], to: &mut [u8]) {
        for (from, to) in from.iter().zip(to.chunks_exact_mut(F::BYTES)) {
            F::narrow(*from, to);
        }
    }
    match dtype {
        Dtype::F32 => narrow(from, f32::of_bytes_mut(to)),
        Dtype::F16 => narrow(from, f16::of_bytes_mut(to)),
        Dtype::Bf16 => each::<Brain>(from, to),
        Dtype::F8 => each::<Eight>(from, to),
        other => panic!("codes of {other} without scales"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    #[test]
    fn every_float8_widens_at_both_levels_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        for n in [0, 1, 7, 8, 9, 256] {
            let (mut fast, mut plain) = (vec![0.0; n], vec![0.0; n]);
            decode_floats(Dtype::F8, &all[..n], &mut fast);
            decode_floats_body::<Portable>(Dtype::F8, &all[..n], &mut plain);
            for (bits, (fast, plain)) in all.iter().zip(fast.iter().zip(&plain)) {
                let want = reference::codec::float8(*bits) as f32;
                let same = |got: f32| got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same(*fast) && same(*plain), "{bits:x}: {fast} {plain} for {want}");
                assert_eq!(to_float8(*fast) & 0x7f, bits & 0x7f);
                assert!(fast.is_nan() || to_float8(*fast) == *bits);
            }
        }
    }

    #[test]
    fn numbers_become_the_nearest_float8() {
        let check = |x: f32| {
            let (got, want) = (float8(to_float8(x)), reference::codec::nearest_float8(x) as f32);
            assert_eq!(got.to_bits(), want.to_bits(), "{x:e}");
        };
        for bits in 0..0x7e {
            // The numbers, half way to the next one, and on both sides of that.
            let half = (float8(bits) + float8(bits + 1)) / 2.0;
            for x in [float8(bits), half, half.next_down(), half.next_up()] {
                check(x);
                check(-x);
            }
        }
        for x in [0.0, f32::MIN_POSITIVE, 448.0, 448.1, 464.0, 480.0, 1e9, f32::MAX, f32::INFINITY] {
            check(x);
            check(-x);
        }
        (0..=u32::MAX).step_by(65_537).map(f32::from_bits).filter(|x| !x.is_nan()).for_each(check);
    }

    #[test]
    fn every_bf16_widens_at_both_levels() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for n in [0, 1, 7, 8, 9, 1 << 16] {
            let (mut fast, mut plain) = (vec![0.0; n], vec![0.0; n]);
            decode_floats(Dtype::Bf16, &all[..2 * n], &mut fast);
            decode_floats_body::<Portable>(Dtype::Bf16, &all[..2 * n], &mut plain);
            for (bits, (fast, plain)) in (0..=u16::MAX).zip(fast.iter().zip(&plain)) {
                let want = f32::from_bits(u32::from(bits) << 16);
                let same = |got: f32| got == want || got.is_nan() && want.is_nan();
                assert!(same(*fast) && same(*plain), "{bits:x}: {fast} {plain}");
            }
        }
    }
}
