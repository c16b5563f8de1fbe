//! Vector code without a build flag: each loop is written once over eight-lane arrays, compiled for several instruction sets,
//! and chosen at run time.
//!
//! The compiler turns the `[f32; 8]` arithmetic into vector instructions; `Level` only decides whether a fused
//! multiply-add and the f16 conversion instruction may be used.

use half::f16;

use crate::element::Element;

const LANES: usize = 8;
type Lanes = [f32; LANES];

/// The instruction sets that a loop is compiled for.
trait Level: Copy {
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
    fn widen(from: &[f16; LANES]) -> Lanes;
    /// The sum of the lanes of each of eight vectors.
    fn sums(of: &[Lanes; 8]) -> Lanes;
}

#[derive(Clone, Copy)]
struct Portable;

impl Level for Portable {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    #[inline(always)]
    fn widen(from: &[f16; LANES]) -> Lanes {
        from.map(f16::to_f32)
    }
    #[inline(always)]
    fn sums(of: &[Lanes; 8]) -> Lanes {
        of.map(sum)
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Level for Avx2 {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    fn widen(from: &[f16; LANES]) -> Lanes {
        use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
        let mut to = [0.0; LANES];
        // SAFETY: this level is only entered after f16c was detected; both arrays hold eight elements.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
        to
    }
    #[inline(always)]
    fn sums(of: &[Lanes; 8]) -> Lanes {
        use std::arch::x86_64::{
            _mm256_add_ps, _mm256_hadd_ps, _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_storeu_ps,
        };
        let mut to = [0.0; LANES];
        // SAFETY: this level is only entered after avx2 was detected; every array holds eight elements.
        unsafe {
            let v = of.map(|lanes| _mm256_loadu_ps(lanes.as_ptr()));
            // Three rounds of pairwise sums transpose while they add.
            let low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
            let high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
            let left = _mm256_permute2f128_ps::<0x20>(low, high);
            let right = _mm256_permute2f128_ps::<0x31>(low, high);
            _mm256_storeu_ps(to.as_mut_ptr(), _mm256_add_ps(left, right));
        }
        to
    }
}

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

/// True when the machine multiplies and adds 8-bit integers in one instruction, which quantised products need to be fast.
pub fn has_dot_product() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Names of the instruction sets in use, for diagnostics.
pub fn features() -> Vec<&'static str> {
    if has_avx2() { vec!["avx2", "fma", "f16c"] } else { Vec::new() }
}

/// Defines a public function that runs `$body` at the best level of this machine.
macro_rules! dispatch {
    ($(#[$doc:meta])* pub fn $name:ident $(<$t:ident : $bound:ident>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[inline]
        #[allow(clippy::too_many_arguments)]
        pub fn $name $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
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

#[inline(always)]
fn load<S: Level, T: Element>(slice: &[T]) -> Lanes {
    if let Some(full) = T::as_f32(slice) {
        full.try_into().expect("eight lanes")
    } else if let Some(half) = T::as_f16(slice) {
        S::widen(half.try_into().expect("eight lanes"))
    } else {
        std::array::from_fn(|lane| slice[lane].widen())
    }
}

#[inline(always)]
fn sum(lanes: Lanes) -> f32 {
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

#[inline(always)]
fn dot_body<S: Level, T: Element>(a: &[f32], b: &[T]) -> f32 {
    let mut wide = [[0.0f32; LANES]; 4];
    let (a_wide, b_wide) = (a.chunks_exact(4 * LANES), b.chunks_exact(4 * LANES));
    let (a_rest, b_rest) = (a_wide.remainder(), b_wide.remainder());
    for (x, y) in a_wide.zip(b_wide) {
        for (part, acc) in wide.iter_mut().enumerate() {
            let y = load::<S, T>(&y[part * LANES..(part + 1) * LANES]);
            for lane in 0..LANES {
                acc[lane] = S::mul_add(x[part * LANES + lane], y[lane], acc[lane]);
            }
        }
    }
    let (a_eight, b_eight) = (a_rest.chunks_exact(LANES), b_rest.chunks_exact(LANES));
    let (a_last, b_last) = (a_eight.remainder(), b_eight.remainder());
    for (x, y) in a_eight.zip(b_eight) {
        let y = load::<S, T>(y);
        for lane in 0..LANES {
            wide[0][lane] = S::mul_add(x[lane], y[lane], wide[0][lane]);
        }
    }
    let mut total = [0.0; LANES];
    for lane in 0..LANES {
        total[lane] = (wide[0][lane] + wide[1][lane]) + (wide[2][lane] + wide[3][lane]);
    }
    let mut rest = 0.0;
    for (x, y) in a_last.iter().zip(b_last) {
        rest = S::mul_add(*x, y.widen(), rest);
    }
    sum(total) + rest
}

/// Eight keys at a time for each query: eight independent sums hide the latency of the multiply-adds, and the keys stay in the
/// first-level cache from query to query.
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
    let whole = dim / LANES * LANES;
    let mut at = 0;
    while at + 8 <= n {
        let block = &keys[at * dim..(at + 8) * dim];
        for (index, query) in queries.chunks_exact(dim).enumerate() {
            let mut sums = [[0.0f32; LANES]; 8];
            let mut column = 0;
            while column < whole {
                let q: Lanes = query[column..column + LANES].try_into().expect("eight lanes");
                for (row, sum) in sums.iter_mut().enumerate() {
                    let k = load::<S, T>(&block[row * dim + column..row * dim + column + LANES]);
                    for lane in 0..LANES {
                        sum[lane] = S::mul_add(q[lane], k[lane], sum[lane]);
                    }
                }
                column += LANES;
            }
            let mut total = S::sums(&sums);
            for (row, total) in total.iter_mut().enumerate() {
                for column in whole..dim {
                    *total = S::mul_add(query[column], block[row * dim + column].widen(), *total);
                }
                *total *= scale;
            }
            scores[index * step + at..index * step + at + 8].copy_from_slice(&total);
        }
        at += 8;
    }
    for row in at..n {
        let key = &keys[row * dim..(row + 1) * dim];
        for (index, query) in queries.chunks_exact(dim).enumerate() {
            scores[index * step + row] = scale * dot_body::<S, T>(query, key);
        }
    }
}

/// Rows of values that stay in the first-level cache while every query of a group uses them.
const VALUE_ROWS: usize = 32;
/// Vectors of a sum that are held in registers.
const SUM_VECTORS: usize = 8;

#[inline(always)]
fn weighted_sums_body<S: Level, T: Element>(weights: &[f32], step: usize, values: &[T], dim: usize, sums: &mut [f32]) {
    let n = values.len() / dim;
    let mut at = 0;
    while at < n {
        let end = n.min(at + VALUE_ROWS);
        for (index, sum) in sums.chunks_exact_mut(dim).enumerate() {
            let weights = &weights[index * step + at..index * step + end];
            let block = &values[at * dim..end * dim];
            let mut column = 0;
            while column + SUM_VECTORS * LANES <= dim {
                add_columns::<S, T, SUM_VECTORS>(weights, block, dim, column, sum);
                column += SUM_VECTORS * LANES;
            }
            while column + LANES <= dim {
                add_columns::<S, T, 1>(weights, block, dim, column, sum);
                column += LANES;
            }
            for (row, weight) in weights.iter().enumerate() {
                for column in column..dim {
                    sum[column] = S::mul_add(*weight, block[row * dim + column].widen(), sum[column]);
                }
            }
        }
        at = end;
    }
}

/// `sum[column ..] += weights[row] * block[row, column ..]` over `V` vectors of columns.
#[inline(always)]
fn add_columns<S: Level, T: Element, const V: usize>(
    weights: &[f32],
    block: &[T],
    dim: usize,
    column: usize,
    sum: &mut [f32],
) {
    let mut held = [[0.0f32; LANES]; V];
    for (vector, held) in held.iter_mut().enumerate() {
        held.copy_from_slice(&sum[column + vector * LANES..column + (vector + 1) * LANES]);
    }
    for (row, weight) in weights.iter().enumerate() {
        let value = &block[row * dim + column..row * dim + column + V * LANES];
        for (vector, held) in held.iter_mut().enumerate() {
            let x = load::<S, T>(&value[vector * LANES..(vector + 1) * LANES]);
            for lane in 0..LANES {
                held[lane] = S::mul_add(*weight, x[lane], held[lane]);
            }
        }
    }
    for (vector, held) in held.iter().enumerate() {
        sum[column + vector * LANES..column + (vector + 1) * LANES].copy_from_slice(held);
    }
}

/// e^x for x <= 0 and moderate positive x; relative error below 2e-7. Cody-Waite reduction and a degree-6 polynomial.
#[inline(always)]
fn exp_one<S: Level>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to the nearest integer
    let x = x.clamp(-87.0, 88.0);
    let shifted = S::mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, so that n * ln 2 is exact enough to subtract
    let r = S::mul_add(n, -0.693_359_4, x);
    let r = S::mul_add(n, 2.121_944_4e-4, r);
    let mut p = 1.0 / 720.0;
    p = S::mul_add(p, r, 1.0 / 120.0);
    p = S::mul_add(p, r, 1.0 / 24.0);
    p = S::mul_add(p, r, 1.0 / 6.0);
    p = S::mul_add(p, r, 0.5);
    p = S::mul_add(p, r, 1.0);
    p = S::mul_add(p, r, 1.0);
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    p * power
}

#[inline(always)]
fn exp_sum_body<S: Level>(scores: &mut [f32], max: f32) -> f32 {
    let mut total = [0.0f32; LANES];
    let mut chunks = scores.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            let e = exp_one::<S>(chunk[lane] - max);
            chunk[lane] = e;
            total[lane] += e;
        }
    }
    let mut rest = 0.0;
    for score in chunks.into_remainder() {
        *score = exp_one::<S>(*score - max);
        rest += *score;
    }
    sum(total) + rest
}

#[inline(always)]
fn max_body<S: Level>(scores: &[f32]) -> f32 {
    let mut top = [f32::NEG_INFINITY; LANES];
    let chunks = scores.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    for chunk in chunks {
        for lane in 0..LANES {
            top[lane] = if chunk[lane] > top[lane] { chunk[lane] } else { top[lane] };
        }
    }
    top.iter().fold(rest, |a, b| a.max(*b))
}

#[inline(always)]
fn scale_body<S: Level>(slice: &mut [f32], factor: f32) {
    for x in slice {
        *x *= factor;
    }
}

#[inline(always)]
fn swiglu_body<S: Level>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp_one::<S>(-gate)) * up;
    }
}

#[inline(always)]
fn quick_gelu_body<S: Level>(slice: &mut [f32]) {
    for x in slice {
        *x /= 1.0 + exp_one::<S>(-1.702 * *x);
    }
}

dispatch! {
    /// `scores[q * step + i] = scale * queries[q] . keys[i]`; `queries` and `keys` have rows of `dim` elements.
    pub fn scores<T: Element>(
        queries: &[f32], dim: usize, keys: &[T], scale: f32, scores: &mut [f32], step: usize,
    ) = scores_body
}
dispatch! {
    /// `sums[q] += weights[q * step + i] * values[i]` over i; `values` and `sums` have rows of `dim` elements.
    pub fn weighted_sums<T: Element>(
        weights: &[f32], step: usize, values: &[T], dim: usize, sums: &mut [f32],
    ) = weighted_sums_body
}
dispatch! {
    /// Replaces each score by `exp(score - max)` and returns their sum.
    pub fn exp_sum(scores: &mut [f32], max: f32) -> f32 = exp_sum_body
}
dispatch! {
    /// The largest element, or negative infinity of none.
    pub fn max(scores: &[f32]) -> f32 = max_body
}
dispatch! {
    /// Multiplies every element by `factor`.
    pub fn scale(slice: &mut [f32], factor: f32) = scale_body
}
dispatch! {
    /// `out = silu(gate) * up`.
    pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) = swiglu_body
}
dispatch! {
    /// `x = x * sigmoid(1.702 x)`, CLIP's activation.
    pub fn quick_gelu(slice: &mut [f32]) = quick_gelu_body
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
