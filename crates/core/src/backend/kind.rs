//! Traits in which the layers of one model may differ.

use prefixkv_kernels::attention::AttentionParams;

use super::Heads;
use crate::cache::{Lane, Memory};
use crate::sequence::Pass;

/// The attention of one layer, as its configuration says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerKind {
    /// The number of the layer.
    pub layer: usize,
    /// The layer whose keys and values it reads: itself, or one before it. One that reads another's computes none. In a step of several
    /// sequences itself if one of them keeps entries there.
    pub source: usize,
    pub heads: Heads,
    /// Positions that a query sees, its own included; None: all.
    pub window: Option<u32>,
    /// Factor of the scores.
    pub scale: f32,
    /// A scaled score `s` becomes `softcap * tanh(s / softcap)`.
    pub softcap: Option<f32>,
    /// Which of the model's rotary embeddings turns queries and keys.
    pub rope: usize,
}

impl LayerKind {
    /// An ordinary layer: keys and values of its own, all of which every query sees, and scores by `1 / sqrt(dim)`.
    pub fn ordinary(layer: usize, heads: Heads) -> Self {
        let scale = heads.params().scale;
        LayerKind { layer, source: layer, heads, window: None, scale, softcap: None, rope: 0 }
    }

    /// The layer as the sequences of a pass read it: where none of them keeps entries of its own there, it computes queries alone.
    pub fn in_pass<M: Memory>(&self, pass: &Pass<'_, '_, M>) -> Self {
        LayerKind { source: self.source.min(pass.source(self.layer)), ..*self }
    }

    /// Whether the layer has keys and values of its own.
    pub fn stores(&self) -> bool {
        self.source == self.layer
    }

    /// Columns of the fused projection: queries, and keys and values where the layer has its own.
    pub fn fused(&self) -> usize {
        if self.stores() { self.heads.fused() } else { self.heads.width() }
    }

    pub(crate) fn params(&self) -> AttentionParams {
        AttentionParams { window: self.window, scale: self.scale, softcap: self.softcap, ..self.heads.params() }
    }

    /// The pairs of a query head's query and an entry that attention multiplies: of some of `n` rows, ascending, which are the last entries of
    /// every lane, and of which each sees so many as `ends` say.
    pub(super) fn pairs<M: Memory>(
        &self,
        rows: impl Iterator<Item = usize> + Clone,
        (n, ends): (usize, Option<&[u32]>),
        lanes: &[Lane<M>],
    ) -> u64 {
        let params = self.params();
        let ahead = |row: usize| ends.map_or(0, |ends| ends[row] as usize - row - 1);
        let of = |lane: &Lane<M>| {
            let seen: usize = rows.clone().map(|row| params.sees(lane.places() - n + row) + ahead(row)).sum();
            (seen * lane.heads().len() * params.group()) as u64
        };
        lanes.iter().map(of).sum()
    }

    /// The positions of the entries of lanes by their places, those of deleted ones included; only where there is a window, which is
    /// counted in them.
    pub(super) fn positions<M: Memory>(&self, lanes: &[Lane<M>]) -> Vec<Option<Vec<u32>>> {
        let of =
            |lane: &Lane<M>| (0..).map_while(|part| lane.part(part)).flat_map(|part| part.positions).copied().collect();
        lanes.iter().map(|lane| self.window.map(|_| of(lane))).collect()
    }
}
