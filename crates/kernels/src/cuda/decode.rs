//! Attention of one new query per sequence. Contract: `cuda/decode.cu`; twin: [`crate::attention::decode`].

use super::args;
use super::memory::Upload;
use super::{Buffer, Element, Geometry, Gpu, Lane, Result, Slice, SliceMut, count, height, require, require_dim};

const THREADS: u32 = 128;

/// Entries per task, at most and at least.
const CHUNKS: [usize; 4] = [512, 256, 128, 64];

/// One lane with the queries of its heads; stored as `T`, results as `O`.
pub struct DecodeItem<'a, T, O = f32> {
    pub lane: Lane<'a, T>,
    /// `[lane.heads * group, dim]`, rotated.
    pub queries: Slice<'a, f32>,
    /// Like `queries`. Computed in f32 and rounded.
    pub out: SliceMut<'a, O>,
    /// One element per entry of the lane, to which the probability of the entry is added, averaged over the query heads of the
    /// lane. Nothing is added for dead entries.
    pub sums: Option<SliceMut<'a, f32>>,
}

/// Attends one query per head to every entry of its lane: at most three launches for all items. `group` query heads share a KV
/// head. A lane without entries is refused; one with only dead entries gives zeros.
///
/// How lanes are cut follows from their lengths and the number of multiprocessors, so the last bits of a result may differ
/// between devices, and with what else is in a batch.
pub fn decode<T: Element, O: Element>(
    gpu: &Gpu,
    items: &mut [DecodeItem<'_, T, O>],
    group: usize,
    dim: usize,
    scale: f32,
) -> Result<()> {
    require_dim(dim)?;
    require(group > 0, || "no query heads".into())?;
    if items.is_empty() {
        return Ok(());
    }
    let wanted = gpu.processors() as usize * 4;
    let tasks =
        |chunk: usize| items.iter().map(|item| item.lane.heads * item.lane.len().div_ceil(chunk)).sum::<usize>();
    let chunk = CHUNKS.into_iter().find(|chunk| tasks(*chunk) >= wanted).unwrap_or(CHUNKS[CHUNKS.len() - 1]);

    let (mut all, mut runs, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    let (mut weights, mut most_heads, mut most_len) = (0, 0, 0);
    for (index, item) in items.iter().enumerate() {
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
        let chunks = len.div_ceil(chunk);
        all.push(args::DecodeItem {
            dead: item.lane.dead.as_ref().map_or(0, Slice::address),
            queries: item.queries.address(),
            out: item.out.address(),
            sums: item.sums.as_ref().map_or(0, SliceMut::address),
            weights: weights as u64,
            first_run,
            runs: count(item.lane.runs.len(), "runs")?,
            heads: count(heads, "heads")?,
            len: count(len, "entries")?,
            first_task: count(owners.len(), "tasks")?,
            chunks: count(chunks, "tasks")?,
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
    let mut workspace = Buffer::<f32>::new(gpu, parts * (2 + dim) + if weights > 0 { parts + weights } else { 0 })?;
    let (stats, rest) = workspace.all_mut().split_at(parts * 2);
    let (partials, rest) = rest.split_at(parts * dim);
    let (factors, weights) = rest.split_at(if weights > 0 { parts } else { 0 });
    let room = Upload::room::<args::DecodeItem>(all.len())
        + Upload::room::<args::Run>(runs.len())
        + Upload::room::<u32>(owners.len());
    let mut upload = Upload::new(gpu, room)?;
    let args = args::DecodeArgs {
        items: upload.add(&all),
        runs: upload.add(&runs),
        owners: upload.add(&owners),
        stats: stats.address(),
        partials: partials.address(),
        factors: factors.address(),
        weights: weights.address(),
        dim: dim as u32,
        group: count(group, "query heads")?,
        chunk: chunk as u32,
        scale: scale * std::f32::consts::LOG2_E,
    };

    let at_once = [1, 4, 8].into_iter().find(|at_once| *at_once >= group).unwrap_or(8);
    // Lanes of a warp that read a row together, and 16-byte vectors per lane.
    let lanes = match (T::WIDTH, dim) {
        (_, 0..=64) => 64 / T::WIDTH,
        (_, 65..=128) => 128 / T::WIDTH,
        _ => 32,
    };
    let vectors = dim.div_ceil(lanes * T::WIDTH);
    let kernel = format!("decode_attend_{}_l{lanes}v{vectors}_g{at_once}", T::NAME);
    let shared = (at_once * (chunk + dim) * size_of::<f32>()) as u32;
    let grid = [tasks, height(group.div_ceil(at_once), "passes")?];
    let rows = height(items.len(), "lanes")?;
    let _sent = upload.send()?;
    // SAFETY: shapes and alignment were checked above, the workspace is as large as the contract says, and what is written is
    // borrowed uniquely.
    unsafe {
        gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args)?;
        let grid = [count(most_heads * group, "query heads")?, rows];
        gpu.launch(&format!("decode_merge_{}", O::NAME), Geometry { grid, threads: THREADS, shared: 0 }, &args)?;
        if most_len > 0 {
            let grid = [count(most_len, "entries")?.div_ceil(THREADS), rows];
            gpu.launch("decode_sums", Geometry { grid, threads: THREADS, shared: 0 }, &args)?;
        }
    }
    Ok(())
}
