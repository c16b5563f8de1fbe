//! The JSON of the engine's requests.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use prefixkv_core::wire::{ModelRequest, OPS, Request, SourceText};
use serde_json::{Value, json};

use crate::folder::{means_the_same, written_anew};
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "request",
    reads: "the JSON of every operation of an engine",
    kind: Kind::Json,
    memory: 64 << 20,
    short: 4000,
    words,
    seeds,
    run,
};

/// The operations and their fields by the table of the engine, and what lies in the fields.
fn words() -> &'static [&'static str] {
    static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let inner = ["op", "method", "keep", "role", "user", "content", "type", "image", "index"];
        let fields: BTreeSet<&str> = OPS.iter().flat_map(|op| (op.fields)()).collect();
        OPS.iter().map(|op| op.name).chain(fields).chain(inner).collect()
    });
    &WORDS
}

/// A name that no session has; the target `engine` puts a real one in its place.
pub const SESSION: &str = "00000000000000000000000000000000";

/// Requests of every kind, valid for two images or none.
pub fn requests() -> Vec<Value> {
    let parts = json!([{ "type": "image", "index": 0 }, { "type": "text", "text": "What is it?" }]);
    let messages = json!([{ "role": "user", "content": parts }]);
    let turns = json!([{ "role": "system", "content": "Be short." }, { "role": "user", "content": "Hello" },
        { "role": "assistant", "content": "Hi" }, { "role": "user", "content": [{ "type": "text", "text": "And?" }] }]);
    vec![
        json!({ "op": "generate", "messages": messages, "maxTokens": 4, "cache": { "method": "prefixkv", "keep": 0.5 } }),
        json!({ "op": "generate", "prompt": "USER: Hello ASSISTANT:", "maxTokens": 3, "temperature": 0.7, "topK": 5,
            "topP": 0.9, "minP": 0.05, "repetitionPenalty": 1.1, "seed": 7, "stop": ["x", "\n"], "ignoreEos": true }),
        json!({ "op": "generate", "messages": turns, "maxTokens": 2, "cache": { "method": "h2o", "keep": { "tokens": 9 } } }),
        json!({ "op": "score", "messages": messages, "answer": "A red circle.", "kept": true,
            "cache": { "method": "streaming", "keep": { "bytes": "64KiB" } } }),
        json!({ "op": "score", "messages": messages, "answer": "A red circle.", "kl": true,
            "cache": { "method": "knorm", "keep": 0.5 } }),
        json!({ "op": "trace", "messages": messages, "maxTokens": 3, "cache": { "method": "prefixkv", "keep": 0.5 } }),
        json!({ "op": "distances", "prompts": [{ "prompt": "a" }, { "messages": messages }], "variant": "official" }),
        json!({ "op": "sensitivity", "prompt": "a", "cache": { "method": "kvtuner" }, "pairs": [[8, 4], [2, 16]] }),
        json!({ "op": "channels", "prompts": [{ "prompt": "a" }], "group": 16, "sinks": 5 }),
        json!({ "op": "codebooks", "prompts": [{ "prompt": "a" }], "bits": 4, "outliers": 0.01 }),
        json!({ "op": "directions", "prompts": [{ "prompt": "a" }], "init": "asvd", "alpha": 0.5, "heads": "joint", "most": 0.5 }),
        json!({ "op": "directions", "prompts": [{ "prompt": "a" }], "init": "covariance", "alpha": 0.5, "heads": "each", "span": "pair",
            "most": 0.1 }),
        json!({ "op": "similarity", "prompt": "a", "cache": { "method": "kvsharer", "sources": { "6": 2 } } }),
        json!({ "op": "profile", "messages": messages, "keeps": [0.25, 0.5], "cache": { "method": "prefixkv", "keep": 0.5 } }),
        json!({ "op": "open-session", "cache": { "method": "snapkv", "keep": 0.5 } }),
        json!({ "op": "turn", "session": SESSION, "messages": messages, "maxTokens": 2 }),
        json!({ "op": "fork-session", "session": SESSION }),
        json!({ "op": "close-session", "session": SESSION }),
        json!({ "op": "prefill", "messages": messages, "cache": { "method": "knorm", "keep": 0.5 } }),
        json!({ "op": "ask", "prefix": SESSION, "question": "And?", "maxTokens": 2 }),
        json!({ "op": "save-prefix", "prefix": SESSION, "path": "/none/a.prefix" }),
        json!({ "op": "restore-prefix", "path": "/none/a.prefix" }),
        json!({ "op": "close-prefix", "prefix": SESSION }),
        json!({ "op": "memory" }),
        json!({ "op": "tokenize", "text": "Hello, w\u{f6}rld", "addSpecialTokens": false }),
        json!({ "op": "detokenize", "tokens": [1, 2, 300, 4], "skipSpecialTokens": true }),
    ]
}

fn seeds() -> Vec<Vec<u8>> {
    requests().iter().map(|request| request.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(data) else { return "not UTF-8".into() };
    let mut kinds = String::new();
    for images in 0..2 {
        let read = Request::parse(text, images);
        let kind = outcome(&read, &["option", "prompt", "calibration"]);
        // Written anew, a request means the same.
        if let Some(written) = written_anew(text) {
            means_the_same(&read, &Request::parse(&written, images));
        }
        if let Ok(Request::Model(request)) = &read
            && let ModelRequest::Generate(request) = &**request
        {
            assert!(request.max_tokens.is_none_or(|tokens| (1..=1_000_000).contains(&tokens)));
            if let SourceText::Messages(messages) = &request.source.text {
                assert!(!messages.is_empty());
            }
        }
        kinds.push_str(&kind);
    }
    kinds
}
