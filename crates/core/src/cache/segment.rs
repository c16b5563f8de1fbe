//! Consecutive storage of a lane: what is allocated and freed at once.

use half::f16;
use prefixkv_kernels::attention::{AnyRun, Run};
use prefixkv_kernels::cuda;
use prefixkv_kernels::gather::{gather, key_norms};
use prefixkv_kernels::int4::{self, GROUP, Int4Mut, Int4Run};
use prefixkv_kernels::os::heap::Plain;
use prefixkv_kernels::rotary;

use super::gpu::{OnGpu, Sizes, Stored};
use super::pool::{Account, Buffer, Format};
use crate::error::{Error, Result};

/// How entries are deleted from a segment, by its storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The place of a deleted entry is taken by the last one, and used again by the next append.
    Entry,
    /// A deleted entry stays, masked, until all of its segment are deleted.
    Group,
}

/// Keys and values; in one buffer where they have one format, keys first, so that a short segment needs little bookkeeping.
#[derive(Debug)]
enum Store {
    F32(Buffer<f32>),
    F16(Buffer<f16>),
    Int4(Box<Int4>),
    Gpu(Box<OnGpu>),
}

#[derive(Debug)]
struct Int4 {
    key_codes: Buffer<u8>,
    key_ranges: Buffer<f16>,
    value_codes: Buffer<u8>,
    value_ranges: Buffer<f16>,
    /// Entries that are deleted but still stored.
    dead: Vec<bool>,
}

impl Int4 {
    fn run(&self) -> Int4Run<'_> {
        Int4Run {
            key_codes: &self.key_codes,
            key_ranges: &self.key_ranges,
            value_codes: &self.value_codes,
            value_ranges: &self.value_ranges,
        }
    }

    /// The L2 norm of the key of entry `slot` of a head, as attention reads it.
    fn key_norm(&self, head: usize, slot: usize, dim: usize) -> f32 {
        let mut key = vec![0.0; dim];
        self.run().keys(head, slot, dim, &mut key);
        key.iter().map(|x| x * x).sum::<f32>().sqrt()
    }
}

fn halves<T: Plain>(buffer: &Buffer<T>) -> (&[T], &[T]) {
    buffer.split_at(buffer.len() / 2)
}

fn halves_mut<T: Plain>(buffer: &mut Buffer<T>) -> (&mut [T], &mut [T]) {
    let half = buffer.len() / 2;
    buffer.split_at_mut(half)
}

/// The entries of some KV heads, `[heads, capacity, head_dim]` for keys and for values.
#[derive(Debug)]
pub(super) struct Segment {
    store: Store,
    heads: u32,
    dim: u32,
    capacity: u32,
    alive: u32,
    /// The entries' places in the original sequence, in physical order.
    positions: Vec<u32>,
    /// A number per entry that a method keeps, or none.
    marks: Vec<f32>,
}

/// Bookkeeping of a segment, whatever its capacity.
pub(crate) fn bookkeeping(on_gpu: bool) -> usize {
    size_of::<Segment>() + if on_gpu { size_of::<OnGpu>() } else { 0 }
}

/// Bytes beside keys and values that a segment of `capacity` entries takes.
pub(super) fn metadata(capacity: usize, marked: bool, on_gpu: bool) -> usize {
    bookkeeping(on_gpu) + capacity * if marked { size_of::<u32>() + size_of::<f32>() } else { size_of::<u32>() }
}

impl Segment {
    /// Room for `capacity` entries.
    pub(super) fn plain(
        account: &Account,
        format: Format,
        heads: usize,
        dim: usize,
        capacity: usize,
        marked: bool,
    ) -> Result<Self> {
        let elements = 2 * heads * capacity * dim;
        let metadata = metadata(capacity, marked, account.gpu().is_some());
        let store = match (account.gpu(), format) {
            (Some(gpu), _) => Store::Gpu(Box::new(OnGpu::new(account, gpu, format, elements, metadata)?)),
            (None, Format::F32) => Store::F32(account.allocate_with(elements, metadata)?),
            (None, Format::F16) => Store::F16(account.allocate_with(elements, metadata)?),
        };
        Ok(Segment::new(store, heads, dim, capacity, marked))
    }

    /// Quantises [`GROUP`] entries, `[heads, GROUP, head_dim]` each.
    pub(super) fn int4(
        account: &Account,
        heads: usize,
        dim: usize,
        keys: &[f32],
        values: &[f32],
        positions: &[u32],
        marks: &[f32],
    ) -> Result<Self> {
        let sizes = int4::sizes(heads, dim);
        let metadata = metadata(GROUP, !marks.is_empty(), false);
        let mut to = Int4 {
            key_codes: account.allocate_with(sizes.codes, metadata)?,
            key_ranges: account.allocate(sizes.key_ranges)?,
            value_codes: account.allocate(sizes.codes)?,
            value_ranges: account.allocate(sizes.value_ranges)?,
            dead: Vec::new(),
        };
        let target = Int4Mut {
            key_codes: &mut to.key_codes,
            key_ranges: &mut to.key_ranges,
            value_codes: &mut to.value_codes,
            value_ranges: &mut to.value_ranges,
        };
        int4::quantise(keys, values, heads, dim, target);
        let mut segment = Segment::new(Store::Int4(Box::new(to)), heads, dim, GROUP, !marks.is_empty());
        segment.positions.extend_from_slice(positions);
        segment.marks.extend_from_slice(marks);
        segment.alive = GROUP as u32;
        Ok(segment)
    }

    fn new(store: Store, heads: usize, dim: usize, capacity: usize, marked: bool) -> Self {
        Segment {
            store,
            heads: heads as u32,
            dim: dim as u32,
            capacity: capacity as u32,
            alive: 0,
            positions: Vec::with_capacity(capacity),
            marks: Vec::with_capacity(if marked { capacity } else { 0 }),
        }
    }

    /// Heads, head size and capacity.
    fn sizes(&self) -> (usize, usize, usize) {
        (self.heads as usize, self.dim as usize, self.capacity as usize)
    }

    pub(super) fn deletion(&self) -> Deletion {
        match self.store {
            Store::F32(_) | Store::F16(_) | Store::Gpu(_) => Deletion::Entry,
            Store::Int4(_) => Deletion::Group,
        }
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

    /// Bytes of the keys and values of one entry.
    fn entry_bytes(&self) -> f64 {
        let elements = f64::from(2 * self.heads * self.dim);
        match &self.store {
            Store::F32(_) => elements * 4.0,
            Store::F16(_) => elements * 2.0,
            Store::Gpu(store) => elements * store.number_bytes() as f64,
            Store::Int4(group) => {
                let codes = group.key_codes.len() + group.value_codes.len();
                let ranges = group.key_ranges.len() + group.value_ranges.len();
                (codes + 2 * ranges) as f64 / GROUP as f64
            }
        }
    }

    /// Bytes of the entries that count.
    pub(super) fn payload(&self) -> u64 {
        (f64::from(self.alive) * self.entry_bytes()) as u64
    }

    /// Bytes of entries that are deleted but still stored.
    pub(super) fn dead_bytes(&self) -> u64 {
        ((self.len() - self.alive()) as f64 * self.entry_bytes()) as u64
    }

    /// Bytes beside keys and values.
    pub(super) fn metadata(&self) -> u64 {
        metadata(self.capacity(), self.marks.capacity() > 0, matches!(self.store, Store::Gpu(_))) as u64
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
        matches!(&self.store, Store::Int4(group) if group.dead.get(slot).copied().unwrap_or(false))
    }

    /// Which entries are deleted; None while none is.
    pub(super) fn dead(&self) -> Option<&[bool]> {
        match &self.store {
            Store::Int4(group) if !group.dead.is_empty() => Some(&group.dead),
            _ => None,
        }
    }

    pub(super) fn has_dead(&self) -> bool {
        matches!(&self.store, Store::Int4(group) if !group.dead.is_empty())
    }

    /// What attention on the CPU reads.
    pub(super) fn view(&self) -> Result<AnyRun<'_>> {
        let (len, capacity) = (self.len(), self.capacity());
        Ok(match &self.store {
            Store::F32(buffer) => {
                let (keys, values) = halves(buffer);
                AnyRun::F32(Run { keys, values, len, capacity })
            }
            Store::F16(buffer) => {
                let (keys, values) = halves(buffer);
                AnyRun::F16(Run { keys, values, len, capacity })
            }
            Store::Int4(group) => AnyRun::Int4(group.run()),
            Store::Gpu(_) => return Err(Error::Internal("entries on a GPU cannot be read on the CPU".into())),
        })
    }

    /// What attention on a GPU reads.
    pub(super) fn gpu_view<T: Stored>(&self) -> Result<cuda::Run<'_, T>> {
        match &self.store {
            Store::Gpu(store) => store.run(self.len(), self.capacity()),
            _ => Err(Error::Internal("entries on the CPU cannot be read on a GPU".into())),
        }
    }

    /// The entries on a GPU, if they are there.
    pub(super) fn on_gpu(&mut self) -> Option<(&mut OnGpu, Sizes)> {
        let (heads, dim, capacity) = self.sizes();
        match &mut self.store {
            Store::Gpu(store) => Some((store, Sizes { heads, dim, capacity })),
            _ => None,
        }
    }

    /// Counts entries at `positions` behind the others; gives the slot of the first. There must be room.
    pub(super) fn extend(&mut self, positions: std::ops::Range<u32>, marks: bool) -> usize {
        let at = self.len();
        self.positions.extend(positions);
        self.alive = self.positions.len() as u32;
        if marks {
            self.marks.resize(self.positions.len(), 0.0);
        }
        at
    }

    /// Writes entries that were counted, from slot `at` on; without `rows` they will be written on the GPU.
    pub(super) fn write(
        &mut self,
        rows: Option<rotary::New<'_>>,
        heads: std::ops::Range<usize>,
        at: usize,
    ) -> Result<()> {
        let (dim, n) = (self.dim as usize, self.len() - at);
        let Some(rows) = rows else {
            return match &mut self.store {
                Store::Gpu(store) => store.reserve(at, n),
                _ => Err(Error::Internal("entries on the CPU need their rows".into())),
            };
        };
        match &mut self.store {
            Store::F32(buffer) => {
                let (keys, values) = halves_mut(buffer);
                rotary::append(rows, heads, dim, keys, values, at);
            }
            Store::F16(buffer) => {
                let (keys, values) = halves_mut(buffer);
                rotary::append(rows, heads, dim, keys, values, at);
            }
            Store::Int4(_) => return Err(Error::Internal("append to a quantised group".into())),
            Store::Gpu(_) => return Err(Error::Internal("rows of the CPU for entries on a GPU".into())),
        }
        Ok(())
    }

    /// Copies the entries `slots` of `from` behind the entries. Both must be plain and of one format, and there must be room.
    pub(super) fn take(&mut self, from: &Segment, slots: &[u32], marked: bool) -> Result<()> {
        let ((heads, dim, capacity), at) = (self.sizes(), self.len());
        match (&mut self.store, &from.store) {
            (Store::F32(to), Store::F32(buffer)) => {
                move_entries(halves(buffer), from.capacity(), slots, heads, dim, halves_mut(to), capacity, at);
            }
            (Store::F16(to), Store::F16(buffer)) => {
                move_entries(halves(buffer), from.capacity(), slots, heads, dim, halves_mut(to), capacity, at);
            }
            (Store::Gpu(to), Store::Gpu(store)) => {
                to.take(Sizes { heads, dim, capacity }, at, store, from.capacity(), slots)?;
            }
            _ => return Err(Error::Internal("entries of two formats cannot be gathered".into())),
        }
        self.positions.extend(slots.iter().map(|slot| from.positions[*slot as usize]));
        self.alive = self.positions.len() as u32;
        if marked {
            self.marks.extend(slots.iter().map(|slot| from.marks.get(*slot as usize).copied().unwrap_or(0.0)));
        }
        Ok(())
    }

    /// Deletes entry `slot`.
    pub(super) fn delete(&mut self, slot: usize) {
        let ((heads, dim, capacity), last) = (self.sizes(), self.len() - 1);
        match &mut self.store {
            // Keys and values together are twice the heads.
            Store::F32(buffer) => move_entry(buffer, 2 * heads, dim, capacity, last, slot),
            Store::F16(buffer) => move_entry(buffer, 2 * heads, dim, capacity, last, slot),
            Store::Gpu(store) => store.delete(slot, last),
            Store::Int4(group) => {
                group.dead.resize(self.positions.len(), false);
                if !std::mem::replace(&mut group.dead[slot], true) {
                    self.alive -= 1;
                }
                return;
            }
        }
        self.positions.swap_remove(slot);
        if !self.marks.is_empty() {
            self.marks.swap_remove(slot);
        }
        self.alive = self.positions.len() as u32;
    }

    /// The L2 norm of every key, `[heads, len]`; of quantised keys as attention reads them.
    pub(super) fn key_norms(&self) -> Result<Vec<f32>> {
        let (heads, dim, capacity) = self.sizes();
        let mut out = vec![0.0; heads * self.len()];
        match &self.store {
            Store::F32(buffer) => key_norms(halves(buffer).0, capacity, self.len(), heads, dim, &mut out),
            Store::F16(buffer) => key_norms(halves(buffer).0, capacity, self.len(), heads, dim, &mut out),
            Store::Int4(group) => {
                for (index, norm) in out.iter_mut().enumerate() {
                    *norm = group.key_norm(index / self.len(), index % self.len(), dim);
                }
            }
            Store::Gpu(store) => return store.key_norms(Sizes { heads, dim, capacity }, self.len()),
        }
        Ok(out)
    }

    /// The sum over the heads of the L2 norm of the key of entry `slot`.
    pub(super) fn key_norm(&self, slot: usize) -> Result<f32> {
        let (heads, dim, capacity) = self.sizes();
        let key = |head: usize| (head * capacity + slot) * dim..(head * capacity + slot + 1) * dim;
        if let Store::Gpu(_) = &self.store {
            let (norms, len) = (self.key_norms()?, self.len());
            return Ok((0..heads).map(|head| norms[head * len + slot]).sum());
        }
        let norm = |head: usize| -> f32 {
            let squares: f32 = match &self.store {
                Store::F32(buffer) => buffer[key(head)].iter().map(|x| x * x).sum(),
                Store::F16(buffer) => buffer[key(head)].iter().map(|x| x.to_f32() * x.to_f32()).sum(),
                Store::Int4(group) => return group.key_norm(head, slot, dim),
                Store::Gpu(_) => 0.0,
            };
            squares.sqrt()
        };
        Ok((0..heads).map(norm).sum())
    }

    /// Keys and values of entry `slot` as f32, to entry `to` of `[heads, GROUP, head_dim]`.
    pub(super) fn read(&self, slot: usize, to: usize, keys_to: &mut [f32], values_to: &mut [f32]) -> Result<()> {
        let (heads, dim, capacity) = self.sizes();
        for head in 0..heads {
            let from = (head * capacity + slot) * dim..(head * capacity + slot + 1) * dim;
            let at = (head * GROUP + to) * dim..(head * GROUP + to + 1) * dim;
            match &self.store {
                Store::F32(buffer) => {
                    let (keys, values) = halves(buffer);
                    keys_to[at.clone()].copy_from_slice(&keys[from.clone()]);
                    values_to[at].copy_from_slice(&values[from]);
                }
                Store::F16(buffer) => {
                    let (keys, values) = halves(buffer);
                    let widen = |(to, from): (&mut f32, &f16)| *to = from.to_f32();
                    keys_to[at.clone()].iter_mut().zip(&keys[from.clone()]).for_each(widen);
                    values_to[at].iter_mut().zip(&values[from]).for_each(widen);
                }
                Store::Int4(_) => return Err(Error::Internal("entries are quantised already".into())),
                Store::Gpu(_) => return Err(Error::Internal("entries on a GPU are not quantised".into())),
            }
        }
        Ok(())
    }
}

/// Copies entries of keys and values from one segment to another.
#[allow(clippy::too_many_arguments)]
fn move_entries<T: Copy + Send + Sync>(
    from: (&[T], &[T]),
    from_capacity: usize,
    slots: &[u32],
    heads: usize,
    dim: usize,
    to: (&mut [T], &mut [T]),
    capacity: usize,
    at: usize,
) {
    gather(from.0, from_capacity, slots, heads, dim, to.0, capacity, at);
    gather(from.1, from_capacity, slots, heads, dim, to.1, capacity, at);
}

fn move_entry<T: Copy>(data: &mut [T], heads: usize, dim: usize, capacity: usize, from: usize, to: usize) {
    if from == to {
        return;
    }
    for head in 0..heads {
        let start = (head * capacity + from) * dim;
        data.copy_within(start..start + dim, (head * capacity + to) * dim);
    }
}
