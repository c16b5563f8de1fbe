//! Stores: how entries that stay are kept in fewer bits.
//!
//! A [`Store`] is what a request asks for, an [`Encoder`] is it at work on one sequence. Whenever the method has settled what a layer
//! keeps, the encoder answers with a plan as methods do: which entries of which lane are stored in which codec from now on.

mod uniform;

use std::fmt::Debug;

use prefixkv_kernels::codec::Dual;
pub(super) use uniform::{GROUP, ROTATE, Uniform, keys, window};

use super::budget;
use super::guard::{Protected, Recent};
use super::keep::Price;
use super::plan::Plan;
use super::score::Recency;
use super::view::View;
use super::{Eviction, Lanes, Method, Positions, Recipe};
use crate::cache::Shape;
use crate::error::Result;

/// A store as a request asks for it.
pub trait Store: Send + Sync + Debug {
    /// As requests name it.
    fn name(&self) -> &'static str;

    /// Refuses a method that it cannot stand behind.
    fn check(&self, method: &Method) -> Result<()>;

    /// The store at work on a sequence of a model of this shape. Refuses heads that cannot be stored so.
    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>>;
}

/// A store at work on one sequence.
pub trait Encoder: Send + Debug {
    /// The transform that all entries of a lane go through.
    fn dual(&self) -> Dual;

    /// The price of entries in bytes, where all that are no longer recent have one.
    fn price(&self) -> Option<Price>;

    /// The same store with what it knows, for a sequence that goes on from the same entries.
    fn fork(&self) -> Box<dyn Encoder>;

    /// Adds to `plan` what is encoded of a layer now. It is asked when a prompt's entries in that layer are settled and after every
    /// generated token; layers are counted as the model does.
    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()>;
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
