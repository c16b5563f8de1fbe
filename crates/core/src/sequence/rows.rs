//! Rows of a prompt that go no further: what a plan says of them, and which are on their way.

use super::{Sequence, Work};
use crate::cache::Memory;
use crate::error::{Error, Result};
use crate::method::Moment;

/// The rows of a prompt that are on their way through the layers.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Their positions, ascending; None for all of the prompt.
    rows: Option<Vec<u32>>,
    /// Of the rows that the layer has read, the numbers of those that go on; until it is asked for.
    chosen: Option<Vec<usize>>,
}

impl Way {
    pub(super) fn rows(&self) -> Option<&[u32]> {
        self.rows.as_deref()
    }
}

impl<M: Memory> Sequence<M> {
    /// Carries out that only `rows` go on.
    pub(super) fn narrow(&mut self, moment: Moment, rows: Vec<u32>) -> Result<()> {
        let wrong = |reason: &str| Err(Error::Internal(format!("a plan for the rows of a prompt {reason}")));
        let (Work::Prompt(reach), Moment::Layer(_)) = (self.work, moment) else {
            return wrong("outside its layers");
        };
        if reach.left() > 0 || reach.done > 0 {
            return wrong("that is read in pieces");
        }
        let all: Vec<u32> = match self.way.rows.take() {
            Some(rows) => rows,
            None => (self.next_position..self.next_position + reach.n as u32).collect(),
        };
        let chosen: Vec<usize> = rows.iter().filter_map(|row| all.binary_search(row).ok()).collect();
        if chosen.len() != rows.len() || !rows.is_sorted_by(|a, b| a < b) || rows.last() != all.last() {
            return wrong("that are not on their way, or without the last");
        }
        (self.way.rows, self.way.chosen) = (Some(rows), Some(chosen));
        Ok(())
    }

    /// Of the rows that the last layer has read, the numbers of those that go on, once after a plan that ends the way of some.
    pub fn take_chosen(&mut self) -> Option<Vec<usize>> {
        self.way.chosen.take()
    }

    /// The positions of the `n` rows on their way, ascending.
    pub fn on_the_way(&self, n: usize) -> Vec<u32> {
        match self.way.rows() {
            Some(rows) => rows.to_vec(),
            None => (self.first_position()..).take(n).collect(),
        }
    }

    /// Where the rows on their way stand in the prompt, if not all of it is on its way.
    pub(super) fn offsets(&self) -> Option<impl Iterator<Item = usize> + '_> {
        let rows = self.way.rows()?;
        Some(rows.iter().map(|row| (row - self.next_position) as usize))
    }
}
