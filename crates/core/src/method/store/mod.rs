//! Stores: how entries that stay are kept in fewer bits.
//!
//! A [`Store`] is what a request asks for, an [`Encoder`] is it at work on one sequence. Whenever the method has settled what a layer
//! keeps, the encoder answers with a plan as methods do: which entries of which lane are stored in which codec from now on.

mod coordinates;
mod inputs;
mod layered;
mod listener;
mod pairs;
mod quantiser;
mod uniform;
mod watch;

use std::fmt::Debug;

pub(super) use coordinates::{LaneBases, check_joint, check_positions, width};
pub use inputs::Inputs;
pub(super) use layered::Layered;
pub use listener::Notes;
pub(super) use pairs::{Pairs, alone, least};
use prefixkv_kernels::codec::{Codec, Dual};
pub use quantiser::Quantiser;
pub(crate) use uniform::settled;
pub(super) use uniform::{BLOCK, GROUP, ROPE, ROTATE, Uniform, bits, keys, window};
pub use watch::Watch;

use super::budget::{self, ModelKey};
use super::directions::Projections;
use super::guard::{Protected, Recent};
use super::keep::Price;
use super::plan::Plan;
use super::score::Recency;
use super::view::View;
use super::{Eviction, Lanes, Method, Positions, Recipe};
use crate::cache::Shape;
use crate::error::Result;
use crate::fields::refuse;

/// A store as a request asks for it.
pub trait Store: Send + Sync + Debug {
    /// As requests name it.
    fn name(&self) -> &'static str;

    /// Refuses a method that it cannot stand behind.
    fn check(&self, method: &Method) -> Result<()>;

    /// Whether keys are stored before their rotary embedding, and rotated to their own positions when they are read; methods see them
    /// unrotated. Not with a transform.
    fn before_rope(&self) -> bool {
        false
    }

    /// Refuses a model that it cannot be used with; `model` has all layers.
    fn check_model(&self, model: &ModelKey) -> Result<()> {
        let _ = model;
        Ok(())
    }

    /// The groups in which its codes share scales, and how many of the most recent entries have none, for a store whose bits are the caller's to choose.
    fn quantiser(&self) -> Option<(Quantiser, usize)> {
        None
    }

    /// Reads what it needs of the model that it is used with, before it is put to work.
    fn prepare(&self, model: &dyn Projections) -> Result<()> {
        let _ = model;
        Ok(())
    }

    /// Whether entries and their scales are all that it leaves, so that others can go on from them. One whose encoder knows more of a prompt, or
    /// whose entries need more to be read, says no.
    fn leaves_all(&self) -> bool {
        false
    }

    /// The store at work on a sequence of a model of this shape. Refuses heads that cannot be stored so.
    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>>;
}

/// A lane of a layer of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneNumber {
    pub layer: usize,
    pub lane: usize,
}

/// A store at work on one sequence.
pub trait Encoder: Send + Debug {
    /// The transform that all entries of a lane go through.
    fn dual(&self) -> Dual;

    /// The price of entries in bytes, or the most that it can be; None where there is no such bound.
    fn price(&self) -> Option<Price>;

    /// The layer behind which it wants to know how large each row of a prompt has become; None: none.
    fn watches(&self) -> Option<usize> {
        None
    }

    /// Behind that layer, the largest magnitude in the residual stream of each of a prompt's rows, which are at `positions`; `past`
    /// positions were there before the prompt. A prompt in pieces says it piece by piece.
    fn see_peaks(&mut self, past: usize, positions: &[u32], peaks: &[f32]) {
        let _ = (past, positions, peaks);
    }

    /// Whether it wants to know what the keys and values of every layer are made from.
    fn sees_inputs(&self) -> bool {
        false
    }

    /// The mean magnitude of every channel from which a layer makes the keys and values of a prompt, or of a piece of it, over its `rows` rows.
    fn see_inputs(&mut self, layer: usize, rows: usize, magnitudes: &[f64]) {
        let _ = (layer, rows, magnitudes);
    }

    /// The weight with which each of `n` queries of a prompt that comes after `past` positions counts in the sums of attention that the store
    /// sees of each layer; None: it needs none.
    fn queries(&self, past: usize, n: usize) -> Option<Vec<f32>> {
        let _ = (past, n);
        None
    }

    /// The sums that the entries of a lane have got from these queries, the mean over its heads, in the order of their positions; before
    /// the method frees any of them.
    fn see_sums(&mut self, lane: LaneNumber, view: &View<'_>, sums: &[(u32, f32)]) {
        let _ = (lane, view, sums);
    }

    /// Whether those sums are gathered before the attention of a prompt, so that only some of a layer's entries take part in it.
    fn attends_among(&self) -> bool {
        false
    }

    /// The positions of a lane that take no part in it, ascending, by the sums that were seen last.
    fn left_out(&self, lane: LaneNumber) -> &[u32] {
        let _ = lane;
        &[]
    }

    /// Whether it stores entries in bases of its own.
    fn has_bases(&self) -> bool {
        false
    }

    /// Whether it stores entries of two layers once.
    fn joins(&self) -> bool {
        false
    }

    /// How many of a prompt's last queries it wants to see in each layer.
    fn last_queries(&self) -> usize {
        0
    }

    /// The last `n` queries of a prompt in a layer as they have attended, `[n, query heads, head_dim]`, before it is asked what of the
    /// layer is encoded; `past` positions were there before the prompt. A prompt in pieces says it piece by piece.
    fn see_queries(&mut self, layer: usize, past: usize, n: usize, queries: &[f32]) {
        let _ = (layer, past, n, queries);
    }

    /// The same store with what it knows, for a sequence that goes on from the same entries.
    fn fork(&self) -> Box<dyn Encoder>;

    /// Adds to `plan` what is encoded of a layer now. It is asked when a prompt's entries in that layer are settled and after every
    /// generated token; layers are counted as the model does.
    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()>;
}

/// Channels of a head that share a scale, at most `most`. Refuses heads that cannot be cut so.
pub(super) fn channels(name: &str, dim: usize, most: usize) -> Result<u16> {
    Codec::channels(dim, most).ok_or_else(|| {
        refuse(format!("{name} takes heads of a multiple of 8 channels, and those of the model have {dim}"))
    })
}

/// Of a store that stands alone: every entry stays.
pub(super) fn everything() -> Recipe {
    Recipe {
        score: Box::new(Recency),
        budget: Box::new(budget::Uniform),
        protected: Protected { sinks: 0, recent: Recent::Entries(0), text: false },
        eviction: Eviction::Never,
        lanes: Lanes::PerLayer,
        positions: Positions::True,
    }
}
