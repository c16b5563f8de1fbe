//! Element-wise activations over rows, in parallel where the rows are long enough to pay for it.

use rayon::prelude::*;

use crate::simd;

/// Below this many elements a parallel loop costs more than it saves.
const PARALLEL_FROM: usize = 32 * 1024;

/// SwiGLU of a fused projection: `rows` is `[n, 2 * width]` with gate and up side by side; the result is `[n, width]`.
pub fn swiglu(rows: &[f32], width: usize, out: &mut [f32]) {
    assert_eq!(rows.len(), 2 * out.len());
    let one = |(row, out): (&[f32], &mut [f32])| simd::swiglu(&row[..width], &row[width..], out);
    if rows.len() < PARALLEL_FROM {
        rows.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)).for_each(one);
    } else {
        rows.par_chunks_exact(2 * width).zip(out.par_chunks_exact_mut(width)).for_each(one);
    }
}

/// `x * sigmoid(1.702 x)` in place.
pub fn quick_gelu(slice: &mut [f32]) {
    if slice.len() < PARALLEL_FROM {
        simd::quick_gelu(slice);
    } else {
        slice.par_chunks_mut(PARALLEL_FROM / 4).for_each(simd::quick_gelu);
    }
}
