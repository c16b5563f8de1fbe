//! The key-value cache: a pool that counts every byte, and sequences whose layers hold lanes of entries.
//!
//! ```text
//! Pool ─ Sequence ─ per layer ─ Lane(s) { heads, segments { scores, Arc { positions, keys and values } } }
//! ```
//! A lane is the unit of storage, eviction and attention: the entries of a range of KV heads that share their indices. Each
//! lane has its own length, so layers and heads may be ragged. Positions are stored, never derived from a length.
//! Sequences with one prefix share its segments until one of them changes them.

mod contents;
mod lane;
mod memory;
mod pool;
mod recode;
mod report;
mod rows;
mod segment;
mod shape;
mod stored;
mod twin;

pub use lane::{Entry, Lane, LaneOptions, Part, Rotation, TAIL_BLOCK};
pub use memory::{Entries, Form, Memory, New, Side};
pub use pool::{Account, Charge, Format, Pool};
pub use recode::{Recode, Together};
pub use report::MemoryReport;
pub use segment::Dead;
pub use shape::{Kept, KeptSpan, LayerCache, Modality, Piece, PieceKind, Shape, Span, block_at};
pub use stored::{Get, Put};
pub use twin::{Common, Forked};

/// Bytes that the parts of a cache take beside keys, values, positions and scores.
#[derive(Clone, Copy, Debug)]
pub struct Bookkeeping {
    pub lane: usize,
    pub segment: usize,
}

impl Bookkeeping {
    /// In memory of a kind.
    pub fn of<M: Memory>() -> Self {
        Bookkeeping { lane: size_of::<Lane<M>>(), segment: segment::Segment::<M>::BOOKKEEPING }
    }
}
