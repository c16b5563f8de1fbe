use super::super::budget::Claim;
use super::pool::{Pooling, pool};
use super::rows::{Rows, by_head};
use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// The mean attention that an entry has got from the last queries, and how much it varies between them. A lane claims as much as its attention
/// is dispersed (entropy) and shifts (variance).
///
/// CAKE (Qin et al. 2025, arXiv 2503.12491).
#[derive(Debug)]
pub struct Preference {
    /// Queries that count; at most half of what a layer keeps.
    pub queries: usize,
    /// How much the variance counts beside the mean.
    pub gamma: f64,
    /// Entries of a neighbourhood.
    pub size: usize,
}

/// Of a query head: a number per entry, and the two parts of its claim, which are those of the entries before the window.
struct Found {
    scores: Vec<f32>,
    entropy: f64,
    variance: f64,
}

impl Preference {
    fn of(&self, prompt: &PromptView<'_>) -> usize {
        self.queries.min(prompt.allowance / 2).min(prompt.n).max(1)
    }

    fn found(&self, rows: &Rows, before: usize) -> Found {
        let n = rows.iter().count() as f64;
        let (mut sums, mut squares) = (vec![0.0f64; rows.entries], vec![0.0f64; rows.entries]);
        let mut entropy = 0.0;
        for row in rows.iter() {
            for ((share, sum), square) in row.iter().zip(&mut sums).zip(&mut squares) {
                let share = f64::from(*share);
                *sum += share;
                *square += share * share;
            }
            // As in the published code.
            entropy -= row[..before].iter().map(|p| f64::from(*p) * (f64::from(*p) + 1e-10).ln()).sum::<f64>();
        }
        let variance = |(sum, square): (&f64, &f64)| ((square - sum * sum / n) / (n - 1.0).max(1.0)).max(0.0);
        let variances: Vec<f64> = sums.iter().zip(&squares).map(variance).collect();
        let score = |(sum, variance): (&f64, &f64)| (sum / n + self.gamma * variance) as f32;
        Found {
            scores: sums.iter().zip(&variances).map(score).collect(),
            entropy,
            variance: variances[..before].iter().sum(),
        }
    }
}

impl Score for Preference {
    fn name(&self) -> &'static str {
        "preference"
    }

    fn words(&self) -> &'static str {
        "mean and variance of the attention from the last queries of the prompt"
    }

    fn queries(&self, _: &PromptView<'_>) -> Option<Vec<f32>> {
        None
    }

    fn last_queries(&self) -> usize {
        self.queries
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        Ok(self.score_and_claim(input)?.0)
    }

    fn score_and_claim(&self, input: &LaneInput<'_>) -> Result<(Vec<f32>, Claim)> {
        let window = self.of(input.prompt);
        let first = (input.prompt.past + input.prompt.n - window) as u32;
        let before = input.sorted.partition_point(|entry| entry.position < first);
        let heads = by_head(input, window, |rows| self.found(rows, before))?;
        let mut scores = vec![0.0; input.sorted.len()];
        for head in &heads {
            scores.iter_mut().zip(&head.scores).for_each(|(sum, score)| *sum += score / heads.len() as f32);
        }
        let pooled = pool(&scores[..before], Pooling::Mean, self.size);
        scores[..before].copy_from_slice(&pooled);
        let sum = |of: fn(&Found) -> f64| heads.iter().map(of).sum::<f64>();
        let factors = [sum(|head| head.entropy), sum(|head| head.variance)];
        Ok((scores, Claim { factors, before: 0 }))
    }
}
