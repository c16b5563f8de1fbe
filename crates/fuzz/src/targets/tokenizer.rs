//! tokenizer.json, tokenizer_config.json and special_tokens_map.json.

use prefixkv_core::text::Tokenizer;
use serde_json::json;

use crate::folder::{files, object, read_json, scratch, write};
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "tokenizer",
    reads: "tokenizer.json, tokenizer_config.json and special_tokens_map.json, and what they make of texts",
    kind: Kind::Json,
    memory: 256 << 20,
    short: 300,
    words: || {
        &[
            "type",
            "BPE",
            "WordPiece",
            "Unigram",
            "WordLevel",
            "vocab",
            "merges",
            "unk_token",
            "unk_id",
            "byte_fallback",
            "fuse_unk",
            "dropout",
            "Sequence",
            "Metaspace",
            "ByteLevel",
            "Replace",
            "Split",
            "Prepend",
            "Strip",
            "Fuse",
            "ByteFallback",
            "Precompiled",
            "precompiled_charsmap",
            "AAAA",
            "pattern",
            "Regex",
            "String",
            "(a+)+b",
            "(?=a)\\1",
            "content",
            "behavior",
            "Isolated",
            "invert",
            "TemplateProcessing",
            "Digits",
            "NFKC",
            "Lowercase",
            "BertNormalizer",
            "BertPreTokenizer",
            "Whitespace",
            "Punctuation",
            "CharDelimiterSplit",
            "delimiter",
            "UnicodeScripts",
            "CTC",
            "BPEDecoder",
            "WordPiece",
            "prefix",
            "cleanup",
            "added_tokens",
            "id",
            "special",
            "truncation",
            "padding",
            "max_length",
            "stride",
            "single",
            "pair",
            "special_tokens",
            "ids",
            "tokens",
            "start",
            "stop",
            "continuing_subword_prefix",
            "max_input_chars_per_word",
            "FixedLength",
            "length",
            "replacement",
            "prepend_scheme",
            "split",
            "always",
        ]
    },
    seeds,
    run,
};

const NAMES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = ["byte-level", "metaspace", "sentencepiece"]
        .iter()
        .map(|name| files(&format!("tests/golden/fixtures/tokenizers/{name}"), &NAMES))
        .collect();
    let mut unigram = read_json("tests/golden/fixtures/tokenizers/metaspace/tokenizer.json");
    unigram["model"] = json!({ "type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["a", -1.5], ["b", -2.0], ["ab", -0.5], ["\u{2581}", -3.0]] });
    seeds.push(json!({ "tokenizer.json": unigram }));
    let small = |model: serde_json::Value| {
        json!({ "tokenizer.json": { "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": { "type": "Sequence", "normalizers": [{ "type": "NFKC" }, { "type": "Strip", "strip_left": true, "strip_right": true }] },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [{ "type": "Split", "pattern": { "Regex": "\\s+|a" }, "behavior": "Isolated", "invert": false }, { "type": "Digits", "individual_digits": true }] },
            "post_processor": { "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "a", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }], "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }], "special_tokens": { "a": { "id": "a", "ids": [0], "tokens": ["a"] } } },
            "decoder": { "type": "Sequence", "decoders": [{ "type": "Replace", "pattern": { "String": "_" }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 }] },
            "model": model } })
    };
    seeds.push(small(json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 10, "vocab": { "[UNK]": 0, "a": 1, "##b": 2 } })));
    seeds.push(small(json!({ "type": "WordLevel", "unk_token": "u", "vocab": { "u": 0, "a": 1, "b": 2 } })));
    seeds.push(small(json!({ "type": "BPE", "dropout": null, "unk_token": "u", "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": true, "byte_fallback": true, "ignore_merges": true, "vocab": { "u": 0, "a": 1, "b": 2, "ab": 3, "<0x41>": 4 }, "merges": [["a", "b"]] })));
    seeds.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Some(files) = object(data) else { return "no files".into() };
    let dir = scratch(&[]);
    write(dir.path(), &files, &NAMES);
    let read = Tokenizer::from_folder(dir.path());
    let Ok(tokenizer) = &read else { return outcome(&read, &["model-file", "model-not-found"]) };
    let mut kind = String::from("ok");
    for text in ["", "ab c\u{e9}\u{4e2d}\u{1f600}\u{301}  <image>\n</s> aaaaaaaaaaaaaaaaaaaaaaaaaaaa 123"] {
        let tokens = tokenizer.encode_prompt(text);
        kind.push_str(&outcome(&tokens, &["prompt", "model-file"]));
        let tokens = tokens.unwrap_or_default();
        kind.push_str(&outcome(&tokenizer.decode(&tokens, true), &["model-file"]));
    }
    kind.push_str(&outcome(&tokenizer.decode(&[0, 5, 3, 4, 1, u32::MAX], false), &["model-file"]));
    kind
}
