//! Where keys are rotated to, and how long a sequence may become.

use std::path::Path;

use prefixkv_core::Error;
use prefixkv_core::engine::Engine;
use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use prefixkv_core::wire::Event;
use serde_json::{Value, json};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/fixtures/llama-linear-tied")
        .canonicalize()
        .expect("there")
}

fn logits(model: &Model, cache: &Value, n: u32) -> Vec<Vec<f32>> {
    let tokens: Vec<u32> = (0..n).map(|i| (i * 7919 + i * i * 31) % 400 + 5).collect();
    let prompt = model.expand(&tokens, 0).expect("text");
    let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
    let mut sequence = model.new_sequence_with(method, false).unwrap_or_else(|e| panic!("{cache}: {e}"));
    let mut all =
        vec![model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).unwrap_or_else(|e| panic!("{cache}: {e}"))];
    for step in 0..40 {
        all.push(model.decode((step * 17 + 9) % 400, &mut sequence).unwrap_or_else(|e| panic!("{cache}: {e}")));
    }
    all
}

/// To the bit, whatever format the cache has and wherever a method says that keys are rotated.
#[test]
fn with_all_kept_every_method_is_the_full_cache() {
    for weights in [WeightFormat::F32, WeightFormat::F16] {
        let model =
            Model::load(&LoadOptions { weights, ..LoadOptions::new(folder()) }, &mut |_| Ok(())).expect("loads");
        for n in [1, 7, 130] {
            let full = logits(&model, &json!({ "method": "full" }), n);
            for cache in [
                json!({ "method": "streaming", "keep": 1 }),
                json!({ "method": "streaming", "keep": 1, "positions": "cache" }),
                json!({ "method": "streaming", "keep": 1, "positions": "cache", "decode": "none" }),
                json!({ "method": "prefixkv", "keep": 1 }),
                json!({ "method": "prefixkv", "keep": 1, "positions": "official" }),
                json!({ "method": "h2o", "keep": 1 }),
                json!({ "method": "snapkv", "keep": 1 }),
                json!({ "method": "knorm", "keep": 1 }),
                json!({ "method": "random", "keep": 1 }),
            ] {
                assert_eq!(logits(&model, &cache, n), full, "{cache}, prompt of {n}, {weights:?}");
            }
        }
    }
}

/// Keys that lie in the cache unrotated and are rotated to their own positions give the logits of rotated ones, to rounding, and the same
/// entries go: for text alone, heads of one layer that keep entries of their own, prompts that go on, and formats of the cache.
#[test]
fn keys_before_their_rotary_embedding_are_read_at_their_positions() {
    let store = |rope: &str| json!({ "method": "int8", "window": 1_000_000, "rope": rope });
    // Shares of the largest logit. Keys in f16 are rounded before their rotation or behind it.
    for (weights, most) in [(WeightFormat::F32, 1e-5), (WeightFormat::F16, 1e-2)] {
        let model =
            Model::load(&LoadOptions { weights, ..LoadOptions::new(folder()) }, &mut |_| Ok(())).expect("loads");
        for method in [
            None,
            Some(json!({ "method": "streaming", "keep": 0.3 })),
            Some(json!({ "method": "h2o", "keep": { "tokens": 40 } })),
            Some(json!({ "method": "snapkv", "keep": 0.5 })),
            Some(json!({ "method": "adakv", "keep": 0.5 })),
            // Scores that compare keys take them as they are held.
            Some(json!({ "method": "prefixkv", "keep": 0.4, "score": "question" })),
            Some(json!({ "method": "prefixkv", "keep": 0.4, "score": "question", "positions": "official" })),
            Some(json!({ "method": "knorm", "keep": 0.5 })),
        ] {
            for n in [if method.is_some() { 33 } else { 1 }, 130] {
                let with = |rope: &str| match &method {
                    Some(method) => json!([method, store(rope)]),
                    None => store(rope),
                };
                let (after, before) = (logits(&model, &with("after"), n), logits(&model, &with("before"), n));
                for (step, (after, before)) in after.iter().zip(&before).enumerate() {
                    let off = after.iter().zip(before).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    let whole = after.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
                    assert!(
                        off < most * whole,
                        "{method:?}, prompt of {n}, {weights:?}: row {step} is off by {off} of {whole}"
                    );
                }
            }
        }
    }
}

fn ask(engine: &Engine, request: &Value) -> Event {
    let ticket = engine.submit(&request.to_string(), Vec::new()).expect("a request");
    let mut last = None;
    while let Some(events) = ticket.wait(std::time::Duration::from_secs(120)) {
        last = events.into_iter().next_back().or(last);
    }
    last.expect("an end")
}

/// The model knows 2048 positions; a window of 64 entries never comes near them.
#[test]
fn a_window_whose_ranks_stay_small_goes_on_beyond_the_positions_of_the_model() {
    let engine = Engine::open(&json!({ "source": folder() }).to_string()).expect("an engine");
    let request = |cache: Value, tokens: usize| json!({ "op": "generate", "prompt": "the quick brown fox", "maxTokens": tokens, "ignoreEos": true, "cache": cache });
    let cache = |keep: Value| json!({ "method": "streaming", "positions": "cache", "keep": keep });
    for keep in [json!({ "tokens": 64 }), json!({ "bytes": 40_000 }), json!(0.5)] {
        match ask(&engine, &request(cache(keep.clone()), 2500)) {
            Event::Done(result) => assert_eq!(result.tokens.len(), 2500, "{keep}"),
            other => panic!("{keep}: {other:?}"),
        }
    }
    for (refused, tokens) in [
        (cache(json!({ "tokens": 2100 })), 2500),
        (cache(json!(1)), 2500),
        (cache(json!(0.5)), 9000),
        (json!({ "method": "streaming", "keep": { "tokens": 64 } }), 2500),
        (json!({ "method": "full" }), 2500),
    ] {
        match ask(&engine, &request(refused.clone(), tokens)) {
            Event::Error { error } => assert_eq!(error.code, "context-overflow", "{refused}: {error:?}"),
            other => panic!("{refused}: {other:?}"),
        }
    }
    // A prompt is there whole for a moment.
    let long = json!({ "op": "generate", "prompt": "a b c d ".repeat(900), "maxTokens": 1, "cache": cache(json!({ "tokens": 64 })) });
    assert!(matches!(ask(&engine, &long), Event::Error { error } if error.code == "context-overflow"));
}

/// Generated entries stay with `decode: "none"`, as in kvpress, and go otherwise.
#[test]
fn streaming_can_keep_what_is_generated() -> Result<(), Error> {
    let model = Model::load(&LoadOptions::new(folder()), &mut |_| Ok(()))?;
    let tokens: Vec<u32> = (5..105).collect();
    let prompt = model.expand(&tokens, 0)?;
    for positions in ["true", "cache"] {
        let cache = json!({ "method": "streaming", "keep": 0.2, "positions": positions, "decode": "none" });
        let mut sequence = model.new_sequence_with(Method::parse(&cache)?, false)?;
        model.prefill(&prompt, &[], &mut sequence, &|| Ok(()))?;
        let after: Vec<u32> = (0..4).chain(84..100).collect();
        assert_eq!(sequence.kept()[0][0].positions, after);
        for step in 0..30 {
            model.decode(step + 7, &mut sequence)?;
        }
        let all: Vec<u32> = (0..4).chain(84..130).collect();
        assert!(sequence.kept().iter().all(|layer| layer[0].positions == all));
        let mut oldest = model.new_sequence_with(
            Method::parse(&json!({ "method": "streaming", "keep": 0.2, "positions": positions }))?,
            false,
        )?;
        model.prefill(&prompt, &[], &mut oldest, &|| Ok(()))?;
        for step in 0..30 {
            model.decode(step + 7, &mut oldest)?;
        }
        assert!(oldest.kept()[0][0].positions.len() <= 27);
    }
    Ok(())
}
