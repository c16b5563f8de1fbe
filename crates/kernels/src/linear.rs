//! The matrix-vector product of a decode step, for dense weights.
//!
//! One row of activations against `[rows, columns]` weights reads every weight once: rows * columns * element bytes, so memory
//! bandwidth is the floor. A general matrix product pays a fixed price per call (tens of microseconds with `gemm` 0.19) that a
//! small layer does not take in total.

use rayon::prelude::*;

use crate::element::Element;
use crate::simd;

/// Weights per task: below one task's worth a single thread is faster.
const TASK: usize = 96 * 1024;

/// `out[i] = x . weight[i]`; `weight` is `[out.len(), x.len()]`.
pub fn matvec<T: Element>(x: &[f32], weight: &[T], out: &mut [f32]) {
    let columns = x.len();
    assert_eq!(weight.len(), columns * out.len());
    // Whole blocks of eight rows, which is what the inner loop takes at a time.
    let rows = (TASK / columns.max(1)).next_multiple_of(8);
    let one = |(weight, out): (&[T], &mut [f32])| {
        let n = out.len();
        simd::scores(x, columns, weight, 1.0, out, n);
    };
    if out.len() <= rows {
        one((weight, out));
    } else {
        weight.par_chunks(rows * columns).zip(out.par_chunks_mut(rows)).for_each(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn products_match_plain_loops() {
        for (rows, columns) in [(1, 1), (7, 5), (8, 64), (1000, 33), (3001, 200)] {
            let x: Vec<f32> = (0..columns).map(|i| ((i * 37 % 19) as f32 - 9.0) / 10.0).collect();
            let weight: Vec<f32> = (0..rows * columns).map(|i| ((i * 53 % 23) as f32 - 11.0) / 16.0).collect();
            let half: Vec<f16> = weight.iter().map(|w| f16::from_f32(*w)).collect();
            let (mut full, mut halves) = (vec![0.0; rows], vec![0.0; rows]);
            matvec(&x, &weight, &mut full);
            matvec(&x, &half, &mut halves);
            for row in 0..rows {
                // Sixteenths are exact in f16, so both formats must give the same.
                let want: f64 = (0..columns).map(|i| f64::from(x[i]) * f64::from(weight[row * columns + i])).sum();
                assert!((f64::from(full[row]) - want).abs() < 1e-4, "{rows}x{columns}");
                assert!((f64::from(halves[row]) - want).abs() < 1e-4, "{rows}x{columns} in f16");
            }
        }
    }
}
