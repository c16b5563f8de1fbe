//! Slow, readable twins of the kernels, in f64. The tests hold the fast versions against these.

pub mod codec;
pub mod network;
pub mod quant;

use crate::attention::{AttentionParams, LaneView, Mask};
use crate::codec::Run;

/// The keys and values of one head of a lane as plain rows, `[len][dim]`, the keys rotated and both as they were before the transform of
/// their codec.
fn entries(lane: &LaneView<'_>, head: usize, dim: usize) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for run in &lane.runs {
        for entry in 0..run.len {
            let (mut key, value) = codec::entry(run, head, entry, dim);
            if let Some(turns) = lane.turns {
                let half = dim / 2;
                let stored = key.clone();
                let (cos, sin) = turns.angles.of(turns.of[keys.len()]);
                for (i, (cos, sin)) in cos.iter().zip(sin).enumerate() {
                    key[i] = stored[i] * f64::from(*cos) - stored[half + i] * f64::from(*sin);
                    key[half + i] = stored[half + i] * f64::from(*cos) + stored[i] * f64::from(*sin);
                }
            }
            keys.push(key);
            values.push(value);
        }
    }
    (keys, values)
}

/// The part of a lane that a query sees: the first `end` entries, of these the ones at position `since` or behind.
#[derive(Clone, Copy)]
struct Sees {
    end: usize,
    since: u32,
}

/// softmax(softcap(scale * q K^T)) over the entries of a head that the query sees; dead entries and the rest get 0, and so does every
/// entry when all that are seen are dead.
fn probabilities(
    params: &AttentionParams,
    query: &[f32],
    keys: &[Vec<f64>],
    lane: &LaneView<'_>,
    sees: Sees,
) -> Vec<f64> {
    let counts = |entry: usize| {
        let before = lane.positions.is_some_and(|positions| positions[entry] < sees.since);
        entry < sees.end && !before && lane.dead.is_none_or(|dead| !dead[entry])
    };
    let score = |key: &Vec<f64>| {
        let score = f64::from(params.scale) * query.iter().zip(key).map(|(q, k)| f64::from(*q) * k).sum::<f64>();
        params.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
    };
    let scores: Vec<Option<f64>> =
        keys.iter().enumerate().map(|(entry, key)| counts(entry).then(|| score(key))).collect();
    let max = scores.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().flatten().map(|score| (score - max).exp()).sum();
    scores.iter().map(|score| score.map_or(0.0, |score| (score - max).exp() / total)).collect()
}

/// softmax(softcap(scale * q K^T)) V, head by head and query by query. `queries` is `[n, query_heads, dim]`, and so is the result.
pub fn attention(params: &AttentionParams, queries: &[f32], n: usize, lanes: &[LaneView<'_>]) -> Vec<f32> {
    attention_and_sums(params, queries, n, lanes, &vec![0.0; n]).0
}

/// [`attention`], and per KV head the sums over queries of weight x probability, averaged over the query heads of the group.
pub fn attention_and_sums(
    params: &AttentionParams,
    queries: &[f32],
    n: usize,
    lanes: &[LaneView<'_>],
    weights: &[f32],
) -> (Vec<f32>, Vec<Vec<f64>>) {
    assert_eq!(weights.len(), n);
    let (group, kv_heads) = (params.group(), lanes.iter().map(|lane| lane.heads).sum::<usize>());
    assert_eq!(params.kv_heads, kv_heads);
    let sees = |lane: &LaneView<'_>, i: usize| match params.mask {
        Mask::Causal => {
            let own = lane.len() - n + i;
            Sees {
                end: lane.len() - n + lane.end_of(i),
                since: lane.positions.map_or(0, |positions| params.since(positions[own])),
            }
        }
        Mask::None => Sees { end: lane.len(), since: 0 },
    };
    attend(params, group, queries, params.query_heads, lanes, weights, &sees)
}

/// `sees` is asked for a lane and a query.
fn attend(
    params: &AttentionParams,
    group: usize,
    queries: &[f32],
    query_heads: usize,
    lanes: &[LaneView<'_>],
    weights: &[f32],
    sees: &dyn Fn(&LaneView<'_>, usize) -> Sees,
) -> (Vec<f32>, Vec<Vec<f64>>) {
    let (n, dim) = (weights.len(), params.dim);
    let mut out = vec![0.0; n * query_heads * dim];
    let mut sums = Vec::new();
    for lane in lanes {
        for lane_head in 0..lane.heads {
            let (keys, values) = entries(lane, lane_head, dim);
            let mut columns = vec![0.0; keys.len()];
            for query_head in sums.len() * group..(sums.len() + 1) * group {
                for (i, weight) in weights.iter().enumerate() {
                    let at = (i * query_heads + query_head) * dim;
                    let row = probabilities(params, &queries[at..at + dim], &keys, lane, sees(lane, i));
                    for j in 0..dim {
                        out[at + j] = row.iter().zip(&values).map(|(p, v)| p * v[j]).sum::<f64>() as f32;
                    }
                    for (column, p) in columns.iter_mut().zip(&row) {
                        *column += f64::from(*weight) * p / group as f64;
                    }
                }
            }
            sums.push(columns);
        }
    }
    (out, sums)
}

/// Attention of one query per head, which belongs to the entry with the greatest position: the result `[lane.heads * group, dim]`, and the mean
/// of the probabilities over all query heads.
pub fn decode(params: &AttentionParams, queries: &[f32], lane: &LaneView<'_>) -> (Vec<f32>, Vec<f64>) {
    let group = params.group();
    let newest = lane.positions.and_then(|positions| positions.iter().copied().max());
    let sees = Sees { end: lane.len(), since: newest.map_or(0, |newest| params.since(newest)) };
    let lanes = std::slice::from_ref(lane);
    let (out, sums) = attend(params, group, queries, lane.heads * group, lanes, &[1.0], &|_, _| sees);
    let mean = |entry: usize| sums.iter().map(|head| head[entry]).sum::<f64>() / lane.heads as f64;
    (out, (0..lane.len()).map(mean).collect())
}

/// The Euclidean norms `[heads, len]` of the first `len` keys of each head of a run.
pub fn key_norms(run: &Run<'_, &[u8]>, len: usize, heads: usize, dim: usize) -> Vec<f64> {
    let norm =
        |head: usize, entry: usize| codec::entry(run, head, entry, dim).0.iter().map(|x| x * x).sum::<f64>().sqrt();
    (0..heads).flat_map(|head| (0..len).map(move |entry| norm(head, entry))).collect()
}
