//! Attention of one new query per sequence. Contract: `cuda/decode.cu`; twin: [`crate::attention::decode`].

use super::args;
use super::codec::transform;
use super::lane::number_of;
use super::memory::Upload;
use super::rotary::Rows;
use super::{Buffer, Element, Geometry, Gpu, Lane, Result, Slice, SliceMut, count, height, require, require_params};
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
    let (group, dim) = (params.group(), params.dim);
    if items.is_empty() {
        return Ok(());
    }
    let wanted = gpu.processors() as usize * 4;
    let within = items.iter().map(|item| Within::new(params, &item.lane)).collect::<Result<Vec<_>>>()?;
    let seen = |item: &DecodeItem<'_, O>, within: &Within| item.lane.len() - within.first;
    let tasks = |chunk: usize| {
        let each = items.iter().zip(&within).map(|(item, within)| item.lane.heads * seen(item, within).div_ceil(chunk));
        each.sum::<usize>()
    };
    let chunk = CHUNKS.into_iter().find(|chunk| tasks(*chunk) >= wanted).unwrap_or(CHUNKS[CHUNKS.len() - 1]);

    // The duals of the lanes' transforms, of their queries.
    let turned = items.iter().map(|item| turn(gpu, item, dim)).collect::<Result<Vec<_>>>()?;
    let (mut all, mut runs, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    let (mut weights, mut most_heads, mut most_len) = (0, 0, 0);
    let (mut positions, mut dead): (Vec<u32>, Vec<u8>) = (Vec::new(), Vec::new());
    for (index, ((item, within), turned)) in items.iter().zip(&within).zip(&turned).enumerate() {
        let (heads, len) = (item.lane.heads, item.lane.len());
        require(len > 0 && heads > 0, || "attention to an empty lane".into())?;
        let want = heads * group * dim;
        require(item.queries.len() == want && item.out.len() == want, || {
            format!(
                "{} queries and {} results for {heads} heads of {group} queries of {dim}",
                item.queries.len(),
                item.out.len()
            )
        })?;
        require(item.sums.as_ref().is_none_or(|sums| sums.len() == len), || format!("{len} entries, as many sums"))?;
        let first_run = count(runs.len(), "runs")?;
        item.lane.describe(dim, &mut runs)?;
        let chunks = seen(item, within).div_ceil(chunk);
        // Until the tables are sent: where among all positions and marks its own are, and 1.
        let own = positions.len() as u64 + 1;
        positions.extend(within.masked);
        let own_dead = dead.len() as u64 + 1;
        dead.extend(item.lane.marks());
        all.push(args::DecodeItem {
            dead: if item.lane.dead.is_some() { own_dead } else { 0 },
            positions: if within.masked.is_empty() { 0 } else { own },
            queries: turned.as_ref().map_or(item.queries.address(), |turned| turned.all().address()),
            out: item.out.address(),
            sums: item.sums.as_ref().map_or(0, SliceMut::address),
            weights: weights as u64,
            first_run,
            runs: count(item.lane.runs.len(), "runs")?,
            heads: count(heads, "heads")?,
            len: count(len, "entries")?,
            first: count(within.first, "entries")?,
            since: within.since,
            first_task: count(owners.len(), "tasks")?,
            chunks: count(chunks, "tasks")?,
            transform: number_of(item.lane.dual().values()),
            unused: 0,
        });
        owners.extend(std::iter::repeat_n(index as u32, heads * chunks));
        if item.sums.is_some() {
            weights += heads * group * len;
            most_len = most_len.max(len);
        }
        most_heads = most_heads.max(heads);
    }

    let tasks = count(owners.len(), "tasks")?;
    let parts = owners.len() * group;
    let mut workspace = Buffer::<f32>::working(gpu, parts * (2 + dim) + if weights > 0 { parts + weights } else { 0 })?;
    let (stats, rest) = workspace.all_mut().split_at(parts * 2);
    let (partials, rest) = rest.split_at(parts * dim);
    let (factors, weights) = rest.split_at(if weights > 0 { parts } else { 0 });
    let room = Upload::room::<args::DecodeItem>(all.len())
        + Upload::room::<args::Run>(runs.len())
        + Upload::room::<f32>(TABLES.as_flattened().len())
        + Upload::room::<u32>(owners.len())
        + Upload::room::<u32>(positions.len())
        + Upload::room::<u8>(dead.len());
    let mut upload = Upload::new(gpu, room)?;
    let (positions, dead) = (upload.add(&positions), upload.add(&dead));
    for item in &mut all {
        if item.positions != 0 {
            item.positions = positions + (item.positions - 1) * size_of::<u32>() as u64;
        }
        if item.dead != 0 {
            item.dead = dead + (item.dead - 1);
        }
    }
    let args = args::DecodeArgs {
        items: upload.add(&all),
        runs: upload.add(&runs),
        owners: upload.add(&owners),
        stats: stats.address(),
        partials: partials.address(),
        factors: factors.address(),
        weights: weights.address(),
        tables: upload.add(TABLES.as_flattened()),
        dim: dim as u32,
        group: count(group, "query heads")?,
        chunk: chunk as u32,
        scale: params.scale * std::f32::consts::LOG2_E,
        softcap: params.softcap.map_or(0.0, |cap| cap * std::f32::consts::LOG2_E),
        unused: 0,
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
    let grid = [tasks, height(group.div_ceil(at_once), "passes")?];
    let rows = height(items.len(), "lanes")?;
    let _sent = upload.send()?;
    // SAFETY: shapes and alignment were checked above, the workspace is as large as the contract says, and what is written is
    // borrowed uniquely.
    unsafe {
        gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args)?;
        let grid = [count(most_heads * group, "query heads")?, rows];
        gpu.launch(
            &format!("decode_merge_{}", O::NAME),
            Geometry { grid, threads: THREADS, shared: (dim * 4) as u32 },
            &args,
        )?;
        if most_len > 0 {
            let grid = [count(most_len, "entries")?.div_ceil(THREADS), rows];
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
