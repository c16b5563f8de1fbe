//! Entries that every method keeps, against an independent reference in PyTorch (tests/golden/eviction.py).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prefixkv_core::cache::Kept;
use prefixkv_core::device::Cpu;
use prefixkv_core::method::Method;
use prefixkv_core::model::{Features, LoadOptions, Model, Prompt};
use prefixkv_core::sample::log_softmax_at;
use serde::Deserialize;
use serde_json::Value;

/// The largest difference allowed for the log-probability of a token.
const TOLERANCE: f32 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    model: String,
    scenes: Vec<Scene>,
}

#[derive(Deserialize)]
struct Scene {
    name: String,
    #[serde(default)]
    image: Option<String>,
    prompt: Vec<u32>,
    answer: Vec<u32>,
    #[serde(default)]
    important: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    options: Value,
    counts: Vec<usize>,
    kept: Vec<Vec<String>>,
    loose: Vec<Vec<String>>,
    /// Left out where nothing is freed while generating.
    kept_end: Option<Vec<Vec<String>>>,
    margins: Margins,
    logprobs: Vec<f32>,
}

impl Case {
    /// The entries at the end, when `seen` positions were seen of which the prompt has `n`.
    fn end(&self, n: usize, seen: usize) -> Vec<Vec<String>> {
        let grown = |kept: &String| if seen > n { format!("{kept},{n}-{}", seen - 1) } else { kept.clone() };
        let all = || self.kept.iter().map(|lanes| lanes.iter().map(grown).collect()).collect();
        self.kept_end.clone().unwrap_or_else(all)
    }
}

/// How nearly the reference's own choices went the other way.
#[derive(Deserialize)]
struct Margins {
    /// Least distance, as a share of attention, at which a layer would have got an entry more or less.
    counts: Option<f64>,
}

/// Below this distance of shares of attention the order in which f32 numbers were added decides.
const EQUAL_SHARES: f64 = 1e-6;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `"0-3,7"` as positions.
fn positions(ranges: &str) -> BTreeSet<u32> {
    let number = |text: &str| text.parse::<u32>().expect("a position");
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(part)..=number(part),
    };
    ranges.split(',').filter(|part| !part.is_empty()).flat_map(range).collect()
}

/// Compares what is kept; the positions that `loose` gives may have been exchanged. Gives how many were.
fn compare(
    what: &str,
    got: &[Vec<Kept>],
    want: &[Vec<String>],
    loose: impl Fn(usize, usize) -> BTreeSet<u32>,
) -> usize {
    let mut exchanged = 0;
    assert_eq!(got.len(), want.len(), "{what}: layers");
    for (layer, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len(), "{what}: lanes of layer {layer}");
        for (lane, (got, want)) in got.iter().zip(want).enumerate() {
            let got: BTreeSet<u32> = got.positions.iter().copied().collect();
            let want = positions(want);
            assert_eq!(got.len(), want.len(), "{what}: size of layer {layer}, lane {lane}");
            let differ: Vec<u32> = got.symmetric_difference(&want).copied().collect();
            let near = loose(layer, lane);
            assert!(
                differ.iter().all(|position| near.contains(position)),
                "{what}: layer {layer}, lane {lane} differs in {differ:?}, of which {:?} are kept",
                differ.iter().filter(|p| got.contains(p)).collect::<Vec<_>>()
            );
            exchanged += differ.len();
        }
    }
    exchanged
}

/// Runs all cases of a file; gives the largest difference of a log-probability.
fn check(file: &str) {
    let path = root().join("tests/golden/data/eviction").join(file);
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).expect("golden")).expect("golden");
    let options = LoadOptions::new(root().join(&golden.model));
    let model = Model::load(&options, &mut |_| Ok(())).expect("loads");
    let mut worst = 0f32;
    let (mut cases, mut turned, mut steps, mut all_steps) = (0, 0, 0, 0);
    for scene in &golden.scenes {
        let (prompt, features) = read(&model, scene);
        for case in &scene.cases {
            let what = format!("{} {}", scene.name, case.options);
            cases += 1;
            let method = Method::parse(&case.options).unwrap_or_else(|e| panic!("{what}: {e}"));
            let mut sequence = model.new_sequence_with(method, false).expect("a sequence");
            let mut logits = model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
            let kept = sequence.kept();
            // The mean over the lanes, whose sizes may differ.
            let mean = |lanes: &Vec<Kept>| {
                let entries: usize = lanes.iter().map(|lane| lane.positions.len()).sum();
                assert_eq!(entries % lanes.len(), 0, "{what}: {entries} entries in {} lanes", lanes.len());
                entries / lanes.len()
            };
            let counts: Vec<usize> = kept.iter().map(mean).collect();
            if counts != case.counts && case.margins.counts.is_some_and(|margin| margin < EQUAL_SHARES) {
                // Two layers are equally good to the last bit of their sums; the whole is still the same, or nearly so
                // where the published search stopped one probe earlier.
                let difference = counts.iter().sum::<usize>().abs_diff(case.counts.iter().sum());
                assert!(difference <= 10, "{what}: {counts:?} for {:?}", case.counts);
                turned += 1;
                continue;
            }
            assert_eq!(counts, case.counts, "{what}: entries per layer");
            let loose = |layer: usize, lane: usize| positions(&case.loose[layer][lane]);
            if compare(&what, &kept, &case.kept, loose) > 0 {
                // Another entry of the same score, and so another answer.
                turned += 1;
                continue;
            }
            let whole = case.logprobs.len() == scene.answer.len();
            steps += case.logprobs.len();
            all_steps += scene.answer.len();
            for (index, (token, want)) in scene.answer.iter().zip(&case.logprobs).enumerate() {
                if index > 0 {
                    if !whole && index + 1 == case.logprobs.len() {
                        // The reference's choice in this step was one of rounding; what it leaves is not compared.
                        let end = case.end(scene.prompt.len(), scene.prompt.len() + index - 1);
                        compare(&format!("{what} before step {index}"), &sequence.kept(), &end, loose);
                    }
                    logits = model.decode(scene.answer[index - 1], &mut sequence).expect("goes on");
                }
                let difference = (log_softmax_at(&logits, *token as usize) - want).abs();
                assert!(difference <= TOLERANCE, "{what}: log-probability {index} is off by {difference}");
                worst = worst.max(difference);
            }
            if whole {
                let end = case.end(scene.prompt.len(), scene.prompt.len() + scene.answer.len() - 1);
                compare(&format!("{what} at the end"), &sequence.kept(), &end, loose);
            }
        }
    }
    eprintln!("{file}: log-probabilities differ by at most {worst:e}");
    eprintln!("{file}: {turned} of {cases} cases were turned by rounding; {steps} of {all_steps} steps compared");
    assert!(turned * 8 <= cases, "{file}: {turned} of {cases} cases differ in their counts");
    assert!(steps * 10 >= all_steps * 8, "{file}: only {steps} of {all_steps} steps are decided by more than rounding");
}

fn read(model: &Model, scene: &Scene) -> (Prompt, Vec<Features<Cpu>>) {
    let Some(image) = &scene.image else {
        return (model.expand(&scene.prompt, 0).expect("text"), Vec::new());
    };
    let bytes = std::fs::read(root().join(image)).expect("a scene");
    let pixels = model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
    let plan = model.plan(&mut || Ok((pixels.width, pixels.height))).expect("a plan").expect("takes images");
    let features = model.encode_images(&[pixels], &|| Ok(())).expect("encodes");
    // The golden repeats the placeholder once per image token; a piece has one, and pieces may stand side by side.
    let placeholder = model.placeholder().expect("takes images");
    let mut tokens = scene.prompt.clone();
    tokens.dedup_by(|a, b| a == b && *a == placeholder);
    let runs = tokens.iter().filter(|token| **token == placeholder).count();
    let beside = plan.pieces().count() - runs;
    assert!(beside == 0 || runs == 1, "pieces are all apart, or all side by side");
    let first = tokens.iter().position(|token| *token == placeholder).expect("a placeholder");
    tokens.splice(first..first, std::iter::repeat_n(placeholder, beside));
    let places: Vec<usize> = (0..tokens.len()).filter(|at| tokens[*at] == placeholder).collect();
    let prompt = model.expand_at(&tokens, &places, &[plan], 1).expect("one image");
    assert_eq!(prompt.tokens, scene.prompt);
    (prompt, features)
}

#[test]
fn methods_on_the_embedded_model_keep_what_the_reference_keeps() {
    check("tiny-llava.json");
}

#[test]
fn methods_on_a_picture_in_tiles_keep_what_the_reference_keeps() {
    check("smolvlm-tiles.json");
}

#[test]
fn methods_on_a_grid_with_line_ends_keep_what_the_reference_keeps() {
    check("llava-next.json");
}

#[test]
fn methods_on_planted_attention_keep_what_the_reference_keeps() {
    check("planted.json");
}

/// Not only the same as the reference: the positions that were planted are the ones that stay.
#[test]
fn planted_positions_are_found() {
    let path = root().join("tests/golden/data/eviction/planted.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).expect("golden")).expect("golden");
    let options = LoadOptions::new(root().join(&golden.model));
    let model = Model::load(&options, &mut |_| Ok(())).expect("loads");
    for scene in &golden.scenes {
        let prompt = model.expand(&scene.prompt, 0).expect("text");
        let planted: usize = scene.important.iter().map(|lanes| positions(lanes).len()).sum();
        let layers = scene.important.len();
        // A fifth more than what matters.
        let keep = 1.2 * planted as f64 / (layers * prompt.tokens.len()) as f64;
        let cache = serde_json::json!({ "method": "prefixkv", "keep": keep, "variant": "paper" });
        let mut sequence = model.new_sequence_with(Method::parse(&cache).expect("parses"), false).expect("a sequence");
        model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        for (layer, (kept, important)) in sequence.kept().iter().zip(&scene.important).enumerate() {
            let kept: BTreeSet<u32> = kept[0].positions.iter().copied().collect();
            let important = positions(important);
            let found = important.intersection(&kept).count() as f64 / important.len() as f64;
            eprintln!(
                "{} layer {layer}: {} planted, {} kept, {found:.3} found",
                scene.name,
                important.len(),
                kept.len()
            );
            assert!(found > 0.9, "{}: layer {layer} keeps {found} of what was planted", scene.name);
        }
    }
}
