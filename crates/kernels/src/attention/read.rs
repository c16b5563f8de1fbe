//! Entries of a lane as attention multiplies them: where they are if they can stay, else widened or dequantised, and rotated,
//! in a buffer.

use half::f16;

use super::{LaneView, Run};
use crate::codec::Codec;

/// The entries `low .. high` of a run, of which the first is entry `at` of the lane.
#[derive(Clone, Copy)]
pub(super) struct Piece<'v, 'a> {
    run: &'v Run<&'a [u8]>,
    low: usize,
    high: usize,
    pub(super) at: usize,
}

/// Rows of keys or values in a format that is multiplied without a copy.
pub(super) enum Stored<'s> {
    F32(&'s [f32]),
    F16(&'s [f16]),
}

/// Entries that [`decode`](super::decode) brings to f32 at a time: with 128 channels 16 KiB, which a first-level cache holds. As
/// many as no sum depends on, which are taken over 16 entries.
const ROWS: usize = 32;

impl<'v, 'a> Piece<'v, 'a> {
    pub(super) fn len(&self) -> usize {
        self.high - self.low
    }

    /// The piece in parts of so many entries.
    fn cut(self, rows: usize) -> impl Iterator<Item = Piece<'v, 'a>> {
        (self.low..self.high).step_by(rows).map(move |low| {
            let high = self.high.min(low + rows);
            Piece { run: self.run, low, high, at: self.at + low - self.low }
        })
    }

    /// The parts whose keys are read at once.
    pub(super) fn of_keys(self, lane: &LaneView<'_>) -> impl Iterator<Item = Piece<'v, 'a>> {
        let stays = self.run.codec.key.dtype.is_plain() && lane.phases.is_none();
        self.cut(if stays { self.len() } else { ROWS })
    }

    /// The parts whose values are read at once.
    pub(super) fn of_values(self) -> impl Iterator<Item = Piece<'v, 'a>> {
        let stays = self.run.codec.value.dtype.is_plain();
        self.cut(if stays { self.len() } else { ROWS })
    }

    /// The keys of a head; `wide` holds them if they need work.
    pub(super) fn keys<'s>(
        &'s self,
        lane: &LaneView<'_>,
        head: usize,
        dim: usize,
        wide: &'s mut Vec<f32>,
    ) -> Stored<'s> {
        let entries = self.low..self.high;
        if lane.phases.is_none() {
            if let Some(keys) = self.run.keys::<f32>(head, entries.clone(), dim) {
                return Stored::F32(keys);
            }
            if let Some(keys) = self.run.keys::<f16>(head, entries, dim) {
                return Stored::F16(keys);
            }
        }
        wide.resize(self.len() * dim, 0.0);
        self.write_keys(lane, head, dim, wide);
        Stored::F32(wide)
    }

    /// The values of a head; `wide` holds them if they need work.
    pub(super) fn values<'s>(&'s self, head: usize, dim: usize, wide: &'s mut Vec<f32>) -> Stored<'s> {
        let entries = self.low..self.high;
        if let Some(values) = self.run.values::<f32>(head, entries.clone(), dim) {
            return Stored::F32(values);
        }
        if let Some(values) = self.run.values::<f16>(head, entries, dim) {
            return Stored::F16(values);
        }
        wide.resize(self.len() * dim, 0.0);
        self.run.read_values(head, self.low, dim, wide);
        Stored::F32(wide)
    }

    fn write_keys(&self, lane: &LaneView<'_>, head: usize, dim: usize, to: &mut [f32]) {
        self.run.read_keys(head, self.low, dim, to);
        if let Some(angles) = lane.phases {
            angles.rotate_rows(self.at, dim, to);
        }
    }
}

/// Entries that are brought to f32 at a time: with 128 channels 256 KiB, which a second-level cache holds.
const TILE: usize = 512;

impl<'a> LaneView<'a> {
    /// The entries `from .. to`, run by run.
    pub(super) fn pieces(&self, from: usize, to: usize) -> impl Iterator<Item = Piece<'_, 'a>> {
        let mut start = 0;
        self.runs.iter().filter_map(move |run| {
            let (low, high) = (from.max(start), to.min(start + run.len));
            let piece = (low < high).then(|| Piece { run, low: low - start, high: high - start, at: low });
            start += run.len;
            piece
        })
    }

    /// Cuts the entries `from .. to` into ranges to be read at once: long f32 runs whole, the rest in tiles.
    pub(super) fn tiles(&self, from: usize, to: usize) -> Vec<(usize, usize)> {
        let mut tiles: Vec<(usize, usize)> = Vec::new();
        // Entries of the last tile that may be joined by others.
        let mut open = 0;
        for piece in self.pieces(from, to) {
            let (mut at, end) = (piece.at, piece.at + piece.len());
            if piece.run.codec.key == Codec::F32 && self.phases.is_none() && piece.len() >= TILE {
                tiles.push((at, end));
                open = 0;
                continue;
            }
            while at < end {
                let take = (end - at).min(TILE - open);
                match tiles.last_mut() {
                    Some(tile) if open > 0 => tile.1 += take,
                    _ => tiles.push((at, at + take)),
                }
                open = (open + take) % TILE;
                at += take;
            }
        }
        tiles
    }

    /// The keys of the entries `from .. to` of a head; `wide` holds them unless they can be read where they are.
    pub(super) fn keys<'s>(
        &self,
        head: usize,
        (from, to): (usize, usize),
        dim: usize,
        wide: &'s mut Vec<f32>,
    ) -> &'s [f32]
    where
        'a: 's,
    {
        if self.phases.is_none()
            && let Some((run, low)) = self.within(from, to)
            && let Some(keys) = run.keys(head, low..low + to - from, dim)
        {
            return keys;
        }
        wide.resize((to - from) * dim, 0.0);
        for piece in self.pieces(from, to) {
            let start = (piece.at - from) * dim;
            piece.write_keys(self, head, dim, &mut wide[start..start + piece.len() * dim]);
        }
        wide
    }

    /// Like [`keys`](Self::keys).
    pub(super) fn values<'s>(
        &self,
        head: usize,
        (from, to): (usize, usize),
        dim: usize,
        wide: &'s mut Vec<f32>,
    ) -> &'s [f32]
    where
        'a: 's,
    {
        if let Some((run, low)) = self.within(from, to)
            && let Some(values) = run.values(head, low..low + to - from, dim)
        {
            return values;
        }
        wide.resize((to - from) * dim, 0.0);
        for piece in self.pieces(from, to) {
            let start = (piece.at - from) * dim;
            piece.run.read_values(head, piece.low, dim, &mut wide[start..start + piece.len() * dim]);
        }
        wide
    }

    /// The run that holds the entries `from .. to`, and which of its entries `from` is.
    fn within(&self, from: usize, to: usize) -> Option<(&Run<&'a [u8]>, usize)> {
        let piece = self.pieces(from, to).next()?;
        (piece.len() == to - from).then_some((piece.run, piece.low))
    }
}
