//! Entries of a lane as attention multiplies them: where they are if they can stay, else widened or dequantised, and rotated,
//! in a buffer.

use half::f16;

use super::{AnyRun, LaneView, Run};
use crate::simd;

/// The entries `low .. high` of a run, of which the first is entry `at` of the lane.
#[derive(Clone, Copy)]
pub(super) struct Piece<'v, 'a> {
    run: &'v AnyRun<'a>,
    low: usize,
    high: usize,
    pub(super) at: usize,
}

/// Rows of keys or values in a format that is multiplied without a copy.
pub(super) enum Stored<'s> {
    F32(&'s [f32]),
    F16(&'s [f16]),
}

impl Piece<'_, '_> {
    pub(super) fn len(&self) -> usize {
        self.high - self.low
    }

    /// The keys of a head; `wide` holds them if they need work.
    pub(super) fn keys<'s>(
        &'s self,
        lane: &LaneView<'_>,
        head: usize,
        dim: usize,
        wide: &'s mut Vec<f32>,
    ) -> Stored<'s> {
        match (self.run, lane.phases) {
            (AnyRun::F32(run), None) => Stored::F32(run.head(head, self.low, self.high, dim).0),
            (AnyRun::F16(run), None) => Stored::F16(run.head(head, self.low, self.high, dim).0),
            _ => {
                wide.resize(self.len() * dim, 0.0);
                self.write_keys(lane, head, dim, wide);
                Stored::F32(wide)
            }
        }
    }

    /// The values of a head; `wide` holds them if they need work.
    pub(super) fn values<'s>(&'s self, head: usize, dim: usize, wide: &'s mut Vec<f32>) -> Stored<'s> {
        match self.run {
            AnyRun::F32(run) => Stored::F32(run.head(head, self.low, self.high, dim).1),
            AnyRun::F16(run) => Stored::F16(run.head(head, self.low, self.high, dim).1),
            AnyRun::Int4(_) => {
                wide.resize(self.len() * dim, 0.0);
                self.write_values(head, dim, wide);
                Stored::F32(wide)
            }
        }
    }

    fn write_keys(&self, lane: &LaneView<'_>, head: usize, dim: usize, to: &mut [f32]) {
        match self.run {
            AnyRun::F32(run) => to.copy_from_slice(run.head(head, self.low, self.high, dim).0),
            AnyRun::F16(run) => simd::widen(run.head(head, self.low, self.high, dim).0, to),
            AnyRun::Int4(run) => run.keys(head, self.low, dim, to),
        }
        if let Some(angles) = lane.phases {
            angles.rotate_rows(self.at, dim, to);
        }
    }

    fn write_values(&self, head: usize, dim: usize, to: &mut [f32]) {
        match self.run {
            AnyRun::F32(run) => to.copy_from_slice(run.head(head, self.low, self.high, dim).1),
            AnyRun::F16(run) => simd::widen(run.head(head, self.low, self.high, dim).1, to),
            AnyRun::Int4(run) => run.values(head, self.low, dim, to),
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
            let (low, high) = (from.max(start), to.min(start + run.len()));
            let piece = (low < high).then(|| Piece { run, low: low - start, high: high - start, at: low });
            start += run.len();
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
            if matches!(piece.run, AnyRun::F32(_)) && self.phases.is_none() && piece.len() >= TILE {
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
            && let Some((run, low)) = self.plain(from, to)
        {
            return run.head(head, low, low + to - from, dim).0;
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
        if let Some((run, low)) = self.plain(from, to) {
            return run.head(head, low, low + to - from, dim).1;
        }
        wide.resize((to - from) * dim, 0.0);
        for piece in self.pieces(from, to) {
            let start = (piece.at - from) * dim;
            piece.write_values(head, dim, &mut wide[start..start + piece.len() * dim]);
        }
        wide
    }

    /// The f32 run that holds the entries `from .. to`, and which of its entries `from` is.
    fn plain(&self, from: usize, to: usize) -> Option<(&Run<'a, f32>, usize)> {
        let piece = self.pieces(from, to).next()?;
        match piece.run {
            AnyRun::F32(run) if piece.len() == to - from => Some((run, piece.low)),
            _ => None,
        }
    }
}
