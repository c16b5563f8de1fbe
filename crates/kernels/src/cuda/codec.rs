//! Entries from one codec to another, and transforms of rows. Contract: `cuda/codec.cu`; twins: [`crate::codec`].

use super::args;
use super::lane::require_part;
use super::memory::Upload;
use super::rotary::Rows;
use super::{Geometry, Gpu, Result, Slice, SliceMut, blocks, count, height, require};
use crate::codec::{Codec, TABLES, Transform};

const THREADS: u32 = 256;
const ROW_THREADS: u32 = 128;
/// When signs are turned, as the kernel counts it.
const TURNED_FIRST: u32 = 1;
const TURNED_LAST: u32 = 2;

/// Keys, or values, that rows are read from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub codec: Codec,
    /// `[heads, capacity, dim]` numbers.
    pub numbers: Slice<'a, u8>,
    pub scales: Slice<'a, u8>,
    pub capacity: usize,
}

/// Keys, or values, of a segment to be written from rows that are stored elsewhere.
pub struct EncodeItem<'a> {
    pub heads: usize,
    pub sources: Vec<Source<'a>>,
    /// Per entry: which of the sources, and the slot there.
    pub rows: &'a [(u32, u32)],
    pub codec: Codec,
    /// `[heads, capacity, dim]` numbers, other memory than the sources.
    pub numbers: SliceMut<'a, u8>,
    pub scales: SliceMut<'a, u8>,
    pub capacity: usize,
    /// The entry at which the first row arrives.
    pub at: usize,
}

/// Writes the rows of every item in its codec, in one launch. The same bytes as [`encode`](crate::codec::encode) gives.
pub fn encode(gpu: &Gpu, items: &mut [EncodeItem<'_>], dim: usize) -> Result<()> {
    require(dim > 0 && dim.is_multiple_of(8), || format!("rows of {dim} elements, which is no multiple of 8"))?;
    let mut room = Upload::room::<args::EncodeItem>(items.len()) + Upload::room::<f32>(TABLES.as_flattened().len());
    for item in items.iter() {
        let EncodeItem { heads, codec, capacity, at, .. } = *item;
        for Source { codec, numbers, scales, capacity } in &item.sources {
            let (numbers, scales) = ((numbers.len(), numbers.address()), (scales.len(), scales.address()));
            require_part(*codec, numbers, scales, (heads, dim, *capacity))?;
        }
        let numbers = (item.numbers.len(), item.numbers.address());
        require_part(codec, numbers, (item.scales.len(), item.scales.address()), (heads, dim, capacity))?;
        let (n, group) = (item.rows.len(), codec.entries());
        require(at + n <= capacity && at.is_multiple_of(group) && n.is_multiple_of(group), || {
            format!("{n} entries at {at} of {capacity} in groups of {group}")
        })?;
        let there = |(source, slot): &(u32, u32)| {
            item.sources.get(*source as usize).is_some_and(|source| (*slot as usize) < source.capacity)
        };
        if let Some((source, slot)) = item.rows.iter().find(|row| !there(row)) {
            return require(false, || format!("entry {slot} of source {source}"));
        }
        room += Upload::room::<u32>(2 * n) + Upload::room::<args::Source>(item.sources.len());
    }
    let mut upload = Upload::new(gpu, room)?;
    let (mut most, mut all) = (0, Vec::with_capacity(items.len()));
    for item in items.iter().filter(|item| !item.rows.is_empty() && item.heads > 0) {
        let sources = item.sources.iter().map(|source| {
            Ok(args::Source {
                numbers: source.numbers.address(),
                scales: source.scales.address(),
                capacity: count(source.capacity, "entries")?,
                codec: source.codec.into(),
                unused: 0,
            })
        });
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let rows: Vec<u32> = item.rows.iter().flat_map(|(source, slot)| [*source, *slot]).collect();
        // A thread takes at least eight numbers.
        most = most.max(count(item.heads * item.rows.len() * dim / 8, "numbers")?);
        all.push(args::EncodeItem {
            numbers: item.numbers.address(),
            scales: item.scales.address(),
            sources: upload.add(&sources),
            rows: upload.add(&rows),
            count: count(item.rows.len(), "entries")?,
            capacity: count(item.capacity, "entries")?,
            at: count(item.at, "entries")?,
            heads: count(item.heads, "heads")?,
            codec: item.codec.into(),
            clip: item.codec.clip(),
            unused: 0,
        });
    }
    if most == 0 {
        return Ok(());
    }
    let grid = [blocks(gpu, most, THREADS), height(all.len(), "parts of segments")?];
    let args = args::EncodeArgs {
        items: upload.add(&all),
        tables: upload.add(TABLES.as_flattened()),
        dim: count(dim, "elements")?,
        unused: 0,
    };
    let _sent = upload.send()?;
    // SAFETY: lengths, slots and alignment were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch("encode", Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}

/// Transforms rows of `heads * dim` elements into `out`, `[n, heads, dim]`: queries, before they meet keys that were stored so.
pub fn transform(
    gpu: &Gpu,
    transform: Transform,
    rows: Rows<'_, f32>,
    n: usize,
    heads: usize,
    dim: usize,
    out: SliceMut<'_, f32>,
) -> Result<()> {
    require(out.len() == n * heads * dim, || format!("{} elements for {n} rows of {heads} heads of {dim}", out.len()))?;
    let from = rows.check(n, heads * dim)?;
    launch(gpu, transform, TURNED_FIRST, (from, rows.stride), (out.address(), heads * dim), [n, heads, dim])
}

/// Transforms `rows` queries, which lie at `address`, in place.
///
/// # Safety
/// As [`undo`].
pub(super) unsafe fn transform_in_place(
    gpu: &Gpu,
    transform: Transform,
    address: u64,
    rows: usize,
    dim: usize,
) -> Result<()> {
    launch(gpu, transform, TURNED_FIRST, (address, dim), (address, dim), [rows, 1, dim])
}

/// Brings `rows` results of attention back, which lie at `address`.
///
/// # Safety
/// `rows * dim` f32 at `address` are memory of the device that the caller may write.
pub(super) unsafe fn undo(gpu: &Gpu, transform: Transform, address: u64, rows: usize, dim: usize) -> Result<()> {
    launch(gpu, transform, TURNED_LAST, (address, dim), (address, dim), [rows, 1, dim])
}

fn launch(
    gpu: &Gpu,
    transform: Transform,
    turned: u32,
    (from, from_stride): (u64, usize),
    (to, to_stride): (u64, usize),
    [n, heads, dim]: [usize; 3],
) -> Result<()> {
    transform.check(dim).map_err(super::Error::Argument)?;
    if transform.is_none() || n * heads == 0 {
        return Ok(());
    }
    let args = args::HadamardArgs {
        from,
        to,
        from_stride: from_stride as u64,
        to_stride: to_stride as u64,
        n: count(n, "rows")?,
        heads: count(heads, "heads")?,
        dim: count(dim, "elements")?,
        turned: if transform == Transform::Random { turned } else { 0 },
    };
    let grid = [blocks(gpu, count(n * heads, "rows")?, 1), 1];
    let geometry = Geometry { grid, threads: ROW_THREADS, shared: (dim * size_of::<f32>()) as u32 };
    // SAFETY: the callers checked, or promise, what lies at the addresses.
    unsafe { gpu.launch("hadamard_rows", geometry, &args) }
}
