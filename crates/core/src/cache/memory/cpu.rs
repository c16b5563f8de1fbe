//! Entries in the memory of the CPU.

use std::ops::Range;

use prefixkv_kernels::attention::{LaneView, Rows};
use prefixkv_kernels::codec::{Codec, Parts, Run, append, encode, parts_mut};
use prefixkv_kernels::element::Element;
use prefixkv_kernels::gather::{gather, key_norms};
use prefixkv_kernels::os::heap::Block;
use prefixkv_kernels::rotary::{self, Angles};

use super::{Entries, Form, Memory, Side};
use crate::cache::lane::Lane;
use crate::cache::segment::Segment;
use crate::device::Cpu;
use crate::error::Result;

/// The keys and values of new positions on the CPU, a row each; `angles` rotates the keys.
#[derive(Clone, Copy)]
pub struct New<'a> {
    pub keys: Rows<'a>,
    pub values: Rows<'a>,
    pub angles: Option<&'a Angles>,
}

/// Keys, values and their scales, in one buffer as their codec lays them out; of f32, so that all of them are aligned.
#[derive(Debug)]
pub struct OnCpu(Block<f32>);

/// Entries that are brought to f32 at once while others are encoded from them.
const ROWS: usize = 64;

impl Memory for Cpu {
    const ROTATES_ON_READ: bool = true;
    type Entries = OnCpu;
    type New<'a> = New<'a>;

    fn allocate(&self, form: Form) -> Result<OnCpu> {
        Ok(OnCpu(Block::zeros(form.bytes() / size_of::<f32>())))
    }

    fn write(
        entries: &mut OnCpu,
        form: Form,
        new: New<'_>,
        rotate: bool,
        n: usize,
        heads: Range<usize>,
        at: usize,
    ) -> Result<()> {
        let angles = new.angles.filter(|_| rotate);
        let rows = rotary::New { keys: new.keys, values: new.values, skip: 0, n, angles };
        append(form.codec, rows, heads, form.dim, entries.parts_mut(form), at);
        Ok(())
    }
}

impl OnCpu {
    fn run(&self, form: Form, len: usize) -> Run<&[u8]> {
        let Form { codec, heads, dim, capacity } = form;
        Run::of(codec, f32::bytes(&self.0), heads, dim, len, capacity)
    }

    fn parts_mut(&mut self, form: Form) -> Parts<&mut [u8]> {
        let Form { codec, heads, dim, capacity } = form;
        parts_mut(codec, f32::bytes_mut(&mut self.0), heads, dim, capacity)
    }
}

/// The parts of a segment that is deleted from by entry, with the bytes of a row of each.
fn rows<B>(form: Form, parts: Parts<B>) -> [(B, usize); 4] {
    let (key, value) = (form.codec.key, form.codec.value);
    let row = |codec: Codec| (codec.row(form.dim), codec.scales_row(form.dim));
    let ((key, key_scales), (value, value_scales)) = (row(key), row(value));
    [(parts.keys, key), (parts.key_scales, key_scales), (parts.values, value), (parts.value_scales, value_scales)]
}

impl Entries for OnCpu {
    fn duplicate(&self) -> Result<OnCpu> {
        let mut copy = Block::zeros(self.0.len());
        copy.copy_from_slice(&self.0);
        Ok(OnCpu(copy))
    }

    fn take(&mut self, form: Form, at: usize, from: &OnCpu, from_capacity: usize, slots: &[u32]) -> Result<()> {
        let source = Form { capacity: from_capacity, ..form };
        let from = rows(source, from.run(source, from_capacity).parts);
        for ((from, row), (to, _)) in from.into_iter().zip(rows(form, self.parts_mut(form))) {
            gather(from, from_capacity, slots, form.heads, row, to, form.capacity, at);
        }
        Ok(())
    }

    fn encode(&mut self, form: Form, at: usize, sources: &[(&OnCpu, Form)], rows: &[(u32, u32)]) -> Result<()> {
        let Form { codec, heads, dim, capacity } = form;
        let runs: Vec<Run<&[u8]>> = sources.iter().map(|(entries, form)| entries.run(*form, form.capacity)).collect();
        let step = ROWS.next_multiple_of(codec.group());
        let mut wide = vec![0.0; heads * step.min(rows.len()) * dim];
        let to = self.parts_mut(form);
        for (index, some) in rows.chunks(step).enumerate() {
            let (at, wide) = (at + index * step, &mut wide[..heads * some.len() * dim]);
            read(&runs, some, dim, wide, |run, head, slot, to| run.read_keys(head, slot, dim, to));
            encode(codec.key, wide, heads, dim, to.keys, to.key_scales, capacity, at);
            read(&runs, some, dim, wide, |run, head, slot, to| run.read_values(head, slot, dim, to));
            encode(codec.value, wide, heads, dim, to.values, to.value_scales, capacity, at);
        }
        Ok(())
    }

    fn replace(&mut self, form: Form, slot: usize, last: usize) {
        if slot == last {
            return;
        }
        for (part, row) in rows(form, self.parts_mut(form)) {
            for head in 0..form.heads {
                let start = (head * form.capacity + last) * row;
                part.copy_within(start..start + row, (head * form.capacity + slot) * row);
            }
        }
    }

    fn read(&self, form: Form, side: Side, slots: &[u32]) -> Result<Vec<f32>> {
        let Form { heads, dim, capacity, .. } = form;
        let run = self.run(form, capacity);
        let mut out = vec![0.0; slots.len() * heads * dim];
        for (index, out) in out.chunks_exact_mut(dim).enumerate() {
            let (head, slot) = (index % heads, slots[index / heads] as usize);
            side.read(&run, head, slot, dim, out);
        }
        Ok(out)
    }

    fn overwrite(&mut self, form: Form, slots: &[u32], keys: &[f32], values: &[f32]) -> Result<()> {
        super::overwrite(f32::bytes_mut(&mut self.0), form, slots, keys, values);
        Ok(())
    }

    fn key_norms(&self, form: Form, len: usize) -> Result<Vec<f32>> {
        let mut out = vec![0.0; form.heads * len];
        key_norms(&self.run(form, len), form.heads, form.dim, &mut out);
        Ok(out)
    }

    fn key_norm(&self, form: Form, slot: usize, len: usize) -> Result<f32> {
        let (run, mut key) = (self.run(form, len), vec![0.0; form.dim]);
        let norm = |head: usize| -> f32 {
            run.read_keys(head, slot, form.dim, &mut key);
            key.iter().map(|x| x * x).sum::<f32>().sqrt()
        };
        Ok((0..form.heads).map(norm).sum())
    }
}

/// Reads `rows` of `runs`, head by head, into `to`.
fn read(
    runs: &[Run<&[u8]>],
    rows: &[(u32, u32)],
    dim: usize,
    to: &mut [f32],
    one: impl Fn(&Run<&[u8]>, usize, usize, &mut [f32]),
) {
    for (index, to) in to.chunks_exact_mut(dim).enumerate() {
        let (source, slot) = rows[index % rows.len()];
        one(&runs[source as usize], index / rows.len(), slot as usize, to);
    }
}

impl Segment {
    fn view(&self) -> Run<&[u8]> {
        self.entries().run(self.form(), self.len())
    }
}

impl Lane {
    /// The runs that attention reads. `phases` are needed with [`Rotation::OnRead`](super::super::Rotation::OnRead): an angle per place.
    pub fn view<'a>(&'a self, phases: Option<&'a Angles>) -> LaneView<'a> {
        LaneView {
            heads: self.heads().len(),
            runs: self.segments.iter().map(Segment::view).collect(),
            phases,
            dead: (!self.dead.is_empty()).then_some(&self.dead[..]),
            positions: None,
        }
    }
}
