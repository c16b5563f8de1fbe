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

#[inline(always)]
fn scores_body<S: Level, T: Element>(query: &[f32], keys: &[T], scale: f32, scores: &mut [f32]) {
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(query.len())) {
        *score = scale * dot_body::<S, T>(query, key);
    }
}

#[inline(always)]
fn weighted_sum_body<S: Level, T: Element>(weights: &[f32], values: &[T], sum: &mut [f32]) {
    let dim = sum.len();
    let mut row = 0;
    // Four rows at a time: the sum is then read and written once for four reads of the values.
    while row + 4 <= weights.len() {
        let (w0, w1, w2, w3) = (weights[row], weights[row + 1], weights[row + 2], weights[row + 3]);
        let rows = &values[row * dim..(row + 4) * dim];
        let (v0, rows) = rows.split_at(dim);
        let (v1, rows) = rows.split_at(dim);
        let (v2, v3) = rows.split_at(dim);
        let mut at = 0;
        while at + LANES <= dim {
            let (x0, x1) = (load::<S, T>(&v0[at..at + LANES]), load::<S, T>(&v1[at..at + LANES]));
            let (x2, x3) = (load::<S, T>(&v2[at..at + LANES]), load::<S, T>(&v3[at..at + LANES]));
            let sum = &mut sum[at..at + LANES];
            for lane in 0..LANES {
                let low = S::mul_add(w1, x1[lane], S::mul_add(w0, x0[lane], sum[lane]));
                sum[lane] = S::mul_add(w3, x3[lane], S::mul_add(w2, x2[lane], low));
            }
            at += LANES;
        }
        for at in at..dim {
            sum[at] += w0 * v0[at].widen() + w1 * v1[at].widen() + w2 * v2[at].widen() + w3 * v3[at].widen();
        }
        row += 4;
    }
    for row in row..weights.len() {
        let (weight, value) = (weights[row], &values[row * dim..(row + 1) * dim]);
        let mut at = 0;
        while at + LANES <= dim {
            let x = load::<S, T>(&value[at..at + LANES]);
            let sum = &mut sum[at..at + LANES];
            for lane in 0..LANES {
                sum[lane] = S::mul_add(weight, x[lane], sum[lane]);
            }
            at += LANES;
        }
        for at in at..dim {
            sum[at] = S::mul_add(weight, value[at].widen(), sum[at]);
        }
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
    /// The inner product of two vectors of equal length.
    pub fn dot<T: Element>(a: &[f32], b: &[T]) -> f32 = dot_body
}
dispatch! {
    /// `scores[i] = scale * query . keys[i]`; `keys` is `[scores.len(), query.len()]`.
    pub fn scores<T: Element>(query: &[f32], keys: &[T], scale: f32, scores: &mut [f32]) = scores_body
}
dispatch! {
    /// `sum += weights[i] * values[i]` over i; `values` is `[weights.len(), sum.len()]`.
    pub fn weighted_sum<T: Element>(weights: &[f32], values: &[T], sum: &mut [f32]) = weighted_sum_body
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

    #[test]
    fn levels_agree_on_every_length() {
        for len in 0..70 {
            let a: Vec<f32> = (0..len).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect();
            let b: Vec<f32> = (0..len).map(|i| ((i * 104_729 + 7) % 97) as f32 / 48.0 - 1.0).collect();
            let half: Vec<f16> = b.iter().map(|x| f16::from_f32(*x)).collect();
            let exact: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            let exact_half: f64 = a.iter().zip(&half).map(|(x, y)| f64::from(*x) * y.to_f64()).sum();
            for got in [dot(&a, &b), dot_body::<Portable, f32>(&a, &b)] {
                assert!((f64::from(got) - exact).abs() < 1e-5, "length {len}: {got} for {exact}");
            }
            for got in [dot(&a, &half), dot_body::<Portable, f16>(&a, &half)] {
                assert!((f64::from(got) - exact_half).abs() < 1e-5, "f16, length {len}: {got} for {exact_half}");
            }
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }

    #[test]
    fn weighted_sum_matches_plain_loops() {
        for dim in [1, 7, 8, 32, 50, 128] {
            for rows in 0..11 {
                let weights: Vec<f32> = (0..rows).map(|i| (i as f32 + 1.0) / 10.0).collect();
                let values: Vec<f32> = (0..rows * dim).map(|i| ((i * 31) % 17) as f32 - 8.0).collect();
                let half: Vec<f16> = values.iter().map(|x| f16::from_f32(*x)).collect();
                let mut want = vec![0.5; dim];
                for row in 0..rows {
                    for at in 0..dim {
                        want[at] += weights[row] * values[row * dim + at];
                    }
                }
                let (mut full, mut halves) = (vec![0.5; dim], vec![0.5; dim]);
                weighted_sum(&weights, &values, &mut full);
                weighted_sum(&weights, &half, &mut halves);
                for at in 0..dim {
                    assert!((full[at] - want[at]).abs() < 1e-5 && (halves[at] - want[at]).abs() < 1e-5);
                }
            }
        }
    }
}
