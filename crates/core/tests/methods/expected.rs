//! Which entries `expectedAttention` keeps, against its formula in f64 with matrices: heads that share keys, pieces of prompts, parts of
//! conversations, positions along three axes, layers without rotary embedding.

use std::ops::Range;
use std::sync::Arc;

use prefixkv_core::cache::{Format, LayerCache, Modality, Pool, Shape, Span};
use prefixkv_core::method::Method;
use prefixkv_core::sequence::{Layout, Placing, Sequence};
use prefixkv_kernels::attention::{AttentionParams, Rows};
use prefixkv_kernels::rotary::{Frequencies, Phase, Sections};
use proptest::prelude::*;
use serde_json::json;

const LAYERS: usize = 2;
/// Scores that are no further apart, as a part of them, may be ranked either way.
const CLOSE: f64 = 1e-3;

#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    group: usize,
    dim: usize,
    /// Positions of each message; the pieces that it is read in, 1 for whole.
    messages: Vec<(usize, usize)>,
    placed: bool,
    keep: f64,
    sinks: usize,
    ahead: usize,
    covariance: bool,
    values: bool,
    epsilon: f64,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let model = (1..4usize, 1..4usize, prop::sample::select(vec![4, 8, 20, 64]), any::<bool>());
    let prompt = (prop::collection::vec((1..150usize, 1..4usize), 1..3), 0.2..1.0f64);
    let ahead = prop::sample::select(vec![1, 7, 512]);
    let epsilon = prop::sample::select(vec![0.0, 0.02, 1.0]);
    let options = (0..6usize, ahead, any::<bool>(), any::<bool>(), epsilon, any::<u64>());
    (model, prompt, options).prop_map(|(model, prompt, options)| {
        let ((heads, group, dim, placed), (mut messages, keep)) = (model, prompt);
        let (sinks, ahead, covariance, values, epsilon, seed) = options;
        // Entries that are always kept must fit.
        messages[0].0 += 40;
        Case { heads, group, dim, messages, placed, keep, sinks, ahead, covariance, values, epsilon, seed }
    })
}

/// Numbers between -1 and 1.
fn noise(seed: [u64; 3], n: usize) -> Vec<f32> {
    let mut state =
        seed.into_iter().fold(7, |state: u64, x| (state ^ x).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A rotary embedding as this test computes it: per frequency its size and its axis.
type Turning = Vec<(f64, usize)>;

/// The rotary embedding of each layer; the second has none.
fn ropes(dim: usize) -> [(Frequencies, Turning); LAYERS] {
    let half = dim / 2;
    let sizes = [half - 2 * (half / 3), half / 3, half / 3];
    let axes = (0..3).flat_map(|axis| std::iter::repeat_n(axis, sizes[axis]));
    let speeds: Vec<f32> = (0..half).map(|i| 10_000f32.powf(-2.0 * i as f32 / dim as f32)).collect();
    let sections = Some(Sections { sizes, interleaved: false });
    let turning = speeds.iter().map(|speed| f64::from(*speed)).zip(axes).collect();
    [(Frequencies::new(speeds, sections), turning), (Frequencies::new(vec![0.0; half], sections), vec![(0.0, 0); half])]
}

fn turn(vector: &[f64], turning: &Turning, phase: Phase) -> Vec<f64> {
    let half = turning.len();
    let mut out = vector.to_vec();
    for (i, (speed, axis)) in turning.iter().enumerate() {
        let (sin, cos) = (f64::from(phase[*axis]) * speed).sin_cos();
        out[i] = vector[i] * cos - vector[i + half] * sin;
        out[i + half] = vector[i + half] * cos + vector[i] * sin;
    }
    out
}

/// A layer as it was seen: per position the phase, and the rows of all heads before their rotary embedding.
#[derive(Default)]
struct Seen {
    phases: Vec<Phase>,
    queries: Vec<Vec<f64>>,
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
}

impl Seen {
    /// The formula, for the entries of a KV head; the message began at position `first`.
    fn scores(&self, case: &Case, head: usize, entries: &[u32], first: usize, turning: &Turning) -> Vec<f64> {
        let Case { dim, group, sinks, ahead, .. } = *case;
        let scale = 1.0 / (dim as f64).sqrt();
        let behind =
            self.phases.iter().map(|phase| phase[0].max(phase[1]).max(phase[2])).max().map_or(0, |most| most + 1);
        let keys: Vec<Vec<f64>> = entries
            .iter()
            .map(|entry| {
                let entry = *entry as usize;
                turn(&self.keys[entry][head * dim..(head + 1) * dim], turning, self.phases[entry])
            })
            .collect();
        // The rotation of every position to come, undone on the keys, is the same product; its mean is taken here.
        let mean_turn = |vector: &[f64]| {
            let mut mean = vec![0.0; dim];
            for phase in behind..behind + ahead as u32 {
                mean.iter_mut().zip(turn(vector, turning, [phase; 3])).for_each(|(mean, x)| *mean += x / ahead as f64);
            }
            mean
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut scores = vec![0.0; entries.len()];
        for query_head in head * group..(head + 1) * group {
            let from = first.max(sinks).min(self.queries.len());
            let rows: Vec<&[f64]> =
                self.queries[from..].iter().map(|row| &row[query_head * dim..(query_head + 1) * dim]).collect();
            let n = rows.len().max(1) as f64;
            let mean: Vec<f64> = (0..dim).map(|c| rows.iter().map(|row| row[c]).sum::<f64>() / n).collect();
            let turned: Vec<Vec<f64>> = rows
                .iter()
                .map(|row| mean_turn(&row.iter().zip(&mean).map(|(x, mean)| x - mean).collect::<Vec<_>>()))
                .collect();
            let mean = mean_turn(&mean);
            let exps: Vec<f64> = keys
                .iter()
                .map(|key| {
                    let spread = turned.iter().map(|row| dot(row, key).powi(2)).sum::<f64>() / n;
                    let spread = if case.covariance { scale * scale * spread / 2.0 } else { 0.0 };
                    (scale * dot(&mean, key) + spread).exp()
                })
                .collect();
            let counts = |entry: u32| entry as usize >= sinks;
            let sum: f64 = exps.iter().zip(entries).filter(|(_, entry)| counts(**entry)).map(|(exp, _)| exp).sum();
            scores.iter_mut().zip(&exps).for_each(|(score, exp)| *score += exp / sum / group as f64);
        }
        if case.values {
            for (score, entry) in scores.iter_mut().zip(entries) {
                let value = &self.values[*entry as usize][head * dim..(head + 1) * dim];
                *score = (*score + case.epsilon) * dot(value, value).sqrt();
            }
        }
        scores
    }
}

fn wide(rows: &[f32], width: usize) -> impl Iterator<Item = Vec<f64>> {
    rows.chunks_exact(width).map(|row| row.iter().map(|x| f64::from(*x)).collect())
}

/// The rows `positions` of the message through all layers.
fn layers(sequence: &mut Sequence, case: &Case, seen: &mut [Seen], phases: &[Phase], positions: Range<usize>) {
    let Case { heads, group, dim, seed, .. } = *case;
    let (n, width, ropes) = (positions.len(), heads * dim, ropes(dim));
    let frequencies: Vec<Frequencies> = ropes.iter().map(|(frequencies, _)| frequencies.clone()).collect();
    sequence.look_ahead(&frequencies, n).expect("fits");
    for (layer, (seen, (frequencies, turning))) in seen.iter_mut().zip(&ropes).enumerate() {
        let of = |part: u64, width: usize| noise([seed, (10 * layer) as u64 + part, positions.start as u64], n * width);
        let (mut queries, keys, values) = (of(1, width * group), of(2, width), of(3, width));
        queries.chunks_exact_mut(dim).for_each(|row| row[0] += 1.5);
        seen.phases.extend(phases);
        seen.queries.extend(wide(&queries, width * group));
        seen.keys.extend(wide(&keys, width));
        seen.values.extend(wide(&values, width));
        let angles = frequencies.angles(phases.iter().copied());
        sequence.store(layer, Rows::dense(&keys, width), Rows::dense(&values, width), Some(&angles)).expect("stores");
        let mut turned = Vec::new();
        for (row, phase) in wide(&queries, width * group).zip(phases) {
            turned.extend(row.chunks_exact(dim).flat_map(|row| turn(row, turning, *phase)).map(|x| x as f32));
        }
        assert_eq!(sequence.wanted_queries(), n);
        let params = AttentionParams::new(heads * group, heads, dim);
        sequence.keep_queries(layer, &params, &turned).expect("fits");
        assert!(sequence.query_weights(layer).is_none());
        sequence.attended(layer, &[]).expect("frees");
    }
}

/// Rows and columns of a picture, and text behind it, from phase `first` on; and by how much they go on.
fn placing(case: &Case, n: usize) -> (Placing, Vec<Phase>, u32) {
    if !case.placed || n < 8 {
        return (Placing::InOrder, (0..n as u32).map(|i| [i; 3]).collect(), n as u32);
    }
    let picture = n as u32 / 2;
    let behind = picture.div_ceil(4).max(4);
    let phases: Vec<Phase> =
        (0..n as u32).map(|i| if i < picture { [0, i / 4, i % 4] } else { [behind + i - picture; 3] }).collect();
    let advance = behind + n as u32 - picture;
    (Placing::Placed { phases: phases.clone(), advance }, phases, advance)
}

/// Checks a case; the entries that went.
fn check(case: &Case) -> usize {
    let Case { heads, dim, sinks, .. } = *case;
    let method = json!({
        "method": "expectedAttention", "keep": case.keep, "sinks": sinks, "ahead": case.ahead,
        "covariance": case.covariance, "values": case.values, "epsilon": case.epsilon,
    });
    let shape = Shape { layers: LAYERS, kv_heads: heads, head_dim: dim, format: Format::F32 };
    let layer = |index| LayerCache { source: index, window: None, rope: index };
    let layout = Arc::new(Layout::new((0..LAYERS).map(layer).collect()));
    let pool = Pool::unlimited();
    let method = Method::parse(&method).expect("is one");
    let mut sequence = Sequence::with_layout(shape, layout, &pool, method, false).expect("fits");
    let mut seen: Vec<Seen> = (0..LAYERS).map(|_| Seen::default()).collect();
    let (mut first, mut phase, mut gone) = (0, 0, 0);
    for (n, pieces) in &case.messages {
        let held: Vec<Vec<Vec<u32>>> = held(&sequence);
        let (placing, offsets, advance) = placing(case, *n);
        let phases: Vec<Phase> = offsets.iter().map(|axes| axes.map(|axis| phase + axis)).collect();
        let span = [Span { modality: Modality::Text, start: 0, len: *n }];
        let began = match pieces {
            1 => sequence.begin_prompt(&span, &placing),
            _ => sequence.begin_cut_prompt(&span, &placing),
        };
        began.expect("begins");
        if *pieces == 1 {
            layers(&mut sequence, case, &mut seen, &phases, first..first + n);
        } else {
            let size = n.div_ceil(*pieces);
            for start in (0..*n).step_by(size) {
                let piece = size.min(n - start);
                sequence.begin_piece(piece).expect("begins");
                let positions = first + start..first + start + piece;
                layers(&mut sequence, case, &mut seen, &phases[start..start + piece], positions);
                sequence.finish_piece().expect("ends");
            }
        }
        sequence.finish_prompt().expect("ends");
        for (layer, (before, after)) in held.iter().zip(self::held(&sequence)).enumerate() {
            for (head, (before, after)) in before.iter().zip(after).enumerate() {
                let mut entries = before.clone();
                entries.extend(first as u32..(first + n) as u32);
                let scores = seen[layer].scores(case, head, &entries, first, &ropes(dim)[layer].1);
                let ranked = entries.iter().zip(&scores).filter(|(entry, _)| **entry as usize >= sinks);
                let (kept, dropped): (Vec<_>, Vec<_>) = ranked.partition(|(entry, _)| after.contains(entry));
                assert!(entries.iter().filter(|entry| (**entry as usize) < sinks).all(|entry| after.contains(entry)));
                let least = kept.iter().map(|(_, score)| **score).fold(f64::INFINITY, f64::min);
                let most = dropped.iter().map(|(_, score)| **score).fold(0.0, f64::max);
                assert!(
                    least >= most * (1.0 - CLOSE),
                    "{case:?}, layer {layer}, head {head}: {least} stays, {most} goes"
                );
                gone += dropped.len();
            }
        }
        (first, phase) = (first + n, phase + advance);
    }
    drop(sequence);
    assert_eq!(pool.used(), 0);
    gone
}

/// Per layer and head the positions, in order.
fn held(sequence: &Sequence) -> Vec<Vec<Vec<u32>>> {
    let of = |layer: usize| -> Vec<Vec<u32>> {
        let positions =
            |lane: &_| prefixkv_core::cache::Lane::sorted(lane).iter().map(|entry| entry.position).collect();
        sequence.lanes(layer).iter().map(positions).collect()
    };
    (0..LAYERS).map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_the_formula_ranks_first_stays(case in cases()) {
        check(&case);
    }
}

/// Of the first four positions no query counts: then all keys are alike, and values decide.
/// The defaults, without a message.
fn usual(heads: usize, group: usize, dim: usize) -> Case {
    Case {
        heads,
        group,
        dim,
        messages: Vec::new(),
        placed: false,
        keep: 0.5,
        sinks: 4,
        ahead: 512,
        covariance: true,
        values: true,
        epsilon: 0.0,
        seed: 3,
    }
}

#[test]
fn a_prompt_of_sinks_and_one_more() {
    let case = Case { messages: vec![(60, 1), (1, 1)], ..usual(2, 2, 8) };
    assert!(check(&case) > 100);
}

/// The sums that a prompt in pieces has gathered are counted, to the byte, and given back when it stops.
#[test]
fn distributions_and_rotations_count() {
    let (heads, group, dim) = (2, 3, 8);
    let read = |method: serde_json::Value, pieces: usize| {
        let case = usual(heads, group, dim);
        let shape = Shape { layers: LAYERS, kv_heads: heads, head_dim: dim, format: Format::F32 };
        let layer = |index| LayerCache { source: index, window: None, rope: index };
        let layout = Arc::new(Layout::new((0..LAYERS).map(layer).collect()));
        let pool = Pool::unlimited();
        let method = Method::parse(&method).expect("is one");
        let mut sequence = Sequence::with_layout(shape, layout, &pool, method, false).expect("fits");
        let mut seen: Vec<Seen> = (0..LAYERS).map(|_| Seen::default()).collect();
        let span = [Span { modality: Modality::Text, start: 0, len: 90 }];
        sequence.begin_cut_prompt(&span, &Placing::InOrder).expect("begins");
        for piece in 0..pieces {
            sequence.begin_piece(30).expect("begins");
            let positions = 30 * piece..30 * (piece + 1);
            let phases: Vec<Phase> = positions.clone().map(|position| [position as u32; 3]).collect();
            layers(&mut sequence, &case, &mut seen, &phases, positions);
            sequence.finish_piece().expect("ends");
        }
        let used = pool.used();
        drop(sequence);
        assert_eq!(pool.used(), 0);
        used
    };
    let expected = |covariance: bool, pieces: usize| {
        read(json!({ "method": "expectedAttention", "keep": 0.5, "covariance": covariance }), pieces)
    };
    let numbers = |covariance: bool| {
        let distributions = LAYERS * heads * group * dim * if covariance { dim + 1 } else { 1 };
        // Of 30 rows, and of the positions to come.
        (distributions + LAYERS * 31 * dim) * size_of::<f32>()
    };
    for pieces in 1..3 {
        let entries = expected(true, pieces) - numbers(true) as u64;
        assert_eq!(expected(false, pieces) - numbers(false) as u64, entries, "{pieces}");
        assert_eq!(entries, expected_without(heads, dim, pieces), "{pieces}");
    }
}

/// Bytes of a prompt in pieces of a method that asks for nothing.
fn expected_without(heads: usize, dim: usize, pieces: usize) -> u64 {
    let shape = Shape { layers: LAYERS, kv_heads: heads, head_dim: dim, format: Format::F32 };
    let pool = Pool::unlimited();
    let method = Method::parse(&json!({ "method": "knorm", "keep": 0.5 })).expect("is one");
    let mut sequence = Sequence::with_method(shape, &pool, method, false).expect("fits");
    let span = [Span { modality: Modality::Text, start: 0, len: 90 }];
    sequence.begin_cut_prompt(&span, &Placing::InOrder).expect("begins");
    for _ in 0..pieces {
        sequence.begin_piece(30).expect("begins");
        let rows = vec![0.0; 30 * heads * dim];
        for layer in 0..LAYERS {
            let rows = Rows::dense(&rows, heads * dim);
            sequence.store(layer, rows, rows, None).expect("stores");
            sequence.attended(layer, &[]).expect("goes on");
        }
        sequence.finish_piece().expect("ends");
    }
    pool.used()
}
