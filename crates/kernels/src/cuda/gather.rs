//! Compaction of lanes and norms of keys. Contract: `cuda/gather.cu`; twin: [`crate::gather`].

use super::args;
use super::{Buffer, Element, Geometry, Gpu, Result, Slice, SliceMut, blocks, count, height, require};

const THREADS: u32 = 256;

/// Entries of one stretch of a lane to be copied together.
pub struct GatherItem<'a, T> {
    /// `[heads, capacity, dim]`.
    pub keys: Slice<'a, T>,
    /// Like `keys`.
    pub values: Slice<'a, T>,
    pub capacity: usize,
    /// Which entries, in the order in which they arrive.
    pub slots: &'a [u32],
    pub heads: usize,
    /// `[heads, to_capacity, dim]`, other memory than `keys` and `values`.
    pub to_keys: SliceMut<'a, T>,
    /// Like `to_keys`.
    pub to_values: SliceMut<'a, T>,
    pub to_capacity: usize,
    /// The entry at which the first of `slots` arrives.
    pub at: usize,
}

/// Copies the chosen entries of every item, keys and values, in one launch.
pub fn gather<T: Element>(gpu: &Gpu, items: &mut [GatherItem<'_, T>], dim: usize) -> Result<()> {
    let row = dim * size_of::<T>();
    let mut unit = 16;
    let mut slots = Vec::new();
    let mut most = 0;
    for item in items.iter() {
        let GatherItem { capacity, to_capacity, heads, at, .. } = *item;
        for (len, capacity) in [
            (item.keys.len(), capacity),
            (item.values.len(), capacity),
            (item.to_keys.len(), to_capacity),
            (item.to_values.len(), to_capacity),
        ] {
            require(len == heads * capacity * dim, || {
                format!("{len} elements for {heads} heads of {capacity} entries of {dim}")
            })?;
        }
        let n = item.slots.len();
        require(at + n <= to_capacity, || format!("{n} entries at {at} of {to_capacity}"))?;
        if let Some(slot) = item.slots.iter().find(|slot| **slot as usize >= capacity) {
            return require(false, || format!("entry {slot} of {capacity}"));
        }
        for bytes in [16, 4] {
            let aligned = row.is_multiple_of(bytes)
                && item.keys.aligned(bytes)
                && item.values.aligned(bytes)
                && item.to_keys.aligned(bytes)
                && item.to_values.aligned(bytes);
            if !aligned && unit == bytes {
                unit = if bytes == 16 { 4 } else { 2 };
            }
        }
        slots.extend_from_slice(item.slots);
    }
    let slots = Buffer::from_slice(gpu, &slots)?;
    let mut next = slots.all().address();
    let mut all = Vec::new();
    for item in items.iter().filter(|item| !item.slots.is_empty() && item.heads > 0) {
        most = most.max(count(item.heads * item.slots.len() * row / unit, "words")?);
        all.push(args::GatherItem {
            keys: item.keys.address(),
            values: item.values.address(),
            to_keys: item.to_keys.address(),
            to_values: item.to_values.address(),
            slots: next,
            count: count(item.slots.len(), "entries")?,
            capacity: count(item.capacity, "entries")?,
            to_capacity: count(item.to_capacity, "entries")?,
            at: count(item.at, "entries")?,
            heads: count(item.heads, "heads")?,
            unused: 0,
        });
        next += size_of_val(item.slots) as u64;
    }
    if most == 0 {
        return Ok(());
    }
    let grid = [blocks(gpu, most, THREADS), height(all.len(), "stretches")?];
    let all = Buffer::from_slice(gpu, &all)?;
    let args = args::GatherArgs { items: all.all().address(), units: count(row / unit, "words")?, unused: 0 };
    // SAFETY: lengths, slots and alignment were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch(&format!("gather_{unit}"), Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}

/// Keys of one stretch whose norms are wanted.
pub struct NormItem<'a, T> {
    /// `[heads, capacity, dim]`.
    pub keys: Slice<'a, T>,
    pub capacity: usize,
    /// The first `len` entries are meant.
    pub len: usize,
    pub heads: usize,
    /// `[heads, len]`.
    pub out: SliceMut<'a, f32>,
}

/// The Euclidean norms of the keys of every item, in one launch. `dim` is a multiple of 8.
pub fn key_norms<T: Element>(gpu: &Gpu, items: &mut [NormItem<'_, T>], dim: usize) -> Result<()> {
    require(dim > 0 && dim.is_multiple_of(8), || format!("keys of {dim} elements, which is no multiple of 8"))?;
    let mut most = 0;
    let mut all = Vec::new();
    for item in items.iter() {
        let NormItem { capacity, len, heads, .. } = *item;
        require(item.keys.len() == heads * capacity * dim, || {
            format!("{} elements for {heads} heads of {capacity} entries of {dim}", item.keys.len())
        })?;
        require(len <= capacity && item.out.len() == heads * len, || {
            format!("{} norms of {heads} heads of {len} entries of {capacity}", item.out.len())
        })?;
        require(item.keys.aligned(16), || "keys that are not aligned to 16 bytes".into())?;
        if item.out.is_empty() {
            continue;
        }
        most = most.max(count(heads * len, "keys")?);
        all.push(args::NormItem {
            keys: item.keys.address(),
            out: item.out.address(),
            capacity: count(capacity, "entries")?,
            len: count(len, "entries")?,
            heads: count(heads, "heads")?,
            unused: 0,
        });
    }
    if most == 0 {
        return Ok(());
    }
    let grid = [blocks(gpu, most, THREADS / 32), height(all.len(), "stretches")?];
    let all = Buffer::from_slice(gpu, &all)?;
    let args = args::NormArgs { items: all.all().address(), dim: count(dim, "elements")?, unused: 0 };
    let kernel = format!("key_norms_{}", T::NAME);
    // SAFETY: lengths and alignment were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}
