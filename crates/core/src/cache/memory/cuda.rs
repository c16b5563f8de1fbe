//! Entries in the memory of a GPU. Positions, scores and all decisions stay on the host; only keys and values are there.
//!
//! A deleted entry's place is taken by the last one, as on the CPU, but the copy waits: what the lanes of a layer are to move
//! and to write goes to the device in one launch each, before attention reads them (`crate::backend::cuda`). Entries for which
//! something waits are never shared.

use std::ops::Range;

use half::f16;
use prefixkv_kernels::codec::{Codec, Dtype, Parts, Run};
use prefixkv_kernels::cuda::{
    self, AppendItem, Buffer, EncodeItem, GatherItem, Held, MoveItem, NormItem, Slice, SliceMut, Source,
};
use prefixkv_kernels::element::Element;

use super::{Entries, Form, Memory, Side};
use crate::cache::lane::Lane;
use crate::cache::segment::Segment;
use crate::device::Cuda;
use crate::error::{Error, Result};

/// Keys, values and their scales, as their codec lays them out.
#[derive(Debug)]
pub struct OnGpu {
    data: Buffer<u8>,
    /// Entries that are still elsewhere: from, to. Every `from` is behind the entries in use, every `to` among them.
    moves: Vec<(u32, u32)>,
    /// Entries that are counted and not written yet: the first, and how many.
    unwritten: Option<(usize, usize)>,
}

impl Memory for Cuda {
    const ROTATES_ON_READ: bool = false;
    const READS_BASES: bool = false;
    const READS_GAINS: bool = false;
    const ATTENDS_AMONG: bool = false;
    const READ_AT_ONCE: usize = 1024;
    type Entries = OnGpu;
    /// Rows are written later, those of all sequences of a step in one launch.
    type New<'a> = ();

    fn allocate(&self, form: Form<'_>) -> Result<OnGpu> {
        Ok(OnGpu { data: Buffer::new(&self.gpu, form.bytes())?, moves: Vec::new(), unwritten: None })
    }

    fn write(entries: &mut OnGpu, _: Form<'_>, (): (), _: bool, n: usize, _: Range<usize>, at: usize) -> Result<()> {
        entries.require_written()?;
        entries.unwritten = Some((at, n));
        Ok(())
    }
}

/// The parts of a segment that is deleted from by entry, with the bytes of a row of each; no part without rows.
fn rows<B>(form: Form<'_>, parts: Parts<B>) -> impl Iterator<Item = (B, usize)> {
    let row = |codec: Codec| (codec.row(form.dim), codec.scales_row(form.dim));
    let ((key, key_scales), (value, value_scales)) = (row(form.codec.key), row(form.codec.value));
    let all =
        [(parts.keys, key), (parts.key_scales, key_scales), (parts.values, value), (parts.value_scales, value_scales)];
    all.into_iter().filter(|(_, row)| *row > 0)
}

impl OnGpu {
    fn run(&self, form: Form<'_>, len: usize) -> Run<'_, Slice<'_, u8>> {
        let Form { codec, heads, dim, capacity, .. } = form;
        Run::of_slice(codec, self.data.all(), heads, dim, len, capacity)
    }

    fn parts_mut(&mut self, form: Form<'_>) -> Parts<SliceMut<'_, u8>> {
        let Form { codec, heads, dim, capacity, .. } = form;
        cuda::parts_mut(codec, self.data.all_mut(), heads, dim, capacity)
    }

    /// Where the entry `slot` still is.
    fn source(&self, slot: u32) -> u32 {
        self.moves.iter().find(|(_, to)| *to == slot).map_or(slot, |(from, _)| *from)
    }

    fn require_written(&self) -> Result<()> {
        match self.unwritten {
            None => Ok(()),
            Some(_) => Err(Error::Internal("entries were counted and never written".into())),
        }
    }

    /// All bytes, as they lie on the device, aligned for every dtype.
    fn words(&self) -> Result<Vec<f32>> {
        self.require_written()?;
        let bytes = self.data.read()?;
        let mut words = vec![0f32; bytes.len().div_ceil(size_of::<f32>())];
        f32::bytes_mut(&mut words)[..bytes.len()].copy_from_slice(&bytes);
        Ok(words)
    }

    /// The keys or values of some entries, plain, `[slots, heads, dim]`, in one read of no more than these.
    fn collected(&self, form: Form<'_>, side: Side, slots: &[u32]) -> Result<Vec<f32>> {
        self.require_written()?;
        let Form { heads, dim, capacity, .. } = form;
        let Parts { keys, values, .. } = self.run(form, capacity).parts;
        let (from, codec) = match side {
            Side::Keys => (keys, form.codec.key),
            Side::Values => (values, form.codec.value),
        };
        let (n, row, gpu) = (slots.len(), codec.row(dim), self.data.gpu());
        let slots: Vec<u32> = slots.iter().map(|slot| self.source(*slot)).collect();
        let mut to = Buffer::<u8>::working(gpu, heads * n * row)?;
        let item = GatherItem { from, capacity, slots: &slots, heads, to: to.all_mut(), to_capacity: n, at: 0, row };
        cuda::gather(gpu, &mut [item])?;
        let bytes = to.read()?;
        let numbers: Vec<f32> = match codec.dtype {
            Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect(),
            _ => bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_ne_bytes(*bytes).to_f32()).collect(),
        };
        let mut out = Vec::with_capacity(numbers.len());
        for index in 0..n {
            for head in 0..heads {
                out.extend_from_slice(&numbers[(head * n + index) * dim..][..dim]);
            }
        }
        Ok(out)
    }

    /// The runs that attention reads.
    fn readable(&self, form: Form<'_>, len: usize) -> Result<Run<'_, Slice<'_, u8>>> {
        self.require_written()?;
        if !self.moves.is_empty() {
            return Err(Error::Internal("entries were not moved before they are read".into()));
        }
        Ok(self.run(form, len))
    }

    /// The moves that wait.
    fn moves(&mut self, form: Form<'_>) -> Vec<(MoveItem<'_>, Held)> {
        if self.moves.is_empty() {
            return Vec::new();
        }
        let held = self.data.held();
        let OnGpu { data, moves, .. } = self;
        let Form { codec, heads, dim, capacity, .. } = form;
        let parts = cuda::parts_mut(codec, data.all_mut(), heads, dim, capacity);
        rows(form, parts).map(|(rows, row)| (MoveItem { rows, capacity, heads, row, moves }, held.clone())).collect()
    }

    /// Entries that wait to be written, from row `row` on.
    fn unwritten(&mut self, form: Form<'_>, first_head: usize, row: usize) -> Option<(AppendItem<'_>, Held)> {
        let (at, n) = self.unwritten?;
        let held = self.data.held();
        let Parts { keys, values, .. } = self.parts_mut(form);
        let Form { codec, heads, capacity, .. } = form;
        Some((AppendItem { first_head, heads, first_row: row, n, codec, keys, values, capacity, at }, held))
    }
}

impl Entries for OnGpu {
    fn is_settled(&self) -> bool {
        self.moves.is_empty() && self.unwritten.is_none()
    }

    /// Entries that wait to be moved wait in the copy too.
    fn duplicate(&self) -> Result<OnGpu> {
        self.require_written()?;
        let mut data = Buffer::new(self.data.gpu(), self.data.len())?;
        data.copy(0, self.data.all())?;
        Ok(OnGpu { data, moves: self.moves.clone(), unwritten: None })
    }

    fn take(&mut self, form: Form<'_>, at: usize, from: &OnGpu, from_capacity: usize, slots: &[u32]) -> Result<()> {
        from.require_written()?;
        let gpu = self.data.gpu().clone();
        let slots: Vec<u32> = slots.iter().map(|slot| from.source(*slot)).collect();
        let source = Form { capacity: from_capacity, ..form };
        let mut items: Vec<GatherItem<'_>> = rows(source, from.run(source, from_capacity).parts)
            .zip(rows(form, self.parts_mut(form)))
            .map(|((from, row), (to, _))| GatherItem {
                from,
                capacity: from_capacity,
                slots: &slots,
                heads: form.heads,
                to,
                to_capacity: form.capacity,
                at,
                row,
            })
            .collect();
        Ok(cuda::gather(&gpu, &mut items)?)
    }

    fn encode(&mut self, form: Form<'_>, at: usize, sources: &[(&OnGpu, Form<'_>)], rows: &[(u32, u32)]) -> Result<()> {
        sources.iter().try_for_each(|(source, _)| source.require_written())?;
        let gpu = self.data.gpu().clone();
        let rows: Vec<(u32, u32)> =
            rows.iter().map(|(source, slot)| (*source, sources[*source as usize].0.source(*slot))).collect();
        let runs: Vec<_> = sources.iter().map(|(source, form)| source.run(*form, form.capacity)).collect();
        let keys = runs.iter().map(|run| Source {
            codec: run.codec.key,
            numbers: run.parts.keys,
            scales: run.parts.key_scales,
            capacity: run.capacity,
        });
        let values = runs.iter().map(|run| Source {
            codec: run.codec.value,
            numbers: run.parts.values,
            scales: run.parts.value_scales,
            capacity: run.capacity,
        });
        let (keys, values) = (keys.collect(), values.collect());
        let Form { codec, heads, dim, capacity, .. } = form;
        let to = self.parts_mut(form);
        let item = |codec, sources, numbers, scales| {
            let rows = &rows[..];
            EncodeItem { heads, sources, rows, codec, numbers, scales, capacity, at }
        };
        let mut items =
            [item(codec.key, keys, to.keys, to.key_scales), item(codec.value, values, to.values, to.value_scales)];
        Ok(cuda::encode(&gpu, &mut items, dim)?)
    }

    fn replace(&mut self, _: Form<'_>, slot: usize, last: usize) {
        let (slot, last) = (slot as u32, last as u32);
        let source = self.source(last);
        self.moves.retain(|(_, to)| *to != last && *to != slot);
        if slot != last {
            self.moves.push((source, slot));
        }
    }

    fn read(&self, form: Form<'_>, side: Side, slots: &[u32]) -> Result<Vec<f32>> {
        let Form { codec, heads, dim, capacity, .. } = form;
        let of_side = match side {
            Side::Keys => codec.key,
            Side::Values => codec.value,
        };
        // Numbers that stand for themselves are collected on the device, so that no others come.
        if matches!(of_side.dtype, Dtype::F32 | Dtype::F16) && of_side.scales_row(dim) == 0 {
            return self.collected(form, side, slots);
        }
        let words = self.words()?;
        let run = Run::of(codec, f32::bytes(&words), heads, dim, capacity, capacity);
        let mut out = vec![0.0; slots.len() * heads * dim];
        for (index, out) in out.chunks_exact_mut(dim).enumerate() {
            let (head, slot) = (index % heads, self.source(slots[index / heads]) as usize);
            side.read(&run, head, slot, dim, out);
        }
        Ok(out)
    }

    fn overwrite(&mut self, form: Form<'_>, slots: &[u32], keys: &[f32], values: &[f32]) -> Result<()> {
        let mut words = self.words()?;
        let slots: Vec<u32> = slots.iter().map(|slot| self.source(*slot)).collect();
        let bytes = &mut f32::bytes_mut(&mut words)[..self.data.len()];
        super::overwrite(bytes, form, &slots, keys, values);
        Ok(self.data.write(0, bytes)?)
    }

    fn fill(&mut self, form: Form<'_>, _: &[f32]) -> Result<()> {
        Err(Error::Internal(format!("coordinates on a GPU, which reads none: {:?}", form.codec)))
    }

    fn bytes(&self, form: Form<'_>) -> Result<Vec<u8>> {
        if !self.is_settled() {
            return Err(Error::Internal("entries that wait to be moved are to be saved".into()));
        }
        let mut bytes = self.data.read()?;
        bytes.resize(form.bytes(), 0);
        Ok(bytes)
    }

    fn set_bytes(&mut self, form: Form<'_>, bytes: &[u8]) -> Result<()> {
        match self.data.len() == bytes.len() {
            true => Ok(self.data.write(0, bytes)?),
            false => Err(Error::Internal(format!("{} bytes for {:?}", bytes.len(), form.codec))),
        }
    }

    fn key_norms(&self, form: Form<'_>, len: usize) -> Result<Vec<f32>> {
        self.require_written()?;
        let (gpu, Form { codec, heads, dim, capacity, .. }) = (self.data.gpu(), form);
        let measured = self.moves.iter().map(|(from, _)| *from as usize + 1).max().unwrap_or(0).max(len);
        let mut out = Buffer::<f32>::working(gpu, heads * measured)?;
        let Parts { keys, key_scales: scales, .. } = self.run(form, len).parts;
        let item = NormItem { codec: codec.key, keys, scales, capacity, len: measured, heads, out: out.all_mut() };
        cuda::key_norms(gpu, &mut [item], dim)?;
        let norms = out.read()?;
        let sources: Vec<usize> = (0..len as u32).map(|slot| self.source(slot) as usize).collect();
        let of_head = |head: usize| sources.iter().map(move |source| head * measured + source);
        Ok((0..heads).flat_map(of_head).map(|at| norms[at]).collect())
    }

    fn key_norm(&self, form: Form<'_>, slot: usize, len: usize) -> Result<f32> {
        let norms = self.key_norms(form, len)?;
        Ok((0..form.heads).map(|head| norms[head * len + slot]).sum())
    }
}

impl Segment<Cuda> {
    /// The runs that attention reads.
    fn run(&self) -> Result<Run<'_, Slice<'_, u8>>> {
        self.entries().readable(self.form(), self.len())
    }
}

impl Lane<Cuda> {
    /// The runs that attention reads.
    pub(crate) fn runs(&self) -> Result<cuda::Lane<'_>> {
        let runs = self.segments.iter().map(Segment::run).collect::<Result<_>>()?;
        let dead = (!self.dead.is_empty()).then_some(&self.dead[..]);
        Ok(cuda::Lane { dead, ..cuda::Lane::new(self.heads().len(), runs) })
    }

    /// The memory of the runs.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.segments.iter().map(|segment| segment.entries().data.held()).collect()
    }

    /// The moves that wait, with their memory.
    pub(crate) fn moves(&mut self) -> impl Iterator<Item = (MoveItem<'_>, Held)> {
        self.segments.iter_mut().flat_map(|segment| {
            let form = segment.sizes();
            segment.entries_mut().map_or_else(Vec::new, |entries| entries.moves(form))
        })
    }

    pub(crate) fn moved(&mut self) {
        self.segments.iter_mut().filter_map(Segment::entries_mut).for_each(|entries| entries.moves.clear());
    }

    /// Entries that wait to be written, from row `row` on, with their memory.
    pub(crate) fn unwritten(&mut self, row: usize) -> impl Iterator<Item = (AppendItem<'_>, Held)> {
        let first = self.heads().start;
        self.segments.iter_mut().filter_map(move |segment| {
            let form = segment.sizes();
            segment.entries_mut()?.unwritten(form, first, row)
        })
    }

    pub(crate) fn written(&mut self) {
        self.segments.iter_mut().filter_map(Segment::entries_mut).for_each(|entries| entries.unwritten = None);
    }
}
