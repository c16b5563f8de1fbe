//! One lane: entries in exactly sized extents, then a tail that grows in small blocks.

use std::ops::Range;
use std::sync::Arc;

use prefixkv_kernels::codec::{Basis, Deletion, KvCodec};

use super::contents::Contents;
use super::memory::{Form, Memory};
use super::pool::{Account, Charge};
use super::recode::basis_bytes;
use super::segment::{Dead, Segment};
use super::twin::Forked;
use crate::device::Cpu;
use crate::error::{Error, Result};

/// Most entries by which the tail of a lane grows at once.
pub const TAIL_BLOCK: usize = 16;
/// The tail grows by about this part of the lane, so that a short lane's slack is as small as a long one's.
const GROWTH: usize = 80;
/// A tail segment smaller than this is enlarged by copying it; larger ones are left as they are and followed by another.
const TAIL_STRETCH: usize = 32;

/// When keys are rotated to their positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Before they are stored, to their place in the original sequence.
    #[default]
    Stored,
    /// Whenever they are read: to their rank among the entries that are left, or to their place in the original sequence.
    OnRead,
}

/// The contents of a lane, and how they are held.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    pub head_dim: usize,
    /// Of new entries, plain. All entries of a lane have its transforms.
    pub codec: KvCodec,
    /// Whether new values come through the Hadamard transform that is in the weights of the model. Values that are asked for are those
    /// before it.
    pub folded: bool,
    pub rotation: Rotation,
    /// Whether every entry has a score, a number that a method keeps.
    pub scored: bool,
}

/// The entries of one sequence, one layer and the KV heads `heads`, which share their positions.
///
/// Entries are named by their *place*: their number in the physical order in which attention reads them, deleted entries of
/// group formats included. Places change with every change of the lane.
#[derive(Debug)]
pub struct Lane<M: Memory = Cpu> {
    heads: Range<u32>,
    contents: Contents,
    pub(super) segments: Vec<Segment<M>>,
    pub(super) len: u32,
    /// Whether the last segment may be enlarged.
    tail: bool,
    /// Entries of a prompt that are still to come, for which the last segment has room.
    coming: u32,
    /// Most entries that there will be.
    limit: u32,
    /// Which places are deleted; empty while none is.
    pub(super) dead: Box<[bool]>,
    /// Those that its segments have of their own, counted.
    pub(super) bases: Box<[(Arc<Basis>, Charge)]>,
    pub(super) account: Account<M>,
    _metadata: Charge,
}

/// One entry of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the original sequence.
    pub position: u32,
    /// Its number in the order in which attention reads the lane.
    pub place: u32,
}

/// Consecutive entries of a lane in physical order: a place is a number over all of them.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub positions: &'a [u32],
    /// Carried scores; empty for a lane whose entries carry none.
    pub scores: &'a [f32],
    pub dead: Dead,
    /// Whether they are stored as new ones are.
    pub fresh: bool,
}

impl<M: Memory> Lane<M> {
    pub fn new(heads: Range<usize>, options: LaneOptions, account: Account<M>) -> Result<Self> {
        let charge = account.charge(size_of::<Lane<M>>() as u64)?;
        Ok(Lane {
            heads: heads.start as u32..heads.end as u32,
            contents: Contents::new(options)?,
            segments: Vec::new(),
            len: 0,
            tail: false,
            coming: 0,
            limit: u32::MAX,
            dead: Box::default(),
            bases: Box::default(),
            account,
            _metadata: charge,
        })
    }

    /// The same entries for another sequence, on its account: shared until one of the two changes them.
    pub fn fork(&self, account: &Account<M>) -> Result<Self> {
        self.fork_beside(account, &mut Forked::default())
    }

    /// As [`Lane::fork`]; `forked` has what other lanes of the sequence hold together with this one.
    pub fn fork_beside(&self, account: &Account<M>, forked: &mut Forked) -> Result<Self> {
        let mut lane = Lane::new(self.heads(), self.options(), account.clone())?;
        lane.segments.reserve_exact(self.segments.len());
        for segment in &self.segments {
            lane.segments.push(segment.fork(account, forked)?);
        }
        for (basis, _) in self.bases.iter() {
            lane.count_basis(basis)?;
        }
        (lane.len, lane.tail, lane.limit) = (self.len, self.tail, self.limit);
        lane.note_dead();
        Ok(lane)
    }

    pub(super) fn options(&self) -> LaneOptions {
        self.contents.options()
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The KV heads whose entries these are.
    pub fn heads(&self) -> Range<usize> {
        self.heads.start as usize..self.heads.end as usize
    }

    pub fn rotation(&self) -> Rotation {
        self.options().rotation
    }

    /// The positions of the entries, ascending.
    pub fn positions(&self) -> Vec<u32> {
        let mut positions: Vec<u32> = self.entries().map(|entry| entry.position).collect();
        positions.sort_unstable();
        positions
    }

    /// The entries in physical order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let slots = self.segments.iter().flat_map(|segment| {
            segment.positions().iter().enumerate().map(|(slot, position)| (*position, segment.dead().has(slot)))
        });
        slots
            .enumerate()
            .filter(|(_, (_, dead))| !dead)
            .map(|(place, (position, _))| Entry { position, place: place as u32 })
    }

    /// The entries of a segment, counted in physical order.
    pub fn part(&self, index: usize) -> Option<Part<'_>> {
        let segment = self.segments.get(index)?;
        let (positions, scores, dead) = (segment.positions(), segment.scores(), segment.dead());
        Some(Part { positions, scores, dead, fresh: segment.is_fresh(self.options().codec) })
    }

    /// The entries in the order of their positions.
    pub fn sorted(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.entries().collect();
        entries.sort_unstable_by_key(|entry| entry.position);
        entries
    }

    /// Places, those of deleted entries included.
    pub fn places(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }

    /// Bytes of the keys and values themselves, without scales.
    pub fn payload(&self) -> u64 {
        self.segments.iter().map(Segment::payload).sum()
    }

    /// Bytes of the scales of keys and values in codes.
    pub fn scales(&self) -> u64 {
        self.segments.iter().map(Segment::scales).sum()
    }

    /// The part of [`Lane::payload`] that is stored as new entries are.
    pub fn unencoded_payload(&self) -> u64 {
        self.fresh().map(Segment::payload).sum()
    }

    /// Numbers of the keys and values held.
    pub fn numbers(&self) -> u64 {
        self.segments.iter().map(Segment::numbers).sum()
    }

    /// How new entries are stored.
    pub fn codec(&self) -> KvCodec {
        self.options().codec
    }

    /// Entries that are stored as new ones are.
    pub fn unencoded(&self) -> usize {
        self.fresh().map(Segment::alive).sum()
    }

    fn fresh(&self) -> impl Iterator<Item = &Segment<M>> {
        let codec = self.options().codec;
        self.segments.iter().filter(move |segment| segment.is_fresh(codec))
    }

    /// Bytes of positions, scores and bookkeeping.
    pub fn metadata(&self) -> u64 {
        let bases = self.bases.iter().map(|(basis, _)| basis_bytes(basis)).sum::<u64>();
        size_of::<Lane<M>>() as u64 + bases + self.segments.iter().map(Segment::metadata).sum::<u64>()
    }

    /// Bytes of entries that are deleted but still stored, because their group is not empty.
    pub fn dead_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::dead_bytes).sum()
    }

    /// Bytes of segments that are those of other sequences too.
    pub fn shared_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::shared_bytes).sum()
    }

    /// Most entries that the lane will be asked to hold: its tail never has room for more.
    pub fn set_limit(&mut self, entries: usize) {
        self.limit = u32::try_from(entries).unwrap_or(u32::MAX);
    }

    /// The position of every place, those of deleted entries included.
    pub fn positions_in_order(&self) -> Vec<u32> {
        self.segments.iter().flat_map(Segment::positions).copied().collect()
    }

    /// The rank of every place among the entries by position; 0 for deleted ones.
    pub fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.places()];
        for (rank, entry) in self.sorted().into_iter().enumerate() {
            ranks[entry.place as usize] = rank as u32;
        }
        ranks
    }

    /// Adds a prompt's `n` entries at consecutive positions from `first` as an extent of exactly their number, physically
    /// behind all others. `new` holds all KV heads of the layer.
    pub fn append(&mut self, new: M::New<'_>, n: usize, first: u32) -> Result<()> {
        self.append_piece(new, n, first, 0)
    }

    /// As [`Lane::append`] for the next `n` entries of a prompt of which `after` more are to come, which then are the next to be
    /// appended: the first piece makes the extent of all.
    pub fn append_piece(&mut self, new: M::New<'_>, n: usize, first: u32, after: usize) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let (scored, rotate, heads) = (self.options().scored, self.rotates(), self.heads());
        match self.segments.last_mut().filter(|_| self.coming > 0) {
            Some(extent) => {
                let at = extent.extend(first..first + n as u32, scored)?;
                extent.write(new, rotate, heads, at)?;
                self.note_dead();
            }
            None => {
                let mut extent = self.segment(n + after)?;
                let at = extent.extend(first..first + n as u32, scored)?;
                extent.write(new, rotate, heads, at)?;
                self.push(extent);
            }
        }
        self.tail = false;
        self.coming = after as u32;
        self.len += n as u32;
        Ok(())
    }

    /// As [`Lane::append`] for a prompt of which only the rows at `positions`, ascending, have come this far.
    pub fn append_rows(&mut self, new: M::New<'_>, positions: &[u32]) -> Result<()> {
        let mut extent = self.segment(positions.len())?;
        let at = extent.extend(positions.iter().copied(), self.options().scored)?;
        extent.write(new, self.rotates(), self.heads(), at)?;
        self.push(extent);
        self.tail = false;
        self.len += positions.len() as u32;
        Ok(())
    }

    /// Adds one generated entry, in the place of a deleted one or at the tail; gives its place. `new` as in [`Lane::append`].
    pub fn append_one(&mut self, new: M::New<'_>, position: u32) -> Result<u32> {
        let codec = self.options().codec;
        let free = |segment: &Segment<M>| segment.is_fresh(codec) && segment.room() > 0;
        let index = match self.segments.iter().rposition(free) {
            Some(index) => index,
            None => {
                self.grow()?;
                self.segments.len() - 1
            }
        };
        self.segments[index].unshare(&self.account)?;
        let (scored, rotate, heads) = (self.options().scored, self.rotates(), self.heads());
        let at = self.segments[index].extend(position..position + 1, scored)?;
        self.segments[index].write(new, rotate, heads, at)?;
        self.len += 1;
        self.note_dead();
        let before: usize = self.segments[..=index].iter().map(Segment::len).sum();
        Ok(before as u32 - 1)
    }

    /// Whether keys are rotated before they are stored.
    fn rotates(&self) -> bool {
        self.options().rotation == Rotation::Stored
    }

    /// Whether the last segment may be enlarged.
    pub(super) fn has_tail(&self) -> bool {
        self.tail
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// The counts that go with segments that were put in by themselves.
    pub(super) fn set_counts(&mut self, len: u32, tail: bool, limit: u32) {
        (self.len, self.tail, self.limit) = (len, tail, limit);
        self.note_dead();
    }

    fn segment(&self, capacity: usize) -> Result<Segment<M>> {
        self.segment_in(self.options().codec, None, capacity)
    }

    pub(super) fn segment_in(&self, codec: KvCodec, basis: Option<Arc<Basis>>, capacity: usize) -> Result<Segment<M>> {
        let form =
            Form { codec, heads: self.heads.len(), dim: self.options().head_dim, capacity, basis: None, gains: None };
        Segment::new(&self.account, form, basis, self.options().scored)
    }

    fn push(&mut self, segment: Segment<M>) {
        // Exactly, because the pool counts exactly.
        self.segments.reserve_exact(1);
        self.segments.push(segment);
        self.note_dead();
    }

    /// Makes room for at least one entry at the end.
    fn grow(&mut self) -> Result<()> {
        // By its bytes, since the tail is in full precision and the rest may not be.
        let entry = self.options().codec.payload(self.heads.len(), self.options().head_dim);
        let whole = self.payload() as usize / entry.max(1);
        let step = (whole / GROWTH + 1).min(TAIL_BLOCK).min(self.limit.saturating_sub(self.len).max(1) as usize);
        let last = self.segments.last().filter(|last| self.tail && last.capacity() + step <= TAIL_STRETCH);
        let grown = match last {
            Some(last) => {
                let mut grown = self.segment(last.capacity() + step)?;
                let slots: Vec<u32> = (0..last.len() as u32).collect();
                grown.take(last, &slots, self.options().scored)?;
                self.segments.pop();
                grown
            }
            None => self.segment(step)?,
        };
        self.push(grown);
        self.tail = true;
        Ok(())
    }

    /// The segment and slot of a place.
    pub(super) fn find(&self, place: u32) -> Option<(usize, usize)> {
        let mut slot = place as usize;
        for (index, segment) in self.segments.iter().enumerate() {
            if slot < segment.len() {
                return Some((index, slot));
            }
            slot -= segment.len();
        }
        None
    }

    /// Deletes one entry.
    pub fn delete(&mut self, place: u32) -> Result<()> {
        let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
        if self.segments[index].dead().has(slot) {
            return Err(no_place(place));
        }
        if self.segments[index].alive() > 1 {
            self.segments[index].unshare(&self.account)?;
            self.segments[index].delete(slot)?;
        } else {
            self.segments.remove(index);
            self.segments.shrink_to_fit();
            self.tail &= index < self.segments.len();
            self.forget_bases();
        }
        self.len -= 1;
        self.note_dead();
        Ok(())
    }

    /// Keeps only the entries at `places`, in that order, which must be the order of their positions. They move to extents of
    /// exactly their size, one per codec; entries of group formats stay where they are. The old extents are freed at the end, so that for a
    /// moment this lane, and no other, is there twice.
    pub fn retain(&mut self, places: &[u32]) -> Result<()> {
        self.keep(places)?;
        self.forget_bases();
        Ok(())
    }

    /// As [`Lane::retain`], without a look at the bases.
    pub(super) fn keep(&mut self, places: &[u32]) -> Result<()> {
        let mut keep = vec![false; self.places()];
        let mut kinds: Vec<Moved> = Vec::new();
        for &place in places {
            let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
            if std::mem::replace(&mut keep[place as usize], true) || self.segments[index].dead().has(slot) {
                return Err(no_place(place));
            }
            if self.segments[index].deletion() == Deletion::Group {
                continue;
            }
            let codec = self.segments[index].codec();
            let kind = match kinds.iter().position(|kind| kind.codec == codec) {
                Some(kind) => kind,
                None => {
                    let basis = self.segments[index].basis().cloned();
                    kinds.push(Moved { codec, basis, entries: 0, slots: Vec::new() });
                    kinds.len() - 1
                }
            };
            kinds[kind].push(index, slot as u32);
        }
        // New entries' codec comes last, where the tail grows.
        kinds.sort_by_key(|kind| kind.codec == self.options().codec);
        let mut extents = Vec::new();
        for Moved { codec, basis, entries, slots } in kinds {
            let mut extent = self.segment_in(codec, basis, entries)?;
            for (index, slots) in slots {
                extent.take(&self.segments[index], &slots, self.options().scored)?;
            }
            extents.push(extent);
        }
        let mut start = 0;
        for segment in &mut self.segments {
            let kept = &keep[start..start + segment.len()];
            start += segment.len();
            if segment.deletion() == Deletion::Group && kept.contains(&true) {
                let dead = segment.dead();
                let mut gone = (0..kept.len()).filter(|slot| !kept[*slot] && !dead.has(*slot)).peekable();
                if gone.peek().is_some() {
                    segment.unshare(&self.account)?;
                    gone.try_for_each(|slot| segment.delete(slot))?;
                }
            }
        }
        let mut start = 0;
        self.segments.retain(|segment| {
            let kept = &keep[start..start + segment.len()];
            start += segment.len();
            segment.deletion() == Deletion::Group && kept.contains(&true)
        });
        self.segments.shrink_to_fit();
        extents.into_iter().for_each(|extent| self.push(extent));
        self.tail = false;
        self.len = places.len() as u32;
        self.note_dead();
        Ok(())
    }

    /// The scores of all places in physical order; empty for a lane without scores.
    pub fn scores(&self) -> Vec<f32> {
        self.segments.iter().flat_map(|segment| segment.scores()).copied().collect()
    }

    /// Changes the scores; `change` gets the place and the score.
    pub fn update_scores(&mut self, mut change: impl FnMut(usize, &mut f32)) {
        let mut place = 0;
        for segment in &mut self.segments {
            for score in segment.scores_mut() {
                change(place, score);
                place += 1;
            }
        }
    }

    /// Sets the score of the entry at `place`, if there is one.
    pub(crate) fn set_score(&mut self, place: u32, score: f32) {
        if let Some((index, slot)) = self.find(place)
            && let Some(at) = self.segments[index].scores_mut().get_mut(slot)
        {
            *at = score;
        }
    }

    pub(super) fn note_dead(&mut self) {
        let of = |segment: &Segment<M>| {
            let dead = segment.dead();
            (0..segment.len()).map(move |slot| dead.has(slot))
        };
        let any = self.segments.iter().any(|segment| segment.dead().any());
        self.dead = if any { self.segments.iter().flat_map(of).collect() } else { Box::default() };
    }
}

/// Entries of one codec that stay, segment by segment.
struct Moved {
    codec: KvCodec,
    basis: Option<Arc<Basis>>,
    entries: usize,
    slots: Vec<(usize, Vec<u32>)>,
}

impl Moved {
    fn push(&mut self, index: usize, slot: u32) {
        self.entries += 1;
        match self.slots.last_mut() {
            Some((last, slots)) if *last == index => slots.push(slot),
            _ => self.slots.push((index, vec![slot])),
        }
    }
}

pub(super) fn no_place(place: u32) -> Error {
    Error::Internal(format!("a lane has no entry at place {place}, or it is named twice"))
}

#[cfg(test)]
mod tests;
