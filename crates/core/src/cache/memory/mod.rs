//! Where the entries of a cache lie: one file per kind of memory.

mod cpu;
mod cuda;

use std::fmt::Debug;
use std::ops::Range;

pub use cpu::New;
pub(crate) use cuda::Stored;

use super::pool::Format;
use crate::error::Result;

/// Memory that entries can lie in, and a handle to it. A pool, an account, a lane, a sequence and a pass are of one memory, so that
/// entries of two never meet.
pub trait Memory: Clone + Debug + Send + Sync + 'static {
    /// Whether keys can be rotated whenever they are read, and not only before they are stored.
    const ROTATES_ON_READ: bool;

    /// Whether entries can be replaced, as merging does.
    const MERGES: bool;

    /// Keys and values of a segment.
    type Entries: Entries;

    /// The keys and values that an append stores: rows of all KV heads of a layer, or nothing where they are written later.
    type New<'a>: Copy;

    /// Room for the entries of a segment, which has been counted.
    fn allocate(&self, format: Format, sizes: Sizes) -> Result<Self::Entries>;

    /// Stores the rows of `new` for the KV heads `heads` as the `n` entries from `at` on; keys are rotated if `rotate`.
    fn write(
        entries: &mut Self::Entries,
        sizes: Sizes,
        new: Self::New<'_>,
        rotate: bool,
        n: usize,
        heads: Range<usize>,
        at: usize,
    ) -> Result<()>;
}

/// Keys and values of a segment, `[heads, capacity, head_dim]` each. Slots are counted per head.
pub trait Entries: Debug + Send + Sync + Sized {
    fn deletion(&self) -> Deletion;

    /// Bytes of the keys and values of one entry.
    fn entry_bytes(&self, sizes: Sizes) -> f64;

    /// Which entries are deleted and still stored; None while none is.
    fn dead(&self) -> Option<&[bool]>;

    /// Whether nothing waits to be done to them, so that they can be shared.
    fn is_settled(&self) -> bool {
        true
    }

    /// The first `len` entries in memory of their own, which has been counted: as much as these take.
    fn duplicate(&self, sizes: Sizes, len: usize) -> Result<Self>;

    /// Copies the entries `slots` of `from`, of as many heads of one size, to those from `at` on. Both are deleted from by entry
    /// and of one format.
    fn take(&mut self, sizes: Sizes, at: usize, from: &Self, from_capacity: usize, slots: &[u32]) -> Result<()>;

    /// Deletes entry `slot` of `len`: the last one takes its place, or it stays and is marked. False when it was marked before.
    fn delete(&mut self, sizes: Sizes, slot: usize, len: usize) -> bool;

    /// The keys or values of the entries `slots` as attention reads them, `[slots, heads, head_dim]`.
    fn read(&self, sizes: Sizes, side: Side, slots: &[u32]) -> Result<Vec<f32>>;

    /// Replaces the key and the value of entry `slot`, `[heads, head_dim]` each, rounded to their format; only where
    /// [`Memory::MERGES`], and not in a group.
    fn overwrite(&mut self, sizes: Sizes, slot: usize, keys: &[f32], values: &[f32]) -> Result<()>;

    /// The L2 norm of every key as attention reads it, `[heads, len]`.
    fn key_norms(&self, sizes: Sizes, len: usize) -> Result<Vec<f32>>;

    /// The sum over the heads of the L2 norm of the key of entry `slot` of `len`.
    fn key_norm(&self, sizes: Sizes, slot: usize, len: usize) -> Result<f32>;
}

/// Which half of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Keys,
    Values,
}

/// How entries are deleted from a segment, by its storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The place of a deleted entry is taken by the last one, and used again by the next append.
    Entry,
    /// A deleted entry stays, masked, until all of its segment are deleted.
    Group,
}

/// Sizes of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub heads: usize,
    pub dim: usize,
    /// Entries that there is room for.
    pub capacity: usize,
}

impl Sizes {
    /// Elements of keys and values together.
    pub fn elements(self) -> usize {
        2 * self.heads * self.capacity * self.dim
    }
}
