//! Scores of keys in evenly spaced codes of four and two bits with scales per entry, as products of integers: 64 bytes of codes meet 64 bytes of a query's digits
//! in one instruction of VNNI.
//!
//! A byte of codes is split by a shift and a mask, so that vector `p` has the codes at place `p` of every byte; the query's digits were laid out in that
//! order, once for all rows that share them. The three sums of a lane, one per digit, are joined by shifts: a lane sums 8 products of a
//! code below 16, or 16 of one below 4, with a number below 2^23, so nothing overflows and all of it is exact. Rounding is in the query, to a
//! unit of 2^-23 of its largest number ([`digits`](super::digits)), and in the sums from where they meet scales, in f32 as elsewhere.
//!
//! A lane's channels share a scale, and a vector has those of a row, of several short ones, or of half of a long one.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_maskz_loadu_epi16, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_si512,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi8, _mm512_maskz_set1_epi8,
    _mm512_max_epu32, _mm512_mul_ps, _mm512_permutexvar_epi8, _mm512_permutexvar_ps, _mm512_reduce_max_epu32,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4,
    _mm512_shuffle_ps, _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_si512, _mm512_sub_epi32,
};

use half::f16;

use super::digits::{DIGITS, split, unit_of};
use super::x86::ask_ahead;
use super::{Coded, Dtype, HALVES, LANES, Levels, QUERIES, Scratch};

/// Bytes of a vector.
const BYTES: usize = 64;
/// Vectors that codes of a head may take.
const PARTS: usize = 2;
/// Vectors of the codes of a part, one per place in a byte.
const PLACES: usize = 4;
/// Rows whose scores are summed up together.
const BLOCK: usize = 16;
/// Rows from which on it is worth splitting a query.
const WORTH: usize = 4 * BLOCK;

/// Digits as vectors are loaded.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Digits([i8; BYTES]);

/// A query as codes meet it.
#[derive(Clone, Copy)]
struct Asked {
    /// By part and place in a byte, the first digit first.
    digits: [[[Digits; DIGITS]; PLACES]; PARTS],
    /// By how much counting codes from their middle changes each lane.
    middles: [[i32; LANES]; PARTS],
    /// At the first lane of each group of channels their sum, in units.
    sums: [[f32; LANES]; PARTS],
    unit: f32,
}

/// The queries that meet rows together.
#[derive(Clone)]
pub(super) struct Queries([Asked; QUERIES]);

impl Default for Queries {
    fn default() -> Self {
        Queries(
            [Asked {
                digits: [[[Digits([0; BYTES]); DIGITS]; PLACES]; PARTS],
                middles: [[0; LANES]; PARTS],
                sums: [[0.0; LANES]; PARTS],
                unit: 0.0,
            }; QUERIES],
        )
    }
}

/// An intrinsic of a feature that was detected before these loops were entered.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: see the macro's description; pointers given to it lie in slices that are as long as a vector, or as the mask beside them
        // says.
        unsafe { $call }
    };
}

/// Codes of so many bits.
trait Width {
    const BITS: usize;
    /// Codes in a byte.
    const PLACES: usize = 8 / Self::BITS;
    /// The code that evenly spaced ones are counted from.
    const MIDDLE: i8 = 1 << (Self::BITS - 1);
    /// Where [`split`]'s bytes of sixteen channels go: digit by digit, the first first, and place by place.
    const ORDER: [u8; BYTES] = order(Self::PLACES);
}

struct Four;
struct Two;

impl Width for Four {
    const BITS: usize = 4;
}

impl Width for Two {
    const BITS: usize = 2;
}

const fn order(places: usize) -> [u8; BYTES] {
    let (mut order, mut i) = ([0; BYTES], 0);
    while i < DIGITS * LANES {
        let (digit, at) = (DIGITS - 1 - i / LANES, i % LANES);
        let (place, byte) = (at / (LANES / places), at % (LANES / places));
        order[i] = (4 * (byte * places + place) + digit) as u8;
        i += 1;
    }
    order
}

/// How rows lie in vectors.
struct Shape {
    /// Bytes of a row.
    row: usize,
    /// Rows of a vector: several only if they fill it.
    rows: usize,
    /// Vectors of a row.
    parts: usize,
    /// Scales and zeros of a row of its own.
    halves: usize,
    /// By part, where its scales begin in those of a row, how many there are with their zeros, and which of them a lane has.
    scales: [(usize, usize, [u32; LANES]); PARTS],
}

impl Shape {
    /// None: there are no such loops for these rows.
    fn of(coded: &Coded<'_>) -> Option<Shape> {
        let (dim, places) = (coded.dim, 8 / coded.codec.dtype.bits());
        let row = coded.codec.row(dim);
        let codes = coded.codec.levels == Levels::Even && matches!(coded.codec.dtype, Dtype::U4 | Dtype::U2);
        if !codes || coded.halves == 0 || coded.rows < WORTH || row < BLOCK {
            return None;
        }
        let rows = if BYTES.is_multiple_of(row) { BYTES / row } else { 1 };
        let parts = row.div_ceil(BYTES);
        let (halves, mut scales) = (coded.halves, [(0, 0, [0; LANES]); PARTS]);
        if parts > 1 && !(BYTES * places).is_multiple_of(coded.group) {
            return None;
        }
        for (part, scales) in scales.iter_mut().enumerate().take(parts) {
            let channels = part * BYTES * places..dim.min((part + 1) * BYTES * places);
            let first = channels.start / coded.group;
            let most = rows * 2 * channels.len().div_ceil(coded.group);
            if most > LANES {
                return None;
            }
            let of = |lane: usize| {
                let channel = channels.start + 4 * lane % row * places;
                let group = if channel < channels.end { channel / coded.group - first } else { 0 };
                (4 * lane / row % rows * halves + 2 * group) as u32
            };
            *scales = (2 * first, most, std::array::from_fn(of));
        }
        Some(Shape { row, rows, parts, halves, scales })
    }
}

/// As [`Coded::scores`]; whether there are such loops for these rows and queries. `scratch` has the queries as `x86::ask` left them.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
pub(super) fn scores<const Q: usize>(
    coded: &Coded<'_>,
    scale: f32,
    scores: &mut [f32],
    step: usize,
    scratch: &mut Scratch,
) -> bool {
    let Some(shape) = Shape::of(coded) else { return false };
    match coded.codec.dtype {
        Dtype::U4 => scores_of::<Four, Q>(coded, &shape, scale, scores, step, scratch),
        _ => scores_of::<Two, Q>(coded, &shape, scale, scores, step, scratch),
    }
}

#[inline(always)]
fn first(n: usize) -> u16 {
    if n >= LANES { u16::MAX } else { (1 << n) - 1 }
}

#[inline(always)]
fn first_bytes(n: usize) -> u64 {
    if n >= BYTES { u64::MAX } else { (1 << n) - 1 }
}

/// Splits a query into digits. False: it has none.
#[inline(always)]
fn ask<W: Width>(shape: &Shape, query: &[f32], sums: &[f32], to: &mut Asked) -> bool {
    // Sizes compare like their bits, and what is no number is above all.
    let mut largest = intrinsic!(_mm512_setzero_si512());
    for sixteen in query.as_chunks::<LANES>().0 {
        let size = intrinsic!(_mm512_castps_si512(_mm512_abs_ps(_mm512_loadu_ps(sixteen.as_ptr()))));
        largest = intrinsic!(_mm512_max_epu32(largest, size));
    }
    let largest = f32::from_bits(intrinsic!(_mm512_reduce_max_epu32(largest)));
    let Some((units, unit)) = unit_of(largest) else { return false };
    to.unit = unit;
    let order = intrinsic!(_mm512_loadu_si512(W::ORDER.as_ptr().cast()));
    let width = LANES / W::PLACES;
    for (index, sixteen) in query.as_chunks::<LANES>().0.iter().enumerate() {
        let (digits, _) = intrinsic!(split(_mm512_loadu_ps(sixteen.as_ptr()), _mm512_set1_ps(units)));
        let mut bytes = [0i8; BYTES];
        intrinsic!(_mm512_storeu_si512(bytes.as_mut_ptr().cast(), _mm512_permutexvar_epi8(order, digits)));
        let at = index * width;
        for (i, bytes) in bytes[..DIGITS * LANES].chunks_exact(width).enumerate() {
            let Digits(to) = &mut to.digits[at / BYTES][i % W::PLACES][i / W::PLACES];
            for again in 0..shape.rows {
                to[at % BYTES + again * shape.row..][..width].copy_from_slice(bytes);
            }
        }
    }
    for part in 0..shape.parts {
        let mask = first_bytes(shape.rows * shape.row - part * BYTES);
        let middles = intrinsic!(_mm512_maskz_set1_epi8(mask, W::MIDDLE));
        let sum = products::<W>(&[middles; PLACES], &to.digits[part]);
        let sum = intrinsic!(_mm512_sub_epi32(_mm512_setzero_si512(), sum));
        intrinsic!(_mm512_storeu_si512(to.middles[part].as_mut_ptr().cast(), sum));
        let (from, _, places) = &shape.scales[part];
        let lanes = (mask.count_ones() / 4) as usize;
        let mut before = u32::MAX;
        for (lane, (to, place)) in to.sums[part].iter_mut().zip(places).enumerate() {
            // Rows of a vector have the same groups.
            let half = from + *place as usize % shape.halves;
            *to = if lane < lanes && before != *place { sums[half + 1] * units } else { 0.0 };
            before = *place;
        }
    }
    true
}

/// The sums of products of codes with numbers in three digits, lane by lane.
#[inline(always)]
fn products<W: Width>(codes: &[__m512i; PLACES], digits: &[[Digits; DIGITS]; PLACES]) -> __m512i {
    let mut sum = intrinsic!(_mm512_setzero_si512());
    for digit in 0..DIGITS {
        if digit > 0 {
            sum = intrinsic!(_mm512_slli_epi32::<8>(sum));
        }
        for place in 0..W::PLACES {
            let digits = intrinsic!(_mm512_load_si512(digits[place][digit].0.as_ptr().cast()));
            sum = intrinsic!(_mm512_dpbusd_epi32(sum, codes[place], digits));
        }
    }
    sum
}

/// The codes at each place of a byte.
#[inline(always)]
fn split_codes<W: Width>(bytes: __m512i) -> [__m512i; PLACES] {
    let mask = intrinsic!(_mm512_set1_epi8(2 * W::MIDDLE - 1));
    let mut codes = [bytes; PLACES];
    for (place, codes) in codes.iter_mut().enumerate().take(W::PLACES) {
        let moved = match place * W::BITS {
            0 => bytes,
            2 => intrinsic!(_mm512_srli_epi16::<2>(bytes)),
            4 => intrinsic!(_mm512_srli_epi16::<4>(bytes)),
            _ => intrinsic!(_mm512_srli_epi16::<6>(bytes)),
        };
        *codes = intrinsic!(_mm512_and_si512(moved, mask));
    }
    codes
}

#[inline(always)]
fn scores_of<W: Width, const Q: usize>(
    coded: &Coded<'_>,
    shape: &Shape,
    scale: f32,
    scores: &mut [f32],
    step: usize,
    scratch: &mut Scratch,
) -> bool {
    let Scratch { queries, zeros, digits: Queries(asked), .. } = scratch;
    for (index, asked) in asked.iter_mut().enumerate().take(Q) {
        let query = &queries[index * coded.dim..(index + 1) * coded.dim];
        if !ask::<W>(shape, query, &zeros[index * HALVES..(index + 1) * HALVES], asked) {
            return false;
        }
    }
    for (index, numbers) in coded.numbers.chunks(BLOCK * shape.row).enumerate() {
        let (at, rows) = (index * BLOCK, BLOCK.min(coded.rows - index * BLOCK));
        ask_ahead(coded, at, rows);
        let scales = &coded.scales[at * shape.halves..(at + rows) * shape.halves];
        let found = block_of::<W, Q>(numbers, scales, shape, asked);
        for (query, found) in found.iter().enumerate() {
            let sums = joined(found, shape.rows);
            let factor = intrinsic!(_mm512_set1_ps(scale * asked[query].unit));
            let to = &mut scores[query * step + at..][..rows];
            intrinsic!(_mm512_mask_storeu_ps(to.as_mut_ptr(), first(rows), _mm512_mul_ps(sums, factor)));
        }
    }
    true
}

/// Vectors whose sums, of as many lanes as a row has, are the products of `Q` queries with [`BLOCK`] rows at most, in units.
#[allow(clippy::needless_range_loop)] // Indices into several arrays at once, of lengths that the compiler knows.
#[inline(always)]
fn block_of<W: Width, const Q: usize>(
    numbers: &[u8],
    scales: &[f16],
    shape: &Shape,
    asked: &[Asked; QUERIES],
) -> [[__m512; BLOCK]; Q] {
    let Shape { row, rows, parts, halves, .. } = *shape;
    let zero = intrinsic!(_mm512_setzero_ps());
    let mut found = [[zero; BLOCK]; Q];
    for (vector, own) in numbers.chunks(rows * row).enumerate() {
        for part in 0..parts {
            let bytes = &own[part * BYTES..];
            let mask = first_bytes(bytes.len());
            let codes = split_codes::<W>(intrinsic!(_mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast())));
            let (from, most, places) = &shape.scales[part];
            let scales = &scales[vector * rows * halves + from..];
            let pairs = intrinsic!(_mm256_maskz_loadu_epi16(first(scales.len().min(*most)), scales.as_ptr().cast()));
            let pairs = intrinsic!(_mm512_cvtph_ps(pairs));
            let places = intrinsic!(_mm512_loadu_si512(places.as_ptr().cast()));
            let of_codes = intrinsic!(_mm512_permutexvar_ps(places, pairs));
            // Zeros are those of codes that count from their middle.
            let middle = intrinsic!(_mm512_set1_ps(f32::from(W::MIDDLE)));
            let next = intrinsic!(_mm512_add_epi32(places, _mm512_set1_epi32(1)));
            let of_zeros = intrinsic!(_mm512_fmadd_ps(of_codes, middle, _mm512_permutexvar_ps(next, pairs)));
            for query in 0..Q {
                let asked = &asked[query];
                let middles = intrinsic!(_mm512_loadu_si512(asked.middles[part].as_ptr().cast()));
                let sum = intrinsic!(_mm512_add_epi32(products::<W>(&codes, &asked.digits[part]), middles));
                let sums = intrinsic!(_mm512_loadu_ps(asked.sums[part].as_ptr()));
                let sum = intrinsic!(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), of_codes, _mm512_mul_ps(of_zeros, sums)));
                found[query][vector] =
                    if part == 0 { sum } else { intrinsic!(_mm512_add_ps(found[query][vector], sum)) };
            }
        }
    }
    found
}

/// The sums of rows, in their order: vectors of `rows` rows each, of as many lanes.
#[inline(always)]
fn joined(found: &[__m512; BLOCK], rows: usize) -> __m512 {
    // Each round halves the lanes of a row and so the vectors.
    let mut of_eight = *found;
    if rows == 1 {
        for i in 0..8 {
            let (a, b) = (of_eight[2 * i], of_eight[2 * i + 1]);
            of_eight[i] = intrinsic!(_mm512_add_ps(
                _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
                _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
            ));
        }
    }
    if rows <= 2 {
        for i in 0..4 {
            let (a, b) = (of_eight[2 * i], of_eight[2 * i + 1]);
            of_eight[i] = intrinsic!(_mm512_add_ps(
                _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
            ));
        }
    }
    // Four rows in the quarters of each of four vectors.
    let [a, b, c, d] = [of_eight[0], of_eight[1], of_eight[2], of_eight[3]];
    let pair = |a, b| {
        intrinsic!(_mm512_add_ps(_mm512_shuffle_ps::<0b01_00_01_00>(a, b), _mm512_shuffle_ps::<0b11_10_11_10>(a, b)))
    };
    let (a, b) = (pair(a, b), pair(c, d));
    let sums =
        intrinsic!(_mm512_add_ps(_mm512_shuffle_ps::<0b10_00_10_00>(a, b), _mm512_shuffle_ps::<0b11_01_11_01>(a, b),));
    let order: [u32; LANES] = std::array::from_fn(|row| (row % 4 * 4 + row / 4) as u32);
    intrinsic!(_mm512_permutexvar_ps(_mm512_loadu_si512(order.as_ptr().cast()), sums))
}
