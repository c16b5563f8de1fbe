//! Consecutive storage of a lane: what is allocated and freed at once.

use half::f16;
use prefixkv_kernels::attention::{AnyRun, Rows, Run};
use prefixkv_kernels::gather::{gather, key_norms};
use prefixkv_kernels::int4::{self, GROUP, Int4Mut, Int4Run};
use prefixkv_kernels::rotary::{self, Angles};

use super::pool::{Account, Buffer, Charge, Format};
use crate::error::{Error, Result};

/// How entries are deleted from a stretch, by its storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The place of a deleted entry is taken by the last one, and used again by the next append.
    Entry,
    /// A deleted entry stays, masked, until all of its stretch are deleted.
    Group,
}

#[derive(Debug)]
enum Store {
    F32 { keys: Buffer<f32>, values: Buffer<f32> },
    F16 { keys: Buffer<f16>, values: Buffer<f16> },
    Int4 { key_codes: Buffer<u8>, key_ranges: Buffer<f16>, value_codes: Buffer<u8>, value_ranges: Buffer<f16> },
}

/// The entries of some KV heads, `[heads, capacity, head_dim]` for keys and for values.
#[derive(Debug)]
pub(super) struct Stretch {
    store: Store,
    heads: usize,
    dim: usize,
    capacity: usize,
    /// The entries' places in the original sequence, in physical order.
    positions: Vec<u32>,
    /// A number per entry that a method keeps, or none.
    marks: Vec<f32>,
    /// Entries that are deleted but still stored; empty while there are none.
    dead: Vec<bool>,
    alive: usize,
    _metadata: Charge,
}

/// Bookkeeping of a stretch, whatever its capacity.
pub(crate) const STRETCH_BYTES: usize = size_of::<Stretch>();

/// Bytes beside keys and values that a stretch of `capacity` entries takes.
pub(super) fn metadata(capacity: usize, marked: bool) -> usize {
    STRETCH_BYTES + capacity * if marked { size_of::<u32>() + size_of::<f32>() } else { size_of::<u32>() }
}

impl Stretch {
    /// Room for `capacity` entries.
    pub(super) fn plain(
        account: &Account,
        format: Format,
        heads: usize,
        dim: usize,
        capacity: usize,
        marked: bool,
    ) -> Result<Self> {
        let elements = heads * capacity * dim;
        let store = match format {
            Format::F32 => Store::F32 { keys: account.allocate(elements)?, values: account.allocate(elements)? },
            Format::F16 => Store::F16 { keys: account.allocate(elements)?, values: account.allocate(elements)? },
        };
        Stretch::new(store, account, heads, dim, capacity, marked)
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
        let mut key_codes: Buffer<u8> = account.allocate(sizes.codes)?;
        let mut key_ranges: Buffer<f16> = account.allocate(sizes.key_ranges)?;
        let mut value_codes: Buffer<u8> = account.allocate(sizes.codes)?;
        let mut value_ranges: Buffer<f16> = account.allocate(sizes.value_ranges)?;
        let to = Int4Mut {
            key_codes: &mut key_codes,
            key_ranges: &mut key_ranges,
            value_codes: &mut value_codes,
            value_ranges: &mut value_ranges,
        };
        int4::quantise(keys, values, heads, dim, to);
        let store = Store::Int4 { key_codes, key_ranges, value_codes, value_ranges };
        let mut stretch = Stretch::new(store, account, heads, dim, GROUP, !marks.is_empty())?;
        stretch.positions.extend_from_slice(positions);
        stretch.marks.extend_from_slice(marks);
        stretch.alive = GROUP;
        Ok(stretch)
    }

    fn new(store: Store, account: &Account, heads: usize, dim: usize, capacity: usize, marked: bool) -> Result<Self> {
        let charge = account.charge(metadata(capacity, marked) as u64)?;
        Ok(Stretch {
            store,
            heads,
            dim,
            capacity,
            positions: Vec::with_capacity(capacity),
            marks: Vec::with_capacity(if marked { capacity } else { 0 }),
            dead: Vec::new(),
            alive: 0,
            _metadata: charge,
        })
    }

    pub(super) fn deletion(&self) -> Deletion {
        match self.store {
            Store::F32 { .. } | Store::F16 { .. } => Deletion::Entry,
            Store::Int4 { .. } => Deletion::Group,
        }
    }

    /// Entries stored, deleted ones included.
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Entries that count.
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    pub(super) fn room(&self) -> usize {
        self.capacity - self.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the keys and values of one entry.
    fn entry_bytes(&self) -> f64 {
        let elements = (2 * self.heads * self.dim) as f64;
        match &self.store {
            Store::F32 { .. } => elements * 4.0,
            Store::F16 { .. } => elements * 2.0,
            Store::Int4 { key_codes, key_ranges, value_codes, value_ranges } => {
                let bytes = key_codes.len() + value_codes.len() + 2 * (key_ranges.len() + value_ranges.len());
                bytes as f64 / GROUP as f64
            }
        }
    }

    /// Bytes of the entries that count.
    pub(super) fn payload(&self) -> u64 {
        (self.alive as f64 * self.entry_bytes()) as u64
    }

    /// Bytes of entries that are deleted but still stored.
    pub(super) fn dead_bytes(&self) -> u64 {
        ((self.len() - self.alive) as f64 * self.entry_bytes()) as u64
    }

    /// Bytes beside keys and values.
    pub(super) fn metadata(&self) -> u64 {
        metadata(self.capacity, self.marks.capacity() > 0) as u64
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
        self.dead.get(slot).copied().unwrap_or(false)
    }

    pub(super) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    pub(super) fn view(&self) -> AnyRun<'_> {
        let (len, capacity) = (self.len(), self.capacity);
        match &self.store {
            Store::F32 { keys, values } => AnyRun::F32(Run { keys, values, len, capacity }),
            Store::F16 { keys, values } => AnyRun::F16(Run { keys, values, len, capacity }),
            Store::Int4 { key_codes, key_ranges, value_codes, value_ranges } => {
                AnyRun::Int4(Int4Run { key_codes, key_ranges, value_codes, value_ranges })
            }
        }
    }

    /// Writes the rows `skip .. skip + positions.len()` behind the entries. There must be room.
    pub(super) fn append(
        &mut self,
        rows: rotary::New<'_>,
        heads: std::ops::Range<usize>,
        positions: std::ops::Range<u32>,
        marks: bool,
    ) -> Result<()> {
        let (at, dim) = (self.len(), self.dim);
        match &mut self.store {
            Store::F32 { keys, values } => rotary::append(rows, heads, dim, keys, values, at),
            Store::F16 { keys, values } => rotary::append(rows, heads, dim, keys, values, at),
            Store::Int4 { .. } => return Err(Error::Internal("append to a quantised group".into())),
        }
        self.positions.extend(positions);
        self.alive = self.len();
        if marks {
            self.marks.resize(self.alive, 0.0);
        }
        Ok(())
    }

    /// Copies the entries `slots` of `from` behind the entries. Both must be plain and of one format, and there must be room.
    pub(super) fn take(&mut self, from: &Stretch, slots: &[u32], marked: bool) -> Result<()> {
        let (heads, dim, at, capacity) = (self.heads, self.dim, self.len(), self.capacity);
        match (&mut self.store, &from.store) {
            (Store::F32 { keys, values }, Store::F32 { keys: k, values: v }) => {
                gather(k, from.capacity, slots, heads, dim, keys, capacity, at);
                gather(v, from.capacity, slots, heads, dim, values, capacity, at);
            }
            (Store::F16 { keys, values }, Store::F16 { keys: k, values: v }) => {
                gather(k, from.capacity, slots, heads, dim, keys, capacity, at);
                gather(v, from.capacity, slots, heads, dim, values, capacity, at);
            }
            _ => return Err(Error::Internal("entries of two formats cannot be gathered".into())),
        }
        self.positions.extend(slots.iter().map(|slot| from.positions[*slot as usize]));
        self.alive = self.len();
        if marked {
            self.marks.extend(slots.iter().map(|slot| from.marks.get(*slot as usize).copied().unwrap_or(0.0)));
        }
        Ok(())
    }

    /// Deletes entry `slot`.
    pub(super) fn delete(&mut self, slot: usize) {
        let (last, heads, dim, capacity) = (self.len() - 1, self.heads, self.dim, self.capacity);
        match &mut self.store {
            Store::F32 { keys, values } => {
                move_entry(keys, heads, dim, capacity, last, slot);
                move_entry(values, heads, dim, capacity, last, slot);
            }
            Store::F16 { keys, values } => {
                move_entry(keys, heads, dim, capacity, last, slot);
                move_entry(values, heads, dim, capacity, last, slot);
            }
            Store::Int4 { .. } => {
                self.dead.resize(self.positions.len(), false);
                if !std::mem::replace(&mut self.dead[slot], true) {
                    self.alive -= 1;
                }
                return;
            }
        }
        self.positions.swap_remove(slot);
        if !self.marks.is_empty() {
            self.marks.swap_remove(slot);
        }
        self.alive = self.len();
    }

    /// The L2 norm of every key, `[heads, len]`. Quantised keys have none of their own.
    pub(super) fn key_norms(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.heads * self.len()];
        match &self.store {
            Store::F32 { keys, .. } => key_norms(keys, self.capacity, self.len(), self.heads, self.dim, &mut out),
            Store::F16 { keys, .. } => key_norms(keys, self.capacity, self.len(), self.heads, self.dim, &mut out),
            Store::Int4 { .. } => {}
        }
        out
    }

    /// The sum over the heads of the L2 norm of the key of entry `slot`.
    pub(super) fn key_norm(&self, slot: usize) -> f32 {
        let (dim, capacity) = (self.dim, self.capacity);
        let key = |head: usize| (head * capacity + slot) * dim..(head * capacity + slot + 1) * dim;
        let norm = |head: usize| -> f32 {
            let squares: f32 = match &self.store {
                Store::F32 { keys, .. } => keys[key(head)].iter().map(|x| x * x).sum(),
                Store::F16 { keys, .. } => keys[key(head)].iter().map(|x| x.to_f32() * x.to_f32()).sum(),
                Store::Int4 { .. } => 0.0,
            };
            squares.sqrt()
        };
        (0..self.heads).map(norm).sum()
    }

    /// Keys and values of entry `slot` as f32, `[heads, head_dim]` each, at stride `GROUP` of the targets.
    pub(super) fn read(&self, slot: usize, to: usize, keys_to: &mut [f32], values_to: &mut [f32]) -> Result<()> {
        let (dim, capacity) = (self.dim, self.capacity);
        for head in 0..self.heads {
            let from = (head * capacity + slot) * dim;
            let at = (head * GROUP + to) * dim;
            match &self.store {
                Store::F32 { keys, values } => {
                    keys_to[at..at + dim].copy_from_slice(&keys[from..from + dim]);
                    values_to[at..at + dim].copy_from_slice(&values[from..from + dim]);
                }
                Store::F16 { keys, values } => {
                    for i in 0..dim {
                        keys_to[at + i] = keys[from + i].to_f32();
                        values_to[at + i] = values[from + i].to_f32();
                    }
                }
                Store::Int4 { .. } => return Err(Error::Internal("entries are quantised already".into())),
            }
        }
        Ok(())
    }
}

/// New positions' keys and values; `angles` rotates the keys.
pub(super) fn rows<'a>(keys: Rows<'a>, values: Rows<'a>, n: usize, angles: Option<&'a Angles>) -> rotary::New<'a> {
    rotary::New { keys, values, skip: 0, n, angles }
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
