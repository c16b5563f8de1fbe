//! Numbers that are none, and numbers that a format cannot hold: found at load wherever they stand, and while a model runs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prefixkv_core::cache::Format;
use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use prefixkv_core::{Error, Result};
use serde_json::Value;

const FORMATS: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures")
}

/// A copy of a fixture whose tensors can be written to.
struct Folder {
    dir: tempfile::TempDir,
    /// File, type, and byte range of every tensor.
    tensors: BTreeMap<String, (PathBuf, String, usize, usize)>,
}

impl Folder {
    fn of(fixture: &str) -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = BTreeMap::new();
        for entry in std::fs::read_dir(fixtures().join(fixture)).unwrap() {
            let from = entry.unwrap().path();
            let to = dir.path().join(from.file_name().unwrap());
            std::fs::copy(&from, &to).unwrap();
            if to.extension().is_some_and(|extension| extension == "safetensors") {
                let bytes = std::fs::read(&to).unwrap();
                let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
                for (name, info) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
                    let at = |index: usize| 8 + len + info["data_offsets"][index].as_u64().unwrap() as usize;
                    tensors.insert(name, (to.clone(), info["dtype"].as_str().unwrap().to_owned(), at(0), at(1)));
                }
            }
        }
        Folder { dir, tensors }
    }

    /// One tensor of each kind: of layers, those of the first.
    fn kinds(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).filter(|name| !name.contains(".1.") && !name.contains(".2.")).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let (path, _, start, end) = &self.tensors[name];
        std::fs::read(path).unwrap()[*start..*end].to_vec()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let (path, _, start, _) = &self.tensors[name];
        let mut all = std::fs::read(path).unwrap();
        all[*start..*start + bytes.len()].copy_from_slice(bytes);
        std::fs::write(path, all).unwrap();
    }

    /// Writes `value` to every `every`th element of a tensor from the first on.
    fn fill(&self, name: &str, value: f32, every: usize) {
        let dtype = &self.tensors[name].1;
        let element = match dtype.as_str() {
            "F32" => value.to_le_bytes().to_vec(),
            "F16" => half::f16::from_f32(value).to_le_bytes().to_vec(),
            "BF16" => half::bf16::from_f32(value).to_le_bytes().to_vec(),
            other => panic!("{other}"),
        };
        let mut bytes = self.bytes(name);
        bytes.chunks_mut(element.len()).step_by(every).for_each(|chunk| chunk.copy_from_slice(&element));
        self.write(name, &bytes);
    }

    fn load(&self, weights: WeightFormat) -> Result<Model> {
        let options = LoadOptions { weights, ..LoadOptions::new(self.dir.path()) };
        Model::load(&options, &mut |_| Ok(()))
    }
}

fn error(loaded: Result<Model>) -> Error {
    match loaded {
        Ok(_) => panic!("it loads"),
        Err(error) => error,
    }
}

/// The last layer of the tower and the norm behind it, which nothing reads: the features come from before them.
fn is_read(name: &str) -> bool {
    !name.contains("post_layernorm")
}

#[test]
fn nan_and_infinity_in_a_file_are_found_at_load_in_every_kind_of_tensor() {
    let mut tried = 0;
    for fixture in ["llava-gqa64", "llava-head128", "llava-layers-sharded", "llama3-rope", "llama-linear-tied"] {
        let folder = Folder::of(fixture);
        for name in folder.kinds().into_iter().filter(|name| is_read(name)) {
            let before = folder.bytes(name);
            for (index, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
                folder.fill(name, bad, usize::MAX);
                // Every format for one of them, else by turns.
                for format in FORMATS.into_iter().skip(if index == 0 { 0 } else { tried % 4 }).take(if index == 0 {
                    4
                } else {
                    1
                }) {
                    let error = error(folder.load(format));
                    let message = error.to_string();
                    let file = folder.tensors[name].0.file_name().unwrap().to_str().unwrap();
                    assert_eq!(error.code(), "model-file", "{name} {format:?}: {message}");
                    assert!(message.contains(name) && message.contains(file), "{message}");
                    tried += 1;
                }
            }
            folder.write(name, &before);
        }
        for format in FORMATS {
            assert!(folder.load(format).is_ok(), "{fixture} is whole again");
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn what_f16_cannot_hold_is_found_at_load_in_every_kind_of_tensor() {
    let mut refused = 0;
    for fixture in ["llava-head128", "llava-layers-sharded", "llama-linear-tied"] {
        let folder = Folder::of(fixture);
        for name in folder.kinds().into_iter().filter(|name| is_read(name)) {
            let before = folder.bytes(name);
            folder.fill(name, 99_840.0, usize::MAX);
            assert!(folder.load(WeightFormat::F32).is_ok(), "{name}");
            for format in [WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K] {
                match folder.load(format) {
                    // Norms, biases, classes and positions are f32 beside every format.
                    Ok(_) => assert!(format != WeightFormat::F16 || !is_linear(name), "{name} {format:?}"),
                    Err(error) => {
                        let message = error.to_string();
                        assert_eq!(error.code(), "numbers", "{message}");
                        assert!(is_linear(name), "{message}");
                        for part in [name, "99840", format.name(), "\"f32\""] {
                            assert!(message.contains(part), "{part}: {message}");
                        }
                        let fits = error.details()["fits"].clone();
                        for fits in fits.as_array().unwrap() {
                            let fits: WeightFormat = serde_json::from_value(fits.clone()).unwrap();
                            assert!(folder.load(fits).is_ok(), "{name} {fits:?}");
                        }
                        refused += 1;
                    }
                }
            }
            folder.write(name, &before);
        }
    }
    assert!(refused > 20, "{refused}");
}

fn is_linear(name: &str) -> bool {
    let plain = ["norm", "bias", "class_embedding", "position_embedding"];
    !plain.iter().any(|part| name.contains(part))
}

/// Runs a prompt of some tokens and one step.
fn run(model: &Model) -> Result<()> {
    let prompt = model.expand(&[1, 5, 9, 13, 17], 0)?;
    let mut sequence = model.new_sequence()?;
    let logits = model.prefill(&prompt, &[], &mut sequence, &|| Ok(()))?;
    let next = model.decode(7, &mut sequence)?;
    assert!(logits.iter().chain(&next).all(|logit| logit.is_finite()));
    Ok(())
}

#[test]
fn keys_and_values_past_an_f16_cache_are_errors_and_not_text() {
    for (fixture, prefix) in [("llava-gqa64", "language_model.model."), ("llama-linear-tied", "model.")] {
        for what in ["k_proj", "v_proj"] {
            for layer in [0, 1] {
                let folder = Folder::of(fixture);
                folder.fill(&format!("{prefix}layers.{layer}.self_attn.{what}.weight"), 30_000.0, 1);
                // All the same sign, so that the sums of a row are large.
                folder.fill(&format!("{prefix}layers.{layer}.input_layernorm.weight"), 100.0, 1);
                for format in FORMATS {
                    let model = folder.load(format).unwrap();
                    let ran = run(&model);
                    if format.cache_format() == Format::F32 {
                        assert!(ran.is_ok(), "{fixture} {what} {format:?}: {ran:?}");
                        continue;
                    }
                    let error = ran.expect_err("past 65504");
                    let message = error.to_string();
                    assert_eq!(
                        (error.code(), error.details()["fits"][0].as_str()),
                        ("numbers", Some("f32")),
                        "{message}"
                    );
                    let named = if what == "k_proj" { "keys" } else { "values" };
                    let place = format!("the {named} of layer {layer} reach");
                    assert!(message.contains(&place) && message.contains("65504"), "{message}");
                }
            }
        }
    }
}

#[test]
fn what_overflows_while_running_is_an_error_in_every_format() {
    let folder = Folder::of("llama-linear-tied");
    for (name, value) in [
        ("model.layers.0.post_attention_layernorm.weight", 3e38),
        ("model.layers.0.input_layernorm.weight", 3e38),
        ("model.layers.1.post_attention_layernorm.weight", 3e38),
        ("model.norm.weight", 3e38),
        ("model.layers.0.self_attn.q_proj.weight", 3e38),
        ("model.layers.1.self_attn.q_proj.weight", 3e38),
    ] {
        let before = folder.bytes(name);
        folder.fill(name, value, 1);
        for format in FORMATS {
            let model = match folder.load(format) {
                Ok(model) => model,
                Err(error) => {
                    assert!(error.code() == "numbers" && format != WeightFormat::F32, "{name} {format:?}: {error}");
                    continue;
                }
            };
            let error = run(&model).expect_err(name);
            assert_eq!(error.code(), "numbers", "{name} {format:?}: {error}");
            assert!(!error.to_string().contains("report it"));
        }
        folder.write(name, &before);
    }
    assert!(run(&folder.load(WeightFormat::F32).unwrap()).is_ok());
}

#[test]
fn a_tower_that_computes_no_numbers_says_so_at_the_first_image() {
    let folder = Folder::of("llava-layers-sharded");
    for name in [
        "model.vision_tower.pre_layrnorm.weight",
        "model.vision_tower.encoder.layers.0.layer_norm1.weight",
        "model.vision_tower.encoder.layers.0.layer_norm2.weight",
    ] {
        let before = folder.bytes(name);
        folder.fill(name, 3e38, 1);
        let model = folder.load(WeightFormat::F32).unwrap();
        let picture = std::fs::read(fixtures().join("images/square-168.png")).unwrap();
        let pixels = model.image_processor().unwrap().process(&picture, 0).unwrap();
        let error = model.encode_images(&[pixels], &|| Ok(())).map(|_| ()).expect_err(name);
        assert!(error.code() == "numbers" && error.to_string().contains("features of an image"), "{error}");
        assert!(run(&model).is_ok());
        folder.write(name, &before);
    }
}
