//! The key-value cache: a pool that counts every byte, and sequences whose layers hold lanes of entries.
//!
//! ```text
//! Pool ─ Sequence ─ per layer ─ Lane(s) { heads, positions, extents | tail blocks }
//! ```
//! A lane is the unit of storage and of attention: the entries of a range of KV heads that share their indices. Each lane has
//! its own length, so layers and heads may be ragged. Positions are stored, never derived from a length.

mod lane;
mod memory;
mod pool;
mod sequence;

pub use lane::{Lane, TAIL_BLOCK};
pub use memory::MemoryReport;
pub use pool::{Account, Buffer, Format, Pool};
pub use sequence::{Modality, Sequence, Shape, Span};
