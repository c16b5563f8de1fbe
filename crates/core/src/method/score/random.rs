use super::{LaneInput, PromptView, ReadLane, Score};
use crate::cache::Entry;
use crate::error::Result;

/// A number that depends on seed, layer, head and position only.
#[derive(Debug)]
pub struct Random {
    pub seed: u64,
}

impl Random {
    fn at(&self, lane: &dyn ReadLane, layer: usize, position: u32) -> f32 {
        let head = lane.heads().start as u64;
        let drawn = draw(self.seed ^ ((layer as u64) << 48) ^ (head << 32) ^ u64::from(position));
        (drawn >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// 64 random bits that depend on a number only: splitmix64 (Steele et al. 2014), twice.
pub fn draw(of: u64) -> u64 {
    let mut z = of;
    for _ in 0..2 {
        z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
    }
    z
}

impl Score for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn words(&self) -> &'static str {
        "a random number"
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
        Ok(input.sorted.iter().map(|entry| self.at(input.lane, input.layer, entry.position)).collect())
    }

    fn fresh(&self, lane: &dyn ReadLane, layer: usize, entry: Entry) -> Result<f32> {
        Ok(self.at(lane, layer, entry.position))
    }
}
