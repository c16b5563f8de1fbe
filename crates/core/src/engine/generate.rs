//! Continuing a prompt, token by token.

use std::time::Instant;

use super::event::{Event, Finish, Timings, milliseconds};
use super::prompt;
use super::request::{GenerateRequest, SourceText};
use super::ticket::Events;
use crate::cache::Sequence;
use crate::error::{Error, Result};
use crate::model::{Model, Prompt};
use crate::nn::Matrix;
use crate::sample::{Sampler, SamplerOptions};
use crate::text::{Detokenizer, StopStrings};

/// Runs a generation on a sequence of its own.
pub(super) fn generate(
    model: &mut Model,
    request: GenerateRequest,
    images: Vec<Vec<u8>>,
    events: &Events,
) -> Result<()> {
    let (turn, mut sequence) = Turn::prepare(model, request, &images, events)?;
    drop(images);
    let answered = turn.run(model, &mut sequence, events, &mut |_| ())?;
    events.finish(answered.event(&sequence));
    Ok(())
}

/// The timings of a request that has just left the queue.
pub(super) fn queued(events: &Events) -> Timings {
    Timings { queued: milliseconds(Instant::now() - events.submitted()), ..Timings::default() }
}

/// A prompt that is ready to be read, and how to go on from it.
pub(super) struct Turn {
    pub(super) prompt: Prompt,
    pub(super) features: Vec<Matrix>,
    /// The prompt's tokens before expansion, from which the text goes on.
    pub(super) context: Vec<u32>,
    /// Tokens before the prompt, for the repetition penalty.
    pub(super) history: Vec<u32>,
    /// The most tokens to generate.
    pub(super) room: usize,
    /// Whether white space before the answer is left out.
    pub(super) trim: bool,
    pub(super) sampler: SamplerOptions,
    pub(super) stop: StopStrings,
    pub(super) ignore_eos: bool,
    pub(super) timings: Timings,
}

/// What a generation came to.
pub(super) struct Answered {
    pub(super) text: String,
    /// The text with everything that `text` leaves out: white space before it, a stop string and what follows.
    pub(super) raw: String,
    pub(super) tokens: Vec<u32>,
    pub(super) finish: Finish,
    /// Whether the last token is not in the cache, because nothing was generated from it.
    pub(super) pending: bool,
    pub(super) cached: usize,
    pub(super) prompt: Prompt,
    pub(super) timings: Timings,
}

impl Answered {
    pub(super) fn event(&self, sequence: &Sequence) -> Event {
        Event::Done {
            text: self.text.clone(),
            tokens: self.tokens.clone(),
            finish: self.finish,
            usage: prompt::usage(self.cached, &self.prompt, self.tokens.len()),
            timings: self.timings,
            memory: sequence.memory(),
        }
    }
}

impl Turn {
    /// Reads a request that stands alone, its images included, and makes its sequence.
    pub(super) fn prepare(
        model: &mut Model,
        request: GenerateRequest,
        images: &[Vec<u8>],
        events: &Events,
    ) -> Result<(Turn, Sequence)> {
        let mut timings = queued(events);
        let tokens = prompt::tokens(model, &request.source.text)?;
        let prompt = prompt::expand(model, &tokens, request.source.order.len())?;
        let room = prompt::room(0, &prompt, request.max_tokens, model.max_positions())?;
        let features = prompt::features(model, images, &request.source.order, events, &mut timings)?;
        let sequence = model.new_sequence_with(request.method.clone(), false)?;
        // Templates put a space before an answer, which models generate themselves; it is no part of a chat's answer.
        let trim = matches!(request.source.text, SourceText::Messages(_));
        let turn = Turn {
            prompt,
            features,
            context: tokens,
            history: Vec::new(),
            room,
            trim,
            sampler: request.sampler,
            stop: request.stop,
            ignore_eos: request.ignore_eos,
            timings,
        };
        Ok((turn, sequence))
    }

    /// Reads the prompt and generates. Cancelled after its first token, it ends with what is there. `watch` sees the sequence
    /// after the prompt and after every token that is read.
    pub(super) fn run(
        self,
        model: &mut Model,
        sequence: &mut Sequence,
        events: &Events,
        watch: &mut dyn FnMut(&Sequence),
    ) -> Result<Answered> {
        let Turn { prompt, features, context, mut history, room, trim, sampler, stop, ignore_eos, mut timings } = self;
        let mut sampler = Sampler::new(&sampler)?;
        let cached = sequence.next_position() as usize;
        let start = Instant::now();
        let mut logits = model.prefill(&prompt, &features, sequence, &|| events.check())?;
        timings.prefill = milliseconds(start.elapsed());
        drop(features);
        watch(sequence);
        events.send(Event::Prompt { usage: prompt::usage(cached, &prompt, 0) })?;

        let tokenizer = model.tokenizer().clone();
        let mut answer = Answer::new(Detokenizer::new(&tokenizer, &context), stop, trim);
        history.extend(&prompt.tokens);
        let mut first = None;
        let finish = loop {
            let id = sampler.sample(&mut logits, &history)?;
            first.get_or_insert_with(Instant::now);
            if !ignore_eos && model.eos_tokens().contains(&id) {
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
            logits = model.decode(id, sequence)?;
            watch(sequence);
        };
        let pending = finish != Finish::Eos;
        let finish = answer.close(finish)?;

        if let Some(first) = first {
            timings.decode = milliseconds(first.elapsed());
            timings.first_token = milliseconds(first - events.submitted());
        }
        timings.total = milliseconds(events.submitted().elapsed());
        let Answer { text, raw, tokens, .. } = answer;
        Ok(Answered { text, raw, tokens, finish, pending, cached, prompt, timings })
    }
}

/// The text that grows out of the tokens. What [`Answer::push`] gives, joined, is always a prefix of `text`.
struct Answer<'a> {
    detokenizer: Detokenizer<'a>,
    stop: StopStrings,
    tokens: Vec<u32>,
    text: String,
    raw: String,
    /// Whether white space before the first other character is left out.
    trim: bool,
    closed: bool,
}

impl<'a> Answer<'a> {
    fn new(detokenizer: Detokenizer<'a>, stop: StopStrings, trim: bool) -> Self {
        Answer { detokenizer, stop, tokens: Vec::new(), text: String::new(), raw: String::new(), trim, closed: false }
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
