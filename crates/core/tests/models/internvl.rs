//! InternVL beyond what `parity.rs` compares: after an eviction, in both layouts of files, and pictures of many sizes.

use std::path::Path;

use prefixkv_core::method::Method;
use prefixkv_core::model::{Asked, LoadOptions, Model, Vision};
use prefixkv_core::sample::argmax;
use serde_json::{Value, json};

use crate::folder::{load, root};
use crate::golden::{Read, read};

const FAMILIES: [&str; 2] = ["internvl3", "internvl3.5"];

fn fixture(name: &str) -> Model {
    load(&root().join("tests/golden/fixtures").join(name))
}

fn golden(name: &str) -> Value {
    let path = root().join("tests/golden/data").join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON")
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn numbers(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

/// The positions of what stays are those that it had, in `evicted` of the goldens.
#[test]
fn what_stays_after_an_eviction_answers_as_transformers_does() {
    for family in FAMILIES {
        let (model, golden) = (fixture(family), golden(family));
        let (evicted, cases) = (&golden["evicted"], golden["cases"].as_array().expect("cases"));
        let case = cases.iter().find(|case| case["name"] == evicted["case"]).expect("its case");
        let Read { prompt, features, .. } =
            read(&model, &texts(&case["images"]), case["text"].as_str().expect("a text"));
        let cache = json!({ "method": "streaming", "keep": evicted["keep"], "decode": "none" });
        let method = Method::parse(&cache).expect("a method");
        let mut sequence = model.new_sequence_with(method, false).expect("no cap");
        let mut row = model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
        let kept = numbers(&evicted["kept"]);
        assert!(sequence.kept().iter().all(|lanes| lanes.iter().all(|lane| lane.positions == kept)), "{family}");
        for want in numbers(&evicted["tokens"]) {
            assert_eq!(argmax(&row) as u32, want, "{family}");
            row = model.decode(want, &mut sequence).expect("decodes");
        }
    }
}

/// The renamed checkpoint, whose queries, keys and values are one tensor and whose tokenizer has no tokenizer.json, is the same model.
#[test]
fn both_layouts_are_the_same_model() {
    let [own, original] = ["internvl3.5", "internvl-original"].map(fixture);
    assert_eq!((own.placeholder(), own.eos_tokens()), (original.placeholder(), original.eos_tokens()));
    assert_eq!(own.info().vision_bytes, original.info().vision_bytes);
    assert_eq!(original.info().architecture, "InternVLChatModel");
    let image = ["tests/golden/fixtures/images/photo-97x211.png".to_owned()];
    let text = "<|im_start|>user\n<IMG_CONTEXT>\nna\u{ef}ve caf\u{e9} 12 3?<|im_end|>\n<|im_start|>assistant\n";
    let [own, original] = [own, original].map(|model| {
        let Read { prompt, features, .. } = read(&model, &image, text);
        let mut sequence = model.new_sequence().expect("no cap");
        let row = model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
        (prompt, row)
    });
    assert_eq!(own, original);
}

fn changed(name: &str, files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    let from = root().join("tests/golden/fixtures").join(name);
    for file in std::fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file").path();
        std::fs::copy(&file, folder.path().join(file.file_name().expect("a name"))).expect("copied");
    }
    for (name, change) in files {
        let path = folder.path().join(name);
        let mut object: Value = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
        object.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        std::fs::write(path, object.to_string()).expect("written");
    }
    folder
}

fn positions(folder: &Path, width: usize, height: usize) -> usize {
    let asked = Asked { width, height, timing: None };
    let info = Model::inspect(folder, &Vision::Beside, Some(&asked)).expect("inspects");
    info.image.expect("takes images").picture.expect("a size").tokens
}

/// The keys of config.json that say how many tiles there are.
#[test]
fn the_original_layout_cuts_as_its_configuration_says() {
    for (change, tiles) in [
        (json!({}), 13),
        (json!({ "use_thumbnail": false }), 12),
        (json!({ "max_dynamic_patch": 2 }), 1),
        (json!({ "max_dynamic_patch": 6, "min_dynamic_patch": 5 }), 7),
        (json!({ "dynamic_image_size": false }), 1),
    ] {
        let folder = changed("internvl-original", &[("config.json", change.clone())]);
        assert_eq!(positions(folder.path(), 640, 480), 9 * tiles, "{change}");
    }
}

/// The key that a tower of two layers has its features taken behind.
#[test]
fn a_layer_before_the_last_may_be_named() {
    let image = ["tests/golden/fixtures/images/photo-97x211.png".to_owned()];
    let rows = |name: &str, key: &str, layer: i64| {
        let folder = changed(name, &[("config.json", json!({ key: layer }))]);
        let model = load(folder.path());
        let Read { features, .. } = read(&model, &image, "<IMG_CONTEXT>");
        features[0].rows().to_vec().expect("rows")
    };
    let own = |layer| rows("internvl3.5", "vision_feature_layer", layer);
    assert_eq!(own(-2), own(1));
    assert_eq!(own(-1), own(2));
    assert_ne!(own(-1), own(-2));
    assert_eq!(rows("internvl-original", "select_layer", -2), own(-2));
    // The norm behind the last layer belongs to that which is called the last.
    let normed = |layer| rows("internvl3", "vision_feature_layer", layer);
    assert_ne!(normed(-1), normed(2));
    assert_eq!(normed(1), normed(-2));
}

/// Files without a tokenizer.json of another class say how to make one.
#[test]
fn slow_tokenizers_of_other_classes_are_refused_with_the_cure() {
    let folder =
        changed("internvl-original", &[("tokenizer_config.json", json!({ "tokenizer_class": "InternLM2Tokenizer" }))]);
    let error = Model::load(&LoadOptions::new(folder.path()), &mut |_| Ok(())).err().expect("refused");
    assert!(error.code() == "model-not-found" && error.to_string().contains("save_pretrained"), "{error}");
    for (file, text, part) in [
        ("merges.txt", "#version: 0.2\na b c\n", "line 2"),
        ("merges.txt", "ab\n", "line 1"),
        ("vocab.json", "[]", "vocab.json"),
        ("vocab.json", "{\"a\": -1}", "must have a token id"),
        ("vocab.json", "{\"a\": 0}", "vocab.json"),
    ] {
        let folder = changed("internvl-original", &[]);
        std::fs::write(folder.path().join(file), text).expect("written");
        let error = Model::load(&LoadOptions::new(folder.path()), &mut |_| Ok(())).err().expect("refused");
        assert!(error.code() == "model-file" && error.to_string().contains(part), "{file} {text:?}: {error}");
    }
}
