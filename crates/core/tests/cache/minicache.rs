//! Entries of two layers that are stored once (MiniCache): rows, bytes, what each layer may do to its own, forks, and numbers of numpy's and
//! transformers' (tests/golden/minicache.py).

use std::collections::HashSet;
use std::path::Path;

use prefixkv_core::Error;
use prefixkv_core::cache::{Entry, Format, Modality, Pool, Shape, Span};
use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::{Placing, Sequence};
use prefixkv_kernels::attention::Rows;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::attention::noise;
use crate::pairs::{Merged, Whole, attend, feed, is_fresh, merged, pair_of, sequence};

const LAYERS: usize = 5;
const HEADS: usize = 2;

/// The row that two layers share, the long way: the arc between their directions, and the size of the layer's own.
fn shared(rows: [&[f32]; 2], side: usize, t: f64) -> Vec<f64> {
    let size = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let units = rows.map(|row| row.iter().map(|x| f64::from(*x) / size(row)).collect::<Vec<_>>());
    let angle = units[0].iter().zip(&units[1]).map(|(a, b)| a * b).sum::<f64>().acos();
    let arc = |(a, b): (&f64, &f64)| ((1.0 - t) * angle).sin() / angle.sin() * a + (t * angle).sin() / angle.sin() * b;
    units[0].iter().zip(&units[1]).map(arc).map(|x| x * size(rows[side])).collect()
}

/// Every row is the shared one times the layer's size, or whole; gives how many are shared.
fn check_rows(sequence: &Sequence, whole: &Whole, merged: &Merged, t: f64, off: f64) -> usize {
    let (shape, mut found) = (sequence.shape(), 0);
    for layer in 0..shape.layers {
        for (index, lane) in sequence.lanes(layer).iter().enumerate() {
            let held = lane.sorted();
            let read = [lane.keys(&held).expect("keys"), lane.values(&held).expect("values")];
            for (row, entry) in held.iter().enumerate() {
                let pair = pair_of(layer, merged, index, entry.position);
                found += usize::from(pair.is_some());
                for head in lane.heads() {
                    for (side, read) in read.iter().enumerate() {
                        let at = (row * lane.heads().len() + head - lane.heads().start) * shape.head_dim;
                        let got = &read[at..at + shape.head_dim];
                        let of = |layer: usize| &whole[&(layer, head, entry.position)][side][..];
                        let want = match pair {
                            Some((pair, which)) => shared(pair.map(of), which, t),
                            None => of(layer).iter().map(|x| f64::from(*x)).collect(),
                        };
                        let size = want.iter().map(|x| x * x).sum::<f64>().sqrt();
                        let error = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
                        assert!(error <= off * size, "layer {layer} head {head} {entry:?}: {error} of {size}");
                    }
                }
            }
        }
    }
    found
}

/// Bytes as the plans and what is kept say them: a merged entry counts once while one of its two layers has it, its sizes in either.
fn check_bytes(sequence: &Sequence, merged: &Merged, row: usize, whole_row: usize) {
    let shape = sequence.shape();
    let (mut once, mut sizes, mut alone) = (Merged::new(), 0, 0);
    let mut lanes = 1;
    for layer in 0..shape.layers {
        lanes = sequence.lanes(layer).len();
        for (index, lane) in sequence.lanes(layer).iter().enumerate() {
            for position in lane.positions() {
                match pair_of(layer, merged, index, position) {
                    Some((pair, _)) => {
                        once.insert((pair, index, position));
                        sizes += 1;
                    }
                    None => alone += lane.heads().len() * if is_fresh(lane, position) { whole_row } else { row },
                }
            }
        }
    }
    let heads = shape.kv_heads / lanes;
    let want = once.len() * heads * row + sizes * heads * 8 + alone;
    let memory = sequence.memory();
    assert_eq!(memory.payload + memory.scales, want as u64, "{memory:?}");
    let told = memory.payload + memory.scales + memory.metadata + memory.dead;
    let slack = 16 * 2 * shape.kv_heads * whole_row * shape.layers;
    assert!(memory.resident >= told && memory.resident - told <= slack as u64, "{told} of {memory:?}");
}

#[test]
fn rows_of_two_layers_are_stored_once_and_read_in_their_sizes() {
    let none = json!({ "method": "full" });
    let methods = [
        none,
        json!({ "method": "h2o", "keep": 0.6 }),
        json!({ "method": "prefixkv", "keep": 0.5, "decode": "lowest-score" }),
        json!({ "method": "knorm", "keep": { "tokens": 90 } }),
        json!({ "method": "streaming", "keep": { "tokens": 100 } }),
    ];
    for chooses in &methods {
        for format in [Format::F32, Format::F16] {
            for (dim, bits, off) in [(32, "whole", 2e-3), (40, "8", 1e-2), (32, "4", 0.25), (64, "2", 0.7)] {
                let (pool, shape) =
                    (Pool::unlimited(), Shape { layers: LAYERS, kv_heads: HEADS, head_dim: dim, format });
                let store = json!({ "method": "minicache", "window": 12, "bits": bits, "from": 0.2, "retain": 0.1 });
                let cache = json!([chooses, store]);
                let off = if bits == "whole" && format == Format::F32 { 3e-6 } else { off };
                let whole_row = 2 * dim * format.bytes();
                let row = match bits {
                    "whole" => whole_row,
                    // A scale and a zero for every eight, the most below 32 that cut 40.
                    "8" => 2 * (dim + dim / 8 * 4),
                    _ => 2 * (dim * bits.parse::<usize>().expect("bits") / 8 + 2),
                };
                let (mut small, mut whole) = (sequence(shape, &pool, &cache), Whole::new());
                small.keep_plans();
                let mut pairs = Merged::new();
                for n in [150, 1, 40, 1] {
                    // A turn of a chat, or generated tokens.
                    for step in 0..if n == 1 { 50 } else { 1 } {
                        feed(&mut small, n, &mut whole);
                        let plans = small.take_plans();
                        small.keep_plans();
                        pairs.extend(merged(plans));
                        if step % 7 == 0 {
                            let found = check_rows(&small, &whole, &pairs, 0.6, off);
                            assert!(found > 0, "{cache} merges");
                            check_bytes(&small, &pairs, row, whole_row);
                            attend(&small);
                        }
                    }
                }
                assert_eq!(small.memory().resident, pool.used(), "{cache}");
                drop(small);
                assert_eq!(pool.used(), 0, "{cache}");
            }
        }
    }
}

/// Half of the layers in half of the bytes, but for what stays whole: within a fiftieth of it at 2,048 positions.
#[test]
fn two_thousand_positions_take_what_the_shares_say() {
    let shape = Shape { layers: 4, kv_heads: 8, head_dim: 128, format: Format::F16 };
    let n = 2048.0;
    for (bits, number) in [("whole", 16.0), ("4", 4.125)] {
        let pool = Pool::unlimited();
        let mut small = sequence(shape, &pool, &json!({ "method": "minicache", "bits": bits }));
        feed(&mut small, n as usize, &mut Whole::new());
        let settled = n - 32.0;
        let retained = (settled * 0.05f64).round();
        // Bytes of an entry for every bit of a number, and of the sizes of a row.
        let (row, sizes) = ((8 * 2 * 128 / 8) as f64, (8 * 2 * 4) as f64);
        // The two layers before, and the two that are merged.
        let before = 2.0 * (settled * row * number + 32.0 * row * 16.0);
        let pair =
            2.0 * (32.0 * row * 16.0 + retained * row * number) + (settled - retained) * (row * number + 2.0 * sizes);
        let resident = pool.used() as f64;
        assert!((1.0..1.02).contains(&(resident / (before + pair))), "{bits}: {resident} of {}", before + pair);
    }
}

/// A lane that lets go of an entry, or changes it, leaves the other as it is; bytes go back when neither has it.
#[test]
fn a_layer_frees_and_changes_its_own() {
    let shape = Shape { layers: 2, kv_heads: HEADS, head_dim: 32, format: Format::F32 };
    for bits in ["whole", "4"] {
        let pool = Pool::unlimited();
        let cache = json!({ "method": "minicache", "window": 0, "retain": 0, "from": 0, "bits": bits });
        let mut pair = sequence(shape, &pool, &cache);
        feed(&mut pair, 200, &mut Whole::new());
        let fork = pair.fork().expect("between two prompts");
        let read = |sequence: &Sequence, layer: usize, from: u32| {
            let lane = &sequence.lanes(layer)[0];
            let held: Vec<Entry> = lane.sorted().into_iter().filter(|entry| entry.position >= from).collect();
            (lane.keys(&held).expect("keys"), lane.values(&held).expect("values"))
        };
        let before = [read(&pair, 0, 0), read(&pair, 1, 64)];
        let (start, row) = (pair.memory(), (pair.memory().payload + pair.memory().scales - 8 * 2 * 200 * 2) / 200);
        for position in 0..64u32 {
            let lane = &mut pair.lanes_mut(1)[0];
            let place = lane.sorted().iter().find(|entry| entry.position == position).expect("there").place;
            lane.delete(place).expect("deletes");
            assert_eq!(
                pair.memory().payload + pair.memory().scales + 16 * u64::from(position + 1),
                start.payload + start.scales
            );
        }
        assert_eq!((read(&pair, 0, 0), read(&pair, 1, 64)), (before[0].clone(), before[1].clone()), "{bits}");
        assert_eq!(pair.lanes(1)[0].len(), 136);
        // Now the other layer: entries that neither has are dead until all of their block are.
        let lane = &mut pair.lanes_mut(0)[0];
        let left: Vec<u32> =
            lane.sorted().iter().filter(|entry| entry.position >= 60).map(|entry| entry.place).collect();
        lane.retain(&left).expect("retains");
        assert_eq!(pair.memory().dead, 60 * (row + 16), "{bits}: {:?}", pair.memory());
        let resident = pair.memory().resident;
        for _ in 60..64 {
            let lane = &mut pair.lanes_mut(0)[0];
            let place = lane.sorted()[0].place;
            lane.delete(place).expect("deletes");
        }
        assert_eq!(pair.memory().dead, 0);
        assert!(pair.memory().resident + 64 * row <= resident, "{bits}");
        // The fork has them all.
        assert_eq!((read(&fork, 0, 0), read(&fork, 1, 64)), (before[0].clone(), before[1].clone()), "{bits}");
        assert_eq!(pool.used(), pair.memory().resident + fork.memory().resident - pair.memory().shared, "{bits}");
        assert_eq!(pair.memory().shared, pair.lanes(0)[0].shared_bytes() + pair.lanes(1)[0].shared_bytes());
        // Entries that change get rows of their own.
        let (keys, values) = (vec![0.5; 2 * HEADS * 32], vec![0.25; 2 * HEADS * 32]);
        let changed = pair.lanes(0)[0].sorted()[3..5].to_vec();
        pair.lanes_mut(0)[0].overwrite(&changed, &keys, &values).expect("overwrites");
        let off = if bits == "whole" { 1e-6 } else { 0.2 };
        let got = pair.lanes(0)[0].keys(&changed).expect("keys");
        assert!(got.iter().all(|x| (x - 0.5).abs() <= off), "{got:?}");
        assert_eq!(read(&pair, 1, 64), before[1], "{bits}");
        assert_eq!(read(&fork, 0, 0), before[0], "{bits}");
        attend(&pair);
        drop(pair);
        assert_eq!(pool.used(), fork.memory().resident);
        drop(fork);
        assert_eq!(pool.used(), 0);
    }
}

/// Layers keep other entries, or none: those that both have are merged.
#[test]
fn only_entries_of_both_layers_are_merged() {
    let shape = Shape { layers: 4, kv_heads: HEADS, head_dim: 32, format: Format::F32 };
    let store = json!({ "method": "minicache", "window": 4, "from": 0 });
    for chooses in [
        json!({ "method": "random", "keep": 0.5 }),
        json!({ "method": "pyramidkv", "keep": 0.4 }),
        json!({ "method": "kvsharer", "sources": { "2": 1 } }),
    ] {
        let pool = Pool::unlimited();
        let cache = json!([chooses, store]);
        let (mut small, mut whole) = (sequence(shape, &pool, &cache), Whole::new());
        small.keep_plans();
        feed(&mut small, 160, &mut whole);
        let pairs = merged(small.take_plans());
        let of: HashSet<[usize; 2]> = pairs.iter().map(|(pair, ..)| *pair).collect();
        // A layer that reads another's is left out.
        let want = if chooses["method"] == "kvsharer" { vec![[0, 1]] } else { vec![[0, 1], [2, 3]] };
        assert_eq!(of, want.into_iter().collect(), "{cache}");
        for (pair, lane, position) in &pairs {
            for layer in pair {
                assert!(small.lanes(*layer)[*lane].positions().contains(position), "{cache}: {position}");
            }
        }
        attend(&small);
    }
}

#[derive(Deserialize)]
struct Golden {
    rows: GoldenRows,
    logits: GoldenLogits,
}

#[derive(Deserialize)]
struct GoldenRows {
    heads: usize,
    dim: usize,
    positions: usize,
    stride: usize,
    cases: Vec<RowCase>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RowCase {
    t: f64,
    retain: f64,
    window: usize,
    retained: Vec<u32>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    keys_gains: [Vec<f32>; 2],
    values_gains: [Vec<f32>; 2],
}

#[derive(Deserialize)]
struct GoldenLogits {
    tokens: Vec<u32>,
    behind: Vec<u32>,
    stride: usize,
    cases: Vec<LogitCase>,
}

#[derive(Deserialize)]
struct LogitCase {
    cache: Value,
    retained: Vec<Retained>,
    logits: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Retained {
    layer: usize,
    positions: Vec<u32>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/minicache.json");
    serde_json::from_slice(&std::fs::read(path).expect("the golden")).expect("is JSON")
}

/// Rows of two layers, of which some are parallel, opposite or nothing, as the golden makes them.
fn made_up(seed: usize, of: &GoldenRows) -> [Vec<f32>; 2] {
    let n = of.positions * of.heads * of.dim;
    let mut first = noise(seed, n);
    let own = noise(seed + 20, n);
    let mut second: Vec<f32> =
        first.iter().zip(own).map(|(x, own)| (1.5 * f64::from(*x) + f64::from(own)) as f32).collect();
    let width = of.heads * of.dim;
    for at in 4 * width..5 * width {
        second[at] = 2.0 * first[at];
    }
    for at in 5 * width..5 * width + of.dim {
        second[at] = -first[at];
    }
    first[6 * width..7 * width].fill(0.0);
    [first, second]
}

#[test]
fn directions_and_sizes_are_those_of_numpy() {
    let Golden { rows, .. } = golden();
    let (width, shape) =
        (rows.heads * rows.dim, Shape { layers: 2, kv_heads: rows.heads, head_dim: rows.dim, format: Format::F32 });
    assert_eq!(rows.cases.len(), 3);
    for case in &rows.cases {
        let cache =
            json!({ "method": "minicache", "t": case.t, "retain": case.retain, "window": case.window, "from": 0 });
        let mut pair = sequence(shape, &Pool::unlimited(), &cache);
        let spans = [Span { modality: Modality::Text, start: 0, len: rows.positions }];
        pair.begin_prompt(&spans, &Placing::InOrder).expect("begins");
        let (keys, values) = (made_up(1, &rows), made_up(3, &rows));
        for (layer, (keys, values)) in keys.iter().zip(&values).enumerate() {
            pair.store(layer, Rows::dense(keys, width), Rows::dense(values, width), None).expect("stores");
            pair.attended(layer, &[]).expect("merges");
        }
        pair.finish_prompt().expect("ends");
        for layer in 0..2 {
            let lane = &pair.lanes(layer)[0];
            let (view, positions) = (lane.view(None), lane.positions_in_order());
            let mut seen = 0;
            for run in view.runs.iter().filter(|run| run.gains.is_some()) {
                let gains = run.gains.expect("sizes");
                for slot in 0..run.len {
                    assert_eq!(positions[seen + slot] as usize, position_of(seen + slot, case), "{cache}");
                    for head in 0..rows.heads {
                        let (at, mut row) = (seen + slot, vec![0.0; rows.dim]);
                        let check = |got: f32, want: f32| {
                            assert!((got - want).abs() < 1e-5, "{cache}: {got} for {want} at {at}");
                        };
                        let of = head * run.capacity + slot;
                        check(gains.keys[of], case.keys_gains[layer][at * rows.heads + head]);
                        check(gains.values[of], case.values_gains[layer][at * rows.heads + head]);
                        for (side, want) in [&case.keys, &case.values].into_iter().enumerate() {
                            let unit = run.scaled(None);
                            match side {
                                0 => unit.read_keys(head, slot, rows.dim, &mut row),
                                _ => unit.read_values(head, slot, rows.dim, &mut row),
                            }
                            let shown = (0..width).step_by(rows.stride).zip(&want[at]);
                            let own = shown.filter(|(channel, _)| channel / rows.dim == head);
                            own.for_each(|(channel, want)| check(row[channel % rows.dim], *want));
                        }
                    }
                }
                seen += run.len;
            }
            assert_eq!(seen, rows.positions - case.window - case.retained.len(), "{cache}");
        }
    }
}

/// The position of the `index`-th entry that is merged.
fn position_of(index: usize, case: &RowCase) -> usize {
    (0..).filter(|at| !case.retained.contains(at)).nth(index).expect("a position") as usize
}

fn model() -> Model {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Model::load(&LoadOptions::new(root.join("models/tiny-llava")), &mut |_| Ok(())).expect("loads")
}

#[test]
fn logits_are_those_of_transformers_with_merged_entries() {
    let (model, Golden { logits: golden, .. }) = (model(), golden());
    let prompt = model.expand(&golden.tokens, 0).expect("text");
    assert_eq!(golden.cases.len(), 2);
    for LogitCase { cache, retained, logits } in &golden.cases {
        let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
        let mut small = model.new_sequence_with(method, true).expect("a sequence");
        small.keep_plans();
        model.prefill(&prompt, &[], &mut small, &|| Ok(())).expect("reads");
        let pairs = merged(small.take_plans());
        let settled = golden.tokens.len() as u32 - cache["window"].as_u64().expect("a window") as u32;
        for Retained { layer, positions } in retained {
            let whole = (0..settled).filter(|at| !pairs.contains(&([*layer, layer + 1], 0, *at)));
            assert_eq!(whole.collect::<Vec<_>>(), *positions, "{cache}: layers {layer} and behind");
        }
        for (token, want) in golden.behind.iter().zip(logits) {
            let got = model.decode(*token, &mut small).expect("goes on");
            for (got, want) in got.iter().step_by(golden.stride).zip(want) {
                assert!((got - want).abs() < 5e-4, "{cache}: {got} for {want}");
            }
        }
    }
}

/// Pieces of a prompt merge as the whole, and forks go on alike, and as if they were alone.
#[test]
fn chats_pieces_and_forks_go_on_alike() {
    let model = model();
    let read = |sequence: &mut Sequence, n: u32, piece: usize| {
        let tokens: Vec<u32> = (0..n).map(|i| 40 + i * 7 % 90).collect();
        let prompt = model.expand(&tokens, 0).expect("text");
        let mut prefill = model.begin_prefill(&prompt, &[], sequence, piece).expect("begins");
        let mut logits = loop {
            if let Some(logits) = model.prefill_piece(&mut prefill, sequence, &|| Ok(())).expect("reads") {
                break logits;
            }
        };
        for _ in 0..40 {
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
            logits = model.decode(best as u32, sequence).expect("goes on");
        }
        logits
    };
    for bits in ["whole", "8", "4"] {
        for first in [json!({ "method": "full" }), json!({ "method": "h2o", "keep": 0.6 })] {
            let cache = json!([first, { "method": "minicache", "window": 8, "bits": bits }]);
            let new = || {
                let method = Method::parse(&cache).expect("sound");
                model.new_sequence_with(method, true).expect("a sequence")
            };
            let mut chat = new();
            let whole = read(&mut chat, 90, 1000);
            for piece in [7, 64] {
                let mut cut = new();
                for (got, want) in read(&mut cut, 90, piece).iter().zip(&whole) {
                    assert!((got - want).abs() < 1e-2, "{cache}: pieces of {piece}: {got} for {want}");
                }
            }
            let mut fork = chat.fork().expect("between two prompts");
            let (one, other) = (read(&mut chat, 60, 1000), read(&mut fork, 60, 1000));
            assert_eq!(one, other, "{cache}");
            let mut alone = new();
            read(&mut alone, 90, 1000);
            assert_eq!(read(&mut alone, 60, 1000), one, "{cache}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refuse = |cache: Value| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => reason,
        other => panic!("{cache}: {other:?}"),
    };
    let bytes = json!({ "method": "h2o", "keep": { "bytes": 100_000 } });
    assert!(refuse(json!([bytes, { "method": "minicache" }])).contains("both layers"));
    let ranks = json!({ "method": "streaming", "keep": 0.5, "positions": "cache" });
    assert!(refuse(json!([ranks, { "method": "minicache", "bits": "4" }])).contains("rotated already"));
    assert!(Method::parse(&json!([ranks, { "method": "minicache", "bits": "8" }])).is_ok());
    assert!(refuse(json!({ "method": "minicache", "t": 1.5 })).contains("`t`"));
    assert!(refuse(json!({ "method": "minicache", "bits": "3" })).contains("bits"));
    let shape = Shape { layers: 2, kv_heads: 1, head_dim: 12, format: Format::F32 };
    for bits in ["8", "4"] {
        let method = Method::parse(&json!({ "method": "minicache", "bits": bits })).expect("sound");
        let refused: Result<Sequence, _> = Sequence::with_method(shape, &Pool::unlimited(), method, false);
        assert!(refused.expect_err("heads of 12").to_string().contains("multiple of 8"));
    }
}
