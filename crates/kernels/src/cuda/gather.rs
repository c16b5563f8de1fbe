//! Compaction of lanes and norms of keys. Contract: `cuda/gather.cu`; twin: [`crate::gather`].

use super::args;
use super::memory::Upload;
use super::{Element, Geometry, Gpu, Result, Slice, SliceMut, blocks, count, height, require};

const THREADS: u32 = 256;

/// Entries of one segment of a lane to be copied together.
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
        let aligned = |bytes| {
            item.keys.aligned(bytes)
                && item.values.aligned(bytes)
                && item.to_keys.aligned(bytes)
                && item.to_values.aligned(bytes)
        };
        unit = narrowed(unit, row, aligned);
    }
    let items: Vec<_> = items.iter().filter(|item| !item.slots.is_empty() && item.heads > 0).collect();
    if items.is_empty() || dim == 0 {
        return Ok(());
    }
    let slots: usize = items.iter().map(|item| Upload::room::<u32>(item.slots.len())).sum();
    let mut upload = Upload::new(gpu, slots + Upload::room::<args::GatherItem>(items.len()))?;
    let mut most = 0;
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        most = most.max(count(item.heads * item.slots.len() * row / unit, "words")?);
        all.push(args::GatherItem {
            keys: item.keys.address(),
            values: item.values.address(),
            to_keys: item.to_keys.address(),
            to_values: item.to_values.address(),
            slots: upload.add(item.slots),
            count: count(item.slots.len(), "entries")?,
            capacity: count(item.capacity, "entries")?,
            to_capacity: count(item.to_capacity, "entries")?,
            at: count(item.at, "entries")?,
            heads: count(item.heads, "heads")?,
            unused: 0,
        });
    }
    let grid = [blocks(gpu, most, THREADS), height(all.len(), "segments")?];
    let args = args::GatherArgs { items: upload.add(&all), units: count(row / unit, "words")?, unused: 0 };
    let _sent = upload.send()?;
    // SAFETY: lengths, slots and alignment were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch(&format!("gather_{unit}"), Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}

/// The widest word, up to `unit` bytes, to which rows of `row` bytes and addresses align.
fn narrowed(unit: usize, row: usize, aligned: impl Fn(usize) -> bool) -> usize {
    [16, 4].into_iter().find(|bytes| *bytes <= unit && row.is_multiple_of(*bytes) && aligned(*bytes)).unwrap_or(2)
}

/// Entries of one segment of a lane to be copied within it.
pub struct MoveItem<'a, T> {
    /// `[heads, capacity, dim]`.
    pub keys: SliceMut<'a, T>,
    /// Like `keys`.
    pub values: SliceMut<'a, T>,
    pub capacity: usize,
    pub heads: usize,
    /// From which entry to which. No target is another's source or target.
    pub moves: &'a [(u32, u32)],
}

/// Copies entries within the segment of every item, keys and values, in one launch.
pub fn move_entries<T: Element>(gpu: &Gpu, items: &mut [MoveItem<'_, T>], dim: usize) -> Result<()> {
    let row = dim * size_of::<T>();
    let mut unit = 16;
    for item in items.iter() {
        let MoveItem { capacity, heads, .. } = *item;
        for len in [item.keys.len(), item.values.len()] {
            require(len == heads * capacity * dim, || {
                format!("{len} elements for {heads} heads of {capacity} entries of {dim}")
            })?;
        }
        require_apart(item.moves, capacity)?;
        unit = narrowed(unit, row, |bytes| item.keys.aligned(bytes) && item.values.aligned(bytes));
    }
    let items: Vec<_> = items.iter().filter(|item| !item.moves.is_empty() && item.heads > 0).collect();
    if items.is_empty() || dim == 0 {
        return Ok(());
    }
    let moves: usize = items.iter().map(|item| Upload::room::<u32>(2 * item.moves.len())).sum();
    let mut upload = Upload::new(gpu, moves + Upload::room::<args::MoveItem>(items.len()))?;
    let mut most = 0;
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let moves: Vec<u32> = item.moves.iter().flat_map(|(from, to)| [*from, *to]).collect();
        most = most.max(count(item.heads * item.moves.len() * row / unit, "words")?);
        all.push(args::MoveItem {
            keys: item.keys.address(),
            values: item.values.address(),
            moves: upload.add(&moves),
            count: count(item.moves.len(), "entries")?,
            capacity: count(item.capacity, "entries")?,
            heads: count(item.heads, "heads")?,
            unused: 0,
        });
    }
    let grid = [blocks(gpu, most, THREADS), height(all.len(), "segments")?];
    let args = args::MoveArgs { items: upload.add(&all), units: count(row / unit, "words")?, unused: 0 };
    let _sent = upload.send()?;
    // SAFETY: lengths, entries and alignment were checked above, and that no word that is written is another's source; the
    // segments are borrowed uniquely.
    unsafe { gpu.launch(&format!("move_{unit}"), Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}

/// Refuses moves whose result would depend on their order, or that leave the segment.
fn require_apart(moves: &[(u32, u32)], capacity: usize) -> Result<()> {
    if let Some((from, to)) = moves.iter().find(|(from, to)| (*from).max(*to) as usize >= capacity) {
        return require(false, || format!("entry {from} to {to} of {capacity}"));
    }
    let mut targets: Vec<u32> = moves.iter().map(|(_, to)| *to).collect();
    targets.sort_unstable();
    if let Some(twice) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
        return require(false, || format!("entry {} is the target of two moves", twice[0]));
    }
    match moves.iter().find(|(from, to)| from != to && targets.binary_search(from).is_ok()) {
        Some((from, _)) => {
            require(false, || format!("entry {from} is the target of one move and the source of another"))
        }
        None => Ok(()),
    }
}

/// Keys of one segment whose norms are wanted.
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
    let grid = [blocks(gpu, most, THREADS / 32), height(all.len(), "segments")?];
    let mut upload = Upload::new(gpu, Upload::room::<args::NormItem>(all.len()))?;
    let args = args::NormArgs { items: upload.add(&all), dim: count(dim, "elements")?, unused: 0 };
    let _sent = upload.send()?;
    let kernel = format!("key_norms_{}", T::NAME);
    // SAFETY: lengths and alignment were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}
