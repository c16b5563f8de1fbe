//! How much longer a tokenizer can make a text. Each step of a normalizer or decoder that replaces text can multiply its length, so a
//! small file could ask for all memory.

use serde_json::Value;

use super::{Pipeline, longest};

/// Most times as long as it was that a normalizer may make a text.
const MOST: f64 = 256.0;
/// Most bytes of normalized text; the bookkeeping of each takes some thirty.
const NORMALIZED: f64 = (16 << 20) as f64;
/// Most bytes that a decoder may come to by its rules, for the tokens of one call.
const DECODED: f64 = (256 << 20) as f64;

pub(super) struct Growth {
    normalizer: f64,
    decoder: f64,
    /// Bytes of the longest token.
    longest: usize,
}

impl Growth {
    pub(super) fn of(tokenizer: &Pipeline) -> Result<Growth, String> {
        let json = |part: Option<Result<Value, serde_json::Error>>| part.transpose().map(Option::unwrap_or_default);
        let normalizer =
            json(tokenizer.get_normalizer().map(serde_json::to_value)).map_err(|error| error.to_string())?;
        let decoder = json(tokenizer.get_decoder().map(serde_json::to_value)).map_err(|error| error.to_string())?;
        let (normalizer, decoder) = (factor(&normalizer, "normalizers")?, factor(&decoder, "decoders")?);
        for (name, factor) in [("normalizer", normalizer), ("decoder", decoder)] {
            if factor > MOST {
                return Err(format!(
                    "its {name} can make a text {factor:.0} times as long; at most {MOST} times is allowed"
                ));
            }
        }
        Ok(Growth { normalizer, decoder, longest: longest(tokenizer) })
    }

    /// Longest text that may be encoded, at most `most` bytes.
    pub(super) fn most_text(&self, most: usize) -> usize {
        most.min((NORMALIZED / self.normalizer) as usize)
    }

    /// Refuses tokens that could become too much text; `length` gives the length of one.
    pub(super) fn check_decode(&self, tokens: &[u32], length: impl Fn(u32) -> usize) -> Result<(), String> {
        if tokens.len() as f64 * self.longest as f64 * self.decoder <= DECODED {
            return Ok(());
        }
        let bytes: usize = tokens.iter().map(|token| length(*token)).sum();
        match bytes as f64 * self.decoder > DECODED {
            true => Err(format!("its decoder could make more than {} MiB of {} tokens", 256, tokens.len())),
            false => Ok(()),
        }
    }
}

/// How many times as long a text can become.
fn factor(part: &Value, of_sequence: &str) -> Result<f64, String> {
    let length = |name: &str| part[name].as_str().map_or(0, str::len) as f64;
    Ok(match part["type"].as_str() {
        Some("Sequence") => {
            let mut product = 1.0;
            for step in part[of_sequence].as_array().into_iter().flatten() {
                product *= factor(step, of_sequence)?;
            }
            product
        }
        Some("Replace") => match part["pattern"]["String"].as_str() {
            Some("") => return Err("it replaces an empty text, which is everywhere".to_owned()),
            Some(pattern) => (length("content") / pattern.len() as f64).max(1.0),
            // A regular expression may match nothing, between any two characters.
            None => 1.0 + length("content"),
        },
        // Once for each piece of text between two added tokens.
        Some("Prepend") if length("prepend") <= 16.0 => 1.0,
        Some("Prepend") => 1.0 + length("prepend"),
        Some("Precompiled") => longest_replacement(part["precompiled_charsmap"].as_str().unwrap_or_default()),
        // A byte becomes a character of two bytes at most.
        Some("ByteLevel") if of_sequence == "normalizers" => 2.0,
        Some("NFKC" | "NFKD") => 12.0,
        _ => 1.0,
    })
}

/// SentencePiece's table of characters: a trie whose size comes first, then texts that end with a zero byte. Real ones replace a
/// character of 3 bytes by 33 at most.
fn longest_replacement(table: &str) -> f64 {
    let bytes = decoded(table);
    let size = bytes.first_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let texts = bytes.get(4 + size..).unwrap_or(&bytes);
    let longest = texts.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0);
    if longest <= 64 { 4.0 } else { longest as f64 }
}

/// Base64 without its checks, which `tokenizers` has made.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}
