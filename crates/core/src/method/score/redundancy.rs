use rayon::prelude::*;

use super::pool::{Pooling, pool};
use super::rows::dot;
use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// The attention that an entry has got from the last queries, less how much its key repeats those of other entries.
///
/// R-KV (Cai et al. 2025, arXiv 2505.24133).
#[derive(Debug)]
pub struct Redundancy {
    /// Queries whose attention counts, and last entries that are kept; at most half of the size.
    pub queries: usize,
    /// Entries of a neighbourhood.
    pub size: usize,
    /// The weight of attention; redundancy has the rest.
    pub attention: f64,
    /// The cosine from which on two keys are alike.
    pub alike: f64,
    /// The newest entries alike to one that it does not make redundant.
    pub spared: usize,
}

impl Redundancy {
    fn window(&self, prompt: &PromptView<'_>) -> usize {
        self.queries.min(prompt.allowance / 2)
    }

    /// The attention that each entry has got from the last queries, in the order of positions.
    fn attention(input: &LaneInput<'_>) -> Vec<f32> {
        if input.sums.is_empty() {
            return input
                .sorted
                .iter()
                .map(|entry| input.carried.get(entry.place as usize).copied().unwrap_or(0.0))
                .collect();
        }
        input.mean_sums()
    }
}

impl Score for Redundancy {
    fn name(&self) -> &'static str {
        "redundancy"
    }

    fn words(&self) -> &'static str {
        "attention from the last queries, less how much the key repeats others"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        let mut weights = vec![0.0; prompt.n];
        weights[prompt.n - self.window(prompt).min(prompt.n)..].fill(1.0);
        Some(weights)
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn carried(&self, input: &LaneInput<'_>) -> Option<Vec<f32>> {
        Some(Self::attention(input))
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let mut attention = Self::attention(input);
        // The window is always kept: what it has got must not leak into what is before it.
        let before = attention.len() - self.window(input.prompt).min(attention.len());
        let whole: f32 = attention[..before].iter().sum();
        if whole > 0.0 {
            attention.iter_mut().for_each(|share| *share /= whole);
        }
        let pooled = pool(&attention[..before], Pooling::Max, self.size);
        attention[..before].copy_from_slice(&pooled);
        let heads = input.lane.heads().len();
        let keys = input.lane.keys(input.sorted)?;
        let dim = keys.len() / (heads * input.sorted.len()).max(1);
        let mut redundancy = vec![0.0; input.sorted.len()];
        for head in 0..heads {
            let own = keys.chunks_exact((heads * dim).max(1)).map(|entry| &entry[head * dim..(head + 1) * dim]);
            let own = softmax(self.likeness(own.flat_map(unit).collect(), dim));
            redundancy.iter_mut().zip(own).for_each(|(sum, own)| *sum += own / heads as f64);
        }
        let joined = |(share, own): (&f32, &f64)| self.attention * f64::from(*share) - (1.0 - self.attention) * own;
        Ok(attention.iter().zip(&redundancy).map(|entry| joined(entry) as f32).collect())
    }
}

impl Redundancy {
    /// The mean cosine of each key with the others, those left out that spare it; `keys` have length 1.
    fn likeness(&self, keys: Vec<f32>, dim: usize) -> Vec<f64> {
        let rows: Vec<&[f32]> = keys.chunks_exact(dim.max(1)).collect();
        let mut whole = vec![0.0f64; dim];
        for row in &rows {
            whole.iter_mut().zip(*row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let with_all = |row: &&[f32]| {
            let all: f64 = row.iter().zip(&whole).map(|(x, sum)| f64::from(*x) * sum).sum();
            all - row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
        };
        let mut likeness: Vec<f64> = rows.iter().map(with_all).collect();
        // From the newest on, so that few are looked at where many are alike.
        let alike = |own: usize| -> Vec<(usize, f64)> {
            let others = (0..rows.len()).rev().filter(|other| *other != own);
            let cosines = others.map(|other| (other, f64::from(dot(rows[own], rows[other]))));
            cosines.filter(|(_, cosine)| *cosine > self.alike).take(self.spared).collect()
        };
        let spared: Vec<Vec<(usize, f64)>> = (0..rows.len()).into_par_iter().map(alike).collect();
        for (other, cosine) in spared.into_iter().flatten() {
            likeness[other] -= cosine;
        }
        likeness.iter_mut().for_each(|sum| *sum /= rows.len() as f64);
        likeness
    }
}

/// A key of zeros stays one: it repeats nothing.
fn unit(key: &[f32]) -> Vec<f32> {
    let length = key.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let length = if length > 0.0 && length.is_finite() { length } else { 1.0 };
    key.iter().map(|x| (f64::from(*x) / length) as f32).collect()
}

fn softmax(mut numbers: Vec<f64>) -> Vec<f64> {
    let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    numbers.iter_mut().for_each(|number| *number = (*number - most).exp());
    let whole: f64 = numbers.iter().sum();
    numbers.iter_mut().for_each(|number| *number /= whole);
    numbers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same from the whole matrix of cosines, as the published code has it.
    fn plain(keys: &[Vec<f32>], alike: f64, spared: usize) -> Vec<f64> {
        let n = keys.len();
        let length = |key: &[f32]| key.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let cosine = |a: &[f32], b: &[f32]| match length(a) * length(b) {
            0.0 => 0.0,
            lengths => a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / lengths,
        };
        let mut matrix: Vec<Vec<f64>> = keys.iter().map(|a| keys.iter().map(|b| cosine(a, b)).collect()).collect();
        for (own, row) in matrix.iter_mut().enumerate() {
            row[own] = 0.0;
            let near: Vec<usize> = (0..n).filter(|other| *other != own && row[*other] > alike).collect();
            near.iter().rev().take(spared).for_each(|other| row[*other] = 0.0);
        }
        (0..n).map(|entry| matrix.iter().map(|row| row[entry]).sum::<f64>() / n as f64).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn likeness_is_that_of_the_whole_matrix(
            n in 1usize..120, dim in prop::sample::select(vec![1usize, 8, 20]), kinds in 1usize..6, seed: u64, spread in 0.0f32..2.0,
            alike in prop::sample::select(vec![0.0, 0.3, 0.5, 0.9, 1.0]), spared in 0usize..4,
        ) {
            let mut state = seed | 1;
            let mut draw = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            let centres: Vec<Vec<f32>> = (0..kinds).map(|_| (0..dim).map(|_| draw()).collect()).collect();
            let near = |entry: usize| centres[entry * 7 % kinds].clone();
            let mut keys: Vec<Vec<f32>> = (0..n).map(near).collect();
            keys.iter_mut().flatten().for_each(|x| *x += spread * draw());
            if n > 3 {
                keys[2].fill(0.0);
            }
            // Others may turn by rounding.
            let cosine = |a: &Vec<f32>, b: &Vec<f32>| f64::from(dot(&unit(a), &unit(b)));
            prop_assume!(keys.iter().all(|a| keys.iter().all(|b| (cosine(a, b) - alike).abs() > 1e-5 || alike == 0.0 || alike == 1.0)));
            prop_assume!(dim > 1 || alike < 1.0);
            let score = Redundancy { queries: 8, size: 7, attention: 0.1, alike, spared };
            let got = score.likeness(keys.iter().flat_map(|key| unit(key)).collect(), dim);
            for (got, want) in got.iter().zip(plain(&keys, alike, spared)) {
                prop_assert!((got - want).abs() < 1e-5, "{} for {}", got, want);
            }
        }
    }
}
