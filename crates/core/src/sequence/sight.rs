//! How far queries of a prompt see: up to their own position, and where a model has the positions of an image see each other, to the
//! end of their image. Gemma Team 2025, arXiv 2503.19786.

use super::{Sequence, Work};
use crate::cache::{Memory, Modality, block_at};
use crate::error::{Error, Result};

/// Rows that are worth a piece of their own.
const WORTH: usize = 64;

impl<M: Memory> Sequence<M> {
    /// The position behind the last one that a query at `position` of the prompt on its way sees, the rows that repeat the prompt included.
    pub(super) fn sight(&self, position: usize) -> usize {
        let Work::Prompt(reach) = self.work else { return position + 1 };
        let (past, end) = (self.next_position as usize, self.next_position as usize + reach.n);
        if position < end {
            return block_at(&self.spans, past, position).end;
        }
        // The repetition shows the images of the prompt once more, behind the instruction.
        let shift = self.repeats(reach.n).map_or(0, |repeat| reach.n + self.instruction - repeat.first);
        match position.checked_sub(shift) {
            Some(shown) if shown >= past && position >= end + self.instruction => {
                block_at(&self.spans, past, shown).end + shift
            }
            _ => position + 1,
        }
    }

    /// Whether positions of the prompt on its way see what is behind them.
    fn sees_ahead(&self) -> bool {
        let past = self.next_position as usize;
        let mut new = self.spans.iter().rev().take_while(|span| span.start + span.len > past);
        self.layout.has_blocks()
            && matches!(self.work, Work::Prompt(_))
            && new.any(|span| matches!(span.modality, Modality::Image { .. }))
    }

    /// For each of the `n` rows on their way, how many of these it sees: [`LaneView::ends`](prefixkv_kernels::attention::LaneView::ends).
    /// None where each sees up to its own.
    pub fn ends(&self, n: usize) -> Option<Vec<u32>> {
        if !self.sees_ahead() {
            return None;
        }
        let rows = self.on_the_way(n);
        let mut end = 0;
        let of = |row: &u32| {
            let sight = self.sight(*row as usize);
            while rows.get(end).is_some_and(|row| (*row as usize) < sight) {
                end += 1;
            }
            end as u32
        };
        Some(rows.iter().map(of).collect())
    }

    /// The positions behind the last one that queries see which are `positions` of the sequence, of a prompt that it has read.
    pub fn sights(&self, positions: impl Iterator<Item = usize>) -> Vec<usize> {
        let block = |position: usize| match self.layout.has_blocks() {
            true => block_at(&self.spans, 0, position).end,
            false => position + 1,
        };
        positions.map(block).collect()
    }

    /// About `piece` rows of a prompt that is read in pieces, so that no position is read without those it sees: the piece ends before an
    /// image that it would cut, or behind it where few rows come before.
    pub fn whole_piece(&self, piece: usize) -> usize {
        let (start, Work::Prompt(reach)) = (self.first_position() as usize, self.work) else { return piece };
        if !self.sees_ahead() || reach.done + piece >= reach.n {
            return piece;
        }
        let block = block_at(&self.spans, self.next_position as usize, start + piece);
        match block.start.checked_sub(start) {
            Some(before) if before >= WORTH.min(piece) => before,
            _ => block.end - start,
        }
    }

    /// Refuses a piece that ends within an image whose positions see each other.
    pub(super) fn require_whole(&self, piece: usize) -> Result<()> {
        match self.whole_piece(piece) == piece {
            true => Ok(()),
            false => Err(Error::Internal(format!("a piece of {piece} positions cuts an image that is seen whole"))),
        }
    }
}
