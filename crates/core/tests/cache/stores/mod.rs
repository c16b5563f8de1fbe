//! Stores: what stays is kept in few bits, attention reads it so, and memory says what it takes.

mod layered;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use prefixkv_core::Error;
use prefixkv_core::cache::{Format, MemoryReport, Modality, Piece, Pool, Shape, Span};
use prefixkv_core::method::external::{LaneReply, PlanReply};
use prefixkv_core::method::{Encode, METHODS, Method, MethodSpec, Role};
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::{Placing, Planned, Sequence};
use prefixkv_kernels::attention::{AttentionParams, Rows};
use prefixkv_kernels::codec::Basis;
use prefixkv_kernels::rotary::{Angles, Frequencies};
use serde_json::{Value, json};

use crate::attention::{attention, noise};
use crate::calibrated::{calibration, codebooks};

/// The stores, in each of their widths.
fn stores() -> Vec<Value> {
    let mut stores = ["bf16", "fp8", "int8", "int4", "int2"].map(|name| json!({ "method": name })).to_vec();
    stores.extend([4, 2].map(|bits| json!({ "method": "turboquant", "bits": bits })));
    stores
}

fn name(store: &Value) -> &str {
    store["method"].as_str().expect("a name")
}

/// A store of a method with its defaults, for models of this shape.
fn store_of(spec: &MethodSpec, window: usize, layers: usize, kv_heads: usize, head_dim: usize) -> Value {
    let mut store = json!({ "method": spec.name, "window": window });
    if let Some(calibration) = calibration(spec, layers, kv_heads, head_dim) {
        store["calibration"] = calibration;
    }
    store
}

/// A store with a window, and where keys can be grouped in two ways, with one of them.
fn with(store: &Value, window: usize, keys: &str) -> Value {
    let mut store = store.clone();
    store["window"] = json!(window);
    if name(&store).starts_with("int") {
        store["keys"] = json!(keys);
    }
    store
}

/// Bits of a number, scales included, of heads of `dim` channels.
fn bits(store: &Value, dim: usize) -> f64 {
    // Where 32 does not divide a head, its groups of channels are shorter.
    let short = if dim.is_multiple_of(32) { 0.0 } else { 0.5 };
    match name(store) {
        "bf16" => 16.0,
        "fp8" => 8.0,
        "int8" => 9.0 + 2.0 * short,
        "int4" => 5.0 + short,
        // 4 where a request says nothing.
        "turboquant" => store["bits"].as_f64().unwrap_or(4.0) + 16.0 / dim as f64,
        _ => 3.0 + short,
    }
}

/// The most that is left of a cache in f32 of which some entries stay whole.
fn part(store: &Value) -> f64 {
    match name(store) {
        // Of the keys six tenths, and half to three quarters of both.
        "think" | "lorc" | "cskv" => 0.9,
        // Of half of the layers, or of those with a neighbour, the entries that two have.
        "minicache" | "clla" => 1.0,
        _ if bits(store, 64) > 9.0 => 5.0 / 6.0,
        _ => 2.0 / 3.0,
    }
}

fn shape(head_dim: usize, format: Format) -> Shape {
    Shape { layers: 2, kv_heads: 2, head_dim, format }
}

fn frequencies(shape: &Shape) -> Vec<f32> {
    (0..shape.head_dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / shape.head_dim as f32)).collect()
}

fn sequence(shape: Shape, pool: &Pool, cache: &Value) -> Sequence {
    let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
    Sequence::with_method(shape, pool, method, false).unwrap_or_else(|e| panic!("{cache}: {e}"))
}

/// A prompt of `n` positions, and `steps` more.
fn feed(sequence: &mut Sequence, shape: &Shape, n: usize, steps: usize, mut each: impl FnMut(&Sequence)) {
    let width = shape.kv_heads * shape.head_dim;
    let rows = |layer: usize, from: usize, n: usize| {
        [1, 2].map(|part| noise(10 * layer + part, (from + n) * width)[from * width..].to_vec())
    };
    sequence.begin_prompt(&[Span { modality: Modality::Text, start: 0, len: n }], &Placing::InOrder).expect("begins");
    let angles = Angles::new(0..n as u32, &frequencies(shape), 1.0);
    sequence.look_ahead(&[Frequencies::new(frequencies(shape), None)], n).expect("fits");
    for layer in 0..shape.layers {
        let [keys, values] = rows(layer, 0, n);
        sequence.store(layer, Rows::dense(&keys, width), Rows::dense(&values, width), Some(&angles)).expect("stores");
        // The attention of the prompt at each position.
        let sums = vec![noise(layer + 77, n).iter().map(|x| x.abs()).collect(); shape.kv_heads];
        let queries = noise(layer + 5, sequence.wanted_queries() * width);
        if !queries.is_empty() {
            sequence
                .keep_queries(layer, &AttentionParams::new(shape.kv_heads, shape.kv_heads, shape.head_dim), &queries)
                .expect("shown");
        }
        sequence.attended(layer, &sums).expect("frees");
    }
    sequence.finish_prompt().expect("ends");
    each(sequence);
    for position in n..n + steps {
        sequence.begin_step().expect("begins");
        let angles = Angles::new([position as u32], &frequencies(shape), 1.0);
        for layer in 0..shape.layers {
            let [keys, values] = rows(layer, position, 1);
            sequence
                .store(layer, Rows::dense(&keys, width), Rows::dense(&values, width), Some(&angles))
                .expect("stores");
            let places = sequence.lanes(layer).iter().map(|lane| vec![0.01; lane.places()]).collect::<Vec<_>>();
            sequence.stepped(layer, &places);
        }
        sequence.finish_step().expect("ends");
        each(sequence);
    }
}

/// Generated tokens at the positions from `first` on.
fn feed_more(sequence: &mut Sequence, shape: &Shape, first: usize, n: usize) {
    let width = shape.kv_heads * shape.head_dim;
    for position in first..first + n {
        sequence.begin_step().expect("begins");
        let angles = Angles::new([position as u32], &frequencies(shape), 1.0);
        for layer in 0..shape.layers {
            let row = noise(position + layer, width);
            sequence.store(layer, Rows::dense(&row, width), Rows::dense(&row, width), Some(&angles)).expect("stores");
            sequence.stepped(layer, &[]);
        }
        sequence.finish_step().expect("ends");
    }
}

/// The attention of one query per head to a layer, which must be the f64 reference's on the decoded entries.
fn attend(sequence: &Sequence, layer: usize) -> Vec<f32> {
    let [out, want] = attention(sequence, layer);
    for (got, want) in out.iter().zip(&want) {
        assert!((got - want).abs() < 2e-5, "{got} for {want}");
    }
    out
}

/// Everything that the pool holds is told apart; slack is room for entries to come.
fn told(memory: &MemoryReport, shape: &Shape) {
    let told = memory.payload + memory.scales + memory.metadata + memory.dead;
    let slack = 16 * 2 * shape.kv_heads * shape.head_dim * shape.format.bytes() * shape.layers;
    assert!(memory.resident >= told && memory.resident - told <= slack as u64, "{memory:?}");
    assert!(memory.window <= memory.payload, "{memory:?}");
}

#[test]
fn a_store_alone_keeps_all_entries_in_its_bits_and_the_last_ones_whole() {
    for store in stores() {
        for format in [Format::F32, Format::F16] {
            for (dim, window) in [(64usize, 0), (80, 40), (128, 128)] {
                if name(&store) == "turboquant" && !dim.is_power_of_two() {
                    continue;
                }
                let (pool, shape) = (Pool::unlimited(), shape(dim, format));
                let mut cache = store.clone();
                cache["window"] = json!(window);
                let bits = bits(&store, dim);
                let plain = sequence(shape, &pool, &json!({ "method": "full" }));
                let mut full = plain;
                feed(&mut full, &shape, 300, 70, |_| ());
                let mut small = sequence(shape, &pool, &cache);
                let entry = (2 * shape.kv_heads * dim * format.bytes()) as u64;
                feed(&mut small, &shape, 300, 70, |sequence| {
                    let memory = sequence.memory();
                    told(&memory, &shape);
                    let n = u64::from(sequence.next_position());
                    assert_eq!(memory.kept_per_layer, [n as f64; 2], "{cache}: nothing is evicted");
                    // Entries leave the window 32 at a time.
                    let whole = memory.window / entry / 2;
                    assert!((window..window + 32).contains(&whole), "{cache}: {whole} of {n} in full precision");
                    let rest = n - whole;
                    let row = (2 * shape.kv_heads * dim) as f64;
                    let stored = memory.payload + memory.scales - memory.window;
                    assert_eq!(stored as f64, 2.0 * rest as f64 * row * bits / 8.0, "{cache} {dim}");
                    let mean = (rest as f64 * bits + (whole * 8 * format.bytes() as u64) as f64) / n as f64;
                    assert!((memory.effective_bits - mean).abs() < 1e-6, "{} for {mean}", memory.effective_bits);
                });
                assert_eq!(small.kept(), full.kept(), "positions stay true");
                let smaller = small.memory().resident < full.memory().resident;
                assert!(smaller || bits >= 8.0 * format.bytes() as f64, "{cache}");
                for layer in 0..shape.layers {
                    let (got, want) = (attend(&small, layer), attend(&full, layer));
                    let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    let most = if bits < 4.0 { 0.2 } else { 0.03 };
                    assert!(worst > 0.0 && worst < most, "{cache} {dim}: off by {worst}");
                }
                drop((small, full));
                assert_eq!(pool.used(), 0);
            }
        }
    }
}

#[test]
fn a_store_behind_a_method_stores_what_the_method_leaves() {
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    for chooses in [
        json!({ "method": "prefixkv", "keep": 0.4 }),
        json!({ "method": "h2o", "keep": 0.4 }),
        json!({ "method": "knorm", "keep": 0.5 }),
        json!({ "method": "h2o", "keep": { "tokens": 120 } }),
    ] {
        let mut alone = sequence(shape, &pool, &chooses);
        feed(&mut alone, &shape, 300, 90, |_| ());
        let (kept, payload) = (alone.kept(), alone.memory().payload);
        drop(alone);
        for store in stores() {
            for keys in ["channel", "entry"] {
                let cache = json!([chooses, with(&store, 20, keys)]);
                let mut small = sequence(shape, &pool, &cache);
                let mut resident = Vec::new();
                feed(&mut small, &shape, 300, 90, |sequence| {
                    let memory = sequence.memory();
                    told(&memory, &shape);
                    assert!(keys == "channel" || memory.dead == 0, "{cache}");
                    resident.push(memory.resident);
                    for layer in 0..shape.layers {
                        attend(sequence, layer);
                    }
                });
                // Scores of keys are those of the keys as they are stored, so knorm chooses otherwise while generating.
                if chooses["method"] != "knorm" {
                    assert_eq!(small.kept(), kept, "{cache}: the method chooses as without a store");
                }
                let memory = small.memory();
                let most = payload as f64 * part(&store);
                assert!(((memory.payload + memory.scales) as f64) < most, "{cache}: {memory:?} of {payload}");
                drop(small);
                assert_eq!(pool.used(), 0);
            }
        }
    }
}

/// Nothing but plans is looked at: what they encode, less what they free, is what memory counts.
#[test]
fn plans_say_how_entries_are_stored() {
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    for (first, evicting) in [(json!({ "method": "full" }), false), (json!({ "method": "h2o", "keep": 0.5 }), true)] {
        let cache = json!([first, { "method": "int4", "window": 20, "keys": "entry" }]);
        let mut small = sequence(shape, &pool, &cache);
        small.keep_plans();
        feed(&mut small, &shape, 300, 70, |_| ());
        let mut encoded: HashSet<(usize, usize, u32)> = HashSet::new();
        for Planned { plan, .. } in small.take_plans() {
            for lane in plan.lanes {
                if let Some(keep) = &lane.keep {
                    let stays: HashSet<u32> = keep.iter().map(|entry| entry.position).collect();
                    encoded.retain(|at| (at.0, at.1) != (lane.layer, lane.lane) || stays.contains(&at.2));
                }
                for Encode { codec, positions, .. } in lane.encode {
                    assert_eq!(codec.effective_bits(1, 64), 5.0);
                    for position in positions {
                        assert!(encoded.insert((lane.layer, lane.lane, position)), "{cache}: {position} twice");
                    }
                }
            }
            for gone in plan.evict {
                encoded.remove(&(gone.layer as usize, gone.lane as usize, gone.entry.position));
            }
        }
        let memory = small.memory();
        let lanes = small.lanes(0).len();
        // Keys and values of four bits, and a scale and a zero for every 32 of them.
        let entry = (64 + 2 * 2 * 4) * shape.kv_heads / lanes;
        assert_eq!(encoded.len() * entry, (memory.payload + memory.scales - memory.window) as usize, "{cache}");
        assert!(!encoded.is_empty() && (lanes > 1) == evicting, "{cache}");
    }
}

#[test]
fn a_store_waits_for_the_plan_of_a_method_outside() {
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    let cache = json!([{ "method": "custom", "needs": { "keys": true } }, { "method": "int4", "window": 8 }]);
    let mut small = sequence(shape, &pool, &cache);
    feed(&mut small, &shape, 200, 0, |sequence| assert_eq!(sequence.memory().scales, 0, "nothing is chosen yet"));
    assert!(small.question().expect("a view").is_some());
    let keep: Vec<u32> = (0..200).step_by(2).collect();
    let lane = LaneReply { keep: Some(keep), merge: Vec::new() };
    small.answer(&PlanReply { lanes: vec![lane; 2] }).expect("a sound plan");
    let memory = small.memory();
    assert_eq!(memory.kept_per_layer, [100.0; 2]);
    // 96 would leave less than the window.
    assert_eq!(memory.window, 2 * (100 - 64) * (2 * shape.kv_heads * 64 * 4) as u64);
    assert!(memory.scales > 0);
    attend(&small, 1);
}

#[test]
fn a_cap_in_bytes_is_held_with_more_entries() {
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    let bytes = 300_000;
    let h2o = json!({ "method": "h2o", "keep": { "bytes": bytes } });
    let mut entries = Vec::new();
    for cache in [h2o.clone(), json!([h2o, { "method": "int4", "window": 16, "keys": "entry" }])] {
        let mut small = sequence(shape, &pool, &cache);
        feed(&mut small, &shape, 400, 120, |sequence| {
            let resident = sequence.memory().resident;
            assert!(resident <= bytes, "{cache}: {resident}");
        });
        entries.push(small.memory().kept_per_layer.iter().sum::<f64>());
    }
    assert!(entries[1] > 2.5 * entries[0], "{entries:?}");
}

#[test]
fn a_transform_gives_the_attention_of_the_keys_and_values_that_went_through_it() {
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    let outs = [false, true].map(|rotate| {
        let mut small = sequence(shape, &pool, &json!({ "method": "int8", "rotate": rotate, "window": 33 }));
        feed(&mut small, &shape, 200, 40, |_| ());
        attend(&small, 1)
    });
    let worst = outs[0].iter().zip(&outs[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.0 && worst < 0.01, "{worst}");
}

/// The positions that plans have put into codecs, per layer by eighths of a bit of a number.
fn encoded(sequence: &mut Sequence, dim: usize) -> Vec<BTreeMap<u64, Vec<u32>>> {
    let mut of = vec![BTreeMap::new(); 2];
    for Planned { plan, .. } in sequence.take_plans() {
        for lane in plan.lanes {
            for Encode { codec, positions, .. } in lane.encode {
                let bits = (codec.effective_bits(1, dim) * 8.0).round() as u64;
                of[lane.layer].entry(bits).or_insert_with(Vec::new).extend(positions);
            }
        }
    }
    of
}

/// Two prompts of a chat: text, a picture and text each, with three rows that are larger than the others.
#[test]
fn akvq_vl_keeps_pivots_whole_in_every_turn() {
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    let cache = json!({ "method": "akvqVl", "window": 10, "pivots": 3, "textLayers": 1 });
    let method = Method::parse(&cache).expect("sound");
    let mut sequence = Sequence::with_method(shape, &pool, method, true).expect("fits");
    sequence.keep_plans();
    let (width, mut past) = (shape.kv_heads * shape.head_dim, 0);
    let mut pivots = Vec::new();
    for turn in 0..2 {
        let image = Modality::Image { index: turn, piece: Piece::base(10, 10) };
        let spans = [(Modality::Text, 20), (image, 100), (Modality::Text, 30)];
        let mut start = past;
        let spans = spans.map(|(modality, len)| {
            start += len;
            Span { modality, start: start - len, len }
        });
        sequence.begin_prompt(&spans, &Placing::InOrder).expect("begins");
        let (n, rows) = (150, noise(turn, 150 * width));
        let angles = Angles::new(past as u32..(past + n) as u32, &frequencies(&shape), 1.0);
        for layer in 0..2 {
            let rows = Rows::dense(&rows, width);
            sequence.store(layer, rows, rows, Some(&angles)).expect("stores");
            sequence.attended(layer, &[]).expect("encodes");
            assert_eq!(sequence.watches(layer), layer == 0);
            if layer == 0 {
                let mut peaks = vec![1.0; n];
                for (row, peak) in [(5, 900.0), (70, 700.0), (71 + turn, 800.0), (140, 600.0)] {
                    peaks[row] = peak;
                }
                sequence.see_peaks(&peaks);
            }
        }
        sequence.finish_prompt().expect("ends");
        pivots.extend([5, 70, 71 + turn].map(|row| (past + row) as u32));
        past += n;
        let held = |layer: usize| sequence.lanes(layer)[0].unencoded();
        assert_eq!((held(0), held(1)), (10, 10 + pivots.len()), "turn {turn}");
    }
    let [text, rest] = &encoded(&mut sequence, 64)[..] else { panic!("two layers") };
    let images: Vec<u32> = (20..120).chain(170..270).collect();
    // 2 and 4 bits, and a scale and a zero of f16 for 64 channels.
    assert_eq!(text.keys().copied().collect::<Vec<_>>(), [20, 36]);
    assert_eq!(text[&20], images);
    assert!(text[&36].iter().all(|position| !images.contains(position)) && text[&36].len() == 300 - 200 - 10);
    let whole: Vec<u32> = (0..290).filter(|position| !pivots.contains(position)).collect();
    let mut coarse = rest[&20].clone();
    coarse.sort_unstable();
    assert_eq!((rest.len(), coarse), (1, whole));
}

/// The share of a layer's attention that is asked for decides how many entries are in the first class.
#[test]
fn zipvl_finds_for_itself_how_many_entries_matter() {
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    let mut before = 0;
    for mass in [0.3, 0.9, 1.0] {
        let cache = json!([{ "method": "knorm", "keep": 0.6 }, { "method": "zipvl", "mass": mass, "probes": 20 }]);
        let mut small = sequence(shape, &pool, &cache);
        small.keep_plans();
        let spans = [Span { modality: Modality::Text, start: 0, len: 300 }];
        small.begin_prompt(&spans, &Placing::InOrder).expect("begins");
        let weights = small.query_weights(0).expect("probes");
        assert_eq!(weights.iter().sum::<f32>(), 40.0, "the last twenty, and as many others");
        assert!(weights[280..].iter().all(|weight| *weight == 1.0));
        drop(small);
        let mut small = sequence(shape, &pool, &cache);
        small.keep_plans();
        feed(&mut small, &shape, 300, 110, |_| ());
        let layers = encoded(&mut small, 64);
        for classes in &layers {
            let all: usize = classes.values().map(Vec::len).sum();
            assert!(all >= 2 * (180 + 60), "{mass}: {all} of 180 of the prompt and 100 generated, of two heads");
        }
        // 4 bits, and a scale and a zero of f16 for 32 channels.
        let first = layers[0][&40].iter().filter(|position| **position < 300).count();
        assert!(first > before, "{mass}: {first} and {before}");
        before = first;
    }
    assert_eq!(before, 2 * 180, "all attention is in the first class, of both heads");
}

/// At a length where a cache matters, the pool holds what the bits of a number say, within a fiftieth; and while a prompt is read no more
/// than one layer of it is whole.
#[test]
fn bytes_are_what_the_bits_say() {
    let shape = Shape { layers: 4, kv_heads: 8, head_dim: 128, format: Format::F32 };
    let n = 2048;
    let layer = (n * 2 * shape.kv_heads * shape.head_dim * 4) as f64;
    // LoRC reads the weights of a model, of which there is none here (tests/bases.rs has one).
    for spec in METHODS.iter().filter(|spec| spec.role == Role::Stores && spec.name != "lorc") {
        let (pool, cache) = (Pool::unlimited(), store_of(spec, 32, 4, 8, 128));
        let mut small = sequence(shape, &pool, &cache);
        feed(&mut small, &shape, n, 0, |_| ());
        let memory = small.memory();
        let said = memory.effective_bits / 8.0 * (layer / 4.0) * shape.layers as f64;
        let resident = memory.resident as f64;
        // Directions are as large for one entry as for many: of each lane one basis, in its first segment.
        let first =
            |layer| small.lanes(layer).iter().filter_map(|lane| lane.view(None).runs[0].basis).map(Basis::bytes);
        let beside: usize = (0..4).flat_map(first).sum();
        let entries = resident - beside as f64;
        assert!((said..said * 1.02).contains(&entries), "{}: {entries} of {said}", spec.name);
        assert_eq!(memory.resident, pool.used(), "{cache}");
        // The last layer is there in both for a moment, or two that are stored together.
        let both = if ["minicache", "clla"].contains(&spec.name) { 2.0 } else { 1.0 };
        let most = resident + both * (layer + resident / 4.0);
        assert!((memory.peak as f64) < most, "{cache}: {} of {most}", memory.peak);
    }
}

#[test]
fn combinations_that_make_no_sense_are_refused_with_the_reason() {
    let refuse = |cache: Value| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => reason,
        other => panic!("{cache}: {other:?}"),
    };
    let h2o = json!({ "method": "h2o", "keep": 0.5 });
    assert!(refuse(json!([{ "method": "int4" }, { "method": "int8" }])).contains("both say how entries are stored"));
    assert!(refuse(json!([{ "method": "int4" }, h2o])).contains("comes behind"));
    assert!(refuse(json!({ "method": "int4", "keep": 0.5 })).contains("no `keep`"));
    let cap = json!({ "method": "h2o", "keep": { "bytes": 100_000 } });
    assert!(refuse(json!([cap, { "method": "int4" }])).contains("keys: \"entry\""));
    let ranks = json!({ "method": "streaming", "keep": 0.5, "positions": "cache" });
    assert!(refuse(json!([ranks.clone(), { "method": "int4", "rotate": true }])).contains("rotate"));
    let before = json!({ "method": "kivi", "rope": "before" });
    assert!(refuse(json!([ranks.clone(), before])).contains("`rope: \"before\"` of kivi rotates keys to their own"));
    let both = json!({ "method": "int2", "rope": "before", "rotate": true });
    assert!(refuse(both).contains("take one of the two"));
    assert!(refuse(json!([ranks.clone(), { "method": "turboquant" }])).contains("turboquant transforms keys"));
    assert!(refuse(json!({ "method": "turboquant", "bits": 3 })).contains("2 or 4, found 3"));
    assert!(refuse(json!({ "method": "turboquant", "bits": 8 })).contains("from 2 to 4"));
    assert!(refuse(json!({ "method": "int4", "group": 65 })).contains("from 8 to 64"));
    assert!(refuse(json!({ "method": "int4", "group": 20 })).contains("multiple of 8"));
    assert!(refuse(json!([h2o, { "method": "int4", "windw": 5 }])).contains("windw"));

    let of_shape = |head_dim: usize, cache: Value| {
        let method = Method::parse(&cache).expect("sound");
        match Sequence::with_method(shape(head_dim, Format::F32), &Pool::unlimited(), method, false) {
            Err(Error::Option { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(of_shape(12, json!({ "method": "int4" })).contains("multiple of 8"));
    assert!(of_shape(80, json!({ "method": "int4", "rotate": true })).contains("power of two"));
    assert!(of_shape(80, json!({ "method": "turboquant" })).contains("power of two"));
    assert!(of_shape(4, json!({ "method": "turboquant" })).contains("multiple of 8"));
    assert!(of_shape(80, json!({ "method": "akvqVl" })).contains("power of two"));
    assert!(refuse(json!({ "method": "akvqVl", "clip": 0.805 })).contains("hundredths"));
    assert!(refuse(json!([ranks, { "method": "akvqVl" }])).contains("hadamard: false"));
    assert!(refuse(json!([h2o, { "method": "zipvl" }])).contains("gathers the attention"));
}

/// The embedded model answers a question about a picture from a cache, in so many tokens.
fn answers() -> impl Fn(&Value, usize) -> (Vec<u32>, MemoryReport) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let options = LoadOptions::new(root.join("models/tiny-llava"));
    let model = Model::load(&options, &mut |_| Ok(())).expect("loads");
    let bytes = std::fs::read(root.join("data/scenes/scene-001.png")).expect("a scene");
    let pixels = model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
    let pixels = [pixels];
    let features = model.encode_images(&pixels, &|| Ok(())).expect("encodes");
    let tokens = model.tokenizer().encode_prompt("USER: <image>\nDescribe the image. ASSISTANT:").expect("encodes");
    let prompt = model.expand(&tokens, 1).expect("one image");
    move |cache: &Value, most: usize| {
        let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
        let mut sequence = model.new_sequence_with(method, false).unwrap_or_else(|e| panic!("{cache}: {e}"));
        let features = match sequence.pictures() {
            None => features.clone(),
            some => model.encode_images_for(&pixels, some, &|| Ok(())).expect("encodes"),
        };
        let mut logits = model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
        let mut answer = Vec::new();
        for _ in 0..most {
            assert!(logits.iter().all(|logit| logit.is_finite()), "{cache}");
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
            answer.push(best as u32);
            logits = model.decode(best as u32, &mut sequence).expect("goes on");
        }
        (answer, sequence.memory())
    }
}

/// The cells of docs/methods/combinations.md with a store run, and keep as many entries as without.
#[test]
fn every_store_goes_behind_every_method() {
    let (run, mut refused) = (answers(), 0);
    for spec in METHODS.iter().filter(|spec| spec.role == Role::Chooses) {
        let mut chooses = json!({ "method": spec.name });
        if spec.takes_keep() {
            chooses["keep"] = json!(0.5);
        }
        if let Some(calibration) = calibration(spec, 10, 6, 32) {
            chooses["calibration"] = calibration;
        }
        let (_, alone) = run(&chooses, 40);
        for store in METHODS.iter().filter(|spec| spec.role == Role::Stores) {
            let store = store_of(store, 8, 10, 6, 32);
            let cache = json!([chooses, store]);
            if let Err(error) = Method::parse(&cache) {
                let looks = ["expectedAttention", "cake", "vlCache", "tgvKv", "airCache", "kvzip"].contains(&spec.name)
                    && error.to_string().contains("single queries");
                let merges = name(&store) == "clla"
                    && ["elastic", "lookM"].contains(&spec.name)
                    && error.to_string().contains("merge: \"none\"");
                let expected = name(&store) == "zipvl" || looks || merges;
                assert!(matches!(error, Error::Option { .. }) && expected, "{cache}: {error}");
                refused += 1;
                continue;
            }
            let (_, memory) = run(&cache, 40);
            if spec.name == "prefixkv" && ["lorc", "cskv", "kvquant", "clla"].contains(&name(&store)) {
                // The sizes of its layers follow from keys as they are held, here before their rotary embedding. The whole does not.
                let whole = |memory: &MemoryReport| memory.kept_per_layer.iter().sum::<f64>();
                let off = (whole(&memory) - whole(&alone)).abs();
                assert!(off <= memory.kept_per_layer.len() as f64, "{} and {store}: {off}", spec.name);
            } else {
                assert_eq!(memory.kept_per_layer, alone.kept_per_layer, "{} and {store}", spec.name);
            }
            let most = alone.payload as f64 * part(&store);
            assert!(((memory.payload + memory.scales) as f64) < most, "{} and {store}: {memory:?}", spec.name);
        }
    }
    // Twenty-two methods gather sums of attention from queries of their own, or none; six look at single queries, and four stores have keys
    // before their rotary embedding; two merge by themselves, which one store cannot.
    assert_eq!(refused, 22 + 4 * 6 + 2);
}

/// Entries go one by one, chats and forks keep their tables, and what the model was not calibrated for is refused.
#[test]
fn kvquant_stores_in_the_levels_of_its_calibration() {
    let shape = shape(64, Format::F32);
    let pool = Pool::unlimited();
    for (bits, outliers, number) in [(4, 0.01, 4.0), (2, 0.01, 2.0), (2, 0.0, 2.0), (4, 0.05, 4.0)] {
        let mut calibration = codebooks(2, 2, 64, bits);
        calibration["outliers"] = json!(outliers);
        let store = json!({ "method": "kvquant", "window": 8, "sinks": 2, "calibration": calibration });
        let mut small = sequence(shape, &pool, &store);
        feed(&mut small, &shape, 100, 70, |now| told(&now.memory(), &shape));
        let memory = small.memory();
        // The first two, the window, and what has not filled a block.
        let whole = 2 + 8 + (100 + 70 - 100) % 32;
        assert_eq!(memory.window, (whole * 2 * 2 * 2 * 64 * 4) as u64, "{bits}");
        let apart = (outliers * 64.0f64).ceil();
        let of_row = number * 64.0 / 8.0;
        assert_eq!(memory.payload - memory.window, ((170 - whole) * 2 * 2 * 2) as u64 * of_row as u64);
        assert_eq!(memory.scales, ((170 - whole) * 2 * 2) as u64 * (8.0 * apart + 4.0) as u64);
        let mut fork = small.fork().expect("no cap");
        feed_more(&mut fork, &shape, 170, 40);
        assert!(fork.memory().payload > memory.payload);
        drop((fork, small));
        assert_eq!(pool.used(), 0);
    }
    let behind =
        |chooses: Value| json!([chooses, { "method": "kvquant", "window": 8, "calibration": codebooks(2, 2, 64, 2) }]);
    for chooses in [json!({ "method": "h2o", "keep": { "tokens": 50 } }), json!({ "method": "adakv", "keep": 0.5 })] {
        let mut small = sequence(shape, &pool, &behind(chooses));
        feed(&mut small, &shape, 150, 80, |now| told(&now.memory(), &shape));
        assert_eq!(small.memory().dead, 0);
    }
    let refuse = |cache: Value| Method::parse(&cache).expect_err("refused").to_string();
    assert!(refuse(json!({ "method": "kvquant" })).contains("calibrateKvquant"));
    let ranks = json!({ "method": "streaming", "keep": 0.5, "positions": "cache" });
    assert!(refuse(behind(ranks)).contains("to their ranks"));
    let mut small = sequence(shape, &pool, &behind(json!({ "method": "h2o", "keep": { "bytes": 60_000 } })));
    feed(&mut small, &shape, 150, 80, |now| assert!(now.memory().resident <= 60_000, "{:?}", now.memory()));
}

#[test]
fn keys_before_their_rotary_embedding_change_no_token() {
    let run = answers();
    for chooses in [None, Some(json!({ "method": "prefixkv", "keep": 0.5 }))] {
        let tokens = ["after", "before"].map(|rope| {
            let store = json!({ "method": "int8", "window": 1_000_000, "rope": rope });
            run(&chooses.as_ref().map_or(store.clone(), |chooses| json!([chooses, store])), 60).0
        });
        assert_eq!(tokens[0], tokens[1], "{chooses:?}");
    }
    // In codes they lie elsewhere, so that an answer in two bits is another one, of as many bytes.
    let [after, before] =
        ["after", "before"].map(|rope| run(&json!({ "method": "kivi", "window": 8, "rope": rope }), 60));
    assert_eq!((after.1.payload, after.1.scales), (before.1.payload, before.1.scales));
}

#[test]
fn the_embedded_model_answers_from_a_small_cache() {
    let run = answers();
    let run = |cache: Value| run(&cache, 40);
    let (full, whole) = run(json!({ "method": "full" }));
    assert_eq!((whole.scales, whole.window, whole.effective_bits), (0, 0, 32.0));
    for (name, bits) in [("bf16", 16.0), ("fp8", 8.0), ("int8", 9.0), ("int4", 5.0), ("turboquant", 4.25)] {
        let (answer, memory) = run(json!({ "method": name, "window": 16 }));
        let same = answer.iter().zip(&full).take_while(|(a, b)| a == b).count();
        assert!(same >= 20, "{name}: {same} of {} tokens", full.len());
        assert!(memory.effective_bits > bits && memory.effective_bits < bits + 9.0, "{name}: {memory:?}");
        assert!(memory.resident < whole.resident * 2 / 3, "{name}: {} of {}", memory.resident, whole.resident);
    }
}
