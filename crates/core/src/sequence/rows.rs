//! Rows of a prompt that go no further: what a plan says of them, and which are on their way.

use super::{Sequence, Work};
use crate::cache::Memory;
use crate::error::{Error, Result};
use crate::method::Moment;
use crate::method::pictures::{Pictures, Shown};
use crate::method::view::Sums;

/// The rows of a prompt that are on their way through the layers.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Their positions, ascending; None for all of the prompt.
    rows: Option<Vec<u32>>,
    /// Of the rows that the layer has read, the numbers of those that go on; until it is asked for.
    chosen: Option<Vec<usize>>,
    /// The images of the prompt, until the method has answered.
    shown: Option<Shown>,
}

impl Way {
    pub(super) fn rows(&self) -> Option<&[u32]> {
        self.rows.as_deref()
    }

    pub(super) fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }
}

impl<M: Memory> Sequence<M> {
    /// Carries out that only `rows` go on.
    pub(super) fn narrow(&mut self, moment: Moment, rows: Vec<u32>) -> Result<()> {
        let wrong = |reason: &str| Err(Error::Internal(format!("a plan for the rows of a prompt {reason}")));
        let (Work::Prompt(reach), Moment::Layer(_) | Moment::Images) = (self.work, moment) else {
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
        let before = moment == Moment::Images;
        let ends = if before { !rows.is_empty() } else { rows.last() == all.last() };
        if chosen.len() != rows.len() || !rows.is_sorted_by(|a, b| a < b) || !ends {
            return wrong("that are not on their way, or without the last");
        }
        // Before the first layer no others have come.
        (self.way.rows, self.way.chosen) = (Some(rows), (!before).then_some(chosen));
        Ok(())
    }

    /// How the method chooses the positions of images that come to a prompt's first layer; None where all of them do.
    pub fn pictures(&self) -> Option<&dyn Pictures> {
        self.method.as_ref()?.planner.pictures()
    }

    /// Between [`Sequence::begin_prompt`] and the first layer: the images of the prompt as they come to it, for a method that
    /// [chooses](Sequence::pictures) from them; None for a prompt without. Afterwards only the rows that go on are on their way.
    pub fn see_images(&mut self, shown: Option<Shown>) -> Result<()> {
        self.way.shown = shown;
        let seen = self.at(Moment::Images, Sums::None);
        self.way.shown = None;
        seen
    }

    /// Of the rows that the last layer has read, the numbers of those that go on, once after a plan that ends the way of some.
    pub fn take_chosen(&mut self) -> Option<Vec<usize>> {
        self.way.chosen.take()
    }

    /// How many positions a model must know to take `n` more: all that were seen and these, or as many ranks as there are then where
    /// keys are rotated to their ranks.
    pub fn reach(&self, n: usize) -> usize {
        match self.way.rows() {
            // As far as the last one, whoever is missing before it.
            Some([.., last]) => *last as usize + 1,
            _ if self.rotates_to_ranks() => n + self.longest_lane(),
            _ => n + self.first_position() as usize,
        }
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
