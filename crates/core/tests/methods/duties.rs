//! The duties of every method, whatever it keeps: one suite over the list of methods, two models and several sizes.

use std::sync::Arc;

use crate::case::Case;
use prefixkv_core::Error;
use prefixkv_core::cache::Modality;
use prefixkv_core::method::{BudgetKind, METHODS, Method, MethodSpec, OptionKind, Role, VARIANT};
use prefixkv_core::sequence::Sequence;
use serde_json::{Value, json};

const KEEPS: [f64; 4] = [0.7, 0.5, 0.3, 0.2];
/// The text behind the picture.
const ANSWER: &str = " There is a green star at the top left. There is a blue ring.";

impl Case {
    fn sequence(&self, cache: &Value, carry: bool) -> Result<Sequence, Error> {
        self.model.new_sequence_with(Method::parse(cache)?, carry)
    }

    /// The logits of the prompt's end and of every answer token, and the sequence.
    fn run(&mut self, cache: &Value) -> (Vec<Vec<f32>>, Sequence) {
        self.run_with(cache, |_, _| ())
    }

    fn run_with(&mut self, cache: &Value, mut each: impl FnMut(usize, &Sequence)) -> (Vec<Vec<f32>>, Sequence) {
        let mut sequence = self.sequence(cache, false).unwrap_or_else(|e| panic!("{cache}: {e}"));
        let prefill = self.model.prefill(&self.prompt, &self.features_for(&sequence), &mut sequence, &|| Ok(()));
        let mut logits = vec![prefill.unwrap_or_else(|e| panic!("{cache}: {e}"))];
        each(0, &sequence);
        for (step, token) in self.answer.clone().into_iter().enumerate() {
            logits.push(self.model.decode(token, &mut sequence).unwrap_or_else(|e| panic!("{cache}: {e}")));
            each(step + 1, &sequence);
        }
        (logits, sequence)
    }

    /// Entries over all layers, a layer's entry counting one.
    fn total(&self, sequence: &Sequence) -> f64 {
        sequence.memory().kept_per_layer.iter().sum()
    }

    fn layers(&self) -> usize {
        self.model.info().layers
    }
}

/// The method with `keep`, or the plain cache; a stage behind a method that has it.
fn cache_of(case: &Case, spec: &MethodSpec, keep: f64) -> Value {
    match (spec.takes_keep(), spec.role) {
        (true, _) => case.cache(spec, keep),
        (false, Role::Refines) => json!([{ "method": "knorm", "keep": keep }, { "method": spec.name }]),
        (false, Role::Shares) => json!({ "method": spec.name, "sources": { "1": 0 } }),
        (false, _) => json!({ "method": spec.name }),
    }
}

fn sized() -> impl Iterator<Item = &'static MethodSpec> {
    METHODS.iter().filter(|spec| spec.takes_keep())
}

/// Whether the method evicts after prompts only.
fn once(spec: &MethodSpec) -> bool {
    spec.options.iter().any(|option| option.name == "decode" && option.default == "\"none\"")
}

/// Tokens between two times that lanes go back to their size; 0 for methods that do at every token.
fn between(spec: &MethodSpec) -> usize {
    let every = spec.options.iter().find(|option| option.name == "every");
    every.map_or(0, |option| option.default.parse().expect("a number"))
}

fn both() -> [Case; 2] {
    [Case::picture(ANSWER), Case::text(160, 40)]
}

#[test]
fn budgets_are_met_to_the_entry() {
    for mut case in both() {
        let n = case.prompt.tokens.len();
        for spec in sized() {
            for keep in KEEPS {
                let cache = case.cache(spec, keep);
                let (_, sequence) = case.run_with(&cache, |step, sequence| {
                    if step > 0 {
                        return;
                    }
                    let kept: f64 = sequence.memory().kept_per_layer.iter().sum();
                    let asked = (keep * (n * sequence.kept().len()) as f64 + 0.5).floor();
                    match spec.budget {
                        // Means over heads of different sizes add up but for rounding.
                        BudgetKind::Exact => assert!((kept - asked).abs() < 1e-6, "{cache}: {kept} of {asked}"),
                        BudgetKind::AtMost => assert!(kept <= asked, "{cache}: {kept} of {asked}"),
                        BudgetKind::Outcome => {}
                    }
                });
                // A method that evicts while generating follows the share within an entry per layer; one that does not
                // grows by every token.
                let seen = n + case.answer.len();
                let most = keep * (seen * case.layers()) as f64 + case.layers() as f64;
                let saw = (between(spec) * case.layers()) as f64;
                let total = case.total(&sequence);
                if once(spec) {
                    let grown = (case.answer.len() * case.layers()) as f64;
                    let want = (keep * (n * case.layers()) as f64 + 0.5).floor() + grown;
                    assert!((total - want).abs() < 1e-6, "{cache}: {total} of {want}");
                } else {
                    assert!(total <= most + saw, "{cache}: {total} of {most}");
                    assert!(total > most - 3.0 * case.layers() as f64, "{cache}: {total} of {most}");
                }
            }
        }
    }
}

#[test]
fn everything_kept_is_the_plain_cache_bit_for_bit() {
    for mut case in both() {
        let (plain, _) = case.run(&json!({ "method": "full" }));
        for spec in sized() {
            for keep in [json!(1), json!({ "tokens": 100_000 }), json!({ "bytes": "1GiB" })] {
                let cache = case.cache(spec, &keep);
                let (logits, sequence) = case.run(&cache);
                assert!(logits == plain, "{cache} differs from the plain cache");
                assert!(sequence.memory().kept_per_layer.iter().all(|kept| *kept as u32 == sequence.next_position()));
            }
        }
    }
}

#[test]
fn kept_positions_are_true_sorted_and_hold_what_is_protected() {
    for mut case in both() {
        let n = case.prompt.tokens.len() as u32;
        let text: Vec<u32> = case
            .prompt
            .spans
            .iter()
            .filter(|span| span.modality == Modality::Text)
            .flat_map(|span| span.start as u32..(span.start + span.len) as u32)
            .collect();
        for spec in sized() {
            let has = |name: &str| spec.options.iter().any(|option| option.name == name);
            let mut cache = case.cache(spec, 0.5);
            if has("sinks") {
                cache["sinks"] = json!(3);
            }
            if has("recent") {
                cache["recent"] = json!(5);
            }
            // In the text-only prompt everything is text.
            let protects = !case.features.is_empty();
            cache["protectText"] = json!(protects);
            case.run_with(&cache, |_, sequence| {
                let seen = sequence.next_position();
                for lanes in sequence.kept() {
                    let mut head = 0;
                    for lane in lanes {
                        assert_eq!(lane.heads[0], head, "{cache}: heads in order");
                        head = lane.heads[1];
                        assert!(lane.positions.is_sorted_by(|a, b| a < b), "{cache}: sorted, none twice");
                        assert!(lane.positions.last().is_some_and(|last| *last < seen), "{cache}: true positions");
                        if has("sinks") {
                            assert_eq!(lane.positions[..3], [0, 1, 2], "{cache}: sinks");
                        }
                        if has("recent") {
                            let last = &lane.positions[lane.positions.len() - 5..];
                            assert_eq!(last, (seen - 5..seen).collect::<Vec<_>>(), "{cache}: recent");
                        }
                        if protects {
                            assert!(text.iter().all(|position| lane.positions.contains(position)), "{cache}: text");
                        }
                    }
                }
                assert!(seen >= n);
            });
        }
    }
}

#[test]
fn runs_repeat_whatever_the_number_of_threads() {
    for mut case in both() {
        for spec in sized() {
            let cache = case.cache(spec, 0.3);
            let mut run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| {
                    let (logits, sequence) = case.run(&cache);
                    (logits, sequence.kept())
                })
            };
            let first = run(2);
            assert!(first == run(2), "{cache}");
            assert!(first == run(1), "{cache} depends on the number of threads");
        }
    }
}

#[test]
fn sequences_side_by_side_do_not_touch_each_other() {
    let mut case = Case::text(160, 40);
    let other = case.model.expand(&case.answer, 0).expect("text");
    for spec in sized() {
        let cache = case.cache(spec, 0.4);
        let (alone, _) = case.run(&cache);
        let mut first = case.sequence(&cache, false).expect("a sequence");
        let mut second = case.sequence(&cache, false).expect("a sequence");
        case.model.prefill(&case.prompt, &[], &mut first, &|| Ok(())).expect("reads");
        case.model.prefill(&other, &[], &mut second, &|| Ok(())).expect("reads");
        for (step, token) in case.answer.clone().into_iter().enumerate() {
            let logits = case.model.decode(token, &mut first).expect("goes on");
            case.model.decode(7, &mut second).expect("goes on");
            assert!(logits == alone[step + 1], "{cache} at step {step}");
        }
    }
}

#[test]
fn caps_hold_at_every_step() {
    for mut case in both() {
        let layers = case.layers();
        for spec in sized() {
            for tokens in [60usize, 187] {
                let cache = case.cache(spec, json!({ "tokens": tokens }));
                let (_, sequence) = case.run_with(&cache, |_, sequence| {
                    let kept: f64 = sequence.memory().kept_per_layer.iter().sum();
                    assert!(kept <= (tokens * layers) as f64, "{cache}: {kept}");
                });
                let seen = sequence.next_position() as usize;
                let used = (case.total(&sequence) / layers as f64) as usize;
                let room = between(spec).min(tokens / 2);
                assert!((tokens.min(seen) - room..=tokens.min(seen)).contains(&used), "{cache}: all of it is used");
            }
            let (_, full) = case.run(&json!({ "method": "full" }));
            for share in [0.3, 0.95] {
                let bytes = (full.memory().full as f64 * share) as u64;
                let cache = case.cache(spec, json!({ "bytes": bytes }));
                let (_, sequence) = case.run_with(&cache, |_, sequence| {
                    let resident = sequence.memory().resident;
                    assert!(resident <= bytes, "{cache}: {resident}");
                });
                // Nor is much of it wasted, unless a model is so small that bookkeeping is most of it.
                let resident = sequence.memory().resident;
                assert!(
                    bytes < 100_000 || between(spec) > 0 || resident as f64 > 0.9 * bytes as f64,
                    "{cache}: {resident}"
                );
            }
        }
    }
}

#[test]
fn impossible_sizes_are_refused_with_the_least_possible_one() {
    for mut case in both() {
        for spec in sized() {
            for keep in [json!(0.0001), json!({ "bytes": 1000 })] {
                let mut cache = case.cache(spec, &keep);
                cache["protectText"] = json!(!case.features.is_empty());
                if spec.options.iter().any(|option| option.name == "sinks") {
                    cache["sinks"] = json!(4);
                }
                let mut sequence = case.sequence(&cache, false).expect("refused only when the prompt is known");
                let refused = case.model.prefill(&case.prompt, &case.features, &mut sequence, &|| Ok(()));
                let Err(Error::Budget { least, .. }) = refused else { panic!("{cache}: {refused:?}") };
                cache["keep"] = json!(least);
                case.run(&cache);
            }
        }
    }
}

#[test]
fn the_least_possible_size_holds_for_ever() {
    for mut case in both() {
        for spec in sized() {
            for (keep, protect) in
                [(json!({ "tokens": 1 }), false), (json!({ "tokens": 1 }), true), (json!({ "bytes": 9 }), true)]
            {
                let protect = protect && !case.features.is_empty();
                let mut cache = case.cache(spec, &keep);
                cache["protectText"] = json!(protect);
                let mut sequence = case.sequence(&cache, false).expect("refused only when the prompt is known");
                let refused = case.model.prefill(&case.prompt, &case.features, &mut sequence, &|| Ok(()));
                if let Err(Error::Budget { least, .. }) = refused {
                    cache["keep"] = json!(least);
                }
                let keep = cache["keep"].clone();
                case.run_with(&cache, |step, sequence| {
                    let memory = sequence.memory();
                    if let Some(tokens) = keep["tokens"].as_u64() {
                        let most = (tokens * memory.kept_per_layer.len() as u64) as f64;
                        assert!(memory.kept_per_layer.iter().sum::<f64>() <= most, "{cache} at step {step}");
                    } else {
                        assert!(memory.resident <= keep["bytes"].as_u64().expect("bytes"), "{cache} at step {step}");
                    }
                    assert!(memory.kept_per_layer.iter().all(|kept| *kept >= 1.0), "{cache} at step {step}");
                });
            }
        }
    }
}

#[test]
fn memory_falls_by_the_asked_share() {
    for mut case in both() {
        let (_, full) = case.run(&json!({ "method": "full" }));
        assert_eq!(full.memory().payload, full.memory().full);
        for spec in sized().filter(|spec| !once(spec)) {
            for keep in KEEPS {
                let cache = case.cache(spec, keep);
                let (_, sequence) = case.run(&cache);
                let memory = sequence.memory();
                let entries: f64 = memory.kept_per_layer.iter().sum();
                let entry = memory.full as f64 / f64::from(sequence.next_position()) / case.layers() as f64;
                assert_eq!(memory.payload as f64, entries * entry, "{cache}: payload is exact");
                assert_eq!(memory.dead, 0);
                let share = memory.payload as f64 / memory.full as f64;
                let saw = between(spec) as f64 / f64::from(sequence.next_position());
                assert!(share > keep - 0.015 && share < keep + 0.015 + saw, "{cache}: {share}");
                assert!(memory.resident >= memory.payload + memory.metadata);
            }
        }
    }
}

#[test]
fn a_conversation_goes_on_after_eviction() {
    for case in both() {
        let second = case.model.expand(&case.answer[..15], 0).expect("text");
        let third = case.model.expand(&case.answer[3..4], 0).expect("text");
        for spec in sized() {
            for keep in [json!(0.5), json!({ "tokens": 70 })] {
                let cache = case.cache(spec, &keep);
                let mut sequence = case.sequence(&cache, true).expect("a sequence");
                let mut seen = 0;
                for prompt in [&case.prompt, &second, &third] {
                    let logits = case.model.prefill(prompt, &case.features, &mut sequence, &|| Ok(())).expect("reads");
                    assert!(logits.iter().all(|logit| logit.is_finite()), "{cache}");
                    seen += prompt.tokens.len();
                    assert_eq!(sequence.next_position() as usize, seen);
                    let kept: f64 = sequence.memory().kept_per_layer.iter().sum();
                    let allowed = match keep.as_f64() {
                        Some(share) => share * (seen * case.layers()) as f64 + 0.5,
                        None => (70 * case.layers()) as f64,
                    };
                    // A size that evicts only after prompts may be above it in between, never after one.
                    assert!(kept <= allowed.max(0.0), "{cache}: {kept} of {allowed} after {seen}");
                    for token in [5, 6, 7] {
                        case.model.decode(token, &mut sequence).expect("goes on");
                        seen += 1;
                    }
                }
                drop(sequence);
                assert_eq!(case.model.pool().used(), 0);
            }
        }
    }
}

#[test]
fn turns_on_a_full_cache_equal_one_prompt() {
    let case = Case::text(160, 40);
    let whole: Vec<u32> = case.prompt.tokens.iter().chain(&case.answer).copied().collect();
    let all = case.model.expand(&whole, 0).expect("text");
    let mut plain = case.model.new_sequence().expect("no cap");
    let want = case.model.prefill(&all, &[], &mut plain, &|| Ok(())).expect("reads");
    // Layers that share give another model.
    for spec in METHODS.iter().filter(|spec| !matches!(spec.role, Role::Stores | Role::Shares)) {
        let mut cache = cache_of(&case, spec, 1.0);
        if spec.options.iter().any(|option| option.name == "layer") {
            // The model has two.
            cache["layer"] = json!(1);
        }
        let mut sequence = case.sequence(&cache, true).expect("a sequence");
        let mut got = Vec::new();
        for part in [&whole[..100], &whole[100..101], &whole[101..130], &whole[130..]] {
            let prompt = case.model.expand(part, 0).expect("text");
            got = case.model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        }
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{}: {worst}", spec.name);
    }
}

#[test]
fn every_value_of_every_option_works() {
    let mut case = Case::text(160, 40);
    for spec in sized() {
        for option in spec.options {
            let values = match option.kind {
                OptionKind::Choice { values } => values.iter().map(|value| json!(value)).collect(),
                OptionKind::Flag if option.name == "protectText" => vec![json!(false)],
                OptionKind::Flag => vec![json!(true), json!(false)],
                OptionKind::Count { least, .. } => vec![json!(least.max(1)), json!(least.max(5))],
                OptionKind::Number { least, most } => vec![json!(least), json!((2.5 * (least + 1.0)).min(most))],
                OptionKind::Share => vec![json!(0.0), json!(0.9)],
                OptionKind::Calibration => vec![json!(vec![0.5; case.layers()])],
                OptionKind::Heads => vec![case.cache(spec, 0.5)["calibration"].clone()],
                other => panic!("{}: `{}` is {other:?}", spec.name, option.name),
            };
            for value in values {
                let mut cache = case.cache(spec, 0.5);
                cache[option.name] = value;
                let (logits, _) = case.run(&cache);
                assert!(logits.iter().flatten().all(|logit| logit.is_finite()), "{cache}");
            }
            if !option.default.is_empty() {
                let mut cache = case.cache(spec, 0.5);
                let (unset, _) = case.run(&cache);
                cache[option.name] = serde_json::from_str(option.default).expect("JSON");
                assert!(case.run(&cache).0 == unset, "{cache}: the default is the default");
            }
        }
    }
}

#[test]
fn mistakes_are_refused_with_advice() {
    let refused = |cache: Value| match Method::parse(&cache) {
        Err(error) => error.to_string(),
        Ok(method) => panic!("{cache} gave {method:?}"),
    };
    assert!(refused(json!({ "method": "prefix-kv", "keep": 0.5 })).contains("did you mean `prefixkv`"));
    assert!(refused(json!({ "method": "prefixkv", "keep": 0.5, "protect_text": true })).contains("`protectText`"));
    assert!(refused(json!({ "method": "prefixkv" })).contains("needs `keep`"));
    assert!(refused(json!({ "method": "full", "keep": 0.5 })).contains("takes no `keep`"));
    assert!(refused(json!({ "keep": 0.5 })).contains("needs `method`"));
    assert!(
        refused(json!({ "method": "prefixkv", "keep": 0.5, "score": "rows" }))
            .contains("question, window, last, text, columns")
    );
    assert!(refused(json!({ "method": "prefixkv", "keep": 0.5, "sinks": -1 })).contains("whole number"));
    for method in ["snapkv", "prefixkv"] {
        assert!(refused(json!({ "method": method, "keep": 0.5, "poolSize": 4 })).contains("odd"));
    }
    let none = json!({ "method": "prefixkv", "keep": { "tokens": 50 }, "decode": "none" });
    assert!(refused(none).contains("lowest-score"));
    let two = json!([{ "method": "prefixkv", "keep": 0.5 }, { "method": "h2o", "keep": 0.5 }]);
    assert!(refused(two).contains("both choose"));
    assert!(Method::parse(&json!([{ "method": "full" }, { "method": "h2o", "keep": 0.5 }])).unwrap().is_some());
    assert!(refused(json!("prefixkv")).contains("found a string"));
}

#[test]
fn a_calibration_compacts_layer_by_layer() {
    let mut case = Case::picture(ANSWER);
    let layers = case.layers();
    let n = case.prompt.tokens.len() as f64;
    let retained: Vec<f64> = (0..layers).map(|layer| 0.1 + 0.8 * (layer % 4) as f64 / 4.0).collect();
    let keep = retained.iter().sum::<f64>() / layers as f64;
    let calibration = json!({
        "format": "prefixkv-calibration", "version": 1, "model": { "layers": layers },
        "rows": [{ "keep": keep, "retained": retained }],
    });
    let cache = json!({ "method": "prefixkv", "keep": keep, "calibration": calibration });
    let (logits, sequence) = case.run(&cache);
    let online = case.run(&json!({ "method": "prefixkv", "keep": keep }));
    assert!(logits[0] == online.0[0], "the prompt's own logits do not depend on what is freed");
    let memory = sequence.memory();
    let layer = memory.full as f64 / f64::from(sequence.next_position()) / layers as f64 * n;
    assert!(memory.peak as f64 <= memory.resident as f64 + layer * 1.05, "{} over {}", memory.peak, memory.resident);
    assert!(online.1.memory().peak as f64 >= layer * layers as f64, "online holds the whole prompt");

    let mut foreign = calibration;
    foreign["model"]["fingerprint"] = json!("sha256:0");
    let cache = json!({ "method": "prefixkv", "keep": keep, "calibration": foreign });
    assert_eq!(case.sequence(&cache, false).unwrap_err().code(), "calibration");
    foreign["model"]["fingerprint"] = json!(case.model.info().fingerprint);
    case.run(&json!({ "method": "prefixkv", "keep": keep, "calibration": foreign }));
}

/// The parts of a method, the calibration left out.
fn recipe(cache: &Value) -> String {
    let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}")).expect("a method");
    let Some(recipe) = method.recipe() else { return format!("{method:?}") };
    format!("{:?} {:?} {:?} {:?} {:?}", recipe.score, recipe.protected, recipe.eviction, recipe.lanes, recipe.positions)
}

#[test]
fn every_default_of_a_variant_is_an_option_and_what_is_given_wins() {
    for spec in METHODS {
        let choice = spec.options.iter().find(|option| option.name == VARIANT);
        let Some(choice) = choice else {
            assert!(spec.variants.is_empty(), "{} has variants and no option for them", spec.name);
            continue;
        };
        let OptionKind::Choice { values } = choice.kind else { panic!("{}: `{VARIANT}` is a choice", spec.name) };
        let others: Vec<&str> = spec.variants.iter().map(|variant| variant.name).collect();
        assert_eq!(
            values[1..],
            others,
            "{}: the first value has the options' defaults, the others their own",
            spec.name
        );
        assert_eq!(choice.default, format!("{:?}", values[0]));
        for variant in spec.variants {
            let mut plain = json!({ "method": spec.name, "variant": variant.name });
            if spec.takes_keep() {
                plain["keep"] = json!(0.5);
            }
            let (mut own, mut as_first) = (plain.clone(), plain.clone());
            for (name, default) in variant.defaults {
                let option = spec.options.iter().find(|option| option.name == *name);
                let option = option.unwrap_or_else(|| panic!("{}: no option {name}", spec.name));
                own[*name] = serde_json::from_str(default).expect("JSON");
                as_first[*name] = serde_json::from_str(option.default).expect("JSON");
            }
            assert_eq!(recipe(&plain), recipe(&own), "{} {}", spec.name, variant.name);
            if variant.name != "official" {
                assert_ne!(recipe(&plain), recipe(&as_first), "{} {}", spec.name, variant.name);
            }
        }
    }
}

#[test]
fn the_published_prefixkv_is_a_variant() {
    let paper = |options: Value| {
        let mut cache = json!({ "method": "prefixkv", "keep": 0.5, "variant": "paper" });
        cache.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        recipe(&cache)
    };
    let published = json!({ "score": "columns", "decode": "distance", "distance": 25, "sinks": 1, "recent": 1 });
    assert_eq!(paper(json!({})), paper(published));
    assert_eq!(
        paper(json!({})),
        "Columns Protected { sinks: 1, recent: Entries(1), text: false } Distance(25) PerLayer True"
    );
    let plain = recipe(&json!({ "method": "prefixkv", "keep": 0.5 }));
    assert_eq!(plain, recipe(&json!({ "method": "prefixkv", "keep": 0.5, "variant": "tuned" })));
    assert!(plain.starts_with("Mix"), "{plain}");
}

#[test]
fn a_calibration_brings_the_score_that_it_was_made_with() {
    let made = |ranking: Value| {
        let mut calibration = json!({
            "format": "prefixkv-calibration", "version": 1, "model": { "layers": 2 },
            "rows": [{ "keep": 0.5, "retained": [0.6, 0.4] }],
        });
        calibration.as_object_mut().unwrap().extend(ranking.as_object().unwrap().clone());
        calibration
    };
    let with = |calibration: &Value, options: Value| {
        let mut cache = json!({ "method": "prefixkv", "keep": 0.5, "calibration": calibration });
        cache.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        recipe(&cache)
    };
    let plain = |options: Value| {
        let mut cache = json!({ "method": "prefixkv", "keep": 0.5 });
        cache.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        recipe(&cache)
    };
    for ranking in [
        json!({ "score": "columns" }),
        json!({ "score": "text" }),
        json!({ "score": "window", "window": 16, "pool": "none", "poolSize": 3 }),
        json!({ "score": "question", "window": 5, "pool": "mean", "poolSize": 9 }),
        json!({ "score": "mix", "window": 12, "pool": "max", "poolSize": 5 }),
    ] {
        assert_eq!(with(&made(ranking.clone()), json!({})), plain(ranking.clone()), "{ranking}");
        // The same score, given, and options of it.
        assert_eq!(with(&made(ranking.clone()), json!({ "score": ranking["score"] })), plain(ranking.clone()));
        let mut wider = ranking.clone();
        wider["window"] = json!(99);
        assert_eq!(with(&made(ranking.clone()), json!({ "window": 99 })), plain(wider));
        for other in ["mix", "question", "window", "text", "columns"] {
            if ranking["score"] == other {
                continue;
            }
            let cache =
                json!({ "method": "prefixkv", "keep": 0.5, "calibration": made(ranking.clone()), "score": other });
            let error = Method::parse(&cache).unwrap_err();
            assert_eq!(error.code(), "calibration");
            assert!(error.to_string().contains(&format!("ranks by \"{other}\"")), "{error}");
        }
    }
    assert_eq!(with(&made(json!({})), json!({})), plain(json!({})), "a file that does not say");
    // Published configurations come from all queries.
    assert_eq!(with(&json!([0.5, 0.5]), json!({})), plain(json!({ "score": "columns" })));
    for (strange, why) in [
        (json!({ "score": "rows" }), "known are mix, question, window, last, text, columns"),
        (json!({ "score": "window", "pool": "x".repeat(10_000) }), "which prefixkv does not have"),
        (json!({ "score": "window", "window": 0 }), "`window` 0, which prefixkv does not have"),
    ] {
        let cache = json!({ "method": "prefixkv", "keep": 0.5, "calibration": made(strange) });
        let error = Method::parse(&cache).unwrap_err();
        assert_eq!(error.code(), "calibration");
        assert!(error.to_string().contains(why) && error.to_string().len() < 300, "{error}");
    }
}

/// Entries that a tuned method protects never take more than half of a size.
#[test]
fn the_default_method_takes_every_size_that_holds_an_entry_per_layer() {
    for mut case in both() {
        let (n, layers) = (case.prompt.tokens.len(), case.layers());
        for each in [1, 2, 3, 5, 17, n - 1] {
            let keep = (each * layers) as f64 / (n * layers) as f64;
            case.run_with(&json!({ "method": "prefixkv", "keep": keep }), |step, sequence| {
                if step == 0 {
                    assert_eq!(sequence.memory().kept_per_layer.iter().sum::<f64>(), (each * layers) as f64);
                }
            });
        }
    }
}

#[test]
fn profiles_are_what_the_search_would_keep() {
    let mut case = Case::picture(ANSWER);
    let keeps = [0.2, 0.5];
    let method: Option<Arc<Method>> = Method::parse(&json!({ "method": "prefixkv", "keep": 1 })).expect("parses");
    let mut sequence = case.model.new_sequence_with(method, false).expect("a sequence");
    sequence.profile(keeps.to_vec());
    case.model.prefill(&case.prompt, &case.features, &mut sequence, &|| Ok(())).expect("reads");
    let profile = sequence.take_profile();
    assert_eq!(sequence.memory().payload, sequence.memory().full, "nothing is evicted");
    for (keep, retained) in keeps.iter().zip(&profile) {
        let cache = json!({ "method": "prefixkv", "keep": keep });
        let mut first = Vec::new();
        case.run_with(&cache, |step, sequence| {
            if step == 0 {
                first = sequence.memory().kept_per_layer;
            }
        });
        let n = case.prompt.tokens.len() as f64;
        assert_eq!(first.iter().map(|kept| kept / n).collect::<Vec<_>>(), *retained);
    }
}
