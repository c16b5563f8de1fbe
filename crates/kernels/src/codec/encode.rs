//! Rows in f32 to codes and scales.

use half::f16;

use super::{Codec, Dtype, Scales, Table};
use crate::element::Element;
use crate::simd;

/// As f16 stores it, within its range.
pub(super) fn stored(x: f32) -> f16 {
    f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// A scale and a zero as they are stored, for `clip` times the numbers from `min` to `max`. The scale of equal numbers is 0.
fn pair(clip: f32, min: f32, max: f32, most: f32) -> (f16, f16) {
    let (min, max) = (clip * min, clip * max);
    (stored((max - min) / most), stored(min))
}

/// 1 / scale, or 0 for scale 0, so that the codes of equal numbers are 0.
pub(super) fn inverse(scale: f16) -> f32 {
    if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() }
}

/// Writes `n` entries from entry `at` on; `rows` is `[heads, n, dim]`, `numbers` and `scales` are the parts of a run of `heads` heads
/// with room for `capacity` entries each. Where entries share scales, `at` and `n` are multiples of their group. Numbers must be finite.
#[allow(clippy::too_many_arguments)]
pub fn encode(
    codec: Codec,
    rows: &[f32],
    heads: usize,
    dim: usize,
    numbers: &mut [u8],
    scales: &mut [u8],
    capacity: usize,
    at: usize,
) {
    let (row, group, pairs) = (codec.row(dim), codec.entries(), codec.scales_row(dim));
    let n = rows.len() / (heads * dim).max(1);
    assert!(rows.len() == heads * n * dim && at + n <= capacity, "{n} entries at {at} of {capacity}");
    assert!(numbers.len() == heads * capacity * row && scales.len() == heads * (capacity / group) * pairs);
    assert!(at.is_multiple_of(group) && n.is_multiple_of(group), "{n} entries at {at} in groups of {group}");
    for (head, rows) in rows.chunks_exact((n * dim).max(1)).enumerate() {
        let numbers = &mut numbers[(head * capacity + at) * row..(head * capacity + at + n) * row];
        let first = head * (capacity / group) + at / group;
        let scales = &mut scales[first * pairs..(first + n / group) * pairs];
        match codec.scales {
            Scales::None => simd::encode_floats(codec.dtype, rows, numbers),
            Scales::PerEntry { group, .. } => match codec.levels.table(codec.dtype) {
                None => entries(codec, rows, group.into(), numbers, f16::of_bytes_mut(scales)),
                Some(table) => levels(codec.dtype, table, rows, group.into(), numbers, f16::of_bytes_mut(scales)),
            },
            Scales::Apart { .. } => panic!("{codec:?} without what was found"),
            Scales::PerChannel { .. } => {
                let groups = rows.chunks_exact(group * dim).zip(numbers.chunks_exact_mut(group * row));
                for ((rows, numbers), pairs) in groups.zip(f16::of_bytes_mut(scales).chunks_exact_mut(2 * dim)) {
                    channels(codec, rows, dim, numbers, pairs);
                }
            }
        }
    }
}

fn entries(codec: Codec, rows: &[f32], group: usize, numbers: &mut [u8], pairs: &mut [f16]) {
    let (dtype, clip) = (codec.dtype, codec.clip());
    let (most, bytes) = (f32::from(dtype.most()), group * dtype.bits() / 8);
    let (mut zeros, mut inverses) = (vec![0.0; group], vec![0.0; group]);
    let groups = rows.chunks_exact(group).zip(numbers.chunks_exact_mut(bytes)).zip(pairs.chunks_exact_mut(2));
    for ((rows, numbers), pair_to) in groups {
        let (min, max) = rows.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        let (scale, zero) = pair(clip, min, max, most);
        pair_to.copy_from_slice(&[scale, zero]);
        zeros.fill(zero.to_f32());
        inverses.fill(inverse(scale));
        simd::encode_codes(dtype, rows, &zeros, &inverses, numbers);
    }
}

fn levels(dtype: Dtype, table: &Table, rows: &[f32], group: usize, numbers: &mut [u8], scales: &mut [f16]) {
    let groups = rows.chunks_exact(group).zip(numbers.chunks_exact_mut(group * dtype.bits() / 8));
    for ((rows, numbers), to) in groups.zip(scales) {
        *to = stored((simd::sum_of_squares(rows) / group as f32).sqrt());
        simd::encode_levels(dtype, table, rows, inverse(*to), numbers);
    }
}

fn channels(codec: Codec, rows: &[f32], dim: usize, numbers: &mut [u8], pairs: &mut [f16]) {
    let (dtype, clip) = (codec.dtype, codec.clip());
    let most = f32::from(dtype.most());
    let (mut minima, mut maxima) = (vec![f32::INFINITY; dim], vec![f32::NEG_INFINITY; dim]);
    for row in rows.chunks_exact(dim) {
        for ((min, max), x) in minima.iter_mut().zip(&mut maxima).zip(row) {
            (*min, *max) = (min.min(*x), max.max(*x));
        }
    }
    let (mut zeros, mut inverses) = (vec![0.0; dim], vec![0.0; dim]);
    let (scales_to, zeros_to) = pairs.split_at_mut(dim);
    for channel in 0..dim {
        let (scale, zero) = pair(clip, minima[channel], maxima[channel], most);
        (scales_to[channel], zeros_to[channel]) = (scale, zero);
        (zeros[channel], inverses[channel]) = (zero.to_f32(), inverse(scale));
    }
    for (row, numbers) in rows.chunks_exact(dim).zip(numbers.chunks_exact_mut(dim * dtype.bits() / 8)) {
        simd::encode_codes(dtype, row, &zeros, &inverses, numbers);
    }
}
