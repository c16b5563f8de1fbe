//! Sequences that go through the layers together.

use super::Sequence;
use crate::cache::Memory;
use crate::device::Cpu;
use crate::error::{Error, Result};

/// The rows of one pass through the layers.
pub enum Pass<'p, 's, M: Memory = Cpu> {
    /// The new positions of a prompt, all of one sequence.
    Prompt(&'p mut Sequence<M>),
    /// One generated token each.
    Step(&'p mut [BatchItem<'s, M>]),
}

/// A sequence of a batch.
pub struct BatchItem<'s, M: Memory = Cpu> {
    pub sequence: &'s mut Sequence<M>,
    /// The failure of this sequence alone. The sequence is left out from then on; its rows mean nothing.
    pub failed: Option<Error>,
}

impl<'s, M: Memory> BatchItem<'s, M> {
    pub fn new(sequence: &'s mut Sequence<M>) -> Self {
        BatchItem { sequence, failed: None }
    }

    /// Does what may fail for this sequence alone, unless something has.
    pub fn attempt(&mut self, work: impl FnOnce(&mut Sequence<M>) -> Result<()>) {
        if self.failed.is_none() {
            self.failed = work(self.sequence).err();
        }
    }
}

impl<M: Memory> Pass<'_, '_, M> {
    /// The sequences, in the order of their rows.
    pub fn sequences(&self) -> Vec<&Sequence<M>> {
        match self {
            Pass::Prompt(sequence) => vec![sequence],
            Pass::Step(members) => members.iter().map(|member| &*member.sequence).collect(),
        }
    }

    /// The layer whose entries `layer` reads: itself if one of the sequences keeps entries of its own there.
    pub fn source(&self, layer: usize) -> usize {
        // A source comes before its readers.
        match self {
            Pass::Prompt(sequence) => sequence.source(layer),
            Pass::Step(members) => {
                let working = members.iter().filter(|member| member.failed.is_none());
                working.map(|member| member.sequence.source(layer)).max().unwrap_or(layer)
            }
        }
    }

    /// After a layer, the numbers of the rows that go on, where the way of some of a prompt ends.
    pub fn take_chosen(&mut self) -> Option<Vec<usize>> {
        match self {
            Pass::Prompt(sequence) => sequence.take_chosen(),
            Pass::Step(_) => None,
        }
    }

    /// The sequence of a prompt whose store wants to know how large its rows are behind `layer`.
    pub(crate) fn watching(&mut self, layer: usize) -> Option<&mut Sequence<M>> {
        match self {
            Pass::Prompt(sequence) if sequence.watches(layer) => Some(sequence),
            _ => None,
        }
    }

    /// The sequence of a prompt whose store wants to know what keys and values are made from.
    pub(crate) fn seeing_inputs(&mut self) -> Option<&mut Sequence<M>> {
        match self {
            Pass::Prompt(sequence) if sequence.sees_inputs() => Some(sequence),
            _ => None,
        }
    }

    /// How many of the `rows` rows each sequence has.
    pub fn rows_each(&self, rows: usize) -> usize {
        match self {
            Pass::Prompt(_) => rows,
            Pass::Step(_) => 1,
        }
    }
}
