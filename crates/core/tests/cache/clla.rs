//! Latents of two layers (CLLA): rows, bytes, what each layer may do to its own, forks, and numbers of numpy's and transformers'
//! (tests/golden/clla.py).

use std::collections::HashSet;
use std::path::Path;

use prefixkv_core::Error;
use prefixkv_core::cache::{Entry, Format, Pool, Shape};
use prefixkv_core::method::{METHODS, Method};
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::Sequence;
use prefixkv_kernels::codec::Basis;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::calibrated;
use crate::pairs::{Merged, Whole, attend, feed, is_fresh, merged, pair_of, sequence};

const HEADS: usize = 2;
const WINDOW: usize = 12;

fn latents(layers: usize, kv_heads: usize, head_dim: usize) -> Value {
    let spec = METHODS.iter().find(|spec| spec.name == "clla").expect("a method");
    calibrated::calibration(spec, layers, kv_heads, head_dim).expect("it needs one")
}

/// Those latents of all heads together: directions of the channels of the first head, then of the second.
fn joint(layers: usize, kv_heads: usize, head_dim: usize) -> Value {
    let mut file = latents(layers, 1, kv_heads * head_dim);
    file["heads"] = json!("joint");
    file["model"] = json!({ "layers": layers, "kvHeads": kv_heads, "headDim": head_dim });
    file
}

fn store(calibration: &Value, latent: f64, bits: &str) -> Value {
    json!({ "method": "clla", "calibration": calibration, "latent": latent, "bits": bits, "window": WINDOW })
}

/// Unit vectors at right angles that span what the first `width` rows of [`latents`] span, for parts of `part` numbers, the long way.
fn directions(part: usize, width: usize) -> Vec<Vec<f64>> {
    let n = 4 * part;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for i in 0..width {
        let code = |j: usize| f64::from(calibrated::reflected((i % 4 * part + i / 4) * n + j, n));
        let mut row: Vec<f64> = (0..n).map(code).collect();
        for _ in 0..2 {
            for other in &rows {
                let along = dot(&row, other);
                row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let size = dot(&row, &row).sqrt();
        rows.push(row.iter().map(|x| x / size).collect());
    }
    rows
}

/// The rows that the latent of two layers gives back, the long way: `rows` are keys and values of the lower layer, then of the upper
/// one.
fn projected(rows: [Vec<f64>; 4], layer: usize, directions: &[Vec<f64>]) -> [Vec<f64>; 4] {
    let layer = layer as f64;
    let sizes = [1.0 + layer, 0.5 + layer, 2.0 + layer, 1.5 + layer];
    let part = rows[0].len();
    let x: Vec<f64> = rows.iter().zip(sizes).flat_map(|(row, size)| row.iter().map(move |x| x / size)).collect();
    let mut back = vec![0.0; 4 * part];
    for direction in directions {
        let along: f64 = direction.iter().zip(&x).map(|(a, b)| a * b).sum();
        back.iter_mut().zip(direction).for_each(|(back, a)| *back += along * a);
    }
    std::array::from_fn(|index| back[index * part..(index + 1) * part].iter().map(|x| x * sizes[index]).collect())
}

/// Every row is what the latent of its pair gives back, or whole; gives how many are of a latent.
fn check_rows(
    sequence: &Sequence,
    whole: &Whole,
    joined: &Merged,
    directions: &[Vec<f64>],
    together: bool,
    off: f64,
) -> usize {
    let (shape, mut found) = (sequence.shape(), 0);
    let dim = shape.head_dim;
    for layer in 0..shape.layers {
        for (index, lane) in sequence.lanes(layer).iter().enumerate() {
            let held = lane.sorted();
            let read = [lane.keys(&held).expect("keys"), lane.values(&held).expect("values")];
            let heads: Vec<usize> = lane.heads().collect();
            let blocks: Vec<&[usize]> = if together { vec![&heads[..]] } else { heads.chunks(1).collect() };
            for (row, entry) in held.iter().enumerate() {
                let pair = pair_of(layer, joined, index, entry.position);
                found += usize::from(pair.is_some());
                for (block, heads) in blocks.iter().enumerate() {
                    let of = |layer: usize, side: usize| -> Vec<f64> {
                        let rows = heads.iter().flat_map(|head| &whole[&(layer, *head, entry.position)][side]);
                        rows.map(|x| f64::from(*x)).collect()
                    };
                    let want: [Vec<f64>; 2] = match pair {
                        None => [of(layer, 0), of(layer, 1)],
                        Some(([a, b], which)) => {
                            let [k, v, l, w] = projected([of(a, 0), of(a, 1), of(b, 0), of(b, 1)], a, directions);
                            if which == 0 { [k, v] } else { [l, w] }
                        }
                    };
                    for (side, read) in read.iter().enumerate() {
                        let at = (row * lane.heads().len() + block * heads.len()) * dim;
                        let got = &read[at..at + heads.len() * dim];
                        let size = of(layer, side).iter().map(|x| x * x).sum::<f64>().sqrt();
                        let squares = got.iter().zip(&want[side]).map(|(a, b)| (f64::from(*a) - b).powi(2));
                        let error = squares.sum::<f64>().sqrt();
                        assert!(error <= off * size, "layer {layer} {entry:?} side {side}: {error} of {size}");
                    }
                }
            }
        }
    }
    found
}

/// Bytes as the plans and what is kept say them: a latent counts once while one of its two layers has it.
fn check_bytes(sequence: &Sequence, joined: &Merged, latent: usize, row: usize, whole_row: usize) {
    let shape = sequence.shape();
    let (mut once, mut alone) = (Merged::new(), 0);
    for layer in 0..shape.layers {
        for (index, lane) in sequence.lanes(layer).iter().enumerate() {
            for position in lane.positions() {
                match pair_of(layer, joined, index, position) {
                    Some((pair, _)) => _ = once.insert((pair, index, position)),
                    None => alone += lane.heads().len() * if is_fresh(lane, position) { whole_row } else { row },
                }
            }
        }
    }
    let heads = shape.kv_heads / sequence.lanes(0).len();
    let memory = sequence.memory();
    assert_eq!(memory.payload + memory.scales, (once.len() * heads * latent + alone) as u64, "{memory:?}");
    let told = memory.payload + memory.scales + memory.metadata + memory.dead;
    let slack = 16 * 2 * shape.kv_heads * whole_row * shape.layers;
    assert!(memory.resident >= told && memory.resident - told <= slack as u64, "{told} of {memory:?}");
}

/// Over sizes of heads, odd numbers of layers, methods before, formats and codes; chats, generated tokens, and prompts within the window.
#[test]
fn rows_of_two_layers_are_those_of_one_latent() {
    let methods = [
        json!({ "method": "full" }),
        json!({ "method": "h2o", "keep": 0.6 }),
        json!({ "method": "prefixkv", "keep": 0.5, "decode": "lowest-score" }),
        json!({ "method": "knorm", "keep": { "tokens": 90 } }),
        json!({ "method": "streaming", "keep": { "tokens": 100 } }),
    ];
    for chooses in &methods {
        for (layers, dim, latent, bits, format) in [
            (5, 32, 0.25, "whole", Format::F32),
            (4, 40, 0.5, "whole", Format::F16),
            (2, 16, 1.0, "8", Format::F32),
            (3, 64, 0.25, "4", Format::F16),
        ] {
            let shape = Shape { layers, kv_heads: HEADS, head_dim: dim, format };
            let width = ((latent * 4.0 * dim as f64) as usize).next_multiple_of(32);
            let (file, along) = (latents(layers, HEADS, dim), directions(dim, width));
            let whole_row = 2 * dim * format.bytes();
            let coded = |n: usize, bits: usize| n * bits / 8 + n.div_ceil(32) * 4;
            let (of_latent, row, off) = match (bits, format) {
                ("whole", Format::F32) => (width * 4, whole_row, 1e-5),
                ("whole", _) => (width * 2, whole_row, 2e-3),
                ("8", _) => (coded(width, 8), 2 * (dim + dim.div_ceil(32) * 4), 2e-2),
                _ => (coded(width, 4), 2 * coded(dim, 4), 0.3),
            };
            let pool = Pool::unlimited();
            let cache = json!([chooses, store(&file, latent, bits)]);
            let (mut small, mut whole, mut joined) = (sequence(shape, &pool, &cache), Whole::new(), Merged::new());
            // A prompt within the window first.
            for n in [9, 150, 1, 40, 1] {
                for step in 0..if n == 1 { 50 } else { 1 } {
                    small.keep_plans();
                    feed(&mut small, n, &mut whole);
                    joined.extend(merged(small.take_plans()));
                    if step % 7 == 0 {
                        let found = check_rows(&small, &whole, &joined, &along, false, off);
                        assert_eq!(found > 0, small.next_position() > 9, "{cache} joins");
                        check_bytes(&small, &joined, of_latent, row, whole_row);
                        attend(&small);
                    }
                }
            }
            let layers: HashSet<[usize; 2]> = joined.iter().map(|(pair, ..)| *pair).collect();
            assert_eq!(layers.len(), shape.layers / 2, "{cache}");
            assert_eq!(small.memory().resident, pool.used(), "{cache}");
            drop(small);
            assert_eq!(pool.used(), 0, "{cache}");
        }
    }
}

/// All heads together, behind methods that keep the same entries for all of them.
#[test]
fn a_latent_of_all_heads_gives_them_back() {
    for (format, bits, off) in [(Format::F32, "whole", 1e-5), (Format::F16, "8", 2e-2)] {
        let shape = Shape { layers: 4, kv_heads: HEADS, head_dim: 16, format };
        let file = joint(4, HEADS, 16);
        for chooses in [json!({ "method": "full" }), json!({ "method": "prefixkv", "keep": 0.5 })] {
            let cache = json!([chooses, store(&file, 0.5, bits)]);
            let pool = Pool::unlimited();
            let (mut small, mut whole) = (sequence(shape, &pool, &cache), Whole::new());
            small.keep_plans();
            feed(&mut small, 150, &mut whole);
            let joined = merged(small.take_plans());
            assert!(check_rows(&small, &whole, &joined, &directions(32, 64), true, off) > 0);
            attend(&small);
        }
    }
}

/// Within a fiftieth of what the shares say at 2,048 positions, the bases aside, and no more at the peak than two layers whole beside.
#[test]
fn two_thousand_positions_take_what_the_shares_say() {
    let shape = Shape { layers: 4, kv_heads: 8, head_dim: 128, format: Format::F16 };
    let (n, row) = (2048.0, (8 * 2 * 128) as f64);
    let file = latents(4, 8, 128);
    for (latent, bits, number) in [(0.5, "whole", 16.0), (0.25, "whole", 16.0), (0.25, "4", 5.0), (0.25, "8", 9.0)] {
        let pool = Pool::unlimited();
        let mut cache = store(&file, latent, bits);
        cache["window"] = json!(32);
        let mut small = sequence(shape, &pool, &cache);
        feed(&mut small, n as usize, &mut Whole::new());
        let of_pair = 2.0 * 32.0 * row * 2.0 + (n - 32.0) * 2.0 * row * latent * number / 8.0;
        let said = 2.0 * of_pair;
        let basis = |layer: usize| small.lanes(layer)[0].view(None).runs[0].basis.map_or(0, Basis::bytes);
        let beside: usize = (0..4).map(basis).sum();
        let resident = (pool.used() - beside as u64) as f64;
        assert!((1.0..1.02).contains(&(resident / said)), "{latent} in {bits}: {resident} of {said}");
        let bits_said = small.memory().effective_bits / 8.0 * 4.0 * n * row;
        assert!((bits_said / said - 1.0).abs() < 0.01, "{latent} in {bits}: {bits_said} of {said}");
        let most = pool.used() as f64 + 2.0 * n * row * 2.0 + of_pair;
        assert!((small.memory().peak as f64) < most, "{latent} in {bits}: {:?}", small.memory());
    }
}

/// A lane that lets go of an entry leaves the other as it is; bytes go back when neither has it. None of the two can change one.
#[test]
fn a_layer_frees_its_own_and_changes_none() {
    let shape = Shape { layers: 2, kv_heads: HEADS, head_dim: 32, format: Format::F32 };
    for bits in ["whole", "4"] {
        let pool = Pool::unlimited();
        let mut cache = store(&latents(2, HEADS, 32), 0.25, bits);
        cache["window"] = json!(0);
        let mut pair = sequence(shape, &pool, &cache);
        feed(&mut pair, 200, &mut Whole::new());
        let fork = pair.fork().expect("between two prompts");
        let read = |sequence: &Sequence, layer: usize, from: u32| {
            let lane = &sequence.lanes(layer)[0];
            let held: Vec<Entry> = lane.sorted().into_iter().filter(|entry| entry.position >= from).collect();
            (lane.keys(&held).expect("keys"), lane.values(&held).expect("values"))
        };
        let before = [read(&pair, 0, 0), read(&pair, 1, 64)];
        let start = pair.memory().payload + pair.memory().scales;
        let row = start / 200;
        assert_eq!(row, (HEADS * if bits == "4" { 20 } else { 128 }) as u64);
        for _ in 0..64 {
            let lane = &mut pair.lanes_mut(1)[0];
            lane.delete(lane.sorted()[0].place).expect("deletes");
        }
        assert_eq!(pair.memory().payload + pair.memory().scales, start, "the lower layer has them all");
        assert_eq!((read(&pair, 0, 0), read(&pair, 1, 64)), (before[0].clone(), before[1].clone()), "{bits}");
        let lane = &mut pair.lanes_mut(0)[0];
        let left: Vec<u32> =
            lane.sorted().iter().filter(|entry| entry.position >= 60).map(|entry| entry.place).collect();
        lane.retain(&left).expect("retains");
        assert_eq!(pair.memory().dead, 60 * row, "{bits}: {:?}", pair.memory());
        let resident = pair.memory().resident;
        for _ in 60..64 {
            let lane = &mut pair.lanes_mut(0)[0];
            lane.delete(lane.sorted()[0].place).expect("deletes");
        }
        assert_eq!(pair.memory().dead, 0);
        assert!(pair.memory().resident + 64 * row <= resident, "{bits}");
        // The fork has them all.
        assert_eq!((read(&fork, 0, 0), read(&fork, 1, 64)), (before[0].clone(), before[1].clone()), "{bits}");
        assert_eq!(pool.used(), pair.memory().resident + fork.memory().resident - pair.memory().shared, "{bits}");
        let changed = pair.lanes(0)[0].sorted()[3..5].to_vec();
        let numbers = vec![0.5; 2 * HEADS * 32];
        let refused = pair.lanes_mut(0)[0].overwrite(&changed, &numbers, &numbers).expect_err("of two layers");
        assert_eq!(refused.code(), "plan");
        assert_eq!(read(&pair, 1, 64), before[1], "{bits}");
        attend(&pair);
        drop(pair);
        assert_eq!(pool.used(), fork.memory().resident);
        drop(fork);
        assert_eq!(pool.used(), 0);
    }
}

/// A layer without a neighbour, since that reads another's entries, stays by itself.
#[test]
fn a_layer_whose_neighbour_reads_another_is_left_alone() {
    let shape = Shape { layers: 4, kv_heads: HEADS, head_dim: 32, format: Format::F32 };
    let cache = json!([{ "method": "kvsharer", "sources": { "2": 1 } }, store(&latents(4, HEADS, 32), 0.5, "4")]);
    let mut small = sequence(shape, &Pool::unlimited(), &cache);
    small.keep_plans();
    feed(&mut small, 160, &mut Whole::new());
    let pairs: HashSet<[usize; 2]> = merged(small.take_plans()).iter().map(|(pair, ..)| *pair).collect();
    assert_eq!(pairs, HashSet::from([[0, 1]]));
    let alone = &small.lanes(3)[0];
    assert_eq!((alone.len(), alone.unencoded()), (160, WINDOW));
}

fn model() -> Model {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Model::load(&LoadOptions::new(root.join("models/tiny-llava")), &mut |_| Ok(())).expect("loads")
}

fn of_model(model: &Model, cache: &Value) -> Sequence {
    let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
    model.new_sequence_with(method, true).unwrap_or_else(|e| panic!("{cache}: {e}"))
}

/// A text prompt of `n` tokens in pieces, and `steps` greedy ones.
fn run(model: &Model, sequence: &mut Sequence, n: u32, piece: usize, steps: usize) -> Vec<f32> {
    let tokens: Vec<u32> = (0..n).map(|i| 40 + i * 7 % 90).collect();
    let prompt = model.expand(&tokens, 0).expect("text");
    let mut prefill = model.begin_prefill(&prompt, &[], sequence, piece).expect("begins");
    let mut logits = loop {
        if let Some(logits) = model.prefill_piece(&mut prefill, sequence, &|| Ok(())).expect("reads") {
            break logits;
        }
    };
    for _ in 0..steps {
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
        logits = model.decode(best as u32, sequence).expect("goes on");
    }
    logits
}

/// Where every coordinate stays nothing is lost: keys are turned to their positions when they are read.
#[test]
fn with_all_coordinates_it_is_the_full_cache() {
    let model = model();
    let want = run(&model, &mut of_model(&model, &json!({ "method": "full" })), 100, 1000, 60);
    for (bits, near) in [("whole", 2e-3), ("8", 0.3)] {
        let cache = store(&latents(10, 6, 32), 1.0, bits);
        let got = run(&model, &mut of_model(&model, &cache), 100, 1000, 60);
        let off = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(off < near, "{bits} bits: {off}");
    }
}

#[test]
fn chats_pieces_and_forks_go_on_alike() {
    let model = model();
    for bits in ["whole", "4"] {
        for first in [json!({ "method": "full" }), json!({ "method": "h2o", "keep": 0.6 })] {
            let cache = json!([first, store(&latents(10, 6, 32), 0.5, bits)]);
            let mut chat = of_model(&model, &cache);
            let whole = run(&model, &mut chat, 90, 1000, 40);
            for piece in [7, 64] {
                let cut = run(&model, &mut of_model(&model, &cache), 90, piece, 40);
                for (got, want) in cut.iter().zip(&whole) {
                    assert!((got - want).abs() < 1e-2, "{cache}: pieces of {piece}: {got} for {want}");
                }
            }
            let mut fork = chat.fork().expect("between two prompts");
            let (one, other) = (run(&model, &mut chat, 60, 1000, 40), run(&model, &mut fork, 60, 1000, 40));
            assert_eq!(one, other, "{first} in {bits}");
            let mut alone = of_model(&model, &cache);
            run(&model, &mut alone, 90, 1000, 40);
            assert_eq!(run(&model, &mut alone, 60, 1000, 40), one, "{first} in {bits}");
        }
    }
}

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    behind: Vec<u32>,
    stride: usize,
    shown: Vec<u32>,
    layer: usize,
    apart: usize,
    files: Vec<Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    file: usize,
    cache: Value,
    width: u16,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    logits: Vec<Vec<f32>>,
}

/// Rows of a layer, and logits behind a prompt, against transformers with numpy's latents (tests/golden/clla.py).
#[test]
fn rows_and_logits_are_those_of_the_reference() {
    let model = model();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/clla.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).expect("the golden")).expect("is JSON");
    let prompt = model.expand(&golden.tokens, 0).expect("text");
    assert_eq!(golden.cases.len(), 4);
    for case in &golden.cases {
        let mut used = case.cache.clone();
        used["calibration"] = golden.files[case.file].clone();
        let mut stored = of_model(&model, &used);
        model.prefill(&prompt, &[], &mut stored, &|| Ok(())).expect("reads");
        let lane = &stored.lanes(golden.layer)[0];
        let based = lane.view(None).runs.iter().find_map(|run| run.codec.basis).expect("a latent");
        assert_eq!((based.keys.width, based.is_shared()), (case.width, true), "{}", case.cache);
        let held = lane.sorted();
        let shown: Vec<Entry> = golden.shown.iter().map(|at| held[*at as usize]).collect();
        let rows =
            [(lane.keys(&shown).expect("keys"), &case.keys), (lane.values(&shown).expect("values"), &case.values)];
        for (got, want) in rows {
            let got = got.chunks_exact(got.len() / shown.len());
            for (got, want) in got.zip(want).flat_map(|(got, want)| got.iter().step_by(golden.apart).zip(want)) {
                assert!((got - want).abs() < 1e-3, "{}: {got} for {want}", case.cache);
            }
        }
        for (token, want) in golden.behind.iter().zip(&case.logits) {
            let got = model.decode(*token, &mut stored).expect("goes on");
            for (got, want) in got.iter().step_by(golden.stride).zip(want) {
                assert!((got - want).abs() < 1e-3, "{}: {got} for {want}", case.cache);
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let file = latents(10, 6, 32);
    let refuse = |cache: Value| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => reason,
        other => panic!("{cache}: {other:?}"),
    };
    let with = |calibration: &Value| store(calibration, 0.5, "whole");
    assert!(refuse(json!({ "method": "clla" })).contains("calibrateClla"));
    let bytes = json!({ "method": "h2o", "keep": { "bytes": 100_000 } });
    assert!(refuse(json!([bytes, with(&file)])).contains("both layers"));
    let ranks = json!({ "method": "streaming", "keep": 0.5, "positions": "cache" });
    assert!(refuse(json!([ranks, with(&file)])).contains("positions"));
    let merging = json!([{ "method": "snapkv", "keep": 0.5 }, { "method": "merge" }, with(&file)]);
    assert!(refuse(merging).contains("leave merge out"));
    let merges = |merge: &str| json!([{ "method": "lookM", "keep": 0.5, "merge": merge }, with(&file)]);
    assert!(refuse(merges("pivot")).contains("`merge: \"none\"`"));
    assert!(Method::parse(&merges("none")).is_ok());
    let single = json!([{ "method": "vlCache", "keep": 0.5 }, with(&file)]);
    assert!(refuse(single).contains("before their rotary embedding"));
    let per_head = json!({ "method": "knorm", "keep": 0.5 });
    assert!(refuse(json!([per_head, with(&joint(10, 6, 32))])).contains("each"));
    assert!(refuse(store(&file, 0.0, "whole")).contains("above 0"));
    assert!(refuse(store(&file, 0.5, "2")).contains("bits"));
    // A file of the other kind, and one of another model or with too few directions.
    let cskv = METHODS.iter().find(|spec| spec.name == "cskv").expect("a method");
    let own = calibrated::calibration(cskv, 10, 6, 32).expect("it needs one");
    let kind = |cache: Value| Method::parse(&cache).map(|_| ()).expect_err("another kind");
    let error = kind(with(&own));
    assert!(error.code() == "calibration" && error.to_string().contains("calibrateClla"), "{error}");
    let error = kind(json!({ "method": "cskv", "calibration": file }));
    assert!(error.code() == "calibration" && error.to_string().contains("calibrateCskv"), "{error}");
    let model = model();
    let fails = |calibration: Value, text: &str| {
        let method = Method::parse(&with(&calibration)).expect("sound by itself");
        let error = model.new_sequence_with(method, true).map(|_| ()).expect_err("refused");
        assert!(error.code() == "calibration" && error.to_string().contains(text), "{error}");
    };
    fails(latents(9, 6, 32), "layers");
    let mut few = latents(10, 6, 32);
    few["rank"] = json!(32);
    fails(few.clone(), "numbers");
    for layer in few["layers"].as_array_mut().expect("layers") {
        let none = prefixkv_core::method::latent::LayerDirections::new(0, [vec![0; 6 * 32 * 32], vec![0; 6 * 32 * 32]]);
        (layer["keys"], layer["values"]) = (json!(none.keys), json!(none.values));
    }
    fails(few, "32 of 128 directions");
    // Heads that no codes can be cut from.
    let shape = Shape { layers: 2, kv_heads: 1, head_dim: 12, format: Format::F32 };
    let method = Method::parse(&store(&latents(2, 1, 12), 0.5, "4")).expect("sound");
    let refused: Result<Sequence, _> = Sequence::with_method(shape, &Pool::unlimited(), method, false);
    assert!(refused.expect_err("heads of 12").to_string().contains("multiple of 8"));
}
