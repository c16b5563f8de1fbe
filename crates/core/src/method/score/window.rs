use super::pool::{Pooling, pool};
use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// The attention that an entry has got from the last queries of the prompt.
///
/// SnapKV (Li et al. 2024, arXiv 2404.14469).
#[derive(Debug)]
pub struct Window {
    /// Queries that count.
    pub queries: usize,
    /// Whether the window may take at most half of what a layer keeps, because its own entries are all kept.
    pub kept: bool,
    pub pool: Pooling,
    /// Entries of a neighbourhood.
    pub size: usize,
}

impl Window {
    pub(super) fn of(&self, prompt: &PromptView<'_>) -> usize {
        let most = if self.kept { prompt.allowance / 2 } else { usize::MAX };
        self.queries.min(most).min(prompt.n)
    }
}

impl Score for Window {
    fn name(&self) -> &'static str {
        "window"
    }

    fn words(&self) -> &'static str {
        "attention from the last queries of the prompt"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        let mut weights = vec![0.0; prompt.n];
        weights[prompt.n - self.of(prompt)..].fill(1.0);
        Some(weights)
    }

    fn has_mass(&self) -> bool {
        true
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let mut scores = input.mean_sums();
        if self.pool != Pooling::None {
            // The window itself is always kept; its own sums must not leak into those before it.
            let before = scores.len() - self.of(input.prompt);
            let pooled = pool(&scores[..before], self.pool, self.size);
            scores[..before].copy_from_slice(&pooled);
        }
        Ok(scores)
    }
}
