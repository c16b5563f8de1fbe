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
        other => panic!("codes of {other} without scales"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
