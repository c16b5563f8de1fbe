//! Which entries matter: one file per score.

mod chunks;
mod columns;
mod elite;
mod expected;
mod key_diff;
mod key_norm;
mod lag;
mod last;
mod mix;
mod observed;
mod pool;
mod post_vision;
mod preference;
mod question;
mod random;
mod recency;
mod reconstruction;
mod redundancy;
pub(crate) mod rows;
mod text;
mod text_first;
mod text_weighted;
mod window;

use crate::error::Result;
use std::fmt::Debug;
use std::ops::Range;

pub use chunks::Chunks;
pub use columns::Columns;
pub use elite::Elite;
pub use expected::Expected;
pub use key_diff::KeyDiff;
pub use key_norm::KeyNorm;
pub use lag::Lag;
pub use last::Last;
pub use mix::Mix;
pub use observed::Observed;
pub use pool::Pooling;
pub use post_vision::PostVision;
pub use preference::Preference;
pub use question::Question;
pub use random::{Random, draw};
pub use recency::Recency;
pub use reconstruction::Reconstruction;
pub use redundancy::Redundancy;
pub use text::Text;
pub use text_first::TextFirst;
pub use text_weighted::TextWeighted;
pub use window::Window;

use super::budget::Claim;
use super::normal::Ahead;
use super::view::{LastQueries, ReadLane};
use crate::cache::{Entry, Modality, Piece, Span, block_at};

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
    /// Whether the positions of an image see each other while a prompt is read.
    pub blocks: bool,
}

impl PromptView<'_> {
    /// The first position of the prompt whose query sees `position`, and the one behind the last that the query at `position` sees.
    pub fn block(&self, position: usize) -> Range<usize> {
        match self.blocks {
            true => block_at(self.spans, self.past, position),
            false => position..position + 1,
        }
    }

    /// The positions of the prompt behind its last image; none where it has no image or ends with one.
    pub fn behind_images(&self) -> Range<usize> {
        let image = self.spans.iter().rev().find(|span| matches!(span.modality, Modality::Image { .. }));
        let end = self.past + self.n;
        match image.map(|span| span.start + span.len) {
            Some(start) if start > self.past && start < end => start..end,
            _ => end..end,
        }
    }

    /// Whether each of these entries, in the order of positions, is of an image.
    pub fn are_images(&self, sorted: &[Entry]) -> Vec<bool> {
        let mut spans = self.spans.iter().peekable();
        let is_image = |entry: &Entry| {
            while spans.next_if(|span| span.start + span.len <= entry.position as usize).is_some() {}
            spans.peek().is_some_and(|span| matches!(span.modality, Modality::Image { .. }))
        };
        sorted.iter().map(is_image).collect()
    }
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
    /// The last queries of the prompt, of all heads; without rows when none were asked for.
    pub queries: &'a LastQueries,
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

    /// Whether it asks attention for sums at all.
    fn gathers(&self) -> bool {
        self.queries(&PromptView { past: 0, n: 1, spans: &[], allowance: 1, blocks: false }).is_some()
    }

    /// How many of the last queries of a prompt it wants to see.
    fn last_queries(&self) -> usize {
        0
    }

    /// Its demands on the tokens to come. The queries of the prompt are then shown as distributions, and not one by one.
    fn ahead(&self) -> Option<Ahead> {
        None
    }

    /// Whether the prompt is read once more behind itself. In place of sums it then gets, for every entry, the most attention that a query of
    /// the repetition gives it.
    fn repeats(&self) -> bool {
        false
    }

    /// Whether it looks from some positions of a prompt, those at its end or those of its text, and not from all alike or from none: seen on a prompt
    /// of text around an image.
    fn asks_question(&self) -> bool {
        const N: usize = 4096;
        let image = Modality::Image { index: 0, piece: Piece::base(32, 64) };
        let span = |modality, start, len| Span { modality, start, len };
        let spans = [span(Modality::Text, 0, 1024), span(image, 1024, 2048), span(Modality::Text, 3072, N - 3072)];
        let prompt = PromptView { past: 0, n: N, spans: &spans, allowance: N, blocks: false };
        let single = self.ahead().is_none() && self.last_queries() > 0;
        single || self.queries(&prompt).is_some_and(|weights| weights.contains(&0.0))
    }

    /// Whether scores are shares of an attention mass, so that their sums mean something.
    fn has_mass(&self) -> bool;

    /// Whether the attention that entries get from generated tokens adds to their scores.
    fn accumulates(&self) -> bool {
        self.has_mass()
    }

    /// The share of an entry's score that is left when a generated token's attention is added: 1, or 0 where only the newest counts.
    fn left(&self) -> f32 {
        1.0
    }

    /// One number per entry in the order of positions; the higher the better. Errors when keys cannot be read from the device.
    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>>;

    /// The numbers that entries carry on, in the order of positions, where these are not the scores: the next scores are made from them.
    fn carried(&self, input: &LaneInput<'_>) -> Option<Vec<f32>> {
        let _ = input;
        None
    }

    /// As [`Score::score`], with what the lane claims of the whole beside the others: two factors, each summed over a layer's lanes. Not
    /// negative, and only as large as they are to those of other layers.
    fn score_and_claim(&self, input: &LaneInput<'_>) -> Result<(Vec<f32>, Claim)> {
        Ok((self.score(input)?, Claim::default()))
    }

    /// Whether entries that are generated get scores to be compared with those of the prompt.
    fn ranks_generated(&self) -> bool {
        self.accumulates()
    }

    /// The score with which a generated entry starts. Errors as [`Score::score`].
    fn fresh(&self, lane: &dyn ReadLane, layer: usize, entry: Entry) -> Result<f32> {
        let _ = (lane, layer, entry);
        Ok(0.0)
    }
}
