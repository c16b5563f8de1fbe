//! The `cache` of a request.

use std::sync::LazyLock;

use prefixkv_core::method::{METHODS, Method, OptionKind, VARIANT};
use serde_json::{Value, json};

use crate::folder::{read_json, written_anew};
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "method",
    reads: "the `cache` of a request: methods, their options and sizes",
    kind: Kind::Json,
    memory: 64 << 20,
    short: 4000,
    words,
    seeds,
    run,
};

/// Names and values of every method's options.
fn words() -> &'static [&'static str] {
    static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let mut words = vec!["method", "keep", "tokens", "bytes", "64MiB", VARIANT];
        for spec in METHODS {
            words.push(spec.name);
            words.extend(spec.variants.iter().map(|variant| variant.name));
            for option in spec.options {
                words.push(option.name);
                if let OptionKind::Choice { values } = &option.kind {
                    words.extend(*values);
                }
            }
        }
        words.sort_unstable();
        words.dedup();
        words
    });
    &WORDS
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        json!({ "method": "prefixkv", "keep": 0.5, "calibration": read_json("calibrations/llava-1.5-7b.json") }),
        json!({ "method": "prefixkv", "keep": { "bytes": "2MB" }, "calibration": [0.1, 0.5, 0.25] }),
        json!([{ "method": "full" }, { "method": "h2o", "keep": { "tokens": 64 } }]),
        json!([{ "method": "snapkv", "keep": 0.4 }, { "method": "merge" }]),
        json!([{ "method": "h2o", "keep": 0.5 }, { "method": "int4", "keys": "entry" }]),
        json!([{ "method": "kvsharer", "sources": { "6": 2, "9": 6 } }, { "method": "h2o", "keep": 0.5 }]),
        json!({ "method": "kvtuner", "bits": 4.5, "calibration": { "format": "prefixkv-bits", "version": 1,
            "model": { "layers": 2 }, "quantiser": { "group": 32, "window": 0, "keys": "entry" },
            "points": [{ "bits": 4, "loss": 0.1, "pairs": [[4, 4], [4, 4]] }] } }),
        json!({ "method": "skvq", "bits": 4, "calibration": { "format": "prefixkv-channels", "version": 1, "model": { "layers": 1 },
            "group": 8, "sinks": 5, "layers": [{ "keys": { "order": [[1, 0]], "clip2": 0.8, "clip4": 1 },
            "values": { "order": [], "clip2": 0.9, "clip4": 1 } }] } }),
        json!({ "method": "kvtuner", "pairs": [[8, 4], [2, 16]], "keys": "entry" }),
        json!({ "method": "kvsharer", "layers": 1, "calibration": { "format": "prefixkv-sharing", "version": 1,
            "model": { "layers": 10 }, "pairs": [{ "layer": 6, "source": 2, "distance": 1.5, "similarity": 0.9 }] } }),
        json!({ "method": "kvquant", "calibration": { "format": "prefixkv-codebooks", "version": 1,
            "model": { "layers": 1 }, "bits": 2, "outliers": 0.01, "layers": [{ "layer": 0, "keys": [-1, 0, 1, 2], "values": [-1, 0, 1, 2],
            "scales": [1, 1, 1, 1, 1, 1, 1, 1], "zeros": [0, 0, 0, 0, 0, 0, 0, 0] }] } }),
        json!({ "method": "clla", "latent": 0.25, "bits": "4", "calibration": { "format": "prefixkv-directions", "version": 1,
            "init": "covariance", "heads": "each", "span": "pair", "rank": 1, "model": { "layers": 2 }, "layers": [
                { "layer": 0, "keys": "fwAAAAAAAAA=", "values": "fwAAAAAAAAA=", "sizes": [1, 0.5] },
                { "layer": 1, "keys": "fwAAAAAAAAA=", "values": "fwAAAAAAAAA=", "sizes": [1, 0.5] }] } }),
        json!({ "method": "sparseMm", "keep": 0.5, "calibration": { "format": "prefixkv-heads", "version": 1,
            "model": { "layers": 2, "kvHeads": 1 }, "measure": "image-hits", "queries": 32, "scores": [[0.5, 0], [0.25, 1e-3]] } }),
        json!({ "method": "cskv", "keys": 0.25, "bits": "4", "calibration": { "format": "prefixkv-directions", "version": 1,
            "model": { "layers": 1 }, "init": "asvd", "alpha": 0.5, "heads": "each", "rank": 1,
            "layers": [{ "layer": 0, "keys": "fwAAAAAAAAA=", "values": "fwAAAAAAAAA=" }] } }),
    ];
    for spec in METHODS {
        let mut seed = json!({ "method": spec.name });
        if spec.takes_keep() {
            seed["keep"] = json!(0.5);
        }
        let defaults =
            spec.options.iter().filter_map(|option| Some((option.name, serde_json::from_str(option.default).ok()?)));
        for (name, value) in defaults.collect::<Vec<(&str, Value)>>() {
            seed[name] = value;
        }
        seeds.push(seed);
    }
    seeds.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return "not JSON".into() };
    let read = Method::parse(&value);
    let text = value.to_string();
    if let Some(written) =
        written_anew(&text).filter(|_| serde_json::from_str::<Value>(&text).is_ok_and(|same| same == value))
    {
        let again = serde_json::from_str(&written).expect("JSON written by serde_json");
        assert_eq!(format!("{read:?}"), format!("{:?}", Method::parse(&again)));
    }
    match &read {
        Ok(Some(method)) => format!("ok {}", method.name),
        _ => outcome(&read, &["option", "calibration"]),
    }
}
