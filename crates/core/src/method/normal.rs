//! Queries as normal distributions, for methods that reckon with those of tokens to come.

use std::sync::Arc;

use prefixkv_kernels::rotary::Angles;
use prefixkv_kernels::simd;

/// Rows whose products are added up together, so that they stay in the nearest cache.
const BLOCK: usize = 64;

/// The demands of a method on the tokens to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Positions behind the prompt over which rotations are averaged.
    pub positions: usize,
    /// First positions whose queries do not count.
    pub sinks: usize,
    /// Whether the covariance of the queries counts, or their mean alone.
    pub covariance: bool,
}

impl Ahead {
    /// Bytes of the distributions of a layer.
    pub fn bytes(&self, heads: usize, dim: usize) -> usize {
        heads * dim * (1 + if self.covariance { dim } else { 0 }) * size_of::<f32>()
    }
}

/// The queries of a prompt in a layer, as those of tokens to come are taken to be.
#[derive(Clone, Debug)]
pub struct ToCome {
    /// Per query head, before their rotary embedding.
    pub heads: Vec<Normal>,
    /// One angle, the mean of the rotations of the positions behind the prompt.
    pub turn: Arc<Angles>,
}

/// Vectors as a normal distribution. Of no vectors it is a mean of 0 without a spread.
#[derive(Clone, Debug)]
pub struct Normal {
    n: usize,
    mean: Vec<f32>,
    /// The sums of the products of what vectors differ from the mean, `[dim, dim]`; None where only the mean counts.
    products: Option<Vec<f32>>,
}

impl Normal {
    /// Of `[n, dim]` rows.
    pub fn of(mut rows: Vec<f32>, dim: usize, covariance: bool) -> Normal {
        let n = rows.len() / dim;
        let mut sums = vec![0.0f64; dim];
        for row in rows.chunks_exact(dim) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / n.max(1) as f64) as f32).collect();
        let products = covariance.then(|| {
            rows.chunks_exact_mut(dim).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean));
            let mut products = vec![0.0; dim * dim];
            let mut factors = [0.0; BLOCK];
            for block in rows.chunks(BLOCK * dim) {
                for (channel, sums) in products.chunks_exact_mut(dim).enumerate() {
                    let column = block.iter().skip(channel).step_by(dim);
                    factors.iter_mut().zip(column).for_each(|(factor, x)| *factor = *x);
                    simd::add_rows(&factors[..block.len() / dim], block, dim, sums);
                }
            }
            products
        });
        Normal { n, mean, products }
    }

    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Of these vectors and those of another. Chan, Golub and LeVeque 1979.
    pub fn join(&mut self, other: &Normal) {
        let n = self.n + other.n;
        if other.n == 0 {
            return;
        }
        let apart: Vec<f32> = other.mean.iter().zip(&self.mean).map(|(other, own)| other - own).collect();
        let part = (other.n as f64 / n as f64) as f32;
        self.mean.iter_mut().zip(&apart).for_each(|(mean, apart)| *mean += part * apart);
        if let (Some(products), Some(others)) = (&mut self.products, &other.products) {
            let weight = part * self.n as f32;
            products.iter_mut().zip(others).for_each(|(product, other)| *product += other);
            for (row, factor) in products.chunks_exact_mut(apart.len()).zip(&apart) {
                row.iter_mut().zip(&apart).for_each(|(product, apart)| *product += weight * factor * apart);
            }
        }
        self.n = n;
    }

    /// Of the vectors as an angle turns them.
    pub fn turned(&self, angle: &Angles) -> Normal {
        let Normal { n, mut mean, products } = self.clone();
        let dim = mean.len();
        angle.turn(0, &mut mean);
        let products = products.map(|mut products| {
            // From the left and from the right, as R C R^T.
            for _ in 0..2 {
                products.chunks_exact_mut(dim).for_each(|row| angle.turn(0, row));
                products = (0..dim * dim).map(|at| products[at % dim * dim + at / dim]).collect();
            }
            products
        });
        Normal { n, mean, products }
    }

    /// The logarithm of the mean of `exp(scale x k)` over all x, for a key k.
    pub fn log_mean_exp(&self, key: &[f32], scale: f32) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let linear = scale * dot(&self.mean, key);
        let Some(products) = &self.products else { return linear };
        let mut product = vec![0.0; key.len()];
        simd::add_rows(key, products, key.len(), &mut product);
        linear + scale * scale / (2 * self.n.max(1)) as f32 * dot(&product, key)
    }
}

#[cfg(test)]
mod tests {
    use prefixkv_kernels::rotary::Frequencies;

    use super::*;

    /// Numbers between -1 and 1.
    fn noise(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// The formula with matrices, in f64: `s (R m) k + s^2 / 2 k (R C R^T) k`.
    fn slowly(rows: &[f32], dim: usize, covariance: bool, angle: &Angles, key: &[f32], scale: f64) -> f64 {
        let n = (rows.len() / dim).max(1) as f64;
        let rows: Vec<Vec<f64>> =
            rows.chunks_exact(dim).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
        let mean: Vec<f64> = (0..dim).map(|c| rows.iter().map(|row| row[c]).sum::<f64>() / n).collect();
        let half = dim / 2;
        let turn = |to: usize, from: usize| match (to / half, from / half) {
            _ if to % half != from % half => 0.0,
            (0, 1) => -f64::from(angle.sin[to % half]),
            (1, 0) => f64::from(angle.sin[to % half]),
            _ => f64::from(angle.cos[to % half]),
        };
        // R^T k, so that both terms take it.
        let key: Vec<f64> = (0..dim).map(|c| (0..dim).map(|to| turn(to, c) * f64::from(key[to])).sum()).collect();
        let linear: f64 = mean.iter().zip(&key).map(|(mean, k)| mean * k).sum();
        let along = |row: &Vec<f64>| row.iter().zip(&mean).zip(&key).map(|((x, mean), k)| (x - mean) * k).sum::<f64>();
        let spread = rows.iter().map(|row| along(row).powi(2)).sum::<f64>() / n;
        scale * linear + if covariance { scale * scale / 2.0 * spread } else { 0.0 }
    }

    /// Heads of all sizes; no vector, one, a block, and pieces of all of them.
    #[test]
    fn logarithms_are_those_of_the_formula() {
        let mut compared = 0;
        for dim in [2, 6, 20, 64, 128] {
            let inverse: Vec<f32> = (0..dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / dim as f32)).collect();
            let angle = Frequencies::new(inverse, None).mean((700..1212).map(|phase| [phase; 3]));
            for (n, pieces) in [(0, 1), (1, 1), (5, 5), (63, 2), (64, 1), (65, 3), (300, 1), (300, 7)] {
                for covariance in [false, true] {
                    // Far from 0, as queries are.
                    let mut rows = noise((dim * n) as u64 + 3, n * dim);
                    rows.chunks_exact_mut(dim).for_each(|row| row[0] += 4.0);
                    let mut all = Normal::of(Vec::new(), dim, covariance);
                    for piece in rows.chunks(n.div_ceil(pieces).max(1) * dim) {
                        all.join(&Normal::of(piece.to_vec(), dim, covariance));
                    }
                    let (turned, scale) = (all.turned(&angle), 1.0 / (dim as f32).sqrt());
                    for key in noise(n as u64, 9 * dim).chunks_exact(dim) {
                        let got = f64::from(turned.log_mean_exp(key, scale));
                        let want = slowly(&rows, dim, covariance, &angle, key, f64::from(scale));
                        assert!((got - want).abs() < 1e-5, "{dim} {n} {pieces} {covariance}: {got} and {want}");
                        compared += 1;
                    }
                }
            }
        }
        assert_eq!(compared, 5 * 8 * 2 * 9);
    }

    /// For vectors that are nearly normal the formula is what it says.
    #[test]
    fn logarithms_are_those_of_many_vectors() {
        let (dim, n) = (6, 60_000);
        let uniform = noise(7, n * dim * 12);
        // A sum of many is nearly normal; and correlated.
        let sums: Vec<f32> = uniform.chunks_exact(12).map(|twelve| twelve.iter().sum::<f32>() / 2.0).collect();
        let row =
            |x: &[f32]| (0..dim).map(|i| 0.4 * x[i] + 0.3 * x[(i + 1) % dim] + 0.1 * i as f32).collect::<Vec<_>>();
        let rows: Vec<f32> = sums.chunks_exact(dim).flat_map(row).collect();
        let normal = Normal::of(rows.clone(), dim, true);
        for key in noise(8, 8 * dim).chunks_exact(dim) {
            let product = |row: &[f32]| row.iter().zip(key).map(|(x, k)| f64::from(x * k)).sum::<f64>();
            let mean = rows.chunks_exact(dim).map(|row| (0.7 * product(row)).exp()).sum::<f64>() / n as f64;
            let log = f64::from(normal.log_mean_exp(key, 0.7));
            assert!((mean.ln() - log).abs() < 0.02, "{} and {log}", mean.ln());
        }
    }

    #[test]
    fn bytes_are_those_of_the_numbers() {
        for covariance in [false, true] {
            let normal = Normal::of(noise(1, 40), 8, covariance);
            let numbers = normal.mean.len() + normal.products.map_or(0, |products| products.len());
            let ahead = Ahead { positions: 512, sinks: 4, covariance };
            assert_eq!(ahead.bytes(3, 8), 3 * size_of::<f32>() * numbers);
        }
    }
}
