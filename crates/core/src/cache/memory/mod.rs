//! Where the entries of a cache lie: one file per kind of memory.

mod cpu;
mod cuda;

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;

pub use cpu::New;
use prefixkv_kernels::codec::{Basis, Codec, Found, Gains, KvCodec, Map, Run, encode_in, parts_mut};

use crate::error::Result;

/// Memory that entries can lie in, and a handle to it. A pool, an account, a lane, a sequence and a pass are of one memory, so that
/// entries of two never meet.
pub trait Memory: Clone + Debug + Send + Sync + 'static {
    /// Whether keys can be rotated whenever they are read, and not only before they are stored.
    const ROTATES_ON_READ: bool;

    /// Whether entries can be stored in a basis.
    const READS_BASES: bool;

    /// Whether rows of entries can have factors.
    const READS_GAINS: bool;

    /// Whether some positions of a prompt can attend among themselves.
    const ATTENDS_AMONG: bool;

    /// Entries that methods look at together: on a device each reading waits for it.
    const READ_AT_ONCE: usize;

    /// Keys and values of a segment.
    type Entries: Entries;

    /// The keys and values that an append stores: rows of all KV heads of a layer, or nothing where they are written later.
    type New<'a>: Copy;

    /// Room for the entries of a segment, which has been counted.
    fn allocate(&self, form: Form<'_>) -> Result<Self::Entries>;

    /// Stores the rows of `new` for the KV heads `heads` as the `n` entries from `at` on, in a plain codec; keys are rotated if
    /// `rotate`.
    fn write(
        entries: &mut Self::Entries,
        form: Form<'_>,
        new: Self::New<'_>,
        rotate: bool,
        n: usize,
        heads: Range<usize>,
        at: usize,
    ) -> Result<()>;
}

/// Keys and values of a segment. Slots are counted per head.
pub trait Entries: Debug + Send + Sync + Sized {
    /// Whether nothing waits to be done to them, so that they can be shared.
    fn is_settled(&self) -> bool {
        true
    }

    /// The same in memory of their own, which has been counted.
    fn duplicate(&self) -> Result<Self>;

    /// Copies the entries `slots` of `from`, of as many heads of one size and in one codec, to those from `at` on. Both are deleted from
    /// by entry.
    fn take(&mut self, form: Form<'_>, at: usize, from: &Self, from_capacity: usize, slots: &[u32]) -> Result<()>;

    /// Writes entries from `at` on in the segment's codec from `rows` of others, in whatever codecs: which of `sources`, and the slot
    /// there.
    fn encode(&mut self, form: Form<'_>, at: usize, sources: &[(&Self, Form<'_>)], rows: &[(u32, u32)]) -> Result<()>;

    /// Entry `slot` goes, and entry `last` takes its slot.
    fn replace(&mut self, form: Form<'_>, slot: usize, last: usize);

    /// The keys or values of the entries `slots` as they are stored, in the numbers that codes stand for: `[slots, heads, head_dim]`.
    fn read(&self, form: Form<'_>, side: Side, slots: &[u32]) -> Result<Vec<f32>>;

    /// Replaces the keys and the values of the entries `slots`, `[slots, heads, head_dim]` each; entries that share their scales with one of
    /// them are encoded anew. A GPU is read once and written once.
    fn overwrite(&mut self, form: Form<'_>, slots: &[u32], keys: &[f32], values: &[f32]) -> Result<()>;

    /// Writes the coordinates that keys and values have together, `[rows, capacity, width]`, of all entries of a segment that is in a basis of such.
    fn fill(&mut self, form: Form<'_>, coordinates: &[f32]) -> Result<()>;

    /// All bytes as their codec lays them out, [`Form::bytes`] of them. Errors while something waits to be done to the entries.
    fn bytes(&self, form: Form<'_>) -> Result<Vec<u8>>;

    /// Puts in what [`Entries::bytes`] has given.
    fn set_bytes(&mut self, form: Form<'_>, bytes: &[u8]) -> Result<()>;

    /// The L2 norm of every key as attention reads it, `[heads, len]`.
    fn key_norms(&self, form: Form<'_>, len: usize) -> Result<Vec<f32>>;

    /// The sum over the heads of the L2 norm of the key of entry `slot` of `len`.
    fn key_norm(&self, form: Form<'_>, slot: usize, len: usize) -> Result<f32>;
}

/// Which half of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Keys,
    Values,
}

impl Side {
    fn codec(self, codec: KvCodec) -> Codec {
        match self {
            Side::Keys => codec.key,
            Side::Values => codec.value,
        }
    }

    /// The rows of a head from entry `from` on, as many as `to` holds.
    fn read(self, run: &Run<'_, &[u8]>, head: usize, from: usize, dim: usize, to: &mut [f32]) {
        match self {
            Side::Keys => run.read_keys(head, from, dim, to),
            Side::Values => run.read_values(head, from, dim, to),
        }
    }
}

/// Sizes of a segment, and how its entries are stored.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    pub codec: KvCodec,
    pub heads: usize,
    pub dim: usize,
    /// Entries that there is room for.
    pub capacity: usize,
    /// The basis that the codec names, for those who read or encode.
    pub basis: Option<&'a Basis>,
    /// The factors of its rows, for those who read.
    pub gains: Option<Gains<'a>>,
}

impl<'a> Form<'a> {
    /// Bytes of keys, values and their scales, in whole words.
    pub fn bytes(self) -> usize {
        self.codec.bytes(self.heads, self.dim, self.capacity).next_multiple_of(size_of::<f32>())
    }

    /// The coordinates of one half of the entries; None: those of the heads.
    fn map(self, side: Side) -> Option<&'a Map> {
        let basis = self.basis?;
        match side {
            Side::Keys => basis.keys.as_ref(),
            Side::Values => basis.values.as_ref(),
        }
    }

    /// The findings of a calibration about one half of the entries.
    fn found(self, side: Side) -> Option<&'a Found> {
        let basis = self.basis?;
        match side {
            Side::Keys => basis.found_keys(),
            Side::Values => basis.found_values(),
        }
    }

    /// Rows that an entry has on one side, and numbers of each.
    fn cut(self, side: Side) -> (usize, usize) {
        match side {
            Side::Keys => self.codec.keys(self.heads, self.dim),
            Side::Values => self.codec.values(self.heads, self.dim),
        }
    }

    /// Entries `[heads, n, dim]` in the coordinates in which they are stored.
    fn projected<'r>(self, side: Side, entries: &'r [f32], n: usize) -> Cow<'r, [f32]> {
        self.map(side).map_or(Cow::Borrowed(entries), |map| Cow::Owned(map.project(entries, n)))
    }
}

/// Replaces keys and values in the bytes of a segment, as [`Entries::overwrite`].
fn overwrite(bytes: &mut [u8], form: Form<'_>, slots: &[u32], keys: &[f32], values: &[f32]) {
    let Form { heads, dim, capacity, .. } = form;
    for (side, rows) in [(Side::Keys, keys), (Side::Values, values)] {
        let codec = side.codec(form.codec);
        for (row, slot) in rows.chunks_exact(heads * dim).zip(slots) {
            // With the entry go those that share its scales.
            let (n, slot) = (codec.entries(), *slot as usize);
            let first = slot - slot % n;
            let run = Run::of(form.codec, &*bytes, heads, dim, capacity, capacity).with(form.basis);
            let mut group = vec![0.0; heads * n * dim];
            for (head, group) in group.chunks_exact_mut(n * dim).enumerate() {
                side.read(&run, head, first, dim, group);
                group[(slot - first) * dim..][..dim].copy_from_slice(&row[head * dim..][..dim]);
            }
            let to = parts_mut(form.codec, bytes, heads, dim, capacity);
            let (numbers, scales) = match side {
                Side::Keys => (to.keys, to.key_scales),
                Side::Values => (to.values, to.value_scales),
            };
            let (rows, width) = form.cut(side);
            let found = form.found(side);
            encode_in(codec, found, &form.projected(side, &group, n), rows, width, numbers, scales, capacity, first);
        }
    }
}
