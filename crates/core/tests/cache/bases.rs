//! Stores that keep entries in coordinates of their own, on whole sequences and a model.

use std::path::Path;

use prefixkv_core::Error;
use prefixkv_core::cache::{Format, Lane, MemoryReport, Pool, Shape};
use prefixkv_core::method::latent::LayerDirections;
use prefixkv_core::method::{METHODS, Method};
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::Sequence;
use prefixkv_kernels::codec::Cut;
use serde::Deserialize;
use serde_json::{Value, json};

fn model() -> Model {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Model::load(&LoadOptions::new(root.join("models/tiny-llava")), &mut |_| Ok(())).expect("loads")
}

fn sequence(model: &Model, cache: &Value) -> Sequence {
    let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
    model.new_sequence_with(method, true).unwrap_or_else(|e| panic!("{cache}: {e}"))
}

/// A text prompt of `n` tokens, and `steps` greedy ones.
fn run(model: &Model, sequence: &mut Sequence, n: u32, steps: usize) -> Vec<f32> {
    let tokens: Vec<u32> = (0..n).map(|i| 40 + i * 7 % 90).collect();
    let prompt = model.expand(&tokens, 0).expect("text");
    let mut logits = model.prefill(&prompt, &[], sequence, &|| Ok(())).expect("reads");
    for _ in 0..steps {
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
        logits = model.decode(best as u32, sequence).expect("goes on");
    }
    logits
}

/// A prompt of 90 tokens that is read in pieces, and three tokens behind it, have the logits of the one that is read whole.
fn same_in_pieces(model: &Model, cache: &Value, whole: &[f32]) {
    let tokens: Vec<u32> = (0..90).map(|i| 40 + i * 7 % 90).collect();
    let prompt = model.expand(&tokens, 0).expect("text");
    for piece in [7, 33, 64] {
        let mut cut = sequence(model, cache);
        let mut prefill = model.begin_prefill(&prompt, &[], &mut cut, piece).expect("begins");
        let mut logits = loop {
            if let Some(logits) = model.prefill_piece(&mut prefill, &mut cut, &|| Ok(())).expect("reads") {
                break logits;
            }
        };
        for _ in 0..3 {
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
            logits = model.decode(best as u32, &mut cut).expect("goes on");
        }
        for (got, want) in logits.iter().zip(whole) {
            assert!((got - want).abs() < 1e-3, "pieces of {piece}: {got} for {want}");
        }
    }
}

/// The rows of keys in which the entries of a lane lie, and how many of them.
fn widths(lane: &Lane) -> Vec<(Option<Cut>, usize)> {
    lane.view(None).runs.iter().map(|run| (run.codec.basis.map(|based| based.keys), run.len)).collect()
}

fn relative(memory: &MemoryReport, whole: &MemoryReport) -> f64 {
    (memory.payload + memory.scales) as f64 / whole.payload as f64
}

/// Of 150 positions and 70 generated ones 32 stay whole, and up to 31 that wait; the others hold three fifths of their keys.
#[test]
fn think_stores_the_channels_it_keeps_and_no_others() {
    let model = model();
    let mut full = sequence(&model, &json!({ "method": "full" }));
    run(&model, &mut full, 150, 70);
    for keep in [0.6, 0.3, 1.0] {
        let mut thin = sequence(&model, &json!({ "method": "think", "channels": keep }));
        run(&model, &mut thin, 150, 70);
        let dim = thin.head_dim();
        let width = (keep * dim as f64 + 1e-9).floor() as usize;
        for layer in 0..thin.memory().kept_per_layer.len() {
            for lane in thin.lanes(layer) {
                let (thin, whole): (Vec<_>, Vec<_>) = widths(lane).into_iter().partition(|(cut, _)| cut.is_some());
                assert!(thin.iter().all(|(cut, _)| cut.is_some_and(|cut| usize::from(cut.width) == width)));
                let whole: usize = whole.iter().map(|(_, n)| n).sum();
                assert_eq!((thin.iter().map(|(_, n)| n).sum::<usize>() + whole, lane.len()), (220, 220));
                assert!((32..64).contains(&whole), "{whole} entries are whole");
            }
        }
        let (memory, all) = (thin.memory(), full.memory());
        let stored = thin.lanes(0)[0].len() - thin.lanes(0)[0].unencoded();
        let want = 1.0 - stored as f64 / 220.0 * (1.0 - width as f64 / dim as f64) / 2.0;
        assert!((relative(&memory, &all) - want).abs() < 1e-9, "{} for {want}", relative(&memory, &all));
        assert!((memory.effective_bits - 32.0 * want).abs() < 1e-6, "{memory:?}");
    }
}

/// Nothing is lost where every channel stays; the keys are stored in the same order.
#[test]
fn think_with_all_channels_is_the_full_cache() {
    let model = model();
    let (mut full, mut thin) = (
        sequence(&model, &json!({ "method": "full" })),
        sequence(&model, &json!({ "method": "think", "channels": 1 })),
    );
    let (want, got) = (run(&model, &mut full, 100, 40), run(&model, &mut thin, 100, 40));
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() < 1e-4, "{got} for {want}");
    }
}

/// Every prompt of a chat chooses for its own entries, pieces of a prompt choose as the whole, and forks go on alike.
#[test]
fn think_follows_chats_pieces_and_forks() {
    let model = model();
    let cache = json!([{ "method": "snapkv", "keep": 0.7 }, { "method": "think", "channels": 0.5, "window": 8 }]);
    let mut chat = sequence(&model, &cache);
    run(&model, &mut chat, 90, 3);
    let bases = |sequence: &Sequence| {
        let runs = sequence.lanes(1)[0].view(None).runs;
        let mut ids: Vec<u32> = runs.iter().filter_map(|run| run.codec.basis.map(|based| based.id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    };
    assert_eq!(bases(&chat), 1);
    let mut fork = chat.fork().expect("between two prompts");
    let (one, other) = (run(&model, &mut chat, 60, 3), run(&model, &mut fork, 60, 3));
    assert_eq!(one, other);
    assert_eq!((bases(&chat), bases(&fork)), (2, 2));
    assert_eq!(chat.memory().payload, fork.memory().payload);

    let whole = {
        let mut whole = sequence(&model, &cache);
        run(&model, &mut whole, 90, 3)
    };
    same_in_pieces(&model, &cache, &whole);
}

#[test]
fn think_says_what_it_cannot_do() {
    let refuse = |cache: Value| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => reason,
        other => panic!("{cache}: {other:?}"),
    };
    let ranks = json!({ "method": "streaming", "keep": 0.5, "positions": "cache" });
    assert!(refuse(json!([ranks, { "method": "think" }])).contains("rotated"));
    assert!(refuse(json!({ "method": "think", "channels": 0 })).contains("channels"));
    assert!(refuse(json!({ "method": "think", "bits": "3" })).contains("bits"));
    assert!(refuse(json!({ "method": "think", "queries": 0 })).contains("queries"));
}

/// Where every coordinate stays nothing is lost, whichever directions they are along and whenever keys are rotated.
#[test]
fn lorc_with_all_coordinates_is_the_full_cache() {
    let model = model();
    let mut full = sequence(&model, &json!({ "method": "full" }));
    let want = run(&model, &mut full, 100, 40);
    for heads in ["each", "joint"] {
        for rope in ["after", "before"] {
            let cache = json!({ "method": "lorc", "most": 1, "least": 1, "heads": heads, "rope": rope, "window": 8 });
            let mut stored = sequence(&model, &cache);
            let got = run(&model, &mut stored, 100, 40);
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() < 2e-4, "{heads} {rope}: {got} for {want}");
            }
            assert_eq!(relative(&stored.memory(), &full.memory()), 1.0);
        }
    }
}

/// Bytes fall as the shares say, chats, forks and lanes of their own go on, and joint coordinates are fewer rows.
#[test]
fn lorc_stores_as_many_coordinates_as_it_says() {
    let model = model();
    let mut full = sequence(&model, &json!({ "method": "full" }));
    run(&model, &mut full, 150, 70);
    for heads in ["each", "joint"] {
        let cache = json!({ "method": "lorc", "most": 0.5, "least": 0.25, "heads": heads });
        let mut stored = sequence(&model, &cache);
        run(&model, &mut stored, 150, 70);
        let (dim, kv_heads) = (stored.head_dim(), stored.lanes(0)[0].heads().len());
        let mut numbers = 0;
        for layer in 0..stored.memory().kept_per_layer.len() {
            for (cut, n) in widths(&stored.lanes(layer)[0]) {
                let Some(Cut { rows, width }) = cut else {
                    numbers += n * kv_heads * dim;
                    continue;
                };
                let most = if heads == "joint" { kv_heads * dim } else { dim };
                assert_eq!(usize::from(rows), if heads == "joint" { 1 } else { kv_heads });
                assert!((most / 4..=most.div_ceil(2)).contains(&usize::from(width)) && width % 8 == 0, "{width}");
                numbers += n * usize::from(rows * width);
            }
        }
        let memory = stored.memory();
        assert_eq!(memory.payload, (2 * numbers * size_of::<f32>()) as u64, "keys and values in f32");
        assert!(relative(&memory, &full.memory()) < 0.65, "{memory:?}");
        let mut fork = stored.fork().expect("between two prompts");
        assert_eq!(run(&model, &mut stored, 60, 3), run(&model, &mut fork, 60, 3));
    }
    // Each lane of a head has a basis of its own.
    let cache = json!([{ "method": "knorm", "keep": 0.5 }, { "method": "lorc", "window": 4 }]);
    let mut stored = sequence(&model, &cache);
    run(&model, &mut stored, 100, 40);
    assert!(
        stored.lanes(0).len() > 1 && stored.lanes(0).iter().all(|lane| widths(lane).iter().any(|run| run.0.is_some()))
    );
}

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    behind: Vec<u32>,
    stride: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    cache: Value,
    widths: Vec<u16>,
    logits: Vec<Vec<f32>>,
}

/// Logits behind a prompt whose entries were stored, against transformers with keys and values of low rank by numpy
/// (tests/golden/lorc.py).
#[test]
fn lorc_gives_the_logits_of_the_reference() {
    let model = model();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/lorc.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).expect("the golden")).expect("is JSON");
    let prompt = model.expand(&golden.tokens, 0).expect("text");
    assert_eq!(golden.cases.len(), 4);
    for Case { cache, widths: want_widths, logits: want_logits } in &golden.cases {
        let mut stored = sequence(&model, cache);
        model.prefill(&prompt, &[], &mut stored, &|| Ok(())).expect("reads");
        for (layer, want) in want_widths.iter().enumerate() {
            let found = widths(&stored.lanes(layer)[0]).into_iter().find_map(|(cut, _)| cut);
            assert_eq!(found.map(|cut| cut.width), Some(*want), "{cache}: layer {layer}");
        }
        for (token, want) in golden.behind.iter().zip(want_logits) {
            let got = model.decode(*token, &mut stored).expect("goes on");
            for (got, want) in got.iter().step_by(golden.stride).zip(want) {
                assert!((got - want).abs() < 5e-4, "{cache}: {got} for {want}");
            }
        }
    }
}

#[test]
fn lorc_says_what_it_cannot_do() {
    let refuse = |cache: Value| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => reason,
        other => panic!("{cache}: {other:?}"),
    };
    let ranks = json!({ "method": "streaming", "keep": 0.5, "positions": "cache" });
    assert!(refuse(json!([ranks, { "method": "lorc" }])).contains("positions"));
    let per_head = json!({ "method": "knorm", "keep": 0.5 });
    assert!(refuse(json!([per_head, { "method": "lorc", "heads": "joint" }])).contains("each"));
    assert!(refuse(json!({ "method": "lorc", "most": 0.5, "least": 0.75 })).contains("least"));
    assert!(refuse(json!({ "method": "lorc", "least": 0 })).contains("above 0"));
    // Without a model there are no weights.
    let method = Method::parse(&json!({ "method": "lorc" })).expect("sound");
    let shape = Shape { layers: 1, kv_heads: 1, head_dim: 8, format: Format::F32 };
    let alone: Result<Sequence, _> = Sequence::with_method(shape, &Pool::unlimited(), method, false);
    assert!(alone.expect_err("no model").to_string().contains("weights"));
}

/// All directions of each head, of a model of this shape.
fn directions(layers: usize, kv_heads: usize, head_dim: usize) -> Value {
    let spec = METHODS.iter().find(|spec| spec.name == "cskv").expect("a method");
    crate::calibrated::calibration(spec, layers, kv_heads, head_dim).expect("it needs one")
}

/// Directions of all heads of tiny-llava together: every channel by itself, the last ones first.
fn joint_directions(rank: usize) -> Value {
    let size = 192;
    let codes: Vec<i8> = (0..rank * size).map(|at| if at % size == size - 1 - at / size { 127 } else { 0 }).collect();
    let mut file = directions(10, 6, 32);
    let of = |layer| LayerDirections::new(layer, [codes.clone(), codes.clone()]);
    file["heads"] = json!("joint");
    file["rank"] = json!(rank);
    file["layers"] = json!((0..10).map(of).collect::<Vec<_>>());
    file
}

/// Where every coordinate stays nothing is lost, and in codes little, of each head or of all together.
#[test]
fn cskv_with_all_coordinates_is_the_full_cache() {
    let model = model();
    let mut full = sequence(&model, &json!({ "method": "full" }));
    let want = run(&model, &mut full, 100, 40);
    for calibration in [directions(10, 6, 32), joint_directions(192)] {
        for (bits, near) in [("whole", 2e-4), ("8", 0.2), ("4", 3.0)] {
            let cache = json!({
                "method": "cskv", "keys": 1, "values": 1, "bits": bits, "window": 8, "calibration": calibration,
            });
            let mut stored = sequence(&model, &cache);
            let got = run(&model, &mut stored, 100, 40);
            let off = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
            assert!(off < near, "{bits} bits of {}: {off}", calibration["heads"]);
        }
    }
}

/// Bytes fall as the shares say; chats, pieces, forks and lanes of their own go on alike.
#[test]
fn cskv_stores_as_many_coordinates_as_it_says() {
    let model = model();
    let mut full = sequence(&model, &json!({ "method": "full" }));
    run(&model, &mut full, 150, 70);
    for (calibration, whole, rows) in [(directions(10, 6, 32), 32, 6), (joint_directions(96), 192, 1)] {
        for (keys, values) in [(0.5, 0.25), (0.25, 0.5), (0.01, 0.5)] {
            for bits in ["whole", "8", "4"] {
                let cache = json!({
                    "method": "cskv", "keys": keys, "values": values, "bits": bits, "calibration": calibration,
                });
                let mut stored = sequence(&model, &cache);
                run(&model, &mut stored, 150, 70);
                let wide = |share: f64| ((share * f64::from(whole)).ceil() as usize).next_multiple_of(8);
                let runs = stored.lanes(3)[0].view(None).runs;
                let (mut coded, mut entries) = (0, 0);
                for run in &runs {
                    entries += run.len;
                    let Some(based) = run.codec.basis else { continue };
                    coded += run.len;
                    let want = [(rows, wide(keys)), (rows, wide(values))];
                    let got = [based.keys, based.values].map(|cut| (usize::from(cut.rows), usize::from(cut.width)));
                    assert_eq!(got, want, "{bits} bits, {keys} and {values}");
                }
                // 32 stay whole, and those that wait for 32 in a row.
                assert_eq!(entries, 220);
                assert!((32..64).contains(&(entries - coded)), "{bits}: {coded} of {entries}");
                let memory = stored.memory();
                let number = match bits {
                    "8" => 1.0,
                    "4" => 0.5,
                    _ => 4.0,
                };
                let of_entry = (rows * (wide(keys) + wide(values))) as f64 * number;
                let want = ((entries - coded) * 2 * 192 * 4) as f64 + coded as f64 * of_entry;
                assert_eq!(memory.payload as f64, want * 10.0, "{bits} bits, {keys} and {values}");
                let mut fork = stored.fork().expect("between two prompts");
                assert_eq!(run(&model, &mut stored, 60, 3), run(&model, &mut fork, 60, 3));
                assert_eq!(stored.memory().payload, fork.memory().payload);
            }
        }
    }
    let behind = |bits: &str, keep: Value| json!([keep, { "method": "cskv", "window": 8, "bits": bits, "calibration": directions(10, 6, 32) }]);
    for keep in [json!({ "method": "snapkv", "keep": 0.7 }), json!({ "method": "h2o", "keep": { "tokens": 60 } })] {
        for bits in ["whole", "4"] {
            let cache = behind(bits, keep.clone());
            let mut chat = sequence(&model, &cache);
            run(&model, &mut chat, 90, 3);
            let mut fork = chat.fork().expect("between two prompts");
            assert_eq!(run(&model, &mut chat, 60, 9), run(&model, &mut fork, 60, 9), "{cache}");
        }
    }
    let cache = behind("whole", json!({ "method": "snapkv", "keep": 0.7 }));
    let whole = run(&model, &mut sequence(&model, &cache), 90, 3);
    same_in_pieces(&model, &cache, &whole);
}

#[derive(Deserialize)]
struct LatentGolden {
    tokens: Vec<u32>,
    behind: Vec<u32>,
    stride: usize,
    files: Vec<Value>,
    cases: Vec<LatentCase>,
}

#[derive(Deserialize)]
struct LatentCase {
    file: usize,
    cache: Value,
    widths: [u16; 2],
    logits: Vec<Vec<f32>>,
}

/// Logits behind a prompt that is stored along directions, against transformers with numpy's (tests/golden/cskv.py).
#[test]
fn cskv_gives_the_logits_of_the_reference() {
    let model = model();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/cskv.json");
    let golden: LatentGolden = serde_json::from_slice(&std::fs::read(path).expect("the golden")).expect("is JSON");
    let prompt = model.expand(&golden.tokens, 0).expect("text");
    assert_eq!(golden.cases.len(), 6);
    for LatentCase { file, cache, widths, logits } in &golden.cases {
        let mut used = cache.clone();
        used["calibration"] = golden.files[*file].clone();
        let mut stored = sequence(&model, &used);
        model.prefill(&prompt, &[], &mut stored, &|| Ok(())).expect("reads");
        let runs = stored.lanes(4)[0].view(None).runs;
        let found = runs.iter().find_map(|run| run.codec.basis).map(|based| [based.keys.width, based.values.width]);
        assert_eq!(found, Some(*widths), "{cache}");
        for (token, want) in golden.behind.iter().zip(logits) {
            let got = model.decode(*token, &mut stored).expect("goes on");
            for (got, want) in got.iter().step_by(golden.stride).zip(want) {
                assert!((got - want).abs() < 1e-3, "{cache}: {got} for {want}");
            }
        }
    }
}

#[test]
fn cskv_says_what_it_cannot_do() {
    let with = |calibration: Value| json!({ "method": "cskv", "calibration": calibration });
    let refuse = |cache: Value| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => reason,
        other => panic!("{cache}: {other:?}"),
    };
    assert!(refuse(json!({ "method": "cskv" })).contains("calibrateCskv"));
    let ranks = json!({ "method": "streaming", "keep": 0.5, "positions": "cache" });
    assert!(refuse(json!([ranks, with(directions(10, 6, 32))])).contains("positions"));
    let per_head = json!({ "method": "knorm", "keep": 0.5 });
    assert!(refuse(json!([per_head, with(joint_directions(96))])).contains("each"));
    let mut nothing = with(directions(10, 6, 32));
    nothing["keys"] = json!(0);
    assert!(refuse(nothing).contains("above 0"));
    // Options that the model does not go with.
    let model = model();
    let fails = |cache: Value, text: &str| {
        let method = Method::parse(&cache).expect("sound by itself");
        let error = model.new_sequence_with(method, true).map(|_| ()).expect_err("refused");
        assert!(error.code() == "calibration" && error.to_string().contains(text), "{error}");
    };
    fails(with(directions(9, 6, 32)), "layers");
    fails(with(joint_directions(64)), "64 of 192 directions");
    let mut other = directions(10, 6, 32);
    other["model"] = json!({ "layers": 10 });
    other["rank"] = json!(16);
    fails(with(other), "numbers");
    let mut bound = directions(10, 6, 32);
    bound["model"]["fingerprint"] = json!("sha256:0");
    fails(with(bound), "fingerprint");
}
