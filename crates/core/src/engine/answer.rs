//! The text of a generation.

use std::sync::Arc;

use crate::error::Result;
use crate::text::{Detokenizer, StopStrings, Tokenizer};
use crate::wire::Finish;

/// The text that grows out of the tokens. What [`Answer::push`] gives, joined, is always a prefix of `text`.
pub(super) struct Answer {
    detokenizer: Detokenizer<Arc<Tokenizer>>,
    stop: StopStrings,
    pub(super) tokens: Vec<u32>,
    pub(super) text: String,
    /// With everything that `text` leaves out: white space before it, a stop string and what follows.
    pub(super) raw: String,
    /// Whether white space before the first other character is left out.
    trim: bool,
    closed: bool,
}

impl Answer {
    /// An answer to `context`, the tokens from which the text goes on.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, context: &[u32], stop: StopStrings, trim: bool) -> Self {
        let detokenizer = Detokenizer::new(tokenizer, context);
        Answer { detokenizer, stop, tokens: Vec::new(), text: String::new(), raw: String::new(), trim, closed: false }
    }

    /// Adds a token; gives the text that is now certain, and why this is the last of at most `room` tokens if it is.
    pub(super) fn push(&mut self, id: u32, room: usize) -> Result<(String, Option<Finish>)> {
        let start = self.text.len();
        self.tokens.push(id);
        let piece = self.detokenizer.push(id)?;
        let mut end = self.emit(&piece).then_some(Finish::Stop);
        if end.is_none() && self.tokens.len() == room {
            end = Some(self.close(Finish::Length)?);
        }
        Ok((self.text[start..].to_owned(), end))
    }

    /// Adds what was held back; a stop string that only now is complete takes precedence over `finish`.
    pub(super) fn close(&mut self, finish: Finish) -> Result<Finish> {
        if self.closed {
            return Ok(finish);
        }
        let rest = self.detokenizer.finish()?;
        if self.emit(&rest) {
            return Ok(Finish::Stop);
        }
        self.closed = true;
        let held = self.stop.finish();
        self.add(&held);
        Ok(finish)
    }

    /// Whether a stop string is now complete, which ends the text before it.
    fn emit(&mut self, piece: &str) -> bool {
        self.raw.push_str(piece);
        let stopped = self.stop.push(piece);
        self.add(&stopped.emit);
        self.closed |= stopped.hit;
        stopped.hit
    }

    fn add(&mut self, piece: &str) {
        let first = self.trim && self.text.is_empty();
        self.text.push_str(if first { piece.trim_start() } else { piece });
    }
}
