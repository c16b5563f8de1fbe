use rayon::prelude::*;

use super::super::normal::{Ahead, Normal};
use super::{LaneInput, PromptView, Score};
use crate::error::{Error, Result};

/// The attention that an entry can expect from tokens to come, whose queries are taken to be distributed as those of the prompt, times the size of
/// its value.
///
/// Devoto et al. 2025, Expected Attention, arXiv 2510.00636.
#[derive(Debug)]
pub struct Expected {
    /// Its sinks are first entries that come before all others, too.
    pub ahead: Ahead,
    /// Whether the size of the value counts.
    pub values: bool,
    /// Added before that counts.
    pub epsilon: f32,
}

impl Score for Expected {
    fn name(&self) -> &'static str {
        "expected"
    }

    fn words(&self) -> &'static str {
        "attention expected from tokens to come"
    }

    fn queries(&self, _: &PromptView<'_>) -> Option<Vec<f32>> {
        None
    }

    fn last_queries(&self) -> usize {
        usize::MAX
    }

    fn ahead(&self) -> Option<Ahead> {
        Some(self.ahead)
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let missing = || Error::Internal("a score that looks ahead got no distributions".into());
        let (params, to_come) = input.queries.params.zip(input.queries.to_come.as_ref()).ok_or_else(missing)?;
        let (dim, group, own) = (params.dim, params.group(), input.lane.heads());
        let sinks = input.sorted.partition_point(|entry| (entry.position as usize) < self.ahead.sinks);
        let behind = &input.sorted[sinks..];
        let (keys, values) = (input.lane.keys(behind)?, input.lane.values(behind)?);
        let mut scores = vec![0.0f32; behind.len()];
        for (at, head) in own.clone().enumerate() {
            let of_head = |all: &[f32]| -> Vec<f32> {
                all.chunks_exact(dim).skip(at).step_by(own.len()).flatten().copied().collect()
            };
            let keys = of_head(&keys);
            let mut shares = vec![0.0f32; behind.len()];
            for normal in &to_come.heads[head * group..(head + 1) * group] {
                let expected = expected(&normal.turned(&to_come.turn), &keys, params.scale);
                shares.iter_mut().zip(&expected).for_each(|(to, share)| *to += share / group as f32);
            }
            if self.values {
                let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
                let values = of_head(&values);
                let norms = values.chunks_exact(dim).map(norm);
                shares.iter_mut().zip(norms).for_each(|(share, norm)| *share = (*share + self.epsilon) * norm);
            }
            scores.iter_mut().zip(&shares).for_each(|(score, share)| *score += share / own.len() as f32);
        }
        // Sinks are above all others, as in kvpress.
        let most = scores.iter().copied().fold(0.0, f32::max) + 1.0;
        scores.splice(..0, std::iter::repeat_n(most, sinks));
        Ok(scores)
    }
}

/// The share of attention that each of `[entries, dim]` keys can expect.
fn expected(normal: &Normal, keys: &[f32], scale: f32) -> Vec<f32> {
    let mut shares = vec![0.0; keys.len() / normal.dim()];
    let one = |(share, key): (&mut f32, &[f32])| *share = normal.log_mean_exp(key, scale);
    shares.par_iter_mut().zip(keys.par_chunks_exact(normal.dim())).for_each(one);
    let most = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    shares.iter_mut().for_each(|share| *share = (*share - most).exp());
    let sum: f32 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}
