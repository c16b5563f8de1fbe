//! The product of a pair, added to the weights that it changes.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;

/// Most numbers of the change that are in memory at a time: 16 MiB.
const TOGETHER: usize = 4 << 20;

/// `weights + scale * b a`, all in f32: `weights` has as many rows as `b`, `[rows, rank]`, and as many columns as `a`, `[rank, columns]`.
pub(super) fn add(weights: &mut [f32], a: &Tensor, b: &Tensor, scale: f32) -> Result<()> {
    let columns = a.dim(1)?;
    let most = (TOGETHER / columns.max(1)).max(1);
    let mut first = 0;
    for part in weights.chunks_mut((most * columns).max(1)) {
        let rows = part.len() / columns;
        let change: Vec<f32> = b.narrow(0, first, rows)?.contiguous()?.matmul(a)?.flatten_all()?.to_vec1()?;
        part.par_iter_mut().zip(&change).with_min_len(1 << 14).for_each(|(weight, change)| *weight += scale * change);
        first += rows;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Numbers without a pattern, in -1 .. 1.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn every_row_gets_its_change() {
        // The last two take several parts.
        for (rows, rank, columns) in [(1, 1, 1), (7, 3, 5), (600, 8, 640), (1300, 16, 4096), (2, 5, (4 << 20) + 3)] {
            let (a, b) = (numbers(rank * columns, 1), numbers(rows * rank, 2));
            let before = numbers(rows * columns, 3);
            let mut after = before.clone();
            let tensor =
                |data: &[f32], shape: (usize, usize)| Tensor::from_slice(data, shape, &Device::Cpu).expect("a tensor");
            add(&mut after, &tensor(&a, (rank, columns)), &tensor(&b, (rows, rank)), 0.75).expect("added");
            for at in (0..rows * columns).step_by(if columns > 4096 { 7919 } else { 1 }) {
                let (row, column) = (at / columns, at % columns);
                let product = |k: usize| f64::from(b[row * rank + k]) * f64::from(a[k * columns + column]);
                let want = f64::from(before[at]) + 0.75 * (0..rank).map(product).sum::<f64>();
                assert!(
                    (f64::from(after[at]) - want).abs() < 1e-5,
                    "{rows} x {columns}, {row}, {column}: {}, {want}",
                    after[at]
                );
            }
        }
    }
}
