//! Consecutive storage of a lane: what is allocated and freed at once.

use std::ops::Range;
use std::sync::Arc;

use super::memory::{Deletion, Entries, Memory, Sizes};
use super::pool::{Account, Charge, Format, Pooled};
use crate::device::Cpu;
use crate::error::{Error, Result};

/// One sequence's handle to entries of some KV heads, and what it alone knows of them.
///
/// The entries may be those of other sequences too, which have the same prefix: a writer first [gets its own](Segment::unshare).
#[derive(Debug)]
pub(super) struct Segment<M: Memory = Cpu> {
    data: Arc<Data<M>>,
    /// A number per entry that a method keeps, or none. Never shared: a generated token may change all of them.
    marks: Vec<f32>,
    _charge: Charge,
}

/// Entries of some KV heads, `[heads, capacity, head_dim]` for keys and for values.
#[derive(Debug)]
struct Data<M: Memory> {
    entries: M::Entries,
    heads: u32,
    dim: u32,
    capacity: u32,
    alive: u32,
    /// The entries' places in the original sequence, in physical order.
    positions: Vec<u32>,
    pooled: Pooled,
}

/// Bytes of the counts that an [`Arc`] keeps beside its value.
const COUNTS: usize = 2 * size_of::<usize>();

impl<M: Memory> Segment<M> {
    /// Bytes that a segment takes beside keys, values, positions and marks.
    pub(super) const BOOKKEEPING: usize = size_of::<Segment<M>>() + COUNTS + size_of::<Data<M>>();

    /// Bytes beside keys and values that a segment of `capacity` entries takes.
    pub(super) fn metadata_of(capacity: usize, marked: bool) -> usize {
        Self::BOOKKEEPING + capacity * if marked { size_of::<u32>() + size_of::<f32>() } else { size_of::<u32>() }
    }

    /// Room for `sizes.capacity` entries.
    pub(super) fn new(account: &Account<M>, format: Format, sizes: Sizes, marked: bool) -> Result<Self> {
        let bytes = sizes.elements() * format.bytes();
        Segment::of(account, sizes, bytes, marked, |memory| M::allocate(memory, format, sizes))
    }

    /// A segment without entries whose keys and values take `bytes`, which are counted before they are made.
    pub(super) fn of(
        account: &Account<M>,
        sizes: Sizes,
        bytes: usize,
        marked: bool,
        entries: impl FnOnce(&M) -> Result<M::Entries>,
    ) -> Result<Self> {
        let whole = bytes + Self::metadata_of(sizes.capacity, marked);
        let own = Self::own_bytes(if marked { sizes.capacity } else { 0 });
        let (charge, pooled) = account.charge(whole as u64)?.share((whole - own) as u64);
        let data = Data {
            entries: entries(account.memory())?,
            heads: sizes.heads as u32,
            dim: sizes.dim as u32,
            capacity: sizes.capacity as u32,
            alive: 0,
            positions: Vec::with_capacity(sizes.capacity),
            pooled,
        };
        let marks = Vec::with_capacity(if marked { sizes.capacity } else { 0 });
        Ok(Segment { data: Arc::new(data), marks, _charge: charge })
    }

    /// Bytes that are never shared.
    fn own_bytes(marks: usize) -> usize {
        size_of::<Segment<M>>() + marks * size_of::<f32>()
    }

    /// The same entries for another sequence: shared, unless something still waits to be done to them.
    pub(super) fn fork(&self, account: &Account<M>) -> Result<Self> {
        if !self.data.entries.is_settled() {
            return self.copy(account);
        }
        let charge = account.join(&self.data.pooled, Self::own_bytes(self.marks.capacity()) as u64)?;
        Ok(Segment { data: self.data.clone(), marks: self.copied_marks(), _charge: charge })
    }

    /// The same entries in memory of their own, on `account`.
    fn copy(&self, account: &Account<M>) -> Result<Self> {
        let Data { entries, alive, positions, pooled, .. } = &*self.data;
        let (sizes, len) = (self.sizes(), self.len());
        let bytes = pooled.bytes() as usize - (Self::metadata_of(sizes.capacity, false) - Self::own_bytes(0));
        let marked = self.marks.capacity() > 0;
        let mut copy = Segment::of(account, sizes, bytes, marked, |_| entries.duplicate(sizes, len))?;
        let data = copy.own()?;
        data.positions.extend_from_slice(positions);
        data.alive = *alive;
        copy.marks.extend_from_slice(&self.marks);
        Ok(copy)
    }

    fn copied_marks(&self) -> Vec<f32> {
        // To the byte, as they are counted.
        let mut marks = Vec::with_capacity(self.marks.capacity());
        marks.extend_from_slice(&self.marks);
        marks
    }

    /// Gets the sequence entries of its own before they change, if they are those of others too.
    pub(super) fn unshare(&mut self, account: &Account<M>) -> Result<()> {
        if self.is_shared() {
            *self = self.copy(account)?;
        }
        Ok(())
    }

    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.data) > 1
    }

    /// Bytes that are those of other sequences too.
    pub(super) fn shared_bytes(&self) -> u64 {
        if self.is_shared() { self.data.pooled.bytes() } else { 0 }
    }

    /// The entries, to change them.
    fn own(&mut self) -> Result<&mut Data<M>> {
        Arc::get_mut(&mut self.data)
            .ok_or_else(|| Error::Internal("entries of two sequences are about to change".into()))
    }

    pub(super) fn entries(&self) -> &M::Entries {
        &self.data.entries
    }

    /// The entries, to change them; None where they are those of others too.
    pub(super) fn entries_mut(&mut self) -> Option<&mut M::Entries> {
        Arc::get_mut(&mut self.data).map(|data| &mut data.entries)
    }

    /// Fills a segment of exactly their number with entries that are there; without marks that list is empty.
    pub(super) fn fill(&mut self, positions: &[u32], marks: &[f32]) -> Result<()> {
        let data = self.own()?;
        data.positions.extend_from_slice(positions);
        data.alive = positions.len() as u32;
        self.marks.extend_from_slice(marks);
        Ok(())
    }

    pub(super) fn sizes(&self) -> Sizes {
        let Data { heads, dim, capacity, .. } = &*self.data;
        Sizes { heads: *heads as usize, dim: *dim as usize, capacity: *capacity as usize }
    }

    pub(super) fn deletion(&self) -> Deletion {
        self.data.entries.deletion()
    }

    /// Entries stored, deleted ones included.
    pub(super) fn len(&self) -> usize {
        self.data.positions.len()
    }

    /// Entries that count.
    pub(super) fn alive(&self) -> usize {
        self.data.alive as usize
    }

    pub(super) fn room(&self) -> usize {
        self.capacity() - self.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.data.capacity as usize
    }

    /// Bytes of the entries that count.
    pub(super) fn payload(&self) -> u64 {
        (f64::from(self.data.alive) * self.data.entries.entry_bytes(self.sizes())) as u64
    }

    /// Bytes of entries that are deleted but still stored.
    pub(super) fn dead_bytes(&self) -> u64 {
        ((self.len() - self.alive()) as f64 * self.data.entries.entry_bytes(self.sizes())) as u64
    }

    /// Bytes beside keys and values.
    pub(super) fn metadata(&self) -> u64 {
        Self::metadata_of(self.capacity(), self.marks.capacity() > 0) as u64
    }

    pub(super) fn positions(&self) -> &[u32] {
        &self.data.positions
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
        self.data.entries.dead()
    }

    /// Counts entries at `positions` behind the others; gives the slot of the first. There must be room.
    pub(super) fn extend(&mut self, positions: impl IntoIterator<Item = u32>, marks: bool) -> Result<usize> {
        let at = self.len();
        let data = self.own()?;
        data.positions.extend(positions);
        data.alive = data.positions.len() as u32;
        if marks {
            self.marks.resize(self.len(), 0.0);
        }
        Ok(at)
    }

    /// Writes entries of the KV heads `heads` that were counted, from slot `at` on; keys are rotated if `rotate`.
    pub(super) fn write(&mut self, new: M::New<'_>, rotate: bool, heads: Range<usize>, at: usize) -> Result<()> {
        let (sizes, n) = (self.sizes(), self.len() - at);
        M::write(&mut self.own()?.entries, sizes, new, rotate, n, heads, at)
    }

    /// Copies the entries `slots` of `from` behind the entries. Both must be plain and of one format, and there must be room.
    pub(super) fn take(&mut self, from: &Segment<M>, slots: &[u32], marked: bool) -> Result<()> {
        let (sizes, at) = (self.sizes(), self.len());
        let data = self.own()?;
        data.entries.take(sizes, at, &from.data.entries, from.capacity(), slots)?;
        data.positions.extend(slots.iter().map(|slot| from.data.positions[*slot as usize]));
        data.alive = data.positions.len() as u32;
        if marked {
            self.marks.extend(slots.iter().map(|slot| from.marks.get(*slot as usize).copied().unwrap_or(0.0)));
        }
        Ok(())
    }

    /// Replaces the key and the value of entry `slot`.
    pub(super) fn overwrite(&mut self, slot: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let sizes = self.sizes();
        self.own()?.entries.overwrite(sizes, slot, keys, values)
    }

    /// Deletes entry `slot`.
    pub(super) fn delete(&mut self, slot: usize) -> Result<()> {
        let (sizes, len) = (self.sizes(), self.len());
        let data = self.own()?;
        let deleted = data.entries.delete(sizes, slot, len);
        if data.entries.deletion() == Deletion::Group {
            data.alive -= u32::from(deleted);
            return Ok(());
        }
        data.positions.swap_remove(slot);
        data.alive = data.positions.len() as u32;
        if !self.marks.is_empty() {
            self.marks.swap_remove(slot);
        }
        Ok(())
    }

    /// The L2 norm of every key, `[heads, len]`; of quantised keys as attention reads them.
    pub(super) fn key_norms(&self) -> Result<Vec<f32>> {
        self.data.entries.key_norms(self.sizes(), self.len())
    }

    /// The sum over the heads of the L2 norm of the key of entry `slot`.
    pub(super) fn key_norm(&self, slot: usize) -> Result<f32> {
        self.data.entries.key_norm(self.sizes(), slot, self.len())
    }
}
