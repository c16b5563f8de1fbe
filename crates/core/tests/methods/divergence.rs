//! `score` with `kl`: the divergence of every answer token's distribution from the full cache's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use prefixkv_core::engine::Engine;
use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::wire::Event;
use serde_json::{Value, json};

const PROMPT: &str =
    "the quick brown fox jumps over the lazy dog, and then the dog sleeps while the fox runs far away to the hills";
const ANSWER: &str = " and never comes back to see the dog again";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures/llama-linear-tied")
}

/// The log-probabilities and divergences that the engine says.
fn scored(engine: &Engine, cache: &Value) -> (Vec<f32>, Option<Vec<f64>>) {
    let request = json!({ "op": "score", "prompt": PROMPT, "answer": ANSWER, "cache": cache, "kl": true });
    let ticket = engine.submit(&request.to_string(), Vec::new()).expect("a request");
    while let Some(events) = ticket.wait(Duration::from_secs(60)) {
        for event in events {
            match event {
                Event::Scored(score) => return (score.logprobs, score.kl),
                Event::Error { error } => panic!("{cache}: {error:?}"),
                _ => {}
            }
        }
    }
    panic!("{cache}: no answer");
}

/// Probabilities, the plain way.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let each: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
    let sum: f64 = each.iter().sum();
    each.iter().map(|value| value / sum).collect()
}

/// The distribution of each answer token with a method.
fn distributions(model: &Model, cache: &Value) -> Vec<Vec<f64>> {
    let prompt = model.tokenizer().encode_prompt(PROMPT).expect("encodes");
    let whole = model.tokenizer().encode_prompt(&format!("{PROMPT}{ANSWER}")).expect("encodes");
    assert!(whole.starts_with(&prompt));
    let method = Method::parse(cache).expect("a method");
    let mut sequence = model.new_sequence_with(method, false).expect("a sequence");
    let expanded = model.expand(&prompt, 0).expect("text");
    let mut found = vec![model.prefill(&expanded, &[], &mut sequence, &|| Ok(())).expect("a prefill")];
    for token in &whole[prompt.len()..whole.len() - 1] {
        found.push(model.decode(*token, &mut sequence).expect("a step"));
    }
    found.iter().map(|logits| softmax(logits)).collect()
}

#[test]
fn divergences_are_those_of_whole_distributions() {
    let engine = Engine::open(&json!({ "source": folder().canonicalize().unwrap() }).to_string()).unwrap();
    let model = Model::load(&LoadOptions::new(folder()), &mut |_| Ok(())).unwrap();
    let full = distributions(&model, &json!({ "method": "full" }));
    for cache in [
        json!({ "method": "streaming", "keep": 0.3 }),
        json!({ "method": "h2o", "keep": 0.4 }),
        json!({ "method": "random", "keep": 0.5, "seed": 3 }),
    ] {
        let (logprobs, kl) = scored(&engine, &cache);
        let kl = kl.expect("asked for");
        let other = distributions(&model, &cache);
        assert_eq!(kl.len(), logprobs.len());
        assert_eq!(kl.len(), full.len());
        for (step, ((p, q), found)) in full.iter().zip(&other).zip(&kl).enumerate() {
            let slow: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum();
            assert!((slow - found).abs() < 1e-9 + 1e-6 * slow.abs(), "{cache}, step {step}: {found} for {slow}");
        }
        assert!(kl[1..].iter().any(|kl| *kl > 1e-4), "{cache} changes nothing: {kl:?}");
    }
}

#[test]
fn what_keeps_everything_diverges_by_exactly_nothing() {
    let engine = Engine::open(&json!({ "source": folder().canonicalize().unwrap() }).to_string()).unwrap();
    for cache in
        [json!({ "method": "full" }), json!({ "method": "prefixkv", "keep": 1 }), json!({ "method": "h2o", "keep": 1 })]
    {
        let (logprobs, kl) = scored(&engine, &cache);
        assert_eq!(kl, Some(vec![0.0; logprobs.len()]), "{cache}");
    }
}
