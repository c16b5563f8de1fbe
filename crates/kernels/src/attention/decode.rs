//! Attention of one new query per sequence: a sweep over the lanes of all sequences of a batch.
//!
//! Each key and value byte is read once: 2 * kv_heads * len * dim * element bytes per lane, and 4 FLOPs per element and
//! query head, so memory bandwidth is the floor. Lanes are cut along their length into tasks of [`CHUNK`] entries whose
//! partial softmax results are merged, so that few heads still fill many cores.

use rayon::prelude::*;

use super::{AnyRun, LaneView};
use crate::simd;

/// Entries per task.
const CHUNK: usize = 512;

/// Below this many elements of keys and values one thread is faster than waking others.
const PARALLEL_FROM: usize = 128 * 1024;

/// One lane with the queries of its heads.
pub struct DecodeItem<'a> {
    pub lane: LaneView<'a>,
    /// `[lane.heads * group, dim]`, rotated.
    pub queries: &'a [f32],
    /// Like `queries`.
    pub out: &'a mut [f32],
}

/// The softmax over one chunk, relative to its own maximum.
struct Partial {
    max: f32,
    total: f32,
}

/// Attends one query per head to every entry of its lane. A lane without entries is a defect of the caller.
pub fn decode(items: &mut [DecodeItem<'_>], dim: usize, scale: f32) {
    let elements: usize = items.iter().map(|item| 2 * item.lane.heads * item.lane.len() * dim).sum();
    let mut tasks = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let len = item.lane.len();
        assert!(len > 0, "attention to an empty lane");
        assert_eq!(item.queries.len(), item.out.len());
        assert!(item.queries.len().is_multiple_of(item.lane.heads * dim));
        for head in 0..item.lane.heads {
            // Even chunks: 513 entries become 257 + 256, not 512 + 1.
            let chunks = len.div_ceil(CHUNK);
            for chunk in 0..chunks {
                tasks.push((index, head, chunk * len / chunks, (chunk + 1) * len / chunks));
            }
        }
    }
    let run = |&(index, head, from, to): &(usize, usize, usize, usize)| {
        let item = &items[index];
        let group = item.queries.len() / (item.lane.heads * dim);
        let queries = &item.queries[head * group * dim..(head + 1) * group * dim];
        attend(&item.lane, head, from, to, queries, dim, scale)
    };
    let results: Vec<(Vec<Partial>, Vec<f32>)> =
        if elements < PARALLEL_FROM { tasks.iter().map(run).collect() } else { tasks.par_iter().map(run).collect() };

    let mut at = 0;
    while at < tasks.len() {
        let (index, head, ..) = tasks[at];
        let end = at + tasks[at..].iter().take_while(|task| (task.0, task.1) == (index, head)).count();
        let item = &mut items[index];
        let group = item.queries.len() / (item.lane.heads * dim);
        for query in 0..group {
            let out = &mut item.out[(head * group + query) * dim..][..dim];
            let parts = &results[at..end];
            let max = parts.iter().fold(f32::NEG_INFINITY, |max, (partials, _)| max.max(partials[query].max));
            let weight = |partial: &Partial| (partial.max - max).exp();
            let total: f32 = parts.iter().map(|(partials, _)| weight(&partials[query]) * partials[query].total).sum();
            out.fill(0.0);
            for (partials, sums) in parts {
                let factor = weight(&partials[query]) / total;
                for (out, sum) in out.iter_mut().zip(&sums[query * dim..]) {
                    *out += factor * sum;
                }
            }
        }
        at = end;
    }
}

/// Scores, softmax and weighted values of the entries `from .. to` for the queries of one KV head.
fn attend(
    lane: &LaneView<'_>,
    head: usize,
    from: usize,
    to: usize,
    queries: &[f32],
    dim: usize,
    scale: f32,
) -> (Vec<Partial>, Vec<f32>) {
    let group = queries.len() / dim;
    let n = to - from;
    let mut scores = vec![0.0; group * n];
    // (run, first entry, last entry, offset among the scores)
    let mut pieces = Vec::new();
    let mut start = 0;
    for run in &lane.runs {
        let (low, high) = (from.max(start), to.min(start + run.len()));
        if low < high {
            pieces.push((run, low - start, high - start, low - from));
        }
        start += run.len();
    }
    for &(run, low, high, at) in &pieces {
        match run {
            AnyRun::F32(run) => {
                simd::scores(queries, dim, run.head(head, low, high, dim).0, scale, &mut scores[at..], n)
            }
            AnyRun::F16(run) => {
                simd::scores(queries, dim, run.head(head, low, high, dim).0, scale, &mut scores[at..], n)
            }
        }
    }
    let partials = scores
        .chunks_exact_mut(n)
        .map(|scores| {
            let max = simd::max(scores);
            Partial { max, total: simd::exp_sum(scores, max) }
        })
        .collect();
    let mut sums = vec![0.0; group * dim];
    for &(run, low, high, at) in &pieces {
        match run {
            AnyRun::F32(run) => simd::weighted_sums(&scores[at..], n, run.head(head, low, high, dim).1, dim, &mut sums),
            AnyRun::F16(run) => simd::weighted_sums(&scores[at..], n, run.head(head, low, high, dim).1, dim, &mut sums),
        }
    }
    (partials, sums)
}
