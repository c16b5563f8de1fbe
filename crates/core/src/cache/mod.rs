//! The key-value cache: a pool that counts every byte, and sequences whose layers hold lanes of entries.
//!
//! ```text
//! Pool ─ Sequence ─ per layer ─ Lane(s) { heads, segments { positions, marks, keys and values } }
//! ```
//! A lane is the unit of storage, eviction and attention: the entries of a range of KV heads that share their indices. Each
//! lane has its own length, so layers and heads may be ragged. Positions are stored, never derived from a length.

mod gpu;
mod lane;
mod memory;
mod pool;
mod segment;
mod shape;

pub(crate) use gpu::Stored;
pub use lane::{Entry, Lane, LaneOptions, New, Rotation, TAIL_BLOCK};
pub use memory::MemoryReport;
pub use pool::{Account, Buffer, Charge, Format, Pool};
pub use segment::Deletion;
pub(crate) use segment::bookkeeping;
pub use shape::{Kept, Modality, Shape, Span};
