use super::{LaneInput, PromptView, ReadLane, Score};
use crate::cache::Entry;
use crate::error::Result;

/// The negative L2 norm of an entry's key: keys with a low norm matter.
///
/// Devoto et al. 2024, arXiv 2406.11430. Rotation keeps norms, so stored keys are taken as they are.
#[derive(Debug)]
pub struct KeyNorm;

impl Score for KeyNorm {
    fn name(&self) -> &'static str {
        "key-norm"
    }

    fn words(&self) -> &'static str {
        "minus the L2 norm of the key"
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
        let norms = input.lane.key_norms()?;
        Ok(input.sorted.iter().map(|entry| lowness(norms[entry.place as usize])).collect())
    }

    fn fresh(&self, lane: &dyn ReadLane, _: usize, entry: Entry) -> Result<f32> {
        Ok(lowness(lane.key_norm(entry.place)?))
    }
}

/// The score of a norm; finite also where the norm of finite numbers is not.
fn lowness(norm: f32) -> f32 {
    (-norm).max(f32::MIN)
}
