//! Keys and values of a lane's entries, read and replaced as numbers.

use prefixkv_kernels::codec::{KvCodec, Transform};

use super::lane::{Entry, Lane, LaneOptions, no_place};
use super::memory::{Entries as _, Memory, Side};
use super::segment::Segment;
use crate::error::Result;

impl<M: Memory> Lane<M> {
    /// The segment and slot of a place that is there.
    fn locate(&self, place: u32) -> Result<(&Segment<M>, usize)> {
        let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
        Ok((&self.segments[index], slot))
    }

    /// The L2 norm of the key at `place`, averaged over the lane's heads.
    pub fn key_norm(&self, place: u32) -> Result<f32> {
        let (segment, slot) = self.locate(place)?;
        Ok(segment.key_norm(slot)? / self.heads().len() as f32)
    }

    /// The L2 norm of the key of every place, averaged over the lane's heads.
    pub fn key_norms(&self) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(self.places());
        for segment in &self.segments {
            let norms = segment.key_norms()?;
            let len = segment.len();
            out.extend((0..len).map(|slot| {
                let sum: f32 = (0..self.heads().len()).map(|head| norms[head * len + slot]).sum();
                sum / self.heads().len() as f32
            }));
        }
        Ok(out)
    }

    /// The keys of entries, `[entries, heads, head_dim]`, in the numbers that their codes stand for and without the lane's transforms.
    pub fn keys(&self, entries: &[Entry]) -> Result<Vec<f32>> {
        self.rows(entries, Side::Keys)
    }

    /// The values of entries, as [`Lane::keys`], and without the transform of the model's weights.
    pub fn values(&self, entries: &[Entry]) -> Result<Vec<f32>> {
        self.rows(entries, Side::Values)
    }

    fn rows(&self, entries: &[Entry], side: Side) -> Result<Vec<f32>> {
        let LaneOptions { head_dim, codec, .. } = self.options();
        let width = self.heads().len() * head_dim;
        let mut out = vec![0.0; entries.len() * width];
        // Segment by segment, so that a device is read once for each.
        let wanted = self.by_segment(entries)?;
        for (segment, (slots, rows)) in self.segments.iter().zip(&wanted) {
            if slots.is_empty() {
                continue;
            }
            let read = segment.entries().read(segment.form(), side, slots)?;
            for (row, from) in rows.iter().zip(read.chunks_exact(width)) {
                out[row * width..(row + 1) * width].copy_from_slice(from);
            }
        }
        match side {
            Side::Keys => codec.dual.keys().undo(&mut out, head_dim),
            Side::Values => self.of_values().iter().rev().for_each(|through| through.undo(&mut out, head_dim)),
        }
        Ok(out)
    }

    /// Replaces the keys and the values of entries, `[entries, heads, head_dim]` each; they are stored in the entries' codecs.
    pub fn overwrite(&mut self, entries: &[Entry], keys: &[f32], values: &[f32]) -> Result<()> {
        let LaneOptions { head_dim, codec, .. } = self.options();
        let width = self.heads().len() * head_dim;
        for (index, (slots, rows)) in self.by_segment(entries)?.into_iter().enumerate() {
            if slots.is_empty() {
                continue;
            }
            let chosen = |all: &[f32], through: &[Transform]| {
                let mut chosen: Vec<f32> =
                    rows.iter().flat_map(|row| &all[row * width..(row + 1) * width]).copied().collect();
                through.iter().for_each(|through| through.apply(&mut chosen, head_dim));
                chosen
            };
            let (keys, values) = (chosen(keys, &[codec.dual.keys()]), chosen(values, self.of_values()));
            self.segments[index].overwrite(&self.account, &slots, &keys, &values)?;
        }
        Ok(())
    }

    /// A store's codec with the transforms that entries of this lane go through.
    pub fn through(&self, codec: KvCodec) -> KvCodec {
        if self.options().folded { KvCodec { dual: codec.dual.of_folded(), ..codec } } else { codec }
    }

    /// The transforms that values are stored through, the one in the model's weights included, in this order.
    fn of_values(&self) -> &'static [Transform] {
        let LaneOptions { codec, folded, .. } = self.options();
        match (folded, codec.dual.values()) {
            // The second is the inverse of the first.
            (true, Transform::Hadamard) | (false, Transform::None) => &[],
            (true, Transform::None) | (false, Transform::Hadamard) => &[Transform::Hadamard],
            (true, Transform::Random) => &[Transform::Hadamard, Transform::Random],
            (false, Transform::Random) => &[Transform::Random],
        }
    }

    /// Per segment the slots of entries that lie there, and which of `entries` these are.
    fn by_segment(&self, entries: &[Entry]) -> Result<Vec<(Vec<u32>, Vec<usize>)>> {
        let mut found: Vec<(Vec<u32>, Vec<usize>)> = vec![Default::default(); self.segments.len()];
        for (row, entry) in entries.iter().enumerate() {
            let (index, slot) = self.find(entry.place).ok_or_else(|| no_place(entry.place))?;
            found[index].0.push(slot as u32);
            found[index].1.push(row);
        }
        Ok(found)
    }
}
