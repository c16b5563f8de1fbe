//! Keys and values in four bits: groups of [`GROUP`] entries, keys quantised per channel over the group, values per entry in
//! groups of [`CHANNELS`] channels.
//!
//! The layout of KIVI (Liu et al. 2024, arXiv 2402.02750): outliers of keys sit in fixed channels, those of values do not.
//! Asymmetric: step = (max - min) / 15, code = round((x - min) / step), x^ = code * step + min; minimum and step are kept as
//! f16 and the codes are chosen for what was kept. One entry of a head takes `dim` bytes of codes, 4 `dim` / [`GROUP`] of key
//! ranges and 4 `dim` / [`CHANNELS`] of value ranges: 1.25 `dim` against 8 `dim` in f32.

use half::f16;

use crate::simd;

/// Entries that are quantised together.
pub const GROUP: usize = 32;
/// Channels of a value that share a range.
pub const CHANNELS: usize = 32;

const STEPS: f32 = 15.0;

/// [`GROUP`] entries of some heads, `dim` a multiple of [`CHANNELS`].
#[derive(Clone, Copy, Debug)]
pub struct Int4Run<'a> {
    /// `[heads, GROUP, dim / 2]`, low nibble first.
    pub key_codes: &'a [u8],
    /// `[heads, dim, 2]`: minimum and step of a channel.
    pub key_ranges: &'a [f16],
    /// `[heads, GROUP, dim / 2]`, low nibble first.
    pub value_codes: &'a [u8],
    /// `[heads, GROUP, dim / CHANNELS, 2]`: minimum and step of a group of channels of one entry.
    pub value_ranges: &'a [f16],
}

/// Like [`Int4Run`], to be written.
#[derive(Debug)]
pub struct Int4Mut<'a> {
    pub key_codes: &'a mut [u8],
    pub key_ranges: &'a mut [f16],
    pub value_codes: &'a mut [u8],
    pub value_ranges: &'a mut [f16],
}

/// Elements of the parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the keys' codes, and of the values'.
    pub codes: usize,
    /// f16 elements.
    pub key_ranges: usize,
    /// f16 elements.
    pub value_ranges: usize,
}

/// How large the parts of a run of `heads` heads are.
pub fn sizes(heads: usize, dim: usize) -> Sizes {
    assert!(dim.is_multiple_of(CHANNELS), "{dim} channels are not a multiple of {CHANNELS}");
    Sizes {
        codes: heads * GROUP * dim / 2,
        key_ranges: heads * dim * 2,
        value_ranges: heads * GROUP * dim / CHANNELS * 2,
    }
}

impl Int4Run<'_> {
    /// The keys of the entries of a head from `from` on, as many rows of `dim` as `to` holds.
    pub fn keys(&self, head: usize, from: usize, dim: usize, to: &mut [f32]) {
        assert!(dim.is_multiple_of(CHANNELS) && from * dim + to.len() <= GROUP * dim);
        let start = (head * GROUP + from) * dim;
        let ranges = &self.key_ranges[head * dim * 2..(head + 1) * dim * 2];
        simd::dequantise_keys(&self.key_codes[start / 2..(start + to.len()) / 2], ranges, dim, to);
    }

    /// Like [`keys`](Self::keys).
    pub fn values(&self, head: usize, from: usize, dim: usize, to: &mut [f32]) {
        assert!(dim.is_multiple_of(CHANNELS) && from * dim + to.len() <= GROUP * dim);
        let (start, end) = ((head * GROUP + from) * dim, (head * GROUP + from) * dim + to.len());
        let ranges = &self.value_ranges[start / CHANNELS * 2..end / CHANNELS * 2];
        simd::dequantise_values(&self.value_codes[start / 2..end / 2], ranges, to);
    }
}

/// Minimum and step of some numbers as they are stored. A constant group has step 0.
fn range(of: impl Iterator<Item = f32>) -> [f16; 2] {
    let (min, max) = of.fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), x| (min.min(x), max.max(x)));
    let stored = |x: f32| f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
    [stored(min), stored((max - min) / STEPS)]
}

/// 1 / step, or 0 for step 0, so that the codes of a constant group are 0.
fn inverse(step: f16) -> f32 {
    if step == f16::ZERO { 0.0 } else { 1.0 / step.to_f32() }
}

fn code(x: f32, minimum: f32, inverse: f32) -> u8 {
    ((x - minimum) * inverse).round_ties_even().clamp(0.0, STEPS) as u8
}

/// Quantises [`GROUP`] entries; `keys` and `values` are `[heads, GROUP, dim]`.
pub fn quantise(keys: &[f32], values: &[f32], heads: usize, dim: usize, to: Int4Mut<'_>) {
    let sizes = sizes(heads, dim);
    assert!(keys.len() == heads * GROUP * dim && values.len() == keys.len());
    assert!(to.key_codes.len() == sizes.codes && to.value_codes.len() == sizes.codes);
    assert!(to.key_ranges.len() == sizes.key_ranges && to.value_ranges.len() == sizes.value_ranges);
    let (mut minima, mut inverses) = (vec![0.0; dim], vec![0.0; dim]);
    let heads = keys.chunks_exact(GROUP * dim).zip(to.key_codes.chunks_exact_mut(GROUP * dim / 2));
    for ((keys, codes), ranges) in heads.zip(to.key_ranges.chunks_exact_mut(dim * 2)) {
        for (channel, stored) in ranges.chunks_exact_mut(2).enumerate() {
            stored.copy_from_slice(&range(keys.iter().skip(channel).step_by(dim).copied()));
            (minima[channel], inverses[channel]) = (stored[0].to_f32(), inverse(stored[1]));
        }
        for (key, codes) in keys.chunks_exact(dim).zip(codes.chunks_exact_mut(dim / 2)) {
            for (byte, to) in codes.iter_mut().enumerate() {
                let of = |channel: usize| code(key[channel], minima[channel], inverses[channel]);
                *to = of(2 * byte) | of(2 * byte + 1) << 4;
            }
        }
    }
    let groups = values.chunks_exact(CHANNELS).zip(to.value_codes.chunks_exact_mut(CHANNELS / 2));
    for ((values, codes), stored) in groups.zip(to.value_ranges.chunks_exact_mut(2)) {
        stored.copy_from_slice(&range(values.iter().copied()));
        let (minimum, inverse) = (stored[0].to_f32(), inverse(stored[1]));
        for (pair, to) in values.chunks_exact(2).zip(codes) {
            *to = code(pair[0], minimum, inverse) | code(pair[1], minimum, inverse) << 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    proptest! {
        #[test]
        fn quantised_entries_equal_the_reference(
            heads in 1usize..4, blocks in 1usize..4, scale in prop::sample::select(vec![0.0f32, 1e-9, 1e-4, 1.0, 300.0]),
            offset in prop::sample::select(vec![0.0f32, -1.0, 7.5, 1000.0]),
            numbers in prop::collection::vec(-1.0f32..1.0, 97),
        ) {
            let dim = blocks * CHANNELS;
            let of = |i: usize| offset + scale * numbers[i % 97];
            let keys: Vec<f32> = (0..heads * GROUP * dim).map(of).collect();
            let values: Vec<f32> = keys.iter().rev().copied().collect();
            let sizes = sizes(heads, dim);
            let (mut key_codes, mut value_codes) = (vec![0; sizes.codes], vec![0; sizes.codes]);
            let (mut key_ranges, mut value_ranges) = (vec![f16::NAN; sizes.key_ranges], vec![f16::NAN; sizes.value_ranges]);
            quantise(&keys, &values, heads, dim, Int4Mut {
                key_codes: &mut key_codes, key_ranges: &mut key_ranges,
                value_codes: &mut value_codes, value_ranges: &mut value_ranges,
            });
            let run = Int4Run {
                key_codes: &key_codes, key_ranges: &key_ranges, value_codes: &value_codes, value_ranges: &value_ranges,
            };
            let want = reference::quantise(&keys, &values, heads, dim);
            for head in 0..heads {
                let (mut got_keys, mut got_values) = (vec![f32::NAN; GROUP * dim], vec![f32::NAN; GROUP * dim]);
                run.keys(head, 0, dim, &mut got_keys);
                run.values(head, 0, dim, &mut got_values);
                let start = head * GROUP * dim;
                for i in 0..GROUP * dim {
                    for (got, want, x) in [
                        (got_keys[i], want.0[start + i], keys[start + i]),
                        (got_values[i], want.1[start + i], values[start + i]),
                    ] {
                        // A number half way between two codes may go either way; both are as far from it.
                        let (error, least) = ((got - x).abs(), (want - f64::from(x)).abs() as f32);
                        prop_assert!((error - least).abs() <= 1e-5 * (offset.abs() + scale), "{got} for {want} of {x}");
                        let rounding = (offset.abs() + scale) / 1024.0 + 1e-6;
                        prop_assert!(error <= scale / 15.0 * 1.02 + rounding, "{got} for {x}");
                    }
                }
                // Any part of the group reads like the whole.
                let mut part = vec![f32::NAN; 5 * dim];
                run.keys(head, 11, dim, &mut part);
                prop_assert!(part == got_keys[11 * dim..16 * dim]);
                run.values(head, 11, dim, &mut part);
                prop_assert!(part == got_values[11 * dim..16 * dim]);
            }
        }
    }
}
