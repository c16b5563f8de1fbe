//! Entries in the memory of the CPU.

use std::ops::Range;

use half::f16;
use prefixkv_kernels::attention::{AnyRun, LaneView, Rows, Run};
use prefixkv_kernels::gather::{gather, key_norms};
use prefixkv_kernels::int4::{self, GROUP, Int4Mut, Int4Run};
use prefixkv_kernels::os::heap::{Block, Plain};
use prefixkv_kernels::rotary::{self, Angles};

use super::{Deletion, Entries, Memory, Side, Sizes};
use crate::cache::lane::Lane;
use crate::cache::pool::Format;
use crate::cache::segment::Segment;
use crate::device::Cpu;
use crate::error::{Error, Result};

/// The keys and values of new positions on the CPU, a row each; `angles` rotates the keys.
#[derive(Clone, Copy)]
pub struct New<'a> {
    pub keys: Rows<'a>,
    pub values: Rows<'a>,
    pub angles: Option<&'a Angles>,
}

/// Keys and values; in one buffer where they have one format, keys first, so that a short segment needs little bookkeeping.
#[derive(Debug)]
pub enum OnCpu {
    F32(Block<f32>),
    F16(Block<f16>),
    Int4(Box<Int4>),
}

/// A group of four bits.
#[derive(Debug)]
pub struct Int4 {
    key_codes: Block<u8>,
    key_ranges: Block<f16>,
    value_codes: Block<u8>,
    value_ranges: Block<f16>,
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

impl Memory for Cpu {
    const ROTATES_ON_READ: bool = true;
    const MERGES: bool = true;
    type Entries = OnCpu;
    type New<'a> = New<'a>;

    fn allocate(&self, format: Format, sizes: Sizes) -> Result<OnCpu> {
        Ok(match format {
            Format::F32 => OnCpu::F32(Block::zeros(sizes.elements())),
            Format::F16 => OnCpu::F16(Block::zeros(sizes.elements())),
        })
    }

    fn write(
        entries: &mut OnCpu,
        sizes: Sizes,
        new: New<'_>,
        rotate: bool,
        n: usize,
        heads: Range<usize>,
        at: usize,
    ) -> Result<()> {
        let angles = new.angles.filter(|_| rotate);
        let rows = rotary::New { keys: new.keys, values: new.values, skip: 0, n, angles };
        match entries {
            OnCpu::F32(buffer) => {
                let (keys, values) = halves_mut(buffer);
                rotary::append(rows, heads, sizes.dim, keys, values, at);
            }
            OnCpu::F16(buffer) => {
                let (keys, values) = halves_mut(buffer);
                rotary::append(rows, heads, sizes.dim, keys, values, at);
            }
            OnCpu::Int4(_) => return Err(Error::Internal("append to a quantised group".into())),
        }
        Ok(())
    }
}

impl OnCpu {
    /// Quantises [`GROUP`] entries, `[heads, GROUP, head_dim]` each.
    fn int4(heads: usize, dim: usize, keys: &[f32], values: &[f32]) -> OnCpu {
        let sizes = int4::sizes(heads, dim);
        let mut to = Int4 {
            key_codes: Block::zeros(sizes.codes),
            key_ranges: Block::zeros(sizes.key_ranges),
            value_codes: Block::zeros(sizes.codes),
            value_ranges: Block::zeros(sizes.value_ranges),
            dead: Vec::new(),
        };
        let target = Int4Mut {
            key_codes: &mut to.key_codes,
            key_ranges: &mut to.key_ranges,
            value_codes: &mut to.value_codes,
            value_ranges: &mut to.value_ranges,
        };
        int4::quantise(keys, values, heads, dim, target);
        OnCpu::Int4(Box::new(to))
    }

    /// What attention reads.
    fn view(&self, len: usize, capacity: usize) -> AnyRun<'_> {
        match self {
            OnCpu::F32(buffer) => {
                let (keys, values) = halves(buffer);
                AnyRun::F32(Run { keys, values, len, capacity })
            }
            OnCpu::F16(buffer) => {
                let (keys, values) = halves(buffer);
                AnyRun::F16(Run { keys, values, len, capacity })
            }
            OnCpu::Int4(group) => AnyRun::Int4(group.run()),
        }
    }

    /// Keys and values of entry `slot` as f32, to entry `to` of `[heads, GROUP, head_dim]`.
    fn read_both(
        &self,
        sizes: Sizes,
        slot: usize,
        to: usize,
        keys_to: &mut [f32],
        values_to: &mut [f32],
    ) -> Result<()> {
        let Sizes { heads, dim, capacity } = sizes;
        for head in 0..heads {
            let from = (head * capacity + slot) * dim..(head * capacity + slot + 1) * dim;
            let at = (head * GROUP + to) * dim..(head * GROUP + to + 1) * dim;
            match self {
                OnCpu::F32(buffer) => {
                    let (keys, values) = halves(buffer);
                    keys_to[at.clone()].copy_from_slice(&keys[from.clone()]);
                    values_to[at].copy_from_slice(&values[from]);
                }
                OnCpu::F16(buffer) => {
                    let (keys, values) = halves(buffer);
                    let widen = |(to, from): (&mut f32, &f16)| *to = from.to_f32();
                    keys_to[at.clone()].iter_mut().zip(&keys[from.clone()]).for_each(widen);
                    values_to[at].iter_mut().zip(&values[from]).for_each(widen);
                }
                OnCpu::Int4(_) => return Err(Error::Internal("entries are quantised already".into())),
            }
        }
        Ok(())
    }
}

impl Entries for OnCpu {
    fn deletion(&self) -> Deletion {
        match self {
            OnCpu::F32(_) | OnCpu::F16(_) => Deletion::Entry,
            OnCpu::Int4(_) => Deletion::Group,
        }
    }

    fn entry_bytes(&self, sizes: Sizes) -> f64 {
        let elements = (2 * sizes.heads * sizes.dim) as f64;
        match self {
            OnCpu::F32(_) => elements * 4.0,
            OnCpu::F16(_) => elements * 2.0,
            OnCpu::Int4(group) => {
                let codes = group.key_codes.len() + group.value_codes.len();
                let ranges = group.key_ranges.len() + group.value_ranges.len();
                (codes + 2 * ranges) as f64 / GROUP as f64
            }
        }
    }

    fn dead(&self) -> Option<&[bool]> {
        match self {
            OnCpu::Int4(group) if !group.dead.is_empty() => Some(&group.dead),
            _ => None,
        }
    }

    fn duplicate(&self, _: Sizes, _: usize) -> Result<OnCpu> {
        Ok(match self {
            OnCpu::F32(block) => OnCpu::F32(copied(block)),
            OnCpu::F16(block) => OnCpu::F16(copied(block)),
            OnCpu::Int4(group) => OnCpu::Int4(Box::new(Int4 {
                key_codes: copied(&group.key_codes),
                key_ranges: copied(&group.key_ranges),
                value_codes: copied(&group.value_codes),
                value_ranges: copied(&group.value_ranges),
                dead: group.dead.clone(),
            })),
        })
    }

    fn take(&mut self, sizes: Sizes, at: usize, from: &OnCpu, from_capacity: usize, slots: &[u32]) -> Result<()> {
        match (self, from) {
            (OnCpu::F32(to), OnCpu::F32(from)) => copy(from, from_capacity, slots, sizes, to, at),
            (OnCpu::F16(to), OnCpu::F16(from)) => copy(from, from_capacity, slots, sizes, to, at),
            _ => return Err(Error::Internal("entries of two formats cannot be gathered".into())),
        }
        Ok(())
    }

    fn delete(&mut self, sizes: Sizes, slot: usize, len: usize) -> bool {
        match self {
            OnCpu::F32(buffer) => fill(buffer, sizes, len - 1, slot),
            OnCpu::F16(buffer) => fill(buffer, sizes, len - 1, slot),
            OnCpu::Int4(group) => {
                group.dead.resize(len, false);
                return !std::mem::replace(&mut group.dead[slot], true);
            }
        }
        true
    }

    fn read(&self, sizes: Sizes, side: Side, slots: &[u32]) -> Result<Vec<f32>> {
        let Sizes { heads, dim, capacity } = sizes;
        let mut out = vec![0.0; slots.len() * heads * dim];
        let rows = slots.iter().flat_map(|slot| (0..heads).map(move |head| (head, *slot as usize)));
        for ((head, slot), out) in rows.zip(out.chunks_exact_mut(dim)) {
            let from = (head * capacity + slot) * dim..(head * capacity + slot + 1) * dim;
            match self {
                OnCpu::F32(buffer) => out.copy_from_slice(&half(buffer, side)[from]),
                OnCpu::F16(buffer) => {
                    out.iter_mut().zip(&half(buffer, side)[from]).for_each(|(out, x)| *out = x.to_f32());
                }
                OnCpu::Int4(group) if side == Side::Keys => group.run().keys(head, slot, dim, out),
                OnCpu::Int4(group) => group.run().values(head, slot, dim, out),
            }
        }
        Ok(out)
    }

    fn overwrite(&mut self, sizes: Sizes, slot: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let Sizes { dim, capacity, .. } = sizes;
        let at = |head: usize| (head * capacity + slot) * dim..(head * capacity + slot + 1) * dim;
        for (head, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
            match self {
                OnCpu::F32(buffer) => {
                    let (to_keys, to_values) = halves_mut(buffer);
                    to_keys[at(head)].copy_from_slice(key);
                    to_values[at(head)].copy_from_slice(value);
                }
                OnCpu::F16(buffer) => {
                    let (to_keys, to_values) = halves_mut(buffer);
                    let narrow = |(to, from): (&mut f16, &f32)| *to = f16::from_f32(*from);
                    to_keys[at(head)].iter_mut().zip(key).for_each(narrow);
                    to_values[at(head)].iter_mut().zip(value).for_each(narrow);
                }
                OnCpu::Int4(_) => {
                    return Err(Error::Internal("an entry of a quantised group cannot be replaced".into()));
                }
            }
        }
        Ok(())
    }

    fn key_norms(&self, sizes: Sizes, len: usize) -> Result<Vec<f32>> {
        let Sizes { heads, dim, capacity } = sizes;
        let mut out = vec![0.0; heads * len];
        match self {
            OnCpu::F32(buffer) => key_norms(halves(buffer).0, capacity, len, heads, dim, &mut out),
            OnCpu::F16(buffer) => key_norms(halves(buffer).0, capacity, len, heads, dim, &mut out),
            OnCpu::Int4(group) => {
                for (index, norm) in out.iter_mut().enumerate() {
                    *norm = group.key_norm(index / len, index % len, dim);
                }
            }
        }
        Ok(out)
    }

    fn key_norm(&self, sizes: Sizes, slot: usize, _: usize) -> Result<f32> {
        let Sizes { heads, dim, capacity } = sizes;
        let key = |head: usize| (head * capacity + slot) * dim..(head * capacity + slot + 1) * dim;
        let norm = |head: usize| -> f32 {
            let squares: f32 = match self {
                OnCpu::F32(buffer) => buffer[key(head)].iter().map(|x| x * x).sum(),
                OnCpu::F16(buffer) => buffer[key(head)].iter().map(|x| x.to_f32() * x.to_f32()).sum(),
                OnCpu::Int4(group) => return group.key_norm(head, slot, dim),
            };
            squares.sqrt()
        };
        Ok((0..heads).map(norm).sum())
    }
}

impl Segment {
    fn view(&self) -> AnyRun<'_> {
        self.entries().view(self.len(), self.capacity())
    }
}

impl Lane {
    /// What attention reads. `phases` are needed with [`Rotation::OnRead`](super::super::Rotation::OnRead): an angle per place.
    pub fn view<'a>(&'a self, phases: Option<&'a Angles>) -> LaneView<'a> {
        LaneView {
            heads: self.heads.len(),
            runs: self.segments.iter().map(Segment::view).collect(),
            phases,
            dead: (!self.dead.is_empty()).then_some(&self.dead[..]),
            positions: None,
        }
    }

    /// Stores [`GROUP`] entries, in the order of their positions, in four bits. They are then deleted by group.
    pub fn quantise(&mut self, places: &[u32]) -> Result<()> {
        if places.len() != GROUP {
            return Err(Error::Internal(format!("a group has {GROUP} entries, found {}", places.len())));
        }
        let (heads, dim) = (self.heads.len(), self.options.head_dim);
        let (mut keys, mut values) = (vec![0.0; heads * GROUP * dim], vec![0.0; heads * GROUP * dim]);
        let (mut positions, mut marks) = (Vec::new(), Vec::new());
        for (to, &place) in places.iter().enumerate() {
            let (segment, slot) = self.locate(place)?;
            segment.entries().read_both(segment.sizes(), slot, to, &mut keys, &mut values)?;
            positions.push(segment.positions()[slot]);
            marks.extend(segment.marks().get(slot));
        }
        let int4::Sizes { codes, key_ranges, value_ranges } = int4::sizes(heads, dim);
        let bytes = 2 * codes + size_of::<f16>() * (key_ranges + value_ranges);
        let sizes = Sizes { heads, dim, capacity: GROUP };
        let make = |_: &Cpu| Ok(OnCpu::int4(heads, dim, &keys, &values));
        let mut group = Segment::of(&self.account, sizes, bytes, !marks.is_empty(), make)?;
        group.fill(&positions, &marks)?;
        let left: Vec<u32> = {
            let gone: std::collections::HashSet<u32> = places.iter().copied().collect();
            self.sorted().into_iter().map(|entry| entry.place).filter(|place| !gone.contains(place)).collect()
        };
        self.retain(&left)?;
        self.push(group);
        self.len += GROUP;
        Ok(())
    }
}

fn copied<T: Plain>(block: &Block<T>) -> Block<T> {
    let mut copy = Block::zeros(block.len());
    copy.copy_from_slice(block);
    copy
}

fn half<T: Plain>(buffer: &Block<T>, side: Side) -> &[T] {
    let (keys, values) = halves(buffer);
    if side == Side::Keys { keys } else { values }
}

fn halves<T: Plain>(buffer: &Block<T>) -> (&[T], &[T]) {
    buffer.split_at(buffer.len() / 2)
}

fn halves_mut<T: Plain>(buffer: &mut Block<T>) -> (&mut [T], &mut [T]) {
    let half = buffer.len() / 2;
    buffer.split_at_mut(half)
}

/// Copies entries of keys and values from one segment to another.
fn copy<T: Plain + Send + Sync>(
    from: &Block<T>,
    from_capacity: usize,
    slots: &[u32],
    sizes: Sizes,
    to: &mut Block<T>,
    at: usize,
) {
    let Sizes { heads, dim, capacity } = sizes;
    let ((keys, values), (to_keys, to_values)) = (halves(from), halves_mut(to));
    gather(keys, from_capacity, slots, heads, dim, to_keys, capacity, at);
    gather(values, from_capacity, slots, heads, dim, to_values, capacity, at);
}

/// Copies entry `from` over entry `to`.
fn fill<T: Copy>(data: &mut [T], sizes: Sizes, from: usize, to: usize) {
    if from == to {
        return;
    }
    // Keys and values together are twice the heads.
    for head in 0..2 * sizes.heads {
        let start = (head * sizes.capacity + from) * sizes.dim;
        data.copy_within(start..start + sizes.dim, (head * sizes.capacity + to) * sizes.dim);
    }
}
