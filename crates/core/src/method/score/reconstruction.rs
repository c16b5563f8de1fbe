use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// The most attention that an entry gets while the prompt is read again behind itself, as if the model were to repeat it.
///
/// KVzip (Kim et al. 2025, arXiv 2505.23416).
#[derive(Debug)]
pub struct Reconstruction;

impl Score for Reconstruction {
    fn name(&self) -> &'static str {
        "reconstruction"
    }

    fn words(&self) -> &'static str {
        "most attention from a repetition of the prompt"
    }

    fn queries(&self, _: &PromptView<'_>) -> Option<Vec<f32>> {
        None
    }

    fn repeats(&self) -> bool {
        true
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let most = |place: u32| input.sums.iter().map(|received| received[place as usize]).fold(0.0, f32::max);
        Ok(input.sorted.iter().map(|entry| most(entry.place)).collect())
    }
}
