//! Compaction of lanes and norms of keys. Contract: `cuda/gather.cu`; twin: [`crate::gather`].

use super::args;
use super::lane::require_part;
use super::memory::{Table, Upload};
use super::{Geometry, Gpu, Result, Slice, SliceMut, blocks, count, height, require};
use crate::codec::{Codec, TABLES};

const THREADS: u32 = 256;

/// Rows of one part (keys, values or scales) of a segment to be copied together.
pub struct GatherItem<'a> {
    /// `[heads, capacity]` rows.
    pub from: Slice<'a, u8>,
    pub capacity: usize,
    /// Which rows, in the order in which they arrive.
    pub slots: &'a [u32],
    pub heads: usize,
    /// `[heads, to_capacity]` rows, other memory than `from`.
    pub to: SliceMut<'a, u8>,
    pub to_capacity: usize,
    /// The row at which the first of `slots` arrives.
    pub at: usize,
    /// Bytes of a row.
    pub row: usize,
}

/// Copies the chosen rows of every item, in one launch. Items that follow each other and have the same `slots` share them.
pub fn gather(gpu: &Gpu, items: &mut [GatherItem<'_>]) -> Result<()> {
    let mut unit = 16;
    for item in items.iter() {
        let GatherItem { capacity, to_capacity, heads, at, row, .. } = *item;
        for (len, capacity) in [(item.from.len(), capacity), (item.to.len(), to_capacity)] {
            require_rows(len, heads, capacity, row)?;
        }
        let n = item.slots.len();
        require(at + n <= to_capacity, || format!("{n} entries at {at} of {to_capacity}"))?;
        if let Some(slot) = item.slots.iter().find(|slot| **slot as usize >= capacity) {
            return require(false, || format!("entry {slot} of {capacity}"));
        }
        unit = narrowed(unit, row, |bytes| item.from.aligned(bytes) && item.to.aligned(bytes))?;
    }
    let items: Vec<_> = items.iter().filter(|item| !item.slots.is_empty() && item.heads > 0 && item.row > 0).collect();
    if items.is_empty() {
        return Ok(());
    }
    let slots: usize = items.iter().map(|item| Upload::room::<u32>(item.slots.len())).sum();
    let mut upload = Upload::new(gpu, slots + Upload::room::<args::GatherItem>(items.len()))?;
    let (mut most, mut sent): (u32, Option<(&[u32], u64)>) = (0, None);
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        most = most.max(count(item.heads * item.slots.len() * item.row / unit, "words")?);
        let slots = match sent {
            Some((slots, address)) if std::ptr::eq(slots, item.slots) => address,
            _ => upload.add(item.slots),
        };
        sent = Some((item.slots, slots));
        all.push(args::GatherItem {
            from: item.from.address(),
            to: item.to.address(),
            slots,
            count: count(item.slots.len(), "entries")?,
            capacity: count(item.capacity, "entries")?,
            to_capacity: count(item.to_capacity, "entries")?,
            at: count(item.at, "entries")?,
            heads: count(item.heads, "heads")?,
            units: count(item.row / unit, "words")?,
        });
    }
    let grid = [blocks(gpu, most, THREADS), height(all.len(), "parts of segments")?];
    let args = args::GatherArgs { items: upload.add(&all) };
    let _sent = upload.send()?;
    // SAFETY: lengths, slots and alignment were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch(&format!("gather_{unit}"), Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}

fn require_rows(len: usize, heads: usize, capacity: usize, row: usize) -> Result<()> {
    require(len == heads * capacity * row, || {
        format!("{len} bytes for {heads} heads of {capacity} entries of {row} bytes")
    })
}

/// The widest word, up to `unit` bytes, to which rows of `row` bytes and addresses align.
fn narrowed(unit: usize, row: usize, aligned: impl Fn(usize) -> bool) -> Result<usize> {
    let fits = |bytes: &usize| *bytes <= unit && row.is_multiple_of(*bytes) && aligned(*bytes);
    match [16, 4, 2].into_iter().find(fits) {
        Some(bytes) => Ok(bytes),
        None => require(false, || format!("rows of {row} bytes, or rows that are not aligned to 2")).map(|()| 0),
    }
}

/// Rows of one part (keys, values or scales) of a segment to be copied within it.
pub struct MoveItem<'a> {
    /// `[heads, capacity]` rows.
    pub rows: SliceMut<'a, u8>,
    pub capacity: usize,
    pub heads: usize,
    /// Bytes of a row.
    pub row: usize,
    /// From which row to which. No target is another's source or target.
    pub moves: &'a [(u32, u32)],
}

/// Moves that were checked.
pub(super) struct DescribedMoves {
    items: Vec<args::MoveItem>,
    /// Those of each item.
    moves: Vec<Vec<u32>>,
    /// Bytes of a word.
    unit: usize,
    /// Words of an item, at most.
    most: u32,
}

/// None where nothing is to be moved.
pub(super) fn describe_moves(items: &[&MoveItem<'_>]) -> Result<Option<DescribedMoves>> {
    let mut unit = 16;
    for item in items {
        let MoveItem { capacity, heads, row, .. } = **item;
        require_rows(item.rows.len(), heads, capacity, row)?;
        require_apart(item.moves, capacity)?;
        unit = narrowed(unit, row, |bytes| item.rows.aligned(bytes))?;
    }
    let items: Vec<_> = items.iter().filter(|item| !item.moves.is_empty() && item.heads > 0 && item.row > 0).collect();
    if items.is_empty() {
        return Ok(None);
    }
    let (mut described, mut most, mut moves) = (Vec::with_capacity(items.len()), 0, Vec::with_capacity(items.len()));
    for item in items {
        most = most.max(count(item.heads * item.moves.len() * item.row / unit, "words")?);
        moves.push(item.moves.iter().flat_map(|(from, to)| [*from, *to]).collect());
        described.push(args::MoveItem {
            rows: item.rows.address(),
            moves: 0,
            count: count(item.moves.len(), "entries")?,
            capacity: count(item.capacity, "entries")?,
            heads: count(item.heads, "heads")?,
            units: count(item.row / unit, "words")?,
        });
    }
    Ok(Some(DescribedMoves { items: described, moves, unit, most }))
}

impl DescribedMoves {
    /// Puts the descriptors into a table; says where they begin.
    pub(super) fn place(&mut self, table: &mut Table) -> u64 {
        for (item, moves) in self.items.iter_mut().zip(&self.moves) {
            item.moves = table.add(moves);
        }
        table.add(&self.items)
    }

    /// With the table at `base`, and the items in it at `items`.
    ///
    /// # Safety
    /// The table was sent there, and the rows are memory that nothing else writes.
    pub(super) unsafe fn launch(&self, gpu: &Gpu, base: u64, items: u64) -> Result<()> {
        let grid = [blocks(gpu, self.most, THREADS), height(self.items.len(), "parts of segments")?];
        let args = args::MoveArgs { items: base + items, table: base };
        // SAFETY: lengths, entries and alignment were checked, and that no word that is written is another's source; the rest is the
        // caller's promise.
        unsafe { gpu.launch(&format!("move_{}", self.unit), Geometry { grid, threads: THREADS, shared: 0 }, &args) }
    }
}

/// Copies rows within the part of every item, in one launch.
pub fn move_entries(gpu: &Gpu, items: &mut [MoveItem<'_>]) -> Result<()> {
    let items: Vec<&MoveItem<'_>> = items.iter().collect();
    let Some(mut moves) = describe_moves(&items)? else { return Ok(()) };
    let mut table = Table::default();
    let at = moves.place(&mut table);
    let sent = table.send(gpu)?;
    // SAFETY: the table was sent, and the parts are borrowed uniquely.
    unsafe { moves.launch(gpu, sent.all().address(), at) }
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
pub struct NormItem<'a> {
    pub codec: Codec,
    /// `[heads, capacity, dim]` numbers.
    pub keys: Slice<'a, u8>,
    pub scales: Slice<'a, u8>,
    pub capacity: usize,
    /// The first `len` entries are meant.
    pub len: usize,
    pub heads: usize,
    /// `[heads, len]`.
    pub out: SliceMut<'a, f32>,
}

/// The Euclidean norms of the keys of every item, in one launch. `dim` is a multiple of 8.
pub fn key_norms(gpu: &Gpu, items: &mut [NormItem<'_>], dim: usize) -> Result<()> {
    require(dim > 0 && dim.is_multiple_of(8), || format!("keys of {dim} elements, which is no multiple of 8"))?;
    let mut most = 0;
    let mut all = Vec::new();
    for item in items.iter() {
        let NormItem { codec, keys, scales, capacity, len, heads, .. } = *item;
        require_part(codec, (keys.len(), keys.address()), (scales.len(), scales.address()), (heads, dim, capacity))?;
        require(len <= capacity && item.out.len() == heads * len, || {
            format!("{} norms of {heads} heads of {len} entries of {capacity}", item.out.len())
        })?;
        if item.out.is_empty() {
            continue;
        }
        most = most.max(count(heads * len, "keys")?);
        all.push(args::NormItem {
            keys: keys.address(),
            scales: scales.address(),
            out: item.out.address(),
            capacity: count(capacity, "entries")?,
            len: count(len, "entries")?,
            heads: count(heads, "heads")?,
            unused: 0,
            codec: codec.into(),
        });
    }
    if most == 0 {
        return Ok(());
    }
    let grid = [blocks(gpu, most, THREADS / 32), height(all.len(), "segments")?];
    let mut upload =
        Upload::new(gpu, Upload::room::<args::NormItem>(all.len()) + Upload::room::<f32>(TABLES.as_flattened().len()))?;
    let args = args::NormArgs {
        items: upload.add(&all),
        tables: upload.add(TABLES.as_flattened()),
        dim: count(dim, "elements")?,
        unused: 0,
    };
    let _sent = upload.send()?;
    // SAFETY: lengths and alignment were checked above; the targets are borrowed uniquely.
    unsafe { gpu.launch("key_norms", Geometry { grid, threads: THREADS, shared: 0 }, &args) }
}
