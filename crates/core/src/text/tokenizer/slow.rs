//! A tokenizer that has no tokenizer.json: vocab.json and merges.txt, written as the tokenizer.json that transformers makes of them.
//!
//! These files do not say how text is split before merges; its class does. Qwen2's is known, which InternVL and Qwen have.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::files::{read_json, read_text, unusable};
use super::declared::{CONFIG, object};
use super::gguf::QWEN2;
use crate::error::{Error, Result};

/// `tokenizer_class` of tokenizer_config.json.
const KNOWN: [&str; 2] = ["Qwen2Tokenizer", "Qwen2TokenizerFast"];

#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    added_tokens: [Value; 0],
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct Bpe<'a> {
    r#type: &'static str,
    vocab: Map<String, Value>,
    merges: Vec<(&'a str, &'a str)>,
}

/// The file that the vocabulary comes from, and the text of a tokenizer.json; None of a folder without the files, or of another class.
///
/// # Errors
/// [`Error::ModelFile`] for files that cannot be used.
pub(super) fn written(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    let config = object(dir, CONFIG)?.unwrap_or_default();
    if !config.get("tokenizer_class").and_then(Value::as_str).is_some_and(|class| KNOWN.contains(&class)) {
        return Ok(None);
    }
    let (path, list) = (dir.join("vocab.json"), dir.join("merges.txt"));
    let (Some(vocab), Some(merges)) = (read_json(&path)?, read_text(&list)?) else { return Ok(None) };
    let Value::Object(vocab) = vocab else { return Err(unusable(&path, "must be a JSON object of tokens and ids")) };
    if let Some((token, id)) = vocab.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id > u64::from(u32::MAX))) {
        return Err(unusable(&path, format!("{token:?} must have a token id, found {id}")));
    }
    let lines = merges.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    let mut pairs = Vec::new();
    for (number, line) in lines {
        match line.trim_end().split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.contains(' ') => pairs.push((left, right)),
            _ => {
                let reason = format!("line {} is {line:?}, where two tokens are expected", number + 1);
                return Err(unusable(&list, reason));
            }
        }
    }
    let bytes = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let split = json!({ "type": "Split", "pattern": { "Regex": QWEN2 }, "behavior": "Isolated", "invert": false });
    let file = File {
        version: "1.0",
        added_tokens: [],
        normalizer: json!({ "type": "NFC" }),
        pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": [split, bytes(false)] }),
        post_processor: Value::Null,
        decoder: bytes(true),
        model: Bpe { r#type: "BPE", vocab, merges: pairs },
    };
    let text = serde_json::to_string(&file).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Some((path, text)))
}
