//! Rotary position embedding and the append of new entries. Contract: `cuda/rotary.cu`; twin: [`crate::rotary`].

use super::args;
use super::{Buffer, Element, Geometry, Gpu, Result, Slice, SliceMut, blocks, count, height, require};
use crate::rotary::Angles;

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
    require(dim.is_multiple_of(2) && angles.cos.len() == n * dim / 2 && angles.sin.len() == angles.cos.len(), || {
        format!("{} angles for {n} rows of heads of {dim} elements", angles.cos.len())
    })?;
    require(out.len() == n * heads * dim, || format!("{} elements for {n} rows of {heads} heads of {dim}", out.len()))?;
    let from = rows.check(n, heads * dim)?;
    if out.is_empty() {
        return Ok(());
    }
    let (cosines, sines) = (Buffer::from_slice(gpu, &angles.cos)?, Buffer::from_slice(gpu, &angles.sin)?);
    let args = args::RotateArgs {
        rows: from,
        cosines: cosines.all().address(),
        sines: sines.all().address(),
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
pub struct AppendItem<'a, T> {
    /// Their KV heads `first_head .. first_head + heads` are meant.
    pub first_head: usize,
    pub heads: usize,
    /// The rows `first_row .. first_row + n` are meant.
    pub first_row: usize,
    pub n: usize,
    /// `[heads, capacity, dim]`.
    pub keys: SliceMut<'a, T>,
    /// Like `keys`.
    pub values: SliceMut<'a, T>,
    pub capacity: usize,
    /// The entry at which the first row arrives.
    pub at: usize,
}

/// Writes new positions into stretches of lanes, in one launch.
pub fn append<A: Element, T: Element>(
    gpu: &Gpu,
    new: New<'_, A>,
    items: &mut [AppendItem<'_, T>],
    dim: usize,
) -> Result<()> {
    require(dim > 0 && dim.is_multiple_of(2), || format!("heads of {dim} elements cannot be halved"))?;
    let keys = new.keys.check(new.rows, new.heads * dim)?;
    let values = new.values.check(new.rows, new.heads * dim)?;
    if let Some(angles) = new.angles {
        let want = new.rows * dim / 2;
        require(angles.cos.len() == want && angles.sin.len() == want, || {
            format!("{} angles for {} rows of heads of {dim} elements", angles.cos.len(), new.rows)
        })?;
    }
    let mut most = 0;
    let mut all = Vec::new();
    for item in items.iter() {
        let AppendItem { first_head, heads, first_row, n, capacity, at, .. } = *item;
        require(first_head + heads <= new.heads && first_row + n <= new.rows, || {
            format!("heads {first_head}+{heads} of {} and rows {first_row}+{n} of {}", new.heads, new.rows)
        })?;
        let len = heads * capacity * dim;
        require(item.keys.len() == len && item.values.len() == len && at + n <= capacity, || {
            format!("{n} entries at {at} of {capacity} in {} and {} elements", item.keys.len(), item.values.len())
        })?;
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
        });
    }
    if most == 0 {
        return Ok(());
    }
    let grid = [blocks(gpu, most, THREADS), height(all.len(), "stretches")?];
    let all = Buffer::from_slice(gpu, &all)?;
    let angles = match new.angles {
        Some(angles) => Some((Buffer::from_slice(gpu, &angles.cos)?, Buffer::from_slice(gpu, &angles.sin)?)),
        None => None,
    };
    let (cosines, sines) = match &angles {
        Some((cosines, sines)) => (cosines.all().address(), sines.all().address()),
        None => (0, 0),
    };
    let args = args::AppendArgs {
        items: all.all().address(),
        keys,
        values,
        cosines,
        sines,
        key_stride: new.keys.stride as u64,
        value_stride: new.values.stride as u64,
        dim: count(dim, "elements")?,
        unused: 0,
    };
    let kernel = format!("append_{}_{}", A::NAME, T::NAME);
    // SAFETY: rows, angles and targets were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}
