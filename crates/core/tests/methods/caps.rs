//! "Never more than this many": caps hold for every prompt, the shortest included, while generating too; and what is refused is
//! refused with a size that works.

use std::path::Path;

use crate::calibrated::calibration;
use prefixkv_core::Error;
use prefixkv_core::cache::{Format, Modality, Pool, Shape, Span};
use prefixkv_core::method::{METHODS, Method};
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::{Placing, Sequence};
use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::rotary::Angles;
use serde_json::{Value, json};

const GENERATED: usize = 24;

fn model() -> Model {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures/llama-linear-tied");
    Model::load(&LoadOptions::new(source), &mut |_| Ok(())).expect("loads")
}

/// Every method with options that protect little, much, and more than there is.
fn methods() -> Vec<Value> {
    let mut all = Vec::new();
    for spec in METHODS.iter().filter(|spec| spec.takes_keep()) {
        let has = |name: &str| spec.options.iter().any(|option| option.name == name);
        all.push(json!({ "method": spec.name }));
        for sinks in [0, 3, 30] {
            if has("sinks") {
                all.push(json!({ "method": spec.name, "sinks": sinks }));
            }
        }
        if has("recent") {
            all.push(json!({ "method": spec.name, "recent": 7 }));
        }
        if has("recentShare") {
            all.push(json!({ "method": spec.name, "recentShare": 1, "sinks": 2 }));
            all.push(json!({ "method": spec.name, "recentShare": 0.9 }));
        }
        if has("protectText") {
            all.push(json!({ "method": spec.name, "protectText": true }));
        }
        if has("positions") && spec.name == "streaming" {
            all.push(json!({ "method": spec.name, "positions": "cache" }));
        }
    }
    for cache in &mut all {
        let spec = METHODS.iter().find(|spec| cache["method"] == spec.name).expect("a method");
        if let Some(calibration) = calibration(spec, 2, 1, 8) {
            cache["calibration"] = calibration;
        }
    }
    all
}

/// Reads and generates; says by how much the cap was passed.
fn run(model: &Model, cache: &Value, length: usize) -> Result<(), Error> {
    let layers = model.info().layers;
    let tokens: Vec<u32> = (0..length as u32).map(|i| (i * 37 + 11) % 400 + 5).collect();
    let prompt = model.expand(&tokens, 0)?;
    let mut sequence = model.new_sequence_with(Method::parse(cache)?, false)?;
    model.prefill(&prompt, &[], &mut sequence, &|| Ok(()))?;
    for step in 0..=GENERATED {
        let memory = sequence.memory();
        let held: f64 = memory.kept_per_layer.iter().sum();
        if let Some(tokens) = cache["keep"]["tokens"].as_u64() {
            assert!(
                held <= (tokens * layers as u64) as f64,
                "{cache}, prompt of {length}, step {step}: {held} entries"
            );
        }
        if let Some(bytes) = cache["keep"]["bytes"].as_u64() {
            assert!(memory.resident <= bytes, "{cache}, prompt of {length}, step {step}: {} bytes", memory.resident);
        }
        model.decode((step as u32 * 17 + 9) % 400, &mut sequence)?;
    }
    Ok(())
}

#[test]
fn no_method_passes_its_cap_after_any_prompt() {
    let model = model();
    let (mut held, mut refused) = (0, 0);
    for method in methods() {
        for keep in [1, 2, 3, 5, 8, 16, 40]
            .map(|tokens| json!({ "tokens": tokens }))
            .into_iter()
            .chain([1000, 4000, 8000, 20_000].map(|bytes| json!({ "bytes": bytes })))
        {
            for length in [1, 2, 3, 4, 5, 8, 13, 21, 40] {
                let mut cache = method.clone();
                cache["keep"] = keep.clone();
                match run(&model, &cache, length) {
                    Ok(()) => held += 1,
                    Err(Error::Budget { least: enough, .. }) => {
                        refused += 1;
                        cache["keep"] = json!(enough);
                        let unit = if keep["tokens"].is_u64() { "tokens" } else { "bytes" };
                        assert!(cache["keep"][unit].as_u64() > keep[unit].as_u64(), "{cache} instead of {keep}");
                        run(&model, &cache, length).unwrap_or_else(|e| panic!("{cache} is said to be enough: {e}"));
                    }
                    Err(other) => panic!("{cache}, prompt of {length}: {other}"),
                }
            }
        }
    }
    eprintln!("{held} held, {refused} refused");
    assert!(held > 1000 && refused > 100);
}

#[test]
fn a_size_that_generation_outgrows_is_refused_before_any_work() {
    let model = model();
    for (cache, enough) in [
        (json!({ "method": "streaming", "keep": { "tokens": 2 } }), json!({ "tokens": 5 })),
        (json!({ "method": "streaming", "keep": { "tokens": 16 }, "sinks": 200 }), json!({ "tokens": 201 })),
        (json!({ "method": "prefixkv", "keep": { "tokens": 1 } }), json!({ "tokens": 2 })),
        (json!({ "method": "random", "keep": { "tokens": 1 } }), json!({ "tokens": 2 })),
    ] {
        match run(&model, &cache, 1) {
            Err(Error::Budget { least: said, .. }) => assert_eq!(json!(said), enough, "{cache}"),
            other => panic!("{cache}: {other:?}"),
        }
    }
}

#[test]
fn a_cap_with_decode_none_is_refused_for_every_method_that_has_it() {
    for spec in METHODS {
        if spec.options.iter().any(|option| option.name == "decode") {
            let cache = json!({ "method": spec.name, "keep": { "tokens": 8 }, "decode": "none" });
            assert!(matches!(Method::parse(&cache), Err(Error::Option { .. })), "{cache}");
        }
    }
}

const SHAPE: Shape = Shape { layers: 3, kv_heads: 2, head_dim: 8, format: Format::F32 };

fn spans(n: usize) -> [Span; 1] {
    [Span { modality: Modality::Text, start: 0, len: n }]
}

fn read(sequence: &mut Sequence, n: usize) -> Result<(), Error> {
    let width = SHAPE.kv_heads * SHAPE.head_dim;
    let rows = vec![0.5; n * width];
    let first = sequence.next_position();
    let angles = Angles::new(first..first + n as u32, &[0.1; 4], 1.0);
    sequence.begin_prompt(&spans(n), &Placing::InOrder)?;
    for layer in 0..SHAPE.layers {
        sequence.store(layer, Rows::dense(&rows, width), Rows::dense(&rows, width), Some(&angles))?;
        sequence.attended(layer, &[])?;
    }
    sequence.finish_prompt()
}

/// A prompt on top of a cache is admitted when its reading has room, and only then.
#[test]
fn admission_counts_the_cache_that_a_conversation_goes_on_with() {
    let mut mosts = Vec::new();
    for (cache, past) in [
        (json!({ "method": "streaming", "keep": { "tokens": 40 } }), 400),
        (json!({ "method": "streaming", "keep": 0.25 }), 400),
        (json!({ "method": "knorm", "keep": 0.25 }), 300),
        (json!({ "method": "full" }), 60),
        (json!([{ "method": "streaming", "keep": 0.25 }, { "method": "int8" }]), 400),
        (json!({ "method": "int4", "window": 8 }), 60),
    ] {
        let pool = Pool::with_cap(120_000);
        let mut sequence =
            Sequence::with_method(SHAPE, &pool, Method::parse(&cache).expect("parses"), true).expect("fits");
        read(&mut sequence, past).unwrap_or_else(|e| panic!("{cache}: {e}"));
        let (mut most, before) = (0, pool.used());
        for n in 1..1000 {
            match sequence.admit(&spans(n)) {
                Ok(()) => most = n,
                Err(Error::OutOfMemory { .. }) => break,
                Err(other) => panic!("{cache}: {other}"),
            }
        }
        assert_eq!((pool.used(), sequence.next_position()), (before, past as u32), "{cache}: nothing has changed");
        assert!((20..999).contains(&most), "{cache}: {most}");
        mosts.push(most);
        match sequence.begin_prompt(&spans(most + 1), &Placing::InOrder) {
            Err(Error::OutOfMemory { .. }) => {}
            other => panic!("{cache}: {most} and one more: {other:?}"),
        }
        drop(sequence);
        let mut sequence =
            Sequence::with_method(SHAPE, &pool, Method::parse(&cache).expect("parses"), true).expect("fits");
        read(&mut sequence, past).unwrap_or_else(|e| panic!("{cache}: {e}"));
        let fewer = most - most / 8;
        read(&mut sequence, fewer).unwrap_or_else(|e| panic!("{cache}: {fewer} of {most} on top of {past}: {e}"));
    }
    let [_, _, _, full, _, int4] = mosts[..] else { panic!("{mosts:?}") };
    assert!(int4 * 2 > full * 3, "four bits leave room for more of a prompt: {int4} and {full}");
}
