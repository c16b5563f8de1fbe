//! Calibration files.

use prefixkv_core::method::calibration::Calibration;
use serde_json::{Value, json};

use crate::folder::read_json;
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "calibration",
    reads: "calibration files and configurations of the published code",
    kind: Kind::Json,
    memory: 64 << 20,
    short: 4000,
    words: || {
        &[
            "format",
            "prefixkv-calibration",
            "version",
            "model",
            "layers",
            "kvHeads",
            "headDim",
            "fingerprint",
            "samples",
            "score",
            "published",
            "origin",
            "rows",
            "keep",
            "retained",
            "name",
        ]
    },
    seeds,
    run,
};

fn seeds() -> Vec<Vec<u8>> {
    let small = json!({ "format": "prefixkv-calibration", "version": 1, "samples": 10, "score": "attention",
        "model": { "layers": 2, "kvHeads": 4, "headDim": 8, "fingerprint": "sha256:0", "name": "a" },
        "rows": [{ "keep": 0.2, "retained": [0.3, 0.1] }, { "keep": 0.6, "retained": [0.7, 0.5] }] });
    let all = [small, json!([0.1, 0.5, 0.25]), read_json("calibrations/llava-1.5-7b.json")];
    all.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return "not JSON".into() };
    let read = Calibration::parse(&value);
    let Ok(calibration) = &read else { return outcome(&read, &["calibration"]) };
    let written = serde_json::to_value(calibration).expect("a calibration is written");
    let again = Calibration::parse(&written).expect("what was written is read");
    assert_eq!(serde_json::to_value(&again).expect("a calibration is written"), written);
    for keep in [0.0, 1e-12, 0.2, 0.3, 0.5, 0.599_999_999_9, 0.9, 1.0] {
        let shares = calibration.read_off(keep);
        outcome(&shares, &["calibration"]);
        if let Ok(shares) = shares {
            assert_eq!(shares.len(), calibration.model.layers);
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?} at {keep}");
        }
    }
    format!("ok {}", calibration.rows.len().min(3))
}
