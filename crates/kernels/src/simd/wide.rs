//! Scores and weighted sums of a decode step in 512 bits.
//!
//! Both have the bits of the loops over eight lanes: a vector holds eight columns of two keys for scores, so each lane adds what it
//! adds there, and sixteen columns of one value for sums, where every column is a sum of its own.

use std::arch::x86_64::{
    __m256, __m512, _mm_loadu_si128, _mm256_add_ps, _mm256_castps_pd, _mm256_castsi128_si256, _mm256_inserti128_si256,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_add_ps,
    _mm512_broadcast_f32x8, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps256_ps512, _mm512_castps512_ps256,
    _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_insertf64x4, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_storeu_ps,
};

use half::f16;

use super::level::{Avx2, LANES};
use super::{ask_ahead, has_avx2};
use crate::element::Element;

/// Columns of a vector of one value.
const WIDE: usize = 2 * LANES;

/// Pairs of keys that are at work at once: eight keys.
const PAIRS: usize = LANES / 2;

/// Rows of values that stay in the first-level cache while every query of a group uses them.
const VALUE_ROWS: usize = 32;

/// True when this machine has what the loops here need.
pub(super) fn available() -> bool {
    has_avx2() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")
}

/// An intrinsic of a feature that was detected before these loops were entered.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: see the macro's description; pointers given to it cover what is read or written, as asserted before.
        unsafe { $call }
    };
}

/// Numbers that vectors of sixteen f32 are loaded from.
pub(super) trait Wide: Element {
    /// Eight numbers of each of two rows, side by side.
    fn two(low: &[Self], high: &[Self]) -> __m512;
    /// Sixteen numbers of a row.
    fn one(of: &[Self]) -> __m512;
}

impl Wide for f32 {
    #[inline(always)]
    fn two(low: &[f32], high: &[f32]) -> __m512 {
        assert!(low.len() >= LANES && high.len() >= LANES);
        let low = intrinsic!(_mm512_castps_pd(_mm512_castps256_ps512(_mm256_loadu_ps(low.as_ptr()))));
        let high = intrinsic!(_mm256_castps_pd(_mm256_loadu_ps(high.as_ptr())));
        intrinsic!(_mm512_castpd_ps(_mm512_insertf64x4::<1>(low, high)))
    }
    #[inline(always)]
    fn one(of: &[f32]) -> __m512 {
        assert!(of.len() >= WIDE);
        intrinsic!(_mm512_loadu_ps(of.as_ptr()))
    }
}

impl Wide for f16 {
    #[inline(always)]
    fn two(low: &[f16], high: &[f16]) -> __m512 {
        assert!(low.len() >= LANES && high.len() >= LANES);
        let low = intrinsic!(_mm256_castsi128_si256(_mm_loadu_si128(low.as_ptr().cast())));
        let high = intrinsic!(_mm_loadu_si128(high.as_ptr().cast()));
        intrinsic!(_mm512_cvtph_ps(_mm256_inserti128_si256::<1>(low, high)))
    }
    #[inline(always)]
    fn one(of: &[f16]) -> __m512 {
        assert!(of.len() >= WIDE);
        intrinsic!(_mm512_cvtph_ps(_mm256_loadu_si256(of.as_ptr().cast())))
    }
}

/// Sums of neighbours: of each four lanes first those of `a`, then those of `b`.
#[inline(always)]
fn neighbours(a: __m512, b: __m512) -> __m512 {
    let even = intrinsic!(_mm512_shuffle_ps::<0x88>(a, b));
    intrinsic!(_mm512_add_ps(even, _mm512_shuffle_ps::<0xdd>(a, b)))
}

/// The sums of the lanes of eight keys, of which key `i` and key `i + 4` are the halves of vector `i`; added as [`Avx2`] adds them.
#[inline(always)]
fn sums(of: &[__m512; PAIRS]) -> __m256 {
    let all = neighbours(neighbours(of[0], of[1]), neighbours(of[2], of[3]));
    let left = intrinsic!(_mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b1000>(all, all)));
    let right = intrinsic!(_mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b1101>(all, all)));
    intrinsic!(_mm256_add_ps(left, right))
}

/// The scores of whole eights of keys, of which there are none but such; rows have a multiple of eight columns.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
pub(super) fn scores<T: Wide>(queries: &[f32], dim: usize, keys: &[T], scale: f32, scores: &mut [f32], step: usize) {
    let group = queries.len() / dim;
    for (at, block) in keys.chunks_exact(LANES * dim).enumerate() {
        ask_ahead::<Avx2, T>(block);
        let mut query = 0;
        while query < group {
            let queries = &queries[query * dim..];
            let scores = &mut scores[query * step + at * LANES..];
            query += match group - query {
                1 => score_block::<T, 1>(queries, dim, block, scale, scores, step),
                2 => score_block::<T, 2>(queries, dim, block, scale, scores, step),
                3 => score_block::<T, 3>(queries, dim, block, scale, scores, step),
                _ => score_block::<T, 4>(queries, dim, block, scale, scores, step),
            };
        }
    }
}

/// The scores of `Q` queries for eight keys. Returns `Q`.
#[allow(clippy::needless_range_loop)] // Indices into several arrays at once, of lengths that the compiler knows.
#[inline(always)]
fn score_block<T: Wide, const Q: usize>(
    queries: &[f32],
    dim: usize,
    block: &[T],
    scale: f32,
    scores: &mut [f32],
    step: usize,
) -> usize {
    // Of one length that the compiler sees, so that the loop over columns checks no bounds. No closures that load: they would be
    // compiled without the instruction set of the function around them.
    let eights = dim / LANES;
    let rows: [&[[T; LANES]]; LANES] = std::array::from_fn(|row| &block[row * dim..].as_chunks().0[..eights]);
    let queries: [&[[f32; LANES]]; Q] = std::array::from_fn(|query| &queries[query * dim..].as_chunks().0[..eights]);
    let mut held = [[intrinsic!(_mm512_setzero_ps()); PAIRS]; Q];
    for column in 0..eights {
        let mut of_keys = [intrinsic!(_mm512_setzero_ps()); PAIRS];
        for pair in 0..PAIRS {
            of_keys[pair] = T::two(&rows[pair][column], &rows[pair + PAIRS][column]);
        }
        for query in 0..Q {
            let own = intrinsic!(_mm512_broadcast_f32x8(_mm256_loadu_ps(queries[query][column].as_ptr())));
            for pair in 0..PAIRS {
                held[query][pair] = intrinsic!(_mm512_fmadd_ps(own, of_keys[pair], held[query][pair]));
            }
        }
    }
    for (query, held) in held.iter().enumerate() {
        let to = &mut scores[query * step..query * step + LANES];
        intrinsic!(_mm256_storeu_ps(to.as_mut_ptr(), _mm256_mul_ps(sums(held), _mm256_set1_ps(scale))));
    }
    Q
}

/// `sums[q] += weights[q * step + i] * values[i]`; rows have a multiple of sixteen columns.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
pub(super) fn weighted_sums<T: Wide>(weights: &[f32], step: usize, values: &[T], dim: usize, sums: &mut [f32]) {
    let group = sums.len() / dim;
    for (at, block) in values.chunks(VALUE_ROWS * dim).enumerate() {
        ask_ahead::<Avx2, T>(block);
        let mut query = 0;
        while query < group {
            let weights = &weights[query * step + at * VALUE_ROWS..];
            let sums = &mut sums[query * dim..];
            query += match group - query {
                1 => add_block::<T, 1>(weights, step, block, dim, sums),
                2 => add_block::<T, 2>(weights, step, block, dim, sums),
                3 => add_block::<T, 3>(weights, step, block, dim, sums),
                _ => add_block::<T, 4>(weights, step, block, dim, sums),
            };
        }
    }
}

/// Adds a block of rows to the sums of `Q` queries. Returns `Q`.
#[inline(always)]
fn add_block<T: Wide, const Q: usize>(
    weights: &[f32],
    step: usize,
    block: &[T],
    dim: usize,
    sums: &mut [f32],
) -> usize {
    let rows = block.len() / dim;
    let weights: [&[f32]; Q] = std::array::from_fn(|query| &weights[query * step..query * step + rows]);
    let mut column = 0;
    while column + 4 * WIDE <= dim {
        add_columns::<T, Q, 4>(&weights, block, dim, column, sums);
        column += 4 * WIDE;
    }
    while column < dim {
        add_columns::<T, Q, 1>(&weights, block, dim, column, sums);
        column += WIDE;
    }
    Q
}

/// `sums[q, column ..] += weights[q][row] * block[row, column ..]` over `V` vectors of columns.
#[allow(clippy::needless_range_loop)] // Indices into several arrays at once, of lengths that the compiler knows.
#[inline(always)]
fn add_columns<T: Wide, const Q: usize, const V: usize>(
    weights: &[&[f32]; Q],
    block: &[T],
    dim: usize,
    column: usize,
    sums: &mut [f32],
) {
    let mut held = [[intrinsic!(_mm512_setzero_ps()); V]; Q];
    for query in 0..Q {
        let sums = sums[query * dim + column..][..V * WIDE].as_chunks::<WIDE>().0;
        for vector in 0..V {
            held[query][vector] = f32::one(&sums[vector]);
        }
    }
    for (row, value) in block.chunks_exact(dim).enumerate() {
        let value = value[column..column + V * WIDE].as_chunks::<WIDE>().0;
        let mut of_value = [intrinsic!(_mm512_setzero_ps()); V];
        for vector in 0..V {
            of_value[vector] = T::one(&value[vector]);
        }
        for query in 0..Q {
            let weight = intrinsic!(_mm512_set1_ps(weights[query][row]));
            for vector in 0..V {
                held[query][vector] = intrinsic!(_mm512_fmadd_ps(weight, of_value[vector], held[query][vector]));
            }
        }
    }
    for query in 0..Q {
        let sums = sums[query * dim + column..][..V * WIDE].as_chunks_mut::<WIDE>().0;
        for vector in 0..V {
            intrinsic!(_mm512_storeu_ps(sums[vector].as_mut_ptr(), held[query][vector]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{scores_body, weighted_sums_body};
    use super::*;

    fn noise(n: usize, modulus: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 104_729 + 7) % modulus) as f32 / (modulus as f32 / 2.0) - 1.0).collect()
    }

    /// The level below, as its callers compile it.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn narrow<T: Element>(n: usize, dim: usize, group: usize, keys: &[T], found: [&mut [f32]; 2]) {
        let (queries, weights) = (noise(group * dim, 101), noise(group * (n + 3), 89));
        let [scores, sums] = found;
        scores_body::<Avx2, T>(&queries, dim, keys, 0.25, scores, n + 3);
        weighted_sums_body::<Avx2, T>(&weights, n + 3, keys, dim, sums);
    }

    fn check<T: Wide>(n: usize, dim: usize, group: usize) {
        let (queries, weights) = (noise(group * dim, 101), noise(group * (n + 3), 89));
        let keys: Vec<T> = noise(n * dim, 97).into_iter().map(T::narrow).collect();
        let empty = (vec![f32::NAN; group * (n + 3)], vec![0.5; group * dim]);
        let ((mut scores, mut sums), (mut wide_scores, mut wide_sums)) = (empty.clone(), empty);
        super::super::scores(&queries, dim, &keys, 0.25, &mut wide_scores, n + 3);
        super::super::weighted_sums(&weights, n + 3, &keys, dim, &mut wide_sums);
        // SAFETY: what the caller has found to be there includes these features.
        unsafe { narrow(n, dim, group, &keys, [&mut scores, &mut sums]) };
        let bits = |of: &[f32]| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&scores), bits(&wide_scores), "scores of {n} keys of {dim}, {group} queries");
        assert_eq!(bits(&sums), bits(&wide_sums), "sums of {n} values of {dim}, {group} queries");
    }

    #[test]
    fn the_bits_are_those_of_eight_lanes() {
        if !available() {
            return;
        }
        for (n, dim) in [(1, 64), (8, 16), (9, 24), (33, 64), (70, 80), (513, 64), (131, 128), (40, 256), (19, 30)] {
            for group in 1..=9 {
                check::<f32>(n, dim, group);
                check::<f16>(n, dim, group);
            }
        }
    }
}
