//! Element-wise activations over rows, in parallel where the rows are long enough to pay for it.

use rayon::prelude::*;

use crate::simd;

/// Below this many elements a parallel loop costs more than it saves.
const PARALLEL_FROM: usize = 32 * 1024;

/// The function of a gated linear unit. Shazeer 2020, arXiv 2002.05202.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// SwiGLU: `x * sigmoid(x)`.
    Silu,
    /// GEGLU with the approximation of GELU by tanh.
    GeluTanh,
}

/// The gated linear unit of a fused projection: `rows` is `[n, 2 * width]` with gate and up side by side; the result is `[n, width]`,
/// the function of the gate times up.
pub fn glu(rows: &[f32], width: usize, gate: Gate, out: &mut [f32]) {
    assert_eq!(rows.len(), 2 * out.len());
    let body = match gate {
        Gate::Silu => simd::swiglu,
        Gate::GeluTanh => simd::geglu,
    };
    let one = |(row, out): (&[f32], &mut [f32])| body(&row[..width], &row[width..], out);
    if rows.len() < PARALLEL_FROM {
        rows.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)).for_each(one);
    } else {
        rows.par_chunks_exact(2 * width).zip(out.par_chunks_exact_mut(width)).for_each(one);
    }
}

/// `x * sigmoid(1.702 x)` in place.
pub fn quick_gelu(slice: &mut [f32]) {
    in_parts(slice, simd::quick_gelu);
}

/// `cap * tanh(x / cap)` in place.
pub fn cap(slice: &mut [f32], cap: f32) {
    in_parts(slice, |part| simd::softcap(part, cap));
}

/// `factor * x` in place.
pub fn scale(slice: &mut [f32], factor: f32) {
    in_parts(slice, |part| part.iter_mut().for_each(|x| *x *= factor));
}

fn in_parts(slice: &mut [f32], one: impl Fn(&mut [f32]) + Send + Sync) {
    if slice.len() < PARALLEL_FROM {
        one(slice);
    } else {
        slice.par_chunks_mut(PARALLEL_FROM / 4).for_each(one);
    }
}
