use serde_json::json;

use super::*;

/// A folder with these files.
fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, json) in files {
        std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    }
    dir
}

#[test]
fn a_bad_end_token_names_its_file_and_key() {
    let plain = json!({ "model_type": "llama" });
    for bad in [json!("2"), json!(-1), json!(2.5), json!(true), json!([2, "3"]), json!({ "id": 2 }), json!(1u64 << 40)]
    {
        for (files, named, key) in [
            (
                vec![
                    ("config.json", json!({ "eos_token_id": 2 })),
                    ("generation_config.json", json!({ "eos_token_id": bad })),
                ],
                "generation_config.json",
                "`eos_token_id`",
            ),
            (
                vec![("config.json", json!({ "eos_token_id": bad })), ("generation_config.json", json!({}))],
                "config.json",
                "`eos_token_id`",
            ),
            (vec![("config.json", json!({ "eos_token_id": bad }))], "config.json", "`eos_token_id`"),
            (
                vec![("config.json", json!({ "text_config": { "eos_token_id": bad } }))],
                "config.json",
                "`text_config.eos_token_id`",
            ),
        ] {
            let dir = folder(&files);
            let error = ConfigFile::read(dir.path()).unwrap().eos_tokens(None).unwrap_err();
            let Error::ModelFile { path, reason } = error else { panic!("{error}") };
            assert_eq!(path, dir.path().join(named), "{reason}");
            assert!(reason.contains(key), "{reason}");
        }
    }
    // Fields that are never looked at are no fault.
    let dir = folder(&[
        ("config.json", json!({ "eos_token_id": "x" })),
        ("generation_config.json", json!({ "eos_token_id": [7, 8] })),
    ]);
    assert_eq!(ConfigFile::read(dir.path()).unwrap().eos_tokens(None).unwrap(), [7, 8]);
    for broken in ["{", "[]", ""] {
        let dir = folder(&[("config.json", plain.clone())]);
        std::fs::write(dir.path().join("generation_config.json"), broken).unwrap();
        let error = ConfigFile::read(dir.path()).unwrap().eos_tokens(None).unwrap_err();
        assert!(error.code() == "model-file" && error.to_string().contains("generation_config.json"), "{error}");
    }
}

#[test]
fn folders_that_hold_another_format_say_so() {
    let says = |path: &Path, code: &str, parts: &[&str]| {
        let error = ConfigFile::read(path).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)) && !message.contains("pickle"), "{message}");
    };
    let adapter = folder(&[("adapter_config.json", json!({}))]);
    says(adapter.path(), "unsupported-model", &["adapter", "as `adapter`"]);
    says(folder(&[]).path(), "model-not-found", &["config.json"]);
    let file = folder(&[("config.json", json!({}))]);
    says(&file.path().join("config.json"), "model-not-found", &["is not a folder"]);
}

#[test]
fn one_spelling_is_left_of_two() {
    for (object, left) in [
        (json!({ "new": 1, "old": 2 }), Some(1)),
        (json!({ "new": null, "old": 2 }), Some(2)),
        (json!({ "new": 1, "old": null }), Some(1)),
        (json!({ "old": 2 }), Some(2)),
        (json!({ "new": 0 }), Some(0)),
        (json!({ "new": null }), None),
        (json!({}), None),
    ] {
        for name in ["new", "old"] {
            let mut changed = object.as_object().unwrap().clone();
            one_spelling(&mut changed, name, "new", "old");
            assert_eq!(changed.get(name).and_then(Value::as_i64), left, "{object}");
            assert!(changed.len() == usize::from(left.is_some()));
        }
    }
}

#[test]
fn a_name_of_its_own_goes_by_the_type() {
    for (names, kind, expected) in [
        (json!(["VlsiForConditionalGeneration"]), "qwen2_vl", "Qwen2VLForConditionalGeneration"),
        (json!(["MyLlamaForCausalLM"]), "llama", "LlamaForCausalLM"),
        (json!(["BakLlavaForConditionalGeneration"]), "llava", "LlavaForConditionalGeneration"),
        // A class that is known says more than the type.
        (json!(["Qwen3ForCausalLM"]), "llama", "Qwen3ForCausalLM"),
        // These have no output layer of a language model.
        (json!(["LlamaForSequenceClassification"]), "llama", "LlamaForSequenceClassification"),
        (json!(["LlamaModel"]), "llama", "LlamaModel"),
        (json!(["OtherForCausalLM"]), "other", "OtherForCausalLM"),
        (json!(null), "vipllava", "VipLlavaForConditionalGeneration"),
        (json!([]), "mistral", "MistralForCausalLM"),
    ] {
        let file = golden::file(json!({ "architectures": names, "model_type": kind }));
        assert_eq!(file.architecture().unwrap(), expected, "{names}");
    }
    assert!(golden::file(json!({ "architectures": null, "model_type": "other" })).architecture().is_err());
}
