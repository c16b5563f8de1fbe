//! Entries of a lane as attention multiplies them: where they are if they can stay, else widened or dequantised, and rotated,
//! in a buffer.

use half::f16;

use super::{LaneView, Run};
use crate::codec::{Basis, Codec, Map, Parts, Scales};
use crate::element::Element;
use crate::simd::{self, Coded, Scratch};

/// The entries `low .. high` of a run, of which the first is entry `at` of the lane.
#[derive(Clone, Copy)]
pub(super) struct Piece<'v, 'a> {
    run: &'v Run<'a, &'a [u8]>,
    low: usize,
    high: usize,
    pub(super) at: usize,
}

/// The rows in which keys or values of a head are read.
#[derive(Clone, Copy)]
pub(super) struct Way {
    row: usize,
    pub(super) width: usize,
    /// Whether they are read as they are stored, in the coordinates of the run's basis.
    pub(super) stored: bool,
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

    /// The basis of the run.
    pub(super) fn basis(&self) -> Option<&'a Basis> {
        self.run.basis
    }

    /// How the keys of a head are read: in the coordinates in which they are stored, unless they have to be rotated in those of the head.
    pub(super) fn key_way(&self, lane: &LaneView<'_>, head: usize, dim: usize) -> Way {
        way(self.run.key_map().filter(|_| lane.turns.is_none()), head, dim)
    }

    /// Like [`Self::key_way`].
    pub(super) fn value_way(&self, head: usize, dim: usize) -> Way {
        way(self.run.value_map(), head, dim)
    }

    /// The parts whose keys are read at once.
    pub(super) fn of_keys(self, lane: &LaneView<'_>, way: Way) -> impl Iterator<Item = Piece<'v, 'a>> {
        let there = way.stored || self.run.key_map().is_none();
        let stays = self.run.codec.key.dtype.is_plain() && lane.turns.is_none() && there;
        self.cut(if stays { self.len() } else { ROWS })
    }

    /// The parts whose values are read at once.
    pub(super) fn of_values(self) -> impl Iterator<Item = Piece<'v, 'a>> {
        let stays = self.run.codec.value.dtype.is_plain();
        self.cut(if stays { self.len() } else { ROWS })
    }

    /// The parts of the piece that share scales between entries, the whole of it where none do.
    fn groups(self, codec: Codec) -> impl Iterator<Item = Piece<'v, 'a>> {
        let group = if codec.entries() > 1 { codec.entries() } else { usize::MAX };
        let mut low = self.low;
        std::iter::from_fn(move || {
            let high = self.high.min((low / group + 1).saturating_mul(group));
            let piece = Piece { run: self.run, low, high, at: self.at + low - self.low };
            low = high;
            (piece.low < piece.high).then_some(piece)
        })
    }

    /// The numbers and the scales of a head; of entries that share scales those of the first one's group.
    fn stored(&self, codec: Codec, numbers: &'a [u8], scales: &'a [u8], head: usize, dim: usize) -> [&'a [u8]; 2] {
        let (row, scales_row) = (codec.row(dim), codec.scales_row(dim));
        let first = head * self.run.capacity + self.low;
        let shared = match codec.scales {
            Scales::None => 0..0,
            Scales::PerEntry { .. } | Scales::Apart { .. } => first * scales_row..(first + self.len()) * scales_row,
            Scales::PerChannel { group, .. } => {
                let group = first / usize::from(group);
                group * scales_row..(group + 1) * scales_row
            }
        };
        [&numbers[first * row..(first + self.len()) * row], &scales[shared]]
    }

    /// Entries of one group as they are stored.
    fn coded(&self, codec: Codec, numbers: &'a [u8], scales: &'a [u8], head: usize, dim: usize) -> Option<Coded<'a>> {
        let [numbers, scales] = self.stored(codec, numbers, scales, head, dim);
        Coded::new(codec, dim, numbers, f16::of_bytes(scales))
    }

    /// Asks for the keys of a head before they are read, or for as many as are worth it. Runs of codes are short and lie apart, so no
    /// machine foresees the next one; longer rows ask for themselves.
    pub(super) fn ask_keys(&self, head: usize, dim: usize) {
        if !self.run.codec.key.dtype.is_plain() {
            let Parts { keys, key_scales, .. } = self.run.parts;
            let Way { row, width, .. } = way(self.run.key_map(), head, dim);
            self.stored(self.run.codec.key, keys, key_scales, row, width).into_iter().for_each(simd::ask);
        }
    }

    /// Like [`Self::ask_keys`].
    pub(super) fn ask_values(&self, head: usize, dim: usize) {
        if !self.run.codec.value.dtype.is_plain() {
            let Parts { values, value_scales, .. } = self.run.parts;
            let Way { row, width, .. } = way(self.run.value_map(), head, dim);
            self.stored(self.run.codec.value, values, value_scales, row, width).into_iter().for_each(simd::ask);
        }
    }

    /// The scores of the keys of a head if they can be had without widening them first: whether they were. As [`simd::scores`].
    #[allow(clippy::too_many_arguments)]
    pub(super) fn key_scores(
        self,
        lane: &LaneView<'_>,
        Way { row, width, .. }: Way,
        queries: &[f32],
        scale: f32,
        scores: &mut [f32],
        step: usize,
        scratch: &mut Option<Box<Scratch>>,
    ) -> bool {
        let (codec, parts) = (self.run.codec.key, self.run.parts);
        if codec.dtype.is_plain() || lane.turns.is_some() {
            return false;
        }
        self.groups(codec).all(|piece| {
            let coded = piece.coded(codec, parts.keys, parts.key_scales, row, width);
            let scores = &mut scores[piece.at - self.at..];
            coded.map(|coded| coded.scores(queries, scale, scores, step, scratch.get_or_insert_default())).is_some()
        })
    }

    /// Like [`Self::key_scores`], of the values, as [`simd::weighted_sums`].
    pub(super) fn value_sums(
        &self,
        Way { row, width, .. }: Way,
        weights: &[f32],
        step: usize,
        sums: &mut [f32],
        scratch: &mut Option<Box<Scratch>>,
    ) -> bool {
        let (codec, parts) = (self.run.codec.value, self.run.parts);
        if codec.dtype.is_plain() || codec.entries() > 1 {
            return false;
        }
        let coded = self.coded(codec, parts.values, parts.value_scales, row, width);
        coded.map(|coded| coded.weighted_sums(weights, step, sums, scratch.get_or_insert_default())).is_some()
    }

    /// The factors of the keys of a head.
    pub(super) fn key_gains(&self, head: usize) -> Option<&'a [f32]> {
        self.run.key_gains(head, self.low).map(|gains| &gains[..self.len()])
    }

    /// Like [`Self::key_gains`].
    pub(super) fn value_gains(&self, head: usize) -> Option<&'a [f32]> {
        self.run.value_gains(head, self.low).map(|gains| &gains[..self.len()])
    }

    /// The keys of a head without their factors; `wide` holds them if they need work.
    pub(super) fn keys<'s>(&'s self, lane: &LaneView<'_>, way: Way, wide: &'s mut Vec<f32>) -> Stored<'s> {
        let (entries, Way { row, width, stored }) = (self.low..self.high, way);
        if lane.turns.is_none() && (stored || self.run.key_map().is_none()) {
            if let Some(keys) = self.run.stored_keys::<f32>(row, entries.clone(), width) {
                return Stored::F32(keys);
            }
            if let Some(keys) = self.run.stored_keys::<f16>(row, entries, width) {
                return Stored::F16(keys);
            }
        }
        wide.resize(self.len() * width, 0.0);
        match stored {
            true => self.run.read_stored_keys(row, self.low, width, wide),
            false => self.write_keys(lane, row, width, wide, false),
        }
        Stored::F32(wide)
    }

    /// The values of a head as they are stored, without their factors; `wide` holds them if they need work.
    pub(super) fn values<'s>(&'s self, way: Way, wide: &'s mut Vec<f32>) -> Stored<'s> {
        let (entries, Way { row, width, .. }) = (self.low..self.high, way);
        if let Some(values) = self.run.stored_values::<f32>(row, entries.clone(), width) {
            return Stored::F32(values);
        }
        if let Some(values) = self.run.stored_values::<f16>(row, entries, width) {
            return Stored::F16(values);
        }
        wide.resize(self.len() * width, 0.0);
        self.run.read_stored_values(row, self.low, width, wide);
        Stored::F32(wide)
    }

    fn write_keys(&self, lane: &LaneView<'_>, head: usize, dim: usize, to: &mut [f32], scaled: bool) {
        match scaled {
            true => self.run.read_keys(head, self.low, dim, to),
            false => self.run.read_unit_keys(head, self.low, dim, to),
        }
        if let Some(turns) = lane.turns {
            turns.rotate_rows(self.at, dim, to);
        }
    }
}

fn way(map: Option<&Map>, head: usize, dim: usize) -> Way {
    match map {
        Some(map) => Way { row: map.row(head), width: map.cut().width.into(), stored: true },
        None => Way { row: head, width: dim, stored: false },
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
            if piece.run.codec.key == Codec::F32
                && piece.run.basis.is_none()
                && piece.run.gains.is_none()
                && self.turns.is_none()
                && piece.len() >= TILE
            {
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
        if self.turns.is_none()
            && let Some((run, low)) = self.within(from, to)
            && let Some(keys) = run.keys(head, low..low + to - from, dim)
        {
            return keys;
        }
        wide.resize((to - from) * dim, 0.0);
        for piece in self.pieces(from, to) {
            let start = (piece.at - from) * dim;
            piece.write_keys(self, head, dim, &mut wide[start..start + piece.len() * dim], true);
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
    fn within(&self, from: usize, to: usize) -> Option<(&Run<'a, &'a [u8]>, usize)> {
        let piece = self.pieces(from, to).next()?;
        (piece.len() == to - from).then_some((piece.run, piece.low))
    }
}
