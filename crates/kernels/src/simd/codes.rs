//! Codes of eight, four and two bits to f32 and back.

use half::f16;

use super::*;
use crate::codec::{Dtype, Table};

/// A width of codes: eight of them are `BITS` bytes.
trait Width {
    const BITS: usize;
    fn load<S: Level>(codes: &[u8]) -> S::Vector;
}

struct Eight;
struct Four;
struct Two;

impl Width for Eight {
    const BITS: usize = 8;
    #[inline(always)]
    fn load<S: Level>(codes: &[u8]) -> S::Vector {
        S::load_bytes([codes[0], codes[1], codes[2], codes[3], codes[4], codes[5], codes[6], codes[7]])
    }
}

impl Width for Four {
    const BITS: usize = 4;
    #[inline(always)]
    fn load<S: Level>(codes: &[u8]) -> S::Vector {
        S::load_nibbles([codes[0], codes[1], codes[2], codes[3]])
    }
}

/// A width whose codes can be looked up.
trait Looked: Width {
    fn look_up<S: Level>(table: &Table, codes: &[u8]) -> S::Vector;
}

impl Looked for Four {
    #[inline(always)]
    fn look_up<S: Level>(table: &Table, codes: &[u8]) -> S::Vector {
        S::look_up_nibbles(table, [codes[0], codes[1], codes[2], codes[3]])
    }
}

impl Looked for Two {
    #[inline(always)]
    fn look_up<S: Level>(table: &Table, codes: &[u8]) -> S::Vector {
        S::look_up_pairs(table, [codes[0], codes[1]])
    }
}

impl Width for Two {
    const BITS: usize = 2;
    #[inline(always)]
    fn load<S: Level>(codes: &[u8]) -> S::Vector {
        S::load_pairs([codes[0], codes[1]])
    }
}

/// Rows of codes whose channels from `channel` on have the scales and zeros given, `V` vectors of them.
#[inline(always)]
fn columns<S: Level, W: Width, const V: usize>(
    codes: &[u8],
    pairs: &[f16],
    dim: usize,
    channel: usize,
    to: &mut [f32],
) {
    let (mut scales, mut zeros) = ([S::splat(0.0); V], [S::splat(0.0); V]);
    for vector in 0..V {
        let at = channel + vector * LANES;
        scales[vector] = S::load_half(&pairs[at..at + LANES]);
        zeros[vector] = S::load_half(&pairs[dim + at..dim + at + LANES]);
    }
    let (first, bytes) = (channel * W::BITS / 8, V * W::BITS);
    for (codes, to) in codes.chunks_exact(dim * W::BITS / 8).zip(to.chunks_exact_mut(dim)) {
        let codes = &codes[first..first + bytes];
        let to = &mut to[channel..channel + V * LANES];
        for vector in 0..V {
            let code = W::load::<S>(&codes[vector * W::BITS..(vector + 1) * W::BITS]);
            let wide = S::mul_add(code, scales[vector], zeros[vector]);
            S::store(wide, &mut to[vector * LANES..(vector + 1) * LANES]);
        }
    }
}

#[inline(always)]
fn decode_channels_width<S: Level, W: Width>(codes: &[u8], pairs: &[f16], dim: usize, to: &mut [f32]) {
    let mut channel = 0;
    while channel + 4 * LANES <= dim {
        columns::<S, W, 4>(codes, pairs, dim, channel, to);
        channel += 4 * LANES;
    }
    while channel < dim {
        columns::<S, W, 1>(codes, pairs, dim, channel, to);
        channel += LANES;
    }
}

#[inline(always)]
fn decode_channels_body<S: Level>(dtype: Dtype, codes: &[u8], pairs: &[f16], dim: usize, to: &mut [f32]) {
    match dtype.bits() {
        4 => decode_channels_width::<S, Four>(codes, pairs, dim, to),
        2 => decode_channels_width::<S, Two>(codes, pairs, dim, to),
        _ => decode_channels_width::<S, Eight>(codes, pairs, dim, to),
    }
}

#[inline(always)]
fn decode_entries_width<S: Level, W: Width>(codes: &[u8], pairs: &[f16], group: usize, to: &mut [f32]) {
    let groups = codes.chunks_exact(group * W::BITS / 8).zip(to.chunks_exact_mut(group));
    for ((codes, to), pair) in groups.zip(pairs.chunks_exact(2)) {
        let (scale, zero) = (S::splat(pair[0].to_f32()), S::splat(pair[1].to_f32()));
        for (codes, to) in codes.chunks_exact(W::BITS).zip(to.chunks_exact_mut(LANES)) {
            S::store(S::mul_add(W::load::<S>(codes), scale, zero), to);
        }
    }
}

#[inline(always)]
fn decode_entries_body<S: Level>(dtype: Dtype, codes: &[u8], pairs: &[f16], group: usize, to: &mut [f32]) {
    match dtype.bits() {
        4 => decode_entries_width::<S, Four>(codes, pairs, group, to),
        2 => decode_entries_width::<S, Two>(codes, pairs, group, to),
        _ => decode_entries_width::<S, Eight>(codes, pairs, group, to),
    }
}

#[inline(always)]
fn decode_levels_width<S: Level, W: Looked>(table: &Table, codes: &[u8], scales: &[f16], group: usize, to: &mut [f32]) {
    let groups = codes.chunks_exact(group * W::BITS / 8).zip(to.chunks_exact_mut(group));
    for ((codes, to), scale) in groups.zip(scales) {
        let scale = S::splat(scale.to_f32());
        for (codes, to) in codes.chunks_exact(W::BITS).zip(to.chunks_exact_mut(LANES)) {
            S::store(S::mul(W::look_up::<S>(table, codes), scale), to);
        }
    }
}

#[inline(always)]
fn decode_levels_body<S: Level>(
    dtype: Dtype,
    table: &Table,
    codes: &[u8],
    scales: &[f16],
    group: usize,
    to: &mut [f32],
) {
    match dtype.bits() {
        4 => decode_levels_width::<S, Four>(table, codes, scales, group, to),
        2 => decode_levels_width::<S, Two>(table, codes, scales, group, to),
        _ => panic!("codes of {dtype} in a table"),
    }
}

/// Not fused, and the lanes in one order: a GPU takes the same sum to the same bits.
#[inline(always)]
fn sum_of_squares_body<S: Level>(row: &[f32]) -> f32 {
    let mut sum = S::splat(0.0);
    for eight in row.chunks_exact(LANES) {
        let x = S::load(eight);
        sum = S::add(sum, S::mul(x, x));
    }
    S::sum(sum)
}

/// The codes of a row, a multiple of 8 long: of the nearest numbers of the table to x * inverse, of two the lower one.
pub fn encode_levels(dtype: Dtype, table: &Table, row: &[f32], inverse: f32, codes: &mut [u8]) {
    let bits = dtype.bits();
    let mut middles = [f32::INFINITY; 15];
    for code in 0..usize::from(dtype.most()) {
        middles[code] = (table[code] + table[code + 1]) * 0.5;
    }
    for (eight, codes) in row.chunks_exact(LANES).zip(codes.chunks_exact_mut(bits)) {
        let mut packed = 0u32;
        for (lane, x) in eight.iter().enumerate() {
            let x = x * inverse;
            // Halves the middles that are left until one is: as many are below the number as its code says.
            let (mut code, mut half) = (0, usize::from(dtype.most()).div_ceil(2));
            while half > 0 {
                code += if x > middles[code + half - 1] { half } else { 0 };
                half /= 2;
            }
            packed |= (code as u32) << (lane * bits);
        }
        codes.copy_from_slice(&packed.to_le_bytes()[..bits]);
    }
}

#[inline(always)]
fn encode_codes_body<S: Level>(dtype: Dtype, row: &[f32], zeros: &[f32], inverses: &[f32], codes: &mut [u8]) {
    let (bits, most) = (dtype.bits(), S::splat(f32::from(dtype.most())));
    let mut whole = [0.0; LANES];
    for (index, (eight, codes)) in row.chunks_exact(LANES).zip(codes.chunks_exact_mut(bits)).enumerate() {
        let (zero, inverse) = (S::load(&zeros[index * LANES..]), S::load(&inverses[index * LANES..]));
        let code = S::round(S::mul(S::sub(S::load(eight), zero), inverse));
        S::store(S::min(S::max(code, S::splat(0.0)), most), &mut whole);
        let mut packed = 0u64;
        for (lane, code) in whole.iter().enumerate() {
            packed |= u64::from(*code as u8) << (lane * bits);
        }
        codes.copy_from_slice(&packed.to_le_bytes()[..bits]);
    }
}

dispatch! {
    /// Rows of `dim` channels, a multiple of 8, from rows of codes; `pairs` is `[2, dim]`: scales, then zeros.
    pub fn decode_channels(dtype: Dtype, codes: &[u8], pairs: &[f16], dim: usize, to: &mut [f32]) = decode_channels_body
}
dispatch! {
    /// Groups of `group` channels, a multiple of 8; `pairs` is `[to.len() / group, 2]`: scale and zero.
    pub fn decode_entries(dtype: Dtype, codes: &[u8], pairs: &[f16], group: usize, to: &mut [f32]) = decode_entries_body
}
dispatch! {
    /// Groups of `group` channels, a multiple of 8, of codes that are looked up in a table; `scales` is `[to.len() / group]`.
    pub fn decode_levels(
        dtype: Dtype, table: &Table, codes: &[u8], scales: &[f16], group: usize, to: &mut [f32],
    ) = decode_levels_body
}
dispatch! {
    /// Of a row, a multiple of 8 long.
    pub fn sum_of_squares(row: &[f32]) -> f32 = sum_of_squares_body
}
dispatch! {
    /// The codes of a row, a multiple of 8 long: round((x - zero) * inverse) within the width.
    pub fn encode_codes(dtype: Dtype, row: &[f32], zeros: &[f32], inverses: &[f32], codes: &mut [u8]) = encode_codes_body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_unpacks_at_both_levels() {
        let codes: Vec<u8> = (0..=255u8).cycle().take(80 * 16).collect();
        for dtype in [Dtype::U8, Dtype::U4, Dtype::U2] {
            let (bits, dim, group) = (dtype.bits(), 80, 16);
            let count = codes.len() * 8 / bits;
            let number = |i: usize| [f16::from_f32(0.125 * (i % 5) as f32), f16::from_f32(i as f32 * 0.25 - 3.0)];
            let of_channels: Vec<f16> =
                [0, 1].into_iter().flat_map(|part| (0..dim).map(move |i| number(i)[part])).collect();
            let of_entries: Vec<f16> = (0..count / group).flat_map(|i| number(i % 40)).collect();
            let (mut fast, mut plain) = (vec![f32::NAN; count], vec![f32::NAN; count]);
            let code = |i: usize| f32::from(codes[i * bits / 8] >> (i * bits % 8) & dtype.most());
            decode_channels(dtype, &codes, &of_channels, dim, &mut fast);
            decode_channels_body::<Portable>(dtype, &codes, &of_channels, dim, &mut plain);
            let pair = |i: usize| number(i % dim).map(f16::to_f32);
            let want: Vec<f32> = (0..count).map(|i| code(i) * pair(i)[0] + pair(i)[1]).collect();
            assert!(fast == want && plain == want, "{dtype} per channel");
            decode_entries(dtype, &codes, &of_entries, group, &mut fast);
            decode_entries_body::<Portable>(dtype, &codes, &of_entries, group, &mut plain);
            let pair = |i: usize| number(i / group % 40).map(f16::to_f32);
            let want: Vec<f32> = (0..count).map(|i| code(i) * pair(i)[0] + pair(i)[1]).collect();
            assert!(fast == want && plain == want, "{dtype} per entry");
        }
    }

    #[test]
    fn every_code_is_looked_up_at_both_levels() {
        let codes: Vec<u8> = (0..=255u8).cycle().take(80 * 16).collect();
        let table: Table = std::array::from_fn(|i| (i as f32).exp2() - 7.3);
        for (dtype, group) in [(Dtype::U4, 8), (Dtype::U4, 80), (Dtype::U2, 16), (Dtype::U2, 128)] {
            let bits = dtype.bits();
            let count = codes.len() * 8 / bits;
            let scales: Vec<f16> = (0..count / group).map(|i| f16::from_f32(0.125 * (i % 5) as f32)).collect();
            let (mut fast, mut plain) = (vec![f32::NAN; count], vec![f32::NAN; count]);
            let code = |i: usize| codes[i * bits / 8] >> (i * bits % 8) & dtype.most();
            decode_levels(dtype, &table, &codes, &scales, group, &mut fast);
            decode_levels_body::<Portable>(dtype, &table, &codes, &scales, group, &mut plain);
            let want: Vec<f32> = (0..count).map(|i| table[usize::from(code(i))] * scales[i / group].to_f32()).collect();
            assert!(fast == want && plain == want, "{dtype} in groups of {group}");
        }
        let row: Vec<f32> = (0..136).map(|i| (i * 37 % 101) as f32 * 0.1 - 3.0).collect();
        for n in [0, 8, 80, 136] {
            assert_eq!(sum_of_squares(&row[..n]).to_bits(), sum_of_squares_body::<Portable>(&row[..n]).to_bits());
        }
    }

    #[test]
    fn codes_are_those_of_the_nearest_levels() {
        for dtype in [Dtype::U4, Dtype::U2] {
            let table = crate::codec::Levels::Normal.table(dtype).expect("a table");
            let levels = &table[..=usize::from(dtype.most())];
            let middles = levels.windows(2).map(|pair| (pair[0] + pair[1]) * 0.5);
            let mut row: Vec<f32> =
                middles.flat_map(|x| [x.next_down(), x, x.next_up()]).chain(levels.to_vec()).collect();
            row.extend([0.0, -9.0, 1e9, f32::MIN]);
            row.resize(row.len().next_multiple_of(LANES), 0.3);
            let mut codes = vec![0; row.len() * dtype.bits() / 8];
            encode_levels(dtype, table, &row, 1.0, &mut codes);
            for (i, x) in row.iter().enumerate() {
                let code = codes[i * dtype.bits() / 8] >> (i * dtype.bits() % 8) & dtype.most();
                let want = levels.windows(2).filter(|pair| *x > (pair[0] + pair[1]) * 0.5).count();
                assert_eq!(usize::from(code), want, "{x} in {dtype}");
            }
        }
    }

    #[test]
    fn codes_are_packed_alike_at_both_levels() {
        let row: Vec<f32> = (0..80).map(|i| (i * 37 % 80) as f32 * 0.1 - 3.0).collect();
        for dtype in [Dtype::U8, Dtype::U4, Dtype::U2] {
            let inverse = f32::from(dtype.most()) / 7.9;
            let bytes = row.len() * dtype.bits() / 8;
            let (mut fast, mut plain) = (vec![0; bytes], vec![0; bytes]);
            encode_codes(dtype, &row, &[-3.0; 80], &[inverse; 80], &mut fast);
            encode_codes_body::<Portable>(dtype, &row, &[-3.0; 80], &[inverse; 80], &mut plain);
            assert_eq!(fast, plain);
            for (i, x) in row.iter().enumerate() {
                let code = plain[i * dtype.bits() / 8] >> (i * dtype.bits() % 8) & dtype.most();
                assert_eq!(f32::from(code), ((x + 3.0) * inverse).round_ties_even(), "number {i} of {dtype}");
            }
        }
    }
}
