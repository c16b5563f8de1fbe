//! Which entries matter: one file per score.

mod columns;
mod key_diff;
mod key_norm;
mod pool;
mod question;
mod random;
mod recency;
mod text;
mod window;

use crate::error::Result;
use std::fmt::Debug;

pub use columns::Columns;
pub use key_diff::KeyDiff;
pub use key_norm::KeyNorm;
pub use pool::Pooling;
pub use question::Question;
pub use random::{Random, draw};
pub use recency::Recency;
pub use text::Text;
pub use window::Window;

use super::view::ReadLane;
use crate::cache::{Entry, Span};

/// A prompt, or the next part of a conversation, on its way through the model.
#[derive(Debug)]
pub struct PromptView<'a> {
    /// Positions seen before it.
    pub past: usize,
    /// Its own positions.
    pub n: usize,
    /// Spans that cover all positions, its own included.
    pub spans: &'a [Span],
    /// Entries that the layer may keep; where that is not known yet, the mean over the layers.
    pub allowance: usize,
}

/// A lane whose entries are to be scored, right after the attention of the prompt.
pub struct LaneInput<'a> {
    pub lane: &'a dyn ReadLane,
    /// The number of its layer in the model.
    pub layer: usize,
    /// The lane's entries in the order of their positions.
    pub sorted: &'a [Entry],
    /// The gathered attention: per KV head of the lane the sums of all places. Empty when none was asked for.
    pub sums: &'a [Vec<f32>],
    /// The scores that the entries of all places carry; empty where they carry none.
    pub carried: &'a [f32],
    pub prompt: &'a PromptView<'a>,
}

impl LaneInput<'_> {
    /// The gathered sums, averaged over the lane's heads, in the order of positions.
    pub fn mean_sums(&self) -> Vec<f32> {
        let heads = self.sums.len().max(1) as f32;
        let at = |entry: &Entry| self.sums.iter().map(|sums| sums[entry.place as usize]).sum::<f32>() / heads;
        self.sorted.iter().map(at).collect()
    }
}

/// Says which entries matter.
pub trait Score: Send + Sync + Debug {
    /// Its name in options and traces.
    fn name(&self) -> &'static str;

    /// The number that it gives an entry, in words for reports: "attention from all queries of the prompt".
    fn words(&self) -> &'static str;

    /// The weight with which each query of the prompt counts in the sums that attention gathers; None when the score needs
    /// none.
    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>>;

    /// Whether scores are shares of an attention mass, so that their sums mean something.
    fn has_mass(&self) -> bool;

    /// Whether the attention that entries get from generated tokens adds to their scores.
    fn accumulates(&self) -> bool {
        self.has_mass()
    }

    /// One number per entry in the order of positions; the higher the better. Errors when keys cannot be read from the device.
    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>>;

    /// The score with which a generated entry starts. Errors as [`Score::score`].
    fn fresh(&self, lane: &dyn ReadLane, layer: usize, entry: Entry) -> Result<f32> {
        let _ = (lane, layer, entry);
        Ok(0.0)
    }
}
