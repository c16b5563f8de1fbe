//! Models that have the Hadamard transform of values in their weights: every request gives what it gives without.

use std::path::{Path, PathBuf};

use prefixkv_core::Result;
use prefixkv_core::method::{METHODS, Method, Role};
use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use prefixkv_core::sequence::Sequence;
use prefixkv_kernels::codec::Dual;
use serde_json::{Value, json};

use crate::case::{Case, root};

fn load(folder: &Path, weights: WeightFormat, rotate_values: bool) -> Model {
    let options = LoadOptions { weights, rotate_values, ..LoadOptions::new(folder) };
    Model::load(&options, &mut |_| Ok(())).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

/// The largest difference as a share of the largest number.
fn apart(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    got.iter().zip(want).fold(0.0f32, |worst, (got, want)| worst.max((got - want).abs())) / most
}

/// The Euclidean distance as a share of the length of `want`.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let squares = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    squares(&mut got.iter().zip(want).map(|(got, want)| got - want)) / squares(&mut want.iter().copied())
}

/// So many tokens of a text.
fn tokens(model: &Model, n: u32) -> Vec<u32> {
    let vocabulary = model.info().vocab_size as u32;
    (0..n).map(|i| (i * 7919 + i * i * 31) % (vocabulary.min(400) - 10) + 5).collect()
}

/// All logits of a prompt, of a picture where the model takes pictures of one size, and of some steps.
fn logits(model: &Model) -> Vec<f32> {
    let tokens = tokens(model, 70);
    let (mut prompt, mut images) = (model.expand(&tokens, 0).expect("text"), Vec::new());
    if let Some(processor) = model.image_processor().filter(|_| model.info().architecture.starts_with("Llava")) {
        let bytes = std::fs::read(root().join("data/scenes/scene-001.png")).expect("a scene");
        let pixels = processor.process(&bytes, 0).expect("a picture");
        images = model.encode_images(&[pixels], &|| Ok(())).expect("encodes");
        let placeholder = model.encode_raw("<image>", &[]).expect("encodes").tokens;
        prompt = model.expand(&[&placeholder[..], &tokens].concat(), 1).expect("one image");
    }
    let mut sequence = model.new_sequence().expect("no cap");
    let read = model.prefill_all(&prompt, &images, &mut sequence, &|| Ok(())).expect("reads");
    let mut all = read.to_vec().expect("numbers");
    for token in &tokens[..20] {
        all.extend(model.decode(*token, &mut sequence).expect("decodes"));
    }
    all
}

/// A copy of a model with other entries of its configuration.
fn changed(folder: &str, change: &Value) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for file in std::fs::read_dir(root().join(folder)).expect("a folder") {
        let file = file.expect("a file").path();
        std::fs::copy(&file, dir.path().join(file.file_name().expect("a name"))).expect("copied");
    }
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
    config.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
    std::fs::write(&path, config.to_string()).expect("written");
    let path = dir.path().to_owned();
    (dir, path)
}

/// Biases, grouped queries, fused projections, norms of heads and of results, windows, layers without positions, layers that read those of others, and
/// pictures.
#[test]
fn the_logits_are_the_same() {
    let (_dir, shared) = changed(
        "tests/golden/fixtures/llama-deep",
        &json!({ "kv_sources": [0, 1, 1, 3, 0, 5, 5, 5, 8, 9, 10, 11, 12, 13] }),
    );
    let fixture = |name: &str| root().join("tests/golden/fixtures").join(name);
    let names = [
        "gemma2-caps",
        "gemma3-local",
        "gemma3-vision",
        "idefics3-plain",
        "internvl3",
        "internvl3.5",
        "llama-deep",
        "llama-linear-tied",
        "llama3-rope",
        "llava-gqa64",
        "llava-head128",
        "llava-layers-sharded",
        "ministral-types",
        "mistral-window",
        "phi3-fused",
        "phi3-long",
        "qwen2-mixed",
        "qwen2-vl",
        "qwen2.5-vl",
        "qwen3-norms",
        "qwen3-vl",
        "smollm3-nope",
        "smolvlm-tiles",
    ];
    let folders = names.map(fixture).into_iter().chain([root().join("models/tiny-llava"), shared]);
    for folder in folders {
        let at = folder.display();
        let mut exact = Vec::new();
        for weights in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K] {
            let [plain, rotated] = [false, true].map(|rotates| load(&folder, weights, rotates));
            assert_eq!([&plain, &rotated].map(|model| model.info().rotated_values), [false, true]);
            assert_eq!(plain.info().fingerprint, rotated.info().fingerprint);
            assert_eq!(plain.info().weight_bytes, rotated.info().weight_bytes);
            let [plain, rotated] = [plain, rotated].map(|model| logits(&model));
            if weights == WeightFormat::F32 {
                let off = apart(&rotated, &plain);
                assert!(off > 0.0 && off < 2e-5, "{at}: {off} apart");
                exact = plain;
                continue;
            }
            // Other numbers are rounded, by as much, and those of a file in f16 or bf16 are no longer whole.
            let (rotated, plain) = (distance(&rotated, &exact), distance(&plain, &exact));
            eprintln!("{at} as {weights:?}: {rotated:.2e} of the size from f32, else {plain:.2e}");
            let whole = if weights == WeightFormat::F16 { 1e-3 } else { 0.0 };
            assert!(rotated < 2.0 * plain + whole, "{at} as {weights:?}: {rotated} from f32, else {plain}");
        }
    }
}

#[test]
fn heads_that_are_no_power_of_two_are_refused() {
    let folder = root().join("tests/golden/fixtures/llava-bare");
    let options = LoadOptions { rotate_values: true, ..LoadOptions::new(&folder) };
    let error = Model::load(&options, &mut |_| Ok(())).err().expect("heads of 12");
    let text = error.to_string();
    assert!(error.code() == "option" && text.contains("rotateValues") && text.contains("12 channels"), "{text}");
    load(&folder, WeightFormat::F32, false);
}

/// A method as requests have it, with a size where it takes one.
fn caches(case: &Case) -> Vec<Value> {
    let plain = METHODS.iter().map(|spec| match (spec.takes_keep(), spec.role) {
        (true, _) => case.cache(spec, 0.4),
        (false, Role::Refines) => json!([{ "method": "knorm", "keep": 0.4 }, { "method": spec.name }]),
        (false, Role::Shares) => json!({ "method": spec.name, "sources": { "1": 0 } }),
        (false, _) => {
            let info = case.model.info();
            let mut cache = json!({ "method": spec.name });
            if let Some(calibration) = crate::calibrated::calibration(spec, info.layers, info.kv_heads, info.head_dim) {
                cache["calibration"] = calibration;
            }
            if spec.options.iter().any(|option| option.name == "window") {
                cache["window"] = json!(16);
            }
            cache
        }
    });
    let more = [
        json!({ "method": "int4", "window": 16, "rotate": true }),
        json!({ "method": "int8", "window": 16, "rope": "before" }),
        json!({ "method": "akvqVl", "window": 16, "hadamard": false }),
        json!([{ "method": "streaming", "keep": 0.4, "positions": "cache" }, { "method": "int8", "window": 16 }]),
        json!([{ "method": "lookM", "keep": 0.4 }, { "method": "int4", "window": 16 }]),
        json!([{ "method": "adakv", "keep": 0.4 }, { "method": "akvqVl", "window": 16 }]),
    ];
    plain.chain(more).collect()
}

/// The logits of the prompt's end and of every token of the answer, and the sequence.
fn run(case: &Case, model: &Model, cache: &Value) -> Result<(Vec<Vec<f32>>, Sequence)> {
    let mut sequence = model.new_sequence_with(Method::parse(cache)?, false)?;
    let features = case.features_for(&sequence);
    let mut all = vec![model.prefill(&case.prompt, &features, &mut sequence, &|| Ok(()))?];
    for token in &case.answer {
        all.push(model.decode(*token, &mut sequence)?);
    }
    Ok((all, sequence))
}

/// The largest difference of logits anywhere, as a share of the largest of them.
fn farthest(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    got.iter().zip(want).map(|(got, want)| apart(got, want)).fold(0.0, f32::max)
}

/// Methods see values as they are without the transform, and stores hold them so: the same entries stay, in the same codes but for numbers on
/// the border of two.
#[test]
fn every_method_does_the_same() {
    let cases = [
        ("models/tiny-llava", Case::picture(" There is a green star at the top left.")),
        ("tests/golden/fixtures/llama-linear-tied", Case::text(160, 40)),
    ];
    for (folder, case) in cases {
        let rotated = load(&root().join(folder), WeightFormat::F32, true);
        let (full, _) = run(&case, &case.model, &json!({ "method": "full" })).expect("the plain cache");
        let mut compared = 0;
        for cache in caches(&case) {
            let what: String = format!("{folder}: {cache}").chars().take(160).collect();
            let ((plain, sequence), (other, through)) =
                match (run(&case, &case.model, &cache), run(&case, &rotated, &cache)) {
                    (Ok(plain), Ok(other)) => (plain, other),
                    (Err(plain), Err(other)) => {
                        assert_eq!(plain.to_string(), other.to_string(), "{what}");
                        continue;
                    }
                    (plain, other) => panic!("{what}: {:?}, {:?}", plain.err(), other.err()),
                };
            compared += 1;
            assert_eq!(sequence.kept(), through.kept(), "{what}");
            let memory = [&sequence, &through].map(|sequence| {
                let memory = sequence.memory();
                (memory.payload, memory.resident, memory.peak)
            });
            assert_eq!(memory[0], memory[1], "{what}");
            let stages = cache.as_array().map_or(std::slice::from_ref(&cache), Vec::as_slice);
            let stores =
                |stage: &Value| METHODS.iter().any(|spec| stage["method"] == spec.name && spec.role == Role::Stores);
            let ([plain, other, full], off) = ([&plain, &other, &full].map(|of| of.concat()), farthest(&other, &plain));
            let error = distance(&plain, &full);
            if cache["method"] == "turboquant" {
                // A random rotation of other numbers; as far from the full cache.
                let other = distance(&other, &full);
                assert!(
                    other < 2.0 * error && error < 2.0 * other,
                    "{what}: {other} from the full cache, else {error}"
                );
            } else if stages.iter().any(stores) {
                // Much nearer than a store is to the full cache.
                let off = distance(&other, &plain);
                assert!(off < 0.2 * error + 1e-5, "{what}: {off} apart, {error} from the full cache");
            } else {
                assert!(off < 1e-5, "{what}: {off}");
            }
        }
        assert!(compared > METHODS.len() - 5, "{folder}: {compared} of {}", METHODS.len());
    }
}

/// A store that keeps values through the transform does nothing for them while it generates, and another undoes it.
#[test]
fn stores_of_transformed_values_take_them_as_they_come() {
    let folder = root().join("models/tiny-llava");
    for (cache, plain, rotated) in [
        (json!({ "method": "full" }), Dual::None, Dual::None),
        (json!({ "method": "prefixkv", "keep": 0.5 }), Dual::None, Dual::None),
        (json!({ "method": "akvqVl" }), Dual::Hadamard, Dual::HadamardKeys),
        (json!({ "method": "int4", "rotate": true }), Dual::Hadamard, Dual::HadamardKeys),
        (json!({ "method": "akvqVl", "hadamard": false }), Dual::None, Dual::HadamardValues),
        (json!({ "method": "kivi" }), Dual::None, Dual::HadamardValues),
        (json!({ "method": "turboquant" }), Dual::Random, Dual::Random),
    ] {
        for (rotates, want) in [(false, plain), (true, rotated)] {
            let model = load(&folder, WeightFormat::F32, rotates);
            let method = Method::parse(&cache).expect("a method");
            let mut sequence = model.new_sequence_with(method, false).expect("no cap");
            let prompt = model.expand(&tokens(&model, 200), 0).expect("text");
            model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
            for lane in (0..model.info().layers).flat_map(|layer| sequence.lanes(layer)) {
                let runs = lane.view(None).runs;
                assert!(!runs.is_empty() && runs.iter().all(|run| run.codec.dual == want), "{cache}, {rotates}");
            }
        }
    }
}

/// Values that are asked of a lane, and weights, are without the transform, so that calibrations hold for both.
#[test]
fn values_are_read_without_the_transform() {
    let folder = root().join("models/tiny-llava");
    let [plain, rotated] = [false, true].map(|rotates| load(&folder, WeightFormat::F32, rotates));
    for cache in [
        json!({ "method": "full" }),
        // None is old enough for codes.
        json!({ "method": "int8", "window": 200 }),
        json!({ "method": "int4", "window": 200, "rotate": true }),
        json!({ "method": "turboquant", "window": 200 }),
    ] {
        let values = [&plain, &rotated].map(|model| {
            let mut sequence =
                model.new_sequence_with(Method::parse(&cache).expect("a method"), false).expect("no cap");
            let prompt = model.expand(&tokens(model, 60), 0).expect("text");
            model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
            let lane = &sequence.lanes(0)[0];
            lane.values(&lane.sorted()).expect("on the CPU")
        });
        assert!(apart(&values[1], &values[0]) < 1e-5, "{cache}: {}", apart(&values[1], &values[0]));
    }
    // Its directions come from the weights.
    let lorc = json!({ "method": "lorc", "window": 16 });
    let logits = [&plain, &rotated].map(|model| {
        let mut sequence = model.new_sequence_with(Method::parse(&lorc).expect("a method"), false).expect("no cap");
        let prompt = model.expand(&tokens(model, 200), 0).expect("text");
        model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        model.decode(7, &mut sequence).expect("decodes")
    });
    assert!(apart(&logits[1], &logits[0]) < 1e-3, "{}", apart(&logits[1], &logits[0]));
}
