//! Consecutive storage of a lane: what is allocated and freed at once.

use std::ops::Range;
use std::sync::Arc;

use prefixkv_kernels::codec::{Basis, Codec, Deletion, Dual, KvCodec};

use super::memory::{Entries, Form, Memory};
use super::pool::{Account, Charge, Pooled};
use super::twin::{Forked, Twin};
use crate::device::Cpu;
use crate::error::{Error, Result};

/// Which slots of a segment are deleted and still stored, a bit each: only those of one group ever are, of 64 entries at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dead(pub(super) u64);

impl Dead {
    /// Entries that a group of a codec may have.
    pub(super) const MOST: usize = u64::BITS as usize;

    pub fn any(self) -> bool {
        self.0 != 0
    }

    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn has(self, slot: usize) -> bool {
        self.0 != 0 && slot < Dead::MOST && self.0 >> slot & 1 == 1
    }
}

/// One sequence's handle to entries of some KV heads, and what it alone knows of them.
///
/// The entries may be those of other sequences too, which have the same prefix: a writer first [gets its own](Segment::unshare).
#[derive(Debug)]
pub(super) struct Segment<M: Memory = Cpu> {
    pub(super) data: Arc<Data<M>>,
    /// A number per entry that a method keeps, or none. Never shared: a generated token may change all of them.
    pub(super) scores: Vec<f32>,
    /// The part of this lane, where another lane of the sequence has the data too.
    pub(super) twin: Option<Box<Twin>>,
    pub(super) _charge: Charge,
}

/// Entries of some KV heads in one codec, of which a codec of groups has one group.
#[derive(Debug)]
pub(super) struct Data<M: Memory> {
    pub(super) entries: M::Entries,
    /// Of keys and of values: the codec without its basis, which is beside it, since every segment has one.
    codecs: [Codec; 2],
    dual: Dual,
    basis: Option<Arc<Basis>>,
    heads: u16,
    dim: u16,
    /// Entries stored.
    len: u32,
    dead: Dead,
    /// The entries' places in the original sequence, in physical order; behind them the room for more.
    positions: Box<[u32]>,
    pub(super) pooled: Pooled,
}

impl<M: Memory> Data<M> {
    /// Room for entries in a form, which has been counted.
    pub(super) fn new(
        form: Form<'_>,
        basis: Option<Arc<Basis>>,
        pooled: Pooled,
        entries: impl FnOnce(&M) -> Result<M::Entries>,
        account: &Account<M>,
    ) -> Result<Self> {
        let Form { codec, heads, dim, capacity, .. } = form;
        let narrow = |n| u16::try_from(n).map_err(|_| Error::Internal(format!("{heads} heads of {dim} elements")));
        Ok(Data {
            entries: entries(account.memory())?,
            codecs: [codec.key, codec.value],
            dual: codec.dual,
            basis,
            heads: narrow(heads)?,
            dim: narrow(dim)?,
            len: 0,
            dead: Dead::default(),
            positions: vec![0; capacity].into(),
            pooled,
        })
    }

    /// Bytes beside keys and values.
    pub(super) fn bookkeeping(capacity: usize) -> usize {
        COUNTS + size_of::<Data<M>>() + capacity * size_of::<u32>()
    }

    /// Counts one more entry.
    pub(super) fn push(&mut self, position: u32) -> Result<()> {
        let room = self.positions.len();
        let slot = self.positions.get_mut(self.len as usize);
        *slot.ok_or_else(|| Error::Internal(format!("more than {room} entries in a segment")))? = position;
        self.len += 1;
        Ok(())
    }
}

/// Bytes of the counts that an [`Arc`] keeps beside its value.
pub(super) const COUNTS: usize = 2 * size_of::<usize>();

impl<M: Memory> Segment<M> {
    /// Bytes that a segment takes beside keys, values, positions and scores.
    pub(super) const BOOKKEEPING: usize = size_of::<Segment<M>>() + COUNTS + size_of::<Data<M>>();

    /// Bytes beside keys and values that a segment of `capacity` entries takes.
    pub(super) fn metadata_of(capacity: usize, scored: bool) -> usize {
        Self::BOOKKEEPING + capacity * if scored { size_of::<u32>() + size_of::<f32>() } else { size_of::<u32>() }
    }

    /// Room for entries in a form, and in the basis that its codec names.
    pub(super) fn new(account: &Account<M>, form: Form<'_>, basis: Option<Arc<Basis>>, scored: bool) -> Result<Self> {
        let Form { codec, heads, dim, capacity, .. } = form;
        let fits = |basis: &Arc<Basis>| basis.shape() == (heads, dim) && M::READS_BASES;
        if basis.as_ref().map(|basis| basis.based()) != codec.basis || !basis.iter().all(fits) {
            return Err(Error::Internal(format!("entries of {heads} heads of {dim} in the basis {:?}", codec.basis)));
        }
        if let Err(reason) = codec.check(dim) {
            return Err(Error::Internal(format!("entries that cannot be stored: {reason}")));
        }
        if codec.deletion() == Deletion::Group && (capacity != codec.group() || capacity > Dead::MOST) {
            return Err(Error::Internal(format!("{capacity} entries for a group of {}", codec.group())));
        }
        Segment::of(account, form, basis, scored, |memory| M::allocate(memory, form))
    }

    /// A segment without entries, whose bytes are counted before `entries` takes them.
    fn of(
        account: &Account<M>,
        form: Form<'_>,
        basis: Option<Arc<Basis>>,
        scored: bool,
        entries: impl FnOnce(&M) -> Result<M::Entries>,
    ) -> Result<Self> {
        let capacity = form.capacity;
        let whole = form.bytes() + Self::metadata_of(capacity, scored);
        let own = Self::own_bytes(if scored { capacity } else { 0 });
        let (charge, pooled) = account.charge(whole as u64)?.share((whole - own) as u64);
        let data = Data::new(form, basis, pooled, entries, account)?;
        let scores = Vec::with_capacity(if scored { capacity } else { 0 });
        Ok(Segment { data: Arc::new(data), scores, twin: None, _charge: charge })
    }

    /// Bytes that are never shared.
    pub(super) fn own_bytes(scores: usize) -> usize {
        size_of::<Segment<M>>() + scores * size_of::<f32>()
    }

    /// The same entries for another sequence: shared, unless something still waits to be done to them. `forked` as in
    /// [`Segment::fork_twin`].
    pub(super) fn fork(&self, account: &Account<M>, forked: &mut Forked) -> Result<Self> {
        if let Some(twin) = &self.twin {
            return self.fork_twin(twin, account, forked);
        }
        if !self.data.entries.is_settled() {
            return self.copy(account);
        }
        let charge = account.join(&self.data.pooled, Self::own_bytes(self.scores.capacity()) as u64)?;
        Ok(Segment { data: self.data.clone(), scores: self.copied_scores(), twin: None, _charge: charge })
    }

    /// The same entries in memory of their own, on `account`.
    fn copy(&self, account: &Account<M>) -> Result<Self> {
        let Data { entries, dead, .. } = &*self.data;
        let form = self.form();
        let scored = self.scores.capacity() > 0;
        let mut copy = Segment::of(account, form, self.basis().cloned(), scored, |_| entries.duplicate())?;
        let data = copy.own()?;
        self.positions().iter().try_for_each(|position| data.push(*position))?;
        data.dead = *dead;
        copy.scores.extend_from_slice(&self.scores);
        Ok(copy)
    }

    pub(super) fn copied_scores(&self) -> Vec<f32> {
        // To the byte, as they are counted.
        let mut scores = Vec::with_capacity(self.scores.capacity());
        scores.extend_from_slice(&self.scores);
        scores
    }

    /// Gets the sequence entries of its own before they change, if they are those of others too. Entries of two lanes change in their marks
    /// alone, which are each lane's.
    pub(super) fn unshare(&mut self, account: &Account<M>) -> Result<()> {
        if self.twin.is_none() && self.is_shared() {
            *self = self.copy(account)?;
        }
        Ok(())
    }

    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.data) > self.twin.as_ref().map_or(1, |twin| twin.holders())
    }

    /// Whether bytes that are there once count here.
    fn answers(&self) -> bool {
        self.twin.as_ref().is_none_or(|twin| twin.answers())
    }

    /// Bytes that are those of other sequences too.
    pub(super) fn shared_bytes(&self) -> u64 {
        if self.answers() && self.is_shared() { self.data.pooled.bytes() } else { 0 }
    }

    /// The entries, to change them.
    fn own(&mut self) -> Result<&mut Data<M>> {
        own(&mut self.data)
    }

    pub(super) fn entries(&self) -> &M::Entries {
        &self.data.entries
    }

    /// The entries, to change them; None where they are those of others too.
    pub(super) fn entries_mut(&mut self) -> Option<&mut M::Entries> {
        Arc::get_mut(&mut self.data).map(|data| &mut data.entries)
    }

    pub(super) fn form(&self) -> Form<'_> {
        let gains = self.twin.as_ref().and_then(|twin| twin.gains());
        Form { basis: self.basis().map(Arc::as_ref), gains, ..self.sizes() }
    }

    /// As [`Segment::form`] for those who neither read nor encode.
    pub(super) fn sizes<'a>(&self) -> Form<'a> {
        let Data { heads, dim, ref positions, .. } = *self.data;
        let capacity = positions.len();
        Form { codec: self.codec(), heads: heads as usize, dim: dim as usize, capacity, basis: None, gains: None }
    }

    /// The basis that the codec names; of entries of two lanes this one's.
    pub(super) fn basis(&self) -> Option<&Arc<Basis>> {
        self.twin.as_ref().map_or(self.data.basis.as_ref(), |twin| twin.basis())
    }

    pub(super) fn codec(&self) -> KvCodec {
        let Data { codecs: [key, value], dual, .. } = *self.data;
        let basis = self.basis().map(|basis| basis.based());
        KvCodec { basis, ..KvCodec::new(key, value, dual) }
    }

    /// Entries stored, deleted ones included.
    pub(super) fn len(&self) -> usize {
        self.data.len as usize
    }

    /// Entries that count.
    pub(super) fn alive(&self) -> usize {
        self.len() - self.dead().count()
    }

    pub(super) fn room(&self) -> usize {
        self.capacity() - self.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.data.positions.len()
    }

    /// Entries that count whose bytes are not counted in another lane.
    fn counted(&self) -> usize {
        self.twin.as_ref().map_or(self.alive(), |twin| twin.counted(self.len()))
    }

    /// Bytes of the keys and values of the entries that count, without their scales.
    pub(super) fn payload(&self) -> u64 {
        let Form { codec, heads, dim, .. } = self.sizes();
        (self.counted() * codec.payload(heads, dim)) as u64
    }

    /// Bytes of the scales of the entries that count; a group's are shared out evenly. Factors of rows are scales.
    pub(super) fn scales(&self) -> u64 {
        let Form { codec, heads, dim, capacity, .. } = self.sizes();
        let gains = self.twin.as_ref().map_or(0, |twin| twin.gain_bytes(self.alive(), capacity));
        (self.counted() * codec.scales(heads, dim) / codec.group()) as u64 + gains
    }

    /// Bytes of entries that are deleted but still stored, their share of the scales included.
    pub(super) fn dead_bytes(&self) -> u64 {
        let Form { codec, heads, dim, capacity, .. } = self.sizes();
        match &self.twin {
            None => codec.bytes(heads, dim, self.len()) as u64 - self.payload() - self.scales(),
            Some(twin) => {
                let unused = codec.bytes(heads, dim, twin.unused(self.len())) as u64;
                unused + twin.gain_bytes(self.dead().count(), capacity)
            }
        }
    }

    /// Keys and values that count, as numbers.
    pub(super) fn numbers(&self) -> u64 {
        let Form { heads, dim, .. } = self.form();
        (2 * self.alive() * heads * dim) as u64
    }

    /// Bytes beside keys and values.
    pub(super) fn metadata(&self) -> u64 {
        let (capacity, scores) = (self.capacity(), self.scores.capacity());
        match &self.twin {
            None => Self::metadata_of(capacity, scores > 0) as u64,
            Some(twin) => (Self::own_bytes(scores) + twin.bookkeeping(Data::<M>::bookkeeping(capacity))) as u64,
        }
    }

    pub(super) fn positions(&self) -> &[u32] {
        &self.data.positions[..self.len()]
    }

    pub(super) fn scores(&self) -> &[f32] {
        &self.scores
    }

    pub(super) fn scores_mut(&mut self) -> &mut [f32] {
        &mut self.scores
    }

    /// Which entries are deleted and still stored.
    pub(super) fn dead(&self) -> Dead {
        self.twin.as_ref().map_or(self.data.dead, |twin| twin.dead())
    }

    /// Counts entries at `positions` behind the others; gives the slot of the first. There must be room.
    pub(super) fn extend(&mut self, positions: impl IntoIterator<Item = u32>, scored: bool) -> Result<usize> {
        let at = self.len();
        let data = self.own()?;
        positions.into_iter().try_for_each(|position| data.push(position))?;
        if scored {
            self.scores.resize(self.len(), 0.0);
        }
        Ok(at)
    }

    /// Puts in all bytes of the entries at once, and says which are deleted; they were counted before.
    pub(super) fn fill(&mut self, bytes: &[u8], dead: Dead) -> Result<()> {
        let form = self.sizes();
        let data = self.own()?;
        data.dead = dead;
        data.entries.set_bytes(form, bytes)
    }

    /// Writes entries of the KV heads `heads` that were counted, from slot `at` on; keys are rotated if `rotate`.
    pub(super) fn write(&mut self, new: M::New<'_>, rotate: bool, heads: Range<usize>, at: usize) -> Result<()> {
        let (form, n) = (self.sizes(), self.len() - at);
        if !form.codec.is_plain() {
            return Err(Error::Internal(format!("new entries in {:?}", form.codec)));
        }
        M::write(&mut self.own()?.entries, form, new, rotate, n, heads, at)
    }

    /// Copies the entries `slots` of `from` behind the entries. Both must be in one codec that is deleted from by entry, and there must
    /// be room.
    pub(super) fn take(&mut self, from: &Segment<M>, slots: &[u32], scored: bool) -> Result<()> {
        let (form, at) = (self.sizes(), self.len());
        if from.codec() != form.codec || self.deletion() == Deletion::Group {
            return Err(Error::Internal(format!("{:?} cannot be gathered from {:?}", form.codec, from.codec())));
        }
        self.own()?.entries.take(form, at, &from.data.entries, from.capacity(), slots)?;
        self.count(slots.iter().map(|slot| (from, *slot)), scored)
    }

    /// Writes entries of other segments, each one of `from` and a slot there, behind the entries in the codec of this one. There must
    /// be room.
    pub(super) fn encode(&mut self, from: &[Segment<M>], rows: &[(usize, u32)], scored: bool) -> Result<()> {
        let (at, basis) = (self.len(), self.basis().cloned());
        let form = Form { basis: basis.as_deref(), ..self.sizes() };
        let mut used: Vec<usize> = rows.iter().map(|(index, _)| *index).collect();
        used.sort_unstable();
        used.dedup();
        let sources: Vec<_> = used.iter().map(|index| (from[*index].entries(), from[*index].form())).collect();
        let number = |index: &usize| used.binary_search(index).unwrap_or_default() as u32;
        let numbered: Vec<(u32, u32)> = rows.iter().map(|(index, slot)| (number(index), *slot)).collect();
        self.own()?.entries.encode(form, at, &sources, &numbered)?;
        self.count(rows.iter().map(|(index, slot)| (&from[*index], *slot)), scored)
    }

    /// Positions and scores of entries that were copied behind the others.
    fn count<'a>(&mut self, rows: impl Iterator<Item = (&'a Segment<M>, u32)>, scored: bool) -> Result<()> {
        let data = own(&mut self.data)?;
        for (from, slot) in rows {
            data.push(from.positions()[slot as usize])?;
            if scored {
                self.scores.push(from.scores.get(slot as usize).copied().unwrap_or(0.0));
            }
        }
        Ok(())
    }

    /// Replaces keys and values of entries, of this sequence and lane alone; those that share their scales are encoded anew.
    pub(super) fn overwrite(
        &mut self,
        account: &Account<M>,
        slots: &[u32],
        keys: &[f32],
        values: &[f32],
    ) -> Result<()> {
        if self.twin.is_some() {
            return self.overwrite_twin(account, slots, keys, values);
        }
        self.unshare(account)?;
        let basis = self.basis().cloned();
        let form = Form { basis: basis.as_deref(), ..self.sizes() };
        self.own()?.entries.overwrite(form, slots, keys, values)
    }

    /// Deletes entry `slot`: the last one takes its slot, or it stays, masked, until its group is empty.
    pub(super) fn delete(&mut self, slot: usize) -> Result<()> {
        if let Some(twin) = &self.twin {
            twin.delete(slot);
            return Ok(());
        }
        let form = self.sizes();
        let data = self.own()?;
        if form.codec.deletion() == Deletion::Group {
            data.dead.0 |= 1 << slot;
            return Ok(());
        }
        let last = data.len as usize - 1;
        data.entries.replace(form, slot, last);
        data.positions[slot] = data.positions[last];
        data.len -= 1;
        if !self.scores.is_empty() {
            self.scores.swap_remove(slot);
        }
        Ok(())
    }

    /// The L2 norm of every key, `[heads, len]`; of quantised keys as attention reads them.
    pub(super) fn key_norms(&self) -> Result<Vec<f32>> {
        self.data.entries.key_norms(self.form(), self.len())
    }

    /// The sum over the heads of the L2 norm of the key of entry `slot`.
    pub(super) fn key_norm(&self, slot: usize) -> Result<f32> {
        self.data.entries.key_norm(self.form(), slot, self.len())
    }
}

fn own<T>(data: &mut Arc<T>) -> Result<&mut T> {
    Arc::get_mut(data).ok_or_else(|| Error::Internal("entries of two sequences are about to change".into()))
}
