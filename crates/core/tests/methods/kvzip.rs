//! KVzip: prompts that are read twice, against an independent reference in PyTorch (tests/golden/kvzip.py).

use crate::case::{self, Case, Reference};
use prefixkv_core::cache::Kept;
use prefixkv_core::error::Error;
use prefixkv_core::method::Method;
use prefixkv_core::model::Model;
use prefixkv_core::sample::log_softmax_at;
use prefixkv_core::sequence::Sequence;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    scenes: Vec<Scene>,
}

#[derive(Deserialize)]
struct Scene {
    of: String,
    name: String,
    /// The layers whose entries are told.
    layers: Vec<usize>,
    /// Tokens between the prompt and its repetition.
    instruction: usize,
    cases: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    options: Value,
    /// Entries per layer and head.
    sizes: Vec<Vec<usize>>,
    /// A bit for each position, in base64, per layer and head.
    kept: Vec<Vec<String>>,
    /// Of every so many tokens of the answer.
    logprobs: Vec<f32>,
}

fn sequence(model: &Model, options: &Value) -> Sequence {
    let mut cache = options.clone();
    cache["method"] = json!("kvzip");
    case::sequence(model, &cache)
}

fn positions(kept: &[Vec<Kept>]) -> Vec<Vec<Vec<u32>>> {
    kept.iter().map(|lanes| lanes.iter().map(|lane| lane.positions.clone()).collect()).collect()
}

#[test]
fn heads_hold_what_those_of_the_reference_hold() {
    let golden: Golden = Reference::golden("kvzip.json");
    let mut worst = 0f32;
    for scene in &golden.scenes {
        let Reference { model, prompt, features, answer } = Reference::of(&scene.of, &scene.name);
        for case in &scene.cases {
            let what = format!("{} {}", scene.name, case.options);
            let mut sequence = sequence(&model, &case.options);
            let n = prompt.tokens.len();
            let repeat = sequence.repeats(n).expect("reads twice");
            assert_eq!((repeat.first, repeat.rows), (1, scene.instruction + n - 1), "{what}");
            let mut logits = model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
            assert_eq!(sequence.next_position() as usize, n, "{what}");
            let kept = positions(&sequence.kept());
            let sizes: Vec<Vec<usize>> = kept.iter().map(|lanes| lanes.iter().map(Vec::len).collect()).collect();
            assert_eq!(sizes, case.sizes, "{what}");
            for (layer, want) in scene.layers.iter().zip(&case.kept) {
                let want: Vec<Vec<u32>> = want.iter().map(|bits| Reference::positions(bits)).collect();
                assert_eq!(kept[*layer], want, "{what}: layer {layer}");
            }
            let every = (answer.len() / 20).max(1);
            for (index, token) in answer.iter().enumerate() {
                if index % every == 0 {
                    let difference = (log_softmax_at(&logits, *token as usize) - case.logprobs[index / every]).abs();
                    assert!(difference <= 1e-3, "{what}: log-probability {index} is off by {difference}");
                    worst = worst.max(difference);
                }
                logits = model.decode(*token, &mut sequence).expect("goes on");
            }
        }
    }
    eprintln!("log-probabilities differ by at most {worst:e}");
}

/// A repetition leaves nothing: with room for all, the cache and what follows are those of the full cache.
#[test]
fn a_repetition_leaves_nothing() {
    for case in [Case::text(150, 20), Case::picture("The image shows a red circle.")] {
        let mut full = case.model.new_sequence().expect("a sequence");
        let mut want = case.model.prefill(&case.prompt, &case.features, &mut full, &|| Ok(())).expect("reads");
        for keep in [json!(1.0), json!({ "tokens": 5000 })] {
            let mut sequence = sequence(&case.model, &json!({ "keep": keep }));
            let mut got = case.model.prefill(&case.prompt, &case.features, &mut sequence, &|| Ok(())).expect("reads");
            let mut full = full.fork().expect("between two pieces of work");
            let off = |got: &[f32], want: &[f32]| {
                got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max)
            };
            assert!(off(&got, &want) < 1e-4, "{keep}: {}", off(&got, &want));
            for token in &case.answer {
                (got, want) = (
                    case.model.decode(*token, &mut sequence).expect("goes on"),
                    case.model.decode(*token, &mut full).expect("goes on"),
                );
                assert!(off(&got, &want) < 1e-4, "{keep}: {}", off(&got, &want));
            }
            assert_eq!(sequence.spans(), full.spans());
            assert!(sequence.kept().iter().flatten().all(|lane| lane.positions.len() == full.next_position() as usize));
            want = case
                .model
                .prefill(&case.prompt, &case.features, &mut case.model.new_sequence().expect("one"), &|| Ok(()))
                .expect("reads");
        }
    }
}

/// One threshold for the model gives no head less than its best entry, and the whole to the entry; a cap holds for ever.
#[test]
fn the_whole_is_met_and_a_cap_holds() {
    let case = Case::text(120, 60);
    let (layers, heads) = (case.model.info().layers, case.model.info().kv_heads);
    for keep in [0.1, 0.33, 0.5, 0.9] {
        for budget in ["pooled", "uniform"] {
            let mut sequence = sequence(&case.model, &json!({ "keep": keep, "budget": budget, "sinks": 0 }));
            case.model.prefill(&case.prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
            let kept: usize = sequence.kept().iter().flatten().map(|lane| lane.positions.len()).sum();
            let total = (keep * (layers * 120) as f64 + 0.5).floor() as usize;
            assert_eq!(kept, total * heads, "{keep} {budget}");
        }
    }
    let mut sequence = sequence(&case.model, &json!({ "keep": { "tokens": 40 }, "decode": "oldest" }));
    case.model.prefill(&case.prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
    for token in &case.answer {
        case.model.decode(*token, &mut sequence).expect("goes on");
        let held: usize = sequence.kept().iter().flatten().map(|lane| lane.positions.len()).sum();
        assert!(held <= 40 * layers * heads, "{held}");
    }
}

/// A second prompt is repeated alone, whatever the threads, and a fork goes on alike.
#[test]
fn conversations_go_on() {
    let case = Case::text(100, 30);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut one = sequence(&case.model, &json!({ "keep": 0.5 }));
            case.model.prefill(&case.prompt, &[], &mut one, &|| Ok(())).expect("reads");
            case.model.decode(case.answer[0], &mut one).expect("goes on");
            assert_eq!(one.repeats(30).expect("again").first, 0, "behind other entries all of a prompt is repeated");
            let mut two = one.fork().expect("between two pieces of work");
            let next = case.model.expand(&case.answer[1..], 0).expect("text");
            let logits = [&mut one, &mut two]
                .map(|sequence| case.model.prefill(&next, &[], sequence, &|| Ok(())).expect("reads"));
            assert!(logits[0] == logits[1] && one.kept() == two.kept());
            assert_eq!(one.next_position(), 130);
            one.kept()
        })
    };
    assert!(run(1) == run(2));
}

#[test]
fn a_prompt_that_cannot_be_read_twice_is_refused() {
    let case = Case::text(120, 2);
    let most = case.model.max_positions();
    let tokens: Vec<u32> = case.prompt.tokens.iter().copied().cycle().take(most / 2 + 10).collect();
    let prompt = case.model.expand(&tokens, 0).expect("text");
    let mut sequence = sequence(&case.model, &json!({ "keep": 0.5 }));
    let repeat = sequence.repeats(tokens.len()).expect("twice");
    match case.model.prefill(&prompt, &[], &mut sequence, &|| Ok(())) {
        Err(Error::ContextOverflow { needed, available, .. }) => {
            assert_eq!((needed, available), (tokens.len() + repeat.rows, most));
        }
        other => panic!("{other:?}"),
    }
    // Nothing was lost: a shorter one is read.
    case.model.prefill(&case.prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
    let refused = |cache: Value| Method::parse(&cache).expect_err("refused").to_string();
    let zip = json!({ "method": "kvzip", "keep": 0.5 });
    let before = refused(json!([zip, { "method": "lorc" }]));
    assert!(before.contains("rotary embedding"), "{before}");
    let shared = refused(json!([{ "method": "kvsharer", "sources": { "3": 1 } }, zip]));
    assert!(shared.contains("reads prompts twice"), "{shared}");
}
