use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// Another score, averaged over chunks of neighbouring entries, so that whole chunks stay or go.
///
/// ChunkKV (Liu et al. 2025, arXiv 2502.00299).
#[derive(Debug)]
pub struct Chunks {
    pub of: Box<dyn Score>,
    /// Entries of a chunk.
    pub size: usize,
}

impl Score for Chunks {
    fn name(&self) -> &'static str {
        self.of.name()
    }

    fn words(&self) -> &'static str {
        self.of.words()
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        self.of.queries(prompt)
    }

    fn has_mass(&self) -> bool {
        self.of.has_mass()
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let mut scores = self.of.score(input)?;
        for chunk in scores.chunks_mut(self.size) {
            // In f64, so that all entries of a chunk get the same number whatever the order.
            let mean = chunk.iter().map(|score| f64::from(*score)).sum::<f64>() / chunk.len() as f64;
            chunk.fill(mean as f32);
        }
        Ok(scores)
    }
}
