//! Continuing a prompt, token by token.

use std::time::Instant;

use super::event::{Event, Finish, Timings, milliseconds};
use super::prompt;
use super::request::{GenerateRequest, SourceText};
use super::ticket::Events;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::sample::Sampler;
use crate::text::{Detokenizer, StopStrings};

/// Runs a generation. Cancelled after its first token, it ends as `done` with what is there.
pub(super) fn generate(
    model: &mut Model,
    request: GenerateRequest,
    images: Vec<Vec<u8>>,
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let mut sampler = Sampler::new(&request.sampler)?;
    let tokens = prompt::tokens(model, &request.source.text)?;
    let prompt = prompt::expand(model, &tokens, &request.source)?;
    let room = prompt::room(&prompt, request.max_tokens, model.max_positions())?;
    let features = prompt::features(model, images, &request.source.order, events, &mut timings)?;

    let mut sequence = model.new_sequence();
    let start = Instant::now();
    let mut logits = model.prefill(&prompt, &features, &mut sequence, &|| events.check())?;
    timings.prefill = milliseconds(start.elapsed());
    drop(features);
    events.send(Event::Prompt { usage: prompt::usage(&prompt, 0) })?;

    let tokenizer = model.tokenizer().clone();
    // Templates put a space before an answer, which models generate themselves; it is no part of a chat's answer.
    let trim = matches!(request.source.text, SourceText::Messages(_));
    let mut answer = Answer::new(Detokenizer::new(&tokenizer, &tokens), request.stop, trim);
    let mut history = prompt.tokens.clone();
    let mut first = None;
    let finish = loop {
        let id = sampler.sample(&mut logits, &history)?;
        first.get_or_insert_with(Instant::now);
        if !request.ignore_eos && model.eos_tokens().contains(&id) {
            break Finish::Eos;
        }
        history.push(id);
        let (text, end) = answer.push(id, room)?;
        match events.send(Event::Token { id, text }) {
            Err(Error::Aborted) => break Finish::Aborted,
            other => other?,
        }
        if let Some(end) = end {
            break end;
        }
        logits = model.decode(id, &mut sequence)?;
    };
    let finish = answer.close(finish)?;

    if let Some(first) = first {
        timings.decode = milliseconds(first.elapsed());
        timings.first_token = milliseconds(first - events.submitted());
    }
    timings.total = milliseconds(events.submitted().elapsed());
    let usage = prompt::usage(&prompt, answer.tokens.len());
    let Answer { text, tokens, .. } = answer;
    events.finish(Event::Done { text, tokens, finish, usage, timings, memory: sequence.memory() });
    Ok(())
}

/// The text that grows out of the tokens. What [`Answer::push`] gives, joined, is always a prefix of `text`.
struct Answer<'a> {
    detokenizer: Detokenizer<'a>,
    stop: StopStrings,
    tokens: Vec<u32>,
    text: String,
    /// Whether white space before the first other character is left out.
    trim: bool,
    closed: bool,
}

impl<'a> Answer<'a> {
    fn new(detokenizer: Detokenizer<'a>, stop: StopStrings, trim: bool) -> Self {
        Answer { detokenizer, stop, tokens: Vec::new(), text: String::new(), trim, closed: false }
    }

    /// Adds a token; gives the text that is now certain, and why this is the last of at most `room` tokens if it is.
    fn push(&mut self, id: u32, room: usize) -> Result<(String, Option<Finish>)> {
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
    fn close(&mut self, finish: Finish) -> Result<Finish> {
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
