//! The loops on x86-64.

use std::arch::x86_64::{
    __m256, __m512, __m512i, _mm_loadu_si128, _mm_set1_epi8, _mm_xor_si128, _mm256_add_ps, _mm256_and_si256,
    _mm256_andnot_si256, _mm256_cmpeq_epi16, _mm256_cvtepu8_epi16, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps,
    _mm256_or_si256, _mm256_set1_epi16, _mm256_set1_ps, _mm256_slli_epi16, _mm256_storeu_ps, _mm512_add_ps,
    _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_maskz_mov_ps, _mm512_moveldup_ps, _mm512_mul_ps, _mm512_multishift_epi64_epi8, _mm512_permute_ps,
    _mm512_permutexvar_ps, _mm512_reduce_add_ps, _mm512_set_epi64, _mm512_set1_epi32, _mm512_set1_epi64,
    _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_slli_epi32,
    _mm512_storeu_ps,
};

use half::f16;

use crate::element::Element as _;

use super::super::AHEAD;
use super::super::level::{Avx2, Level as _};
use super::{Coded, DIM, Dtype, HALVES, LANES, QUERIES, ROWS, Scales, Scratch, keys};

/// An intrinsic of a feature that was detected before these loops were entered.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: see the macro's description; pointers given to it lie in slices whose lengths `Coded` has checked, by rows and vectors of
        // theirs.
        unsafe { $call }
    };
}

/// Sixteen stored numbers.
trait Sixteen {
    const BYTES: usize;
    /// `from` has so many bytes.
    fn load(from: *const u8, table: __m512) -> __m512;
}

struct Four;
struct Two;
struct Eight;
struct Float8;
struct Brain;

/// Where codes of `bits` bits begin: word i takes the byte at bit `bits * i`.
#[inline(always)]
fn starts(bits: i64) -> __m512i {
    let two = |i: i64| (2 * bits * i) | ((2 * bits * i + bits) << 32);
    intrinsic!(_mm512_set_epi64(two(7), two(6), two(5), two(4), two(3), two(2), two(1), two(0)))
}

impl Sixteen for Four {
    const BYTES: usize = 8;
    #[inline(always)]
    fn load(from: *const u8, table: __m512) -> __m512 {
        let all = intrinsic!(_mm512_set1_epi64(from.cast::<i64>().read_unaligned()));
        let codes = intrinsic!(_mm512_multishift_epi64_epi8(starts(4), all));
        intrinsic!(_mm512_permutexvar_ps(codes, table))
    }
}

impl Sixteen for Two {
    const BYTES: usize = 4;
    #[inline(always)]
    fn load(from: *const u8, table: __m512) -> __m512 {
        let all = intrinsic!(_mm512_set1_epi32(from.cast::<i32>().read_unaligned()));
        let codes = intrinsic!(_mm512_multishift_epi64_epi8(starts(2), all));
        intrinsic!(_mm512_permutexvar_ps(codes, table))
    }
}

impl Sixteen for Eight {
    const BYTES: usize = 16;
    #[inline(always)]
    fn load(from: *const u8, _: __m512) -> __m512 {
        // Less 128, which is the other value of the first bit, with a sign.
        let codes = intrinsic!(_mm_xor_si128(_mm_loadu_si128(from.cast()), _mm_set1_epi8(i8::MIN)));
        intrinsic!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)))
    }
}

impl Sixteen for Float8 {
    const BYTES: usize = 16;
    #[inline(always)]
    fn load(from: *const u8, _: __m512) -> __m512 {
        // As in `Level::load_float8`.
        let bits = intrinsic!(_mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())));
        let none = intrinsic!(_mm256_set1_epi16(0x7f));
        let sign = intrinsic!(_mm256_slli_epi16::<8>(_mm256_andnot_si256(none, bits)));
        let size = intrinsic!(_mm256_and_si256(none, bits));
        let size = intrinsic!(_mm256_or_si256(_mm256_slli_epi16::<7>(size), _mm256_cmpeq_epi16(size, none)));
        let halves = intrinsic!(_mm512_cvtph_ps(_mm256_or_si256(sign, size)));
        intrinsic!(_mm512_mul_ps(halves, _mm512_set1_ps(256.0)))
    }
}

impl Sixteen for Brain {
    const BYTES: usize = 32;
    #[inline(always)]
    fn load(from: *const u8, _: __m512) -> __m512 {
        let upper = intrinsic!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())));
        intrinsic!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper)))
    }
}

/// Runs `$body::<of the dtype>`.
macro_rules! by_dtype {
    ($coded:expr, $body:ident ($($arg:expr),*)) => {
        match $coded.codec.dtype {
            Dtype::U4 => $body::<Four>($coded, $($arg),*),
            Dtype::U2 => $body::<Two>($coded, $($arg),*),
            Dtype::U8 => $body::<Eight>($coded, $($arg),*),
            Dtype::F8 => $body::<Float8>($coded, $($arg),*),
            Dtype::Bf16 => $body::<Brain>($coded, $($arg),*),
            Dtype::F32 | Dtype::F16 => unreachable!("multiplied where they are"),
        }
    };
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vbmi")]
pub(super) fn scores(
    coded: &Coded<'_>,
    queries: &[f32],
    scale: f32,
    scores: &mut [f32],
    step: usize,
    scratch: &mut Scratch,
) {
    by_dtype!(coded, scores_of(queries, scale, scores, step, scratch));
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vbmi")]
pub(super) fn weighted_sums(coded: &Coded<'_>, weights: &[f32], step: usize, sums: &mut [f32], scratch: &mut Scratch) {
    by_dtype!(coded, sums_of(weights, step, sums, scratch));
}

#[inline(always)]
fn table(coded: &Coded<'_>) -> __m512 {
    let table = coded.table();
    intrinsic!(_mm512_loadu_ps(table.as_ptr()))
}

/// A prefix of a vector.
#[inline(always)]
fn first(n: usize) -> u16 {
    if n >= LANES { u16::MAX } else { (1 << n) - 1 }
}

/// Scales and zeros in f32. Zeros are those of codes that count from `middle`, if there are any.
#[inline(always)]
fn widen(from: &[f16], to: &mut [f32], middle: f32) {
    let odd = intrinsic!(_mm512_maskz_mov_ps(0xaaaa, _mm512_set1_ps(middle)));
    let moved = |pairs: __m512| intrinsic!(_mm512_fmadd_ps(_mm512_moveldup_ps(pairs), odd, pairs));
    let (whole, rest) = from.as_chunks::<LANES>();
    for (from, to) in whole.iter().zip(to.chunks_mut(LANES)) {
        let wide = intrinsic!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())));
        assert!(to.len() == LANES);
        intrinsic!(_mm512_storeu_ps(to.as_mut_ptr(), moved(wide)));
    }
    if !rest.is_empty() {
        let mut padded = [f16::ZERO; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        let wide = intrinsic!(_mm512_cvtph_ps(_mm256_loadu_si256(padded.as_ptr().cast())));
        let to = &mut to[whole.len() * LANES..from.len()];
        intrinsic!(_mm512_mask_storeu_ps(to.as_mut_ptr(), first(rest.len()), moved(wide)));
    }
}

/// Asks for what lies [`AHEAD`] of the numbers of `rows` rows from row `at` on, and of their scales, if there are any: behind them lies
/// another head.
#[inline(always)]
pub(super) fn ask_ahead(coded: &Coded<'_>, at: usize, rows: usize) {
    let row = coded.codec.row(coded.dim);
    ask_of(coded.numbers, at * row, rows * row);
    let (scales, row) = (coded.scales, coded.halves * size_of::<f16>());
    // A line of short scales is asked for once, where it begins.
    let from = (at * row).next_multiple_of(64);
    ask_of(f16::bytes(scales), from, ((at + rows) * row).saturating_sub(from));
}

#[inline(always)]
fn ask_of(all: &[u8], at: usize, bytes: usize) {
    let from = at + AHEAD;
    for line in (from..all.len().min(from + bytes)).step_by(64) {
        Avx2::prefetch(all.as_ptr().wrapping_add(line));
    }
}

#[inline(always)]
fn ask(coded: &Coded<'_>, queries: &[f32], asked: &mut Scratch) {
    let Coded { codec, dim, scales, .. } = *coded;
    asked.added.fill(0.0);
    if coded.halves > 0 {
        asked.zeros.fill(0.0);
    }
    for (index, query) in queries.chunks_exact(dim).enumerate() {
        let to = &mut asked.queries[index * dim..(index + 1) * dim];
        if coded.halves > 0 || codec.scales == Scales::None {
            to.copy_from_slice(query);
        }
        match codec.scales {
            Scales::PerChannel { .. } => {
                let mut added = intrinsic!(_mm512_setzero_ps());
                let (scales, zeros) = scales.split_at(dim);
                for at in (0..dim).step_by(LANES) {
                    let (q, s, z) = (&query[at..at + LANES], &scales[at..at + LANES], &zeros[at..at + LANES]);
                    let q = intrinsic!(_mm512_loadu_ps(q.as_ptr()));
                    let half = |of: &[f16]| intrinsic!(_mm512_cvtph_ps(_mm256_loadu_si256(of.as_ptr().cast())));
                    let (s, middle) = (half(s), intrinsic!(_mm512_set1_ps(coded.middle())));
                    let zeros = intrinsic!(_mm512_fmadd_ps(s, middle, half(z)));
                    let scaled = intrinsic!(_mm512_mul_ps(q, s));
                    added = intrinsic!(_mm512_fmadd_ps(q, zeros, added));
                    let to = &mut to[at..at + LANES];
                    intrinsic!(_mm512_storeu_ps(to.as_mut_ptr(), scaled));
                }
                asked.added[index] = intrinsic!(_mm512_reduce_add_ps(added));
            }
            Scales::PerEntry { .. } if coded.step() == 2 => {
                for (group, channels) in query.chunks_exact(coded.group).enumerate() {
                    let mut sum = intrinsic!(_mm512_setzero_ps());
                    for sixteen in channels.as_chunks::<LANES>().0 {
                        sum = intrinsic!(_mm512_add_ps(sum, _mm512_loadu_ps(sixteen.as_ptr())));
                    }
                    asked.zeros[index * HALVES + 2 * group + 1] = intrinsic!(_mm512_reduce_add_ps(sum));
                }
            }
            _ => {}
        }
    }
}

#[inline(always)]
fn scores_of<F: Sixteen>(
    coded: &Coded<'_>,
    queries: &[f32],
    scale: f32,
    scores: &mut [f32],
    step: usize,
    scratch: &mut Scratch,
) {
    let dim = coded.dim;
    let mut query = 0;
    while query < queries.len() / dim {
        let take = match queries.len() / dim - query {
            1 => 1,
            2 | 3 => 2,
            _ => 4,
        };
        ask(coded, &queries[query * dim..(query + take) * dim], scratch);
        let scores = &mut scores[query * step..];
        query += take;
        if coded.integers {
            // SAFETY: the features were detected.
            let done = unsafe {
                match take {
                    1 => keys::scores::<1>(coded, scale, scores, step, scratch),
                    2 => keys::scores::<2>(coded, scale, scores, step, scratch),
                    _ => keys::scores::<4>(coded, scale, scores, step, scratch),
                }
            };
            if done {
                continue;
            }
        }
        // Whether a row is multiplied with one number behind its sum, if with any.
        let whole = coded.halves == 0 || coded.halves == 1;
        match (take, whole) {
            (1, false) => scores_for::<F, 1, 8, false>(coded, scratch, scale, scores, step),
            (2, false) => scores_for::<F, 2, 4, false>(coded, scratch, scale, scores, step),
            (_, false) => scores_for::<F, 4, 2, false>(coded, scratch, scale, scores, step),
            (1, true) => scores_for::<F, 1, 8, true>(coded, scratch, scale, scores, step),
            (2, true) => scores_for::<F, 2, 8, true>(coded, scratch, scale, scores, step),
            (_, true) => scores_for::<F, 4, 4, true>(coded, scratch, scale, scores, step),
        }
    }
}

/// The scores of `Q` queries for all rows, `R` rows at a time, `Q * R` being eight or sixteen; `WHOLE`: rows have one scale at most.
#[inline(always)]
fn scores_for<F: Sixteen, const Q: usize, const R: usize, const WHOLE: bool>(
    coded: &Coded<'_>,
    scratch: &mut Scratch,
    scale: f32,
    scores: &mut [f32],
    step: usize,
) {
    let (row, halves) = (coded.codec.row(coded.dim), coded.halves);
    let table = table(coded);
    for (index, numbers) in coded.numbers.chunks(ROWS * row).enumerate() {
        let (at, rows) = (index * ROWS, ROWS.min(coded.rows - index * ROWS));
        if halves > 0 {
            widen(&coded.scales[at * halves..(at + rows) * halves], &mut scratch.wide, coded.middle());
        }
        let mut done = 0;
        while done < rows {
            let whole = rows - done >= R;
            let block = &numbers[done * row..(done + if whole { R } else { 1 }) * row];
            ask_ahead(coded, at + done, if whole { R } else { 1 });
            if whole {
                let found = block_of::<F, Q, R, WHOLE>(coded, block, scratch, done, table);
                let mut sums = [0.0; 16];
                for (half, sums) in sums.as_chunks_mut::<8>().0.iter_mut().enumerate().take(Q * R / 8) {
                    let of = std::array::from_fn(|i| found[(8 * half + i) / R][(8 * half + i) % R]);
                    let added = std::array::from_fn::<f32, 8, _>(|i| scratch.added[(8 * half + i) / R]);
                    let of = intrinsic!(_mm256_add_ps(sums_of_eight(of), _mm256_loadu_ps(added.as_ptr())));
                    intrinsic!(_mm256_storeu_ps(sums.as_mut_ptr(), _mm256_mul_ps(of, _mm256_set1_ps(scale))));
                }
                for (query, sums) in sums.as_chunks::<R>().0.iter().enumerate().take(Q) {
                    scores[query * step + at + done..][..R].copy_from_slice(sums);
                }
                done += R;
            } else {
                let found = block_of::<F, Q, 1, WHOLE>(coded, block, scratch, done, table);
                for (query, found) in found.iter().enumerate() {
                    let sum = intrinsic!(_mm512_reduce_add_ps(found[0]));
                    scores[query * step + at + done] = scale * (sum + scratch.added[query]);
                }
                done += 1;
            }
        }
    }
}

/// The sums of the lanes of each of eight vectors: every round halves how many lanes one has, and so the vectors.
#[inline(always)]
fn sums_of_eight(of: [__m512; 8]) -> __m256 {
    let halved = |a, b| {
        intrinsic!(_mm512_add_ps(
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
        ))
    };
    let quartered = |a, b| {
        intrinsic!(_mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
        ))
    };
    let four = quartered(halved(of[0], of[1]), halved(of[2], of[3]));
    let others = quartered(halved(of[4], of[5]), halved(of[6], of[7]));
    let pairs = intrinsic!(_mm512_add_ps(
        _mm512_shuffle_ps::<0b01_00_01_00>(four, others),
        _mm512_shuffle_ps::<0b11_10_11_10>(four, others),
    ));
    let sums = intrinsic!(_mm512_add_ps(pairs, _mm512_permute_ps::<0b10_11_00_01>(pairs)));
    let order = intrinsic!(_mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0));
    intrinsic!(_mm512_castps512_ps256(_mm512_permutexvar_ps(order, sums)))
}

/// Vectors whose sums are the products of `Q` queries with `R` rows; their scales and zeros are
/// those of the row `done` of the scratch and behind it.
#[allow(clippy::needless_range_loop)] // Indices into several arrays at once, of lengths that the compiler knows.
#[inline(always)]
fn block_of<F: Sixteen, const Q: usize, const R: usize, const WHOLE: bool>(
    coded: &Coded<'_>,
    block: &[u8],
    scratch: &Scratch,
    done: usize,
    table: __m512,
) -> [[__m512; R]; Q] {
    let (dim, group, halves, step) = (coded.dim, coded.group, coded.halves, coded.step());
    let row = dim / LANES * F::BYTES;
    let wide = &scratch.wide[done * halves..];
    assert!(block.len() == R * row && wide.len() >= R * halves);
    let zero = intrinsic!(_mm512_setzero_ps());
    let mut all = [[zero; R]; Q];
    // Counted by hand: a range in steps divides by them.
    let (mut from, mut scales) = (0, 0);
    while from < dim {
        let mut held = [[zero; R]; Q];
        for at in (from..from + group).step_by(LANES) {
            let mut q = [zero; Q];
            for query in 0..Q {
                q[query] = intrinsic!(_mm512_loadu_ps(scratch.queries.as_ptr().add(query * dim + at)));
            }
            for r in 0..R {
                let x = F::load(intrinsic!(block.as_ptr().add(r * row + at / LANES * F::BYTES)), table);
                for query in 0..Q {
                    held[query][r] = intrinsic!(_mm512_fmadd_ps(x, q[query], held[query][r]));
                }
            }
        }
        if WHOLE {
            for r in 0..if halves > 0 { R } else { 0 } {
                let scale = intrinsic!(_mm512_set1_ps(wide[r]));
                for query in 0..Q {
                    held[query][r] = intrinsic!(_mm512_mul_ps(held[query][r], scale));
                }
            }
            return held;
        }
        for r in 0..R {
            let scale = intrinsic!(_mm512_set1_ps(wide[r * halves + scales]));
            for query in 0..Q {
                all[query][r] = intrinsic!(_mm512_fmadd_ps(held[query][r], scale, all[query][r]));
            }
        }
        (from, scales) = (from + group, scales + step);
    }
    if step == 2 {
        for from in (0..halves).step_by(LANES) {
            let mask = first(halves - from);
            for r in 0..R {
                let pairs = &wide[r * halves + from..];
                let pairs = intrinsic!(_mm512_maskz_loadu_ps(mask, pairs.as_ptr()));
                for query in 0..Q {
                    let zeros = intrinsic!(_mm512_loadu_ps(scratch.zeros.as_ptr().add(query * HALVES + from)));
                    all[query][r] = intrinsic!(_mm512_fmadd_ps(pairs, zeros, all[query][r]));
                }
            }
        }
    }
    all
}

#[inline(always)]
fn sums_of<F: Sixteen>(coded: &Coded<'_>, weights: &[f32], step: usize, sums: &mut [f32], scratch: &mut Scratch) {
    let dim = coded.dim;
    let mut query = 0;
    while query < sums.len() / dim {
        let left = sums.len() / dim - query;
        let (weights, sums) = (&weights[query * step..], &mut sums[query * dim..]);
        query += match left {
            1 => sums_for::<F, 1, 8>(coded, weights, step, sums, scratch),
            2 => sums_for::<F, 2, 8>(coded, weights, step, sums, scratch),
            3 => sums_for::<F, 3, 4>(coded, weights, step, sums, scratch),
            _ => sums_for::<F, 4, 4>(coded, weights, step, sums, scratch),
        };
    }
}

/// Adds all rows to the sums of `Q` queries, `V` vectors of columns at a time. Returns `Q`.
#[inline(always)]
fn sums_for<F: Sixteen, const Q: usize, const V: usize>(
    coded: &Coded<'_>,
    weights: &[f32],
    step: usize,
    sums: &mut [f32],
    scratch: &mut Scratch,
) -> usize {
    let (dim, row, halves) = (coded.dim, coded.codec.row(coded.dim), coded.halves);
    let table = table(coded);
    let Scratch { wide, factors, .. } = scratch;
    let mut added = [[0.0f32; HALVES]; Q];
    // By sixteen channels, which of a row's factors they have.
    let (mut places, mut at, mut place) = ([0; DIM / LANES], 0, 0);
    while halves > 0 && at < dim {
        places[at / LANES..(at + coded.group) / LANES].fill(place);
        (at, place) = (at + coded.group, place + coded.step());
    }
    // A row's factors: of its groups, or its weight alone.
    let width = halves.max(1);
    for (index, numbers) in coded.numbers.chunks(ROWS * row).enumerate() {
        let (at, rows) = (index * ROWS, ROWS.min(coded.rows - index * ROWS));
        ask_ahead(coded, at, rows);
        widen(&coded.scales[at * halves..(at + rows) * halves], wide, coded.middle());
        for query in 0..Q {
            let weights = &weights[query * step + at..][..rows];
            let factors = &mut factors[query];
            if halves == 0 {
                factors[..rows].copy_from_slice(weights);
            } else if halves == 1 {
                let (factors, wide) = (factors[..rows].iter_mut(), &wide[..rows]);
                factors.zip(weights.iter().zip(wide)).for_each(|(to, (weight, scale))| *to = weight * scale);
            } else if halves < 4 {
                for (r, weight) in weights.iter().enumerate() {
                    for half in 0..halves {
                        factors[r * halves + half] = weight * wide[r * halves + half];
                        added[query][half] += factors[r * halves + half];
                    }
                }
            } else {
                for from in (0..halves).step_by(LANES) {
                    let mask = first(halves - from);
                    let sum = &mut added[query][from..];
                    let mut held = intrinsic!(_mm512_maskz_loadu_ps(mask, sum.as_ptr()));
                    for (r, weight) in weights.iter().enumerate() {
                        let (pairs, to) = (&wide[r * halves + from..], &mut factors[r * halves + from..]);
                        let pairs = intrinsic!(_mm512_maskz_loadu_ps(mask, pairs.as_ptr()));
                        let pairs = intrinsic!(_mm512_mul_ps(pairs, _mm512_set1_ps(*weight)));
                        intrinsic!(_mm512_mask_storeu_ps(to.as_mut_ptr(), mask, pairs));
                        held = intrinsic!(_mm512_add_ps(held, pairs));
                    }
                    intrinsic!(_mm512_mask_storeu_ps(sum.as_mut_ptr(), mask, held));
                }
            }
        }
        let mut column = 0;
        while column + V * LANES <= dim {
            columns_of::<F, Q, V>(coded, numbers, rows, column, width, &places, factors, sums, table);
            column += V * LANES;
        }
        while column < dim {
            columns_of::<F, Q, 1>(coded, numbers, rows, column, width, &places, factors, sums, table);
            column += LANES;
        }
    }
    if halves > 0 && coded.step() == 2 {
        for (query, added) in added.iter().enumerate() {
            let sums = sums[query * dim..(query + 1) * dim].as_chunks_mut::<LANES>().0;
            for (sums, place) in sums.iter_mut().zip(places) {
                sums.iter_mut().for_each(|sum| *sum += added[place + 1]);
            }
        }
    }
    Q
}

#[allow(clippy::too_many_arguments)]
#[allow(clippy::needless_range_loop)] // As above.
#[inline(always)]
fn columns_of<F: Sixteen, const Q: usize, const V: usize>(
    coded: &Coded<'_>,
    numbers: &[u8],
    rows: usize,
    column: usize,
    width: usize,
    places: &[usize; DIM / LANES],
    factors: &[[f32; ROWS * HALVES]; QUERIES],
    sums: &mut [f32],
    table: __m512,
) {
    let dim = coded.dim;
    let row = dim / LANES * F::BYTES;
    assert!(numbers.len() == rows * row && sums.len() >= Q * dim && column + V * LANES <= dim);
    let mut held = [[intrinsic!(_mm512_setzero_ps()); V]; Q];
    let mut place = [0; V];
    for v in 0..V {
        place[v] = places[column / LANES + v];
        for query in 0..Q {
            held[query][v] = intrinsic!(_mm512_loadu_ps(sums.as_ptr().add(query * dim + column + v * LANES)));
        }
    }
    assert!(place[V - 1] < width && rows * width <= ROWS * HALVES);
    for r in 0..rows {
        for v in 0..V {
            let x = F::load(intrinsic!(numbers.as_ptr().add(r * row + (column / LANES + v) * F::BYTES)), table);
            for query in 0..Q {
                let factor = intrinsic!(_mm512_set1_ps(*factors[query].as_ptr().add(r * width + place[v])));
                held[query][v] = intrinsic!(_mm512_fmadd_ps(x, factor, held[query][v]));
            }
        }
    }
    for v in 0..V {
        for query in 0..Q {
            intrinsic!(_mm512_storeu_ps(sums.as_mut_ptr().add(query * dim + column + v * LANES), held[query][v]));
        }
    }
}
