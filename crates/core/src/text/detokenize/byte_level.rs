//! Byte-level tokenizers: a token is a piece of UTF-8, so decoding is a matter of where characters end.

use super::super::tokenizer::Tokenizer;

/// Bytes to characters, as `String::from_utf8_lossy` does it over the whole, in pieces.
pub(super) struct ByteStream {
    /// The beginning of a character; at most three bytes between calls.
    pending: Vec<u8>,
    /// `pending` began in the context, whose text already shows a U+FFFD for it.
    shown: bool,
}

impl ByteStream {
    pub(super) fn new(tokenizer: &Tokenizer, context: &[u32]) -> ByteStream {
        let mut tail = Vec::new();
        for &token in context.iter().rev().filter(|token| !tokenizer.is_special(**token)) {
            let mut bytes = tokenizer.token(token).map(|piece| piece_bytes(&piece)).unwrap_or_default();
            bytes.append(&mut tail);
            tail = bytes;
            // A character has at most four bytes: an unfinished one is within the last three.
            if tail.len() >= 4 {
                break;
            }
        }
        let mut stream = ByteStream { pending: tail, shown: false };
        stream.take_final();
        stream.shown = !stream.pending.is_empty();
        stream
    }

    pub(super) fn push(&mut self, piece: &str) -> String {
        self.pending.extend(piece_bytes(piece));
        let text = self.take_final();
        self.without_shown(text)
    }

    pub(super) fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned();
        self.without_shown(text)
    }

    fn take_final(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    fn without_shown(&mut self, mut text: String) -> String {
        if self.shown && !text.is_empty() {
            self.shown = false;
            if text.starts_with(char::REPLACEMENT_CHARACTER) {
                text.remove(0);
            }
        }
        text
    }
}

/// The bytes of a vocabulary entry; an entry with a character that stands for no byte (an added token) is its own text.
pub(in crate::text) fn piece_bytes(piece: &str) -> Vec<u8> {
    piece.chars().map(char_byte).collect::<Option<Vec<u8>>>().unwrap_or_else(|| piece.as_bytes().to_vec())
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes, in order, for U+0100 and up.
fn char_byte(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}
