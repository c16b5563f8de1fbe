//! Other tokenizers: decode a short window of tokens twice, without and with the new ones; the difference is new text.
//!
//! The window begins with a few tokens whose text was emitted before. They keep the decoder from treating the new
//! tokens as the beginning of a text, where Llama's decoder would strip a space.

use super::super::tokenizer::{Decoding, Tokenizer};
use crate::Result;

/// Tokens that may wait for the end of a character when a decoder gives no better sign than a trailing U+FFFD.
const MAX_WAIT: usize = 16;

pub(super) struct Window {
    /// The anchor, then the tokens whose text has not been emitted.
    tokens: Vec<u32>,
    anchor: usize,
    /// The anchor's text. `None`: not decoded yet.
    anchor_text: Option<String>,
}

impl Window {
    pub(super) fn new(tokenizer: &Tokenizer, context: &[u32]) -> Window {
        let mut window = Window { tokens: Vec::new(), anchor: 0, anchor_text: None };
        let mut tail = Vec::new();
        for &token in context.iter().rev() {
            if tokenizer.is_special(token) {
                continue;
            }
            let Some(piece) = tokenizer.token(token) else { continue };
            tail.push(token);
            // The anchor may not begin within a run of bytes that could go on, nor with a text that is stripped away.
            if !in_byte_run(tokenizer, &piece) && !piece.is_empty() && shows_text(tokenizer, &tail) {
                break;
            }
        }
        tail.reverse();
        window.anchor = tail.len();
        window.tokens = tail;
        window
    }

    pub(super) fn push(&mut self, tokenizer: &Tokenizer, token: u32, piece: &str) -> Result<String> {
        self.tokens.push(token);
        if in_byte_run(tokenizer, piece) { Ok(String::new()) } else { self.advance(tokenizer, false) }
    }

    pub(super) fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        if self.tokens.len() == self.anchor { Ok(String::new()) } else { self.advance(tokenizer, true) }
    }

    fn advance(&mut self, tokenizer: &Tokenizer, last: bool) -> Result<String> {
        let anchor_text = match self.anchor_text.take() {
            Some(text) => text,
            None => tokenizer.decode(&self.tokens[..self.anchor], true)?,
        };
        let text = tokenizer.decode(&self.tokens, true)?;
        let waits = tokenizer.decoding() == Decoding::Plain
            && text.ends_with(char::REPLACEMENT_CHARACTER)
            && self.tokens.len() - self.anchor < MAX_WAIT;
        if waits && !last {
            self.anchor_text = Some(anchor_text);
            return Ok(String::new());
        }
        self.shrink(tokenizer)?;
        Ok(text[common_prefix(&anchor_text, &text)..].to_owned())
    }

    /// Keeps the shortest tail that has text as the next anchor.
    fn shrink(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        for start in (0..self.tokens.len()).rev() {
            let text = tokenizer.decode(&self.tokens[start..], true)?;
            if !text.is_empty() || start == 0 {
                self.tokens.drain(..start);
                self.anchor_text = Some(text);
                break;
            }
        }
        self.anchor = self.tokens.len();
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn width(&self) -> usize {
        self.tokens.len()
    }
}

/// `<0xHH>`: the decoder turns a whole run of these into text, or into U+FFFD if any of it is not UTF-8.
fn in_byte_run(tokenizer: &Tokenizer, piece: &str) -> bool {
    tokenizer.decoding() == Decoding::ByteFallback && piece.len() == 6 && in_angles(piece).is_some()
}

fn in_angles(piece: &str) -> Option<&str> {
    piece.strip_prefix("<0x")?.strip_suffix('>')
}

/// The byte that `<0xHH>` is.
pub(in crate::text) fn fallback_byte(piece: &str) -> Option<u8> {
    let digits = in_angles(piece).filter(|_| piece.len() == 6)?;
    u8::from_str_radix(digits, 16).ok()
}

fn shows_text(tokenizer: &Tokenizer, reversed: &[u32]) -> bool {
    let tokens: Vec<u32> = reversed.iter().rev().copied().collect();
    // A decoder that fails here fails again, and is reported, at the first token.
    tokenizer.decode(&tokens, true).is_ok_and(|text| !text.is_empty())
}

/// Bytes that two texts have in common at the beginning, whole characters only.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum()
}
