//! Layers that read the keys and values of others because a method asks for it.

use std::path::PathBuf;
use std::time::Duration;

use crate::calibrated::calibration;
use crate::case::{Case, load, root, sequence, sized};
use candle_core::{Device, Tensor};
use prefixkv_core::Error;
use prefixkv_core::cache::Kept;
use prefixkv_core::engine::Engine;
use prefixkv_core::method::{METHODS, Method, MethodSpec, OptionKind, Role};
use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use prefixkv_core::sequence::Sequence;
use prefixkv_core::wire::Event;
use serde_json::{Value, json};

/// As transformers compute with a cache that shares (`tests/golden/sharing.py`); of logits up to about 40.
const TOLERANCE: f32 = 1e-4;

fn shared(sources: &Value) -> Value {
    json!({ "method": "kvsharer", "sources": sources })
}

fn try_sequence(model: &Model, cache: &Value) -> Result<Sequence, Error> {
    model.new_sequence_with(Method::parse(cache)?, true)
}

fn read(model: &Model, tokens: &[u32], sequence: &mut Sequence) -> Vec<f32> {
    let prompt = model.expand(tokens, 0).expect("text");
    model.prefill(&prompt, &[], sequence, &|| Ok(())).expect("reads")
}

fn tokens(model: &Model, n: usize) -> Vec<u32> {
    let vocab = model.info().vocab_size as u32;
    (0..n as u32).map(|i| (i * 7919 + i * i * 31) % (vocab - 10) + 5).collect()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // Not `max`, which passes over NaN.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, x| if x <= worst { worst } else { x })
}

/// The layer that each reads.
fn sources(sequence: &Sequence, layers: usize) -> Vec<usize> {
    (0..layers).map(|layer| sequence.source(layer)).collect()
}

#[test]
fn logits_are_those_of_a_cache_that_shares() {
    let text = std::fs::read_to_string(root().join("tests/golden/data/sharing.json")).expect("readable");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let arrays = root().join("tests/golden/data/sharing.safetensors");
    let arrays = candle_core::safetensors::load(arrays, &Device::Cpu).expect("arrays load");
    let rows_of = |tensor: &Tensor| -> Vec<Vec<f32>> { tensor.to_vec2().expect("rows of logits") };
    for case in golden["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let model = load(case["model"].as_str().expect("a folder"));
        let (prompt, features) = match case["sample"]["image"].as_str() {
            Some(image) => {
                let question = case["sample"]["question"].as_str().expect("a question");
                let bytes = std::fs::read(root().join("data/scenes").join(image)).expect("a scene");
                let pixels = model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
                let features = model.encode_images(&[pixels], &|| Ok(())).expect("encodes");
                let text = format!("USER: <image>\n{question} ASSISTANT:");
                let tokens = model.tokenizer().encode_prompt(&text).expect("encodes");
                (model.expand(&tokens, 1).expect("one image"), features)
            }
            None => {
                let ids: Vec<u32> = serde_json::from_value(case["input_ids"].clone()).expect("ids");
                (model.expand(&ids, 0).expect("text"), Vec::new())
            }
        };
        assert_eq!(json!(prompt.tokens), case["input_ids"], "{name}");
        let mut sequence = sequence(&model, &shared(&case["sources"]));
        let all = model.prefill_all(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
        let all: Vec<Vec<f32>> = rows_of(&all.0);
        let rows: Vec<usize> = serde_json::from_value(case["rows"].clone()).expect("rows");
        for (row, want) in rows.iter().zip(rows_of(&arrays[&format!("{name}.prompt")])) {
            let worst = worst(&all[*row], &want);
            assert!(worst <= TOLERANCE, "{name}: row {row} is off by {worst}");
        }
        let given: Vec<u32> = serde_json::from_value(case["tokens"].clone()).expect("tokens");
        for (token, want) in given.iter().zip(rows_of(&arrays[&format!("{name}.steps")])) {
            let worst = worst(&model.decode(*token, &mut sequence).expect("decodes"), &want);
            assert!(worst <= TOLERANCE, "{name}: behind {token} it is off by {worst}");
        }
    }
}

/// How far tokens that are generated one by one, after `prompt` of them, lie from one pass over all.
fn apart(model: &Model, cache: &Value, tokens: &[u32], prompt: usize) -> f32 {
    let all = model.expand(tokens, 0).expect("text");
    let once = model.prefill_all(&all, &[], &mut sequence(model, cache), &|| Ok(())).expect("reads");
    let once: Vec<Vec<f32>> = once.0.to_vec2().expect("rows");
    let mut steps = sequence(model, cache);
    let mut logits = read(model, &tokens[..prompt], &mut steps);
    let mut most = 0.0;
    for (at, token) in tokens[prompt..].iter().enumerate() {
        most = f32::max(most, worst(&logits, &once[prompt - 1 + at]));
        logits = model.decode(*token, &mut steps).expect("decodes");
    }
    most
}

/// The cache class of the published code loses the history of the last layers that do not share (7 and 8 here) as soon as it generates, so
/// there one pass over the text and generating it differ.
#[test]
fn generating_is_one_pass_over_the_text() {
    let map = shared(&json!({ "3": 1, "6": 2, "9": 6 }));
    for weights in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K] {
        let options = LoadOptions { weights, ..LoadOptions::new(root().join("models/tiny-llava")) };
        let model = Model::load(&options, &mut |_| Ok(())).expect("loads");
        let tokens = tokens(&model, 90);
        // In f16 and in blocks the plain cache has its own distance.
        let (plain, shared) = (json!({ "method": "full" }), apart(&model, &map, &tokens, 50));
        let limit = if weights == WeightFormat::F32 { 1e-4 } else { 2.0 * apart(&model, &plain, &tokens, 50) + 1e-4 };
        assert!(shared <= limit, "{weights:?}: {shared} of {limit}");
        // In pieces.
        let all = model.expand(&tokens, 0).expect("text");
        let mut whole = sequence(&model, &map);
        assert_eq!(sources(&whole, 10), [0, 1, 2, 1, 4, 5, 2, 7, 8, 2]);
        let once = read(&model, &tokens, &mut whole);
        let mut pieces = sequence(&model, &map);
        let mut prefill = model.begin_prefill(&all, &[], &mut pieces, 13).expect("begins");
        let last = loop {
            if let Some(logits) = model.prefill_piece(&mut prefill, &mut pieces, &|| Ok(())).expect("reads") {
                break logits;
            }
        };
        assert!(worst(&last, &once) <= limit, "{weights:?}");
    }
}

#[test]
fn bytes_are_those_of_the_layers_that_hold_entries() {
    let model = load("models/tiny-llava");
    let tokens = tokens(&model, 200);
    let run = |cache: &Value| {
        let mut sequence = sequence(&model, cache);
        read(&model, &tokens[..150], &mut sequence);
        for token in &tokens[150..] {
            model.decode(*token, &mut sequence).expect("decodes");
        }
        (sequence.memory(), sequence)
    };
    let (full, _) = run(&json!({ "method": "full" }));
    for (sources, owners) in [(json!({ "9": 8 }), 9), (json!({ "6": 2, "9": 6, "3": 2 }), 7), (json!({ "1": 0 }), 9)] {
        let (memory, sequence) = run(&shared(&sources));
        assert_eq!(memory.payload * 10, full.payload * owners, "{sources}");
        assert_eq!(memory.resident * 10, full.resident * owners, "{sources}: bookkeeping included");
        assert_eq!(
            memory.peak - memory.resident,
            full.peak - full.resident,
            "{sources}: what a lane that grows takes for a moment"
        );
        // The size that is compared with is the size of the model as it is.
        assert_eq!(memory.full, full.full);
        let holding = memory.kept_per_layer.iter().filter(|kept| **kept > 0.0).count();
        assert_eq!(holding as u64, owners, "{sources}");
        // On top: each entry of a source goes once, and its readers see what is left.
        let behind = json!([shared(&sources), { "method": "prefixkv", "keep": 0.4 }]);
        let (evicted, both) = run(&behind);
        let entry = full.payload / 200 / 10;
        let kept: f64 = evicted.kept_per_layer.iter().sum();
        assert_eq!(evicted.payload, kept as u64 * entry, "{behind}");
        assert!((kept - 0.4 * (200 * owners) as f64).abs() <= owners as f64, "{behind}: {kept}");
        let (held, all) = (both.kept(), sequence.kept());
        for layer in 0..10 {
            let source = both.source(layer);
            assert_eq!(positions(&held[layer]), positions(&held[source]), "{behind}: layer {layer}");
            assert!(positions(&held[layer]).len() < positions(&all[layer]).len());
        }
        drop((sequence, both));
        assert_eq!(model.pool().used(), 0);
    }
}

fn positions(kept: &[Kept]) -> &[u32] {
    &kept[0].positions
}

/// The cells of docs/methods/combinations.md.
#[test]
fn every_method_goes_behind_layers_that_share() {
    for (case, map, own) in [
        (Case::picture(" There is a green star at the top left."), json!({ "4": 1, "7": 4 }), 8.0),
        (Case::text(160, 40), json!({ "1": 0 }), 1.0),
    ] {
        go_behind(&case, &shared(&map), own / case.model.info().layers as f64);
    }
}

/// Whether a method has sizes of a calibration without which it does nothing.
fn calibrated(spec: &MethodSpec) -> bool {
    spec.options.iter().any(|option| matches!(option.kind, OptionKind::Heads))
}

/// Every method behind `map`, which leaves entries to a share of `own` of the layers.
fn go_behind(case: &Case, map: &Value, own: f64) {
    for spec in METHODS {
        let one = match (spec.takes_keep(), spec.role) {
            (true, _) => vec![case.cache(spec, 0.5)],
            (false, Role::Refines) => vec![json!({ "method": "snapkv", "keep": 0.5 }), json!({ "method": spec.name })],
            (false, Role::Shares) => continue,
            (false, _) => {
                let info = case.model.info();
                match calibration(spec, info.layers, info.kv_heads, info.head_dim) {
                    Some(calibration) => vec![json!({ "method": spec.name, "calibration": calibration })],
                    None => vec![json!({ "method": spec.name })],
                }
            }
        };
        let cache = Value::Array(std::iter::once(map.clone()).chain(one).collect());
        let why = match spec.name {
            "fastv" | "pyramidInfer" => "ends the way of positions between layers",
            "kvzip" => "reads prompts twice",
            _ => "",
        };
        if !why.is_empty() {
            let error = Method::parse(&cache).expect_err("refused").to_string();
            assert!(error.contains(&format!("{} {why}", spec.name)) && error.contains("kvsharer"), "{error}");
            continue;
        }
        if calibrated(spec) {
            let error = Method::parse(&cache).expect_err("refused").to_string();
            assert!(error.contains("has a share for every layer of the model"), "{error}");
            continue;
        }
        let mut sequence = sequence(&case.model, &cache);
        let mut logits = case
            .model
            .prefill(&case.prompt, &case.features_for(&sequence), &mut sequence, &|| Ok(()))
            .unwrap_or_else(|e| panic!("{cache}: {e}"));
        for token in &case.answer {
            logits = case.model.decode(*token, &mut sequence).unwrap_or_else(|e| panic!("{cache}: {e}"));
        }
        assert!(logits.iter().all(|x| x.is_finite()), "{cache}");
        let memory = sequence.memory();
        for (layer, kept) in memory.kept_per_layer.iter().enumerate() {
            assert_eq!(*kept > 0.0, sequence.source(layer) == layer, "{cache}");
        }
        assert!((memory.payload + memory.scales) as f64 <= memory.full as f64 * own, "{cache}: {memory:?}");
    }
}

#[test]
fn maps_that_cannot_be_are_refused() {
    let model = load("models/tiny-llava");
    let refused = |cache: Value, code: &str, text: &str| {
        let error = try_sequence(&model, &cache).err().unwrap_or_else(|| panic!("{cache} is taken"));
        assert!(error.code() == code && error.to_string().contains(text), "{cache}: {error}");
    };
    let map = shared(&json!({ "6": 2 }));
    let prefix = json!({ "method": "prefixkv", "keep": 0.5 });
    refused(json!({ "method": "kvsharer" }), "option", "needs `calibration`");
    refused(json!({ "method": "kvsharer", "keep": 0.5, "sources": { "6": 2 } }), "option", "takes no `keep`");
    refused(json!({ "method": "kvsharer", "sources": { "6": 2 }, "layers": 1 }), "option", "`layers` of kvsharer");
    for odd in [json!({ "06": 2 }), json!({ "x": 2 }), json!({ "6": "2" }), json!({ "6": -1 }), json!([2]), json!("6")]
    {
        refused(shared(&odd), "option", "such as { \"6\": 2 }");
    }
    refused(shared(&json!({ "10": 2 })), "option", "the last layer of the model is 9");
    refused(shared(&json!({ "0": 0 })), "option", "a layer before it");
    refused(json!([prefix, map]), "option", "it comes before \"prefixkv\"");
    refused(json!([{ "method": "int4" }, map]), "option", "it comes before \"int4\"");
    refused(json!([map, map]), "option", "kvsharer twice");
    refused(json!([map, { "method": "merge" }]), "option", "no method is before it");
    refused(
        json!([map, { "method": "prefixkv", "calibration": vec![0.5; 10] }]),
        "option",
        "leave the calibration out",
    );
    for name in ["sparseMm", "headKv"] {
        let spec = METHODS.iter().find(|spec| spec.name == name).expect("a method");
        let method = sized(spec, 0.5, &model);
        refused(json!([map, method]), "option", &format!("leave {name} out, or kvsharer"));
    }
    let file = |model: Value| json!({ "format": "prefixkv-sharing", "version": 1, "model": model, "pairs": [{ "layer": 6, "source": 2 }] });
    let found = |model: Value| json!({ "method": "kvsharer", "calibration": file(model) });
    let info = model.info();
    assert!(
        try_sequence(&model, &found(json!({ "layers": 10, "fingerprint": info.fingerprint, "kvHeads": 6 }))).is_ok()
    );
    refused(found(json!({ "layers": 11 })), "calibration", "layers 11 there, 10 here");
    refused(found(json!({ "layers": 10, "fingerprint": "sha256:0" })), "calibration", "fingerprint");
    refused(json!({ "method": "kvsharer", "calibration": [0.5] }), "option", "a calibration of layers that share");
    refused(
        json!({ "method": "kvsharer", "calibration": file(json!({ "layers": 10 })), "sources": { "6": 2 } }),
        "option",
        "found both",
    );
    refused(json!({ "method": "prefixkv", "calibration": file(json!({ "layers": 10 })) }), "calibration", "`format`");

    // Layers of one model that are not of one kind.
    let mixed = load("tests/golden/fixtures/qwen2-mixed");
    let error = try_sequence(&mixed, &shared(&json!({ "2": 1 }))).expect_err("another window").to_string();
    assert!(error.contains("one sees 10 positions and the other sees all positions"), "{error}");
    assert!(try_sequence(&mixed, &shared(&json!({ "3": 2, "1": 0 }))).is_ok());
    let still = load("tests/golden/fixtures/smollm3-nope");
    let error = try_sequence(&still, &shared(&json!({ "1": 0 }))).expect_err("another rope").to_string();
    assert!(error.contains("rotary embeddings differ"), "{error}");
    assert!(try_sequence(&still, &shared(&json!({ "2": 0, "3": 1 }))).is_ok());
}

/// Windows, biases, norms of heads and layers without positions, with a map.
#[test]
fn other_kinds_of_layers_share_too() {
    for (name, map) in [
        ("qwen2-mixed", json!({ "1": 0, "3": 2 })),
        ("qwen3-norms", json!({ "1": 0 })),
        ("smollm3-nope", json!({ "2": 0, "3": 1 })),
        ("mistral-window", json!({ "2": 0 })),
        ("llama3-rope", json!({ "2": 1 })),
    ] {
        let model = load(&format!("tests/golden/fixtures/{name}"));
        let tokens = tokens(&model, 80);
        let (plain, map) = (json!({ "method": "full" }), shared(&map));
        let (found, limit) = (apart(&model, &map, &tokens, 50), 2.0 * apart(&model, &plain, &tokens, 50) + 1e-4);
        assert!(found <= limit, "{name}: {found} of {limit}");
        let [one, other] = [plain, map].map(|cache| read(&model, &tokens, &mut sequence(&model, &cache)));
        assert!(worst(&one, &other) > 1e-3, "{name}: the map changes something");
    }
}

/// Each gets the bits that it gets alone, whoever is beside it.
#[test]
fn sequences_with_different_maps_go_together() {
    let caches = [
        shared(&json!({ "6": 2, "9": 6 })),
        json!({ "method": "full" }),
        json!([shared(&json!({ "9": 8 })), { "method": "h2o", "keep": 0.5 }]),
        json!([shared(&json!({ "3": 0, "6": 5 })), { "method": "prefixkv", "keep": 0.5 }, { "method": "int8", "window": 8 }]),
    ];
    for weights in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0] {
        let options = LoadOptions { weights, ..LoadOptions::new(root().join("models/tiny-llava")) };
        let model = Model::load(&options, &mut |_| Ok(())).expect("loads");
        let tokens = tokens(&model, 100);
        let start = |cache: &Value| {
            let mut sequence = sequence(&model, cache);
            read(&model, &tokens[..60], &mut sequence);
            sequence
        };
        let (mut together, mut alone): (Vec<_>, Vec<_>) =
            caches.iter().map(|cache| (start(cache), start(cache))).unzip();
        // One forks and goes on beside the other.
        together.push(together[0].fork().expect("between two pieces of work"));
        alone.push(start(&caches[0]));
        for (step, _) in tokens[60..].iter().enumerate() {
            let given: Vec<u32> = (0..together.len()).map(|index| tokens[60 + (step + index) % 40]).collect();
            let mut members: Vec<&mut Sequence> = together.iter_mut().collect();
            let rows = model.decode_batch(&given, &mut members).expect("decodes");
            for (index, row) in rows.into_iter().enumerate() {
                let want = model.decode(given[index], &mut alone[index]).expect("decodes");
                assert_eq!(row.expect("no limit"), want, "{weights:?}: step {step}, sequence {index}");
            }
        }
        for (one, other) in together.iter().zip(&alone) {
            assert_eq!(one.kept(), other.kept());
        }
        assert_eq!(sources(&together[4], 10), sources(&together[0], 10));
    }
}

fn engine() -> Engine {
    engine_with(json!({}))
}

fn engine_with(mut options: Value) -> Engine {
    let folder: PathBuf = root().join("models/tiny-llava").canonicalize().expect("the embedded model");
    options["source"] = json!(folder);
    Engine::open(&options.to_string()).expect("opens")
}

fn ask(engine: &Engine, request: &Value) -> Value {
    let images = match request.to_string().contains(r#""image""#) {
        true => vec![std::fs::read(root().join("data/scenes/scene-000.png")).expect("a scene")],
        false => Vec::new(),
    };
    let ticket = engine.submit(&request.to_string(), images).unwrap_or_else(|e| panic!("{request}: {e}"));
    let mut last = Value::Null;
    while let Some(events) = ticket.wait(Duration::from_secs(120)) {
        let events: Value = serde_json::from_str(&Event::array(&events)).expect("JSON");
        last = events.as_array().and_then(|events| events.last()).cloned().unwrap_or(last);
    }
    last
}

/// The answers of a search; tests/engine/sharing.test.ts compares them with an independent one.
#[test]
fn layers_are_compared_within_the_limit_of_the_cache() {
    let content = json!([{ "type": "image", "index": 0 }, { "type": "text", "text": "Which shapes are there?" }]);
    let scene = json!({ "messages": [{ "role": "user", "content": content }], "images": 1 });
    let ask_of = |engine: &Engine, prompts: Value| ask(engine, &json!({ "op": "distances", "prompts": prompts }));
    let whole = engine();
    let found = ask_of(&whole, json!([scene, { "prompt": "USER: Hello ASSISTANT:" }]));
    let pairs = found["pairs"].as_array().unwrap_or_else(|| panic!("{found}"));
    assert_eq!(pairs.len(), 45, "pairs of 10 layers");
    let distances: Vec<f64> = pairs.iter().map(|pair| pair["distance"].as_f64().expect("a number")).collect();
    assert!(distances.is_sorted_by(|a, b| a >= b) && distances[44] > 0.0);
    assert_eq!(found["usage"]["imageTokens"], 144);
    // The sums take as much as a full cache.
    let limited = engine_with(json!({ "cacheLimit": 2 << 20 }));
    let refused = ask_of(&limited, json!([scene]));
    assert_eq!(refused["error"]["code"], "out-of-memory", "{refused}");
    let small = ask_of(&limited, json!([{ "prompt": "USER: Hello ASSISTANT:" }]));
    assert_eq!(small["type"], "distances", "{small}");

    let alike = |cache: Value| {
        let messages = &scene["messages"];
        ask(&whole, &json!({ "op": "similarity", "messages": messages, "cache": cache }))
    };
    let similarity = |cache: Value| alike(cache)["similarity"].as_f64().expect("a number");
    assert!((similarity(json!({ "method": "h2o", "keep": 0.3 })) - 1.0).abs() < 1e-12, "a prompt is read whole");
    let shared = similarity(shared(&json!({ "6": 2, "9": 6 })));
    assert!(shared > 0.0 && shared < 0.99, "{shared}");
    let fewer = alike(json!({ "method": "fastv" }));
    assert!(fewer["error"]["message"].to_string().contains("all positions"), "{fewer}");
    let merged = alike(json!({ "method": "visionZip" }));
    assert!(merged["error"]["message"].to_string().contains("all positions"), "{merged}");
}

#[test]
fn traces_and_chats_know_the_map() {
    let engine = engine();
    let cache = json!([shared(&json!({ "6": 2, "9": 6 })), { "method": "prefixkv", "keep": 0.5 }]);
    let content = json!([{ "type": "image", "index": 0 }, { "type": "text", "text": "Describe the image in detail." }]);
    let first = json!({ "role": "user", "content": content });
    let traced = ask(&engine, &json!({ "op": "trace", "messages": [first], "cache": cache, "maxTokens": 6 }));
    assert_eq!(traced["type"], "traced", "{traced}");
    let layers = traced["layers"].as_array().expect("layers");
    let found: Vec<u64> = layers.iter().map(|layer| layer["source"].as_u64().expect("a layer")).collect();
    assert_eq!(found, [0, 1, 2, 3, 4, 5, 2, 7, 8, 2]);
    assert_eq!(layers[9]["kept"], layers[2]["kept"]);
    let planned =
        traced["plans"].as_array().expect("plans").iter().flat_map(|plan| plan["lanes"].as_array().expect("lanes"));
    let planned: Vec<u64> = planned.map(|lane| lane["layer"].as_u64().expect("a layer")).collect();
    assert_eq!(planned, [0, 1, 2, 3, 4, 5, 7, 8], "each source once");

    // Turn by turn, and forked in between, as without a session; the cache is whole.
    let cache = shared(&json!({ "6": 2, "9": 6 }));
    let opened = ask(&engine, &json!({ "op": "open-session", "cache": cache }));
    let session = &opened["session"];
    let one = ask(
        &engine,
        &json!({ "op": "turn", "session": session, "messages": [first], "maxTokens": 8, "ignoreEos": true }),
    );
    let forked = ask(&engine, &json!({ "op": "fork-session", "session": session }));
    let said = json!({ "role": "assistant", "content": one["text"] });
    let next = json!({ "role": "user", "content": "Which one is larger?" });
    let again = json!([first, said, next]);
    let want = ask(
        &engine,
        &json!({ "op": "generate", "messages": again, "cache": cache, "maxTokens": 8, "ignoreEos": true }),
    );
    for session in [session, &forked["session"]] {
        let turn = json!({ "op": "turn", "session": session, "messages": [next], "maxTokens": 8, "ignoreEos": true });
        let got = ask(&engine, &turn);
        assert_eq!((&got["type"], &got["text"]), (&json!("done"), &want["text"]), "{got}");
        assert!(got["usage"]["cachedTokens"].as_u64().expect("a number") > 150, "{got}");
        let kept = got["memory"]["keptPerLayer"].as_array().expect("layers");
        assert_eq!((&kept[6], &kept[9]), (&json!(0.0), &json!(0.0)));
    }
}
