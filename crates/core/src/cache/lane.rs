//! One lane: entries in exactly sized extents, then a tail that grows in small blocks.

use std::ops::Range;

use super::memory::{Deletion, Entries as _, Memory, Side, Sizes};
use super::pool::{Account, Charge, Format};
use super::segment::Segment;
use crate::device::Cpu;
use crate::error::{Error, Result};

/// Most entries by which the tail of a lane grows at once.
pub const TAIL_BLOCK: usize = 16;
/// The tail grows by about this part of the lane, so that the slack of a short lane is as small as that of a long one.
const GROWTH: usize = 80;
/// A tail segment smaller than this is enlarged by copying it; larger ones are left as they are and followed by another.
const TAIL_STRETCH: usize = 32;

/// When keys are rotated to their positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Before they are stored, to their place in the original sequence.
    #[default]
    Stored,
    /// Whenever they are read, to their rank among the entries that are left.
    OnRead,
}

/// What a lane holds and how.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    pub head_dim: usize,
    pub format: Format,
    pub rotation: Rotation,
    /// Whether every entry has a mark, a number that a method keeps.
    pub marked: bool,
}

/// The entries of one sequence, one layer and the KV heads `heads`, which share their positions.
///
/// Entries are named by their *place*: their number in the physical order in which attention reads them, deleted entries of
/// group formats included. Places change with every change of the lane.
#[derive(Debug)]
pub struct Lane<M: Memory = Cpu> {
    pub(super) heads: Range<usize>,
    pub(super) options: LaneOptions,
    pub(super) segments: Vec<Segment<M>>,
    pub(super) len: usize,
    /// Whether the last segment may be enlarged.
    tail: bool,
    /// Entries of a prompt that are still to come, for which the last segment has room.
    coming: usize,
    /// Most entries that there will be.
    limit: usize,
    /// Which places are deleted; empty while none is.
    pub(super) dead: Vec<bool>,
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
    /// Which entries are deleted; None while none is.
    pub dead: Option<&'a [bool]>,
}

impl<M: Memory> Lane<M> {
    pub fn new(heads: Range<usize>, options: LaneOptions, account: Account<M>) -> Result<Self> {
        let charge = account.charge(size_of::<Lane<M>>() as u64)?;
        Ok(Lane {
            heads,
            options,
            segments: Vec::new(),
            len: 0,
            tail: false,
            coming: 0,
            limit: usize::MAX,
            dead: Vec::new(),
            account,
            _metadata: charge,
        })
    }

    /// The same entries for another sequence, on its account: shared until one of the two changes them.
    pub fn fork(&self, account: &Account<M>) -> Result<Self> {
        let mut lane = Lane::new(self.heads.clone(), self.options, account.clone())?;
        lane.segments.reserve_exact(self.segments.len());
        for segment in &self.segments {
            lane.segments.push(segment.fork(account)?);
        }
        (lane.len, lane.tail, lane.limit) = (self.len, self.tail, self.limit);
        lane.note_dead();
        Ok(lane)
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The KV heads whose entries these are.
    pub fn heads(&self) -> Range<usize> {
        self.heads.clone()
    }

    pub fn rotation(&self) -> Rotation {
        self.options.rotation
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
            segment.positions().iter().enumerate().map(|(slot, position)| (*position, segment.is_dead(slot)))
        });
        slots
            .enumerate()
            .filter(|(_, (_, dead))| !dead)
            .map(|(place, (position, _))| Entry { position, place: place as u32 })
    }

    /// The entries of a segment, counted in physical order.
    pub fn part(&self, index: usize) -> Option<Part<'_>> {
        let segment = self.segments.get(index)?;
        Some(Part { positions: segment.positions(), scores: segment.marks(), dead: segment.dead() })
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

    /// Bytes of the entries themselves.
    pub fn payload(&self) -> u64 {
        self.segments.iter().map(Segment::payload).sum()
    }

    /// Bytes of positions, marks and bookkeeping.
    pub fn metadata(&self) -> u64 {
        size_of::<Lane<M>>() as u64 + self.segments.iter().map(Segment::metadata).sum::<u64>()
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
        self.limit = entries;
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
        let (marked, rotate, heads) = (self.options.marked, self.rotates(), self.heads.clone());
        match self.segments.last_mut().filter(|_| self.coming > 0) {
            Some(extent) => {
                let at = extent.extend(first..first + n as u32, marked)?;
                extent.write(new, rotate, heads, at)?;
                self.note_dead();
            }
            None => {
                let mut extent = self.segment(n + after)?;
                let at = extent.extend(first..first + n as u32, marked)?;
                extent.write(new, rotate, heads, at)?;
                self.push(extent);
            }
        }
        self.tail = false;
        self.coming = after;
        self.len += n;
        Ok(())
    }

    /// As [`Lane::append`] for a prompt of which only the rows at `positions`, ascending, have come this far.
    pub fn append_rows(&mut self, new: M::New<'_>, positions: &[u32]) -> Result<()> {
        let mut extent = self.segment(positions.len())?;
        let at = extent.extend(positions.iter().copied(), self.options.marked)?;
        extent.write(new, self.rotates(), self.heads.clone(), at)?;
        self.push(extent);
        self.tail = false;
        self.len += positions.len();
        Ok(())
    }

    /// Adds one generated entry, in the place of a deleted one or at the tail; gives its place. `new` as in [`Lane::append`].
    pub fn append_one(&mut self, new: M::New<'_>, position: u32) -> Result<u32> {
        let free = |segment: &Segment<M>| segment.deletion() == Deletion::Entry && segment.room() > 0;
        let index = match self.segments.iter().rposition(free) {
            Some(index) => index,
            None => {
                self.grow()?;
                self.segments.len() - 1
            }
        };
        self.segments[index].unshare(&self.account)?;
        let at = self.segments[index].extend(position..position + 1, self.options.marked)?;
        let rotate = self.rotates();
        self.segments[index].write(new, rotate, self.heads.clone(), at)?;
        self.len += 1;
        self.note_dead();
        let before: usize = self.segments[..=index].iter().map(Segment::len).sum();
        Ok(before as u32 - 1)
    }

    /// Whether keys are rotated before they are stored.
    fn rotates(&self) -> bool {
        self.options.rotation == Rotation::Stored
    }

    fn segment(&self, capacity: usize) -> Result<Segment<M>> {
        let LaneOptions { head_dim: dim, format, marked, .. } = self.options;
        Segment::new(&self.account, format, Sizes { heads: self.heads.len(), dim, capacity }, marked)
    }

    pub(super) fn push(&mut self, segment: Segment<M>) {
        // Exactly, because the pool counts exactly.
        self.segments.reserve_exact(1);
        self.segments.push(segment);
        self.note_dead();
    }

    /// Makes room for at least one entry at the end.
    fn grow(&mut self) -> Result<()> {
        let step = (self.len / GROWTH + 1).min(TAIL_BLOCK).min(self.limit.saturating_sub(self.len).max(1));
        let last = self.segments.last().filter(|last| self.tail && last.capacity() + step <= TAIL_STRETCH);
        let grown = match last {
            Some(last) => {
                let mut grown = self.segment(last.capacity() + step)?;
                let slots: Vec<u32> = (0..last.len() as u32).collect();
                grown.take(last, &slots, self.options.marked)?;
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
    fn find(&self, place: u32) -> Option<(usize, usize)> {
        let mut slot = place as usize;
        for (index, segment) in self.segments.iter().enumerate() {
            if slot < segment.len() {
                return Some((index, slot));
            }
            slot -= segment.len();
        }
        None
    }

    /// The segment and slot of a place that is there.
    pub(super) fn locate(&self, place: u32) -> Result<(&Segment<M>, usize)> {
        let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
        Ok((&self.segments[index], slot))
    }

    /// Deletes one entry.
    pub fn delete(&mut self, place: u32) -> Result<()> {
        let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
        if self.segments[index].is_dead(slot) {
            return Err(no_place(place));
        }
        if self.segments[index].alive() > 1 {
            self.segments[index].unshare(&self.account)?;
            self.segments[index].delete(slot)?;
        } else {
            self.segments.remove(index);
            self.segments.shrink_to_fit();
            self.tail &= index < self.segments.len();
        }
        self.len -= 1;
        self.note_dead();
        Ok(())
    }

    /// Keeps only the entries at `places`, in that order, which is to be that of their positions. They move to an extent of
    /// exactly their size; entries of group formats stay where they are. The old extents are freed at the end, so that for a
    /// moment this lane, and no other, is there twice.
    pub fn retain(&mut self, places: &[u32]) -> Result<()> {
        let mut keep = vec![false; self.places()];
        let mut plain: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut moved = 0;
        for &place in places {
            let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
            if std::mem::replace(&mut keep[place as usize], true) || self.segments[index].is_dead(slot) {
                return Err(no_place(place));
            }
            if self.segments[index].deletion() == Deletion::Group {
                continue;
            }
            moved += 1;
            match plain.last_mut() {
                Some((last, slots)) if *last == index => slots.push(slot as u32),
                _ => plain.push((index, vec![slot as u32])),
            }
        }
        let mut extent = if moved > 0 { Some(self.segment(moved)?) } else { None };
        if let Some(extent) = &mut extent {
            for (index, slots) in &plain {
                extent.take(&self.segments[*index], slots, self.options.marked)?;
            }
        }
        let mut start = 0;
        for segment in &mut self.segments {
            let kept = &keep[start..start + segment.len()];
            start += segment.len();
            if segment.deletion() == Deletion::Group && kept.contains(&true) {
                let gone: Vec<usize> = (0..kept.len()).filter(|slot| !kept[*slot] && !segment.is_dead(*slot)).collect();
                if !gone.is_empty() {
                    segment.unshare(&self.account)?;
                    gone.into_iter().try_for_each(|slot| segment.delete(slot))?;
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
        if let Some(extent) = extent {
            self.push(extent);
        }
        self.tail = false;
        self.len = places.len();
        self.note_dead();
        Ok(())
    }

    /// The marks of all places in physical order; empty for a lane without marks.
    pub fn marks(&self) -> Vec<f32> {
        self.segments.iter().flat_map(|segment| segment.marks()).copied().collect()
    }

    /// Changes the marks; `change` gets the place and the mark.
    pub fn update_marks(&mut self, mut change: impl FnMut(usize, &mut f32)) {
        let mut place = 0;
        for segment in &mut self.segments {
            for mark in segment.marks_mut() {
                change(place, mark);
                place += 1;
            }
        }
    }

    /// Sets the mark of the entry at `place`, if there is one.
    pub(crate) fn set_mark(&mut self, place: u32, mark: f32) {
        if let Some((index, slot)) = self.find(place)
            && let Some(at) = self.segments[index].marks_mut().get_mut(slot)
        {
            *at = mark;
        }
    }

    /// The L2 norm of the key at `place`, averaged over the lane's heads.
    pub fn key_norm(&self, place: u32) -> Result<f32> {
        let (segment, slot) = self.locate(place)?;
        Ok(segment.key_norm(slot)? / self.heads.len() as f32)
    }

    /// The L2 norm of the key of every place, averaged over the lane's heads.
    pub fn key_norms(&self) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(self.places());
        for segment in &self.segments {
            let norms = segment.key_norms()?;
            let len = segment.len();
            out.extend((0..len).map(|slot| {
                let sum: f32 = (0..self.heads.len()).map(|head| norms[head * len + slot]).sum();
                sum / self.heads.len() as f32
            }));
        }
        Ok(out)
    }

    /// The keys of entries as attention reads them, `[entries, heads, head_dim]`.
    pub fn keys(&self, entries: &[Entry]) -> Result<Vec<f32>> {
        self.rows(entries, Side::Keys)
    }

    /// The values of entries, as [`Lane::keys`].
    pub fn values(&self, entries: &[Entry]) -> Result<Vec<f32>> {
        self.rows(entries, Side::Values)
    }

    fn rows(&self, entries: &[Entry], side: Side) -> Result<Vec<f32>> {
        let width = self.heads.len() * self.options.head_dim;
        let mut out = vec![0.0; entries.len() * width];
        // Segment by segment, so that a device is read once for each.
        let mut wanted: Vec<(Vec<u32>, Vec<usize>)> = vec![Default::default(); self.segments.len()];
        for (row, entry) in entries.iter().enumerate() {
            let (index, slot) = self.find(entry.place).ok_or_else(|| no_place(entry.place))?;
            wanted[index].0.push(slot as u32);
            wanted[index].1.push(row);
        }
        for (segment, (slots, rows)) in self.segments.iter().zip(&wanted) {
            if slots.is_empty() {
                continue;
            }
            let read = segment.entries().read(segment.sizes(), side, slots)?;
            for (row, from) in rows.iter().zip(read.chunks_exact(width)) {
                out[row * width..(row + 1) * width].copy_from_slice(from);
            }
        }
        Ok(out)
    }

    /// Replaces the key and the value of the entry at `place`, `[heads, head_dim]` each.
    pub fn overwrite(&mut self, place: u32, keys: &[f32], values: &[f32]) -> Result<()> {
        let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
        self.segments[index].unshare(&self.account)?;
        self.segments[index].overwrite(slot, keys, values)
    }

    fn note_dead(&mut self) {
        self.dead.clear();
        if self.segments.iter().any(|segment| segment.dead().is_some()) {
            let of = |segment: &Segment<M>| (0..segment.len()).map(|slot| segment.is_dead(slot)).collect::<Vec<_>>();
            self.dead.extend(self.segments.iter().flat_map(of));
        }
    }
}

fn no_place(place: u32) -> Error {
    Error::Internal(format!("a lane has no entry at place {place}, or it is named twice"))
}

#[cfg(test)]
mod tests {
    use prefixkv_kernels::attention::{AnyRun, Rows};
    use prefixkv_kernels::rotary::Angles;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::{New, Pool};

    const FREQUENCIES: [f32; 2] = [1.0, 0.01];
    const HEADS: usize = 2;
    const DIM: usize = 4;

    fn options(format: Format, marked: bool) -> LaneOptions {
        LaneOptions { head_dim: DIM, format, rotation: Rotation::Stored, marked }
    }

    fn lane(pool: &Pool, format: Format, marked: bool) -> Lane {
        Lane::new(0..HEADS, options(format, marked), pool.account()).expect("no cap")
    }

    fn data(position: u32) -> Vec<f32> {
        (0..HEADS * DIM).map(|i| ((position as usize * HEADS * DIM + i) % 251) as f32).collect()
    }

    fn add(lane: &mut Lane, first: u32, n: usize) {
        let data: Vec<f32> = (first..first + n as u32).flat_map(data).collect();
        let rows = Rows::dense(&data, HEADS * DIM);
        let angles = Angles::new(first..first + n as u32, &FREQUENCIES, 1.0);
        let new = New { keys: rows, values: rows, angles: Some(&angles) };
        if n == 1 {
            lane.append_one(new, first).expect("no cap");
        } else {
            lane.append(new, n, first).expect("no cap");
        }
    }

    /// The values of the entries by position, which tell whether an entry is where its position says.
    fn check(lane: &Lane, positions: &[u32]) {
        assert_eq!(lane.positions(), positions);
        assert_eq!(lane.len(), positions.len());
        let places: Vec<u32> = lane.entries().map(|entry| entry.position).collect();
        for head in 0..HEADS {
            let mut place = 0;
            for run in lane.view(None).runs {
                for slot in 0..run.len() {
                    let value = match run {
                        AnyRun::F32(run) => run.values[(head * run.capacity + slot) * DIM],
                        AnyRun::F16(run) => run.values[(head * run.capacity + slot) * DIM].to_f32(),
                        AnyRun::Int4(_) => unreachable!("no group here"),
                    };
                    assert_eq!(value, data(places[place])[head * DIM]);
                    place += 1;
                }
            }
        }
        let marks = lane.marks();
        assert!(marks.is_empty() || marks.len() == lane.places());
    }

    #[test]
    fn prompts_are_exact_and_tails_small() {
        for format in [Format::F32, Format::F16] {
            let pool = Pool::unlimited();
            let mut lane = lane(&pool, format, false);
            let mut next = 0;
            for n in [600, 1, 1, 17, 1, 5] {
                add(&mut lane, next, n);
                next += n as u32;
            }
            check(&lane, &(0..next).collect::<Vec<_>>());
            assert_eq!(lane.payload(), u64::from(next) * (2 * HEADS * DIM * format.bytes()) as u64);
            for _ in 0..100 {
                add(&mut lane, next, 1);
                next += 1;
                let slack = pool.used() - lane.payload() - lane.metadata();
                assert!(slack < (TAIL_BLOCK * 2 * HEADS * DIM * format.bytes()) as u64 * 3);
            }
            drop(lane);
            assert_eq!(pool.used(), 0);
        }
    }

    #[test]
    fn a_short_lane_grows_in_short_steps() {
        let pool = Pool::unlimited();
        let mut lane = lane(&pool, Format::F32, false);
        add(&mut lane, 0, 40);
        for next in 40..140 {
            add(&mut lane, next, 1);
            let slack = pool.used() - lane.payload() - lane.metadata();
            assert!(slack as f64 <= lane.payload() as f64 / 40.0, "{slack} of {}", lane.payload());
        }
        check(&lane, &(0..140).collect::<Vec<_>>());
    }

    #[test]
    fn a_lane_at_its_limit_has_no_room_to_spare() {
        let pool = Pool::unlimited();
        let mut lane = lane(&pool, Format::F32, false);
        lane.set_limit(100);
        add(&mut lane, 0, 90);
        (90..100).for_each(|next| add(&mut lane, next, 1));
        let at_limit = pool.used();
        assert_eq!(at_limit, lane.payload() + lane.metadata());
        for next in 100..150 {
            let oldest = lane.sorted()[4].place;
            lane.delete(oldest).expect("there");
            add(&mut lane, next, 1);
            assert_eq!(pool.used(), at_limit);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn any_history_leaves_the_right_entries(
            steps in prop::collection::vec((0usize..4, 0usize..40, any::<u64>()), 1..40), marked: bool, half: bool,
        ) {
            let pool = Pool::unlimited();
            let mut lane = lane(&pool, if half { Format::F16 } else { Format::F32 }, marked);
            let (mut held, mut next) = (Vec::<u32>::new(), 0u32);
            for (kind, n, seed) in steps {
                match kind {
                    0 if n > 0 => {
                        add(&mut lane, next, n);
                        held.extend(next..next + n as u32);
                        next += n as u32;
                    }
                    1 | 0 => {
                        add(&mut lane, next, 1);
                        held.push(next);
                        next += 1;
                    }
                    2 if !held.is_empty() => {
                        let index = (seed % held.len() as u64) as usize;
                        let entry = lane.sorted()[index];
                        assert_eq!(entry.position, held.remove(index));
                        lane.delete(entry.place).expect("there");
                    }
                    _ => {
                        let keep = |position: u32| (u64::from(position).wrapping_mul(seed | 1) >> 3) & 3 != 0;
                        held.retain(|position| keep(*position));
                        let places: Vec<u32> =
                            lane.sorted().into_iter().filter(|entry| keep(entry.position)).map(|entry| entry.place).collect();
                        lane.retain(&places).expect("all there");
                        assert_eq!(pool.used(), lane.payload() + lane.metadata(), "exact after compaction");
                    }
                }
                check(&lane, &held);
            }
            drop(lane);
            assert_eq!(pool.used(), 0);
        }
    }

    #[test]
    fn a_refused_append_leaves_the_lane_whole() {
        let entry = 2 * HEADS * DIM * 4;
        let pool = Pool::with_cap((size_of::<Lane>() + Segment::<Cpu>::metadata_of(10, false) + 15 * entry) as u64);
        let mut lane = lane(&pool, Format::F32, false);
        add(&mut lane, 0, 10);
        let data = vec![1.0; 64 * HEADS * DIM];
        let rows = Rows::dense(&data, HEADS * DIM);
        assert!(lane.append(New { keys: rows, values: rows, angles: None }, 10, 10).is_err());
        check(&lane, &(0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_place_that_is_not_there_is_refused() {
        let pool = Pool::unlimited();
        let mut lane = lane(&pool, Format::F32, true);
        add(&mut lane, 0, 5);
        assert!(lane.delete(5).is_err());
        assert!(lane.retain(&[1, 1]).is_err());
        check(&lane, &[0, 1, 2, 3, 4]);
    }
}
