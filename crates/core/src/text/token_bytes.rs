//! The bytes of single tokens, which may be a part of a character.

use super::detokenize::{fallback_byte, piece_bytes};
use super::tokenizer::{Decoding, Tokenizer};

impl Tokenizer {
    /// The bytes that a token adds in the middle of a text: of a special token its own text, none of an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(piece) = self.token(id) else { return Vec::new() };
        if self.is_special(id) {
            return piece.into_bytes();
        }
        match self.decoding() {
            Decoding::ByteLevel => piece_bytes(&piece),
            Decoding::ByteFallback => match fallback_byte(&piece) {
                Some(byte) => vec![byte],
                None => piece.replace('\u{2581}', " ").into_bytes(),
            },
            Decoding::Plain => self.decode(&[id], false).unwrap_or(piece).into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::text::fixtures::tiny_llava;

    /// Tokens joined are the text, however characters fall apart.
    #[test]
    fn joined_they_are_the_text() {
        let tokenizer = tiny_llava();
        for text in ["There is a green star.", "\u{1F600} caf\u{e9}\n\tx", "  two  blanks"] {
            let tokens = tokenizer.encode(text, false).unwrap();
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| tokenizer.token_bytes(*token)).collect();
            let joined = String::from_utf8(bytes).unwrap();
            assert_eq!(joined.trim_start_matches(' '), text.trim_start_matches(' '));
        }
        assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
        assert_eq!(tokenizer.token_bytes(tokenizer.eos_id().unwrap()), tokenizer.eos().unwrap().as_bytes());
    }
}
