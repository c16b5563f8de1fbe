//! The JSON of a load.

use std::sync::LazyLock;

use prefixkv_core::wire::{DOORS, LoadRequest, MAX_BATCH};
use serde_json::json;

use crate::folder::{means_the_same, written_anew};
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "load",
    reads: "the JSON of a load",
    kind: Kind::Json,
    memory: 64 << 20,
    short: 4000,
    words,
    seeds,
    run,
};

fn words() -> &'static [&'static str] {
    static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let values =
            ["cpu", "cuda:0", "cuda:99999999999999999999", "auto", "f32", "f16", "q8_0", "q4_k", "64MiB", "1.5GiB"];
        let fields = DOORS.iter().filter(|door| door.name == "load").flat_map(|door| (door.fields)());
        fields.chain(values).collect()
    });
    &WORDS
}

fn seeds() -> Vec<Vec<u8>> {
    let all = [
        json!({ "source": "/models/a", "device": "cuda:1", "weights": "q8_0", "threads": 2, "batch": 8, "cacheLimit": "1.5GiB" }),
        json!({ "source": "/", "device": "auto", "weights": "q4_k", "cacheLimit": 1000 }),
    ];
    all.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(data) else { return "not UTF-8".into() };
    let read = LoadRequest::parse(text);
    if let Some(written) = written_anew(text) {
        means_the_same(&read, &LoadRequest::parse(&written));
    }
    if let Ok(request) = &read {
        assert!((1..=MAX_BATCH).contains(&request.batching.batch));
        assert!(request.options.source.is_absolute() && request.options.cache_limit != Some(0));
    }
    outcome(&read, &["option", "device"])
}
