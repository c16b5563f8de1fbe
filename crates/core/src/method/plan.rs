//! A method's decision as data: which entries of which lane stay, and how they are stored. The cache carries plans out; it alone moves
//! bytes.

use std::sync::Arc;

use prefixkv_kernels::codec::{Basis, KvCodec};

use crate::cache::{Common, Entry};

/// When a method is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The prompt comes to its first layer, and it is known what the vision tower has seen of its images.
    Images,
    /// All queries of the prompt have attended in this layer; layers are counted as in [`View`](super::view::View).
    Layer(usize),
    /// All layers hold the prompt.
    Prompt,
    /// Before this generated token, counted from 0 after the last prompt, gets its entries.
    Token(u64),
    /// All layers hold this generated token and have attended.
    Step(u64),
}

/// Changes to the lanes, in the order in which they are carried out; at most one per lane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub lanes: Vec<LanePlan>,
    /// Entries of two lanes that are stored once from now on, behind the changes to the lanes.
    pub join: Vec<Join>,
    /// Single entries that go: all that a step changes.
    pub evict: Vec<Evicted>,
    /// At [`Moment::Layer`], the positions of the prompt that later layers still see, ascending; all that have come so far where there is
    /// none. The last position is always among them. A row that goes no further is computed no more and has no entries there. At
    /// [`Moment::Images`], the positions that come to the first layer at all.
    pub rows: Option<Vec<u32>>,
}

/// An entry that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Counted as in [`View`](super::view::View).
    pub layer: u32,
    pub lane: u32,
    pub entry: Entry,
}

/// Changes to one lane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LanePlan {
    pub layer: usize,
    pub lane: usize,
    /// The entries that stay, in the order of their positions; all where there is none.
    pub keep: Option<Vec<Entry>>,
    /// Entries that are added to others before the rest goes.
    pub merge: Vec<Merge>,
    /// Entries that stay and are stored in another codec from now on; each is named once.
    pub encode: Vec<Encode>,
    /// The scores that the lane's entries carry from now on, all of them in the order of positions; empty where they stay as they
    /// are. They are set before anything goes.
    pub scores: Vec<f32>,
    /// The most entries that the lane will hold from now on, so that its tail has no room for more.
    pub limit: Option<usize>,
}

/// An entry that goes, and the one that it is merged into: keys and values of `into` become the mean of its own, which counts 1, and of all
/// that are merged into it, which count their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merge {
    pub from: Entry,
    pub into: Entry,
    /// Above 0.
    pub weight: f32,
}

/// Entries of a lane that are to be stored in `codec`.
#[derive(Clone, Debug, PartialEq)]
pub struct Encode {
    pub codec: KvCodec,
    /// The basis that the codec names.
    pub basis: Option<Arc<Basis>>,
    /// Their positions, ascending; as many as fill the codec's groups.
    pub positions: Vec<u32>,
}

/// Entries that two layers have at the same positions and that are stored once.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    pub layers: [usize; 2],
    /// The lane of either.
    pub lane: usize,
    /// Of what is stored; it deletes by entry, and names the first layer's basis where there are some.
    pub codec: KvCodec,
    pub common: Common,
    /// Ascending.
    pub positions: Vec<u32>,
}

impl Join {
    /// Bits that a number of a head of either layer takes, scales and the sizes of rows included.
    pub fn effective_bits(&self, head_dim: usize) -> f64 {
        match &self.common {
            Common::Direction { .. } => {
                self.codec.effective_bits(1, head_dim) / 2.0 + (8 * size_of::<f32>()) as f64 / head_dim as f64
            }
            Common::Coordinates { bases } => self.codec.effective_bits(bases[0].shape().0, head_dim) / 2.0,
        }
    }
}

impl Encode {
    /// Bits that a number of a head takes, scales included.
    pub fn effective_bits(&self, head_dim: usize) -> f64 {
        self.codec.effective_bits(self.basis.as_ref().map_or(1, |basis| basis.shape().0), head_dim)
    }
}

impl LanePlan {
    /// A plan that leaves a lane as it is.
    pub fn new(layer: usize, lane: usize) -> LanePlan {
        LanePlan { layer, lane, ..LanePlan::default() }
    }

    /// A plan that stores the entries of each part, if it has any, in its codec.
    pub fn encoding(layer: usize, lane: usize, parts: impl IntoIterator<Item = (KvCodec, Vec<u32>)>) -> LanePlan {
        let some = parts.into_iter().filter(|(_, positions)| !positions.is_empty());
        let encode = some.map(|(codec, positions)| Encode { codec, basis: None, positions }).collect();
        LanePlan { encode, ..LanePlan::new(layer, lane) }
    }

    /// A plan that stores entries in `codec`, and in a basis if there is one.
    pub fn encoding_in(
        layer: usize,
        lane: usize,
        codec: KvCodec,
        basis: Option<Arc<Basis>>,
        positions: Vec<u32>,
    ) -> LanePlan {
        let codec = KvCodec { basis: basis.as_deref().map(Basis::based), ..codec };
        LanePlan { encode: vec![Encode { codec, basis, positions }], ..LanePlan::new(layer, lane) }
    }

    fn changes(&self) -> bool {
        self.keep.is_some()
            || !self.merge.is_empty()
            || !self.encode.is_empty()
            || !self.scores.is_empty()
            || self.limit.is_some()
    }
}

impl Plan {
    /// Empties it. Memory that steps need stays allocated.
    pub fn clear(&mut self) {
        (self.lanes, self.join) = (Vec::new(), Vec::new());
        self.evict.clear();
        self.rows = None;
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.join.is_empty() && self.evict.is_empty() && self.rows.is_none()
    }

    /// Bytes of its lists.
    pub fn bytes(&self) -> usize {
        let of = |lane: &LanePlan| {
            let kept = lane.keep.as_deref().map_or(0, size_of_val);
            let encoded: usize = lane.encode.iter().map(|encode| size_of_val(&encode.positions[..])).sum();
            kept + size_of_val(&lane.merge[..]) + encoded + size_of_val(&lane.scores[..])
        };
        let joined = self.join.iter().map(|join| size_of_val(&join.positions[..]));
        self.lanes.iter().map(of).chain(joined).sum()
    }

    /// Adds what becomes of a lane, unless it stays as it is.
    pub fn push(&mut self, lane: LanePlan) {
        if lane.changes() {
            self.lanes.push(lane);
        }
    }
}
