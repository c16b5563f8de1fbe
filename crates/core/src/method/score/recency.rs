use super::{LaneInput, PromptView, Score};
use crate::cache::{Entry, Lane};

/// The later the better.
#[derive(Debug)]
pub struct Recency;

impl Score for Recency {
    fn name(&self) -> &'static str {
        "recency"
    }

    fn queries(&self, _: &PromptView<'_>) -> Option<Vec<f32>> {
        None
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Vec<f32> {
        input.sorted.iter().map(|entry| entry.position as f32).collect()
    }

    fn fresh(&self, _: &Lane, _: usize, entry: Entry) -> f32 {
        entry.position as f32
    }
}
