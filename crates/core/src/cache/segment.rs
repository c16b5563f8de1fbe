//! Consecutive storage of a lane: what is allocated and freed at once.

use std::ops::Range;

use super::memory::{Deletion, Entries, Memory, Sizes};
use super::pool::{Account, Format};
use crate::device::Cpu;
use crate::error::Result;

/// The entries of some KV heads, `[heads, capacity, head_dim]` for keys and for values.
#[derive(Debug)]
pub(super) struct Segment<M: Memory = Cpu> {
    pub(super) entries: M::Entries,
    heads: u32,
    dim: u32,
    capacity: u32,
    alive: u32,
    /// The entries' places in the original sequence, in physical order.
    positions: Vec<u32>,
    /// A number per entry that a method keeps, or none.
    marks: Vec<f32>,
}

impl<M: Memory> Segment<M> {
    /// Bytes beside keys and values that a segment of `capacity` entries takes.
    pub(super) fn metadata_of(capacity: usize, marked: bool) -> usize {
        size_of::<Segment<M>>() + capacity * if marked { size_of::<u32>() + size_of::<f32>() } else { size_of::<u32>() }
    }

    /// Room for `sizes.capacity` entries.
    pub(super) fn new(account: &Account<M>, format: Format, sizes: Sizes, marked: bool) -> Result<Self> {
        let entries = M::allocate(account, format, sizes, Self::metadata_of(sizes.capacity, marked))?;
        Ok(Segment::of(entries, sizes, marked))
    }

    fn of(entries: M::Entries, sizes: Sizes, marked: bool) -> Self {
        Segment {
            entries,
            heads: sizes.heads as u32,
            dim: sizes.dim as u32,
            capacity: sizes.capacity as u32,
            alive: 0,
            positions: Vec::with_capacity(sizes.capacity),
            marks: Vec::with_capacity(if marked { sizes.capacity } else { 0 }),
        }
    }

    /// A segment of entries that are there; without marks that list is empty.
    pub(super) fn full(entries: M::Entries, sizes: Sizes, positions: &[u32], marks: &[f32]) -> Self {
        let mut segment = Segment::of(entries, sizes, !marks.is_empty());
        segment.positions.extend_from_slice(positions);
        segment.marks.extend_from_slice(marks);
        segment.alive = positions.len() as u32;
        segment
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes { heads: self.heads as usize, dim: self.dim as usize, capacity: self.capacity as usize }
    }

    pub(super) fn deletion(&self) -> Deletion {
        self.entries.deletion()
    }

    /// Entries stored, deleted ones included.
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Entries that count.
    pub(super) fn alive(&self) -> usize {
        self.alive as usize
    }

    pub(super) fn room(&self) -> usize {
        self.capacity() - self.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Bytes of the entries that count.
    pub(super) fn payload(&self) -> u64 {
        (f64::from(self.alive) * self.entries.entry_bytes(self.sizes())) as u64
    }

    /// Bytes of entries that are deleted but still stored.
    pub(super) fn dead_bytes(&self) -> u64 {
        ((self.len() - self.alive()) as f64 * self.entries.entry_bytes(self.sizes())) as u64
    }

    /// Bytes beside keys and values.
    pub(super) fn metadata(&self) -> u64 {
        Self::metadata_of(self.capacity(), self.marks.capacity() > 0) as u64
    }

    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    pub(super) fn marks(&self) -> &[f32] {
        &self.marks
    }

    pub(super) fn marks_mut(&mut self) -> &mut [f32] {
        &mut self.marks
    }

    /// Whether entry `slot` is deleted.
    pub(super) fn is_dead(&self, slot: usize) -> bool {
        self.dead().is_some_and(|dead| dead.get(slot).copied().unwrap_or(false))
    }

    /// Which entries are deleted; None while none is.
    pub(super) fn dead(&self) -> Option<&[bool]> {
        self.entries.dead()
    }

    /// Counts entries at `positions` behind the others; gives the slot of the first. There must be room.
    pub(super) fn extend(&mut self, positions: Range<u32>, marks: bool) -> usize {
        let at = self.len();
        self.positions.extend(positions);
        self.alive = self.positions.len() as u32;
        if marks {
            self.marks.resize(self.positions.len(), 0.0);
        }
        at
    }

    /// Writes entries of the KV heads `heads` that were counted, from slot `at` on; keys are rotated if `rotate`.
    pub(super) fn write(&mut self, new: M::New<'_>, rotate: bool, heads: Range<usize>, at: usize) -> Result<()> {
        let (sizes, n) = (self.sizes(), self.len() - at);
        M::write(&mut self.entries, sizes, new, rotate, n, heads, at)
    }

    /// Copies the entries `slots` of `from` behind the entries. Both must be plain and of one format, and there must be room.
    pub(super) fn take(&mut self, from: &Segment<M>, slots: &[u32], marked: bool) -> Result<()> {
        let (sizes, at) = (self.sizes(), self.len());
        self.entries.take(sizes, at, &from.entries, from.capacity(), slots)?;
        self.positions.extend(slots.iter().map(|slot| from.positions[*slot as usize]));
        self.alive = self.positions.len() as u32;
        if marked {
            self.marks.extend(slots.iter().map(|slot| from.marks.get(*slot as usize).copied().unwrap_or(0.0)));
        }
        Ok(())
    }

    /// Deletes entry `slot`.
    pub(super) fn delete(&mut self, slot: usize) {
        let (sizes, len) = (self.sizes(), self.len());
        let deleted = self.entries.delete(sizes, slot, len);
        if self.deletion() == Deletion::Group {
            self.alive -= u32::from(deleted);
            return;
        }
        self.positions.swap_remove(slot);
        if !self.marks.is_empty() {
            self.marks.swap_remove(slot);
        }
        self.alive = self.positions.len() as u32;
    }

    /// The L2 norm of every key, `[heads, len]`; of quantised keys as attention reads them.
    pub(super) fn key_norms(&self) -> Result<Vec<f32>> {
        self.entries.key_norms(self.sizes(), self.len())
    }

    /// The sum over the heads of the L2 norm of the key of entry `slot`.
    pub(super) fn key_norm(&self, slot: usize) -> Result<f32> {
        self.entries.key_norm(self.sizes(), slot, self.len())
    }
}
