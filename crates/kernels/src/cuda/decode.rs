//! Attention of one new query per sequence. Contract: `cuda/decode.cu`; twin: [`crate::attention::decode`].

use super::args;
use super::codec::transform;
use super::lane::number_of;
use super::memory::Table;
use super::rotary::Rows;
use super::{
    Buffer, Element, Geometry, Gpu, Lane, Number, Result, Slice, SliceMut, count, height, require, require_params,
};
use crate::attention::AttentionParams;
use crate::codec::TABLES;

const THREADS: u32 = 128;

/// Entries per task, at most and at least.
const CHUNKS: [usize; 4] = [512, 256, 128, 64];

/// One lane with the queries of its heads; results as `O`. The queries are those of the entry with the greatest position.
pub struct DecodeItem<'a, O = f32> {
    pub lane: Lane<'a>,
    /// `[lane.heads * group, dim]`, rotated.
    pub queries: Slice<'a, f32>,
    /// Like `queries`. Computed in f32 and rounded.
    pub out: SliceMut<'a, O>,
    /// One element per entry of the lane, to which the probability of the entry is added, averaged over the query heads of the
    /// lane. Nothing is added for entries that are dead or before the window.
    pub sums: Option<SliceMut<'a, f32>>,
}

/// Attends one query per head to the entries of its lane, or those within the window: at most three launches for all items,
/// and one for each whose entries were stored through a transform. A lane
/// without entries is refused; one with only dead entries gives zeros.
///
/// How lanes are cut follows from their lengths and the number of multiprocessors, so the last bits of a result may differ
/// between devices, and with what else is in a batch.
pub fn decode<O: Element>(gpu: &Gpu, params: &AttentionParams, items: &mut [DecodeItem<'_, O>]) -> Result<()> {
    require_params(params)?;
    let dim = params.dim;
    if items.is_empty() {
        return Ok(());
    }
    for item in items.iter() {
        let want = item.lane.heads * params.group() * dim;
        require(item.queries.len() == want && item.out.len() == want, || {
            format!(
                "{} queries and {} results for {} heads of {} queries of {dim}",
                item.queries.len(),
                item.out.len(),
                item.lane.heads,
                params.group()
            )
        })?;
        let len = item.lane.len();
        require(item.sums.as_ref().is_none_or(|sums| sums.len() == len), || format!("{len} entries, as many sums"))?;
    }
    // The duals of the lanes' transforms, of their queries.
    let turned = items.iter().map(|item| turn(gpu, item, dim)).collect::<Result<Vec<_>>>()?;
    let elements = |address: u64, size: usize| address / size as u64;
    let parts: Vec<Part<'_>> = items
        .iter()
        .zip(&turned)
        .map(|(item, turned)| Part {
            lane: &item.lane,
            queries: elements(turned.as_ref().map_or(item.queries.address(), |turned| turned.all().address()), 4),
            out: elements(item.out.address(), size_of::<O>()),
            sums: item.sums.as_ref().map(|sums| elements(sums.address(), 4)),
        })
        .collect();
    let mut described = describe(gpu, params, &parts)?;
    drop(parts);
    let mut table = Table::default();
    described.place(&mut table);
    let sent = table.send(gpu)?;
    // SAFETY: shapes were checked; addresses are those of slices, which are aligned to their elements, and what is written is borrowed
    // uniquely.
    unsafe { launch::<O>(gpu, &described, sent.all().address(), &Bases::default()) }
}

/// A lane with the places of its queries and results, in elements from those of the launch.
pub(super) struct Part<'a> {
    pub(super) lane: &'a Lane<'a>,
    pub(super) queries: u64,
    pub(super) out: u64,
    pub(super) sums: Option<u64>,
}

/// Lanes that were checked and cut.
pub(super) struct Described {
    items: Vec<args::DecodeItem>,
    runs: Vec<args::Run>,
    positions: Vec<u32>,
    dead: Vec<u8>,
    /// Where in the table they begin, and the tables of codes.
    at: Places,
    tasks: usize,
    /// Of an item, at most.
    most_tasks: usize,
    most_heads: usize,
    /// Of the items whose sums are asked for, all weights, and the most entries.
    weights: usize,
    most_len: usize,
    /// Whether the results of some are merged from several tasks.
    merges: bool,
    chunk: usize,
    params: AttentionParams,
}

#[derive(Default)]
struct Places {
    items: u64,
    runs: u64,
    positions: u64,
    dead: u64,
    tables: u64,
}

pub(super) fn describe(gpu: &Gpu, params: &AttentionParams, parts: &[Part<'_>]) -> Result<Described> {
    require_params(params)?;
    let (group, dim) = (params.group(), params.dim);
    let wanted = gpu.processors() as usize * 4;
    let within = parts.iter().map(|part| Within::new(params, part.lane)).collect::<Result<Vec<_>>>()?;
    let seen = |part: &Part<'_>, within: &Within| part.lane.len() - within.first;
    let tasks = |chunk: usize| {
        let each = parts.iter().zip(&within).map(|(part, within)| part.lane.heads * seen(part, within).div_ceil(chunk));
        each.sum::<usize>()
    };
    let chunk = CHUNKS.into_iter().find(|chunk| tasks(*chunk) >= wanted).unwrap_or(CHUNKS[CHUNKS.len() - 1]);
    let mut all = Described {
        items: Vec::with_capacity(parts.len()),
        runs: Vec::new(),
        positions: Vec::new(),
        dead: Vec::new(),
        at: Places::default(),
        tasks: 0,
        most_tasks: 0,
        most_heads: 0,
        weights: 0,
        most_len: 0,
        merges: false,
        chunk,
        params: *params,
    };
    for (part, within) in parts.iter().zip(&within) {
        let (lane, heads, len) = (part.lane, part.lane.heads, part.lane.len());
        require(len > 0 && heads > 0, || "attention to an empty lane".into())?;
        let first_run = count(all.runs.len(), "runs")?;
        lane.describe(dim, &mut all.runs)?;
        let chunks = seen(part, within).div_ceil(chunk);
        let whole = chunks == 1 && lane.dual().values().is_none();
        all.items.push(args::DecodeItem {
            dead: all.dead.len() as u64,
            positions: all.positions.len() as u64,
            queries: part.queries,
            out: part.out,
            sums: part.sums.unwrap_or(0),
            weights: all.weights as u64,
            first_run,
            runs: count(lane.runs.len(), "runs")?,
            heads: count(heads, "heads")?,
            len: count(len, "entries")?,
            first: count(within.first, "entries")?,
            since: within.since,
            first_task: count(all.tasks, "tasks")?,
            chunks: count(chunks, "tasks")?,
            transform: number_of(lane.dual().values()),
            marks: u32::from(lane.dead.is_some()) * args::DEAD
                + u32::from(!within.masked.is_empty()) * args::POSITIONS
                + u32::from(part.sums.is_some()) * args::SUMS
                + u32::from(whole) * args::WHOLE,
        });
        all.merges |= !whole;
        all.positions.extend(within.masked);
        all.dead.extend(lane.marks());
        all.tasks += heads * chunks;
        all.most_tasks = all.most_tasks.max(heads * chunks);
        if part.sums.is_some() {
            all.weights += heads * group * len;
            all.most_len = all.most_len.max(len);
        }
        all.most_heads = all.most_heads.max(heads);
    }
    Ok(all)
}

impl Described {
    pub(super) fn place(&mut self, table: &mut Table) {
        self.at = Places {
            items: table.add(&self.items),
            runs: table.add(&self.runs),
            positions: table.add(&self.positions),
            dead: table.add(&self.dead),
            tables: table.add(TABLES.as_flattened()),
        };
    }
}

/// Where queries, results and sums of a launch begin.
#[derive(Default)]
pub(super) struct Bases {
    pub(super) queries: u64,
    pub(super) out: u64,
    pub(super) sums: u64,
    /// Whether probabilities take the place of what is there, 0 those of entries that are not seen.
    pub(super) sets_sums: bool,
}

/// # Safety
/// The table of `described` was sent to `base`; queries, results and sums of its lanes, from `bases` on, are memory of the device, aligned to
/// their elements, and what is written there nothing else uses.
pub(super) unsafe fn launch<O: Element>(gpu: &Gpu, described: &Described, base: u64, bases: &Bases) -> Result<()> {
    let Described { at, tasks, most_tasks, most_heads, weights, most_len, merges, chunk, params, items, .. } =
        described;
    let (group, dim) = (params.group(), params.dim);
    count(*tasks, "tasks")?;
    let parts = tasks * group;
    let sums = *weights > 0;
    let mut workspace = Buffer::<f32>::working(gpu, parts * (2 + dim) + if sums { parts + weights } else { 0 })?;
    let (stats, rest) = workspace.all_mut().split_at(parts * 2);
    let (partials, rest) = rest.split_at(parts * dim);
    let (factors, weights) = rest.split_at(if sums { parts } else { 0 });
    let args = args::DecodeArgs {
        items: base + at.items,
        runs: base + at.runs,
        positions: base + at.positions,
        dead: base + at.dead,
        queries: bases.queries,
        out: bases.out,
        sums: bases.sums,
        stats: stats.address(),
        partials: partials.address(),
        factors: factors.address(),
        weights: weights.address(),
        tables: base + at.tables,
        count: count(items.len(), "lanes")?,
        dim: dim as u32,
        group: count(group, "query heads")?,
        chunk: *chunk as u32,
        scale: params.scale * std::f32::consts::LOG2_E,
        softcap: params.softcap.map_or(0.0, |cap| cap * std::f32::consts::LOG2_E),
        sets_sums: bases.sets_sums.into(),
        format: match O::NUMBER {
            Number::F32 => 0,
            Number::F16 => 1,
            Number::Bf16 => 2,
        },
    };

    let at_once = [1, 4, 8].into_iter().find(|at_once| *at_once >= group).unwrap_or(8);
    // Lanes of a warp that read a row together, eight numbers each.
    let lanes = match dim {
        0..=64 => 8,
        65..=128 => 16,
        _ => 32,
    };
    let kernel = format!("decode_attend_l{lanes}_g{at_once}");
    let shared = (at_once * (chunk + dim) * size_of::<f32>()) as u32;
    let grid = [count(*most_tasks, "tasks")?, height(items.len() * group.div_ceil(at_once), "lanes and passes")?];
    let rows = height(items.len(), "lanes")?;
    // SAFETY: shapes and alignment of the lanes were checked, the workspace is as large as the contract says; the rest is the caller's
    // promise.
    unsafe {
        gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args)?;
        if *merges {
            let grid = [count(most_heads * group, "query heads")?, rows];
            let geometry = Geometry { grid, threads: THREADS, shared: (dim * 4) as u32 };
            gpu.launch(&format!("decode_merge_{}", O::NAME), geometry, &args)?;
        }
        if *most_len > 0 {
            let grid = [count(*most_len, "entries")?.div_ceil(THREADS), rows];
            gpu.launch("decode_sums", Geometry { grid, threads: THREADS, shared: 0 }, &args)?;
        }
    }
    Ok(())
}

/// The queries of an item through the dual of its lane's transform, if it has one.
fn turn<O>(gpu: &Gpu, item: &DecodeItem<'_, O>, dim: usize) -> Result<Option<Buffer<f32>>> {
    let through = item.lane.dual().keys();
    if through.is_none() {
        return Ok(None);
    }
    let mut turned = Buffer::working(gpu, item.queries.len())?;
    let n = item.queries.len() / dim;
    transform(gpu, through, Rows { data: item.queries, offset: 0, stride: dim }, n, 1, dim, turned.all_mut())?;
    Ok(Some(turned))
}

/// The part of a lane that its query sees.
struct Within<'a> {
    /// The first position.
    since: u32,
    /// The first entry with such a position.
    first: usize,
    /// The positions of all entries, if one behind `first` is older.
    masked: &'a [u32],
}

impl<'a> Within<'a> {
    fn new(params: &AttentionParams, lane: &Lane<'a>) -> Result<Self> {
        let Some(positions) = lane.windowed(params)? else { return Ok(Within { since: 0, first: 0, masked: &[] }) };
        let since = params.since(positions.iter().copied().max().unwrap_or(0));
        let first = positions.iter().position(|position| *position >= since).unwrap_or(0);
        let whole = positions[first..].iter().all(|position| *position >= since);
        Ok(Within { since, first, masked: if whole { &[] } else { positions } })
    }
}
