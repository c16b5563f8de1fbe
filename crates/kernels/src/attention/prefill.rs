//! Attention of many new queries: a block of query rows against all keys it may see.
//!
//! Work for N queries, H heads of d elements: 4 H d N^2 / 2 FLOPs with a causal mask (two matrix products over the lower
//! triangle); bytes are negligible beside it, so the floor is the machine's f32 GEMM rate. A block of [`BLOCK`] rows keeps
//! the scores at `BLOCK * N` floats per thread, and every key column it needs is visited exactly once.

use gemm::Parallelism;
use rayon::prelude::*;

use super::{AnyRun, LaneView, Rows, Run};
use crate::element::Element;
use crate::shared::Disjoint;
use crate::simd;

/// Query rows per block.
const BLOCK: usize = 64;

/// Which entries a query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// The last `n` entries of the lane are the queries' own; query `i` sees all up to its own.
    Causal,
    /// Every query sees every entry (image towers).
    None,
}

/// Attends `n` new queries to the lanes of one layer, which must already hold the keys and values of the new positions.
///
/// `queries` has `query_heads * dim` elements per row, rotated; the lanes, in order, hold all KV heads; `out` is
/// `[n, query_heads, dim]`. Query heads are grouped over KV heads evenly.
#[allow(clippy::too_many_arguments)]
pub fn prefill(
    queries: Rows<'_>,
    n: usize,
    query_heads: usize,
    dim: usize,
    lanes: &[LaneView<'_>],
    scale: f32,
    mask: Mask,
    out: &mut [f32],
) {
    let kv_heads: Vec<(usize, usize)> =
        lanes.iter().enumerate().flat_map(|(lane, view)| (0..view.heads).map(move |head| (lane, head))).collect();
    assert!(query_heads.is_multiple_of(kv_heads.len()), "{query_heads} query heads over {} KV heads", kv_heads.len());
    assert_eq!(out.len(), n * query_heads * dim);
    let group = query_heads / kv_heads.len();
    let blocks = n.div_ceil(BLOCK);
    let out = Disjoint::new(out);
    // The last blocks see the most keys: taking them first leaves small ones to fill the gaps at the end.
    (0..blocks * query_heads).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
        let (block, query_head) = (blocks - 1 - task / query_heads, task % query_heads);
        let (lane, lane_head) = kv_heads[query_head / group];
        let view = &lanes[lane];
        let first = block * BLOCK;
        let rows = BLOCK.min(n - first);
        let len = view.len();
        assert!(mask == Mask::None || len >= n, "a causal lane of {len} entries for {n} queries");
        let visible = |row: usize| match mask {
            Mask::Causal => len - n + first + row + 1,
            Mask::None => len,
        };
        let width = visible(rows - 1);
        scratch.scores.resize(rows * width, 0.0);
        scratch.sums.resize(rows * dim, 0.0);

        let query = Matrix {
            data: &queries.data[queries.offset + first * queries.stride + query_head * dim..],
            row_step: queries.stride,
            rows,
            columns: dim,
        };
        let mut start = 0;
        for run in &view.runs {
            let take = run.len().min(width - start);
            match run {
                AnyRun::F32(run) => {
                    score(query, run, lane_head, take, dim, scale, width, start, &mut scratch.scores, &mut scratch.wide)
                }
                AnyRun::F16(run) => {
                    score(query, run, lane_head, take, dim, scale, width, start, &mut scratch.scores, &mut scratch.wide)
                }
            }
            start += take;
        }
        scratch.totals.clear();
        for (row, scores) in scratch.scores.chunks_exact_mut(width).enumerate() {
            let (seen, hidden) = scores.split_at_mut(visible(row));
            let max = simd::max(seen);
            scratch.totals.push(simd::exp_sum(seen, max));
            hidden.fill(0.0);
        }
        let mut start = 0;
        for run in &view.runs {
            let take = run.len().min(width - start);
            let probabilities =
                Matrix { data: &scratch.scores[start.min(rows * width - 1)..], row_step: width, rows, columns: take };
            match run {
                AnyRun::F32(run) => {
                    mix(probabilities, run, lane_head, dim, start > 0, &mut scratch.sums, &mut scratch.wide)
                }
                AnyRun::F16(run) => {
                    mix(probabilities, run, lane_head, dim, start > 0, &mut scratch.sums, &mut scratch.wide)
                }
            }
            start += take;
        }
        for row in 0..rows {
            // SAFETY: (row, query_head) belongs to this task alone.
            let to = unsafe { out.part(((first + row) * query_heads + query_head) * dim, dim) };
            let inverse = 1.0 / scratch.totals[row];
            for (to, from) in to.iter_mut().zip(&scratch.sums[row * dim..(row + 1) * dim]) {
                *to = from * inverse;
            }
        }
    });
}

/// Buffers of one thread, reused from task to task.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    totals: Vec<f32>,
    sums: Vec<f32>,
    wide: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    row_step: usize,
    rows: usize,
    columns: usize,
}

impl Matrix<'_> {
    fn check(&self) {
        assert!(self.rows == 0 || (self.rows - 1) * self.row_step + self.columns <= self.data.len());
    }
}

/// The first `n * dim` elements of `from` as f32, converted into `wide` if need be.
fn as_f32<'a, T: Element>(from: &'a [T], wide: &'a mut Vec<f32>) -> &'a [f32] {
    match T::as_f32(from) {
        Some(slice) => slice,
        None => {
            wide.resize(from.len(), 0.0);
            simd::widen(from, wide);
            wide
        }
    }
}

/// `scores[row, start + j] = scale * query[row] . key[j]` for the first `take` entries of the run.
#[allow(clippy::too_many_arguments)]
fn score<T: Element>(
    query: Matrix<'_>,
    run: &Run<'_, T>,
    head: usize,
    take: usize,
    dim: usize,
    scale: f32,
    width: usize,
    start: usize,
    scores: &mut [f32],
    wide: &mut Vec<f32>,
) {
    if take == 0 {
        return;
    }
    let keys = as_f32(run.head(head, 0, take, dim).0, wide);
    query.check();
    assert!(keys.len() == take * dim && start + take <= width && query.rows * width <= scores.len());
    // SAFETY: the three matrices lie within their slices by the assertions; `scores` is borrowed uniquely.
    unsafe {
        gemm::gemm(
            query.rows,
            take,
            dim,
            scores.as_mut_ptr().add(start),
            1,
            width as isize,
            false,
            query.data.as_ptr(),
            1,
            query.row_step as isize,
            keys.as_ptr(),
            dim as isize,
            1,
            0.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `sums[row] (+)= sum_j probabilities[row, j] * value[j]`.
fn mix<T: Element>(
    probabilities: Matrix<'_>,
    run: &Run<'_, T>,
    head: usize,
    dim: usize,
    accumulate: bool,
    sums: &mut [f32],
    wide: &mut Vec<f32>,
) {
    let take = probabilities.columns;
    if take == 0 {
        return;
    }
    let values = as_f32(run.head(head, 0, take, dim).1, wide);
    probabilities.check();
    assert!(values.len() == take * dim && probabilities.rows * dim <= sums.len());
    // SAFETY: the three matrices lie within their slices by the assertions; `sums` is borrowed uniquely.
    unsafe {
        gemm::gemm(
            probabilities.rows,
            dim,
            take,
            sums.as_mut_ptr(),
            1,
            dim as isize,
            accumulate,
            probabilities.data.as_ptr(),
            1,
            probabilities.row_step as isize,
            values.as_ptr(),
            1,
            dim as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
