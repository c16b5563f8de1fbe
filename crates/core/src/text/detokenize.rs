//! Incremental decoding: text as soon as it is final, token by token.

mod byte_level;
mod window;

use std::ops::Deref;

use byte_level::ByteStream;
pub(super) use byte_level::piece_bytes;
use window::Window;
pub(super) use window::fallback_byte;

use super::tokenizer::{Decoding, Tokenizer};
use crate::Result;

/// Turns a stream of tokens into pieces of text, at a cost per token that does not grow with the stream.
///
/// The pieces joined are `decode(context + tokens)` without what it has in common with `decode(context)` at its
/// beginning, special tokens skipped. A piece never has half a character, and no later token changes it. Hence text
/// may come a few tokens late: with a byte-fallback tokenizer (Llama) a run of `<0xHH>` tokens, a newline among them,
/// is decoded as a whole, so it waits for the first token after it, or for [`Detokenizer::finish`].
pub struct Detokenizer<T> {
    tokenizer: T,
    state: State,
}

enum State {
    Bytes(ByteStream),
    Window(Window),
}

impl<T: Deref<Target = Tokenizer>> Detokenizer<T> {
    /// `context` is the prompt, or its tail: the tokens whose text is not emitted but decides, for example, whether
    /// the first piece keeps its leading space. Only the last few are looked at.
    pub fn new(tokenizer: T, context: &[u32]) -> Self {
        let state = match tokenizer.decoding() {
            Decoding::ByteLevel => State::Bytes(ByteStream::new(&tokenizer, context)),
            Decoding::ByteFallback | Decoding::Plain => State::Window(Window::new(&tokenizer, context)),
        };
        Detokenizer { tokenizer, state }
    }

    /// The text that has become final with this token; often empty. Special tokens and unknown ids have no text.
    ///
    /// # Errors
    /// [`crate::Error::Internal`] when the tokenizer's decoder fails.
    pub fn push(&mut self, token: u32) -> Result<String> {
        if self.tokenizer.is_special(token) {
            return Ok(String::new());
        }
        let Some(piece) = self.tokenizer.token(token) else { return Ok(String::new()) };
        match &mut self.state {
            State::Bytes(stream) => Ok(stream.push(&piece)),
            State::Window(window) => window.push(&self.tokenizer, token, &piece),
        }
    }

    /// The rest, at the end of the stream; bytes that never became a character give U+FFFD.
    ///
    /// # Errors
    /// As [`Detokenizer::push`].
    pub fn finish(&mut self) -> Result<String> {
        match &mut self.state {
            State::Bytes(stream) => Ok(stream.finish()),
            State::Window(window) => window.finish(&self.tokenizer),
        }
    }
}

#[cfg(test)]
mod tests;
