//! Targets, and the rules that every result must meet.

use prefixkv_core::{Error, Result};
use serde_json::Value;

/// How inputs are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bytes,
    /// One byte, then an image file.
    Image,
    Json,
    Safetensors,
}

/// Something that reads input from outside.
pub struct Target {
    pub name: &'static str,
    /// Its input, in words.
    pub reads: &'static str,
    pub kind: Kind,
    /// Most bytes that one input may make it hold.
    pub memory: usize,
    /// Inputs of the short run that tests make.
    pub short: u64,
    /// Names and values that inputs are made of.
    pub words: fn() -> &'static [&'static str],
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input, panics when what it sees is wrong, and says how it ended: inputs that end in a new way are kept.
    pub run: fn(&[u8]) -> String,
}

/// Checks what every result promises, and says how it ended. The codes that may come are listed.
pub fn outcome<T>(result: &Result<T>, codes: &[&str]) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => refusal(&error.to_json(), codes),
    }
}

/// The same of an error as it crosses a door.
pub fn refusal(error: &Value, codes: &[&str]) -> String {
    let code = error["code"].as_str().unwrap_or_default();
    let message = error["message"].as_str().unwrap_or_default();
    assert!(Error::CODES.contains(&code), "unknown code in {error}");
    assert!(codes.contains(&code), "unexpected code in {error}");
    assert!(!message.trim().is_empty(), "no message in {error}");
    assert!(error["details"].is_object(), "no details in {error}");
    format!("{code} {}", shape_of(message))
}

/// A message without what the input has put into it: numbers, quoted names, and all after some dozen words.
fn shape_of(message: &str) -> String {
    let mut shape = String::new();
    let mut quoted = false;
    for c in message.chars().take(160) {
        if matches!(c, '`' | '"') {
            quoted = !quoted;
        } else if !quoted && (c.is_ascii_alphabetic() || c == ' ') {
            shape.push(c);
        }
    }
    shape.truncate(80);
    shape
}
