//! Language models and their vision towers in GGUF files, against their twins in safetensors, whose goldens are theirs.

use std::path::{Path, PathBuf};

use prefixkv_core::Error;
use prefixkv_core::device::Cpu;
use prefixkv_core::media::{Prepared, upright_size};
use prefixkv_core::model::{Asked, Features, ImagePlan, LoadOptions, Model, Prompt, Vision, WeightFormat};
use prefixkv_core::sample::argmax;
use prefixkv_core::text::{Content, Message, Part};
use serde_json::Value;

use crate::folder::{self, root};

const PAIRS: [&str; 6] = ["llava-bare", "llava-gqa64", "smolvlm-tiles", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"];
/// Steps that are compared.
const STEPS: usize = 16;

fn pair(name: &str) -> PathBuf {
    root().join("tests/golden/fixtures/gguf-pairs").join(name)
}

fn try_load(path: &Path, vision: Vision, weights: WeightFormat) -> prefixkv_core::Result<Model> {
    Model::load(&LoadOptions { vision, weights, ..LoadOptions::new(path) }, &mut |_| Ok(()))
}

fn load(path: &Path, vision: Vision, weights: WeightFormat) -> Model {
    try_load(path, vision, weights).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pair of a folder.
fn found(name: &str, weights: WeightFormat) -> Model {
    load(&pair(name), Vision::Beside, weights)
}

fn cases(name: &str) -> Vec<Value> {
    let path = root().join(format!("tests/golden/data/{name}.json"));
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("a golden")).expect("JSON");
    golden["cases"].as_array().expect("cases").clone()
}

/// A prompt as a model reads it.
struct Read {
    prompt: Prompt,
    pixels: Vec<Prepared>,
    features: Vec<Features<Cpu>>,
}

impl Read {
    fn of(model: &Model, case: &Value) -> Read {
        let paths: Vec<&str> = case["images"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let files: Vec<Vec<u8>> =
            paths.iter().map(|path| std::fs::read(root().join(path)).expect("a picture")).collect();
        let processor = model.image_processor().expect("takes images");
        let pixels: Vec<Prepared> = files.iter().map(|file| processor.process(file, 0).expect("decodes")).collect();
        let plan = |file: &Vec<u8>| model.plan(&mut || upright_size(file, 0)).expect("a plan").expect("takes images");
        let plans: Vec<ImagePlan> = files.iter().map(plan).collect();
        let encoded = model.encode_raw(case["text"].as_str().expect("a text"), &plans).expect("encodes");
        let prompt = model.expand_at(&encoded.tokens, &encoded.pictures, &plans, files.len()).expect("a prompt");
        let features = model.encode_images(&pixels, &|| Ok(())).expect("sees");
        Read { prompt, pixels, features }
    }

    /// The logits behind the prompt and behind each greedy token, and the tokens.
    fn answer(&self, model: &Model, steps: usize) -> (Vec<Vec<f32>>, Vec<u32>) {
        let mut sequence = model.new_sequence().expect("no cap");
        let mut rows = vec![model.prefill(&self.prompt, &self.features, &mut sequence, &|| Ok(())).expect("reads")];
        let mut tokens = Vec::new();
        for step in 0..steps {
            tokens.push(argmax(&rows[step]) as u32);
            rows.push(model.decode(tokens[step], &mut sequence).expect("decodes"));
        }
        (rows, tokens)
    }
}

/// The largest difference, over the columns that both have: a language model without a token for an image has fewer.
fn worst(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    assert_eq!(got.len(), want.len());
    let mut worst = 0.0;
    for (got, want) in got.iter().zip(want).flat_map(|(got, want)| got.iter().zip(want)) {
        let off = (got - want).abs();
        // Not `max`, which passes over NaN.
        worst = if off <= worst { worst } else { off };
    }
    worst
}

fn numbers(features: &Features<Cpu>) -> Vec<f32> {
    let behind = features.behind().iter().flat_map(|rows| rows.to_vec().expect("rows"));
    features.rows().to_vec().expect("rows").into_iter().chain(behind).collect()
}

#[test]
fn a_pair_is_what_its_twin_is() {
    for name in PAIRS {
        let twin = folder::load(&root().join("tests/golden/fixtures").join(name));
        let model = found(name, WeightFormat::F32);
        let info = model.info();
        let (ours, theirs) = (info.image.as_ref().expect("sees"), twin.info().image.as_ref().expect("sees"));
        assert_eq!((ours.tokens, ours.size, ours.patch), (theirs.tokens, theirs.size, theirs.patch), "{name}");
        assert_eq!(info.layers, twin.info().layers, "{name}");
        assert!(info.vision_bytes > 0 && info.source.ends_with("model.gguf"), "{info:?}");
        assert_eq!(model.placeholder(), twin.placeholder(), "{name}");
        assert_eq!(info.fingerprint, Model::inspect(&pair(name), &Vision::Beside, None).expect("inspects").fingerprint);
        let mut pictures = 0;
        for case in cases(name) {
            let what = format!("{name}, {}", case["name"]);
            let (read, want) = (Read::of(&model, &case), Read::of(&twin, &case));
            let ids: Vec<u32> = serde_json::from_value(case["input_ids"].clone()).expect("ids");
            assert_eq!(read.prompt.tokens, ids, "{what}: tokens");
            assert_eq!(read.prompt, want.prompt, "{what}: spans and phases");
            for (got, want) in read.pixels.iter().zip(&want.pixels) {
                assert_eq!(got.tiles.len(), want.tiles.len(), "{what}: tiles");
                assert!(got.tiles.iter().zip(&want.tiles).all(|(got, want)| got.data == want.data), "{what}: pixels");
            }
            for (got, want) in read.features.iter().zip(&want.features) {
                let off = worst(&[numbers(got)], &[numbers(want)]);
                assert!(off <= 1e-5, "{what}: features are off by {off}");
                assert_eq!(numbers(got).len(), numbers(want).len(), "{what}: features");
            }
            pictures += read.pixels.len();
            let (rows, tokens) = read.answer(&model, STEPS);
            let (wanted, _) = want.answer(&twin, STEPS);
            let off = worst(&rows, &wanted);
            assert!(off <= 1e-4, "{what}: logits are off by {off}");
            let golden: Vec<u32> = serde_json::from_value(case["tokens"].clone()).expect("tokens");
            assert_eq!(tokens[..STEPS.min(golden.len())], golden[..STEPS.min(golden.len())], "{what}: greedy tokens");
        }
        assert!(pictures >= 4, "{name}: {pictures} pictures");
    }
}

#[test]
fn numbers_of_a_file_are_held_as_they_are() {
    for name in PAIRS {
        let (exact, stored) = (found(name, WeightFormat::F32), found(name, WeightFormat::Stored));
        assert_eq!(stored.info().weights, "stored");
        assert!(stored.info().weight_bytes < exact.info().weight_bytes, "{name}");
        let case = &cases(name)[0];
        let (want, _) = Read::of(&exact, case).answer(&exact, 4);
        let (got, _) = Read::of(&stored, case).answer(&stored, 4);
        let off = worst(&got, &want);
        // The cache is f16 beside f16 weights.
        assert!(off <= 0.02, "{name}: logits are off by {off}");
    }
}

#[test]
fn towers_in_blocks_see() {
    for (name, file, kind) in
        [("llava-gqa64", "blocks/mmproj-Q4_0.gguf", "q4_0"), ("qwen2-vl", "blocks/mmproj-Q8_0.gguf", "q8_0")]
    {
        let tower = || Vision::File(pair(name).join(file));
        let text = pair(name).join("model.gguf");
        let (stored, plain) = (load(&text, tower(), WeightFormat::Stored), load(&text, tower(), WeightFormat::F32));
        let formats = &stored.info().weight_formats;
        assert!(formats.get(kind).is_some_and(|layers| *layers >= 8), "{name}: {formats:?}");
        assert!(stored.info().vision_bytes < plain.info().vision_bytes / 2, "{name}");
        let exact = found(name, WeightFormat::F32);
        let case = &cases(name)[0];
        let features = |model: &Model| numbers(&Read::of(model, case).features[0]);
        let (exact, plain, stored) = (features(&exact), features(&plain), features(&stored));
        let size = exact.iter().map(|x| x.abs()).fold(0.0, f32::max);
        // Blocks stand for numbers near those that they were made of, and products with blocks are near products with these numbers.
        let (quantised, rounded) = (worst(std::slice::from_ref(&plain), &[exact]), worst(&[stored], &[plain]));
        let limit = if kind == "q8_0" { 0.05 } else { 0.5 };
        assert!(quantised > 0.0 && quantised < limit * size, "{name}: {quantised} of {size}");
        assert!(rounded > 0.0 && rounded < 0.05 * size, "{name}: {rounded} of {size}");
    }
}

#[test]
fn a_message_with_an_image_is_written() {
    for (name, start) in [
        ("llava-bare", "USER: <image>\nWhat is it?"),
        ("llava-gqa64", "USER: <image>\nWhat is it?"),
        ("smolvlm-tiles", "<|im_start|>User:<image>What is it?"),
        ("qwen2-vl", "<|im_start|>system\n"),
    ] {
        let model = found(name, WeightFormat::Stored);
        let parts = vec![Part::Image { index: 0 }, Part::Text { text: "What is it?".into() }];
        let chat = model
            .template()
            .render(&[Message { role: "user".into(), content: Content::Parts(parts), tool_calls: Vec::new() }], true);
        let chat = chat.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(chat.text.starts_with(start), "{name}: {:?}", chat.text);
        assert_eq!(chat.pictures.len(), 1, "{name}");
        let placeholder = model.tokenizer().token(model.placeholder().expect("sees")).expect("a token");
        assert_eq!(chat.text[chat.pictures[0].clone()], placeholder, "{name}");
    }
}

#[test]
fn without_its_tower_a_language_model_answers_alone() {
    for name in PAIRS {
        let model = load(&pair(name), Vision::None, WeightFormat::F32);
        assert!(model.info().image.is_none() && model.info().vision_bytes == 0, "{name}");
        let both = found(name, WeightFormat::F32);
        let tokens: Vec<u32> = (5..40).collect();
        let run = |model: &Model| {
            let prompt = model.expand(&tokens, 0).expect("a prompt");
            model.prefill(&prompt, &[], &mut model.new_sequence().expect("no cap"), &|| Ok(())).expect("reads")
        };
        // Where there are no pictures, all axes of a rotary embedding are one.
        assert_eq!(run(&model), run(&both), "{name}");
    }
}

#[test]
fn pictures_are_counted_without_weights() {
    for name in PAIRS {
        let asked = Asked { width: 300, height: 200, timing: None };
        let size = Some(&asked);
        let ours = Model::inspect(&pair(name), &Vision::Beside, size).expect("inspects").image.expect("sees");
        let twin = root().join("tests/golden/fixtures").join(name);
        let theirs = Model::inspect(&twin, &Vision::Beside, size).expect("inspects").image.expect("sees");
        assert_eq!(ours.picture, theirs.picture, "{name}");
        assert!(ours.picture.is_some(), "{name}");
    }
}

/// The error of two files that do not make a model.
fn refused(text: &Path, vision: Vision) -> Error {
    let loaded = try_load(text, vision.clone(), WeightFormat::Stored).map(|_| ()).expect_err("refused");
    let inspected = Model::inspect(text, &vision, None).map(|_| ()).expect_err("refused");
    assert_eq!(loaded.to_string(), inspected.to_string());
    loaded
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let tower = |name: &str| Vision::File(pair(name).join("mmproj.gguf"));
    let text = |name: &str| pair(name).join("model.gguf");
    for (of, with, code, parts) in [
        // Another family.
        ("qwen2-vl", "smolvlm-tiles", "unsupported-model", ["Idefics3 or SmolVLM", "is `qwen2vl`"]),
        ("qwen3-vl", "qwen2-vl", "unsupported-model", ["Qwen2-VL", "is `qwen3vl`"]),
        ("llava-bare", "qwen2.5-vl", "unsupported-model", ["Qwen2.5-VL", "is `llama`"]),
        ("qwen2-vl", "llava-gqa64", "unsupported-model", ["LLaVA-1.5", "is `qwen2vl`"]),
        // Another width.
        ("llava-bare", "llava-gqa64", "model-file", ["rows of 24 numbers", "takes 48"]),
        ("smolvlm-tiles", "llava-gqa64", "model-file", ["rows of 24 numbers", "takes 48"]),
        // The width of another family's language model, which has no token for an image.
        ("llava-bare", "smolvlm-tiles", "unsupported-model", ["no token `<image>`", "another family"]),
    ] {
        let error = refused(&text(of), tower(with));
        let message = error.to_string();
        assert_eq!(error.code(), code, "{of} with {with}: {message}");
        for part in parts.into_iter().chain(["`vision: false`", "model.gguf"]) {
            assert!(message.contains(part), "{of} with {with} lacks {part:?}: {message}");
        }
    }
    let swapped = refused(&text("qwen2-vl"), Vision::File(text("qwen2-vl")));
    assert!(swapped.to_string().contains("is no vision tower (mmproj)"), "{swapped}");
    let alone = refused(&pair("qwen2-vl").join("mmproj.gguf"), Vision::Beside);
    assert!(alone.to_string().contains("no language model") && alone.to_string().contains("`vision`"), "{alone}");
    let absent = refused(&text("qwen2-vl"), Vision::File(pair("qwen2-vl").join("absent.gguf")));
    assert_eq!(absent.code(), "model-not-found", "{absent}");
    let folder = refused(&root().join("tests/golden/fixtures/qwen2-vl"), tower("qwen2-vl"));
    assert_eq!(folder.code(), "option", "{folder}");
}

/// A folder with copies of files of a pair.
fn copies(files: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, file, to) in files {
        std::fs::copy(pair(name).join(file), dir.path().join(to)).expect("copied");
    }
    dir
}

#[test]
fn a_tower_is_found_where_it_is_the_only_one() {
    let (text, tower) = (("qwen3-vl", "model.gguf", "a.gguf"), ("qwen3-vl", "mmproj.gguf", "a-mmproj-f16.gguf"));
    let sees = |path: &Path| Model::inspect(path, &Vision::Beside, None).map(|info| info.image.is_some());
    let dir = copies(&[text, tower]);
    assert!(sees(dir.path()).expect("a pair") && sees(&dir.path().join("a.gguf")).expect("a pair"));
    let dir = copies(&[text]);
    assert!(!sees(dir.path()).expect("a model"));
    // Whose tower it is nobody says.
    let dir = copies(&[text, tower, ("qwen2-vl", "model.gguf", "b.gguf")]);
    assert!(!sees(&dir.path().join("a.gguf")).expect("a model"));
    let dir = copies(&[text, tower, ("qwen3-vl", "mmproj.gguf", "a-mmproj-q8_0.gguf")]);
    let error = sees(dir.path()).expect_err("several").to_string();
    assert!(error.contains("2 vision towers") && error.contains("a-mmproj-q8_0.gguf") && error.contains("`vision`"));
}

#[test]
fn settings_beside_a_tower_go_before_its_own() {
    let dir = copies(&[("qwen2-vl", "model.gguf", "model.gguf"), ("qwen2-vl", "mmproj.gguf", "mmproj.gguf")]);
    let count = || {
        let info = Model::inspect(dir.path(), &Vision::Beside, Some(&Asked { width: 300, height: 200, timing: None }))
            .expect("inspects");
        info.image.and_then(|image| image.picture).expect("counted").tokens
    };
    let most = count();
    let twin = root().join("tests/golden/fixtures/qwen2-vl/preprocessor_config.json");
    let said = std::fs::read_to_string(twin).expect("settings").replace("2560", "1024");
    std::fs::write(dir.path().join("preprocessor_config.json"), said).expect("written");
    assert!(count() < most, "{} of {most}", count());
}

#[test]
fn a_tower_that_changes_ends_requests() {
    let dir = copies(&[
        ("llava-gqa64", "model.gguf", "model.gguf"),
        ("llava-gqa64", "blocks/mmproj-Q4_0.gguf", "mmproj.gguf"),
    ]);
    let model = load(dir.path(), Vision::Beside, WeightFormat::Stored);
    let prompt = model.expand(&[5, 6, 7], 0).expect("a prompt");
    let run = || model.prefill(&prompt, &[], &mut model.new_sequence().expect("no cap"), &|| Ok(()));
    assert!(run().is_ok());
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("mmproj.gguf")).expect("opens");
    file.set_len(10).expect("cut");
    let error = run().expect_err("refused");
    assert!(error.code() == "model-file" && error.to_string().contains("mmproj.gguf"), "{error}");
}

/// A tower with a key or a name replaced by another of the same length.
fn edited(name: &str, from: &str, to: &str) -> (tempfile::TempDir, PathBuf) {
    assert_eq!(from.len(), to.len());
    let dir = copies(&[(name, "mmproj.gguf", "mmproj.gguf")]);
    let path = dir.path().join("mmproj.gguf");
    let mut bytes = std::fs::read(&path).expect("a tower");
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| &bytes[*at..at + from.len()] == from.as_bytes()).collect();
    assert!(!places.is_empty(), "no {from}");
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to.as_bytes()));
    std::fs::write(&path, bytes).expect("written");
    (dir, path)
}

#[test]
fn what_a_tower_lacks_or_has_too_much_is_named() {
    for (name, from, to, parts) in [
        ("llava-gqa64", "v.blk.0.ln1.bias", "v.blk.0.ls1.bias", "the tensor `v.blk.0.ls1.bias`"),
        ("qwen2-vl", "v.blk.0.attn_k.bias", "v.blk.0.attn_q.bias", "twice"),
        ("qwen3-vl", "clip.vision.is_deepstack_layers", "clip.vision.is_deepstack_lagers", "the tensor `v.deepstack."),
        ("smolvlm-tiles", "clip.vision.block_count", "clip.vision.block_caunt", "`clip.vision.block_count`"),
        ("qwen2.5-vl", "v.blk.1.attn_v.bias", "v.blk.9.attn_v.bias", "`v.blk.9.attn_v.bias` do not make up one"),
        ("smolvlm-tiles", "idefics3", "idefics9", "the projector \"idefics9\"; read are `mlp` (LLaVA-1.5)"),
    ] {
        let (_dir, path) = edited(name, from, to);
        let error = refused(&pair(name).join("model.gguf"), Vision::File(path)).to_string();
        assert!(error.contains(parts) && error.contains("mmproj.gguf"), "{name}, {from}: {error}");
    }
}
