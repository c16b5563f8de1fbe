//! Entries in the memory of a GPU. Positions, marks and all decisions stay on the host; only keys and values are there.
//!
//! A deleted entry's place is taken by the last one, as on the CPU, but the copy waits: what the lanes of a layer are to move
//! and to write goes to the device in one launch each, just before attention reads them (`crate::backend::cuda`). Entries for which
//! something waits are never shared.

use std::ops::Range;

use half::f16;
use prefixkv_kernels::cuda::{
    self, AppendItem, Buffer, Element, GatherItem, Gpu, MoveItem, NormItem, Run, Slice, SliceMut,
};

use super::{Deletion, Entries, Memory, Side, Sizes};
use crate::cache::lane::Lane;
use crate::cache::pool::Format;
use crate::cache::segment::Segment;
use crate::device::Cuda;
use crate::error::{Error, Result};

/// Keys, then values, `[heads, capacity, head_dim]` each.
#[derive(Debug)]
pub struct Halves<T> {
    data: Buffer<T>,
    /// Entries that are still elsewhere: from, to. Every `from` is behind the entries in use, every `to` among them.
    moves: Vec<(u32, u32)>,
    /// Entries that are counted and not written yet: the first, and how many.
    unwritten: Option<(usize, usize)>,
}

/// Keys and values in one of the formats.
#[derive(Debug)]
pub enum OnGpu {
    F32(Halves<f32>),
    F16(Halves<f16>),
}

/// A format of entries on a GPU.
pub(crate) trait Stored: Element {
    fn of(store: &OnGpu) -> Option<&Halves<Self>>;
    fn of_mut(store: &mut OnGpu) -> Option<&mut Halves<Self>>;
}

macro_rules! stored {
    ($type:ty, $variant:ident) => {
        impl Stored for $type {
            fn of(store: &OnGpu) -> Option<&Halves<Self>> {
                match store {
                    OnGpu::$variant(entries) => Some(entries),
                    _ => None,
                }
            }

            fn of_mut(store: &mut OnGpu) -> Option<&mut Halves<Self>> {
                match store {
                    OnGpu::$variant(entries) => Some(entries),
                    _ => None,
                }
            }
        }
    };
}
stored!(f32, F32);
stored!(f16, F16);

macro_rules! each {
    ($store:expr, $entries:ident => $do:expr) => {
        match $store {
            OnGpu::F32($entries) => $do,
            OnGpu::F16($entries) => $do,
        }
    };
}

impl<T: Element> Halves<T> {
    fn new(gpu: &Gpu, elements: usize) -> Result<Self> {
        Ok(Halves { data: Buffer::new(gpu, elements)?, moves: Vec::new(), unwritten: None })
    }

    fn duplicate(&self, sizes: Sizes, len: usize) -> Result<Self> {
        let mut copy = Halves::new(self.data.gpu(), self.data.len())?;
        let slots: Vec<u32> = (0..len as u32).collect();
        copy.take(sizes, 0, self, sizes.capacity, &slots)?;
        Ok(copy)
    }

    fn halves(&self) -> (Slice<'_, T>, Slice<'_, T>) {
        let half = self.data.len() / 2;
        (self.data.slice(0..half), self.data.slice(half..2 * half))
    }

    fn halves_mut(&mut self) -> (SliceMut<'_, T>, SliceMut<'_, T>) {
        let half = self.data.len() / 2;
        self.data.all_mut().split_at(half)
    }

    /// Where the entry `slot` still is.
    fn source(&self, slot: u32) -> u32 {
        self.moves.iter().find(|(_, to)| *to == slot).map_or(slot, |(from, _)| *from)
    }

    /// Entry `slot` goes, and entry `last` takes its place.
    fn delete(&mut self, slot: u32, last: u32) {
        let source = self.source(last);
        self.moves.retain(|(_, to)| *to != last && *to != slot);
        if slot != last {
            self.moves.push((source, slot));
        }
    }

    fn take(&mut self, sizes: Sizes, at: usize, from: &Halves<T>, from_capacity: usize, slots: &[u32]) -> Result<()> {
        from.require_written()?;
        let gpu = self.data.gpu().clone();
        let slots: Vec<u32> = slots.iter().map(|slot| from.source(*slot)).collect();
        let (keys, values) = from.halves();
        let (to_keys, to_values) = self.halves_mut();
        let item = GatherItem {
            keys,
            values,
            capacity: from_capacity,
            slots: &slots,
            heads: sizes.heads,
            to_keys,
            to_values,
            to_capacity: sizes.capacity,
            at,
        };
        Ok(cuda::gather(&gpu, &mut [item], sizes.dim)?)
    }

    /// The keys or values of the entries `slots`, `[slots, heads, head_dim]`.
    fn read(&self, sizes: Sizes, side: Side, slots: &[u32]) -> Result<Vec<f32>>
    where
        f32: From<T>,
    {
        self.require_written()?;
        let Sizes { heads, dim, capacity } = sizes;
        let all = self.data.read()?;
        let half = if side == Side::Keys { 0 } else { all.len() / 2 };
        let mut out = Vec::with_capacity(slots.len() * heads * dim);
        for slot in slots {
            for head in 0..heads {
                let start = half + (head * capacity + self.source(*slot) as usize) * dim;
                out.extend(all[start..start + dim].iter().map(|x| f32::from(*x)));
            }
        }
        Ok(out)
    }

    /// The norms of the keys of the first `len` entries, `[heads, len]`.
    fn key_norms(&self, sizes: Sizes, len: usize) -> Result<Vec<f32>> {
        self.require_written()?;
        let gpu = self.data.gpu();
        let measured = self.moves.iter().map(|(from, _)| *from as usize + 1).max().unwrap_or(0).max(len);
        let mut out = Buffer::<f32>::new(gpu, sizes.heads * measured)?;
        let item = NormItem {
            keys: self.halves().0,
            capacity: sizes.capacity,
            len: measured,
            heads: sizes.heads,
            out: out.all_mut(),
        };
        cuda::key_norms(gpu, &mut [item], sizes.dim)?;
        let norms = out.read()?;
        let sources: Vec<usize> = (0..len as u32).map(|slot| self.source(slot) as usize).collect();
        let of_head = |head: usize| sources.iter().map(move |source| head * measured + source);
        Ok((0..sizes.heads).flat_map(of_head).map(|at| norms[at]).collect())
    }

    fn require_written(&self) -> Result<()> {
        match self.unwritten {
            None => Ok(()),
            Some(_) => Err(Error::Internal("entries were counted and never written".into())),
        }
    }
}

impl Memory for Cuda {
    const ROTATES_ON_READ: bool = false;
    const MERGES: bool = false;
    type Entries = OnGpu;
    /// Rows are written later, those of all sequences of a step in one launch.
    type New<'a> = ();

    fn allocate(&self, format: Format, sizes: Sizes) -> Result<OnGpu> {
        Ok(match format {
            Format::F32 => OnGpu::F32(Halves::new(&self.gpu, sizes.elements())?),
            Format::F16 => OnGpu::F16(Halves::new(&self.gpu, sizes.elements())?),
        })
    }

    fn write(entries: &mut OnGpu, _: Sizes, (): (), _: bool, n: usize, _: Range<usize>, at: usize) -> Result<()> {
        each!(entries, entries => {
            entries.require_written()?;
            entries.unwritten = Some((at, n));
        });
        Ok(())
    }
}

impl Entries for OnGpu {
    fn deletion(&self) -> Deletion {
        Deletion::Entry
    }

    fn entry_bytes(&self, sizes: Sizes) -> f64 {
        let number = match self {
            OnGpu::F32(_) => 4,
            OnGpu::F16(_) => 2,
        };
        (2 * sizes.heads * sizes.dim * number) as f64
    }

    fn dead(&self) -> Option<&[bool]> {
        None
    }

    fn is_settled(&self) -> bool {
        each!(self, entries => entries.moves.is_empty() && entries.unwritten.is_none())
    }

    fn duplicate(&self, sizes: Sizes, len: usize) -> Result<OnGpu> {
        Ok(match self {
            OnGpu::F32(entries) => OnGpu::F32(entries.duplicate(sizes, len)?),
            OnGpu::F16(entries) => OnGpu::F16(entries.duplicate(sizes, len)?),
        })
    }

    fn take(&mut self, sizes: Sizes, at: usize, from: &OnGpu, from_capacity: usize, slots: &[u32]) -> Result<()> {
        match (self, from) {
            (OnGpu::F32(to), OnGpu::F32(from)) => to.take(sizes, at, from, from_capacity, slots),
            (OnGpu::F16(to), OnGpu::F16(from)) => to.take(sizes, at, from, from_capacity, slots),
            _ => Err(Error::Internal("entries of two formats cannot be gathered".into())),
        }
    }

    fn delete(&mut self, _: Sizes, slot: usize, len: usize) -> bool {
        each!(self, entries => entries.delete(slot as u32, len as u32 - 1));
        true
    }

    fn read(&self, sizes: Sizes, side: Side, slots: &[u32]) -> Result<Vec<f32>> {
        each!(self, entries => entries.read(sizes, side, slots))
    }

    fn overwrite(&mut self, _: Sizes, _: usize, _: &[f32], _: &[f32]) -> Result<()> {
        Err(Error::Internal("an entry on a GPU cannot be replaced".into()))
    }

    fn key_norms(&self, sizes: Sizes, len: usize) -> Result<Vec<f32>> {
        each!(self, entries => entries.key_norms(sizes, len))
    }

    fn key_norm(&self, sizes: Sizes, slot: usize, len: usize) -> Result<f32> {
        let norms = self.key_norms(sizes, len)?;
        Ok((0..sizes.heads).map(|head| norms[head * len + slot]).sum())
    }
}

impl OnGpu {
    /// What attention reads.
    fn run<T: Stored>(&self, len: usize, capacity: usize) -> Result<Run<'_, T>> {
        let entries = T::of(self).ok_or_else(other_format)?;
        entries.require_written()?;
        if !entries.moves.is_empty() {
            return Err(Error::Internal("entries were not moved before they are read".into()));
        }
        let (keys, values) = entries.halves();
        Ok(Run { keys, values, len, capacity })
    }

    /// The moves that wait.
    fn moves<T: Stored>(&mut self, sizes: Sizes) -> Option<MoveItem<'_, T>> {
        let entries = T::of_mut(self).filter(|entries| !entries.moves.is_empty())?;
        let half = entries.data.len() / 2;
        let (keys, values) = entries.data.all_mut().split_at(half);
        Some(MoveItem { keys, values, capacity: sizes.capacity, heads: sizes.heads, moves: &entries.moves })
    }

    fn moved(&mut self) {
        each!(self, entries => entries.moves.clear());
    }

    /// What waits to be written, from row `row` on.
    fn unwritten<T: Stored>(&mut self, sizes: Sizes, first_head: usize, row: usize) -> Option<AppendItem<'_, T>> {
        let entries = T::of_mut(self)?;
        let (at, n) = entries.unwritten?;
        let (keys, values) = entries.halves_mut();
        let Sizes { heads, capacity, .. } = sizes;
        Some(AppendItem { first_head, heads, first_row: row, n, keys, values, capacity, at })
    }

    fn written(&mut self) {
        each!(self, entries => entries.unwritten = None);
    }
}

impl Segment<Cuda> {
    /// What attention reads.
    fn run<T: Stored>(&self) -> Result<Run<'_, T>> {
        self.entries().run(self.len(), self.capacity())
    }
}

impl Lane<Cuda> {
    /// What attention reads.
    pub(crate) fn runs<T: Stored>(&self) -> Result<cuda::Lane<'_, T>> {
        let runs = self.segments.iter().map(Segment::run).collect::<Result<_>>()?;
        Ok(cuda::Lane::new(self.heads.len(), runs))
    }

    /// The moves that wait.
    pub(crate) fn moves<T: Stored>(&mut self) -> impl Iterator<Item = MoveItem<'_, T>> {
        self.segments.iter_mut().filter_map(|segment| {
            let sizes = segment.sizes();
            segment.entries_mut()?.moves(sizes)
        })
    }

    pub(crate) fn moved(&mut self) {
        self.segments.iter_mut().filter_map(Segment::entries_mut).for_each(OnGpu::moved);
    }

    /// What waits to be written, from row `row` on.
    pub(crate) fn unwritten<T: Stored>(&mut self, row: usize) -> impl Iterator<Item = AppendItem<'_, T>> {
        let first = self.heads.start;
        self.segments.iter_mut().filter_map(move |segment| {
            let sizes = segment.sizes();
            segment.entries_mut()?.unwritten(sizes, first, row)
        })
    }

    pub(crate) fn written(&mut self) {
        self.segments.iter_mut().filter_map(Segment::entries_mut).for_each(OnGpu::written);
    }
}

fn other_format() -> Error {
    Error::Internal("entries are in another format".into())
}
