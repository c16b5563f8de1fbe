//! Continuing a prompt, token by token: [`PreparedPrompt::start`] reads it, each [`Generation::advance`] chooses a token, and whoever runs the
//! generation has that token decoded, alone or together with those of others.

use std::sync::Arc;
use std::time::Instant;

use super::answer::Answer;
use super::clock::milliseconds;
use super::ticket::Events;
use super::{positions, prompt};
use crate::backend::Backend;
use crate::cache::Memory;
use crate::error::{Error, Result};
use crate::method::Method;
use crate::model::{Features, Model, Prefill, Prompt};
use crate::sample::{Likelihoods, Sampler, SamplerOptions};
use crate::sequence::Sequence;
use crate::text::StopStrings;
use crate::wire::{
    Event, Finish, GenerateRequest, GenerationResult, SessionId, SourceText, Timings, TokenLogprob, TokenLogprobs,
};

/// The timings of a request that has just left the queue.
pub(super) fn queued(events: &Events) -> Timings {
    Timings { queued: milliseconds(Instant::now() - events.submitted()), ..Timings::default() }
}

/// A prompt that is ready to be read, and how to go on from it.
pub(super) struct PreparedPrompt<B: Backend> {
    pub(super) prompt: Prompt,
    pub(super) features: Vec<Features<B>>,
    /// The sequence on top of which the prompt is read.
    pub(super) sequence: Sequence<B::Memory>,
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
    /// As [`GenerateRequest`] has it.
    pub(super) logprobs: Option<usize>,
    pub(super) timings: Timings,
    /// Positions before the prompt that were read for the same request.
    pub(super) read: usize,
    /// Whether its reader is not to hear that it has been read, since more of the request's prompt comes.
    pub(super) silent: bool,
}

impl<B: Backend> PreparedPrompt<B> {
    /// Reads a request that stands alone, its images included, and makes its sequence. Unless it is `alone` on the model, a prompt
    /// that finds no room is refused before its images are seen.
    pub(super) fn prepare(
        model: &Model<B>,
        request: &GenerateRequest,
        method: Option<Arc<Method>>,
        images: &[Vec<u8>],
        events: &Events,
        alone: bool,
    ) -> Result<PreparedPrompt<B>> {
        let mut timings = queued(events);
        let plans = prompt::plans(model, images, &request.source.order)?;
        let tokens = prompt::tokens(model, &request.source, &plans)?;
        let prompt = prompt::expand(model, &tokens, &plans, request.source.order.len())?;
        let sequence = model.new_sequence_with(method, false)?;
        let room = positions::room(&sequence, &prompt, request.max_tokens, model.max_positions())?;
        if !alone {
            prompt::admit(&sequence, &prompt)?;
        }
        let pictures = sequence.pictures();
        let features = prompt::features(
            model,
            images,
            &request.source.order,
            request.source.order.len(),
            pictures,
            events,
            &mut timings,
        )?;
        Ok(PreparedPrompt {
            prompt,
            features,
            sequence,
            context: tokens.tokens,
            history: Vec::new(),
            room,
            // Templates put a space before an answer, which models generate themselves; it is no part of a chat's answer.
            trim: matches!(request.source.text, SourceText::Messages(_)),
            sampler: request.sampler.clone(),
            stop: request.stop.clone(),
            ignore_eos: request.ignore_eos,
            logprobs: request.logprobs,
            timings,
            read: 0,
            silent: false,
        })
    }

    /// Reads the prompt.
    pub(super) fn start(mut self, model: &Model<B>, events: &Events) -> Result<Generation<B>> {
        let start = Instant::now();
        let logits = model.prefill(&self.prompt, &self.features, &mut self.sequence, &|| events.check())?;
        self.timings.prefill += milliseconds(start.elapsed());
        let cached = self.sequence.next_position() as usize - self.prompt.tokens.len();
        self.generation(logits, cached, model, events)
    }

    /// Begins to read the prompt in pieces of at most `most` positions.
    pub(super) fn begin(mut self, model: &Model<B>, most: usize) -> Result<Reading<B>> {
        let start = Instant::now();
        let cached = self.sequence.next_position() as usize;
        let prefill = model.begin_prefill(&self.prompt, &self.features, &mut self.sequence, most)?;
        self.features = Vec::new();
        self.timings.prefill += milliseconds(start.elapsed());
        Ok(Reading { ready: self, prefill, cached })
    }

    /// Goes on from a prompt that has been read, after `cached` positions.
    fn generation(self, logits: Vec<f32>, cached: usize, model: &Model<B>, events: &Events) -> Result<Generation<B>> {
        let PreparedPrompt { prompt, sequence, context, mut history, room, trim, timings, read, silent, .. } = self;
        let sampler = Sampler::new(&self.sampler)?;
        let cached = cached - read;
        if !silent {
            events.send(Event::Prompt { usage: prompt::usage_behind(read, cached, &prompt, 0) })?;
        }
        history.extend(&prompt.tokens);
        Ok(Generation {
            sequence,
            logits,
            likeliest: None,
            next: None,
            sampler,
            answer: Answer::new(model.tokenizer().clone(), &context, self.stop, trim),
            history,
            room,
            ignore_eos: self.ignore_eos,
            most: self.logprobs,
            logprobs: Vec::new(),
            first: None,
            cached,
            read,
            prompt,
            timings,
        })
    }
}

/// A prompt that is read in pieces.
pub(super) struct Reading<B: Backend> {
    ready: PreparedPrompt<B>,
    prefill: Prefill<B>,
    cached: usize,
}

/// The outcome of reading a piece.
pub(super) enum Read<B: Backend> {
    /// More of the prompt.
    On(Box<Reading<B>>),
    /// The generation behind it.
    Through(Box<Generation<B>>),
}

impl<B: Backend> Reading<B> {
    pub(super) fn sequence(&self) -> &Sequence<B::Memory> {
        &self.ready.sequence
    }

    /// Reads the next piece.
    pub(super) fn go_on(mut self: Box<Self>, model: &Model<B>, events: &Events) -> Result<Read<B>> {
        let start = Instant::now();
        let Reading { ready, prefill, .. } = &mut *self;
        let logits = model.prefill_piece(prefill, &mut ready.sequence, &|| events.check())?;
        ready.timings.prefill += milliseconds(start.elapsed());
        Ok(match logits {
            Some(logits) => {
                let Reading { ready, cached, .. } = *self;
                Read::Through(Box::new(ready.generation(logits, cached, model, events)?))
            }
            None => Read::On(self),
        })
    }
}

/// A prompt that has been read, and the tokens so far.
pub(super) struct Generation<B: Backend> {
    pub(super) sequence: Sequence<B::Memory>,
    /// Those of the next token.
    pub(super) logits: Vec<f32>,
    /// The next token, where the device has found it; logits are of an earlier one then.
    pub(super) likeliest: Option<u32>,
    /// The token that is to be decoded before the next [`Generation::advance`].
    pub(super) next: Option<u32>,
    sampler: Sampler,
    answer: Answer,
    history: Vec<u32>,
    room: usize,
    ignore_eos: bool,
    /// How many likeliest tokens are reported, if any report is asked for.
    most: Option<usize>,
    logprobs: Vec<TokenLogprobs>,
    /// When the first token was there.
    first: Option<Instant>,
    cached: usize,
    read: usize,
    prompt: Prompt,
    timings: Timings,
}

impl<B: Backend> Generation<B> {
    /// Chooses the next token and streams it; says why it was the last one if it was. Cancelled, a generation ends with what is
    /// there. Where a method outside is to be asked, asks it instead, and carries out its answer before the token.
    pub(super) fn advance(&mut self, model: &Model<B>, events: &Events) -> Result<Option<Finish>> {
        match plan(&mut self.sequence, events) {
            Ok(Asked::Nothing) => {}
            Ok(Asked::Waits) => return Ok(None),
            Err(Error::Aborted) if self.first.is_some() => return Ok(Some(Finish::Aborted)),
            Err(error) => return Err(error),
        }
        let likelihoods = self.most.map(|_| Likelihoods::of(&self.logits));
        let id = match self.likeliest.take() {
            Some(id) => id,
            None => self.sampler.sample(&mut self.logits, &self.history)?,
        };
        self.first.get_or_insert_with(Instant::now);
        if !self.ignore_eos && model.eos_tokens().contains(&id) {
            return Ok(Some(Finish::Eos));
        }
        self.history.push(id);
        let (text, end) = self.answer.push(id, self.room)?;
        let logprobs = likelihoods.map(|likelihoods| report(&likelihoods, id, self.most.unwrap_or(0), model));
        self.logprobs.extend(logprobs.clone());
        match events.send(Event::Token { id, text, logprobs }) {
            Err(Error::Aborted) => return Ok(Some(Finish::Aborted)),
            other => other?,
        }
        self.next = if end.is_none() { Some(id) } else { None };
        Ok(end)
    }

    /// Whether nothing but the likeliest token matters of the next logits.
    pub(super) fn is_greedy(&self) -> bool {
        self.most.is_none() && self.sampler.is_greedy()
    }

    /// The cache of a prompt that is not gone on from, and how long it took.
    pub(super) fn into_prefix(self, events: &Events) -> (Sequence<B::Memory>, Timings) {
        let total = milliseconds(events.submitted().elapsed());
        (self.sequence, Timings { total, ..self.timings })
    }

    /// Its outcome, and its cache.
    pub(super) fn end(self, finish: Finish, events: &Events) -> Result<(Answered, Sequence<B::Memory>)> {
        let Generation { sequence, mut answer, first, cached, read, prompt, mut timings, most, logprobs, .. } = self;
        let logprobs = most.map(|_| logprobs);
        let pending = finish != Finish::Eos;
        let finish = answer.close(finish)?;
        if let Some(first) = first {
            timings.decode = milliseconds(first.elapsed());
            timings.first_token = milliseconds(first - events.submitted());
        }
        timings.total = milliseconds(events.submitted().elapsed());
        let Answer { text, raw, tokens, .. } = answer;
        Ok((Answered { text, raw, tokens, finish, pending, cached, read, prompt, timings, logprobs }, sequence))
    }
}

/// The probability of a token, and of the likeliest in its place.
fn report<B: Backend>(likelihoods: &Likelihoods, id: u32, most: usize, model: &Model<B>) -> TokenLogprobs {
    let bytes = |id: u32| model.tokenizer().token_bytes(id);
    let one = |id: u32| TokenLogprob { id, logprob: likelihoods.logprob(id), bytes: bytes(id) };
    TokenLogprobs {
        logprob: likelihoods.logprob(id),
        bytes: bytes(id),
        top: likelihoods.likeliest(most).into_iter().map(one).collect(),
    }
}

/// Whether a sequence waits for a plan from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// The question was sent; to be called again once [`Events::take_answer`] has something, or there is a reason to stop.
    Waits,
}

/// Asks for the plan that a sequence needs to go on, or carries it out where it has come.
pub(super) fn plan<M: Memory>(sequence: &mut Sequence<M>, events: &Events) -> Result<Asked> {
    if sequence.is_sound() {
        return Ok(Asked::Nothing);
    }
    events.check()?;
    if let Some(answer) = events.take_answer() {
        sequence.answer(&answer)?;
        return Ok(Asked::Nothing);
    }
    match sequence.question()? {
        None => Ok(Asked::Nothing),
        Some(view) => {
            let id = SessionId::random()?;
            events.ask(id, Event::View { id, view: Box::new(view) })?;
            Ok(Asked::Waits)
        }
    }
}

/// The outcome of a generation.
pub(super) struct Answered {
    pub(super) text: String,
    /// The text with everything that `text` leaves out: white space before it, a stop string and what follows.
    pub(super) raw: String,
    pub(super) tokens: Vec<u32>,
    pub(super) finish: Finish,
    /// Whether the last token is not in the cache, because nothing was generated from it.
    pub(super) pending: bool,
    pub(super) cached: usize,
    read: usize,
    pub(super) prompt: Prompt,
    pub(super) timings: Timings,
    logprobs: Option<Vec<TokenLogprobs>>,
}

impl Answered {
    pub(super) fn result<M: Memory>(&self, sequence: &Sequence<M>) -> GenerationResult {
        GenerationResult {
            text: self.text.clone(),
            tokens: self.tokens.clone(),
            finish: self.finish,
            usage: prompt::usage_behind(self.read, self.cached, &self.prompt, self.tokens.len()),
            timings: self.timings,
            memory: sequence.memory(),
            logprobs: self.logprobs.clone(),
        }
    }
}
