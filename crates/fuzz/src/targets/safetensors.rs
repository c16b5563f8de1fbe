//! Weight files and their index.

use std::fs;

use prefixkv_core::weights::Checkpoint;
use serde_json::{Value, json};

use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "safetensors",
    reads: "safetensors files (header, offsets, shapes, formats) and model.safetensors.index.json",
    kind: Kind::Safetensors,
    memory: 64 << 20,
    short: 3000,
    words: || {
        &[
            "dtype",
            "F32",
            "F16",
            "BF16",
            "I64",
            "F64",
            "BOOL",
            "F8_E4M3",
            "F4",
            "shape",
            "data_offsets",
            "__metadata__",
            "a",
            "b",
            "weight_map",
            "one.safetensors",
            "../one.safetensors",
            "..",
            ".",
            "/dev/zero",
            "18446744073709551615",
        ]
    },
    seeds,
    run,
};

fn seeds() -> Vec<Vec<u8>> {
    let weights = |header: Value, bytes: usize| {
        let text = header.to_string();
        let data: Vec<u8> = (0..bytes).map(|index| (index * 7) as u8).collect();
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &data].concat()
    };
    let one = json!({ "__metadata__": { "format": "pt" }, "a": { "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] } });
    let more = json!({ "a": { "dtype": "F16", "shape": [4], "data_offsets": [0, 8] },
        "b": { "dtype": "BF16", "shape": [1, 2, 2], "data_offsets": [8, 16] },
        "c": { "dtype": "I64", "shape": [2], "data_offsets": [16, 32] },
        "d": { "dtype": "F32", "shape": [], "data_offsets": [32, 36] },
        "e": { "dtype": "F32", "shape": [0, 5], "data_offsets": [36, 36] } });
    let index = json!({ "metadata": { "total_size": 8 }, "weight_map": { "a": "one.safetensors" } });
    vec![weights(one, 24), weights(more, 36), weights(index, 0)]
}

fn run(data: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let header: Option<Value> = data.get(8..).and_then(|rest| {
        let length = u64::from_le_bytes(data[..8].try_into().ok()?);
        serde_json::from_slice(rest.get(..usize::try_from(length).ok()?)?).ok()
    });
    // A header with a map of weights stands for an index over one sound shard.
    let index = header.as_ref().filter(|header| header.get("weight_map").is_some());
    let (name, bytes) = match index {
        Some(index) => {
            fs::write(dir.path().join("one.safetensors"), &seeds()[0]).expect("a temporary file");
            ("model.safetensors.index.json", index.to_string().into_bytes())
        }
        None => ("model.safetensors", data.to_vec()),
    };
    fs::write(dir.path().join(name), bytes).expect("a temporary file");
    let opened = Checkpoint::open(dir.path());
    let Ok(checkpoint) = &opened else {
        return outcome(&opened, &["model-file", "model-not-found", "unsupported-model"]);
    };
    assert!(checkpoint.fingerprint().expect("a fingerprint").starts_with("sha256:"));
    let mut kind = format!("ok {}", checkpoint.parameters().max(1).ilog2());
    for (name, tensor) in header.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).unwrap_or_default();
        let read = checkpoint.tensor(name, &shape);
        if let Ok(tensor) = &read {
            assert_eq!(tensor.dims(), shape);
        }
        kind.push_str(&outcome(&read, &["model-file", "unsupported-model"]));
    }
    kind
}
