use super::{LaneInput, PromptView, Score};
use crate::cache::Modality;
use crate::error::Result;

/// The attention that an entry has got from the text of the prompt, image queries left out.
#[derive(Debug)]
pub struct Text;

impl Score for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn words(&self) -> &'static str {
        "attention from the text of the prompt"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        let mut weights = vec![0.0; prompt.n];
        for span in prompt.spans.iter().filter(|span| !matches!(span.modality, Modality::Image { .. })) {
            let end = (span.start + span.len).saturating_sub(prompt.past);
            weights[span.start.saturating_sub(prompt.past)..end].fill(1.0);
        }
        Some(weights)
    }

    fn has_mass(&self) -> bool {
        true
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        Ok(input.mean_sums())
    }
}
