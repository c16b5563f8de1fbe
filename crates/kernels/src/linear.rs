//! The matrix-vector products of a decode step, for dense weights.
//!
//! One row of activations against `[rows, columns]` weights reads every weight once: rows * columns * element bytes, so memory
//! bandwidth is the floor. A general matrix product pays a fixed price per call (tens of microseconds with `gemm` 0.19) that a
//! small layer does not take in total.
//!
//! n rows read every weight once too, and take 2 * n FLOPs of it: eight f32 weights are 32 bytes and n vector multiply-adds, and
//! a core that makes two of these and gets 4 to 5 bytes in a cycle is bound by memory up to n = 14, with f16 up to n = 7. Till
//! then n rows should cost as much as one.

use rayon::prelude::*;

use crate::element::Element;
use crate::shared::Disjoint;
use crate::simd;

/// Weights per task of one row of activations: below one task's worth a single thread is faster.
const TASK: usize = 96 * 1024;

/// `out[i] = x . weight[i]`; `weight` is `[out.len(), x.len()]`.
pub fn matvec<T: Element>(x: &[f32], weight: &[T], out: &mut [f32]) {
    matvecs(x, x.len(), weight, out);
}

/// `out[i, r] = x[i] . weight[r]`: rows of `columns` elements against `weight`, `[rows, columns]`; `out` is `[n, rows]`. How
/// many rows there are and which place one has among them makes no difference to its bits.
pub fn matvecs<T: Element>(x: &[f32], columns: usize, weight: &[T], out: &mut [f32]) {
    let (n, rows) = (x.len() / columns, weight.len() / columns);
    assert_eq!((x.len(), weight.len(), out.len()), (n * columns, rows * columns, n * rows));
    // Whole blocks of eight rows, which is what the inner loop takes at a time.
    let step = (TASK / columns / n.clamp(1, 4)).max(1).next_multiple_of(8);
    if rows <= step {
        return simd::products(x, columns, weight, out, rows);
    }
    let all = Disjoint::new(out);
    weight.par_chunks(step * columns).enumerate().for_each(|(index, weight)| {
        let len = weight.len() / columns;
        let mut some = vec![0.0; n * len];
        simd::products(x, columns, weight, &mut some, len);
        for (row, some) in some.chunks_exact(len).enumerate() {
            // SAFETY: each task has rows of weights of its own, and so places of its own in every row of the output.
            unsafe { all.part(row * rows + index * step, len) }.copy_from_slice(some);
        }
    });
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

    fn check_rows<T: Element>(n: usize, rows: usize, columns: usize) {
        let x: Vec<f32> = (0..n * columns).map(|i| ((i * 37 % 101) as f32 - 50.0) / 37.0).collect();
        let weight: Vec<T> = (0..rows * columns).map(|i| T::narrow(((i * 53 % 97) as f32 - 48.0) / 61.0)).collect();
        let (mut together, mut alone) = (vec![f32::NAN; n * rows], vec![f32::NAN; rows]);
        matvecs(&x, columns, &weight, &mut together);
        for (x, together) in x.chunks_exact(columns).zip(together.chunks_exact(rows)) {
            matvec(x, &weight, &mut alone);
            assert!(together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()), "{n} of {rows}x{columns}");
        }
    }

    #[test]
    fn rows_together_get_the_bits_of_each_alone() {
        for (n, rows, columns) in [(1, 3, 5), (2, 9, 1), (3, 1001, 200), (5, 2051, 72), (16, 517, 577), (33, 100, 1031)]
        {
            check_rows::<f32>(n, rows, columns);
            check_rows::<f16>(n, rows, columns);
        }
    }
}
