//! The [`Runner`] over a [`Model`].

use std::sync::Arc;
use std::time::Instant;

use prefixkv_kernels::os::heap;

use super::clock::milliseconds;
use super::generate::{Generation, PreparedPrompt, Read, Reading};
use super::prefix::{Opening, Prefixes};
use super::profile::profile;
use super::reuse::{Halves, Key, Rest, Reuse};
use super::runner::{Codec, OnProgress, Runner, Started, Stepped};
use super::score::{Next, Scoring};
use super::session::{self, Open, Sessions};
use super::ticket::Events;
use super::trace::Tracing;
use super::{channels, codebooks, directions, heads, prompt, sensitivity, sharing};
use crate::backend::Backend;
use crate::cache::Memory;
use crate::error::{Error, Result};
use crate::model::{Asked, Decoded, ImageCounter, ImageTokens, LoadOptions, Model, ModelInfo, Place};
use crate::sequence::Sequence;
use crate::text::Tokenizer;
use crate::wire::{Batching, Event, Finish, ModelRequest, Progress};

/// Free bytes that the allocator may keep between requests: a part of the weights, between these two.
const SLACK: [usize; 2] = [2 << 20, 8 << 20];
const SLACK_OF_WEIGHTS: u64 = 32;

struct ModelRunner<B: Backend> {
    model: Model<B>,
    /// Free bytes that the allocator may keep between requests.
    slack: usize,
    sessions: Sessions<B>,
    prefixes: Prefixes<B>,
    reuse: Reuse<B>,
    batching: Batching,
    /// Generations that go from step to step, in the order of their starts.
    running: Vec<Running<B>>,
}

struct Running<B: Backend> {
    number: u64,
    work: Work<B>,
}

/// Work that goes from step to step.
enum Work<B: Backend> {
    /// With the turn of a session that it is.
    Generation(Box<Generation<B>>, Option<Box<Open<B>>>),
    /// The same while its prompt is read, piece by piece.
    Reading(Box<Reading<B>>, Aim<B>),
    /// The same before its prompt, or the next part of it, is begun.
    Ready(Box<PreparedPrompt<B>>, Aim<B>),
    Scoring(Box<Scoring<B::Memory>>),
    Tracing(Box<Tracing<B>>),
}

/// The aim of reading a prompt.
enum Aim<B: Backend> {
    /// An answer, as a turn of a session where it is one.
    Answer(Option<Box<Open<B>>>),
    /// Questions to come.
    Prefix(Box<Opening>),
    /// The part of the prompt behind it, and requests to come that begin with it.
    Shared(Box<(Key, Rest)>),
}

impl<B: Backend> Work<B> {
    fn sequence(&self) -> &Sequence<B::Memory> {
        match self {
            Work::Generation(generation, _) => &generation.sequence,
            Work::Reading(reading, _) => reading.sequence(),
            Work::Ready(ready, _) => &ready.sequence,
            Work::Scoring(scoring) => &scoring.sequence,
            Work::Tracing(tracing) => &tracing.generation.sequence,
        }
    }

    fn turn(&self) -> Option<&Open<B>> {
        match self {
            Work::Generation(_, turn) | Work::Reading(_, Aim::Answer(turn)) | Work::Ready(_, Aim::Answer(turn)) => {
                turn.as_deref()
            }
            _ => None,
        }
    }
}

/// Loads at `place`: all that follows is made for that kind of device.
pub(super) fn load(
    place: Place,
    options: &LoadOptions,
    batching: Batching,
    progress: &mut OnProgress,
) -> Result<Box<dyn Runner>> {
    match place {
        Place::Cpu(cpu) => load_on(cpu, options, batching, progress),
        Place::Cuda(cuda) => load_on(cuda, options, batching, progress),
    }
}

fn load_on<B: Backend>(
    backend: B,
    options: &LoadOptions,
    batching: Batching,
    progress: &mut OnProgress,
) -> Result<Box<dyn Runner>> {
    let mut report = |step: crate::model::Progress| {
        progress(Event::Progress(Progress { stage: step.stage, done: step.done, total: step.total }))
    };
    heap::keep_freed();
    let model = Model::load_on(backend, options, &mut report)?;
    // Memory that reading a tokenizer and converting weights took beside the model.
    heap::give_back();
    let slack = usize::try_from(model.info().weight_bytes / SLACK_OF_WEIGHTS).unwrap_or(usize::MAX);
    let slack = slack.clamp(SLACK[0], SLACK[1]);
    let (sessions, prefixes) = (Sessions::default(), Prefixes::default());
    let reuse = Reuse::new(batching.prefix_cache);
    Ok(Box::new(ModelRunner { model, slack, sessions, prefixes, reuse, batching, running: Vec::new() }))
}

impl<B: Backend> Runner for ModelRunner<B> {
    fn info(&self) -> ModelInfo {
        self.model.info().clone()
    }

    fn codec(&self) -> Arc<dyn Codec> {
        Arc::new(TextAndImages { tokenizer: self.model.tokenizer().clone(), images: self.model.image_counter() })
    }

    fn batch(&self) -> usize {
        self.batching.batch
    }

    fn start(&mut self, number: u64, request: &ModelRequest, images: &[Vec<u8>], events: &Events) -> Result<Started> {
        if self.has_turn_of(request) {
            return Ok(Started::Waits);
        }
        let mut started = self.begin(number, request, images, events);
        // Beginnings that are kept for later go first.
        while matches!(started, Err(Error::OutOfMemory { .. })) && !events.has_sent() && self.reuse.drop_oldest() {
            started = self.begin(number, request, images, events);
        }
        let started = match started {
            Err(Error::OutOfMemory { needed, .. }) if !events.has_sent() && self.will_have(needed) => {
                Ok(Started::Waits)
            }
            other => other,
        };
        // Memory that reading took beside the cache, also for a request that was refused.
        heap::give_back_beyond(self.slack);
        started
    }

    fn read(&mut self, number: u64, events: &Events) -> Result<Started> {
        let place = self.running.iter().position(|running| running.number == number);
        match place.map(|place| (place, self.running.remove(place).work)) {
            Some((place, Work::Reading(reading, aim))) => {
                let started = self.read_piece(place, number, reading, aim, events);
                if !matches!(started, Ok(Started::Reading)) {
                    heap::give_back_beyond(self.slack);
                }
                started
            }
            Some((_, Work::Ready(ready, aim))) => self.read_prompt(number, *ready, aim, events),
            _ => Err(Error::Internal(format!("request {number} has no prompt to read"))),
        }
    }

    fn step(&mut self, requests: &[(u64, &Events)]) -> Vec<Result<Stepped>> {
        let mut stepped: Vec<_> = requests.iter().map(|(number, events)| self.advance(*number, events)).collect();
        for (number, error) in self.decode() {
            self.forget(number);
            if let Some(place) = requests.iter().position(|(other, _)| *other == number) {
                stepped[place] = Err(error);
            }
        }
        stepped
    }

    fn forget(&mut self, number: u64) {
        self.running.retain(|running| running.number != number);
    }

    /// Weights never change; the sequence of a request, or of its session, has been dropped.
    fn is_sound(&self) -> bool {
        true
    }
}

impl<B: Backend> ModelRunner<B> {
    /// Runs a request to its end, or reads the prompt of a generation.
    fn begin(&mut self, number: u64, request: &ModelRequest, images: &[Vec<u8>], events: &Events) -> Result<Started> {
        let alone = self.running.is_empty();
        let model = &self.model;
        match request {
            ModelRequest::Generate(request) => {
                let halves = match request.session {
                    None => self.reuse.halves(model, request, images, events, alone)?,
                    Some(_) => None,
                };
                match halves {
                    Some(Halves::Known(ready)) => return self.read_prompt(number, *ready, Aim::Answer(None), events),
                    Some(Halves::New(ready, shared)) => {
                        return self.read_prompt(number, *ready, Aim::Shared(shared), events);
                    }
                    None => {}
                }
                let (ready, turn) = match request.session {
                    Some(session) => {
                        let (ready, turn) = self.sessions.begin(model, session, request, images, events, alone)?;
                        (ready, Some(turn))
                    }
                    None => {
                        (PreparedPrompt::prepare(model, request, request.method.clone(), images, events, alone)?, None)
                    }
                };
                return self.read_prompt(number, ready, Aim::Answer(turn.map(Box::new)), events);
            }
            ModelRequest::Ask(request) => {
                let ready = self.prefixes.ask(model, request, events, alone)?;
                return self.read_prompt(number, ready, Aim::Answer(None), events);
            }
            ModelRequest::Prefill(request) => {
                let (ready, opening) = self.prefixes.begin(model, request, images, events, alone)?;
                return self.read_prompt(number, ready, Aim::Prefix(Box::new(opening)), events);
            }
            ModelRequest::SavePrefix { prefix, path } => {
                let bytes = self.prefixes.save(model, *prefix, path)?;
                events.finish(Event::Saved { bytes });
            }
            ModelRequest::RestorePrefix(path) => self.prefixes.restore(model, path, events)?,
            ModelRequest::ClosePrefix(prefix) => {
                self.prefixes.close(*prefix)?;
                events.finish(Event::Forgotten { prefix: *prefix });
            }
            ModelRequest::Score(request) => {
                let scoring = Box::new(Scoring::start(model, request, images, events)?);
                return Ok(self.run(number, Work::Scoring(scoring)));
            }
            ModelRequest::Trace(request) => {
                let tracing = Box::new(Tracing::start(model, request, images, events, alone)?);
                return Ok(self.run(number, Work::Tracing(tracing)));
            }
            ModelRequest::Profile(request) => profile(model, request, images, events)?,
            ModelRequest::Distances(request) => sharing::distances(model, request, images, events)?,
            ModelRequest::Similarity(request) => sharing::similarity(model, request, images, events)?,
            ModelRequest::Sensitivity(request) => sensitivity::sensitivity(model, request, images, events)?,
            ModelRequest::Channels(request) => channels::channels(model, request, images, events)?,
            ModelRequest::Codebooks(request) => codebooks::codebooks(model, request, images, events)?,
            ModelRequest::Directions(request) => directions::directions(model, request, images, events)?,
            ModelRequest::Heads(request) => heads::heads(model, request, images, events)?,
            ModelRequest::OpenSession(method) => {
                let session = self.sessions.open(model, method.clone())?;
                events.finish(session::done(session));
            }
            ModelRequest::ForkSession(session) => events.finish(session::done(self.sessions.fork(*session)?)),
            ModelRequest::CloseSession(session) => {
                self.sessions.close(*session)?;
                events.finish(session::done(*session));
            }
            ModelRequest::Memory => events.finish(Event::Memory(model.device_memory()?)),
        }
        Ok(Started::Finished)
    }

    fn run(&mut self, number: u64, work: Work<B>) -> Started {
        self.running.push(Running { number, work });
        Started::Running
    }

    /// Reads a prompt, or its first piece where others run.
    fn read_prompt(&mut self, number: u64, ready: PreparedPrompt<B>, aim: Aim<B>, events: &Events) -> Result<Started> {
        while matches!(prompt::admit(&ready.sequence, &ready.prompt), Err(Error::OutOfMemory { .. }))
            && self.reuse.drop_oldest()
        {}
        let (model, place) = (&self.model, self.running.len());
        let chunk = self.batching.prefill_chunk.filter(|most| place > 0 && *most < ready.prompt.tokens.len());
        if let Some(most) = chunk
            // Piece by piece nothing is freed before the end: where there is no room for that, others wait.
            && ready.sequence.admit_cut(&ready.prompt.spans).is_ok()
        {
            let reading = Box::new(ready.begin(model, most)?);
            return self.read_piece(place, number, reading, aim, events);
        }
        let generation = Box::new(ready.start(model, events)?);
        self.through(place, number, generation, aim, events)
    }

    /// Reads a piece of a prompt, which stands at `place` among those that run.
    fn read_piece(
        &mut self,
        place: usize,
        number: u64,
        reading: Box<Reading<B>>,
        aim: Aim<B>,
        events: &Events,
    ) -> Result<Started> {
        match reading.go_on(&self.model, events)? {
            Read::On(reading) => {
                self.running.insert(place, Running { number, work: Work::Reading(reading, aim) });
                Ok(Started::Reading)
            }
            Read::Through(generation) => self.through(place, number, generation, aim, events),
        }
    }

    /// A prompt has been read.
    fn through(
        &mut self,
        place: usize,
        number: u64,
        generation: Box<Generation<B>>,
        aim: Aim<B>,
        events: &Events,
    ) -> Result<Started> {
        match aim {
            Aim::Answer(turn) => {
                self.running.insert(place, Running { number, work: Work::Generation(generation, turn) });
                Ok(Started::Running)
            }
            Aim::Shared(shared) => {
                let (key, rest) = *shared;
                let (sequence, timings) = generation.into_prefix(events);
                self.reuse.put(key, &sequence)?;
                let read = sequence.next_position() as usize;
                let ready = Box::new(rest.behind(sequence, timings, read));
                // The others take a step before the second part.
                self.running.insert(place, Running { number, work: Work::Ready(ready, Aim::Answer(None)) });
                Ok(Started::Reading)
            }
            Aim::Prefix(opening) => {
                self.prefixes.end(*opening, *generation, events)?;
                Ok(Started::Finished)
            }
        }
    }

    /// Whether a turn runs of the session that a request is about.
    fn has_turn_of(&self, request: &ModelRequest) -> bool {
        let session = match request {
            ModelRequest::Generate(request) => request.session,
            ModelRequest::ForkSession(session) | ModelRequest::CloseSession(session) => Some(*session),
            _ => None,
        };
        session.is_some() && self.running.iter().any(|running| running.work.turn().map(|turn| turn.name) == session)
    }

    /// Whether bytes that are not there now will be once what runs has ended; turns of sessions leave their cache behind.
    fn will_have(&self, needed: u64) -> bool {
        let plain = self.running.iter().filter(|running| running.work.turn().is_none());
        let held: u64 = plain.map(|running| running.work.sequence().account().used()).sum();
        !self.running.is_empty() && needed <= self.model.pool().available().saturating_add(held)
    }

    /// Takes a request one token further; answers it if that was the last one.
    fn advance(&mut self, number: u64, events: &Events) -> Result<Stepped> {
        let place = self.running.iter().position(|running| running.number == number);
        let place = place.ok_or_else(|| Error::Internal(format!("no request {number} is running")))?;
        let advanced = match &mut self.running[place].work {
            Work::Generation(generation, _) => generation.advance(&self.model, events),
            Work::Tracing(tracing) => tracing.advance(&self.model, events),
            Work::Reading(..) | Work::Ready(..) => {
                Err(Error::Internal(format!("the prompt of request {number} is not read yet")))
            }
            Work::Scoring(scoring) => match scoring.advance(events) {
                Ok(done) => Ok(done.then_some(Finish::Length)),
                Err(error) => Err(error),
            },
        };
        let finish = match advanced {
            Ok(None) => return Ok(Stepped::Running),
            Ok(Some(finish)) => finish,
            Err(error) => {
                self.running.remove(place);
                return Err(error);
            }
        };
        match self.running.remove(place).work {
            Work::Generation(generation, turn) => self.answer(*generation, turn, finish, events)?,
            Work::Tracing(tracing) => tracing.finish(finish, events)?,
            Work::Scoring(_) | Work::Reading(..) | Work::Ready(..) => {}
        }
        // The answer is out; what is wrong with a device is said to the next request.
        let _ = self.model.give_back();
        heap::give_back_beyond(self.slack);
        Ok(Stepped::Finished)
    }

    /// Answers a generation, which a session keeps where it is a turn.
    fn answer(
        &mut self,
        generation: Generation<B>,
        turn: Option<Box<Open<B>>>,
        finish: Finish,
        events: &Events,
    ) -> Result<()> {
        let (answered, sequence) = generation.end(finish, events)?;
        let event = Event::Done(Box::new(answered.result(&sequence)));
        if let Some(turn) = turn {
            self.sessions.end(*turn, &answered, sequence)?;
        }
        events.finish(event);
        Ok(())
    }

    /// Decodes the tokens of all generations and scores together; gives the requests that cannot go on. The full caches beside scores go
    /// by themselves, since their time is in no report.
    fn decode(&mut self) -> Vec<(u64, Error)> {
        let (mut own, mut full) = (SharedStep::default(), SharedStep::default());
        for Running { number, work } in &mut self.running {
            match work {
                Work::Generation(generation, _) => {
                    let greedy = generation.is_greedy();
                    let Generation { sequence, logits, next, likeliest, .. } = &mut **generation;
                    if let Some(token) = next.take() {
                        let likeliest = greedy.then_some(likeliest);
                        own.push(*number, token, Next { sequence, logits, likeliest, time: None });
                    }
                }
                Work::Scoring(scoring) => {
                    if let Some((token, next, beside)) = scoring.take_next() {
                        own.push(*number, token, next);
                        beside.into_iter().for_each(|next| full.push(*number, token, next));
                    }
                }
                Work::Reading(..) | Work::Ready(..) | Work::Tracing(_) => {}
            }
        }
        let mut failed = own.decode(&self.model);
        failed.extend(full.decode(&self.model));
        failed
    }
}

/// Sequences that take a step together.
struct SharedStep<'a, M: Memory> {
    numbers: Vec<u64>,
    tokens: Vec<u32>,
    nexts: Vec<Next<'a, M>>,
}

impl<M: Memory> Default for SharedStep<'_, M> {
    fn default() -> Self {
        SharedStep { numbers: Vec::new(), tokens: Vec::new(), nexts: Vec::new() }
    }
}

impl<'a, M: Memory> SharedStep<'a, M> {
    fn push(&mut self, number: u64, token: u32, next: Next<'a, M>) {
        self.numbers.push(number);
        self.tokens.push(token);
        self.nexts.push(next);
    }

    /// Gives the requests that cannot go on.
    fn decode<B: Backend<Memory = M>>(mut self, model: &Model<B>) -> Vec<(u64, Error)> {
        if self.tokens.is_empty() {
            return Vec::new();
        }
        let start = Instant::now();
        // Logits come from a device all at once, if one sequence wants its own.
        let likeliest = self.nexts.iter().all(|next| next.likeliest.is_some());
        let mut sequences: Vec<_> = self.nexts.iter_mut().map(|next| &mut *next.sequence).collect();
        let decoded = model.decode_step(&self.tokens, &mut sequences, likeliest);
        let took = milliseconds(start.elapsed());
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return self.numbers.into_iter().map(|number| (number, error.clone())).collect(),
        };
        let take = |((number, next), decoded): ((u64, Next<'_, M>), Result<Decoded>)| match decoded {
            Ok(decoded) => {
                match (decoded, next.likeliest) {
                    (Decoded::Logits(logits), _) => *next.logits = logits,
                    (Decoded::Likeliest(token), Some(to)) => *to = Some(token),
                    (Decoded::Likeliest(_), None) => {
                        return Some((number, Error::Internal("a token in place of logits".into())));
                    }
                }
                next.time.into_iter().for_each(|time| *time += took);
                None
            }
            Err(error) => Some((number, error)),
        };
        self.numbers.into_iter().zip(self.nexts).zip(decoded).filter_map(take).collect()
    }
}

/// The parts of a model that count.
struct TextAndImages {
    tokenizer: Arc<Tokenizer>,
    /// None of a text-only model.
    images: Option<ImageCounter>,
}

impl Codec for TextAndImages {
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        self.tokenizer.encode(text, special)
    }

    fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String> {
        self.tokenizer.decode(tokens, skip_special)
    }

    fn image_tokens(&self, asked: &Asked) -> Result<ImageTokens> {
        match &self.images {
            Some(counter) => counter.count_asked(asked),
            None => Err(Error::Prompt { reason: "this model reads no images".into() }),
        }
    }
}
