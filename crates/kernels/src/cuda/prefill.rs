//! Attention of many new queries. Contract: `cuda/prefill.cu`; twin: [`crate::attention::prefill`].

use super::args;
use super::memory::Upload;
use super::rotary::Rows;
use super::{Buffer, Element, Geometry, Gpu, Lane, Result, Slice, SliceMut, count, height, require, require_dim};
use crate::attention::Mask;

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
/// `[n, query_heads, dim]`. Query heads are grouped over KV heads evenly. A query that sees only dead entries gets zeros.
/// `gather` changes nothing about `out`.
#[allow(clippy::too_many_arguments)]
pub fn prefill<T: Element>(
    gpu: &Gpu,
    queries: Rows<'_, f32>,
    n: usize,
    query_heads: usize,
    dim: usize,
    lanes: &[Lane<'_, T>],
    scale: f32,
    mask: Mask,
    gather: Option<Gather<'_>>,
    out: SliceMut<'_, f32>,
) -> Result<()> {
    require_dim(dim)?;
    let kv_heads: usize = lanes.iter().map(|lane| lane.heads).sum();
    require(kv_heads > 0 && query_heads > 0 && query_heads.is_multiple_of(kv_heads), || {
        format!("{query_heads} query heads over {kv_heads} KV heads")
    })?;
    require(out.len() == n * query_heads * dim, || {
        format!("{} elements for {n} rows of {query_heads} heads of {dim}", out.len())
    })?;
    require(out.aligned(16), || "results that are not aligned to 16 bytes".into())?;
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

    let (mut all, mut runs, mut head_lanes) = (Vec::new(), Vec::new(), Vec::new());
    let mut most_len = 0;
    for (index, lane) in lanes.iter().enumerate() {
        let len = lane.len();
        require(mask == Mask::None || len >= n, || format!("a causal lane of {len} entries for {n} queries"))?;
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
        all.push(args::PrefillLane {
            dead: lane.dead.as_ref().map_or(0, Slice::address),
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
        Some(_) => Some(Buffer::<f32>::new(gpu, n * query_heads)?),
        None => None,
    };
    let room = Upload::room::<args::PrefillLane>(all.len())
        + Upload::room::<args::Run>(runs.len())
        + Upload::room::<u32>(head_lanes.len())
        + Upload::room::<u32>(rows.len())
        + Upload::room::<f32>(weights.len());
    let mut upload = Upload::new(gpu, room)?;
    let args = args::PrefillArgs {
        queries: from,
        lanes: upload.add(&all),
        runs: upload.add(&runs),
        head_lanes: upload.add(&head_lanes),
        out: out.address(),
        lse: lse.as_ref().map_or(0, |lse| lse.all().address()),
        rows: upload.add(&rows),
        weights: upload.add(&weights),
        stride: queries.stride as u64,
        n: count(n, "queries")?,
        query_heads: count(query_heads, "query heads")?,
        group: count(query_heads / kv_heads, "query heads")?,
        dim: dim as u32,
        causal: (mask == Mask::Causal).into(),
        listed: count(listed.len(), "queries")?,
        scale: scale * std::f32::consts::LOG2_E,
        unused: 0,
    };
    // As the contract has them: queries and entries of a tile, by width.
    let (width, queries, entries) = match dim {
        0..=64 => (64, 64, 64),
        65..=128 => (128, 64, 64),
        _ => (256, 32, 32),
    };
    let shared = ((queries + entries) * (dim + 4) + queries * (entries + 4)) * size_of::<f32>() + entries * 48;
    let shared = shared as u32;
    let _sent = upload.send()?;
    // SAFETY: shapes and alignment were checked above, and what is written is borrowed uniquely.
    unsafe {
        if n > 0 {
            let grid = [count(n.div_ceil(queries), "blocks")?, height(query_heads, "query heads")?];
            let kernel = format!("prefill_attend_{}_d{width}", T::NAME);
            gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args)?;
        }
        if gather.is_some() && most_len > 0 {
            let grid = [count(most_len.div_ceil(entries), "blocks")?, height(kv_heads, "KV heads")?];
            let kernel = format!("prefill_columns_{}_d{width}", T::NAME);
            gpu.launch(&kernel, Geometry { grid, threads: THREADS, shared }, &args)?;
        }
    }
    Ok(())
}
