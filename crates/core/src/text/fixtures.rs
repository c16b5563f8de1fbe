//! Tokenizers for tests.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Tokenizer;

pub(super) fn tiny_llava_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-llava")
}

/// Byte-level BPE.
pub(super) fn tiny_llava() -> Tokenizer {
    Tokenizer::from_folder(&tiny_llava_dir()).unwrap()
}

/// Ids: 0 `<unk>`, 1 `<s>`, 2 `</s>`, 3..259 the bytes, then [`LLAMA_PIECES`], then `<image>`.
pub(super) const LLAMA_BYTE_0: u32 = 3;
pub(super) const LLAMA_PIECES: [&str; 13] = [
    "\u{2581}",
    "a",
    "b",
    "c",
    "d",
    "\u{2581}a",
    "\u{2581}b",
    "ab",
    "\u{2581}ab",
    "\u{e9}",
    "\u{4e2d}",
    "\u{fffd}",
    ":",
];

/// The layout of Llama's and Vicuna's converted tokenizer.json.
pub(super) fn llama_json() -> Value {
    let mut vocab = serde_json::Map::new();
    for (id, token) in ["<unk>", "<s>", "</s>"].into_iter().enumerate() {
        vocab.insert(token.into(), id.into());
    }
    for byte in 0..=255u8 {
        vocab.insert(format!("<0x{byte:02X}>"), (LLAMA_BYTE_0 + u32::from(byte)).into());
    }
    for piece in LLAMA_PIECES {
        let id = vocab.len();
        vocab.insert(piece.into(), id.into());
    }
    let added = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0 },
        "padding": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>"), added(vocab.len(), "<image>")],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "\u{2581}" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" } ] },
        "pre_tokenizer": null,
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } } },
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 } ] },
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": [["\u{2581}", "a"], ["\u{2581}", "b"], ["a", "b"], ["\u{2581}a", "b"]] },
    })
}

/// The same vocabulary with spaces handled by Metaspace, as newer conversions do.
pub(super) fn metaspace_json(with_byte_fallback: bool) -> Value {
    let mut json = llama_json();
    let metaspace =
        json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false });
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] = metaspace.clone();
    json["decoder"] = if with_byte_fallback {
        json!({ "type": "Sequence", "decoders": [{ "type": "ByteFallback" }, metaspace] })
    } else {
        metaspace
    };
    json
}

pub(super) fn load(tokenizer: &Value) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({ "bos_token": { "content": "<s>", "lstrip": false }, "eos_token": "</s>" });
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_folder(dir.path()).unwrap()
}

pub(super) fn llama() -> Tokenizer {
    load(&llama_json())
}
