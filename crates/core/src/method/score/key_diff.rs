use super::{LaneInput, PromptView, ReadLane, Score};
use crate::cache::Entry;
use crate::error::Result;

/// The negative cosine between an entry's key and the mean direction of all keys: keys that differ from the others matter.
///
/// Park et al. 2025, KeyDiff, arXiv 2504.15364. Keys are taken as they are held, rotated to their positions where the lane does not rotate them when they are read.
#[derive(Debug)]
pub struct KeyDiff;

impl Score for KeyDiff {
    fn name(&self) -> &'static str {
        "key-diff"
    }

    fn words(&self) -> &'static str {
        "how little the key resembles the mean key"
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
        differences(input.lane, input.sorted)
    }

    fn fresh(&self, lane: &dyn ReadLane, _: usize, entry: Entry) -> Result<f32> {
        let entries = lane.sorted();
        let scores = differences(lane, &entries)?;
        let at = entries.iter().position(|other| other.place == entry.place);
        Ok(at.map_or(0.0, |at| scores[at]))
    }
}

/// The mean over the heads of the lane, one number per entry.
fn differences(lane: &dyn ReadLane, entries: &[Entry]) -> Result<Vec<f32>> {
    let heads = lane.heads().len();
    let mut keys = lane.keys(entries)?;
    let dim = keys.len() / (heads * entries.len()).max(1);
    // In f64: the mean of thousands of directions is nearly 0 where keys are spread out.
    let mut means = vec![0.0f64; heads * dim];
    for entry in keys.chunks_exact_mut((heads * dim).max(1)) {
        entry.chunks_exact_mut(dim).for_each(to_unit_length);
        means.iter_mut().zip(&*entry).for_each(|(mean, x)| *mean += f64::from(*x));
    }
    for mean in means.chunks_exact_mut(dim.max(1)) {
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        mean.iter_mut().for_each(|x| *x /= length);
    }
    let difference = |entry: &[f32]| -> f32 {
        let cosines: f64 = entry.iter().zip(&means).map(|(x, mean)| f64::from(*x) * mean).sum();
        (-cosines / heads as f64) as f32
    };
    Ok(keys.chunks_exact((heads * dim).max(1)).map(difference).collect())
}

/// A key of zeros stays one: it resembles nothing.
fn to_unit_length(key: &mut [f32]) {
    let length = key.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 && length.is_finite() {
        key.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
