//! Sizes of heads by their scores, against an independent reference in PyTorch (tests/golden/heads.py).

use std::collections::{BTreeMap, BTreeSet};

use crate::case::Reference;
use prefixkv_core::cache::Kept;
use prefixkv_core::method::Method;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    measured: Vec<Measured>,
    sized: Vec<Sized>,
}

#[derive(Deserialize)]
struct Measured {
    found: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    scores: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Sized {
    of: String,
    name: String,
    /// Those of the first measure where there are none.
    scores: Option<Vec<Vec<f64>>>,
    /// Those of which positions are given.
    layers: Vec<usize>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    options: Value,
    /// By layer and head.
    sizes: Vec<Vec<usize>>,
    /// By shown layer and head, a bit for each position.
    kept: Vec<Vec<String>>,
    /// By layer and head, positions that rounding may exchange.
    loose: BTreeMap<String, String>,
}

fn calibration(scores: &[Vec<f64>], kv_heads: usize) -> Value {
    json!({
        "format": "prefixkv-heads", "version": 1, "measure": "image-hits", "scores": scores,
        "model": { "layers": scores.len(), "kvHeads": kv_heads },
    })
}

fn entries(kept: &[Vec<Kept>]) -> usize {
    kept.iter().flatten().map(|lane| lane.positions.len() * (lane.heads[1] - lane.heads[0])).sum()
}

#[test]
fn heads_keep_as_much_as_the_reference_and_the_rest_is_freed() {
    let golden: Golden = Reference::golden("heads.json");
    let (mut cases, mut widest) = (0, 0);
    for sized in &golden.sized {
        let case = Reference::of(&sized.of, &sized.name);
        let info = case.model.info();
        let scores = sized.scores.as_ref().unwrap_or(&golden.measured[0].found[0].scores);
        for Case { options, sizes, kept, loose } in &sized.cases {
            let mut cache = options.clone();
            cache["calibration"] = calibration(scores, info.kv_heads);
            let method = Method::parse(&cache).unwrap_or_else(|error| panic!("{options}: {error}"));
            let mut sequence = case.model.new_sequence_with(method, false).expect("room");
            let read = case.model.prefill(&case.prompt, &case.features, &mut sequence, &|| Ok(()));
            assert!(read.expect("reads").iter().all(|logit| logit.is_finite()));
            let found = sequence.kept();
            let counts = |lanes: &Vec<Kept>| lanes.iter().map(|lane| lane.positions.len()).collect::<Vec<_>>();
            assert_eq!(found.iter().map(counts).collect::<Vec<_>>(), *sizes, "{options}");
            for (layer, heads) in sized.layers.iter().zip(kept) {
                for (head, want) in heads.iter().enumerate() {
                    let got: BTreeSet<u32> = found[*layer][head].positions.iter().copied().collect();
                    let want: BTreeSet<u32> = Reference::positions(want).into_iter().collect();
                    assert!(got == want || loose.contains_key(&format!("{layer}/{head}")), "{options}: {layer}/{head}");
                }
            }
            // The whole is met to the entry, and no byte is held for what heads do not keep.
            let (n, keep) = (case.prompt.tokens.len(), options["keep"].as_f64().expect("a share"));
            let whole = (keep * (n * info.layers) as f64 + 0.5).floor() as usize;
            assert_eq!(entries(&found), whole * info.kv_heads, "{options}");
            let memory = sequence.memory();
            let entry = memory.full as usize / (n * info.layers * info.kv_heads);
            assert_eq!(memory.payload as usize, entries(&found) * entry, "{options}");
            assert_eq!(memory.dead, 0, "{options}");
            // Layer by layer: never more than what stays and one whole layer beside it.
            let layer = n * info.kv_heads * entry;
            assert!(memory.peak as usize <= memory.resident as usize + layer * 11 / 10, "{options}: {memory:?}");
            for token in &case.answer[..12] {
                case.model.decode(*token, &mut sequence).expect("goes on");
            }
            assert_eq!(entries(&sequence.kept()), (whole + 12 * info.layers) * info.kv_heads, "{options}");
            let flat = sizes.iter().flatten();
            widest = widest.max(flat.clone().max().expect("heads") / flat.min().expect("heads"));
            cases += 1;
        }
    }
    assert!(cases >= 5 && widest > 10, "{cases} cases, up to {widest} times as many entries");
}

#[test]
fn a_method_without_scores_says_how_to_find_them() {
    for (method, measure) in [("sparseMm", "image-hits"), ("headKv", "copies")] {
        let error = Method::parse(&json!({ "method": method, "keep": 0.5 })).expect_err("no calibration");
        let told = error.to_string();
        assert_eq!(error.code(), "option");
        assert!(told.contains("calibrateHeads") && told.contains(measure) && told.contains("--method"), "{told}");
    }
}

#[test]
fn scores_of_another_model_are_refused() {
    let case = Reference::of("tiny-llava", "scene-002");
    let of = |calibration: Value| {
        let cache = json!({ "method": "sparseMm", "keep": 0.5, "calibration": calibration });
        case.model.new_sequence_with(Method::parse(&cache).expect("parses"), false).map(|_| ())
    };
    of(calibration(&vec![vec![1.0; 6]; 10], 6)).expect("of this model");
    // Query heads of groups, as many KV heads.
    of(calibration(&vec![vec![1.0; 12]; 10], 6)).expect("of this model's KV heads");
    for other in [calibration(&vec![vec![1.0; 6]; 9], 6), calibration(&vec![vec![1.0; 6]; 10], 3)] {
        assert_eq!(of(other).expect_err("another model").code(), "calibration");
    }
    let mut foreign = calibration(&vec![vec![1.0; 6]; 10], 6);
    foreign["model"]["fingerprint"] = json!("sha256:0");
    let error = of(foreign).expect_err("another model");
    assert!(error.code() == "calibration" && error.to_string().contains("another model: fingerprint"), "{error}");
}
