//! Entries in the memory of the CPU.

use std::ops::Range;

use prefixkv_kernels::attention::{LaneView, Rows};
use prefixkv_kernels::codec::{KvCodec, Parts, Run, append, encode_in, parts_mut};
use prefixkv_kernels::element::Element;
use prefixkv_kernels::gather::{gather, key_norms};
use prefixkv_kernels::os::heap::Block;
use prefixkv_kernels::rotary::{self, Angles, Turns};

use super::{Entries, Form, Memory, Side};
use crate::cache::lane::Lane;
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

/// Keys, values and their scales, in one buffer as their codec lays them out; of f32, so that all of them are aligned.
#[derive(Debug)]
pub struct OnCpu(Block<f32>);

/// Entries that are brought to f32 at once while others are encoded from them.
const ROWS: usize = 64;

impl Memory for Cpu {
    const ROTATES_ON_READ: bool = true;
    const READS_BASES: bool = true;
    const READS_GAINS: bool = true;
    const ATTENDS_AMONG: bool = true;
    const READ_AT_ONCE: usize = 64;
    type Entries = OnCpu;
    type New<'a> = New<'a>;

    fn allocate(&self, form: Form<'_>) -> Result<OnCpu> {
        Ok(OnCpu(Block::zeros(form.bytes() / size_of::<f32>())))
    }

    fn write(
        entries: &mut OnCpu,
        form: Form<'_>,
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
    fn run<'a>(&'a self, form: Form<'a>, len: usize) -> Run<'a, &'a [u8]> {
        let Form { codec, heads, dim, capacity, basis, gains } = form;
        Run::of(codec, f32::bytes(&self.0), heads, dim, len, capacity).with(basis).scaled(gains)
    }

    fn parts(&self, form: Form<'_>) -> Parts<&[u8]> {
        let Form { codec, heads, dim, capacity, .. } = form;
        codec.layout(heads, dim, capacity).map(|range| &f32::bytes(&self.0)[range])
    }

    fn parts_mut(&mut self, form: Form<'_>) -> Parts<&mut [u8]> {
        let Form { codec, heads, dim, capacity, .. } = form;
        parts_mut(codec, f32::bytes_mut(&mut self.0), heads, dim, capacity)
    }
}

/// A part of a segment that is deleted from by entry.
struct Part<B> {
    bytes: B,
    /// Rows of an entry.
    rows: usize,
    /// Bytes of a row.
    row: usize,
}

fn rows<B>(form: Form<'_>, parts: Parts<B>) -> [Part<B>; 4] {
    let ((keys, key), (values, value)) = (form.cut(Side::Keys), form.cut(Side::Values));
    let part = |bytes, rows, row| Part { bytes, rows, row };
    let KvCodec { key: of_key, value: of_value, .. } = form.codec;
    [
        part(parts.keys, keys, of_key.row(key)),
        part(parts.key_scales, keys, of_key.scales_row(key)),
        part(parts.values, values, of_value.row(value)),
        part(parts.value_scales, values, of_value.scales_row(value)),
    ]
}

impl Entries for OnCpu {
    fn duplicate(&self) -> Result<OnCpu> {
        let mut copy = Block::zeros(self.0.len());
        copy.copy_from_slice(&self.0);
        Ok(OnCpu(copy))
    }

    fn take(&mut self, form: Form<'_>, at: usize, from: &OnCpu, from_capacity: usize, slots: &[u32]) -> Result<()> {
        let source = Form { capacity: from_capacity, ..form };
        let from = rows(source, from.parts(source));
        for (from, to) in from.into_iter().zip(rows(form, self.parts_mut(form))) {
            gather(from.bytes, from_capacity, slots, from.rows, from.row, to.bytes, form.capacity, at);
        }
        Ok(())
    }

    fn encode(&mut self, form: Form<'_>, at: usize, sources: &[(&OnCpu, Form<'_>)], rows: &[(u32, u32)]) -> Result<()> {
        let Form { codec, heads, dim, capacity, .. } = form;
        let runs: Vec<Run<'_, &[u8]>> =
            sources.iter().map(|(entries, form)| entries.run(*form, form.capacity)).collect();
        let step = ROWS.next_multiple_of(codec.group());
        let mut wide = vec![0.0; heads * step.min(rows.len()) * dim];
        let (keys, values) = (form.cut(Side::Keys), form.cut(Side::Values));
        let to = self.parts_mut(form);
        for (index, some) in rows.chunks(step).enumerate() {
            let (at, wide) = (at + index * step, &mut wide[..heads * some.len() * dim]);
            read(&runs, some, dim, wide, |run, head, slot, to| run.read_keys(head, slot, dim, to));
            let stored = form.projected(Side::Keys, wide, some.len());
            encode_in(codec.key, form.found(Side::Keys), &stored, keys.0, keys.1, to.keys, to.key_scales, capacity, at);
            read(&runs, some, dim, wide, |run, head, slot, to| run.read_values(head, slot, dim, to));
            let stored = form.projected(Side::Values, wide, some.len());
            encode_in(
                codec.value,
                form.found(Side::Values),
                &stored,
                values.0,
                values.1,
                to.values,
                to.value_scales,
                capacity,
                at,
            );
        }
        Ok(())
    }

    fn replace(&mut self, form: Form<'_>, slot: usize, last: usize) {
        if slot == last {
            return;
        }
        for Part { bytes, rows, row } in rows(form, self.parts_mut(form)) {
            for index in 0..rows {
                let start = (index * form.capacity + last) * row;
                bytes.copy_within(start..start + row, (index * form.capacity + slot) * row);
            }
        }
    }

    fn read(&self, form: Form<'_>, side: Side, slots: &[u32]) -> Result<Vec<f32>> {
        let Form { heads, dim, capacity, .. } = form;
        let run = self.run(form, capacity);
        let mut out = vec![0.0; slots.len() * heads * dim];
        for (index, out) in out.chunks_exact_mut(dim).enumerate() {
            let (head, slot) = (index % heads, slots[index / heads] as usize);
            side.read(&run, head, slot, dim, out);
        }
        Ok(out)
    }

    fn overwrite(&mut self, form: Form<'_>, slots: &[u32], keys: &[f32], values: &[f32]) -> Result<()> {
        super::overwrite(f32::bytes_mut(&mut self.0), form, slots, keys, values);
        Ok(())
    }

    fn fill(&mut self, form: Form<'_>, coordinates: &[f32]) -> Result<()> {
        let ((rows, width), to) = (form.cut(Side::Keys), self.parts_mut(form));
        encode_in(form.codec.key, None, coordinates, rows, width, to.keys, to.key_scales, form.capacity, 0);
        Ok(())
    }

    fn bytes(&self, _: Form<'_>) -> Result<Vec<u8>> {
        Ok(f32::bytes(&self.0).to_vec())
    }

    fn set_bytes(&mut self, form: Form<'_>, bytes: &[u8]) -> Result<()> {
        let to = f32::bytes_mut(&mut self.0);
        if to.len() != bytes.len() {
            return Err(Error::Internal(format!("{} bytes for {} of {:?}", bytes.len(), to.len(), form.codec)));
        }
        to.copy_from_slice(bytes);
        Ok(())
    }

    fn key_norms(&self, form: Form<'_>, len: usize) -> Result<Vec<f32>> {
        let mut out = vec![0.0; form.heads * len];
        key_norms(&self.run(form, len), form.heads, form.dim, &mut out);
        Ok(out)
    }

    fn key_norm(&self, form: Form<'_>, slot: usize, len: usize) -> Result<f32> {
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
    runs: &[Run<'_, &[u8]>],
    rows: &[(u32, u32)],
    dim: usize,
    to: &mut [f32],
    one: impl Fn(&Run<'_, &[u8]>, usize, usize, &mut [f32]),
) {
    for (index, to) in to.chunks_exact_mut(dim).enumerate() {
        let (source, slot) = rows[index % rows.len()];
        one(&runs[source as usize], index / rows.len(), slot as usize, to);
    }
}

impl Segment {
    fn view(&self) -> Run<'_, &[u8]> {
        self.entries().run(self.form(), self.len())
    }
}

impl Lane {
    /// The runs that attention reads. `turns` are needed with [`Rotation::OnRead`](super::super::Rotation::OnRead): an angle per place.
    pub fn view<'a>(&'a self, turns: Option<Turns<'a>>) -> LaneView<'a> {
        LaneView {
            heads: self.heads().len(),
            runs: self.segments.iter().map(Segment::view).collect(),
            turns,
            dead: (!self.dead.is_empty()).then_some(&self.dead[..]),
            positions: None,
            ends: None,
        }
    }
}
