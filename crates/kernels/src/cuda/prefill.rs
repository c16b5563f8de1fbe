//! Attention of many new queries. Contract: `cuda/prefill.cu`; twin: [`crate::attention::prefill`].

use super::args;
use super::codec::{transform, undo};
use super::memory::Upload;
use super::rotary::Rows;
use super::{Buffer, Geometry, Gpu, Lane, Result, SliceMut, count, height, require, require_params};
use crate::attention::{AttentionParams, Mask};
use crate::codec::{Dual, TABLES};

const THREADS: u32 = 256;

/// Column sums of the attention probabilities, weighted by query.
pub struct Gather<'a> {
    /// One weight per query row; rows of weight 0 cost nothing.
    pub weights: &'a [f32],
    /// Per lane, `[lane.heads, lane.len()]`, overwritten: sum over queries of weight x probability, averaged over the query
    /// heads of the group.
    pub sums: Vec<SliceMut<'a, f32>>,
}

/// Attends `n` new queries to the lanes of one layer, which must already hold the keys and values of the new positions.
///
/// `queries` has `query_heads * dim` elements per row, rotated; the lanes, in order, hold all KV heads; `out` is
/// `[n, query_heads, dim]`. All lanes are stored through one transform, or none. A query that sees only dead entries gets zeros. `gather` changes nothing about `out`.
pub fn prefill(
    gpu: &Gpu,
    params: &AttentionParams,
    queries: Rows<'_, f32>,
    n: usize,
    lanes: &[Lane<'_>],
    gather: Option<Gather<'_>>,
    out: SliceMut<'_, f32>,
) -> Result<()> {
    require_params(params)?;
    let AttentionParams { query_heads, kv_heads, dim, mask, .. } = *params;
    let held: usize = lanes.iter().map(|lane| lane.heads).sum();
    require(held == kv_heads, || format!("lanes of {held} KV heads of {kv_heads}"))?;
    require(out.len() == n * query_heads * dim, || {
        format!("{} elements for {n} rows of {query_heads} heads of {dim}", out.len())
    })?;
    require(out.aligned(16), || "results that are not aligned to 16 bytes".into())?;
    let dual = lanes.first().map_or(Dual::None, Lane::dual);
    require(lanes.iter().all(|lane| lane.is_empty() || lane.dual() == dual), || {
        "lanes of a layer that are stored through several transforms".into()
    })?;
    let through = dual.keys();
    let mut turned = Buffer::<f32>::working(gpu, if through.is_none() { 0 } else { n * query_heads * dim })?;
    if !through.is_none() {
        transform(gpu, through, queries, n, query_heads, dim, turned.all_mut())?;
    }
    let queries =
        if through.is_none() { queries } else { Rows { data: turned.all(), offset: 0, stride: query_heads * dim } };
    let from = queries.check(n, query_heads * dim)?;
    if let Some(gather) = &gather {
        require(gather.weights.len() == n && gather.sums.len() == lanes.len(), || {
            format!(
                "{} weights of {n} queries and sums of {} of {} lanes",
                gather.weights.len(),
                gather.sums.len(),
                lanes.len()
            )
        })?;
    }

    let shape = Tiles::of(dim);
    let (mut all, mut runs, mut head_lanes) = (Vec::new(), Vec::new(), Vec::new());
    let mut windows: Vec<Option<(&[u32], Vec<u32>)>> = Vec::new();
    let mut most_len = 0;
    for (index, lane) in lanes.iter().enumerate() {
        let len = lane.len();
        require(mask == Mask::None || len >= n, || format!("a causal lane of {len} entries for {n} queries"))?;
        params.check_ends(lane.ends, n).map_err(super::Error::Argument)?;
        let sums = match &gather {
            Some(Gather { sums, .. }) => {
                require(sums[index].len() == lane.heads * len, || {
                    format!("{} sums of {} heads of {len} entries", sums[index].len(), lane.heads)
                })?;
                sums[index].address()
            }
            None => 0,
        };
        let first_run = count(runs.len(), "runs")?;
        lane.describe(dim, &mut runs)?;
        windows.push(lane.windowed(params)?.map(|positions| (positions, starts(params, positions, n, shape.queries))));
        all.push(args::PrefillLane {
            dead: 0,
            positions: 0,
            starts: 0,
            ends: 0,
            sums,
            first_run,
            runs: count(lane.runs.len(), "runs")?,
            first_head: count(head_lanes.len(), "heads")?,
            len: count(len, "entries")?,
        });
        head_lanes.extend(std::iter::repeat_n(index as u32, lane.heads));
        most_len = most_len.max(len);
    }

    let listed: Vec<(u32, f32)> = match &gather {
        Some(Gather { weights, .. }) => weights
            .iter()
            .enumerate()
            .filter(|(_, weight)| **weight != 0.0)
            .map(|(i, weight)| (i as u32, *weight))
            .collect(),
        None => Vec::new(),
    };
    let rows: Vec<u32> = listed.iter().map(|(row, _)| *row).collect();
    let weights: Vec<f32> = listed.iter().map(|(_, weight)| *weight).collect();
    let lse = match gather {
        Some(_) => Some(Buffer::<f32>::working(gpu, n * query_heads)?),
        None => None,
    };
    let room = Upload::room::<args::PrefillLane>(all.len())
        + Upload::room::<args::Run>(runs.len())
        + Upload::room::<f32>(TABLES.as_flattened().len())
        + Upload::room::<u32>(head_lanes.len())
        + Upload::room::<u32>(rows.len())
        + Upload::room::<f32>(weights.len())
        + windows
            .iter()
            .flatten()
            .map(|(all, starts)| Upload::room::<u32>(all.len()) + Upload::room::<u32>(starts.len()))
            .sum::<usize>();
    let dead: Vec<Vec<u8>> = lanes.iter().map(Lane::marks).collect();
    let room = room + dead.iter().map(|dead| Upload::room::<u8>(dead.len())).sum::<usize>();
    let ends = || lanes.iter().map(|lane| lane.ends);
    let room = room + ends().flatten().map(|ends| Upload::room::<u32>(ends.len())).sum::<usize>();
    let mut upload = Upload::new(gpu, room)?;
    for (lane, dead) in all.iter_mut().zip(&dead).filter(|(_, dead)| !dead.is_empty()) {
        lane.dead = upload.add(dead);
    }
    for (lane, window) in all.iter_mut().zip(&windows) {
        if let Some((positions, starts)) = window {
            (lane.positions, lane.starts) = (upload.add(positions), upload.add(starts));
        }
    }
    for (lane, ends) in all.iter_mut().zip(ends()) {
        lane.ends = ends.map_or(0, |ends| upload.add(ends));
    }
    let args = args::PrefillArgs {
        queries: from,
        lanes: upload.add(&all),
        runs: upload.add(&runs),
        head_lanes: upload.add(&head_lanes),
        out: out.address(),
        lse: lse.as_ref().map_or(0, |lse| lse.all().address()),
        rows: upload.add(&rows),
        weights: upload.add(&weights),
        tables: upload.add(TABLES.as_flattened()),
        stride: queries.stride as u64,
        n: count(n, "queries")?,
        query_heads: count(query_heads, "query heads")?,
        group: count(query_heads / kv_heads, "query heads")?,
        dim: dim as u32,
        causal: (mask == Mask::Causal).into(),
        window: params.window.unwrap_or(0),
        listed: count(listed.len(), "queries")?,
        scale: params.scale * std::f32::consts::LOG2_E,
        softcap: params.softcap.map_or(0.0, |cap| cap * std::f32::consts::LOG2_E),
        unused: 0,
    };
    let Tiles { width, queries, entries } = shape;
    let shared = ((queries + entries) * (dim + 4) + queries * (entries + 4)) * size_of::<f32>() + entries * 48;
    let shared = shared as u32;
    let _sent = upload.send()?;
    // SAFETY: shapes and alignment were checked above, and what is written is borrowed uniquely.
    unsafe {
        if n > 0 {
            let grid = [count(n.div_ceil(queries), "blocks")?, height(query_heads, "query heads")?];
            let kernel = format!("prefill_attend_d{width}");
            gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args)?;
        }
        undo(gpu, dual.values(), args.out, n * query_heads, dim)?;
        if gather.is_some() && most_len > 0 {
            let grid = [count(most_len.div_ceil(entries), "blocks")?, height(kv_heads, "KV heads")?];
            let kernel = format!("prefill_columns_d{width}");
            gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args)?;
        }
    }
    Ok(())
}

/// As the contract has them: queries and entries of a tile, by width.
struct Tiles {
    width: usize,
    queries: usize,
    entries: usize,
}

impl Tiles {
    fn of(dim: usize) -> Self {
        match dim {
            0..=64 => Tiles { width: 64, queries: 64, entries: 64 },
            65..=128 => Tiles { width: 128, queries: 64, entries: 64 },
            _ => Tiles { width: 256, queries: 32, entries: 32 },
        }
    }
}

/// The first entry that any of each block of `block` queries sees; the last `n` entries are the queries' own.
fn starts(params: &AttentionParams, positions: &[u32], n: usize, block: usize) -> Vec<u32> {
    let own = &positions[positions.len() - n..];
    own.chunks(block)
        .map(|block| {
            let since = params.since(block[0]);
            positions.iter().position(|position| *position >= since).unwrap_or(0) as u32
        })
        .collect()
}
