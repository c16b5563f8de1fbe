//! Kinds of layers against transformers with changed attention (`tests/golden/layers.py`): layers that read the keys and values of
//! another and compute none, soft caps, phases along three axes; and windows, with every method.

pub(crate) mod golden;
mod seam;

use std::collections::BTreeSet;
use std::path::Path;

use crate::calibrated::calibration;
use candle_core::{Device, Tensor};
use golden::{goldens, root};
use prefixkv_core::method::external::{LaneReply, PlanReply};
use prefixkv_core::method::{METHODS, Method, MethodSpec};
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::Sequence;
use serde_json::{Value, json};

/// As against transformers elsewhere.
const TOLERANCE: f32 = 1e-3;

fn load(folder: &Path) -> Model {
    Model::load(&LoadOptions::new(folder), &mut |_| Ok(())).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // Not `max`, which passes over NaN.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, x| if x <= worst { worst } else { x })
}

/// Keys that are stored before their rotary embedding, all of them in full precision.
fn whole_before_rope() -> Value {
    json!({ "method": "int8", "window": 1_000_000, "rope": "before" })
}

#[test]
fn logits_are_those_of_transformers() {
    let arrays = root().join("tests/golden/data/layers.safetensors");
    let arrays = candle_core::safetensors::load(arrays, &Device::Cpu).expect("arrays load");
    for case in goldens() {
        let model = load(case.folder().path());
        let prompt = case.prompt(&model);
        let want: Vec<Vec<f32>> = arrays[&case.name].to_vec2().expect("rows of logits");
        // Also where keys are stored before their rotary embedding.
        let caches = match &case.method {
            Some(method) => vec![method.clone()],
            None => vec![json!({ "method": "full" }), whole_before_rope()],
        };
        for cache in caches {
            let method = Method::parse(&cache).expect("a method");
            let mut sequence = model.new_sequence_with(method, false).expect("no cap");
            let mut got = model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
            for (step, want) in want.iter().enumerate() {
                let worst = worst(&got, want);
                assert!(worst <= TOLERANCE, "{}, {cache}: row {step} is off by {worst}", case.name);
                if let Some(token) = case.tokens.get(case.prompt + step) {
                    got = model.decode(*token, &mut sequence).expect("decodes");
                }
            }
        }
    }
}

/// Of placed prompts each piece has its phases; windows and shared layers are as after a whole prompt.
#[test]
fn prompts_are_read_in_pieces() {
    for case in goldens() {
        let model = load(case.folder().path());
        let prompt = case.prompt(&model);
        let snapkv = json!({ "method": "snapkv", "keep": 0.8 });
        let before = json!([snapkv, whole_before_rope()]);
        for method in [json!({ "method": "full" }), snapkv, before] {
            let method = Method::parse(&method).expect("a method");
            let mut whole = model.new_sequence_with(method.clone(), false).expect("no cap");
            let want = model.prefill(&prompt, &[], &mut whole, &|| Ok(())).expect("reads");
            let mut sequence = model.new_sequence_with(method, false).expect("no cap");
            let mut prefill = model.begin_prefill(&prompt, &[], &mut sequence, 7).expect("begins");
            let got = loop {
                if let Some(logits) = model.prefill_piece(&mut prefill, &mut sequence, &|| Ok(())).expect("reads") {
                    break logits;
                }
            };
            assert!(worst(&got, &want) < 1e-4, "{}", case.name);
            assert_eq!(sequence.kept(), whole.kept(), "{}", case.name);
            assert_eq!((sequence.next_position(), sequence.next_phase()), (whole.next_position(), whole.next_phase()));
            let token = case.tokens[case.prompt];
            let (got, want) = (model.decode(token, &mut sequence), model.decode(token, &mut whole));
            assert!(worst(&got.expect("goes on"), &want.expect("goes on")) < 1e-4, "{}", case.name);
        }
    }
}

#[test]
fn a_shared_layer_computes_no_keys_and_values() {
    for case in goldens().into_iter().filter(|case| case.config.contains_key("kv_sources")) {
        let sources: Vec<usize> = serde_json::from_value(case.config["kv_sources"].clone()).expect("layers");
        let shared = |layer: usize| sources[layer] != layer;
        let own = load(&root().join(&case.fixture));
        let dir = case.folder();
        let whole = load(dir.path());
        // The weights that would make them are not even read.
        let file = dir.path().join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).expect("weights");
        let unused = |name: &String| {
            let layer = (0..sources.len()).find(|layer| name.contains(&format!("layers.{layer}."))).unwrap_or(0);
            shared(layer) && ["k_proj", "v_proj", "k_norm"].iter().any(|part| name.contains(part))
        };
        let gone: Vec<Tensor> =
            tensors.iter().filter(|(name, _)| unused(name)).map(|(_, tensor)| tensor.clone()).collect();
        assert!(gone.len() >= 2, "{}", case.name);
        tensors.retain(|name, _| !unused(name));
        candle_core::safetensors::save(&tensors, &file).expect("room");
        let model = load(dir.path());

        // Counted: the bytes of these products and biases, in f32.
        let bytes: usize =
            gone.iter().filter(|tensor| tensor.elem_count() > 64).map(|tensor| 4 * tensor.elem_count()).sum();
        let biases: usize =
            gone.iter().filter(|tensor| tensor.elem_count() <= 64).map(|tensor| 4 * tensor.elem_count()).sum();
        let less = own.info().weight_bytes - model.info().weight_bytes;
        assert!(less >= bytes as u64 && less <= (bytes + biases) as u64, "{}: {less} of {bytes}", case.name);
        let owners = (0..sources.len()).filter(|layer| !shared(*layer)).count();
        let each = own.info().kv_bytes_per_token / sources.len();
        assert_eq!(model.info().kv_bytes_per_token, each * owners, "{}", case.name);

        let prompt = case.prompt(&model);
        let mut sequence = model.new_sequence().expect("no cap");
        let logits = model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        let mut other = whole.new_sequence().expect("no cap");
        assert_eq!(logits, whole.prefill(&prompt, &[], &mut other, &|| Ok(())).expect("reads"), "{}", case.name);
        let memory = sequence.memory();
        let kept = sequence.kept();
        for (layer, source) in sources.iter().enumerate() {
            assert_eq!(memory.kept_per_layer[layer] == 0.0, shared(layer), "{}", case.name);
            assert_eq!(kept[layer], kept[*source], "{}", case.name);
        }
        assert_eq!(memory.full, (case.prompt * each * owners) as u64, "{}", case.name);
    }
}

/// How many entries a layer may hold: of the models with windows.
fn windows(model: &str) -> Vec<Option<usize>> {
    match model {
        "mistral-window" => vec![Some(12); 3],
        "phi3-long" => vec![None; 2],
        "gemma2-caps" => vec![Some(10), None, Some(10), None],
        "gemma3-local" => [vec![Some(8); 5], vec![None, Some(8)]].concat(),
        _ => vec![None, None, Some(10), Some(10)],
    }
}

fn run(model: &Model, cache: &Value, tokens: &[u32]) -> (Vec<Vec<f32>>, Sequence) {
    let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
    let mut sequence = model.new_sequence_with(method, true).unwrap_or_else(|e| panic!("{cache}: {e}"));
    let prompt = model.expand(&tokens[..60], 0).expect("text");
    let mut rows =
        vec![model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).unwrap_or_else(|e| panic!("{cache}: {e}"))];
    for token in &tokens[60..90] {
        rows.push(model.decode(*token, &mut sequence).unwrap_or_else(|e| panic!("{cache}: {e}")));
    }
    // A second turn on top of it.
    let prompt = model.expand(&tokens[90..], 0).expect("text");
    rows.push(model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).unwrap_or_else(|e| panic!("{cache}: {e}")));
    (rows, sequence)
}

#[test]
fn layers_with_a_window_hold_no_more_than_it() {
    let tokens: Vec<u32> = (0..110u32).map(|i| (i * 7919 + i * i * 31) % 430 + 5).collect();
    for name in ["mistral-window", "qwen2-mixed", "phi3-long", "gemma2-caps", "gemma3-local"] {
        let model = load(&root().join("tests/golden/fixtures").join(name));
        let (plain, sequence) = run(&model, &json!({ "method": "full" }), &tokens);
        for (kept, window) in sequence.kept().iter().zip(windows(name)) {
            let first = window.map_or(0, |window| 110 + 1 - window as u32);
            assert_eq!(kept[0].positions, (first..110).collect::<Vec<_>>(), "{name}");
        }
        let memory = sequence.memory();
        let layers = windows(name);
        let entries: usize = layers.iter().map(|window| window.map_or(110, |window| window - 1)).sum();
        assert_eq!(memory.payload, (entries * model.info().kv_bytes_per_token / layers.len()) as u64, "{name}");
        assert_eq!(memory.resident, memory.payload + memory.metadata, "{name}: freed bytes go back at once");
        // The whole text at once gives the same.
        let all = model.expand(&tokens, 0).expect("text");
        let mut at_once = model.new_sequence().expect("no cap");
        let logits = model.prefill(&all, &[], &mut at_once, &|| Ok(())).expect("reads");
        assert!(worst(&logits, plain.last().expect("rows")) < 1e-4, "{name}");
    }
}

/// A method that takes a size, with the calibration that it needs for a model.
fn sized(spec: &MethodSpec, keep: Value, model: &Model) -> Value {
    let (info, mut cache) = (model.info(), json!({ "method": spec.name, "keep": keep }));
    if let Some(calibration) = calibration(spec, model.sized_layers().len(), info.kv_heads, info.head_dim) {
        cache["calibration"] = calibration;
    }
    cache
}

#[test]
fn methods_size_the_layers_without_a_window_and_leave_the_others() {
    let tokens: Vec<u32> = (0..110u32).map(|i| (i * 7919 + i * i * 31) % 430 + 5).collect();
    for name in ["mistral-window", "qwen2-mixed", "phi3-long", "gemma2-caps", "gemma3-local"] {
        let model = load(&root().join("tests/golden/fixtures").join(name));
        let (plain, _) = run(&model, &json!({ "method": "full" }), &tokens);
        for spec in METHODS.iter().filter(|spec| spec.takes_keep()) {
            let all = sized(spec, json!(1), &model);
            let (rows, _) = run(&model, &all, &tokens);
            assert!(rows == plain, "{name}: {all}: a share of 1 changes nothing");
            for keep in [json!(0.5), json!({ "tokens": 40 })] {
                let cache = sized(spec, keep.clone(), &model);
                if Method::parse(&cache).is_err() {
                    continue;
                }
                let (rows, sequence) = run(&model, &cache, &tokens);
                let merging = json!([cache, { "method": "merge" }]);
                match Method::parse(&merging) {
                    Err(error) => assert!(error.to_string().contains("merges what it frees by itself"), "{error}"),
                    Ok(_) => {
                        let (merged, beside) = run(&model, &merging, &tokens);
                        assert!(merged.iter().flatten().all(|x| x.is_finite()), "{name}: {cache}");
                        assert_eq!(beside.memory().payload, sequence.memory().payload, "{name}: {cache}");
                    }
                }
                assert!(rows.iter().flatten().all(|x| x.is_finite()), "{name}: {cache}");
                let memory = sequence.memory();
                for (kept, window) in memory.kept_per_layer.iter().zip(windows(name)) {
                    let most = window.unwrap_or(if keep.is_object() { 80 } else { 100 });
                    assert!(*kept <= most as f64, "{name}: {cache}: {kept} of {most}");
                }
                let each = || memory.kept_per_layer.iter().zip(windows(name));
                let whole: Vec<f64> = each().filter(|(_, window)| window.is_none()).map(|(kept, _)| *kept).collect();
                if !whole.is_empty() {
                    assert!(whole.iter().sum::<f64>() <= 80.0 * whole.len() as f64, "{name}: {cache}: {memory:?}");
                    for (kept, window) in each().filter_map(|(kept, window)| Some((kept, window?))) {
                        assert_eq!(*kept, window as f64 - 1.0, "{name}: {cache}");
                    }
                }
            }
        }
    }
}

#[test]
fn methods_work_where_layers_read_those_of_others() {
    let tokens: Vec<u32> = (0..110u32).map(|i| (i * 7919 + i * i * 31) % 430 + 5).collect();
    for case in goldens().into_iter().filter(|case| case.config.contains_key("kv_sources")) {
        let model = load(case.folder().path());
        let (plain, _) = run(&model, &json!({ "method": "full" }), &tokens);
        for spec in METHODS.iter().filter(|spec| spec.takes_keep()) {
            let method = Method::parse(&sized(spec, json!(0.5), &model)).expect("a method");
            if let Err(error) = model.new_sequence_with(method, true) {
                assert!(
                    spec.name == "kvzip" && error.to_string().contains("repeats prompts"),
                    "{}: {error}",
                    spec.name
                );
                continue;
            }
            let (rows, _) = run(&model, &sized(spec, json!(1), &model), &tokens);
            assert!(rows == plain, "{}: {}: a share of 1 changes nothing", case.name, spec.name);
            let cache = sized(spec, json!(0.5), &model);
            let (rows, sequence) = run(&model, &cache, &tokens);
            assert!(rows.iter().flatten().all(|x| x.is_finite()), "{}: {cache}", case.name);
            let memory = sequence.memory();
            assert!(memory.payload < memory.full, "{}: {cache}: {memory:?}", case.name);
        }
    }
}

/// The rope of each layer: a model whose layers all have one of two ropes is the model that has this one alone.
#[test]
fn a_rope_of_their_own_turns_the_layers_with_a_window() {
    let rope = |theta: f64| json!({ "rope_theta": theta, "rope_type": "default" });
    let mut golden = goldens().remove(0);
    let mut logits = |types: Value, ropes: Value| {
        golden.config = serde_json::from_value(json!({
            "use_sliding_window": true, "sliding_window": 500, "layer_types": types, "rope_parameters": ropes,
        }))
        .expect("an object");
        let model = load(golden.folder().path());
        let prompt = golden.prompt(&model);
        let mut sequence = model.new_sequence().expect("no cap");
        model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads")
    };
    let types = |one: &str, other: &str| json!([one, other, one, other]);
    let (full, sliding) = ("full_attention", "sliding_attention");
    let both = json!({ full: rope(20.0), sliding: rope(10_000.0) });
    let near = |a: &[f32], b: &[f32]| worst(a, b) < 1e-4;
    assert!(near(&logits(types(full, full), both.clone()), &logits(types(full, full), rope(20.0))));
    assert!(near(&logits(types(sliding, sliding), both.clone()), &logits(types(full, full), rope(10_000.0))));
    let mixed = logits(types(full, sliding), both);
    for theta in [20.0, 10_000.0] {
        assert!(!near(&mixed, &logits(types(full, full), rope(theta))));
    }
}

#[test]
fn positions_that_methods_make_up_do_not_go_with_three_axes() {
    let case = goldens().into_iter().find(|case| case.name == "sections").expect("a case");
    let model = load(case.folder().path());
    let prompt = case.prompt(&model);
    for cache in [
        json!({ "method": "streaming", "keep": 0.5, "positions": "cache" }),
        json!({ "method": "prefixkv", "keep": 0.5, "positions": "official" }),
    ] {
        let method = Method::parse(&cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
        let mut sequence = model.new_sequence_with(method, false).expect("no cap");
        let error = model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect_err("refused");
        assert!(error.to_string().contains("three axes"), "{cache}: {error}");
    }
}

#[test]
fn a_turn_that_goes_on_moves_phases_and_positions_apart() {
    let case = goldens().into_iter().find(|case| case.name == "sections").expect("a case");
    let model = load(case.folder().path());
    let mut sequence = model.new_sequence().expect("no cap");
    let mut prompt = case.prompt(&model);
    model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
    // 3 x 4 cells take 4 phases, 2 x 2 take 2.
    assert_eq!((sequence.next_position(), sequence.next_phase()), (30, 20));
    prompt.continue_from(7);
    model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("goes on");
    assert_eq!((sequence.next_position(), sequence.next_phase()), (61, 41));
}

/// Methods speak of the layers of the model, however many of them they size.
#[test]
fn plans_records_and_calibrations_know_the_layers_of_the_model() {
    let tokens: Vec<u32> = (0..60u32).map(|i| (i * 7919 + i * i * 31) % 430 + 5).collect();
    let golden = |name: &str| goldens().into_iter().find(|case| case.name == name).expect("a case");
    let shared = |name: &str| load(golden(name).folder().path());
    // For each layer the sized one that it reads; the last two of Qwen2 have windows.
    for (model, sized) in [
        (load(&root().join("tests/golden/fixtures/qwen2-mixed")), vec![Some(0), Some(1), None, None]),
        (shared("shared"), vec![Some(0), Some(0), None, None]),
        (shared("shared-softcap"), vec![Some(0), Some(0)]),
    ] {
        let own: Vec<usize> = (0..sized.len()).filter(|layer| sized[*layer] == Some(*layer)).collect();
        let prompt = model.expand(&tokens, 0).expect("text");
        let sequence = |cache: &Value| {
            let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
            model.new_sequence_with(method, false)
        };

        let mut watched = sequence(&json!({ "method": "prefixkv", "keep": 0.5 })).expect("no cap");
        watched.record();
        watched.keep_plans();
        model.prefill(&prompt, &[], &mut watched, &|| Ok(())).expect("reads");
        let record = watched.take_record().expect("was asked for");
        for (layer, sized) in sized.iter().enumerate() {
            let importance = &record.layers[layer].importance;
            assert_eq!(importance.len(), if sized.is_some() { 60 } else { 0 }, "layer {layer}");
            assert!(sized.is_none_or(|sized| *importance == record.layers[sized].importance), "layer {layer}");
        }
        let planned: BTreeSet<usize> =
            watched.take_plans().iter().flat_map(|p| &p.plan.lanes).map(|lane| lane.layer).collect();
        assert!(planned.iter().eq(&own), "{planned:?}");

        let mut profiled = sequence(&json!({ "method": "prefixkv", "keep": 0.5 })).expect("no cap");
        profiled.profile(vec![0.5]);
        model.prefill(&prompt, &[], &mut profiled, &|| Ok(())).expect("reads");
        let retained = profiled.take_profile().remove(0);
        assert_eq!(retained.len(), own.len());
        let calibrated = |layers: usize, retained: &[f64]| {
            let calibration = json!({
                "format": "prefixkv-calibration", "version": 1, "model": { "layers": layers },
                "rows": [{ "keep": 0.5, "retained": retained }],
            });
            sequence(&json!({ "method": "prefixkv", "keep": 0.5, "calibration": calibration }))
        };
        let mut offline = calibrated(own.len(), &retained).expect("of this model");
        model.prefill(&prompt, &[], &mut offline, &|| Ok(())).expect("reads");
        for (share, layer) in retained.iter().zip(&own) {
            let kept = offline.memory().kept_per_layer[*layer];
            assert!((kept - share * 60.0).abs() <= 1.0, "layer {layer}: {kept} for {share}");
        }
        if own.len() < sized.len() {
            assert!(calibrated(sized.len(), &vec![0.5; sized.len()]).is_err(), "of a model with more layers to size");
        }
    }
}

/// A method outside sees the layers that it sizes, with the sums of their own queries, and its plan waits for every reader.
#[test]
fn a_plan_from_outside_is_carried_out_in_the_layers_that_it_names() {
    let tokens: Vec<u32> = (0..70u32).map(|i| (i * 7919 + i * i * 31) % 430 + 5).collect();
    let cache = json!({ "method": "custom", "keep": 0.5, "needs": { "sums": "columns", "queries": 2 } });
    let mut cases: Vec<(Model, Vec<usize>)> = vec![
        (load(&root().join("tests/golden/fixtures/mistral-window")), vec![0, 1, 2]),
        (load(&root().join("tests/golden/fixtures/qwen2-mixed")), vec![0, 1]),
    ];
    for case in goldens().into_iter().filter(|case| case.config.contains_key("kv_sources")) {
        let own = if case.name == "shared-far" { vec![0, 1] } else { vec![0] };
        cases.push((load(case.folder().path()), own));
    }
    for (model, own) in cases {
        let method = Method::parse(&cache).expect("a method");
        let mut sequence = model.new_sequence_with(method, true).expect("no cap");
        let prompt = model.expand(&tokens[..60], 0).expect("text");
        model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        let view = sequence.question().expect("shows").expect("waits for a plan");
        assert_eq!(view.lanes.iter().map(|lane| lane.layer).collect::<Vec<_>>(), own);
        assert!(view.lanes.iter().all(|lane| lane.sums.is_some() && lane.queries.is_some()));
        // The first and the last entries.
        let keep: Vec<u32> = (0..10).chain(40..60).collect();
        let lanes = own.iter().map(|_| LaneReply { keep: Some(keep.clone()), merge: Vec::new() }).collect();
        sequence.answer(&PlanReply { lanes }).expect("carried out");
        let logits = model.decode(tokens[60], &mut sequence).expect("goes on");
        assert!(logits.iter().all(|x| x.is_finite()));
        for layer in &own {
            let held = &sequence.kept()[*layer][0].positions;
            // Of a layer with a window, what is in sight.
            let want: Vec<u32> = keep.iter().copied().chain([60]).collect();
            assert!(held.iter().all(|position| want.contains(position)) && held.len() >= 12, "layer {layer}: {held:?}");
        }
    }
}
