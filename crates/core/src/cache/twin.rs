//! Entries of two layers that are stored once.
//!
//! MiniCache keeps one unit direction for the rows that two layers have at a position, and for each layer how large its own is; a latent of two
//! layers is coordinates from which each of them has its keys and values by a basis of its own. So a
//! segment of one lane and a segment of another hold the same data: each of the two is a [`Twin`], with what it reads by and marks of its own
//! for the entries that its lane has let go. An entry's bytes are those of a lane until its other lane lets go of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prefixkv_kernels::codec::{Basis, Deletion, Gains, KvCodec};

use super::memory::{Entries, Form, Memory, Side};
use super::pool::{Account, Charge};
use super::segment::{COUNTS, Data, Dead, Segment};
use crate::error::{Error, Result};

/// Most entries that two lanes store together at once, a mark each.
pub(super) const TOGETHER: usize = Dead::MOST;

/// The rows that are stored once for two lanes.
#[derive(Clone, Debug, PartialEq)]
pub enum Common {
    /// The direction that is `t` of the way, from 0 to 1, from the first lane's to the second's, and the size of either's row.
    Direction { t: f64 },
    /// The sum of the coordinates of both in a basis of each, of as many.
    Coordinates { bases: [Arc<Basis>; 2] },
}

/// The part that is of one of two lanes.
#[derive(Debug)]
pub(super) struct Twin {
    both: Arc<Both>,
    /// Which of the two, 0 or 1.
    side: usize,
    own: Own,
}

/// The way in which a lane reads its rows.
#[derive(Clone, Debug)]
enum Own {
    /// Factors of the keys, then of the values, `[heads, capacity]` each.
    Gains(Box<[f32]>),
    Basis(Arc<Basis>),
}

/// The part that two lanes of one sequence have together.
#[derive(Debug)]
pub(super) struct Both {
    /// For each of the two, the entries that its lane has let go; all of them, and the slots behind, once the lane is rid of the segment.
    gone: [AtomicU64; 2],
    /// The data on the account of the sequence.
    _charge: Charge,
}

/// All marks: of a lane that is rid of the segment.
const RID: u64 = u64::MAX;

impl Both {
    const BYTES: usize = size_of::<Both>() + COUNTS;

    fn gone(&self, side: usize) -> u64 {
        self.gone[side].load(Ordering::Relaxed)
    }
}

/// The twins of a sequence that have been copied for a fork of it, by those of the first.
#[derive(Debug, Default)]
pub struct Forked(Vec<(usize, Arc<Both>)>);

impl Twin {
    fn new(both: Arc<Both>, side: usize, own: Own) -> Box<Twin> {
        Box::new(Twin { both, side, own })
    }

    /// Factors of keys and of values.
    fn factors(&self) -> &[f32] {
        match &self.own {
            Own::Gains(gains) => gains,
            Own::Basis(_) => &[],
        }
    }

    /// Bytes that are of this lane alone.
    fn own_bytes(&self) -> usize {
        size_of::<Twin>() + size_of_val(self.factors())
    }

    /// The basis in which this lane reads.
    pub(super) fn basis(&self) -> Option<&Arc<Basis>> {
        match &self.own {
            Own::Gains(_) => None,
            Own::Basis(basis) => Some(basis),
        }
    }

    /// Whether this lane answers for what is there once.
    pub(super) fn answers(&self) -> bool {
        self.side == 0 || self.both.gone(0) == RID
    }

    fn other(&self) -> u64 {
        self.both.gone(1 - self.side)
    }

    /// Marks of the entries that this lane has let go.
    pub(super) fn dead(&self) -> Dead {
        Dead(self.both.gone(self.side))
    }

    pub(super) fn delete(&self, slot: usize) {
        self.both.gone[self.side].fetch_or(1 << slot, Ordering::Relaxed);
    }

    /// Of `len` entries those whose bytes count in this lane: both lanes have them and this one answers, or the other has let go of them.
    pub(super) fn counted(&self, len: usize) -> usize {
        let all = if len == TOGETHER { RID } else { (1 << len) - 1 };
        let others = if self.side == 0 { 0 } else { !self.other() };
        (all & !self.both.gone(self.side) & !others).count_ones() as usize
    }

    /// Of `len` entries those that both lanes have let go, where this lane answers for them.
    pub(super) fn unused(&self, len: usize) -> usize {
        let all = if len == TOGETHER { RID } else { (1 << len) - 1 };
        if self.answers() { (all & self.both.gone(self.side) & self.other()).count_ones() as usize } else { 0 }
    }

    pub(super) fn gains(&self) -> Option<Gains<'_>> {
        let Own::Gains(gains) = &self.own else { return None };
        let (keys, values) = gains.split_at(gains.len() / 2);
        Some(Gains { keys, values })
    }

    /// Bytes of the factors of the entries that its lane has.
    pub(super) fn gain_bytes(&self, alive: usize, capacity: usize) -> u64 {
        (size_of_val(self.factors()) / capacity.max(1) * alive) as u64
    }

    /// How many segments of the sequence hold the data.
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.both)
    }

    /// Bytes of bookkeeping: this lane's, and what is there once where this lane answers for it.
    pub(super) fn bookkeeping(&self, data: usize) -> usize {
        size_of::<Twin>() + if self.answers() { Both::BYTES + data } else { 0 }
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        self.both.gone[self.side].store(RID, Ordering::Relaxed);
    }
}

/// Keys and values of some entries of a lane, as they are stored: `[entries, heads, dim]`.
struct Rows {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Rows {
    fn read<M: Memory>(segments: &[Segment<M>], rows: &[(usize, u32)], width: usize) -> Result<Rows> {
        let mut read =
            Rows { keys: Vec::with_capacity(rows.len() * width), values: Vec::with_capacity(rows.len() * width) };
        for of in rows.chunk_by(|a, b| a.0 == b.0) {
            let slots: Vec<u32> = of.iter().map(|(_, slot)| *slot).collect();
            let segment = &segments[of[0].0];
            read.keys.extend(segment.entries().read(segment.form(), Side::Keys, &slots)?);
            read.values.extend(segment.entries().read(segment.form(), Side::Values, &slots)?);
        }
        Ok(read)
    }
}

/// The direction between two rows, of length 1, and the lengths of the two: the point of the arc from the first to the second that is `t` of the
/// way. Where they are nearly parallel, or nearly opposite, so that there is no one arc, it is on the line between them; and of two of which one is
/// nothing it is the other's.
pub(super) fn between(first: &[f32], second: &[f32], t: f64, to: &mut [f32]) -> [f32; 2] {
    let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let sizes = [norm(first), norm(second)];
    let unit = |size: f64| if size > 0.0 { 1.0 / size } else { 0.0 };
    let [a, b] = sizes.map(unit);
    let cosine: f64 = first.iter().zip(second).map(|(x, y)| f64::from(*x) * a * f64::from(*y) * b).sum();
    let angle = cosine.clamp(-1.0, 1.0).acos();
    let sine = angle.sin();
    let weights = match sizes.map(|size| size > 0.0) {
        [true, true] if sine > 1e-4 => [((1.0 - t) * angle).sin() / sine, (t * angle).sin() / sine],
        [true, true] => [1.0 - t, t],
        // A row of nothing has no direction.
        _ => [1.0, 1.0],
    };
    let mixed =
        || first.iter().zip(second).map(|(x, y)| weights[0] * a * f64::from(*x) + weights[1] * b * f64::from(*y));
    let length = unit(mixed().map(|x| x * x).sum::<f64>().sqrt());
    to.iter_mut().zip(mixed()).for_each(|(to, x)| *to = (x * length) as f32);
    sizes.map(|size| size as f32)
}

/// The directions between the keys and the values of two lanes, `[entries, heads, dim]`, and the factors of either lane.
fn directions([first, second]: &[Rows; 2], form: Form<'_>, t: f64) -> ([Vec<f32>; 2], [Own; 2]) {
    let Form { heads, dim, capacity, .. } = form;
    let mut gains = [(); 2].map(|()| vec![0.0; 2 * heads * capacity].into_boxed_slice());
    let mut mix = |first: &[f32], second: &[f32], behind: usize| {
        let mut mixed = vec![0.0; first.len()];
        let pairs = first.chunks_exact(dim).zip(second.chunks_exact(dim)).zip(mixed.chunks_exact_mut(dim));
        for (index, ((first, second), to)) in pairs.enumerate() {
            let (slot, head) = (index / heads, index % heads);
            let sizes = between(first, second, t, to);
            gains.iter_mut().zip(sizes).for_each(|(gains, size)| gains[(behind + head) * capacity + slot] = size);
        }
        mixed
    };
    let mixed = [mix(&first.keys, &second.keys, 0), mix(&first.values, &second.values, heads)];
    (mixed, gains.map(Own::Gains))
}

/// The coordinates of two lanes together, `[rows, entries, width]`.
fn coordinates(lanes: &[Rows; 2], form: Form<'_>, bases: &[Arc<Basis>; 2]) -> Result<Vec<f32>> {
    let Form { heads, dim, capacity, .. } = form;
    let by_head = |rows: &[f32]| -> Vec<f32> {
        let one = |head: usize| rows.chunks_exact(dim).skip(head).step_by(heads).flatten().copied();
        (0..heads).flat_map(one).collect()
    };
    let mut sum: Vec<f32> = Vec::new();
    for (Rows { keys, values }, basis) in lanes.iter().zip(bases) {
        let own = basis.coordinates(&by_head(keys), &by_head(values), capacity);
        let own =
            own.ok_or_else(|| Error::Internal("a basis in which keys and values have nothing together".into()))?;
        sum.resize(own.len(), 0.0);
        sum.iter_mut().zip(own).for_each(|(sum, x)| *sum += x);
    }
    Ok(sum)
}

impl<M: Memory> Segment<M> {
    /// Stores entries of two lanes once, in `codec`, for both of them: entries of `from` by segment and slot, as many of each lane and
    /// at most [`TOGETHER`], at the same positions.
    pub(super) fn twins(
        account: &Account<M>,
        form: Form<'_>,
        from: [&[Segment<M>]; 2],
        rows: [&[(usize, u32)]; 2],
        common: &Common,
        scored: [bool; 2],
    ) -> Result<[Self; 2]> {
        let Form { codec, heads, dim, capacity, .. } = form;
        let sized = rows.iter().all(|rows| rows.len() == capacity) && (1..=TOGETHER).contains(&capacity);
        let read = match common {
            Common::Direction { .. } => M::READS_GAINS && codec.basis.is_none(),
            Common::Coordinates { bases: [first, second] } => {
                let (based, other) = (first.based(), second.based());
                let alike = based.is_shared() && (based.keys, based.values) == (other.keys, other.values);
                let shapes = [first.shape(), second.shape()] == [(heads, dim); 2];
                M::READS_BASES && alike && shapes && codec.basis == Some(based)
            }
        };
        if !sized || !read || codec.deletion() == Deletion::Group {
            return Err(Error::Internal(format!("{capacity} entries of two lanes to be stored once in {codec:?}")));
        }
        codec.check(dim).map_err(|reason| Error::Internal(format!("entries that cannot be stored: {reason}")))?;
        let positions: Vec<u32> =
            rows[0].iter().map(|(index, slot)| from[0][*index].positions()[*slot as usize]).collect();
        let width = heads * dim;
        let lanes = [Rows::read(from[0], rows[0], width)?, Rows::read(from[1], rows[1], width)?];
        let whole = form.bytes() + Data::<M>::bookkeeping(capacity);
        let (charge, pooled) = account.charge((whole + Both::BYTES) as u64)?.share(whole as u64);
        let mut data = Data::new(form, None, pooled, |memory| M::allocate(memory, form), account)?;
        positions.iter().try_for_each(|position| data.push(*position))?;
        let [first, second] = match common {
            Common::Direction { t } => {
                let ([keys, values], gains) = directions(&lanes, form, *t);
                let slots: Vec<u32> = (0..capacity as u32).collect();
                data.entries.overwrite(form, &slots, &keys, &values)?;
                gains
            }
            Common::Coordinates { bases } => {
                data.entries.fill(form, &coordinates(&lanes, form, bases)?)?;
                bases.clone().map(Own::Basis)
            }
        };
        let both = Arc::new(Both { gone: Default::default(), _charge: charge });
        let data = Arc::new(data);
        let scores = |side: usize| {
            let of =
                |(index, slot): &(usize, u32)| from[side][*index].scores().get(*slot as usize).copied().unwrap_or(0.0);
            if scored[side] { rows[side].iter().map(of).collect() } else { Vec::new() }
        };
        Ok([
            Segment::twin(account, data.clone(), Twin::new(both.clone(), 0, first), scores(0))?,
            Segment::twin(account, data, Twin::new(both, 1, second), scores(1))?,
        ])
    }

    fn twin(account: &Account<M>, data: Arc<Data<M>>, twin: Box<Twin>, scores: Vec<f32>) -> Result<Self> {
        let own = Self::own_bytes(scores.capacity()) + twin.own_bytes();
        let charge = account.charge(own as u64)?;
        Ok(Segment { data, scores, twin: Some(twin), _charge: charge })
    }

    /// The same entries for another sequence; `forked` has the twins of the segments that were copied for it before.
    pub(super) fn fork_twin(&self, twin: &Twin, account: &Account<M>, forked: &mut Forked) -> Result<Self> {
        let number = Arc::as_ptr(&twin.both) as usize;
        let both = match forked.0.iter().find(|(known, _)| *known == number) {
            Some((_, both)) => both.clone(),
            None => {
                let charge = account.join(&self.data.pooled, Both::BYTES as u64)?;
                let gone = [0, 1].map(|side| AtomicU64::new(twin.both.gone(side)));
                let both = Arc::new(Both { gone, _charge: charge });
                forked.0.push((number, both.clone()));
                both
            }
        };
        let copy = Twin::new(both, twin.side, twin.own.clone());
        Segment::twin(account, self.data.clone(), copy, self.copied_scores())
    }

    /// Replaces entries of this lane alone: it gets rows of its own, and the other lane keeps what it has. Coordinates are of both lanes, and
    /// none of one alone would bring its rows back.
    pub(super) fn overwrite_twin(
        &mut self,
        account: &Account<M>,
        slots: &[u32],
        keys: &[f32],
        values: &[f32],
    ) -> Result<()> {
        let Form { codec, heads, dim, capacity, .. } = self.sizes();
        let Some(twin) = &self.twin else { return Err(Error::Internal("a segment of one lane has no twin".into())) };
        let Own::Gains(gains) = &twin.own else {
            return Err(Error::Plan {
                reason: "it merges into entries that two layers hold as one row of coordinates, which none of them can change alone".into(),
            });
        };
        let mut gains = gains.clone();
        let mut units = |rows: &[f32], behind: usize| {
            let mut units = rows.to_vec();
            for (index, row) in units.chunks_exact_mut(dim).enumerate() {
                let (slot, head) = (slots[index / heads] as usize, index % heads);
                let size = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                row.iter_mut().for_each(|x| *x = if size > 0.0 { (f64::from(*x) / size) as f32 } else { 0.0 });
                gains[(behind + head) * capacity + slot] = size as f32;
            }
            units
        };
        let (keys, values) = (units(keys, 0), units(values, heads));
        let form = Form { codec, heads, dim, capacity, basis: None, gains: None };
        let whole = form.bytes() + Data::<M>::bookkeeping(capacity);
        let (charge, pooled) = account.charge((whole + Both::BYTES) as u64)?.share(whole as u64);
        let mut data = Data::new(form, None, pooled, |_| self.data.entries.duplicate(), account)?;
        self.positions().iter().try_for_each(|position| data.push(*position))?;
        data.entries.overwrite(form, slots, &keys, &values)?;
        let gone = [AtomicU64::new(twin.both.gone(twin.side)), AtomicU64::new(RID)];
        let both = Arc::new(Both { gone, _charge: charge });
        *self = Segment::twin(account, Arc::new(data), Twin::new(both, 0, Own::Gains(gains)), self.copied_scores())?;
        Ok(())
    }

    /// How entries are deleted.
    pub(super) fn deletion(&self) -> Deletion {
        if self.twin.is_some() { Deletion::Group } else { self.codec().deletion() }
    }

    /// Whether entries are stored as new ones are, in `codec`.
    pub(super) fn is_fresh(&self, codec: KvCodec) -> bool {
        self.twin.is_none() && self.codec() == codec
    }
}
