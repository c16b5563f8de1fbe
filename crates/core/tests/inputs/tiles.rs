//! Pictures in tiles against transformers' Pillow processors, by `tests/golden/tiles.py`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use prefixkv_core::Result;
use prefixkv_core::media::upright_size;
use prefixkv_core::model::{ImageProcessor, image_processor};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    /// The folder whose config.json says what the tower takes.
    config: String,
    pictures: Vec<Picture>,
}

#[derive(Deserialize)]
struct Picture {
    key: String,
    settings: Value,
    image: String,
    /// Rows and columns; 0 for one tile.
    grid: (usize, usize),
    tiles: usize,
}

fn numbers<T: candle_core::WithDType>(arrays: &HashMap<String, Tensor>, name: &str) -> Vec<T> {
    arrays.get(name).unwrap_or_else(|| panic!("no {name}")).to_vec1().expect("numbers")
}

#[test]
fn every_tile_equals_pillow() {
    assert!(compare("tiles") > 8000);
}

#[test]
fn every_tile_and_thumbnail_of_internvl_equals_pillow() {
    assert!(compare("internvl_tiles") > 5000);
}

/// The samples that were compared.
fn compare(name: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = root.join("tests/golden/data");
    let text = std::fs::read_to_string(data.join(format!("{name}.json"))).expect("readable");
    let golden: Golden = serde_json::from_str(&text).expect("golden");
    let arrays =
        candle_core::safetensors::load(data.join(format!("{name}.safetensors")), &Device::Cpu).expect("arrays");
    let mut compared = 0;
    for picture in &golden.pictures {
        let folder = tempfile::tempdir().expect("temporary folder");
        let copy = |name: &str| std::fs::copy(root.join(&golden.config).join(name), folder.path().join(name));
        copy("config.json").and_then(|_| copy("processor_config.json")).expect("copied");
        let settings = picture.settings.to_string();
        std::fs::write(folder.path().join("preprocessor_config.json"), settings).expect("written");
        let (_, processor) = image_processor(folder.path()).expect("sound").expect("takes images");
        let bytes = std::fs::read(root.join(&picture.image)).expect("readable");
        let prepared = processor.process(&bytes, 0).expect("an image");
        let (rows, columns) = picture.grid;
        assert_eq!(prepared.tiles.len(), picture.tiles, "{}", picture.key);
        assert_eq!(picture.tiles, rows * columns + 1, "{}", picture.key);
        let size = upright_size(&bytes, 0).expect("an image");
        assert_eq!(size, (prepared.width, prepared.height));
        let plan = processor.plan(&mut || Ok(size)).expect("a plan");
        assert_eq!(plan.pieces().count(), picture.tiles, "{}", picture.key);
        assert_eq!(processor.areas(size.0, size.1).len(), picture.tiles, "{}", picture.key);
        let all: Vec<f32> = prepared.tiles.iter().flat_map(|tile| tile.data.iter().copied()).collect();
        let at: Vec<u32> = numbers(&arrays, &format!("{}.at", picture.key));
        let values: Vec<f32> = numbers(&arrays, &format!("{}.values", picture.key));
        for (at, want) in at.iter().zip(&values) {
            let got = all[*at as usize];
            // To the bit of f32 but for its last.
            assert!((got - want).abs() <= 1e-6, "{}: sample {at} is {got}, expected {want}", picture.key);
            compared += 1;
        }
    }
    compared
}

/// The processor of SmolVLM's fixture with other settings beside its config.json.
fn with(name: &str, settings: &Value) -> Result<Arc<dyn ImageProcessor>> {
    beside("smolvlm-tiles", name, settings)
}

fn beside(fixture: &str, name: &str, settings: &Value) -> Result<Arc<dyn ImageProcessor>> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures").join(fixture);
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::copy(fixture.join("config.json"), folder.path().join("config.json")).expect("copied");
    std::fs::write(folder.path().join(name), settings.to_string()).expect("written");
    image_processor(folder.path()).map(|found| found.expect("takes images").1)
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let tile = json!({ "longest_edge": 32 });
    for (settings, part) in [
        (
            json!({ "max_image_size": { "longest_edge": 64 } }),
            "makes tiles of 64 pixels a side, but the vision tower takes 32",
        ),
        (json!({}), "makes tiles of 364 pixels"),
        (json!({ "max_image_size": 32 }), "`max_image_size`"),
        (json!({ "max_image_size": { "longest_edge": 0 } }), "`max_image_size`"),
        (json!({ "max_image_size": tile, "size": { "longest_edge": 0 } }), "`size`"),
        (json!({ "max_image_size": tile, "size": { "longest_edge": 100_000 } }), "`size`"),
        (json!({ "max_image_size": tile, "size": { "shortest_edge": 9 } }), "`size`"),
        (json!({ "max_image_size": tile, "size": { "height": 9 } }), "`size`"),
        (json!({ "max_image_size": tile, "size": { "longest_edge": 4000 } }), "cuts a picture into up to 15626 tiles"),
        (json!({ "max_image_size": tile, "do_image_splitting": 1 }), "`do_image_splitting`"),
        (json!({ "max_image_size": tile, "image_std": [0, 1, 1] }), "`image_std`"),
        (json!({ "max_image_size": tile, "resample": 5 }), "`resample`"),
    ] {
        let error = with("preprocessor_config.json", &settings).expect_err("refused");
        let message = error.to_string();
        assert!(error.code() == "model-file" && message.contains(part), "{settings}: {message}");
        assert!(message.contains("preprocessor_config.json"), "{message}");
    }
    let other = json!({ "image_processor_type": "CLIPImageProcessor" });
    let error = with("preprocessor_config.json", &other).expect_err("refused");
    assert!(error.code() == "unsupported-model" && error.to_string().contains("CLIPImageProcessor"), "{error}");
    let long = json!({ "image_seq_len": 169, "image_processor": { "max_image_size": tile } });
    let error = with("processor_config.json", &long).expect_err("refused");
    assert!(error.to_string().contains("`image_seq_len` is 169 but must be 4"), "{error}");
    // By name, whichever way of computing it is bound to; a tile whose rest beyond whole patches is not seen.
    for class in ["SmolVLMImageProcessor", "SmolVLMImageProcessorFast", "Idefics3ImageProcessorPil"] {
        let settings = json!({ "image_processor_type": class, "max_image_size": { "longest_edge": 35 } });
        assert!(with("preprocessor_config.json", &settings).is_ok(), "{class}");
    }
}

#[test]
fn pictures_that_would_be_cut_too_often_are_refused() {
    let settings = json!({ "max_image_size": { "longest_edge": 32 }, "do_resize": false });
    let processor = with("preprocessor_config.json", &settings).expect("sound");
    assert!(processor.plan(&mut || Ok((1024, 1024))).is_ok());
    let error = processor.plan(&mut || Ok((4096, 4096))).expect_err("refused");
    assert!(error.code() == "image" && error.to_string().contains("16385 tiles"), "{error}");
}

#[test]
fn settings_of_internvl_that_make_no_sense_are_named() {
    let size = json!({ "height": 24, "width": 24 });
    for (settings, part) in [
        (json!({}), "makes tiles of 384 pixels a side, but the vision tower takes 24"),
        (json!({ "size": { "height": 24, "width": 32 } }), "`size`"),
        (json!({ "size": { "shortest_edge": 24 } }), "`size`"),
        (json!({ "size": 0 }), "`size`"),
        (json!({ "size": size, "max_patches": 5000 }), "`max_patches`"),
        (json!({ "size": size, "min_patches": -1 }), "`min_patches`"),
        (json!({ "size": size, "max_patches": 1, "do_resize": false }), "`do_resize`"),
        (json!({ "size": size, "crop_to_patches": 1 }), "`crop_to_patches`"),
        (json!({ "size": size, "image_std": [0, 1, 1] }), "`image_std`"),
    ] {
        let error = beside("internvl3", "preprocessor_config.json", &settings).expect_err("refused");
        let message = error.to_string();
        assert!(error.code() == "model-file" && message.contains(part), "{settings}: {message}");
        assert!(message.contains("preprocessor_config.json"), "{message}");
    }
    let other = json!({ "image_processor_type": "CLIPImageProcessor", "size": size });
    let error = beside("internvl3", "preprocessor_config.json", &other).expect_err("refused");
    assert!(error.code() == "unsupported-model" && error.to_string().contains("CLIPImageProcessor"), "{error}");
    let long = json!({ "image_seq_length": 256, "image_processor": { "size": size } });
    let error = beside("internvl3", "processor_config.json", &long).expect_err("refused");
    assert!(error.to_string().contains("`image_seq_length` is 256 but must be 9"), "{error}");
    assert!(beside("internvl3", "preprocessor_config.json", &json!({ "size": 24 })).is_ok());
}
