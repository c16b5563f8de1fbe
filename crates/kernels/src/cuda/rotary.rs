//! Rotary position embedding and the append of new entries. Contract: `cuda/rotary.cu`; twin: [`crate::rotary`].

use super::args;
use super::lane::{dtype_of, number_of};
use super::memory::{Held, Table};
use super::{Buffer, Element, Geometry, Gpu, Result, Slice, SliceMut, blocks, count, height, require};
use crate::codec::KvCodec;
use crate::rotary;

const THREADS: u32 = 256;

/// Rows with a stride: row `i` starts at `offset + i * stride`.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    pub data: Slice<'a, T>,
    pub offset: usize,
    pub stride: usize,
}

impl<T> Rows<'_, T> {
    /// The address of row 0, after checking that `n` rows of `width` elements are there.
    pub(super) fn check(&self, n: usize, width: usize) -> Result<u64> {
        let Rows { data, offset, stride } = self;
        let end = if n == 0 { 0 } else { offset + (n - 1) * stride + width };
        require(*stride >= width && end <= data.len(), || {
            format!("{n} rows of {width} elements, {stride} apart, from {offset} of {}", data.len())
        })?;
        Ok(data.address() + (offset * size_of::<T>()) as u64)
    }
}

/// Cosines and sines of a run of positions, on the device. Clones share their memory.
#[derive(Clone, Debug)]
pub struct Angles {
    _memory: Held,
    cosines: u64,
    sines: u64,
    /// Of each.
    len: usize,
    positions: usize,
}

impl Angles {
    /// Copies the angles, in one write.
    pub fn new(gpu: &Gpu, angles: &rotary::Angles) -> Result<Self> {
        let mut table = Table::default();
        let placed = place(&mut table, angles)?;
        Ok(placed.at(&table.send(gpu)?))
    }

    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Where cosines and sines are, after checking that there is a row of `dim / 2` of each for `rows` rows.
    fn check(&self, rows: usize, dim: usize) -> Result<(u64, u64)> {
        require(dim.is_multiple_of(2) && self.len == rows * dim / 2, || {
            format!("{} angles for {rows} rows of heads of {dim} elements", self.len)
        })?;
        Ok((self.cosines, self.sines))
    }
}

/// Angles in a table.
pub(super) struct PlacedAngles {
    cosines: u64,
    sines: u64,
    len: usize,
    positions: usize,
}

pub(super) fn place(table: &mut Table, angles: &rotary::Angles) -> Result<PlacedAngles> {
    let (cosines, sines) = (&angles.cos, &angles.sin);
    require(cosines.len() == sines.len(), || format!("{} cosines and {} sines", cosines.len(), sines.len()))?;
    let (len, positions) = (cosines.len(), angles.positions());
    Ok(PlacedAngles { cosines: table.add(cosines), sines: table.add(sines), len, positions })
}

impl PlacedAngles {
    /// With the table that was sent.
    pub(super) fn at(self, sent: &Buffer<u8>) -> Angles {
        let PlacedAngles { cosines, sines, len, positions } = self;
        let base = sent.all().address();
        Angles { _memory: sent.held(), cosines: base + cosines, sines: base + sines, len, positions }
    }
}

/// Rotates the vectors of `rows` (`heads` of them per row, `dim` long), row `i` by angle `i`, into `out`, `[n, heads, dim]`.
pub fn rotate<A: Element>(
    gpu: &Gpu,
    rows: Rows<'_, A>,
    heads: usize,
    dim: usize,
    angles: &Angles,
    out: SliceMut<'_, f32>,
) -> Result<()> {
    let n = angles.positions();
    let (cosines, sines) = angles.check(n, dim)?;
    require(out.len() == n * heads * dim, || format!("{} elements for {n} rows of {heads} heads of {dim}", out.len()))?;
    let from = rows.check(n, heads * dim)?;
    if out.is_empty() {
        return Ok(());
    }
    let args = args::RotateArgs {
        rows: from,
        cosines,
        sines,
        out: out.address(),
        stride: rows.stride as u64,
        n: count(n, "rows")?,
        heads: count(heads, "heads")?,
        dim: count(dim, "elements")?,
        unused: 0,
    };
    let grid = [blocks(gpu, count(out.len() / 2, "pairs")?, THREADS), 1];
    let kernel = format!("rotate_{}", A::NAME);
    // SAFETY: rows, angles and target were checked above; the target is borrowed uniquely.
    unsafe { gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}

/// The keys and values of new positions, all KV heads of the layer per row.
#[derive(Clone, Copy)]
pub struct New<'a, A> {
    pub keys: Rows<'a, A>,
    pub values: Rows<'a, A>,
    /// Rows of both, of all sequences.
    pub rows: usize,
    /// KV heads per row.
    pub heads: usize,
    /// Rotates the keys; row `i` by angle `i`. None stores them as they are.
    pub angles: Option<&'a Angles>,
}

/// Where some of the new rows go.
pub struct AppendItem<'a> {
    /// Their KV heads `first_head .. first_head + heads` are meant.
    pub first_head: usize,
    pub heads: usize,
    /// The rows `first_row .. first_row + n` are meant.
    pub first_row: usize,
    pub n: usize,
    /// Plain keys and values, through any transform.
    pub codec: KvCodec,
    /// `[heads, capacity, dim]` numbers.
    pub keys: SliceMut<'a, u8>,
    /// Like `keys`.
    pub values: SliceMut<'a, u8>,
    pub capacity: usize,
    /// The entry at which the first row arrives.
    pub at: usize,
}

/// Queries that are rotated in the launch that appends.
pub struct Queries<'a, A> {
    /// As many rows as there are new ones.
    pub rows: Rows<'a, A>,
    pub heads: usize,
    /// `[rows, heads, dim]`.
    pub out: SliceMut<'a, f32>,
}

/// Writes new positions into segments of lanes, in one launch.
pub fn append<A: Element>(gpu: &Gpu, new: New<'_, A>, items: &mut [AppendItem<'_>], dim: usize) -> Result<()> {
    write(gpu, new, None, items, dim)
}

/// As [`append`], and rotates the queries of the same rows, in the same launch. The rows have angles.
pub fn append_and_rotate<A: Element>(
    gpu: &Gpu,
    new: New<'_, A>,
    queries: Queries<'_, A>,
    items: &mut [AppendItem<'_>],
    dim: usize,
) -> Result<()> {
    write(gpu, new, Some(queries), items, dim)
}

fn write<A: Element>(
    gpu: &Gpu,
    new: New<'_, A>,
    queries: Option<Queries<'_, A>>,
    items: &mut [AppendItem<'_>],
    dim: usize,
) -> Result<()> {
    let items: Vec<&AppendItem<'_>> = items.iter().collect();
    let mut described = describe(&items, (new.heads, new.rows), dim)?;
    let mut table = Table::default();
    described.place(&mut table);
    let sent = table.send(gpu)?;
    // SAFETY: the table was sent, and the targets are borrowed uniquely.
    unsafe { launch(gpu, &described, sent.all().address(), new, queries, dim) }
}

/// Segments that were checked, for rows of so many heads.
pub(super) struct DescribedAppend {
    items: Vec<args::AppendItem>,
    /// Where in the table the items begin.
    at: u64,
    /// Pairs of an item, at most.
    most: u32,
    transforms: bool,
}

impl DescribedAppend {
    pub(super) fn place(&mut self, table: &mut Table) {
        self.at = table.add(&self.items);
    }
}

pub(super) fn describe(
    items: &[&AppendItem<'_>],
    (all_heads, rows): (usize, usize),
    dim: usize,
) -> Result<DescribedAppend> {
    require(dim > 0 && dim.is_multiple_of(2), || format!("heads of {dim} elements cannot be halved"))?;
    let (mut most, mut transforms) = (0, false);
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let AppendItem { first_head, heads, first_row, n, codec, capacity, at, .. } = **item;
        require(first_head + heads <= all_heads && first_row + n <= rows, || {
            format!("heads {first_head}+{heads} of {all_heads} and rows {first_row}+{n} of {rows}")
        })?;
        let (key, value) = (codec.key.row(dim), codec.value.row(dim));
        let fits = item.keys.len() == heads * capacity * key && item.values.len() == heads * capacity * value;
        require(fits && at + n <= capacity, || {
            format!("{n} entries at {at} of {capacity} in {} and {} bytes", item.keys.len(), item.values.len())
        })?;
        codec.dual.check(dim).map_err(super::Error::Argument)?;
        let (key_dtype, value_dtype) = (dtype_of(codec.key)?, dtype_of(codec.value)?);
        require(item.keys.aligned(4) && item.values.aligned(4), || "entries that are not aligned to 4 bytes".into())?;
        transforms |= !codec.dual.is_none();
        if n * heads == 0 {
            continue;
        }
        most = most.max(count(n * heads * dim / 2, "pairs")?);
        all.push(args::AppendItem {
            keys: item.keys.address(),
            values: item.values.address(),
            first_head: count(first_head, "heads")?,
            heads: count(heads, "heads")?,
            capacity: count(capacity, "entries")?,
            at: count(at, "entries")?,
            first_row: count(first_row, "rows")?,
            n: count(n, "rows")?,
            key_dtype,
            value_dtype,
            key_transform: number_of(codec.dual.keys()),
            value_transform: number_of(codec.dual.values()),
        });
    }
    Ok(DescribedAppend { items: all, at: 0, most, transforms })
}

/// Writes new rows, and rotates queries.
///
/// # Safety
/// `described` was described for as many rows and heads of `dim`, its table was sent to `base`, and its targets are memory that nothing
/// else uses.
pub(super) unsafe fn launch<A: Element>(
    gpu: &Gpu,
    described: &DescribedAppend,
    base: u64,
    new: New<'_, A>,
    queries: Option<Queries<'_, A>>,
    dim: usize,
) -> Result<()> {
    let keys = new.keys.check(new.rows, new.heads * dim)?;
    let values = new.values.check(new.rows, new.heads * dim)?;
    let (cosines, sines) = match new.angles {
        Some(angles) => angles.check(new.rows, dim)?,
        None => (0, 0),
    };
    let mut args = args::AppendArgs {
        items: base + described.at,
        keys,
        values,
        cosines,
        sines,
        key_stride: new.keys.stride as u64,
        value_stride: new.values.stride as u64,
        queries: 0,
        rotated: 0,
        query_stride: 0,
        dim: count(dim, "elements")?,
        count: count(described.items.len(), "segments")?,
        rows: count(new.rows, "rows")?,
        query_heads: 0,
    };
    let mut most = described.most;
    if let Some(queries) = &queries {
        require(new.angles.is_some(), || "queries to rotate without angles".into())?;
        require(queries.out.len() == new.rows * queries.heads * dim, || {
            format!("{} elements for {} rows of {} heads of {dim}", queries.out.len(), new.rows, queries.heads)
        })?;
        args.queries = queries.rows.check(new.rows, queries.heads * dim)?;
        (args.rotated, args.query_stride) = (queries.out.address(), queries.rows.stride as u64);
        args.query_heads = count(queries.heads, "heads")?;
        most = most.max(count(queries.out.len() / 2, "pairs")?);
    }
    if most == 0 {
        return Ok(());
    }
    let turns = usize::from(args.query_heads > 0);
    let grid = [blocks(gpu, most, THREADS), height(described.items.len() + turns, "segments")?];
    let kernel = format!("append_{}", A::NAME);
    let shared = if described.transforms { (dim * size_of::<f32>()) as u32 } else { 0 };
    // SAFETY: rows and angles were checked above, the targets when they were described; the rest is the caller's promise.
    unsafe { gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args) }
}
