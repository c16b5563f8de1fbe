//! Traces: what a method has recorded must be what it has done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use prefixkv_core::engine::Engine;
use prefixkv_core::wire::Event;
use serde_json::{Value, json};

const PATCHES: usize = 144;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn engine() -> Engine {
    let folder = root().join("models/tiny-llava").canonicalize().expect("the embedded model");
    Engine::open(&json!({ "source": folder }).to_string()).expect("opens")
}

/// The last event of a request over the first scene.
fn ask(engine: &Engine, mut request: Value) -> Value {
    let content = json!([{ "type": "image", "index": 0 }, { "type": "text", "text": "Describe the image in detail." }]);
    request["messages"] = json!([{ "role": "user", "content": content }]);
    let bytes = std::fs::read(root().join("data/scenes/scene-000.png")).expect("a scene");
    let ticket = engine.submit(&request.to_string(), vec![bytes]).unwrap_or_else(|e| panic!("{request}: {e}"));
    let mut last = Value::Null;
    while let Some(events) = ticket.wait(Duration::from_secs(120)) {
        let events: Value = serde_json::from_str(&Event::array(&events)).expect("JSON");
        last = events.as_array().and_then(|events| events.last()).cloned().unwrap_or(last);
    }
    last
}

fn trace(engine: &Engine, cache: &Value) -> Value {
    let traced = ask(engine, json!({ "op": "trace", "cache": cache, "maxTokens": 12, "ignoreEos": true }));
    assert_eq!(traced["type"], "traced", "{cache}: {}", traced["error"]);
    traced
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(|number| number.as_f64().expect("a number")).collect()
}

#[test]
fn what_is_recorded_is_what_was_done() {
    let engine = engine();
    for cache in [
        json!({ "method": "full" }),
        json!({ "method": "prefixkv", "keep": 0.3 }),
        json!({ "method": "prefixkv", "keep": 0.3, "objective": "least", "floor": 0 }),
        json!({ "method": "prefixkv", "keep": 0.5, "score": "window", "excludeSink": true, "objective": "least", "floor": 0 }),
        json!({ "method": "prefixkv", "keep": 0.5, "variant": "official" }),
        json!({ "method": "h2o", "keep": 0.4 }),
        json!({ "method": "snapkv", "keep": { "tokens": 40 } }),
        json!({ "method": "streaming", "keep": 0.3 }),
        json!({ "method": "knorm", "keep": 0.3 }),
    ] {
        let traced = trace(&engine, &cache);
        let answer = ask(&engine, json!({ "op": "generate", "cache": cache, "maxTokens": 12, "ignoreEos": true }));
        assert_eq!(traced["tokens"], answer["tokens"], "{cache}");
        assert_eq!(traced["memory"]["keptPerLayer"], answer["memory"]["keptPerLayer"], "{cache}");
        // Recording is not counted.
        assert_eq!(traced["memory"]["peak"], answer["memory"]["peak"], "{cache}");

        let prompt = traced["usage"]["promptTokens"].as_u64().expect("a count") as usize;
        let steps = list(&traced["steps"]);
        assert_eq!(steps.len(), 12, "the prompt and all tokens but the last");
        assert_eq!(steps[0]["positions"], prompt);
        assert_eq!(steps[11]["resident"], traced["memory"]["resident"]);
        let layers = list(&traced["layers"]);
        assert_eq!(layers.len(), 10);
        let mut kept_mean = 0.0;
        for layer in layers {
            let importance = numbers(&layer["importance"]);
            assert_eq!(importance.len(), prompt);
            let entries: f64 = list(&layer["kept"])
                .iter()
                .map(|kept| {
                    let heads = numbers(&kept["heads"]);
                    (heads[1] - heads[0]) * list(&kept["positions"]).len() as f64 / 6.0
                })
                .sum();
            kept_mean += entries / 10.0;
            if traced["mass"] == json!(false) {
                assert!(layer["cumulative"].is_null() && layer["retained"].is_null());
                continue;
            }
            let retained = layer["retained"].as_f64().expect("a share");
            let shares = numbers(&layer["cumulative"]["shares"]);
            let from = layer["cumulative"]["from"].as_u64().expect("a count") as usize;
            assert_eq!(from + shares.len(), prompt + 1);
            assert!(shares.is_sorted() && (shares[shares.len() - 1] - 1.0).abs() < 1e-9, "{cache}");
            let official = cache.get("variant").is_some();
            if cache["method"] == "prefixkv" && !official {
                assert!((shares[entries as usize - from] - retained).abs() < 1e-5, "{cache}");
            }
            if cache["objective"] == "least" {
                // The threshold is reached, and is as high as it can be: one entry less is below it, or was a gift.
                let threshold = traced["threshold"].as_f64().expect("a share");
                assert!(retained >= threshold - 1e-6 && (0.0..=1.0).contains(&threshold), "{retained} of {threshold}");
            } else {
                assert!(traced["threshold"].is_null(), "{cache}");
            }
            if cache["method"] == "full" {
                assert_eq!((entries as usize, retained), (prompt, 1.0));
            }
        }
        assert!((kept_mean - steps[0]["kept"].as_f64().expect("a mean")).abs() < 1e-9, "{cache}");
    }
}

#[test]
fn positions_and_patches_are_named() {
    let traced = trace(&engine(), &json!({ "method": "prefixkv", "keep": 0.5 }));
    let image = &traced["images"][0];
    assert_eq!((image["rows"].as_u64(), image["columns"].as_u64()), (Some(12), Some(12)));
    let start =
        list(&traced["spans"]).iter().find(|span| span["modality"]["type"] == "image").expect("an image")["start"]
            .as_u64()
            .expect("a position");
    let cells: Vec<u64> = list(&image["cells"]).iter().map(|cell| cell.as_u64().expect("a position")).collect();
    assert_eq!(cells, (start..start + 144).collect::<Vec<_>>());
    let area = json!({ "x": 0.0, "y": 0.0, "width": image["width"].as_f64(), "height": image["height"].as_f64() });
    assert_eq!(image["area"], area, "scenes are square");
    let spans = list(&traced["spans"]);
    let of = |kind: &str| -> usize {
        let of = spans.iter().filter(|span| span["modality"]["type"] == kind);
        of.map(|span| span["len"].as_u64().expect("a length") as usize).sum()
    };
    assert_eq!((of("image"), of("generated")), (PATCHES, 11));
    assert_eq!(of("text") + PATCHES, traced["usage"]["promptTokens"].as_u64().expect("a count") as usize);
}

#[test]
fn a_trace_refuses_what_it_does_not_know() {
    let engine = engine();
    let refused = |request: Value| match engine.submit(&request.to_string(), Vec::new()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{request} was taken"),
    };
    assert!(
        refused(json!({ "op": "trace", "prompt": "a", "session": "00000000000000000000000000000001" }))
            .contains("session")
    );
    assert!(refused(json!({ "op": "trace" })).contains("trace needs `messages` or `prompt`"));
}
