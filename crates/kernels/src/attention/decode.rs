//! Attention of one new query per sequence: a sweep over the lanes of all sequences of a batch.
//!
//! Each key and value byte is read once: 2 * kv_heads * len * dim * element bytes per lane, and 4 FLOPs per element and
//! query head, so memory bandwidth is the floor. Lanes are cut along their length into tasks of [`CHUNK`] entries whose
//! partial softmax results are merged, so that few heads still fill many cores.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::read::{Piece, Stored};
use super::{AttentionParams, LaneView};
use crate::codec::Basis;
use crate::simd::{self, Scratch};

/// Entries per task.
const CHUNK: usize = 512;

/// Entries behind those at work whose codes are asked for: with groups of 32 in runs of their own those of two or three more.
const AHEAD: usize = 64;

/// Below this many elements of keys and values one thread is faster than waking others.
const PARALLEL_FROM: usize = 128 * 1024;

/// One lane with the queries of its heads. The queries are those of the entry with the greatest position.
pub struct DecodeItem<'a> {
    pub lane: LaneView<'a>,
    /// `[lane.heads * group, dim]`, rotated.
    pub queries: &'a [f32],
    /// Like `queries`.
    pub out: &'a mut [f32],
    /// One element per entry of the lane, to which the probability of the entry is added, averaged over the query heads of the
    /// lane. Nothing is added for entries that are dead or before the window.
    pub sums: Option<&'a mut [f32]>,
}

/// Some entries of one KV head of one item.
struct Task {
    item: usize,
    head: usize,
    from: usize,
    to: usize,
    /// The first position that counts.
    since: u32,
}

/// The softmax over the entries of a task, relative to its own maximum.
struct Partial {
    max: f32,
    total: f32,
}

impl Partial {
    /// The weight of its sums beside a larger maximum. A part without live entries counts for nothing.
    fn weight(&self, max: f32) -> f32 {
        if self.max == f32::NEG_INFINITY { 0.0 } else { (self.max - max).exp() }
    }
}

/// The results of a task for the queries of its head.
struct Found {
    partials: Vec<Partial>,
    /// `[group, dim]`: values weighted by exp(score - max); behind them `[group, width]` of each basis of the lane.
    sums: Vec<f32>,
    /// `[group, entries]`: exp(score - max). Empty when nobody asked for it.
    weights: Vec<f32>,
}

/// Attends one query per head to the entries of its lane, or those within the window. A lane without entries is a defect of the caller;
/// one with only dead entries gives zeros.
pub fn decode(params: &AttentionParams, items: &mut [DecodeItem<'_>]) {
    params.check().unwrap_or_else(|reason| panic!("{reason}"));
    let dim = params.dim;
    let elements: usize = items.iter().map(|item| 2 * item.lane.heads * item.lane.len() * dim).sum();
    let mut tasks = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let len = item.lane.len();
        assert!(len > 0, "attention to an empty lane");
        assert_eq!(item.queries.len(), item.out.len());
        assert_eq!(item.queries.len(), item.lane.heads * params.group() * dim);
        assert!(item.sums.as_ref().is_none_or(|sums| sums.len() == len));
        item.lane.check(dim);
        let (since, first) = within(params, &item.lane);
        let seen = len - first;
        // Even chunks: 513 entries become 257 + 256, not 512 + 1.
        let chunks = seen.div_ceil(CHUNK);
        for head in 0..item.lane.heads {
            tasks.extend((0..chunks).map(|chunk| Task {
                item: index,
                head,
                from: first + chunk * seen / chunks,
                to: first + (chunk + 1) * seen / chunks,
                since,
            }));
        }
    }
    let readings: Vec<Reading<'_>> = items.iter().map(|item| Reading::new(params, item)).collect();
    let run = |task: &Task| attend(params, &items[task.item], &readings[task.item], task);
    let found: Vec<Found> =
        if elements < PARALLEL_FROM { tasks.iter().map(run).collect() } else { tasks.par_iter().map(run).collect() };

    let mut parts = &found[..];
    let mut places = &tasks[..];
    while let Some(first) = places.first() {
        let n = places.iter().take_while(|task| (task.item, task.head) == (first.item, first.head)).count();
        merge(&mut items[first.item], &readings[first.item], &places[..n], &parts[..n], dim);
        (places, parts) = (&places[n..], &parts[n..]);
    }
    for item in items {
        item.lane.dual().values().undo(item.out, dim);
    }
}

/// The queries of an item in the coordinates in which its entries are stored, computed once.
struct Reading<'a> {
    /// Through the dual of the lane's transform, if it has one.
    turned: Option<Vec<f32>>,
    bases: Vec<Based<'a>>,
    /// Numbers of a query in [`Found::sums`], over all coordinates.
    width: usize,
}

/// A basis of some runs of a lane.
struct Based<'a> {
    basis: &'a Basis,
    /// `[query heads, width]`; empty where keys are read in the coordinates of the head.
    queries: Vec<f32>,
    /// Where its sums begin in those of a query, and how many there are; none where values are stored in the coordinates of the head.
    sums: Range<usize>,
}

impl<'a> Reading<'a> {
    fn new(params: &AttentionParams, item: &DecodeItem<'a>) -> Reading<'a> {
        let (dim, dual, group) = (params.dim, item.lane.dual().keys(), params.group());
        let turned = (!dual.is_none()).then(|| {
            let mut queries = item.queries.to_vec();
            dual.apply(&mut queries, dim);
            queries
        });
        let (mut bases, mut width): (Vec<Based<'a>>, usize) = (Vec::new(), dim);
        for basis in item.lane.runs.iter().filter_map(|run| run.basis) {
            if bases.iter().any(|known| known.basis == basis) {
                continue;
            }
            let queries = turned.as_deref().unwrap_or(item.queries).chunks_exact(group * dim).enumerate();
            let queries = match basis.keys.as_ref().filter(|_| item.lane.turns.is_none()) {
                None => Vec::new(),
                Some(map) => {
                    let width = group * usize::from(map.cut().width);
                    let mut to = vec![0.0; item.lane.heads * width];
                    for ((head, queries), to) in queries.zip(to.chunks_exact_mut(width)) {
                        map.queries(head, queries, to);
                    }
                    to
                }
            };
            let more = basis.values.as_ref().map_or(0, |map| map.cut().width.into());
            bases.push(Based { basis, queries, sums: width..width + more });
            width += more;
        }
        Reading { turned, bases, width }
    }

    /// The queries and sums in the basis of one of the lane's runs.
    fn of(&self, basis: Option<&Basis>) -> Option<&Based<'a>> {
        let basis = basis?;
        self.bases.iter().find(|known| known.basis == basis)
    }
}

/// The first position that the query of a lane sees, and the first entry with such a position.
fn within(params: &AttentionParams, lane: &LaneView<'_>) -> (u32, usize) {
    let Some(positions) = lane.windowed(params) else { return (0, 0) };
    let since = params.since(positions.iter().copied().max().unwrap_or(0));
    (since, positions.iter().position(|position| *position >= since).unwrap_or(0))
}

/// Joins what the tasks of one head found.
fn merge(item: &mut DecodeItem<'_>, reading: &Reading<'_>, tasks: &[Task], parts: &[Found], dim: usize) {
    let query_heads = item.queries.len() / dim;
    let group = query_heads / item.lane.heads;
    // Per part and query.
    let mut factors = vec![0.0; parts.len() * group];
    for query in 0..group {
        let max = parts.iter().fold(f32::NEG_INFINITY, |max, part| max.max(part.partials[query].max));
        let total: f32 = parts.iter().map(|part| part.partials[query].weight(max) * part.partials[query].total).sum();
        let out = &mut item.out[(tasks[0].head * group + query) * dim..][..dim];
        out.fill(0.0);
        if total == 0.0 {
            continue;
        }
        for (index, part) in parts.iter().enumerate() {
            let factor = part.partials[query].weight(max) / total;
            factors[index * group + query] = factor;
            for (out, sum) in out.iter_mut().zip(&part.sums[query * dim..]) {
                *out += factor * sum;
            }
        }
        for Based { basis, sums, .. } in &reading.bases {
            let Some(map) = &basis.values else { continue };
            let mut joined = vec![0.0; sums.len()];
            for (part, factor) in parts.iter().zip(factors[query..].iter().step_by(group)) {
                let of = &part.sums[group * sums.start + query * sums.len()..];
                joined.iter_mut().zip(of).for_each(|(to, sum)| *to += factor * sum);
            }
            map.outputs(tasks[0].head, &joined, out);
        }
    }
    if let Some(sums) = &mut item.sums {
        let share = 1.0 / query_heads as f32;
        factors.iter_mut().for_each(|factor| *factor *= share);
        for ((task, part), factors) in tasks.iter().zip(parts).zip(factors.chunks_exact(group)) {
            simd::add_rows(factors, &part.weights, task.to - task.from, &mut sums[task.from..task.to]);
        }
    }
}

/// Asks for the pieces that begin less than [`AHEAD`] entries behind a piece and were not asked for.
fn ask<'p, 'v: 'p, 'a: 'v>(
    ahead: &mut std::slice::Iter<'p, Piece<'v, 'a>>,
    piece: &Piece<'_, '_>,
    ask: impl Fn(&Piece<'v, 'a>),
) {
    while let Some(next) = ahead.as_slice().first()
        && next.at < piece.at + piece.len() + AHEAD
    {
        ask(next);
        ahead.next();
    }
}

thread_local! {
    /// Room that the tasks of a thread use in turn: clearing it would take as long as some of a task's entries.
    static ROOM: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Scores, softmax and weighted values of the entries of a task for the queries of its head.
fn attend(params: &AttentionParams, item: &DecodeItem<'_>, reading: &Reading<'_>, task: &Task) -> Found {
    let (lane, head, group, dim, scale) = (&item.lane, task.head, params.group(), params.dim, params.scale);
    let own = &reading.turned.as_deref().unwrap_or(item.queries)[head * group * dim..(head + 1) * group * dim];
    let n = task.to - task.from;
    let (mut wide, mut scaled, mut scratch) = (Vec::new(), Vec::new(), ROOM.take());
    let mut weights = vec![0.0; group * n];
    let pieces: Vec<Piece<'_, '_>> = lane.pieces(task.from, task.to).collect();
    let mut ahead = pieces.iter();
    for piece in &pieces {
        ask(&mut ahead, piece, |next| next.ask_keys(head, dim));
        let way = piece.key_way(lane, head, dim);
        let queries = match reading.of(piece.basis()).filter(|_| way.stored) {
            Some(based) => &based.queries[head * group * way.width..(head + 1) * group * way.width],
            None => own,
        };
        let scores = &mut weights[piece.at - task.from..];
        if !piece.key_scores(lane, way, queries, scale, scores, n, &mut scratch) {
            for piece in piece.of_keys(lane, way) {
                let scores = &mut weights[piece.at - task.from..];
                match piece.keys(lane, way, &mut wide) {
                    Stored::F32(keys) => simd::scores(queries, way.width, keys, scale, scores, n),
                    Stored::F16(keys) => simd::scores(queries, way.width, keys, scale, scores, n),
                }
            }
        }
        if let Some(gains) = piece.key_gains(head) {
            for scores in weights[piece.at - task.from..].chunks_mut(n) {
                scores.iter_mut().zip(gains).for_each(|(score, gain)| *score *= gain);
            }
        }
    }
    let mut ahead = pieces.iter();
    if let Some(first) = pieces.first() {
        ask(&mut ahead, first, |next| next.ask_values(head, dim));
    }
    if let Some(cap) = params.softcap {
        simd::softcap(&mut weights, cap);
    }
    let mut hidden: Vec<usize> = lane.dead_of(task.from, task.to).collect();
    if let Some(positions) = lane.windowed(params) {
        let positions = positions[task.from..task.to].iter().enumerate();
        hidden.extend(positions.filter(|(_, position)| **position < task.since).map(|(at, _)| at));
    }
    let partials = weights
        .chunks_exact_mut(n)
        .map(|scores| {
            let (max, total) = simd::softmax(scores, &hidden);
            Partial { max, total }
        })
        .collect();
    let mut sums = vec![0.0; group * reading.width];
    for piece in &pieces {
        ask(&mut ahead, piece, |next| next.ask_values(head, dim));
        let way = piece.value_way(head, dim);
        let columns = match reading.of(piece.basis()).filter(|_| way.stored) {
            Some(based) => based.sums.clone(),
            None => 0..dim,
        };
        let sums = &mut sums[group * columns.start..group * columns.end];
        let own = &weights[piece.at - task.from..];
        // The weights of the rows as they are stored, and how far apart those of two queries lie.
        let (of_rows, step) = match piece.value_gains(head) {
            None => (own, n),
            Some(gains) => {
                scaled.clear();
                scaled.extend(own.chunks(n).flat_map(|of| of.iter().zip(gains).map(|(weight, gain)| weight * gain)));
                (&scaled[..], piece.len())
            }
        };
        if piece.value_sums(way, of_rows, step, sums, &mut scratch) {
            continue;
        }
        for part in piece.of_values() {
            let of_rows = &of_rows[part.at - piece.at..];
            match part.values(way, &mut wide) {
                Stored::F32(values) => simd::weighted_sums(of_rows, step, values, way.width, sums),
                Stored::F16(values) => simd::weighted_sums(of_rows, step, values, way.width, sums),
            }
        }
    }
    ROOM.set(scratch);
    Found { partials, sums, weights: if item.sums.is_some() { weights } else { Vec::new() } }
}
