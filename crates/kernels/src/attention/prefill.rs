//! Attention of many new queries: a block of query rows against all keys it may see.
//!
//! Work for N queries, H heads of d elements: 4 H d N^2 / 2 FLOPs with a causal mask (two matrix products over the lower
//! triangle); bytes are negligible beside it, so the floor is the machine's f32 GEMM rate. A block of [`BLOCK`] rows keeps
//! the scores at `BLOCK * N` floats per thread, and every key column it needs is visited exactly once.

use gemm::Parallelism;

use super::{AttentionParams, LaneView, Mask, Rows};
use crate::shared::Disjoint;
use crate::simd;
use crate::tasks;

/// Query rows per block.
const BLOCK: usize = 64;

/// Column sums of the attention probabilities, weighted by query.
pub struct Gather<'a> {
    /// One weight per query row, `n` of them; rows of weight 0 cost nothing.
    pub weights: &'a [f32],
    /// Per KV head in lane order; resized to the lane's entries (dead ones get 0) and overwritten: sum over queries of weight x
    /// probability, averaged over the query heads of the group.
    pub sums: &'a mut Vec<Vec<f32>>,
}

/// Sums over columns that are kept apart, of all query heads together, so that they can be taken at the same time: each is as
/// long as a lane, and they are added in a fixed order in the end. Depends on nothing but the shape, so that the same sums come
/// from any number of threads.
const PARTS: usize = 128;

/// Attends `n` new queries to the lanes of one layer, which must already hold the keys and values of the new positions.
///
/// `queries` has `query_heads * dim` elements per row, rotated; the lanes, in order, hold all KV heads; `out` is
/// `[n, query_heads, dim]`. A query that sees only dead entries gets zeros. `gather` changes nothing about `out`.
pub fn prefill(
    params: &AttentionParams,
    queries: Rows<'_>,
    n: usize,
    lanes: &[LaneView<'_>],
    gather: Option<Gather<'_>>,
    out: &mut [f32],
) {
    prefill_unless(&|| false, params, queries, n, lanes, gather, out);
}

/// [`prefill`] for work that may no longer be wanted: `stopped` is asked before each block of queries of a head, on any thread. Once it
/// has said yes, `out` and the sums hold what was there by then.
pub fn prefill_unless(
    stopped: &(dyn Fn() -> bool + Sync),
    params: &AttentionParams,
    queries: Rows<'_>,
    n: usize,
    lanes: &[LaneView<'_>],
    gather: Option<Gather<'_>>,
    out: &mut [f32],
) {
    let width = params.query_heads * params.dim;
    assert_eq!(out.len(), n * width);
    let asked = Asked { queries, n, rows: None, own: None, last: n };
    attend(stopped, params, asked, lanes, gather, Some(Output { out, width }));
}

/// The sums that [`prefill`] gathers from the queries `rows` alone, ascending, of `n` that the lanes hold the entries of. The results of their
/// attention are not made, which is half of the work. `gather` has a weight for each of `rows`.
pub fn received(
    stopped: &(dyn Fn() -> bool + Sync),
    params: &AttentionParams,
    queries: Rows<'_>,
    (n, rows): (usize, &[usize]),
    lanes: &[LaneView<'_>],
    gather: Gather<'_>,
) {
    assert!(rows.is_sorted_by(|a, b| a < b) && rows.last().is_none_or(|last| *last < n), "rows of {n}");
    let asked = Asked { queries, n: rows.len(), rows: Some(rows), own: Some(rows), last: n };
    attend(stopped, params, asked, lanes, Some(gather), None);
}

/// The queries of a call.
pub(super) struct Asked<'a> {
    pub(super) queries: Rows<'a>,
    pub(super) n: usize,
    /// Their rows in `queries` and in the results, ascending; None: the first `n`.
    pub(super) rows: Option<&'a [usize]>,
    /// Their own entries among the last `last` of every lane; None: these are all their own.
    pub(super) own: Option<&'a [usize]>,
    pub(super) last: usize,
}

/// Results, in rows of `width` elements.
pub(super) struct Output<'a> {
    pub(super) out: &'a mut [f32],
    pub(super) width: usize,
}

pub(super) fn attend(
    stopped: &(dyn Fn() -> bool + Sync),
    params: &AttentionParams,
    asked: Asked<'_>,
    lanes: &[LaneView<'_>],
    gather: Option<Gather<'_>>,
    output: Option<Output<'_>>,
) {
    params.check().unwrap_or_else(|reason| panic!("{reason}"));
    let (query_heads, group) = (params.query_heads, params.group());
    let kv_heads: Vec<(usize, usize)> =
        lanes.iter().enumerate().flat_map(|(lane, view)| (0..view.heads).map(move |head| (lane, head))).collect();
    assert_eq!(kv_heads.len(), params.kv_heads, "KV heads of the lanes");
    let lens: Vec<usize> = lanes.iter().map(LaneView::len).collect();
    let Asked { n, last, .. } = asked;
    for (view, len) in lanes.iter().zip(&lens) {
        assert!(params.mask == Mask::None || *len >= last, "a causal lane of {len} entries for {last} queries");
        params.check_ends(view.ends, last).unwrap_or_else(|reason| panic!("{reason}"));
        view.check(params.dim);
    }
    let dead: Vec<Vec<usize>> = lanes.iter().zip(&lens).map(|(view, len)| view.dead_of(0, *len).collect()).collect();
    let blocks = n.div_ceil(BLOCK);
    let heads: Vec<Head<'_>> = (0..query_heads)
        .map(|query_head| {
            let (lane, lane_head) = kv_heads[query_head / group];
            let positions = lanes[lane].windowed(params);
            Head { query_head, lane: &lanes[lane], lane_head, len: lens[lane], dead: &dead[lane], positions }
        })
        .collect();
    let out = output.map(|Output { out, width }| (Disjoint::new(out), width));
    let call = Call { stopped, params, asked, out };

    // The last blocks see the most keys: they are taken first, and small ones fill the gaps at the end.
    let Some(Gather { weights, sums }) = gather else {
        tasks::in_order(blocks * query_heads, |scratch, task| {
            call.block(&heads[task % query_heads], blocks - 1 - task / query_heads, scratch, None);
        });
        return;
    };
    assert_eq!(weights.len(), n);
    let parts = (PARTS / query_heads).clamp(1, blocks.max(1));
    let starts: Vec<usize> = heads
        .iter()
        .scan(0, |end, head| {
            let start = *end;
            *end += parts * head.len;
            Some(start)
        })
        .collect();
    let mut columns = vec![0.0; heads.iter().map(|head| parts * head.len).sum()];
    let shared = Disjoint::new(&mut columns);
    tasks::in_order(parts * query_heads, |scratch, task| {
        let (part, head) = (task / query_heads, &heads[task % query_heads]);
        // SAFETY: (part, query head) belongs to this task alone.
        let columns = unsafe { shared.part(starts[head.query_head] + part * head.len, head.len) };
        for block in (0..blocks).rev().skip(part).step_by(parts) {
            call.block(head, block, scratch, Some((weights, &mut *columns)));
        }
    });
    sums.resize_with(kv_heads.len(), Vec::new);
    let shares = vec![1.0 / group as f32; group * parts];
    for (kv_head, sums) in sums.iter_mut().enumerate() {
        let len = heads[kv_head * group].len;
        sums.clear();
        sums.resize(len, 0.0);
        simd::add_rows(&shares, &columns[starts[kv_head * group]..], len, sums);
    }
}

/// A query head with the entries that it attends to.
struct Head<'a> {
    query_head: usize,
    lane: &'a LaneView<'a>,
    lane_head: usize,
    len: usize,
    /// Which entries are dead, ascending.
    dead: &'a [usize],
    /// Of all entries, where a window is.
    positions: Option<&'a [u32]>,
}

/// State that all tasks of a call share.
struct Call<'a> {
    stopped: &'a (dyn Fn() -> bool + Sync),
    params: &'a AttentionParams,
    asked: Asked<'a>,
    /// None: sums are all that is wanted.
    out: Option<(Disjoint<'a, f32>, usize)>,
}

impl Call<'_> {
    /// The entries that a query may see: up to which, and from which position on.
    fn sees(&self, head: &Head<'_>, query: usize) -> (usize, u32) {
        let Asked { own, last, .. } = self.asked;
        let (first, own) = (head.len - last.min(head.len), own.map_or(query, |own| own[query]));
        let end = if self.params.mask == Mask::Causal { first + head.lane.end_of(own) } else { head.len };
        (end, head.positions.map_or(0, |positions| self.params.since(positions[first + own])))
    }

    /// Attends the queries of one block and head, and adds their weighted probabilities to the columns.
    fn block(&self, head: &Head<'_>, block: usize, scratch: &mut Scratch, mut gather: Option<(&[f32], &mut [f32])>) {
        if (self.stopped)() {
            return;
        }
        let AttentionParams { dim, scale, softcap, .. } = *self.params;
        let first = block * BLOCK;
        let rows = BLOCK.min(self.asked.n - first);
        let end = self.sees(head, first + rows - 1).0;
        // The first row sees the oldest entries.
        let oldest = self.sees(head, first).1;
        let low = head.positions.and_then(|all| all.iter().position(|position| *position >= oldest)).unwrap_or(0);
        let width = end - low;
        let Scratch { scores, totals, sums, wide, old, hidden, turned } = scratch;
        let scores = first_of(scores, rows * width);
        let sums = first_of(sums, rows * dim);

        let dual = head.lane.dual();
        let Asked { queries, rows: numbers, .. } = self.asked;
        let number = |row: usize| numbers.map_or(first + row, |numbers| numbers[first + row]);
        let query = if dual.keys().is_none() && numbers.is_none() {
            let data = &queries.data[queries.offset + first * queries.stride + head.query_head * dim..];
            Matrix { data, row_step: queries.stride, rows, columns: dim }
        } else {
            turned.clear();
            (0..rows).for_each(|row| turned.extend_from_slice(queries.part(number(row), head.query_head * dim, dim)));
            dual.keys().apply(turned, dim);
            Matrix { data: turned, row_step: dim, rows, columns: dim }
        };
        let tiles = head.lane.tiles(low, end);
        for &tile in &tiles {
            let keys = head.lane.keys(head.lane_head, tile, dim, wide);
            score(query, keys, scale, width, tile.0 - low, scores);
        }
        if let Some(cap) = softcap {
            simd::softcap(scores, cap);
        }
        // Entries that not every row of the block sees.
        old.clear();
        if let Some(positions) = head.positions {
            let newest = self.sees(head, first + rows - 1).1;
            let all = positions[low..end].iter().enumerate();
            old.extend(all.filter(|(_, position)| **position < newest).map(|(at, position)| (at, *position)));
        }
        let dead = &head.dead[head.dead.partition_point(|at| *at < low)..];
        totals.clear();
        for (index, some) in scores.chunks_mut(SOFTMAX_ROWS * width).enumerate() {
            for (row, scores) in some.chunks_exact_mut(width).enumerate() {
                let (seen, since) = self.sees(head, first + index * SOFTMAX_ROWS + row);
                let (scores, unseen) = scores.split_at_mut(seen - low);
                hidden.clear();
                hidden.extend(dead.iter().take_while(|at| **at < seen).map(|at| at - low));
                let before = |(at, position): &&(usize, u32)| *position < since && *at < seen - low;
                hidden.extend(old.iter().filter(before).map(|(at, _)| *at));
                totals.push(simd::softmax(scores, hidden).1);
                unseen.fill(0.0);
            }
            if let Some((weights, columns)) = &mut gather {
                let rows = index * SOFTMAX_ROWS..totals.len();
                let mut factors = [0.0; SOFTMAX_ROWS];
                let weights = &weights[first + rows.start..first + rows.end];
                for ((factor, weight), total) in factors.iter_mut().zip(weights).zip(&totals[rows.clone()]) {
                    *factor = if *total > 0.0 { weight / total } else { 0.0 };
                }
                simd::add_rows(&factors[..rows.len()], some, width, &mut columns[low..end]);
            }
        }
        let Some((out, width_out)) = &self.out else { return };
        for &tile in &tiles {
            let values = head.lane.values(head.lane_head, tile, dim, wide);
            let probabilities =
                Matrix { data: &scores[tile.0 - low..], row_step: width, rows, columns: tile.1 - tile.0 };
            mix(probabilities, values, dim, tile.0 > low, sums);
        }
        for row in 0..rows {
            // SAFETY: (row, query_head) belongs to this block and head alone.
            let to = unsafe { out.part(number(row) * width_out + head.query_head * dim, dim) };
            let total = totals[row];
            let inverse = if total > 0.0 { 1.0 / total } else { 0.0 };
            for (to, from) in to.iter_mut().zip(&sums[row * dim..(row + 1) * dim]) {
                *to = from * inverse;
            }
            dual.values().undo(to, dim);
        }
    }
}

/// Rows that go through the softmax before their columns are summed: few enough to be still in a near cache.
const SOFTMAX_ROWS: usize = 8;

/// Buffers of one thread, reused from task to task.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    totals: Vec<f32>,
    sums: Vec<f32>,
    wide: Vec<f32>,
    /// Entries and their positions.
    old: Vec<(usize, u32)>,
    hidden: Vec<usize>,
    /// Queries through the dual of a lane's transform.
    turned: Vec<f32>,
}

/// The first `n` elements, whatever they hold. A buffer only grows: what shrinks is zeroed when it grows again.
fn first_of(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
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

/// `scores[row, start + j] = scale * query[row] . key[j]` for rows of `width` scores.
fn score(query: Matrix<'_>, keys: &[f32], scale: f32, width: usize, start: usize, scores: &mut [f32]) {
    let dim = query.columns;
    let take = keys.len() / dim;
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
fn mix(probabilities: Matrix<'_>, values: &[f32], dim: usize, accumulate: bool, sums: &mut [f32]) {
    let take = probabilities.columns;
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
