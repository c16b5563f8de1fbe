//! PyramidInfer: layers that see less and less of a prompt, against an independent reference in PyTorch (tests/golden/pyramid_infer.py),
//! and blocks of generated entries that shrink.

use crate::case::{Case, Reference, sequence};
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
    /// The file and the name of its prompt under data/eviction.
    of: String,
    name: String,
    cases: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    options: Value,
    /// A bit for each position of the prompt, in base64, per layer.
    kept: Vec<String>,
    /// The same of the answer, at its end.
    generated: Vec<String>,
    /// Of every so many tokens of the answer.
    logprobs: Vec<f32>,
}

fn cache(options: &Value) -> Value {
    let mut cache = options.clone();
    cache["method"] = json!("pyramidInfer");
    cache
}

/// The positions that each layer holds.
fn held(sequence: &Sequence) -> Vec<Vec<u32>> {
    sequence.kept().iter().map(|lanes| lanes[0].positions.clone()).collect()
}

#[test]
fn layers_hold_what_those_of_the_reference_hold() {
    let golden: Golden = Reference::golden("pyramid_infer.json");
    let mut worst = 0f32;
    for scene in &golden.scenes {
        let Reference { model, prompt, features, answer } = Reference::of(&scene.of, &scene.name);
        let n = prompt.tokens.len() as u32;
        for case in &scene.cases {
            let cache = cache(&case.options);
            let mut sequence = sequence(&model, &cache);
            let mut logits = model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
            let kept: Vec<Vec<u32>> = case.kept.iter().map(|bits| Reference::positions(bits)).collect();
            assert_eq!(held(&sequence), kept, "{cache}: after the prompt");
            let every = (answer.len() / 20).max(1);
            for (index, token) in answer.iter().enumerate() {
                if index % every == 0 {
                    let want = case.logprobs[index / every];
                    let difference = (log_softmax_at(&logits, *token as usize) - want).abs();
                    assert!(difference <= 1e-3, "{cache}: log-probability {index} is off by {difference}");
                    worst = worst.max(difference);
                }
                logits = model.decode(*token, &mut sequence).expect("goes on");
            }
            let generated = |bits| Reference::positions(bits).into_iter().map(|position| n + position);
            let both = kept.iter().zip(&case.generated);
            let end: Vec<Vec<u32>> =
                both.map(|(kept, bits)| kept.iter().copied().chain(generated(bits)).collect()).collect();
            assert_eq!(held(&sequence), end, "{cache}: after the answer");
        }
    }
    eprintln!("log-probabilities differ by at most {worst:e}");
}

/// The last positions of so many that rank the others.
fn window(recent: f64, n: usize) -> usize {
    (1 + (recent * n as f64) as usize).min(n)
}

fn cosine(last: f64, layer: usize, layers: usize) -> f64 {
    (1.0 - last) * ((std::f64::consts::PI * layer as f64 / layers as f64).cos() + 1.0) / 2.0 + last
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Sizes are those of a plain loop, whatever the options; sinks and the last positions go on; blocks leave what is before and behind them.
    #[test]
    fn sizes_follow_from_the_length_alone(
        n in 1usize..150, answer in 1usize..70, recent in prop::sample::select(vec![0.0, 0.05, 0.2, 1.0]),
        share in 0.0f64..1.0, constant: bool, interval in 1usize..4, sinks in 0usize..6, least in 0usize..70,
        block in prop::sample::select(vec![0usize, 1, 5, 16]), block_share in 0.0f64..1.0, block_last in 0.0f64..1.0,
    ) {
        thread_local!(static CASE: Case = Case::text(150, 70));
        CASE.with(|case| {
            let schedule = if constant { "constant" } else { "cosine" };
            let cache = cache(&json!({
                "share": share, "schedule": schedule, "interval": interval, "recent": recent, "sinks": sinks, "least": least,
                "block": block, "blockShare": block_share, "blockLast": block_last,
            }));
            let mut sequence = sequence(&case.model, &cache);
            let prompt = case.model.expand(&case.prompt.tokens[..n], 0).expect("text");
            case.model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
            let layers = case.model.info().layers;
            let read = held(&sequence);
            let mut context = n - window(recent, n);
            for (layer, positions) in read.iter().enumerate() {
                assert_eq!(positions.len(), context + window(recent, n), "{cache}: layer {layer}");
                let safe = sinks.min(context) as u32;
                assert_eq!(positions[..safe as usize], (0..safe).collect::<Vec<_>>(), "{cache}: sinks");
                assert_eq!(positions[context..], ((n - window(recent, n)) as u32..n as u32).collect::<Vec<_>>());
                if let Some(before) = layer.checked_sub(1) {
                    assert!(positions.iter().all(|position| read[before].contains(position)), "{cache}: from the layer before");
                }
                let share = if constant { share } else { cosine(share, layer, layers) };
                let passed = (share * context as f64) as usize;
                if layer % interval == 0 && passed > least {
                    context = passed;
                }
            }
            let mut start = n;
            let mut want = vec![0; layers];
            for token in &case.answer[..answer] {
                case.model.decode(*token, &mut sequence).expect("goes on");
                let seen = sequence.next_position() as usize;
                let gone = block > 0 && start + block + window(recent, seen) <= seen;
                for (layer, positions) in held(&sequence).iter().enumerate() {
                    want[layer] += 1;
                    if gone {
                        let kept = (block_share * cosine(block_last, layer, layers) * block as f64) as usize;
                        want[layer] -= block - kept.max(1);
                    }
                    assert_eq!(positions[..read[layer].len()], read[layer], "{cache}: the prompt stays");
                    assert_eq!(positions.len(), read[layer].len() + want[layer], "{cache}: layer {layer} after {seen}");
                    let open = (if gone { start + block } else { start } as u32..seen as u32).collect::<Vec<_>>();
                    assert!(positions.ends_with(&open), "{cache}: what no block has left");
                }
                start += if gone { block } else { 0 };
            }
        });
    }
}

/// Of more sinks than a layer passes on, the earlier ones go on, whatever the attention says.
#[test]
fn earlier_sinks_go_first_where_there_is_no_room_for_all() {
    let case = Case::text(150, 1);
    for (n, passed) in [(62, 1), (102, 1), (122, 2), (150, 2)] {
        let share = f64::from(passed) / (n - 1) as f64 + 1e-9;
        let cache = cache(&json!({ "share": share, "schedule": "constant", "recent": 0, "sinks": 4, "least": 0 }));
        let mut sequence = sequence(&case.model, &cache);
        let prompt = case.model.expand(&case.prompt.tokens[..n], 0).expect("text");
        case.model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        let second = &held(&sequence)[1];
        assert_eq!(*second, (0..passed).chain([n as u32 - 1]).collect::<Vec<_>>(), "{n} positions");
    }
}

/// The tokens of a conversation: what earlier turns have left is left alone, also where a turn ends inside a block.
#[test]
fn later_prompts_go_their_own_way_and_forks_go_on_alike() {
    let case = Case::text(120, 60);
    let cache = cache(&json!({ "share": 0.6, "schedule": "constant", "recent": 0.1, "least": 8, "block": 8 }));
    let mut one = sequence(&case.model, &cache);
    case.model.prefill(&case.prompt, &[], &mut one, &|| Ok(())).expect("reads");
    let decode = |sequence: &mut Sequence, tokens: &[u32]| {
        tokens.iter().map(|token| case.model.decode(*token, sequence).expect("goes on")).collect::<Vec<_>>()
    };
    decode(&mut one, &case.answer[..27]);
    let mut two = one.fork().expect("between two pieces of work");
    assert!(decode(&mut one, &case.answer[27..50]) == decode(&mut two, &case.answer[27..50]));
    assert_eq!(held(&one), held(&two));
    let before = held(&one);
    let second = case.model.expand(&case.prompt.tokens[..90], 0).expect("text");
    case.model.prefill(&second, &[], &mut one, &|| Ok(())).expect("reads");
    let window = window(0.1, 90);
    let mut context = 90 - window;
    for (layer, (positions, before)) in held(&one).iter().zip(&before).enumerate() {
        assert_eq!(positions[..before.len()], *before, "layer {layer}");
        assert_eq!(positions.len() - before.len(), context + window, "layer {layer}");
        assert!(positions[before.len()..].iter().all(|position| *position >= 170));
        context = (0.6 * context as f64) as usize;
    }
    let read = held(&one);
    decode(&mut one, &case.answer);
    for (positions, read) in held(&one).iter().zip(&read) {
        assert_eq!(positions[..read.len()], *read, "blocks are those of the turn");
        assert!(positions.len() < read.len() + case.answer.len());
    }
}
