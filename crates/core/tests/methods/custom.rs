//! Recipes put together from options, and stages behind them.

use std::path::{Path, PathBuf};

use prefixkv_core::Error;
use prefixkv_core::cache::Lane;
use prefixkv_core::cache::{Format, Modality, Pool, Shape, Span};
use prefixkv_core::method::{METHODS, Method, MethodSpec, OptionKind};
use prefixkv_core::model::{LoadOptions, Model, Prompt};
use prefixkv_core::sequence::{Placing, Planned, Sequence};
use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::rotary::Angles;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A random model with grouped queries (4 heads over 1), or the embedded one (4 heads), and a text.
struct Case {
    model: Model,
    prompt: Prompt,
    answer: Vec<u32>,
}

/// The plans, the logits and the sequence.
type Run = (Vec<Planned>, Vec<Vec<f32>>, Sequence);

impl Case {
    fn new(folder: &str, n: usize) -> Case {
        let options = LoadOptions::new(root().join(folder));
        let model = Model::load(&options, &mut |_| Ok(())).unwrap_or_else(|e| panic!("{folder}: {e}"));
        let vocab = model.info().vocab_size as u32;
        let tokens: Vec<u32> = (0..n as u32 + 24).map(|i| (i * 7919 + i * i * 31) % (vocab - 10) + 5).collect();
        let prompt = model.expand(&tokens[..n], 0).expect("text");
        Case { model, prompt, answer: tokens[n..].to_vec() }
    }

    fn embedded() -> Case {
        Case::new("models/tiny-llava", 100)
    }

    /// Reads the prompt and 24 tokens.
    fn run(&mut self, cache: &Value) -> Result<Run, Error> {
        let mut sequence = self.model.new_sequence_with(Method::parse(cache)?, false)?;
        sequence.keep_plans();
        let mut logits = vec![self.model.prefill(&self.prompt, &[], &mut sequence, &|| Ok(()))?];
        for token in &self.answer {
            logits.push(self.model.decode(*token, &mut sequence)?);
        }
        Ok((sequence.take_plans(), logits, sequence))
    }
}

fn choices(spec: &MethodSpec, name: &str) -> Vec<&'static str> {
    match spec.options.iter().find(|option| option.name == name).map(|option| option.kind) {
        Some(OptionKind::Choice { values }) => values.to_vec(),
        _ => panic!("{} has no choice {name}", spec.name),
    }
}

#[test]
fn every_other_method_is_a_recipe_of_options() {
    let everything = 1_000_000;
    let same = [
        (
            json!({ "method": "snapkv" }),
            json!({ "score": "window", "lanes": "head", "decode": "none", "sinks": 0, "recent": 32 }),
        ),
        (json!({ "method": "h2o" }), json!({ "score": "columns", "lanes": "head", "sinks": 0, "recent": everything })),
        (
            json!({ "method": "knorm" }),
            json!({ "score": "key-norm", "lanes": "head", "decode": "none", "sinks": 0, "recent": 0 }),
        ),
        (
            json!({ "method": "streaming" }),
            json!({ "score": "recency", "decode": "oldest", "sinks": 4, "recent": 1, "recentShare": 1 }),
        ),
        (
            json!({ "method": "random", "seed": 7 }),
            json!({ "score": "random", "seed": 7, "recent": 1, "recentShare": 1 }),
        ),
        (
            json!({ "method": "prefixkv" }),
            json!({ "score": "mix", "budget": "prefix", "objective": "sum", "floor": 0.5 }),
        ),
        (
            json!({ "method": "prefixkv", "variant": "paper" }),
            json!({ "budget": "prefix", "score": "columns", "pool": "none", "decode": "distance", "recent": 1, "recentShare": 1 }),
        ),
    ];
    let mut case = Case::embedded();
    for keep in [json!(0.4), json!({ "tokens": 40 })] {
        for (named, options) in &same {
            let (mut named, mut custom) = (named.clone(), options.clone());
            if keep.is_object() && custom["decode"] == json!("none") {
                custom["decode"] = json!("lowest-score");
            }
            (named["keep"], custom["keep"]) = (keep.clone(), keep.clone());
            custom["method"] = json!("custom");
            let (want, logits, _) = case.run(&named).unwrap_or_else(|e| panic!("{named}: {e}"));
            let (got, as_custom, _) = case.run(&custom).unwrap_or_else(|e| panic!("{custom}: {e}"));
            assert_eq!(got, want, "{custom} plans as {named}");
            assert!(as_custom == logits, "{custom} answers as {named}");
        }
    }
}

/// Every cell of docs/methods/combinations.md that is not refused there runs.
#[test]
fn every_combination_runs_or_says_why_not() {
    let spec = METHODS.iter().find(|spec| spec.name == "custom").expect("a method");
    let mut case = Case::embedded();
    for score in choices(spec, "score") {
        for budget in choices(spec, "budget") {
            for lanes in choices(spec, "lanes") {
                for decode in choices(spec, "decode") {
                    let cache = json!({
                        "method": "custom", "keep": 0.4, "score": score, "budget": budget, "lanes": lanes, "decode": decode,
                    });
                    let attention = ["question", "window", "mix", "last", "text", "columns"].contains(&score);
                    let whole = ["uniform", "pyramid"].contains(&budget)
                        || attention && (budget == "prefix" || lanes == "head");
                    // These rank a prompt only.
                    let sensible = whole && !(["observed", "lag"].contains(&score) && decode == "lowest-score");
                    if let Err(Error::Option { reason, .. }) = Method::parse(&cache) {
                        let why = if whole { score } else { budget };
                        assert!(!sensible && reason.contains(why), "{cache}: {reason}");
                        continue;
                    }
                    assert!(sensible, "{cache} must be refused");
                    let store = json!({ "method": "int4", "window": 8 });
                    let every = [
                        json!([cache]),
                        json!([cache, { "method": "merge" }]),
                        json!([cache, store]),
                        json!([cache, { "method": "merge" }, store]),
                    ];
                    for stages in every {
                        let (plans, logits, sequence) = case.run(&stages).unwrap_or_else(|e| panic!("{stages}: {e}"));
                        assert!(logits.iter().flatten().all(|logit| logit.is_finite()), "{stages}");
                        assert!(!plans.is_empty(), "{stages}");
                        let kept: f64 = sequence.memory().kept_per_layer.iter().sum();
                        let whole = f64::from(sequence.next_position()) * sequence.kept().len() as f64;
                        assert!(kept < whole, "{stages}: {kept} of {whole}");
                    }
                }
            }
        }
    }
}

/// Lanes grow, and go back to the size that they have when entries go one by one; the first time, those with the lowest of the scores go that
/// they would have had with nothing gone.
#[test]
fn several_entries_go_together_every_so_many_tokens() {
    let mut case = Case::embedded();
    let answer = case.answer.clone();
    for score in ["columns", "mix", "key-norm"] {
        for lanes in ["layer", "head"] {
            for every in [2, 5, 16] {
                let cache = |every: usize| {
                    json!({
                        "method": "custom", "keep": 0.4, "score": score, "lanes": lanes, "every": every,
                        "sinks": 1, "recent": 8, "recentShare": 1,
                    })
                };
                let start = |every: usize| {
                    let method = Method::parse(&cache(every)).expect("parses");
                    let mut sequence = case.model.new_sequence_with(method, false).expect("room");
                    case.model.prefill(&case.prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
                    sequence
                };
                let (mut one_by_one, mut together, mut growing) = (start(1), start(every), start(1000));
                let mut since = 0;
                for (step, token) in answer.iter().enumerate() {
                    for sequence in [&mut one_by_one, &mut together, &mut growing] {
                        case.model.decode(*token, sequence).expect("goes on");
                    }
                    since += 1;
                    let due = (step + 1) % every == 0;
                    since = if due { 0 } else { since };
                    for layer in 0..case.model.info().layers {
                        let all = one_by_one.lanes(layer).iter().zip(together.lanes(layer)).zip(growing.lanes(layer));
                        for ((plain, lane), twin) in all {
                            let name = format!("{} layer {layer}, token {step}", cache(every));
                            if due {
                                assert_eq!(lane.len(), plain.len(), "{name}: back to its size");
                            } else {
                                assert!(
                                    lane.len() >= plain.len() && lane.len() <= plain.len() + since,
                                    "{name}: grows"
                                );
                            }
                            if step + 1 == every {
                                assert_eq!(lane.positions(), lowest_gone(twin, lane.len()), "{name}: the lowest go");
                            }
                        }
                    }
                }
                let capped = json!({ "method": "custom", "keep": { "tokens": 40 }, "score": score, "lanes": lanes, "every": every });
                let (_, _, sequence) = case.run(&capped).expect("runs");
                assert!(sequence.memory().kept_per_layer.iter().all(|kept| *kept <= 40.0), "{capped}: the cap holds");
            }
        }
    }
    for (decode, every) in [("oldest", 2), ("none", 16), ("distance", 3)] {
        let cache = json!({ "method": "custom", "keep": 0.4, "decode": decode, "every": every });
        let Err(Error::Option { reason, .. }) = Method::parse(&cache) else { panic!("{cache} must be refused") };
        assert!(reason.contains("`every`"), "{reason}");
    }
}

/// The positions of a lane when the lowest scores have gone, the first and the last eight being safe.
fn lowest_gone(lane: &Lane, count: usize) -> Vec<u32> {
    let (sorted, scores) = (lane.sorted(), lane.scores());
    let safe = |rank: usize| rank == 0 || rank + 8 >= sorted.len();
    let mut ranks: Vec<usize> = (0..sorted.len()).collect();
    let score = |rank: &usize| scores[sorted[*rank].place as usize];
    ranks.sort_by(|a, b| safe(*b).cmp(&safe(*a)).then(score(b).total_cmp(&score(a))).then(a.cmp(b)));
    let mut kept: Vec<u32> = ranks[..count].iter().map(|rank| sorted[*rank].position).collect();
    kept.sort_unstable();
    kept
}

#[test]
fn heads_of_one_layer_differ_and_the_whole_is_met() {
    let mut case = Case::embedded();
    let keep = 0.4;
    let budgets = ["least", "sum", "squares"].map(|objective| json!({ "budget": "prefix", "objective": objective }));
    for mut cache in [json!({ "budget": "ada" })].into_iter().chain(budgets) {
        for (name, value) in [("method", "custom"), ("score", "window"), ("lanes", "head"), ("decode", "none")] {
            cache[name] = json!(value);
        }
        cache["keep"] = json!(keep);
        let (_, _, sequence) = case.run(&cache).expect("runs");
        let (n, layers) = (case.prompt.tokens.len(), sequence.kept().len());
        let kept: f64 = sequence.memory().kept_per_layer.iter().sum();
        let want = (keep * (n * layers) as f64 + 0.5).floor() + (24 * layers) as f64;
        assert!((kept - want).abs() < 1e-9, "{cache}: {kept} of {want}");
        let lengths =
            |layer: &Vec<prefixkv_core::cache::Kept>| layer.iter().map(|lane| lane.positions.len()).collect::<Vec<_>>();
        let ragged =
            sequence.kept().iter().map(lengths).filter(|lanes| lanes.iter().any(|len| *len != lanes[0])).count();
        assert!(ragged > layers / 2, "{cache}: {ragged} of {layers} layers have heads of different sizes");
    }
}

/// A split inside a layer is made right after its attention: the peak is what is kept and one layer.
#[test]
fn a_ragged_budget_holds_one_layer_more_than_it_keeps() {
    let shape = Shape { layers: 8, kv_heads: 4, head_dim: 16, format: Format::F32 };
    let (n, width) = (512usize, 64usize);
    let rows: Vec<f32> = (0..n * width).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect();
    let angles = Angles::new(0..n as u32, &[0.1; 8], 1.0);
    let cache =
        json!({ "method": "custom", "keep": 0.25, "budget": "ada", "score": "columns", "decode": "none", "floor": 0 });
    let pool = Pool::unlimited();
    let method = Method::parse(&cache).expect("parses");
    let mut sequence = Sequence::with_method(shape, &pool, method, false).expect("a sequence");
    sequence.begin_prompt(&[Span { modality: Modality::Text, start: 0, len: n }], &Placing::InOrder).expect("begins");
    for layer in 0..shape.layers {
        let sums =
            |head: usize| (0..n).map(|i| ((i * 31 + layer) % 97) as f32 / (1.0 + (head * head) as f32)).collect();
        let sums: Vec<Vec<f32>> = (0..shape.kv_heads).map(sums).collect();
        sequence.store(layer, Rows::dense(&rows, width), Rows::dense(&rows, width), Some(&angles)).expect("stores");
        sequence.attended(layer, &sums).expect("frees");
    }
    sequence.finish_prompt().expect("ends");
    let memory = sequence.memory();
    let layer = (n * 2 * width * 4) as u64;
    assert_eq!(memory.payload, shape.layers as u64 * layer / 4);
    assert!(memory.peak <= memory.resident + layer + layer / 10, "{} over {}", memory.peak, memory.resident);
    let first: Vec<usize> = sequence.kept()[0].iter().map(|lane| lane.positions.len()).collect();
    assert!(first.is_sorted_by(|a, b| a >= b) && first[0] > 2 * first[3], "{first:?}");
}

#[test]
fn stages_that_make_no_sense_say_why() {
    let refused = |cache: Value, part: &str| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => assert!(reason.contains(part), "{cache}: {reason}"),
        other => panic!("{cache} gave {other:?}"),
    };
    let (method, merge) = (json!({ "method": "h2o", "keep": 0.5 }), json!({ "method": "merge" }));
    refused(merge.clone(), "no method is before it");
    refused(json!([merge]), "no method is before it");
    refused(json!([merge, method]), "no method is before it");
    refused(json!([{ "method": "full" }, merge]), "no method is before it");
    refused(json!([method, merge, merge]), "twice");
    refused(json!([method, { "method": "merge", "weight": 0 }]), "above 0");
    refused(json!([method, { "method": "merge", "keep": 0.5 }]), "takes no `keep`");
    refused(json!([method, merge, method]), "both choose");
    let two = Method::parse(&json!([{ "method": "full" }, method, merge])).expect("parses").expect("a method");
    assert_eq!(two.name, "h2o + merge");
    for (cache, part) in [
        (json!({ "budget": "prefix", "score": "key-norm" }), "key-norm"),
        (json!({ "budget": "prefix", "lanes": "head", "positions": "cache" }), "positions"),
        (json!({ "budget": "ada", "lanes": "layer" }), "lanes"),
        (json!({ "budget": "ada", "score": "recency" }), "recency"),
        (json!({ "budget": "ada", "positions": "cache" }), "positions"),
        (json!({ "budget": "uniform", "calibration": [0.5] }), "calibration"),
        (json!({ "keep": { "tokens": 9 }, "decode": "none" }), "cap"),
    ] {
        let mut cache = cache;
        cache["method"] = json!("custom");
        if cache.get("keep").is_none() {
            cache["keep"] = json!(0.5);
        }
        refused(cache, part);
    }
    for (needs, part) in [
        (json!({ "moments": ["layer"] }), "between two passes"),
        (json!({ "moments": [] }), "no moment"),
        (json!({ "every": 2 }), "no moment"),
        (json!({ "moments": ["step"], "every": 0 }), "from 1"),
        (json!({ "sums": "rows" }), "question, window, text, columns"),
        (json!({ "lanes": "both" }), "layer or head"),
        (json!({ "query": 3 }), "unknown field `query`"),
        (json!({ "queries": 5000 }), "from 0 to 1024"),
    ] {
        refused(json!({ "method": "custom", "needs": needs }), part);
    }
    refused(json!([method, { "method": "custom", "needs": {} }]), "both choose");
    refused(json!({ "method": "custom", "needs": {}, "score": "window" }), "unknown field `score`");
}

/// Keys and values of what is merged are the weighted means of what went in, in f32 and rounded once to f16.
#[test]
fn merged_entries_are_the_weighted_means() {
    for format in [Format::F32, Format::F16] {
        let shape = Shape { layers: 1, kv_heads: 2, head_dim: 8, format };
        let (n, width) = (12usize, 16usize);
        let number = |i: usize| ((i * 7919 + 31) % 257) as f32 / 64.0 - 2.0;
        let keys: Vec<f32> = (0..n * width).map(number).collect();
        let values: Vec<f32> = keys.iter().map(|key| key * 0.5 + 1.0).collect();
        let angles = Angles::new(std::iter::repeat_n(0, n), &[0.1; 4], 1.0);
        let cache = json!([{ "method": "custom", "keep": 0.5, "score": "recency", "decode": "none" }, { "method": "merge", "weight": 0.5 }]);
        let pool = Pool::unlimited();
        let method = Method::parse(&cache).expect("parses");
        let mut sequence = Sequence::with_method(shape, &pool, method, false).expect("a sequence");
        sequence.keep_plans();
        sequence
            .begin_prompt(&[Span { modality: Modality::Text, start: 0, len: n }], &Placing::InOrder)
            .expect("begins");
        sequence.store(0, Rows::dense(&keys, width), Rows::dense(&values, width), Some(&angles)).expect("stores");
        sequence.attended(0, &[]).expect("frees");
        sequence.finish_prompt().expect("ends");
        let plans = sequence.take_plans();
        let merges = &plans[0].plan.lanes[0].merge;
        assert_eq!(merges.len(), n / 2, "everything that goes is merged");
        let lane = &sequence.lanes(0)[0];
        let sorted = lane.sorted();
        let round = |x: f32| if format == Format::F16 { half::f16::from_f32(x).to_f32() } else { x };
        for (rows, all) in [(lane.keys(&sorted).expect("read"), &keys), (lane.values(&sorted).expect("read"), &values)]
        {
            for (entry, row) in sorted.iter().zip(rows.chunks(width)) {
                let of = |position: u32| &all[position as usize * width..(position as usize + 1) * width];
                let mine: Vec<u32> = merges
                    .iter()
                    .filter(|merge| merge.into.position == entry.position)
                    .map(|m| m.from.position)
                    .collect();
                for (index, got) in row.iter().enumerate() {
                    let sum: f64 = mine.iter().map(|from| 0.5 * f64::from(round(of(*from)[index]))).sum();
                    let want = (f64::from(round(of(entry.position)[index])) + sum) / (1.0 + 0.5 * mine.len() as f64);
                    let tolerance = if format == Format::F16 { 2e-3 } else { 1e-6 };
                    assert!(
                        (f64::from(*got) - want).abs() <= tolerance,
                        "{format:?} {}: {got} and {want}",
                        entry.position
                    );
                }
            }
        }
    }
}
