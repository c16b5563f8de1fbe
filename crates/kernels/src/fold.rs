//! The Walsh-Hadamard transform of values as a part of the weights before and behind attention.
//!
//! With `H` the orthonormal transform of a head, values `v = W x + b` become `H v = (H W) x + H b`. Attention sums them with weights that
//! it takes from queries and keys alone, so that each query head has `H o` in place of `o`, and the projection behind it takes them back:
//! `P o = (P H) (H o)`, since `H` is its own inverse. The model computes the same as before, and only its cache holds other numbers.

use rayon::prelude::*;

/// Where the channels of heads lie in a matrix of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// So many rows after one another are a head: the weights, or the bias, that values come from.
    Rows(usize),
    /// So many columns after one another are a head: the weights that outputs go through.
    Columns(usize),
}

impl Fold {
    /// The channels of a head.
    pub const fn dim(self) -> usize {
        match self {
            Fold::Rows(dim) | Fold::Columns(dim) => dim,
        }
    }

    /// Folds the transform into `weights`, `[rows, columns]`, in f64. Heads are powers of two. A second time takes it out again.
    pub fn apply(self, weights: &mut [f32], columns: usize) {
        let (block, width) = self.blocks(columns);
        weights.par_chunks_exact_mut(block).for_each(|block| {
            let mut wide: Vec<f64> = block.iter().map(|x| f64::from(*x)).collect();
            transform(&mut wide, self.dim(), width);
            block.iter_mut().zip(wide).for_each(|(x, wide)| *x = wide as f32);
        });
    }

    /// The numbers of a head that lie together, and how many each of its channels has.
    fn blocks(self, columns: usize) -> (usize, usize) {
        match self {
            Fold::Rows(dim) => (dim * columns, columns),
            Fold::Columns(dim) => (dim, 1),
        }
    }
}

/// Transforms `dim` rows of `width` numbers, each column by itself.
fn transform(rows: &mut [f64], dim: usize, width: usize) {
    let mut apart = 1;
    while apart < dim {
        for pair in rows.chunks_exact_mut(2 * apart * width) {
            let (low, high) = pair.split_at_mut(apart * width);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        apart *= 2;
    }
    let whole = 1.0 / (dim as f64).sqrt();
    rows.iter_mut().for_each(|x| *x *= whole);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Transform;
    use crate::reference::codec::hadamard;

    fn noise(seed: u64, n: usize) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// `W x`, with `[rows, columns]` weights.
    fn product(weights: &[f64], x: &[f64]) -> Vec<f64> {
        weights.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    }

    fn folded(fold: Fold, weights: &[f64], columns: usize) -> Vec<f64> {
        let (mut out, (block, width)) = (weights.to_vec(), fold.blocks(columns));
        out.chunks_exact_mut(block).for_each(|block| transform(block, fold.dim(), width));
        out
    }

    fn differ(a: &[f64], b: &[f64]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    /// Attention with grouped queries, biases and a projection behind it: folded weights give the transform of every value, and the same
    /// result, to the last digits of f64.
    #[test]
    fn folded_values_are_transformed_ones_and_the_result_is_the_same_in_f64() {
        for (heads, group, dim, hidden, entries) in
            [(1, 1, 2, 3, 1), (2, 3, 8, 17, 5), (4, 1, 64, 40, 30), (3, 3, 64, 576, 50), (2, 7, 128, 96, 20)]
        {
            let (values, outputs) = (heads * dim, heads * group * dim);
            let scale = 1.0 / (hidden as f64).sqrt();
            let weights: Vec<f64> = noise(1, values * hidden).into_iter().map(|x| x * scale).collect();
            let (bias, behind) = (noise(2, values), noise(3, hidden * outputs));
            let inputs: Vec<Vec<f64>> = (0..entries).map(|entry| noise(10 + entry as u64, hidden)).collect();
            let of = |weights: &[f64], bias: &[f64]| -> Vec<Vec<f64>> {
                let one = |x: &Vec<f64>| product(weights, x).iter().zip(bias).map(|(a, b)| a + b).collect();
                inputs.iter().map(one).collect()
            };
            // Any weights of attention: they come from queries and keys, which stay.
            let mix = |rows: &[Vec<f64>]| -> Vec<f64> {
                let of = |head: usize| {
                    let shares: Vec<f64> = noise(99 + head as u64, entries).iter().map(|x| x * x).collect();
                    let all: f64 = shares.iter().sum();
                    let channel = head / group * dim..(head / group + 1) * dim;
                    channel.map(move |at| rows.iter().zip(&shares).map(|(row, share)| row[at] * share / all).sum())
                };
                (0..heads * group).flat_map(of).collect()
            };
            let plain = of(&weights, &bias);
            let through = of(&folded(Fold::Rows(dim), &weights, hidden), &folded(Fold::Rows(dim), &bias, 1));
            for (plain, through) in plain.iter().zip(&through) {
                let want: Vec<f64> = plain.chunks_exact(dim).flat_map(hadamard).collect();
                assert!(differ(&want, through) < 1e-12, "{}", differ(&want, through));
                assert!(differ(plain, through) > 1e-3, "the weights have the transform in them");
            }
            let want = product(&behind, &mix(&plain));
            let got = product(&folded(Fold::Columns(dim), &behind, outputs), &mix(&through));
            assert!(differ(&want, &got) < 1e-11, "{}", differ(&want, &got));
            let half = product(&behind, &mix(&through));
            assert!(differ(&want, &half) > 1e-3, "both halves are needed");
        }
    }

    /// Weights of f32 are folded in f64 and rounded once, and a second time takes the transform out again.
    #[test]
    fn weights_are_rounded_once() {
        for (fold, rows, columns) in [
            (Fold::Rows(64), 192, 33),
            (Fold::Rows(8), 8, 1),
            (Fold::Rows(1), 3, 3),
            (Fold::Columns(64), 5, 576),
            (Fold::Columns(128), 3, 256),
        ] {
            let weights: Vec<f32> = noise(7, rows * columns).iter().map(|x| *x as f32).collect();
            let wide: Vec<f64> = weights.iter().map(|x| f64::from(*x)).collect();
            let want: Vec<f32> = folded(fold, &wide, columns).iter().map(|x| *x as f32).collect();
            let mut got = weights.clone();
            fold.apply(&mut got, columns);
            assert!(got == want, "{fold:?}");
            fold.apply(&mut got, columns);
            assert!(got.iter().zip(&weights).all(|(a, b)| (a - b).abs() < 2e-6), "{fold:?}");
        }
    }

    /// The transform in the weights is the one that stores take.
    #[test]
    fn it_is_the_transform_of_stores() {
        let dim = 64;
        let rows: Vec<f32> = noise(5, 3 * dim).iter().map(|x| *x as f32).collect();
        let (mut stored, mut folded) = (rows.clone(), rows);
        Transform::Hadamard.apply(&mut stored, dim);
        Fold::Rows(dim).apply(&mut folded, 1);
        assert!(stored.iter().zip(&folded).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
