//! Vector code without a build flag: each loop is written once over a vector of eight f32, compiled for several instruction
//! sets, and chosen at run time.
//!
//! The instruction sets are the implementations of [`level::Level`]; the loops below know only its operations.

pub(crate) mod level;

use crate::element::Element;
use crate::quant::Level as Quantised;
#[cfg(target_arch = "x86_64")]
use level::Avx2;
use level::{LANES, Level, Portable};

/// True when the AVX2 versions are used.
pub fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Names of the instruction sets in use, for diagnostics.
pub fn features() -> Vec<&'static str> {
    let mut features = if has_avx2() { vec!["avx2", "fma", "f16c"] } else { Vec::new() };
    features.extend(Quantised::best().dot_product());
    features
}

/// Defines a public function that runs `$body` at the best level of this machine.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$t:ident : $bound:ident>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[inline]
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn fast $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body::<Avx2 $(, $t)?>($($arg),*)
                }
                if has_avx2() {
                    // SAFETY: the required features were just detected.
                    return unsafe { fast($($arg),*) };
                }
            }
            $body::<Portable $(, $t)?>($($arg),*)
        }
    };
}

// Behind the macro that they use.
mod coded;
mod codes;
mod entries;
mod floats;
mod products;
mod rows;
#[cfg(target_arch = "x86_64")]
mod wide;

pub use coded::{Coded, Scratch};
pub use codes::{decode_channels, decode_entries, decode_levels, encode_codes, encode_levels, sum_of_squares};
pub use entries::{scores, weighted_sums};
pub(crate) use floats::float8;
pub use floats::{decode_floats, encode_floats};
pub use products::products;
pub use rows::{add_rows, hadamard, norms, rotate_rows};

/// Eight elements as f32.
#[inline(always)]
fn load<S: Level, T: Element>(slice: &[T]) -> S::Vector {
    if let Some(full) = T::as_f32(slice) {
        S::load(full)
    } else if let Some(half) = T::as_f16(slice) {
        S::load_half(half)
    } else {
        S::load(&std::array::from_fn::<f32, LANES, _>(|lane| slice[lane].widen()))
    }
}

/// Bytes ahead of the entries at work that are asked for. The entries are read at the pace of memory; the hardware looks ahead
/// too, but stops at the end of a page and while the registers are busy with what is there.
const AHEAD: usize = 4096;

/// Asks for what lies [`AHEAD`] of `block`.
#[inline(always)]
fn ask_ahead<S: Level, T>(block: &[T]) {
    const LINE: usize = 64;
    for at in (0..size_of_val(block)).step_by(LINE) {
        // Never read through, so it may lie behind the end.
        S::prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD + at));
    }
}

/// Asks for the beginning of what will be read soon.
pub fn ask(bytes: &[u8]) {
    const LINE: usize = 64;
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        for at in (0..bytes.len().min(AHEAD)).step_by(LINE) {
            Avx2::prefetch(bytes.as_ptr().wrapping_add(at));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, LINE);
}

/// Eight keys at a time, for up to four queries at once: each vector of a key is loaded once for them, and the independent sums
/// hide the latency of the multiply-adds. The keys stay in the first-level cache for the other queries.
#[inline(always)]
fn scores_body<S: Level, T: Element>(
    queries: &[f32],
    dim: usize,
    keys: &[T],
    scale: f32,
    scores: &mut [f32],
    step: usize,
) {
    let n = keys.len() / dim;
    let group = queries.len() / dim;
    let mut at = 0;
    while at + LANES <= n {
        let block = &keys[at * dim..(at + LANES) * dim];
        let mut query = 0;
        while query < group {
            let queries = &queries[query * dim..];
            let scores = &mut scores[query * step + at..];
            query += match group - query {
                1 => score_block::<S, T, 1, 8>(queries, dim, block, scale, scores, step, query == 0),
                2 => score_block::<S, T, 2, 4>(queries, dim, block, scale, scores, step, query == 0),
                3 => score_block::<S, T, 3, 4>(queries, dim, block, scale, scores, step, query == 0),
                _ => score_block::<S, T, 4, 2>(queries, dim, block, scale, scores, step, query == 0),
            };
        }
        at += LANES;
    }
    for row in at..n {
        let key = &keys[row * dim..(row + 1) * dim];
        for (index, query) in queries.chunks_exact(dim).enumerate() {
            scores[index * step + row] = scale * dot::<S, T>(query, key);
        }
    }
}

/// The scores of `Q` queries for eight keys, of which `K` are in registers at a time. Returns `Q`.
#[inline(always)]
fn score_block<S: Level, T: Element, const Q: usize, const K: usize>(
    queries: &[f32],
    dim: usize,
    block: &[T],
    scale: f32,
    scores: &mut [f32],
    step: usize,
    ask: bool,
) -> usize {
    let whole = dim / LANES * LANES;
    let mut sums = [[S::splat(0.0); LANES]; Q];
    for first in (0..LANES).step_by(K) {
        if ask {
            ask_ahead::<S, T>(&block[first * dim..(first + K) * dim]);
        }
        let mut held = [[S::splat(0.0); K]; Q];
        let mut column = 0;
        while column < whole {
            let q: [S::Vector; Q] =
                std::array::from_fn(|q| S::load(&queries[q * dim + column..q * dim + column + LANES]));
            for row in 0..K {
                let start = (first + row) * dim + column;
                let k = load::<S, T>(&block[start..start + LANES]);
                for (q, held) in q.iter().zip(&mut held) {
                    held[row] = S::mul_add(*q, k, held[row]);
                }
            }
            column += LANES;
        }
        for (sums, held) in sums.iter_mut().zip(&held) {
            sums[first..first + K].copy_from_slice(held);
        }
    }
    for (index, sums) in sums.iter().enumerate() {
        let scores = &mut scores[index * step..index * step + LANES];
        S::store(S::sums(sums), scores);
        for (row, score) in scores.iter_mut().enumerate() {
            for column in whole..dim {
                *score += queries[index * dim + column] * block[row * dim + column].widen();
            }
            *score *= scale;
        }
    }
    Q
}

#[inline(always)]
fn dot<S: Level, T: Element>(a: &[f32], b: &[T]) -> f32 {
    let mut sum = S::splat(0.0);
    let (a_eight, b_eight) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_eight.remainder().iter().zip(b_eight.remainder()).map(|(x, y)| x * y.widen()).sum();
    for (x, y) in a_eight.zip(b_eight) {
        sum = S::mul_add(S::load(x), load::<S, T>(y), sum);
    }
    S::sum(sum) + rest
}

/// Rows of values that stay in the first-level cache while every query of a group uses them.
const VALUE_ROWS: usize = 16;

#[inline(always)]
fn weighted_sums_body<S: Level, T: Element>(weights: &[f32], step: usize, values: &[T], dim: usize, sums: &mut [f32]) {
    let n = values.len() / dim;
    let group = sums.len() / dim;
    let mut at = 0;
    while at < n {
        let end = n.min(at + VALUE_ROWS);
        let block = &values[at * dim..end * dim];
        ask_ahead::<S, T>(block);
        let mut query = 0;
        while query < group {
            let weights = &weights[query * step + at..];
            let sums = &mut sums[query * dim..];
            query += match group - query {
                1 => add_block::<S, T, 1, 8>(weights, step, block, dim, sums),
                2 => add_block::<S, T, 2, 4>(weights, step, block, dim, sums),
                3 => add_block::<S, T, 3, 4>(weights, step, block, dim, sums),
                _ => add_block::<S, T, 4, 2>(weights, step, block, dim, sums),
            };
        }
        at = end;
    }
}

/// Adds a block of rows to the sums of `Q` queries, `V` vectors of columns at a time. Returns `Q`.
#[inline(always)]
fn add_block<S: Level, T: Element, const Q: usize, const V: usize>(
    weights: &[f32],
    step: usize,
    block: &[T],
    dim: usize,
    sums: &mut [f32],
) -> usize {
    let rows = block.len() / dim;
    // Of one length that the compiler sees, so that the loop over rows checks no bounds.
    let weights: [&[f32]; Q] = std::array::from_fn(|q| &weights[q * step..q * step + rows]);
    let mut column = 0;
    while column + V * LANES <= dim {
        add_columns::<S, T, Q, V>(&weights, block, dim, column, sums);
        column += V * LANES;
    }
    while column + LANES <= dim {
        add_columns::<S, T, Q, 1>(&weights, block, dim, column, sums);
        column += LANES;
    }
    for (q, weights) in weights.iter().enumerate() {
        for (row, weight) in weights.iter().enumerate() {
            for column in column..dim {
                sums[q * dim + column] += weight * block[row * dim + column].widen();
            }
        }
    }
    Q
}

/// `sums[q, column ..] += weights[q][row] * block[row, column ..]` over `V` vectors of columns.
#[inline(always)]
fn add_columns<S: Level, T: Element, const Q: usize, const V: usize>(
    weights: &[&[f32]; Q],
    block: &[T],
    dim: usize,
    column: usize,
    sums: &mut [f32],
) {
    let mut held = [[S::splat(0.0); V]; Q];
    for (q, held) in held.iter_mut().enumerate() {
        for (vector, held) in held.iter_mut().enumerate() {
            *held = S::load(&sums[q * dim + column + vector * LANES..]);
        }
    }
    for (row, value) in block.chunks_exact(dim).enumerate() {
        let value = &value[column..column + V * LANES];
        let weight: [S::Vector; Q] = std::array::from_fn(|q| S::splat(weights[q][row]));
        for vector in 0..V {
            let value = load::<S, T>(&value[vector * LANES..(vector + 1) * LANES]);
            for (weight, held) in weight.iter().zip(&mut held) {
                held[vector] = S::mul_add(*weight, value, held[vector]);
            }
        }
    }
    for (q, held) in held.iter().enumerate() {
        for (vector, held) in held.iter().enumerate() {
            S::store(*held, &mut sums[q * dim + column + vector * LANES..]);
        }
    }
}

/// e^x for x <= 0 and moderate positive x; relative error below 2.5e-7. Cody-Waite reduction and a degree-6 polynomial.
#[inline(always)]
fn exp<S: Level>(x: S::Vector) -> S::Vector {
    let x = S::min(S::max(x, S::splat(-87.0)), S::splat(88.0));
    let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, so that n * ln 2 is exact enough to subtract
    let r = S::mul_add(n, S::splat(-0.693_359_4), x);
    let r = S::mul_add(n, S::splat(2.121_944_4e-4), r);
    let mut p = S::splat(1.0 / 720.0);
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = S::mul_add(p, r, S::splat(factor));
    }
    S::times_power_of_two(p, n)
}

/// e^x - 1 without a loss of digits near 0; as [`exp`] otherwise.
#[inline(always)]
fn exp_m1<S: Level>(x: S::Vector) -> S::Vector {
    let x = S::min(S::max(x, S::splat(-87.0)), S::splat(87.0));
    let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    let r = S::mul_add(n, S::splat(-0.693_359_4), x);
    let r = S::mul_add(n, S::splat(2.121_944_4e-4), r);
    let mut p = S::splat(1.0 / 5040.0);
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0] {
        p = S::mul_add(p, r, S::splat(factor));
    }
    // 2^n (1 + p r) - 1
    let power = S::times_power_of_two(S::splat(1.0), n);
    S::add(S::mul(power, S::mul(p, r)), S::sub(power, S::splat(1.0)))
}

/// The hyperbolic tangent; relative error below 1e-6.
#[inline(always)]
fn tanh<S: Level>(x: S::Vector) -> S::Vector {
    // Beyond 20 it is 1 in f32.
    let x = S::min(S::max(x, S::splat(-20.0)), S::splat(20.0));
    let e = exp_m1::<S>(S::add(x, x));
    S::div(e, S::add(e, S::splat(2.0)))
}

/// Replaces all elements of a slice, eight at a time; the last ones are padded with zeros. A macro, because a closure would be
/// compiled without the instruction set of the function around it.
macro_rules! in_place {
    ($level:ident, $slice:expr, $x:ident => $value:expr) => {{
        let mut chunks = $slice.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            let $x = $level::load(chunk);
            $level::store($value, chunk);
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let mut padded = [0.0; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            let $x = $level::load(&padded);
            $level::store($value, &mut padded);
            rest.copy_from_slice(&padded[..rest.len()]);
        }
    }};
}

#[inline(always)]
fn exp_sum_body<S: Level>(scores: &mut [f32], max: f32) -> f32 {
    let max = S::splat(max);
    let mut total = S::splat(0.0);
    let whole = scores.len() / LANES * LANES;
    let (eights, rest) = scores.split_at_mut(whole);
    for chunk in eights.chunks_exact_mut(LANES) {
        let e = exp::<S>(S::sub(S::load(chunk), max));
        total = S::add(total, e);
        S::store(e, chunk);
    }
    in_place!(S, rest, x => exp::<S>(S::sub(x, max)));
    S::sum(total) + rest.iter().sum::<f32>()
}

#[inline(always)]
fn softcap_body<S: Level>(scores: &mut [f32], cap: f32) {
    let (wide, narrow) = (S::splat(cap), S::splat(1.0 / cap));
    in_place!(S, scores, x => S::mul(wide, tanh::<S>(S::mul(x, narrow))));
}

#[inline(always)]
fn max_body<S: Level>(scores: &[f32]) -> f32 {
    let chunks = scores.chunks_exact(LANES);
    let mut largest = f32::NEG_INFINITY;
    for score in chunks.remainder() {
        largest = largest.max(*score);
    }
    let mut top = S::splat(f32::NEG_INFINITY);
    for chunk in chunks {
        top = S::max(top, S::load(chunk));
    }
    let mut lanes = [0.0; LANES];
    S::store(top, &mut lanes);
    for lane in lanes {
        largest = largest.max(lane);
    }
    largest
}

#[inline(always)]
fn swiglu_body<S: Level>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let one = S::splat(1.0);
    out.copy_from_slice(gate);
    in_place!(S, out, gate => S::div(gate, S::add(one, exp::<S>(S::sub(S::splat(0.0), gate)))));
    for (out, up) in out.iter_mut().zip(up) {
        *out *= up;
    }
}

#[inline(always)]
fn geglu_body<S: Level>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let one = S::splat(1.0);
    out.copy_from_slice(gate);
    // (1 + tanh(u)) / 2 is sigmoid(2 u), and u is sqrt(2 / pi) (x + 0.044715 x^3).
    in_place!(S, out, gate => {
        let slope = S::mul_add(S::mul(gate, gate), S::splat(0.044_715), one);
        let u = S::mul(S::mul(gate, S::splat(-1.595_769)), slope);
        S::div(gate, S::add(one, exp::<S>(u)))
    });
    for (out, up) in out.iter_mut().zip(up) {
        *out *= up;
    }
}

#[inline(always)]
fn quick_gelu_body<S: Level>(slice: &mut [f32]) {
    let one = S::splat(1.0);
    in_place!(S, slice, x => S::div(x, S::add(one, exp::<S>(S::mul(S::splat(-1.702), x)))));
}

dispatch! {
    /// Replaces each score by `exp(score - max)` and returns their sum.
    pub fn exp_sum(scores: &mut [f32], max: f32) -> f32 = exp_sum_body
}
dispatch! {
    /// Replaces each score `s` by `cap * tanh(s / cap)`.
    pub fn softcap(scores: &mut [f32], cap: f32) = softcap_body
}
dispatch! {
    /// The largest element, or negative infinity of none.
    pub fn max(scores: &[f32]) -> f32 = max_body
}
dispatch! {
    /// `out = silu(gate) * up`.
    pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) = swiglu_body
}
dispatch! {
    /// `out = gelu(gate) * up`, GELU by its approximation by tanh.
    pub fn geglu(gate: &[f32], up: &[f32], out: &mut [f32]) = geglu_body
}
dispatch! {
    /// `x = x * sigmoid(1.702 x)`, CLIP's activation.
    pub fn quick_gelu(slice: &mut [f32]) = quick_gelu_body
}

/// Replaces each score by `exp(score - max)`, those at `dead` by 0, and returns the largest of the others and the sum; negative
/// infinity and 0 when all are dead.
pub fn softmax(scores: &mut [f32], dead: &[usize]) -> (f32, f32) {
    for &at in dead {
        scores[at] = f32::NEG_INFINITY;
    }
    let max = max(scores);
    if max == f32::NEG_INFINITY {
        scores.fill(0.0);
        return (max, 0.0);
    }
    // The exponential stops at e^-87, which is too little to change the sum but would not be nothing.
    let total = exp_sum(scores, max);
    for &at in dead {
        scores[at] = 0.0;
    }
    (max, total)
}

/// Widens `from` to f32.
pub fn widen<T: Element>(from: &[T], to: &mut [f32]) {
    if let Some(full) = T::as_f32(from) {
        to.copy_from_slice(full);
    } else if let Some(half) = T::as_f16(from) {
        half::slice::HalfFloatSliceExt::convert_to_f32_slice(half, to);
    } else {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.widen();
        }
    }
}

/// Narrows `from` to the storage format, rounding to nearest even.
pub fn narrow<T: Element>(from: &[f32], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::narrow(*from);
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn exp_is_accurate_over_the_range_of_softmax() {
        let mut worst = 0.0f64;
        for step in 0..=200_000 {
            let x = -87.0 + 90.0 * (step as f32) / 200_000.0;
            let mut got = [x];
            exp_sum(&mut got, 0.0);
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(got[0]) - want).abs() / want);
        }
        assert!(worst < 2.5e-7, "relative error {worst:e}");
    }

    #[test]
    fn a_soft_cap_is_accurate_near_nothing_and_far_out() {
        for cap in [0.5f32, 30.0, 50.0] {
            let mut scores: Vec<f32> =
                (-126..12).flat_map(|power| [1.0f32, -1.3, 1.9].map(|x| x * 2f32.powi(power))).collect();
            let before = scores.clone();
            softcap(&mut scores, cap);
            for (got, from) in scores.iter().zip(before) {
                let want = f64::from(cap) * (f64::from(from) / f64::from(cap)).tanh();
                assert!((f64::from(*got) - want).abs() <= 1e-6 * want.abs() + 1e-38, "{from} capped at {cap}: {got}");
            }
        }
    }

    fn noise(n: usize, modulus: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 104_729 + 7) % modulus) as f32 / (modulus as f32 / 2.0) - 1.0).collect()
    }

    fn halves(v: &[f32]) -> Vec<f16> {
        v.iter().map(|x| f16::from_f32(*x)).collect()
    }

    /// One query count, entry count and width, at both levels and both formats, against plain loops in f64.
    fn check(group: usize, n: usize, dim: usize) {
        let (step, scale) = (n + 3, 0.37f32);
        let (queries, keys, weights) = (noise(group * dim, 101), noise(n * dim, 97), noise(group * step, 89));
        let half = halves(&keys);
        for rounded in [false, true] {
            let rows: Vec<f64> = if rounded {
                half.iter().map(|x| x.to_f64()).collect()
            } else {
                keys.iter().map(|x| f64::from(*x)).collect()
            };
            for portable in [false, true] {
                let mut got = vec![0.0; group * step];
                let mut sums = vec![0.25; group * dim];
                match (rounded, portable) {
                    (false, false) => {
                        scores(&queries, dim, &keys, scale, &mut got, step);
                        weighted_sums(&weights, step, &keys, dim, &mut sums);
                    }
                    (true, false) => {
                        scores(&queries, dim, &half, scale, &mut got, step);
                        weighted_sums(&weights, step, &half, dim, &mut sums);
                    }
                    (false, true) => {
                        scores_body::<Portable, f32>(&queries, dim, &keys, scale, &mut got, step);
                        weighted_sums_body::<Portable, f32>(&weights, step, &keys, dim, &mut sums);
                    }
                    (true, true) => {
                        scores_body::<Portable, f16>(&queries, dim, &half, scale, &mut got, step);
                        weighted_sums_body::<Portable, f16>(&weights, step, &half, dim, &mut sums);
                    }
                }
                for q in 0..group {
                    for i in 0..n {
                        let exact: f64 = (0..dim).map(|j| f64::from(queries[q * dim + j]) * rows[i * dim + j]).sum();
                        let got = f64::from(got[q * step + i]);
                        assert!((got - f64::from(scale) * exact).abs() < 1e-5, "score {q},{i} of {group}x{n}x{dim}");
                    }
                    for j in 0..dim {
                        let exact: f64 = (0..n).map(|i| f64::from(weights[q * step + i]) * rows[i * dim + j]).sum();
                        let got = f64::from(sums[q * dim + j]);
                        assert!((got - 0.25 - exact).abs() < 5e-5, "sum {q},{j} of {group}x{n}x{dim}");
                    }
                }
            }
        }
    }

    #[test]
    fn scores_and_sums_match_plain_loops() {
        for dim in [1, 7, 8, 12, 32, 50, 64, 80, 128, 200] {
            for n in [0, 1, 7, 8, 9, 31, 32, 33, 70] {
                for group in [1, 2, 5] {
                    check(group, n, dim);
                }
            }
        }
    }

    #[test]
    fn the_largest_is_found_at_every_length() {
        for len in 0..40 {
            let a = noise(len, 101);
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
