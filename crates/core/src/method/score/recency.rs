use super::{LaneInput, PromptView, ReadLane, Score};
use crate::cache::Entry;
use crate::error::Result;

/// The later the better.
#[derive(Debug)]
pub struct Recency;

impl Score for Recency {
    fn name(&self) -> &'static str {
        "recency"
    }

    fn words(&self) -> &'static str {
        "the position itself: later is better"
    }

    fn queries(&self, _: &PromptView<'_>) -> Option<Vec<f32>> {
        None
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn ranks_generated(&self) -> bool {
        true
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        Ok(input.sorted.iter().map(|entry| entry.position as f32).collect())
    }

    fn fresh(&self, _: &dyn ReadLane, _: usize, entry: Entry) -> Result<f32> {
        Ok(entry.position as f32)
    }
}
