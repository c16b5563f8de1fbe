//! Prefixes: prompts that were read once and that questions are asked about, one after the other or together, each on a copy of the cache that
//! shares its entries until it changes them.
//!
//! A prefix ends where its text is the same whatever is asked: the tokens that several trial questions have in common. A method that needs no
//! question acts when the prefix is read; one that does rests until a question comes (`Sequence::begin_prefix`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::clock::milliseconds;
use super::generate::{Generation, PreparedPrompt, queued};
use super::ticket::Events;
use super::{positions, prompt, snapshot};
use crate::backend::Backend;
use crate::cache::{MemoryReport, Piece, PieceKind};
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::Method;
use crate::metrics;
use crate::model::{ImagePlan, Model, PlanPart};
use crate::sample::SamplerOptions;
use crate::sequence::Sequence;
use crate::text::{Content, Encoded, Message, Part, SpecialTokens, StopStrings};
use crate::wire::{AskRequest, Event, PrefillRequest, SessionId, SourceText, Timings, Usage};

/// Most prefixes of one model.
const MAX_PREFIXES: usize = 1024;
/// Questions whose common tokens a prefix ends with: their first characters are of the kinds that tokenizers tell apart.
const TRIALS: [&str; 9] = ["a", "The", "7", " a", "\n", "?", "(", "\u{e9}", "\u{6f22}"];

/// The prefixes of a model by their names.
pub(super) struct Prefixes<B: Backend> {
    open: HashMap<SessionId, Prefix<B>>,
}

impl<B: Backend> Default for Prefixes<B> {
    fn default() -> Self {
        Prefixes { open: HashMap::new() }
    }
}

struct Prefix<B: Backend> {
    text: Text,
    sequence: Sequence<B::Memory>,
    _live: metrics::One,
}

/// All of a prefix but its cache.
struct Text {
    said: Said,
    special: SpecialTokens,
    /// Tokens that the sequence has seen, placeholders not expanded.
    tokens: Vec<u32>,
    /// The form of its images.
    plans: Vec<ImagePlan>,
    image_tokens: usize,
    method: Option<Arc<Method>>,
    /// The method as it was asked for.
    cache: Option<Value>,
    /// Whether the method waits for a question.
    rests: bool,
}

/// The text that a question goes on from.
#[derive(Clone)]
enum Said {
    Messages(Vec<Message>),
    Raw(String),
}

impl Said {
    /// With a question behind it: the last message goes on if it is the user's, else the question is a message.
    fn with(&self, question: &str) -> Said {
        let mut messages = match self {
            Said::Raw(text) => return Said::Raw(format!("{text}{question}")),
            Said::Messages(messages) => messages.clone(),
        };
        let own = messages.last_mut().filter(|last| last.role == "user");
        match own.map(|last| &mut last.content) {
            Some(Content::Text(text)) => text.push_str(question),
            Some(Content::Parts(parts)) => match parts.last_mut() {
                Some(Part::Text { text }) => text.push_str(question),
                _ => parts.push(Part::Text { text: question.to_owned() }),
            },
            None => messages.push(Message {
                role: "user".into(),
                content: Content::Text(question.to_owned()),
                tool_calls: Vec::new(),
            }),
        }
        Said::Messages(messages)
    }

    fn encode<B: Backend>(&self, model: &Model<B>, plans: &[ImagePlan], special: SpecialTokens) -> Result<Encoded> {
        match self {
            Said::Raw(text) => prompt::encode_raw(model, text, plans),
            Said::Messages(messages) => prompt::encode(model, &prompt::render(model, messages, true)?, plans, special),
        }
    }

    /// The tokens that come before every question.
    fn before_questions<B: Backend>(
        &self,
        model: &Model<B>,
        plans: &[ImagePlan],
        special: SpecialTokens,
    ) -> Result<Encoded> {
        let mut common: Option<Encoded> = None;
        for trial in TRIALS {
            let with = self.with(trial).encode(model, plans, special)?;
            let Some(common) = &mut common else {
                common = Some(with);
                continue;
            };
            let same = common.tokens.iter().zip(&with.tokens).take_while(|(a, b)| a == b).count();
            common.tokens.truncate(same);
            let places = common.pictures.iter().zip(&with.pictures).take_while(|(a, b)| a == b && **a < same).count();
            common.pictures.truncate(places);
        }
        let common = common.unwrap_or_default();
        let pieces: usize = plans.iter().map(|plan| plan.pieces().count()).sum();
        if common.tokens.is_empty() || common.pictures.len() != pieces {
            let reason = "what it begins with depends on the question that follows, by its chat template or because pictures come behind the \
                          text; put pictures first, or use generate";
            return Err(Error::Prompt { reason: reason.into() });
        }
        Ok(common)
    }
}

/// A prefix whose prompt is on its way.
pub(super) struct Opening(Text);

impl<B: Backend> Prefixes<B> {
    fn require_room(&self) -> Result<()> {
        match self.open.len() {
            MAX_PREFIXES.. => Err(refuse(format!("{MAX_PREFIXES} prefixes are open; dispose of some"))),
            _ => Ok(()),
        }
    }

    fn get(&self, name: SessionId) -> Result<&Prefix<B>> {
        self.open
            .get(&name)
            .ok_or_else(|| refuse("no such prefix is open; it has been disposed of, or is of another model"))
    }

    pub(super) fn close(&mut self, name: SessionId) -> Result<()> {
        self.get(name)?;
        self.open.remove(&name);
        Ok(())
    }

    /// Begins to read a prompt that becomes a prefix.
    pub(super) fn begin(
        &self,
        model: &Model<B>,
        request: &PrefillRequest,
        images: &[Vec<u8>],
        events: &Events,
        alone: bool,
    ) -> Result<(PreparedPrompt<B>, Opening)> {
        self.require_room()?;
        let PrefillRequest { source, method, cache } = request;
        let mut timings = queued(events);
        let said = match &source.text {
            SourceText::Messages(messages) => Said::Messages(messages.clone()),
            SourceText::Raw(text) => Said::Raw(text.clone()),
        };
        let plans = prompt::plans(model, images, &source.order)?;
        let Encoded { tokens, pictures } = said.before_questions(model, &plans, source.special)?;
        let prompt = model.expand_at(&tokens, &pictures, &plans, source.order.len())?;
        let mut sequence = model.new_sequence_with(method.clone(), true)?;
        let rests = sequence.begin_prefix(method.as_ref().map_or("", |method| &method.name))?;
        let room = positions::room(&sequence, &prompt, Some(1), model.max_positions())?;
        if !alone {
            prompt::admit(&sequence, &prompt)?;
        }
        let (order, all) = (&source.order, source.order.len());
        let features = prompt::features(model, images, order, all, sequence.pictures(), events, &mut timings)?;
        let text = Text {
            said,
            special: source.special,
            tokens: tokens.clone(),
            plans,
            image_tokens: prompt.image_tokens,
            method: method.clone(),
            cache: cache.clone(),
            rests,
        };
        let ready = PreparedPrompt {
            prompt,
            features,
            sequence,
            context: tokens,
            history: Vec::new(),
            room,
            trim: true,
            sampler: SamplerOptions::default(),
            stop: StopStrings::new(Vec::new())?,
            ignore_eos: true,
            logprobs: None,
            timings,
            read: 0,
            silent: false,
        };
        Ok((ready, Opening(text)))
    }

    /// Keeps a prompt that has been read, and says so.
    pub(super) fn end(&mut self, Opening(text): Opening, read: Generation<B>, events: &Events) -> Result<()> {
        let (sequence, timings) = read.into_prefix(events);
        let event = self.keep(Prefix { text, sequence, _live: metrics::SESSIONS.one() }, timings)?;
        events.finish(event);
        Ok(())
    }

    fn keep(&mut self, prefix: Prefix<B>, timings: Timings) -> Result<Event> {
        self.require_room()?;
        let usage = Usage {
            prompt_tokens: prefix.sequence.next_position() as usize,
            image_tokens: prefix.text.image_tokens,
            ..Usage::default()
        };
        let memory: Box<MemoryReport> = Box::new(prefix.sequence.memory());
        let name = SessionId::random()?;
        let waits = prefix.text.rests;
        self.open.insert(name, prefix);
        Ok(Event::Prefilled { prefix: name, usage, timings, memory, waits })
    }

    /// Begins to answer a question, which leaves the prefix as it is.
    pub(super) fn ask(
        &self,
        model: &Model<B>,
        request: &AskRequest,
        events: &Events,
        alone: bool,
    ) -> Result<PreparedPrompt<B>> {
        let timings = queued(events);
        let Prefix { text, sequence, .. } = self.get(request.prefix)?;
        let whole = text.said.with(&request.text).encode(model, &text.plans, text.special)?;
        let past = text.tokens.len();
        if !whole.tokens.starts_with(&text.tokens) || whole.pictures.last().is_some_and(|place| *place >= past) {
            let reason =
                "it changes tokens of the prefix before it; begin it with a space or a new line, or use generate";
            return Err(Error::Prompt { reason: reason.into() });
        }
        let rest = &whole.tokens[past..];
        let prompt = model.expand_at(rest, &[], &[], 0)?;
        let sequence = sequence.fork()?;
        let room = positions::room(&sequence, &prompt, request.max_tokens, model.max_positions())?;
        if !alone {
            prompt::admit(&sequence, &prompt)?;
        }
        Ok(PreparedPrompt {
            prompt,
            features: Vec::new(),
            sequence,
            history: text.tokens.clone(),
            trim: matches!(text.said, Said::Messages(_)),
            context: whole.tokens,
            room,
            sampler: request.sampler.clone(),
            stop: request.stop.clone(),
            ignore_eos: request.ignore_eos,
            logprobs: None,
            timings,
            read: 0,
            silent: false,
        })
    }

    /// Writes a prefix to a file; gives its bytes.
    pub(super) fn save(&self, model: &Model<B>, name: SessionId, path: &Path) -> Result<u64> {
        let Prefix { text, sequence, .. } = self.get(name)?;
        // A method that rests has stored nothing yet.
        if let Some(method) = text.method.as_ref().filter(|_| !text.rests) {
            method.require_saved()?;
        }
        let header = Header {
            library: env!("CARGO_PKG_VERSION").into(),
            model: ModelId::of(model)?,
            cache: text.cache.clone(),
            rests: text.rests,
            said: match &text.said {
                Said::Raw(text) => SavedText::Prompt(text.clone()),
                Said::Messages(messages) => SavedText::Messages(messages.iter().map(written).collect()),
            },
            special: text.special == SpecialTokens::Parse,
            tokens: text.tokens.clone(),
            plans: text.plans.iter().map(|plan| plan.0.iter().map(SavedPart::of).collect()).collect(),
            image_tokens: text.image_tokens,
        };
        let header = serde_json::to_vec(&header).map_err(|error| Error::Internal(error.to_string()))?;
        snapshot::write(path, &header, |to| sequence.save(to))
    }

    /// Opens a prefix from a file that this model, by [`ModelId`], has saved.
    pub(super) fn restore(&mut self, model: &Model<B>, path: &Path, events: &Events) -> Result<()> {
        self.require_room()?;
        let mut timings = queued(events);
        let start = std::time::Instant::now();
        let mut file = snapshot::open(path, &|| events.check())?;
        let bad = |reason: String| snapshot::corrupt(path, reason);
        let header = std::mem::take(&mut file.header);
        let header: Header = serde_json::from_slice(&header).map_err(|error| bad(format!("its header: {error}")))?;
        header.model.require(&ModelId::of(model)?, path)?;
        let method = header.cache.as_ref().map_or(Ok(None), Method::parse)?;
        if let Some(method) = method.as_ref().filter(|_| !header.rests) {
            method.require_saved()?;
        }
        let vocab = model.info().vocab_size as u32;
        let plans: Vec<ImagePlan> = header
            .plans
            .into_iter()
            .map(plan)
            .collect::<Option<_>>()
            .ok_or_else(|| bad("a form of an image that there is not".into()))?;
        if header.tokens.is_empty() || header.tokens.len() > model.max_positions() {
            return Err(bad(format!("{} tokens", header.tokens.len())));
        }
        // Placeholders of images may be behind the vocabulary.
        if let Some(token) = header.tokens.iter().find(|token| **token >= vocab && plans.is_empty()) {
            return Err(bad(format!("token {token} of {vocab}")));
        }
        let said = match header.said {
            SavedText::Prompt(text) => Said::Raw(text),
            SavedText::Messages(messages) => {
                let read = serde_json::from_value::<Vec<Message>>(Value::Array(messages));
                Said::Messages(read.map_err(|error| bad(format!("its messages: {error}")))?)
            }
        };
        let mut sequence = model.new_sequence_with(method.clone(), true)?;
        let rests = sequence.begin_prefix(method.as_ref().map_or("", |method| &method.name))?;
        if rests != header.rests {
            return Err(bad("a method that waits for a question where it does not".into()));
        }
        sequence.account().admit(crate::cache::Get::left(&file))?;
        sequence.restore(&mut file, model.max_positions())?;
        let text = Text {
            said,
            special: if header.special { SpecialTokens::Parse } else { SpecialTokens::Text },
            tokens: header.tokens,
            plans,
            image_tokens: header.image_tokens,
            method,
            cache: header.cache,
            rests,
        };
        timings.prefill = milliseconds(start.elapsed());
        timings.total = milliseconds(events.submitted().elapsed());
        let event = self.keep(Prefix { text, sequence, _live: metrics::SESSIONS.one() }, timings)?;
        events.finish(event);
        Ok(())
    }
}

/// The part of a snapshot that says what it is of.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    /// The version of the library that wrote it, for people.
    library: String,
    model: ModelId,
    cache: Option<Value>,
    rests: bool,
    said: SavedText,
    /// Whether special tokens that messages spell are those tokens.
    special: bool,
    tokens: Vec<u32>,
    plans: Vec<Vec<SavedPart>>,
    image_tokens: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum SavedText {
    Messages(Vec<Value>),
    Prompt(String),
}

/// The model that entries are of: another one would read others from the same prompt.
#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ModelId {
    fingerprint: String,
    tokenizer: String,
    /// How linear layers are stored, and how many of them.
    weights: std::collections::BTreeMap<String, usize>,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Of entries as they come.
    format: String,
    rotated_values: bool,
}

impl ModelId {
    fn of<B: Backend>(model: &Model<B>) -> Result<ModelId> {
        let info = model.info();
        Ok(ModelId {
            fingerprint: info.fingerprint.clone(),
            tokenizer: model.tokenizer().digest()?,
            weights: info.weight_formats.iter().map(|(format, count)| ((*format).to_owned(), *count)).collect(),
            layers: info.layers,
            kv_heads: info.kv_heads,
            head_dim: info.head_dim,
            format: format!("{:?}", model.cache_format()).to_lowercase(),
            rotated_values: info.rotated_values,
        })
    }

    fn require(&self, own: &ModelId, path: &Path) -> Result<()> {
        let differs = |what: &str, found: &dyn std::fmt::Debug, own: &dyn std::fmt::Debug| {
            Err(snapshot::other_model(path, format!("its {what} is {found:?}, and the model's is {own:?}")))
        };
        match () {
            () if self.fingerprint != own.fingerprint => differs("fingerprint", &self.fingerprint, &own.fingerprint),
            () if self.tokenizer != own.tokenizer => differs("tokenizer", &self.tokenizer, &own.tokenizer),
            () if self.weights != own.weights => differs("format of weights", &self.weights, &own.weights),
            () if self.format != own.format => differs("format of entries", &self.format, &own.format),
            () if self.rotated_values != own.rotated_values => {
                differs("`rotateValues`", &self.rotated_values, &own.rotated_values)
            }
            () if self != own => {
                let shape = |id: &ModelId| (id.layers, id.kv_heads, id.head_dim);
                differs("shape", &shape(self), &shape(own))
            }
            () => Ok(()),
        }
    }
}

/// A part of the form of an image.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum SavedPart {
    Text(String),
    /// Its kind and its numbers, rows and columns of its cells, and the positions that it takes.
    Piece(u8, [usize; 2], [usize; 2], usize),
}

impl SavedPart {
    fn of(part: &PlanPart) -> SavedPart {
        match part {
            PlanPart::Text(text) => SavedPart::Text(text.clone()),
            PlanPart::Piece { piece: Piece { kind, rows, columns }, tokens } => {
                let (kind, numbers) = match *kind {
                    PieceKind::Base => (0, [0, 0]),
                    PieceKind::Tile { row, column } => (1, [row, column]),
                    PieceKind::Tiles { down, across } => (2, [down, across]),
                    PieceKind::End => (3, [0, 0]),
                    PieceKind::Frame { frame, phase } => (4, [frame, phase as usize]),
                };
                SavedPart::Piece(kind, numbers, [*rows, *columns], *tokens)
            }
        }
    }
}

fn plan(parts: Vec<SavedPart>) -> Option<ImagePlan> {
    let part = |part| {
        Some(match part {
            SavedPart::Text(text) => PlanPart::Text(text),
            SavedPart::Piece(kind, [a, b], [rows, columns], tokens) => {
                let kind = match kind {
                    0 => PieceKind::Base,
                    1 => PieceKind::Tile { row: a, column: b },
                    2 => PieceKind::Tiles { down: a, across: b },
                    3 => PieceKind::End,
                    4 => PieceKind::Frame { frame: a, phase: u32::try_from(b).ok()? },
                    _ => return None,
                };
                PlanPart::Piece { piece: Piece { kind, rows, columns }, tokens }
            }
        })
    };
    parts.into_iter().map(part).collect::<Option<Vec<_>>>().map(ImagePlan)
}

/// A message as requests have it.
fn written(message: &Message) -> Value {
    let part = |part: &Part| match part {
        Part::Text { text } => json!({ "type": "text", "text": text }),
        Part::Image { index } => json!({ "type": "image", "index": index }),
        Part::Video { index } => json!({ "type": "video", "index": index }),
    };
    let content = match &message.content {
        Content::Text(text) => Value::String(text.clone()),
        Content::Parts(parts) => Value::Array(parts.iter().map(part).collect()),
    };
    let mut fields = Map::new();
    fields.insert("role".into(), message.role.clone().into());
    fields.insert("content".into(), content);
    Value::Object(fields)
}
