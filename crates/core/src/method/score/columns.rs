use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// The attention that an entry has got from all queries so far, `S[j] = sum_i mean_h A[h, i, j]`.
///
/// PrefixKV (Wang et al. 2024, arXiv 2412.03409) and H2O (Zhang et al. 2023, arXiv 2306.14048). Not divided by the number of
/// queries that could see the entry.
#[derive(Debug)]
pub struct Columns;

impl Score for Columns {
    fn name(&self) -> &'static str {
        "columns"
    }

    fn words(&self) -> &'static str {
        "attention from all queries of the prompt"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        Some(vec![1.0; prompt.n])
    }

    fn has_mass(&self) -> bool {
        true
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let mut scores = input.mean_sums();
        if !input.carried.is_empty() {
            // Entries of earlier turns bring the attention that they received before.
            for (score, entry) in scores.iter_mut().zip(input.sorted) {
                *score += input.carried[entry.place as usize];
            }
        }
        Ok(scores)
    }
}
