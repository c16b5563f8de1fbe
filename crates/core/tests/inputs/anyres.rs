//! Pictures in tiles of a size that fits their shape, against transformers' Pillow processors, by `tests/golden/anyres.py`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use prefixkv_core::Result;
use prefixkv_core::cache::PieceKind;
use prefixkv_core::media::upright_size;
use prefixkv_core::model::{ImageProcessor, image_processor};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    pictures: Vec<Picture>,
}

#[derive(Deserialize)]
struct Picture {
    key: String,
    /// The folder whose config.json says what the tower takes.
    config: String,
    settings: Value,
    image: String,
    /// Whether it is not the only picture.
    beside: bool,
    tiles: usize,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn numbers<T: candle_core::WithDType>(arrays: &HashMap<String, Tensor>, name: &str) -> Vec<T> {
    arrays.get(name).unwrap_or_else(|| panic!("no {name}")).to_vec1().expect("numbers")
}

/// The processor of `config`, changed, beside `settings`.
fn processor(config: &str, change: &Value, settings: &Value) -> Result<Arc<dyn ImageProcessor>> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = std::fs::read_to_string(root().join(config).join("config.json")).expect("readable");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let change = change.as_object().expect("an object").clone();
    config.as_object_mut().expect("an object").extend(change);
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    std::fs::write(folder.path().join("preprocessor_config.json"), settings.to_string()).expect("written");
    image_processor(folder.path()).map(|found| found.expect("takes images").1)
}

#[test]
fn every_tile_equals_pillow() {
    let data = root().join("tests/golden/data");
    let text = std::fs::read_to_string(data.join("anyres.json")).expect("readable");
    let golden: Golden = serde_json::from_str(&text).expect("golden");
    let arrays = candle_core::safetensors::load(data.join("anyres.safetensors"), &Device::Cpu).expect("arrays");
    let mut compared = 0;
    for picture in &golden.pictures {
        let alone = processor(&picture.config, &json!({}), &picture.settings).expect("sound");
        let processor = if picture.beside { alone.among_others().expect("another way") } else { &*alone };
        let bytes = std::fs::read(root().join(&picture.image)).expect("readable");
        let prepared = processor.process(&bytes, 0).expect("an image");
        assert_eq!(prepared.tiles.len(), picture.tiles, "{}", picture.key);
        let size = upright_size(&bytes, 0).expect("an image");
        assert_eq!(size, (prepared.width, prepared.height));
        let plan = processor.plan(&mut || Ok(size)).expect("a plan");
        assert_eq!(processor.areas(size.0, size.1).len(), plan.pieces().count(), "{}", picture.key);
        for (piece, tokens) in plan.pieces() {
            let more = match piece.kind {
                PieceKind::Tiles { down, across } => {
                    assert_eq!(down * across + 1, picture.tiles, "{}", picture.key);
                    piece.rows
                }
                PieceKind::End => 1,
                _ => 0,
            };
            assert_eq!(piece.rows * piece.columns + more, tokens, "{}", picture.key);
        }
        let all: Vec<f32> = prepared.tiles.iter().flat_map(|tile| tile.data.iter().copied()).collect();
        let at: Vec<u32> = numbers(&arrays, &format!("{}.at", picture.key));
        let values: Vec<f32> = numbers(&arrays, &format!("{}.values", picture.key));
        for (at, want) in at.iter().zip(&values) {
            let got = all[*at as usize];
            // To the bit of f32 but for its last, also where samples stay as they are.
            assert!((got - want).abs() <= 1e-6, "{}: sample {at} is {got}, expected {want}", picture.key);
            compared += 1;
        }
    }
    assert!(compared > 2500, "{compared} samples");
}

const NEXT: &str = "tests/golden/fixtures/llava-next";

#[test]
fn settings_that_make_no_sense_are_named() {
    let pinpoints = json!([[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]);
    let sound = json!({ "size": 32, "crop_size": 32, "image_grid_pinpoints": pinpoints });
    assert!(processor(NEXT, &json!({}), &sound).is_ok());
    let named = json!({ "image_processor_type": "LlavaNextImageProcessorFast", "size": { "shortest_edge": 32 },
        "crop_size": { "height": 32, "width": 32 }, "image_grid_pinpoints": pinpoints });
    assert!(processor(NEXT, &json!({}), &named).is_ok());
    for (change, part) in [
        (json!({ "size": 64 }), "makes tiles of 64 x 64 pixels (`size`), but the vision tower takes 32 x 32"),
        (json!({ "size": { "height": 32, "width": 16 } }), "makes tiles of 16 x 32 pixels (`size`)"),
        (json!({ "size": null }), "makes tiles of 224 x 224 pixels (`size`)"),
        (json!({ "crop_size": null }), "makes tiles of 224 x 224 pixels (`crop_size`)"),
        (json!({ "crop_size": { "height": 0, "width": 32 } }), "`crop_size`"),
        (json!({ "size": "big" }), "`size` is \"big\""),
        (json!({ "image_grid_pinpoints": [[32, 64]] }), "`image_grid_pinpoints` are not those of config.json"),
        (json!({ "image_grid_pinpoints": null }), "`image_grid_pinpoints` are not those of config.json"),
        (json!({ "image_grid_pinpoints": [[32, 65]] }), "in whole tiles of 32 pixels"),
        (json!({ "image_grid_pinpoints": [[32]] }), "in whole tiles of 32 pixels"),
        (json!({ "image_grid_pinpoints": 7 }), "must be a list"),
        (json!({ "image_grid_pinpoints": [] }), "has 0 sizes"),
        (json!({ "do_pad": 1 }), "`do_pad`"),
        (json!({ "image_std": [0, 1, 1] }), "`image_std`"),
        (json!({ "resample": 5 }), "`resample`"),
    ] {
        let mut settings = sound.clone();
        settings.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let error = processor(NEXT, &json!({}), &settings).expect_err("refused");
        let message = error.to_string();
        assert!(error.code() == "model-file" && message.contains(part), "{settings}: {message}");
        assert!(message.contains("preprocessor_config.json"), "{message}");
    }
    let other = json!({ "image_processor_type": "CLIPImageProcessor" });
    let error = processor(NEXT, &json!({}), &other).expect_err("refused");
    assert!(error.code() == "unsupported-model" && error.to_string().contains("CLIPImageProcessor"), "{error}");
}

#[test]
fn configurations_that_make_no_grid_are_named() {
    let tower = |kind: &str| json!({ "model_type": kind, "hidden_size": 32, "num_attention_heads": 2, "image_size": 32, "patch_size": 8 });
    for (change, code, part) in [
        (json!({ "image_grid_pinpoints": [[32, 40]] }), "model-file", "in whole tiles of 32 pixels, found"),
        (json!({ "image_grid_pinpoints": null }), "model-file", "the usual ones are no whole tiles of 32 pixels"),
        (json!({ "image_grid_pinpoints": [[32 * 4097, 32]] }), "model-file", "into 4097 tiles, over the limit of 4096"),
        (
            json!({ "vision_feature_select_strategy": "full" }),
            "model-file",
            "the class token of a CLIP tower has no place",
        ),
        (json!({ "vision_config": tower("siglip_vision_model") }), "model-file", "a SigLIP, has none"),
        (
            json!({ "vision_config": tower("pixtral") }),
            "unsupported-model",
            "`clip_vision_model`, `siglip_vision_model`",
        ),
        (json!({ "vision_feature_layer": 4 }), "model-file", "`vision_feature_layer` 4"),
    ] {
        let error = processor(NEXT, &change, &json!({})).expect_err("refused");
        assert!(error.code() == code && error.to_string().contains(part), "{change}: {error}");
    }
}
