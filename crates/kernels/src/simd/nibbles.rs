//! Four-bit codes to f32.

use half::f16;

use super::*;

/// Channels that share a range in the values, and that are unpacked together in the keys.
const CHANNELS: usize = 32;

/// `[CHANNELS, 2]` of (minimum, step) as two lists.
#[inline(always)]
fn ranges<S: Level>(from: &[f16]) -> ([f32; CHANNELS], [f32; CHANNELS]) {
    let mut wide = [0.0; 2 * CHANNELS];
    for (from, to) in from.chunks_exact(LANES).zip(wide.chunks_exact_mut(LANES)) {
        S::store(S::load_half(from), to);
    }
    (std::array::from_fn(|channel| wide[2 * channel]), std::array::from_fn(|channel| wide[2 * channel + 1]))
}

#[inline(always)]
fn unpack<S: Level>(codes: &[u8], minimum: S::Vector, step: S::Vector, to: &mut [f32]) {
    S::store(S::mul_add(S::load_nibbles([codes[0], codes[1], codes[2], codes[3]]), step, minimum), to);
}

#[inline(always)]
fn dequantise_keys_body<S: Level>(codes: &[u8], channel_ranges: &[f16], dim: usize, to: &mut [f32]) {
    for channel in (0..dim).step_by(CHANNELS) {
        let (minima, steps) = ranges::<S>(&channel_ranges[2 * channel..2 * (channel + CHANNELS)]);
        for (codes, to) in codes.chunks_exact(dim / 2).zip(to.chunks_exact_mut(dim)) {
            let codes = &codes[channel / 2..(channel + CHANNELS) / 2];
            let to = &mut to[channel..channel + CHANNELS];
            for at in (0..CHANNELS).step_by(LANES) {
                let (minimum, step) = (S::load(&minima[at..]), S::load(&steps[at..]));
                unpack::<S>(&codes[at / 2..], minimum, step, &mut to[at..]);
            }
        }
    }
}

#[inline(always)]
fn dequantise_values_body<S: Level>(codes: &[u8], group_ranges: &[f16], to: &mut [f32]) {
    let groups = codes.chunks_exact(CHANNELS / 2).zip(to.chunks_exact_mut(CHANNELS));
    for ((codes, to), range) in groups.zip(group_ranges.chunks_exact(2)) {
        let (minimum, step) = (S::splat(range[0].to_f32()), S::splat(range[1].to_f32()));
        for at in (0..CHANNELS).step_by(LANES) {
            unpack::<S>(&codes[at / 2..], minimum, step, &mut to[at..]);
        }
    }
}

dispatch! {
    /// Rows of `dim` keys, a multiple of 32, from rows of `dim / 2` bytes; `channel_ranges` is `[dim, 2]`.
    pub fn dequantise_keys(codes: &[u8], channel_ranges: &[f16], dim: usize, to: &mut [f32]) = dequantise_keys_body
}
dispatch! {
    /// Values in groups of 32 channels; `group_ranges` is `[to.len() / 32, 2]`.
    pub fn dequantise_values(codes: &[u8], group_ranges: &[f16], to: &mut [f32]) = dequantise_values_body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_unpacks_at_both_levels() {
        let codes: Vec<u8> = (0..=255u8).cycle().take(64 * 16).collect();
        let dim = 128;
        let range = |i: usize| [f16::from_f32(i as f32 * 0.25 - 3.0), f16::from_f32(0.125 * (i % 5) as f32)];
        let keys: Vec<f16> = (0..dim).flat_map(range).collect();
        let values: Vec<f16> = (0..codes.len() / 16).flat_map(range).collect();
        let (mut fast, mut plain) = (vec![f32::NAN; codes.len() * 2], vec![f32::NAN; codes.len() * 2]);
        let code = |i: usize| f32::from(codes[i / 2] >> (i % 2 * 4) & 15);
        let of = |ranges: &[f16], group: usize, i: usize| {
            ranges[2 * group].to_f32() + code(i) * ranges[2 * group + 1].to_f32()
        };
        dequantise_keys(&codes, &keys, dim, &mut fast);
        dequantise_keys_body::<Portable>(&codes, &keys, dim, &mut plain);
        let want: Vec<f32> = (0..codes.len() * 2).map(|i| of(&keys, i % dim, i)).collect();
        assert!(fast == want && plain == want);
        dequantise_values(&codes, &values, &mut fast);
        dequantise_values_body::<Portable>(&codes, &values, &mut plain);
        let want: Vec<f32> = (0..codes.len() * 2).map(|i| of(&values, i / 32, i)).collect();
        assert!(fast == want && plain == want);
    }
}
