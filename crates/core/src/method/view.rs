//! A method's view of the cache, wherever the entries lie.

use std::ops::Range;

use prefixkv_kernels::attention::AttentionParams;

use super::normal::ToCome;
use super::pictures::Shown;
pub use crate::cache::Part;
use crate::cache::{Entry, Span};
use crate::error::Result;

/// A lane: entries of some KV heads of one layer that share their positions.
///
/// An entry is named by its position or by its *place*, its number in physical order over all parts.
pub trait ReadLane {
    /// The KV heads.
    fn heads(&self) -> Range<usize>;

    /// Entries held.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that are stored as new ones are.
    fn unencoded(&self) -> usize;

    /// The entries from part to part; None behind the last one.
    fn part(&self, index: usize) -> Option<Part<'_>>;

    /// The L2 norm of the key at `place`, averaged over the heads. Errors when keys cannot be read from the device.
    fn key_norm(&self, place: u32) -> Result<f32>;

    /// [`ReadLane::key_norm`] of every place.
    fn key_norms(&self) -> Result<Vec<f32>>;

    /// Entries whose keys or values are best read together.
    fn at_once(&self) -> usize;

    /// The keys of entries as the lane holds them, rotated or not, `[entries, heads, head_dim]`: read from the cache, and from the device, only now.
    fn keys(&self, entries: &[Entry]) -> Result<Vec<f32>>;

    /// The values of entries, as [`ReadLane::keys`].
    fn values(&self, entries: &[Entry]) -> Result<Vec<f32>>;
}

impl dyn ReadLane + '_ {
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        (0..).map_while(|index| self.part(index))
    }

    /// The entries in the order of their positions.
    pub fn sorted(&self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.len());
        let mut place = 0;
        for part in self.parts() {
            for (slot, position) in part.positions.iter().enumerate() {
                if !part.dead.has(slot) {
                    entries.push(Entry { position: *position, place });
                }
                place += 1;
            }
        }
        entries.sort_unstable_by_key(|entry| entry.position);
        entries
    }

    /// The entries that are stored as new ones are, in the order of their positions.
    pub fn sorted_unencoded(&self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.unencoded());
        let mut place = 0;
        for part in self.parts() {
            for (slot, position) in part.positions.iter().enumerate() {
                if part.fresh && !part.dead.has(slot) {
                    entries.push(Entry { position: *position, place });
                }
                place += 1;
            }
        }
        entries.sort_unstable_by_key(|entry| entry.position);
        entries
    }

    /// The carried scores of all places; empty for a lane whose entries carry none.
    pub fn scores(&self) -> Vec<f32> {
        self.parts().flat_map(|part| part.scores).copied().collect()
    }
}

/// The lanes of a sequence. Layers that read another's lanes are left out: a layer's number here is its number among those that
/// have lanes of their own.
pub trait ReadCache {
    fn layers(&self) -> usize;

    /// The number of a layer in the model.
    fn number(&self, layer: usize) -> usize;

    /// Lanes of a layer.
    fn lanes(&self, layer: usize) -> usize;

    fn lane(&self, layer: usize, lane: usize) -> &dyn ReadLane;
}

impl dyn ReadCache + '_ {
    /// The lanes of a layer.
    pub fn of(&self, layer: usize) -> impl Iterator<Item = &dyn ReadLane> {
        (0..self.lanes(layer)).map(move |lane| self.lane(layer, lane))
    }
}

/// The attention that was gathered for a method: per layer the sums of every KV head, of all places of its lane.
#[derive(Clone, Copy, Debug, Default)]
pub enum Sums<'a> {
    #[default]
    None,
    /// Of one layer.
    Layer(usize, &'a [Vec<f32>]),
    /// Of all layers.
    All(&'a [Vec<Vec<f32>>]),
}

/// A sequence at one moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub cache: &'a dyn ReadCache,
    /// Positions seen before the prompt, or before the generated token.
    pub past: usize,
    /// Positions of the prompt, or 1.
    pub n: usize,
    /// Spans that cover all these positions.
    pub spans: &'a [Span],
    pub sums: Sums<'a>,
    /// Per layer the last queries of the prompt that were asked for.
    pub queries: &'a [LastQueries],
    /// At [`Moment::Images`](super::Moment::Images), the images of the prompt; None where it has none.
    pub shown: Option<&'a Shown>,
    /// Whether the positions of an image see each other while a prompt is read.
    pub blocks: bool,
}

/// The last queries of a prompt in a layer.
#[derive(Clone, Debug, Default)]
pub struct LastQueries {
    /// `[queries, query heads, head_dim]`, as they have attended.
    pub rows: Vec<f32>,
    /// All queries of the prompt, for a method that looks ahead; it gets no rows.
    pub to_come: Option<ToCome>,
    /// How they have attended; None while there are none.
    pub params: Option<AttentionParams>,
}

impl<'a> View<'a> {
    /// Positions seen, the newest included.
    pub fn positions(&self) -> usize {
        self.past + self.n
    }

    /// The gathered sums of a layer, per KV head; empty when nothing was gathered.
    pub fn sums(&self, layer: usize) -> &'a [Vec<f32>] {
        match self.sums {
            Sums::Layer(of, sums) if of == layer => sums,
            Sums::All(sums) => sums.get(layer).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }
}
