//! R-KV: lanes that shrink every few tokens, against an independent reference in PyTorch (tests/golden/rkv.py).

use crate::case::{self, Case, Reference};
use prefixkv_core::model::Model;
use prefixkv_core::sample::log_softmax_at;
use prefixkv_core::sequence::Sequence;
use proptest::prelude::*;
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
    cases: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    options: Value,
    /// A bit for each position, in base64, per layer and head: after the prompt, and at the end of the answer.
    kept: Vec<Vec<String>>,
    kept_end: Vec<Vec<String>>,
    /// Of every so many tokens of the answer.
    logprobs: Vec<f32>,
}

fn sequence(model: &Model, options: &Value) -> Sequence {
    let mut cache = options.clone();
    cache["method"] = json!("rkv");
    case::sequence(model, &cache)
}

/// The positions of every head of some layers.
fn held(sequence: &Sequence, layers: &[usize]) -> Vec<Vec<Vec<u32>>> {
    let kept = sequence.kept();
    layers.iter().map(|layer| kept[*layer].iter().map(|lane| lane.positions.clone()).collect()).collect()
}

fn decoded(layers: &[Vec<String>]) -> Vec<Vec<Vec<u32>>> {
    layers.iter().map(|heads| heads.iter().map(|bits| Reference::positions(bits)).collect()).collect()
}

#[test]
fn heads_hold_what_those_of_the_reference_hold() {
    let golden: Golden = Reference::golden("rkv.json");
    let mut worst = 0f32;
    for scene in &golden.scenes {
        let reference = Reference::of(&scene.of, &scene.name);
        for case in &scene.cases {
            let what = &case.options;
            let mut sequence = sequence(&reference.model, what);
            let read = reference.model.prefill(&reference.prompt, &reference.features, &mut sequence, &|| Ok(()));
            let mut logits = read.expect("reads");
            assert_eq!(held(&sequence, &scene.layers), decoded(&case.kept), "{what}: after the prompt");
            let every = (reference.answer.len() / 20).max(1);
            for (index, token) in reference.answer.iter().enumerate() {
                if index % every == 0 {
                    let difference = (log_softmax_at(&logits, *token as usize) - case.logprobs[index / every]).abs();
                    assert!(difference <= 1e-3, "{what}: log-probability {index} is off by {difference}");
                    worst = worst.max(difference);
                }
                logits = reference.model.decode(*token, &mut sequence).expect("goes on");
            }
            assert_eq!(held(&sequence, &scene.layers), decoded(&case.kept_end), "{what}: after the answer");
        }
    }
    eprintln!("log-probabilities differ by at most {worst:e}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Sizes saw between the share and `every` more, and never above a cap; sinks and the last tokens stay.
    #[test]
    fn lanes_go_back_to_their_size_every_few_tokens(
        n in 40usize..150, answer in 1usize..70, keep in prop::sample::select(vec![0.2, 0.5, 0.8]), cap in 12usize..90, capped: bool,
        every in 1usize..40, window in 1usize..12, sinks in 0usize..4, attention in 0.0f64..1.0, alike in 0.0f64..1.0, spared in 0usize..5,
    ) {
        thread_local!(static CASE: Case = Case::text(150, 70));
        CASE.with(|case| {
            let keep = if capped { json!({ "tokens": cap }) } else { json!(keep) };
            let options = json!({
                "keep": keep, "every": every, "window": window, "sinks": sinks, "attention": attention, "alike": alike, "spared": spared,
            });
            let mut sequence = sequence(&case.model, &options);
            let prompt = case.model.expand(&case.prompt.tokens[..n], 0).expect("text");
            case.model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
            let layers = case.model.info().layers;
            let share = keep.as_f64().map(|keep| (keep * (layers * n) as f64 + 0.5).floor() as usize);
            let counts: Vec<usize> = (0..layers)
                .map(|layer| share.map_or(cap.min(n), |share| share / layers + usize::from(layer < share % layers)))
                .collect();
            let mut want = counts.clone();
            for (step, token) in case.answer[..answer].iter().enumerate() {
                let seen = n + step + 1;
                for (want, count) in want.iter_mut().zip(&counts) {
                    if capped && *want == cap {
                        *want = cap - every.min(cap / 2);
                    }
                    *want += 1;
                    if !capped && (step + 1) % every == 0 {
                        *want = (*want).min((seen * count).div_ceil(n));
                    }
                }
                case.model.decode(*token, &mut sequence).expect("goes on");
                for (layer, lanes) in sequence.kept().iter().enumerate() {
                    for lane in lanes {
                        let positions = &lane.positions;
                        assert_eq!(positions.len(), want[layer], "{options}: layer {layer} after {seen}");
                        assert_eq!(positions[..sinks], (0..sinks as u32).collect::<Vec<_>>(), "{options}: sinks");
                        let recent = window.min(want[layer] / 2).saturating_sub(1);
                        let last = (seen - recent) as u32..seen as u32;
                        assert!(positions.ends_with(&last.collect::<Vec<_>>()), "{options}: the last {recent} of {positions:?}");
                    }
                }
            }
        });
    }
}

/// An answer that says the same again and again: of what is alike the newest stays, and what was said once stays.
#[test]
fn what_repeats_itself_goes_first() {
    let case = Case::text(150, 70);
    // Half of the prompt is one token, in between are others.
    let tokens: Vec<u32> = (0..120).map(|i| if i % 2 == 0 { 77 } else { case.prompt.tokens[i] }).collect();
    let prompt = case.model.expand(&tokens, 0).expect("text");
    let repeated = |options: Value| {
        let mut sequence = sequence(&case.model, &options);
        case.model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        let kept = sequence.kept();
        let held = kept[0].iter().flat_map(|lane| &lane.positions);
        held.filter(|position| **position % 2 == 0).count()
    };
    let (unlike, looked_at) = (json!({ "keep": 0.4, "attention": 0.0 }), json!({ "keep": 0.4, "attention": 1.0 }));
    let (unlike, looked_at) = (repeated(unlike), repeated(looked_at));
    eprintln!("{unlike} repeated entries stay by redundancy alone, {looked_at} by attention alone");
    assert!(2 * unlike < looked_at, "{unlike} and {looked_at}");
}

#[test]
fn sequences_that_fork_go_on_alike_and_repeat_whatever_the_threads() {
    let case = Case::text(120, 60);
    for keep in [json!(0.4), json!({ "tokens": 50 })] {
        let options = json!({ "keep": keep, "every": 12 });
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let mut one = sequence(&case.model, &options);
                case.model.prefill(&case.prompt, &[], &mut one, &|| Ok(())).expect("reads");
                for token in &case.answer[..29] {
                    case.model.decode(*token, &mut one).expect("goes on");
                }
                let mut two = one.fork().expect("between two pieces of work");
                for token in &case.answer[29..] {
                    let (one, two) = (case.model.decode(*token, &mut one), case.model.decode(*token, &mut two));
                    assert!(one.expect("goes on") == two.expect("goes on"));
                }
                assert!(one.kept() == two.kept());
                one.kept()
            })
        };
        assert!(run(1) == run(2), "{options}");
    }
}
