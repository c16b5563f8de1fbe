use serde_json::{Value, json};

use super::super::fixtures::{llama, llama_json, load, tiny_llava};
use super::*;

#[test]
fn tiny_llava_as_transformers() {
    let tokenizer = tiny_llava();
    for (text, tokens, decoded) in [
        (
            "<s>USER: <image>\nWhat color is the circle? ASSISTANT:",
            vec![1, 452, 30, 225, 4, 203, 346, 444, 272, 264, 381, 35, 280, 30],
            "USER: \nWhat color is the circle? ASSISTANT:",
        ),
        (
            "A red circle \u{e9}\u{4e2d}\u{1f600}  x\n\n<image></s>",
            vec![37, 413, 381, 225, 132, 107, 165, 121, 260, 177, 258, 251, 227, 225, 225, 92, 203, 203, 4, 2],
            "A red circle \u{e9}\u{4e2d}\u{1f600}  x\n\n",
        ),
        ("\t\0 'll", vec![202, 193, 225, 11, 296], "\t\0 'll"),
    ] {
        assert_eq!(tokenizer.encode(text, false).unwrap(), tokens);
        assert_eq!(tokenizer.decode(&tokens, true).unwrap(), decoded);
    }
    assert_eq!(tokenizer.bos(), Some("<s>"));
    assert_eq!((tokenizer.eos(), tokenizer.eos_id()), (Some("</s>"), Some(2)));
    assert_eq!(tokenizer.vocab_size(), 718);
    assert_eq!(tokenizer.token_id("<image>"), Some(4));
    assert_eq!(tokenizer.token(4).as_deref(), Some("<image>"));
    assert_eq!(tokenizer.token(718), None);
}

#[test]
fn bos_is_not_doubled() {
    for tokenizer in [tiny_llava(), llama()] {
        let plain = tokenizer.encode("ab", true).unwrap();
        assert_eq!(plain[0], 1);
        assert_eq!(tokenizer.encode_prompt("ab").unwrap(), plain);
        assert_eq!(tokenizer.encode_prompt("<s>ab").unwrap(), plain);
        assert_eq!(tokenizer.encode("<s>ab", true).unwrap()[..2], [1, 1]);
        assert_eq!(tokenizer.encode_prompt("<s><s>ab").unwrap()[..3], [1, 1, plain[1]]);
        assert_eq!(tokenizer.encode_prompt("").unwrap(), [1]);
    }
    let mut json = llama_json();
    json["post_processor"] = Value::Null;
    assert_eq!(load(&json).encode_prompt("<s><s>").unwrap(), [1, 1]);
}

#[test]
fn truncation_of_the_file_is_off() {
    assert_eq!(llama().encode("a b a b a b a b", true).unwrap().len(), 9);
}

#[test]
fn llama_round_trip() {
    let tokenizer = llama();
    let text = "ab a\n\u{1f600} \u{e9}";
    let tokens = tokenizer.encode(text, true).unwrap();
    assert_eq!(tokenizer.decode(&tokens, true).unwrap(), text);
    assert!(tokenizer.decode(&tokens, false).unwrap().starts_with("<s>"));
    assert_eq!(tokenizer.decode(&[u32::MAX, 5000], true).unwrap(), "");
}

#[test]
fn too_long() {
    let error = tiny_llava().encode(&"a".repeat(MAX_TEXT + 1), true).unwrap_err();
    assert_eq!(error.code(), "prompt");
    assert!(error.to_string().contains("4194305 bytes"), "{error}");
}

#[test]
fn folders_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |code: &str, found: &str| {
        let error = Tokenizer::from_folder(dir.path()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(found), "{error}");
    };
    fails("model-not-found", "has no tokenizer.json");
    std::fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
    fails("model-not-found", "save_pretrained");
    std::fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    fails("model-file", "tokenizer.json");
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    fails("model-file", "tokenizer.json");
    std::fs::write(dir.path().join("tokenizer.json"), llama_json().to_string()).unwrap();
    let bare = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!((bare.bos(), bare.eos(), bare.eos_id()), (None, None, None));
    let map = json!({ "bos_token": "<s>", "eos_token": { "content": "<nowhere>" } });
    std::fs::write(dir.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    let named = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!((named.bos(), named.eos(), named.eos_id()), (Some("<s>"), Some("<nowhere>"), Some(273)));
    std::fs::write(dir.path().join("tokenizer_config.json"), "[").unwrap();
    fails("model-file", "tokenizer_config.json");
    let error = Tokenizer::from_folder(&dir.path().join("absent")).unwrap_err();
    assert!(error.to_string().contains("is not a folder"), "{error}");
}

#[test]
fn can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    drop: Vec<String>,
    files: std::collections::BTreeMap<String, Value>,
    named: std::collections::BTreeMap<String, String>,
    ids: std::collections::BTreeMap<String, u32>,
    special: Vec<String>,
    text: String,
    tokens: Vec<u32>,
    skipped: String,
}

/// `tests/golden/declared.py`: what transformers makes of tokens that other files declare.
#[test]
fn tokens_of_all_files_as_transformers() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let cases: Vec<Case> =
        serde_json::from_str(&std::fs::read_to_string(golden.join("data/declared.json")).unwrap()).unwrap();
    assert!(cases.len() >= 25);
    let base = std::fs::read_to_string(golden.join("fixtures/tokenizers/sentencepiece/tokenizer.json")).unwrap();
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut json: Value = serde_json::from_str(&base).unwrap();
        let added = json["added_tokens"].as_array_mut().unwrap();
        added.retain(|token| !case.drop.iter().any(|dropped| token["content"] == dropped.as_str()));
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        for (name, content) in &case.files {
            std::fs::write(dir.path().join(name), content.to_string()).unwrap();
        }
        let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
        let named: std::collections::BTreeMap<_, _> = tokenizer.named().iter().cloned().collect();
        assert_eq!(named, case.named, "{}", case.name);
        for (token, id) in &case.ids {
            assert_eq!(tokenizer.token_id(token), Some(*id), "{}: {token}", case.name);
        }
        for token in ["<x>", "<y>", "<w>", "<end>", "<a>", "<new>", "<sep>"] {
            assert_eq!(tokenizer.token_id(token).is_some(), case.ids.contains_key(token), "{}: {token}", case.name);
        }
        for token in &case.special {
            assert!(tokenizer.is_special(tokenizer.token_id(token).unwrap()), "{}: {token}", case.name);
        }
        let tokens = tokenizer.encode(&case.text, false).unwrap();
        assert_eq!(tokens, case.tokens, "{}", case.name);
        assert_eq!(tokenizer.decode(&tokens, true).unwrap(), case.skipped, "{}", case.name);
    }
}

fn chat(text: &str) -> Rendered {
    Rendered { text: text.to_owned(), ..Rendered::default() }
}

/// Cutting at added tokens is done anew for conversations, and must come to the same.
#[test]
fn a_conversation_without_marks_is_encoded_as_any_text() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let cases: Value =
        serde_json::from_str(&std::fs::read_to_string(golden.join("data/tokenizers.json")).unwrap()).unwrap();
    let mut tried = 0;
    for case in cases.as_array().unwrap() {
        let folder = golden.join("../..").join(case["tokenizer"].as_str().unwrap());
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        for case in case["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let encoded = tokenizer.encode_chat(&chat(text), None, SpecialTokens::Parse).unwrap();
            assert_eq!(encoded.tokens, tokenizer.encode_prompt(text).unwrap(), "{folder:?}: {text:?}");
            tried += 1;
        }
    }
    assert!(tried > 100);
}

#[test]
fn images_are_where_they_are_and_texts_are_texts() {
    for tokenizer in [tiny_llava(), llama()] {
        let image = tokenizer.token_id("<image>").unwrap();
        let text = "USER: <image>\na <image> b</s>c";
        let at = |from: usize| text[from..].find("<image>").map(|at| from + at).unwrap();
        let (first, second) = (at(0), at(at(0) + 1));
        let both = tokenizer.encode_prompt(text).unwrap();
        assert_eq!(both.iter().filter(|token| **token == image).count(), 2);
        for (place, other) in [(first, second), (second, first)] {
            let chat = Rendered { pictures: vec![place..place + 7], ..chat(text) };
            let encoded = tokenizer.encode_chat(&chat, Some(image), SpecialTokens::Parse).unwrap();
            let [picture] = encoded.pictures[..] else { panic!("{encoded:?}") };
            assert_eq!(encoded.tokens[picture], image);
            assert_eq!(encoded.tokens.iter().filter(|token| **token == image).count(), 1);
            assert_eq!(picture < both.len() / 2, place == first);
            // It reads back as it was written.
            let plain = tokenizer.decode(&encoded.tokens, true).unwrap();
            assert_eq!(plain.matches("<image>").count(), 1, "{plain}");
            let _ = other;
        }
        let all = Rendered { pictures: vec![first..first + 7, second..second + 7], ..chat(text) };
        let encoded = tokenizer.encode_chat(&all, Some(image), SpecialTokens::Parse).unwrap();
        assert_eq!((encoded.tokens, encoded.pictures.len()), (both, 2));
    }
}

#[test]
fn special_tokens_in_messages_can_stay_text() {
    let tokenizer = tiny_llava();
    let eos = tokenizer.eos_id().unwrap();
    let count = |tokens: &[u32]| tokens.iter().filter(|token| **token == eos).count();
    let text = "USER: a</s>b</s>USER: c";
    let said = vec![6..12];
    let chat = Rendered { said, ..chat(text) };
    assert_eq!(count(&tokenizer.encode_chat(&chat, None, SpecialTokens::Parse).unwrap().tokens), 2);
    let kept = tokenizer.encode_chat(&chat, None, SpecialTokens::Text).unwrap().tokens;
    assert_eq!(count(&kept), 1);
    assert_eq!(tokenizer.decode(&kept, true).unwrap(), "USER: a</s>bUSER: c");
    // Half of it is enough.
    let half = Rendered { said: vec![8..9], ..self::chat(text) };
    assert_eq!(count(&tokenizer.encode_chat(&half, None, SpecialTokens::Text).unwrap().tokens), 1);
}

/// Parts of a tokenizer.json that panic or take all memory.
#[test]
fn hostile_tokenizers_are_refused() {
    let replace = |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
    let refused = |change: &dyn Fn(&mut Value), found: &str| {
        let mut json = llama_json();
        change(&mut json);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let error =
            Tokenizer::from_folder(dir.path()).and_then(|tokenizer| tokenizer.encode("a b c", true)).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.code(), "model-file", "{text}");
        assert!(text.contains("tokenizer.json") && text.contains(found), "{text}");
        assert!(!text.contains(".rs") && !text.contains("registry"), "{text}");
    };
    for part in ["normalizer", "decoder"] {
        let list = if part == "normalizer" { "normalizers" } else { "decoders" };
        let sequence = |steps: Vec<Value>| json!({ "type": "Sequence", list: steps });
        refused(&|json| json[part] = replace(json!({ "String": "" }), "x"), "empty text");
        refused(&|json| json[part] = replace(json!({ "String": "a" }), &"b".repeat(100_000)), "times as long");
        refused(&|json| json[part] = replace(json!({ "Regex": "" }), &"b".repeat(1000)), "times as long");
        refused(&|json| json[part] = sequence(vec![replace(json!({ "String": "a" }), "aaaa"); 9]), "times as long");
    }
    refused(&|json| json["normalizer"] = json!({ "type": "Prepend", "prepend": "a".repeat(1 << 20) }), "times as long");
    let broken = json!({ "type": "Precompiled", "precompiled_charsmap": "/////w==" });
    refused(&|json| json["normalizer"] = broken.clone(), "");
    refused(&|json| json["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": "AAAAAA==" }), "");
}
