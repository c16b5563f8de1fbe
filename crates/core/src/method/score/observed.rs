use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// The mean attention that an entry has got from the queries that could see it.
///
/// ObservedAttention of kvpress: H2O's sum (Zhang et al. 2023, arXiv 2306.14048) without its preference for early entries.
#[derive(Debug)]
pub struct Observed;

impl Score for Observed {
    fn name(&self) -> &'static str {
        "observed"
    }

    fn words(&self) -> &'static str {
        "mean attention from the queries that could see the entry"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        Some(vec![1.0; prompt.n])
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let PromptView { past, n, .. } = *input.prompt;
        let mut scores = input.mean_sums();
        for (score, entry) in scores.iter_mut().zip(input.sorted) {
            let first = input.prompt.block(entry.position as usize).start.max(past);
            *score /= (past + n - first).max(1) as f32;
        }
        Ok(scores)
    }
}
