//! ZipVL: prompts of which some positions attend, against an independent reference in PyTorch (tests/golden/zipvl.py).

use crate::case::{Case, Reference, sequence};
use prefixkv_core::method::Moment;
use prefixkv_core::sample::log_softmax_at;
use prefixkv_core::sequence::Sequence;
use prefixkv_kernels::codec::Dtype;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    scenes: Vec<Scene>,
}

#[derive(Deserialize)]
struct Scene {
    /// The file and the name of its prompt under data/eviction.
    of: String,
    name: String,
    /// How many of its first tokens are a second prompt, behind so many tokens of the answer; 0: there is none.
    again: usize,
    said: usize,
    cases: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    options: Value,
    /// The first class of the first prompt, a bit for each position, in base64, per layer.
    first: Vec<String>,
    /// Of every so many tokens of the answer.
    logprobs: Vec<f32>,
}

/// The positions of a prompt that its layers have stored in 4 bits.
fn first(sequence: &mut Sequence) -> Vec<Vec<u32>> {
    let mut layers = Vec::new();
    for planned in sequence.take_plans() {
        if let (Moment::Layer(layer), [lane]) = (planned.moment, &planned.plan.lanes[..]) {
            assert_eq!((layer, lane.layer), (layers.len(), layer));
            let first = lane.encode.iter().find(|part| part.codec.key.dtype == Dtype::U4);
            layers.push(first.map_or_else(Vec::new, |part| part.positions.clone()));
        }
    }
    layers
}

/// The log-probabilities of every so many tokens of the answer, and the first class.
fn run(given: &Reference, scene: &Scene, cache: &Value) -> (Vec<f32>, Vec<Vec<u32>>) {
    let Reference { model, prompt, features, answer } = given;
    let mut sequence = sequence(model, cache);
    sequence.keep_plans();
    let mut logits = model.prefill(prompt, features, &mut sequence, &|| Ok(())).expect("reads");
    let first = first(&mut sequence);
    for token in &answer[..scene.said] {
        model.decode(*token, &mut sequence).expect("goes on");
    }
    if scene.again > 0 {
        let next = model.expand(&prompt.tokens[..scene.again], 0).expect("text");
        logits = model.prefill(&next, &[], &mut sequence, &|| Ok(())).expect("reads more");
    }
    let every = (answer.len() / 20).max(1);
    let mut logprobs = Vec::new();
    for (index, token) in answer.iter().enumerate() {
        if index % every == 0 {
            logprobs.push(log_softmax_at(&logits, *token as usize));
        }
        logits = model.decode(*token, &mut sequence).expect("goes on");
    }
    (logprobs, first)
}

fn apart(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max)
}

#[test]
fn positions_attend_as_those_of_the_reference() {
    let golden: Golden = Reference::golden("zipvl.json");
    let (mut worst, mut least) = (0f32, f32::INFINITY);
    for scene in &golden.scenes {
        let given = Reference::of(&scene.of, &scene.name);
        for case in &scene.cases {
            let mut cache = case.options.clone();
            (cache["method"], cache["prefill"]) = (json!("zipvl"), json!("sparse"));
            let (logprobs, first) = run(&given, scene, &cache);
            let difference = apart(&logprobs, &case.logprobs);
            assert!(difference <= 1e-3, "{cache} on {}: off by {difference}", scene.name);
            worst = worst.max(difference);
            // Entries that stay in full precision are in no class.
            let stored = case.options.get("window").and_then(Value::as_u64).unwrap_or(0) as usize;
            let end = given.prompt.tokens.len().saturating_sub(stored) as u32;
            if end > 0 {
                let of = |bits: &String| Reference::positions(bits).into_iter().filter(|at| *at < end).collect();
                let want: Vec<Vec<u32>> = case.first.iter().map(of).collect();
                assert_eq!(first, want, "{cache} on {}", scene.name);
            }
            // The reference says something: with the attention of all it would be missed.
            cache["prefill"] = json!("whole");
            least = least.min(apart(&run(&given, scene, &cache).0, &case.logprobs));
        }
    }
    eprintln!("log-probabilities differ by at most {worst:e}, and by at least {least:e} where all attend");
    assert!(least > 3.0 * worst && least > 1e-3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Where the first class is everything, and every query a probe or not, nothing changes.
    #[test]
    fn all_the_mass_is_attention_of_all(n in 1usize..150, more in 1usize..60, probes in 1usize..90) {
        thread_local!(static CASE: Case = Case::text(150, 70));
        CASE.with(|case| {
            let read = |prefill: &str| {
                // Codes would turn last bits into steps.
                let cache = json!({ "method": "zipvl", "mass": 1, "probes": probes, "window": 1000, "prefill": prefill });
                let mut sequence = sequence(&case.model, &cache);
                let mut logits = Vec::new();
                for tokens in [&case.prompt.tokens[..n], &case.answer[..more]] {
                    let prompt = case.model.expand(tokens, 0).expect("text");
                    logits.extend(case.model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads"));
                    logits.extend(case.model.decode(7, &mut sequence).expect("goes on"));
                }
                logits
            };
            let difference = apart(&read("sparse"), &read("whole"));
            assert!(difference <= 2e-4, "{difference}");
        });
    }
}

/// A method may choose first, by something else than attention; a layer that reads another's entries attends to all of them.
#[test]
fn other_methods_stand_before_it() {
    let case = Case::text(400, 5);
    let zip = json!({ "method": "zipvl", "mass": 0.8, "probes": 20 });
    let last = (case.model.info().layers - 1).to_string();
    let sharer = json!({ "method": "kvsharer", "sources": { last: 0 } });
    for before in [json!({ "method": "streaming", "keep": 0.4 }), json!({ "method": "knorm", "keep": 0.5 }), sharer] {
        let read = |prefill: &str| {
            let mut zip = zip.clone();
            zip["prefill"] = json!(prefill);
            let mut sequence = sequence(&case.model, &json!([before, zip]));
            sequence.keep_plans();
            let logits = case.model.prefill(&case.prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
            case.model.decode(7, &mut sequence).expect("goes on");
            (logits, sequence.kept().iter().map(|lanes| lanes[0].positions.len()).collect::<Vec<_>>())
        };
        let ((sparse, held), (whole, same)) = (read("sparse"), read("whole"));
        assert_eq!(held, same, "{before}");
        assert!(apart(&sparse, &whole) > 1e-3, "{before}: fewer attend");
        assert!(sparse.iter().all(|x| x.is_finite()));
    }
}
