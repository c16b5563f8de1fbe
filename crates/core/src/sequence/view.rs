//! A sequence as its method sees it.

use std::ops::Range;

use crate::cache::{Entry, Lane, Memory};
use crate::error::Result;
use crate::method::view::{Part, ReadCache, ReadLane};

impl<M: Memory> ReadLane for Lane<M> {
    fn heads(&self) -> Range<usize> {
        Lane::heads(self)
    }

    fn len(&self) -> usize {
        Lane::len(self)
    }

    fn unencoded(&self) -> usize {
        Lane::unencoded(self)
    }

    fn part(&self, index: usize) -> Option<Part<'_>> {
        Lane::part(self, index)
    }

    fn key_norm(&self, place: u32) -> Result<f32> {
        Lane::key_norm(self, place)
    }

    fn key_norms(&self) -> Result<Vec<f32>> {
        Lane::key_norms(self)
    }

    fn at_once(&self) -> usize {
        M::READ_AT_ONCE
    }

    fn keys(&self, entries: &[Entry]) -> Result<Vec<f32>> {
        Lane::keys(self, entries)
    }

    fn values(&self, entries: &[Entry]) -> Result<Vec<f32>> {
        Lane::values(self, entries)
    }
}

/// The lanes of the layers that have some of their own.
pub(super) struct Held<'a, M: Memory> {
    pub layers: &'a [Vec<Lane<M>>],
    pub owners: &'a [usize],
}

impl<M: Memory> ReadCache for Held<'_, M> {
    fn layers(&self) -> usize {
        self.owners.len()
    }

    fn number(&self, layer: usize) -> usize {
        self.owners[layer]
    }

    fn lanes(&self, layer: usize) -> usize {
        self.layers[self.owners[layer]].len()
    }

    fn lane(&self, layer: usize, lane: usize) -> &dyn ReadLane {
        &self.layers[self.owners[layer]][lane]
    }
}
