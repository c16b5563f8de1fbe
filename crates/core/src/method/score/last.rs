use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// The attention that an entry has got from the newest query.
///
/// TOVA (Oren et al. 2024, arXiv 2401.06104).
#[derive(Debug)]
pub struct Last;

impl Score for Last {
    fn name(&self) -> &'static str {
        "last"
    }

    fn words(&self) -> &'static str {
        "attention from the newest query"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        let mut weights = vec![0.0; prompt.n];
        weights[prompt.n - 1] = 1.0;
        Some(weights)
    }

    fn has_mass(&self) -> bool {
        true
    }

    fn left(&self) -> f32 {
        0.0
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        Ok(input.mean_sums())
    }
}
