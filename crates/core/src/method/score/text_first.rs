use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// Another score in which every entry of an image comes behind all others.
///
/// LOOK-M (Wan et al. 2024, arXiv 2406.18139).
#[derive(Debug)]
pub struct TextFirst(pub Box<dyn Score>);

/// A power of two, so that the order among images stays what it was to the last bit.
pub(super) const BEHIND: f32 = 1.0 / (1u64 << 60) as f32;

impl Score for TextFirst {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn words(&self) -> &'static str {
        self.0.words()
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        self.0.queries(prompt)
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let mut scores = self.0.score(input)?;
        for (score, is_image) in scores.iter_mut().zip(input.prompt.are_images(input.sorted)) {
            *score *= if is_image { BEHIND } else { 1.0 };
        }
        Ok(scores)
    }
}
