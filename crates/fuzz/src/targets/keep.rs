//! Sizes: shares, counts, bytes and texts such as "64MiB".

use prefixkv_core::cache::{Bookkeeping, Format, Shape};
use prefixkv_core::device::Cpu;
use prefixkv_core::method::Keep;
use prefixkv_core::method::keep::Cost;
use serde_json::json;

use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "keep",
    reads: "sizes: shares, counts, bytes, texts such as \"64MiB\"",
    kind: Kind::Json,
    memory: 64 << 20,
    short: 4000,
    words: || {
        &["tokens", "bytes", "64MiB", "1.5 GiB", "kb", "1e3", ".", "..", "4611686018427387903", "\u{2003}", "b", "TiB"]
    },
    seeds,
    run,
};

fn seeds() -> Vec<Vec<u8>> {
    let all = [
        json!(0.5),
        json!({ "tokens": 64 }),
        json!({ "bytes": 1000 }),
        json!({ "bytes": "64MiB" }),
        json!({ "bytes": "1.5 gb" }),
    ];
    all.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    // Data that is not JSON is the text of a size.
    let value = serde_json::from_slice(data).unwrap_or_else(|_| json!({ "bytes": String::from_utf8_lossy(data) }));
    let read = Keep::parse(value);
    let Ok(keep) = read else { return outcome(&read, &["option"]) };
    assert_eq!(Keep::parse(json!(keep)).expect("what was written is read"), keep);
    for shape in [
        Shape { layers: 1, kv_heads: 1, head_dim: 2, format: Format::F32 },
        Shape { layers: 40, kv_heads: 40, head_dim: 128, format: Format::F32 },
    ] {
        let cost = Cost::new(&shape, 1, true, Bookkeeping::of::<Cpu>());
        for positions in [0, 1, 4096, 1 << 24] {
            let total = keep.total(positions, &cost);
            assert!(total <= cost.layers * positions, "{keep:?} of {positions}: {total}");
            if positions > 0 {
                assert!(keep.least(1, positions, &cost).total(positions, &cost) >= 1);
            }
        }
    }
    format!("ok {:?}", std::mem::discriminant(&keep))
}
