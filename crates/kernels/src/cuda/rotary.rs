//! Rotary position embedding and the append of new entries. Contract: `cuda/rotary.cu`; twin: [`crate::rotary`].

use super::args;
use super::lane::{dtype_of, number_of};
use super::memory::Upload;
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

/// Cosines and sines of a run of positions, on the device.
#[derive(Debug)]
pub struct Angles {
    /// The cosines, then as many sines.
    both: Buffer<f32>,
    positions: usize,
}

impl Angles {
    /// Copies the angles, in one write.
    pub fn new(gpu: &Gpu, angles: &rotary::Angles) -> Result<Self> {
        let (cosines, sines) = (&angles.cos, &angles.sin);
        require(cosines.len() == sines.len(), || format!("{} cosines and {} sines", cosines.len(), sines.len()))?;
        let both = Buffer::working_from(gpu, &[cosines.as_slice(), sines.as_slice()].concat())?;
        Ok(Angles { both, positions: angles.positions() })
    }

    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Where cosines and sines are, after checking that there is a row of `dim / 2` of each for `rows` rows.
    fn check(&self, rows: usize, dim: usize) -> Result<(u64, u64)> {
        let half = self.both.len() / 2;
        require(dim.is_multiple_of(2) && half == rows * dim / 2, || {
            format!("{half} angles for {rows} rows of heads of {dim} elements")
        })?;
        Ok((self.both.slice(0..half).address(), self.both.slice(half..2 * half).address()))
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

/// Writes new positions into segments of lanes, in one launch.
pub fn append<A: Element>(gpu: &Gpu, new: New<'_, A>, items: &mut [AppendItem<'_>], dim: usize) -> Result<()> {
    require(dim > 0 && dim.is_multiple_of(2), || format!("heads of {dim} elements cannot be halved"))?;
    let keys = new.keys.check(new.rows, new.heads * dim)?;
    let values = new.values.check(new.rows, new.heads * dim)?;
    let (cosines, sines) = match new.angles {
        Some(angles) => angles.check(new.rows, dim)?,
        None => (0, 0),
    };
    let (mut most, mut transforms) = (0, false);
    let mut all = Vec::new();
    for item in items.iter() {
        let AppendItem { first_head, heads, first_row, n, codec, capacity, at, .. } = *item;
        require(first_head + heads <= new.heads && first_row + n <= new.rows, || {
            format!("heads {first_head}+{heads} of {} and rows {first_row}+{n} of {}", new.heads, new.rows)
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
    if most == 0 {
        return Ok(());
    }
    let grid = [blocks(gpu, most, THREADS), height(all.len(), "segments")?];
    let mut upload = Upload::new(gpu, Upload::room::<args::AppendItem>(all.len()))?;
    let args = args::AppendArgs {
        items: upload.add(&all),
        keys,
        values,
        cosines,
        sines,
        key_stride: new.keys.stride as u64,
        value_stride: new.values.stride as u64,
        dim: count(dim, "elements")?,
        unused: 0,
    };
    let _sent = upload.send()?;
    let kernel = format!("append_{}", A::NAME);
    let shared = if transforms { (dim * size_of::<f32>()) as u32 } else { 0 };
    // SAFETY: rows, angles and targets were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args) }
}
