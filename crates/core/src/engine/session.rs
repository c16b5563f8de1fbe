//! Conversations that keep their cache from turn to turn.
//!
//! A turn brings new messages only. Text that the template adds to the text in the cache is read on top of what is
//! kept; where the template writes earlier turns differently (or a turn was broken off while its prompt was read), the whole
//! conversation is read anew, so nothing is ever lost but time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;

use super::generate::{Answered, PreparedPrompt, queued};
use super::ticket::Events;
use super::{positions, prompt};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::Method;
use crate::metrics;
use crate::model::{Features, ImagePlan, Model, Prompt};
use crate::sequence::Sequence;
use crate::text::{Content, Encoded, Message, Part};
use crate::wire::{Event, GenerateRequest, Medium, SessionId, SourceText, Timings};

/// Most sessions of one model.
const MAX_SESSIONS: usize = 1024;

/// The sessions of a model by their names.
pub(super) struct Sessions<B: Backend> {
    open: HashMap<SessionId, Session<B>>,
}

struct Session<B: Backend> {
    method: Option<Arc<Method>>,
    messages: Vec<Message>,
    images: Vec<Arc<[u8]>>,
    /// The images and videos in the order of their placeholders.
    order: Vec<Medium>,
    state: Option<State<B>>,
    /// Shared with the copy that a turn works on.
    live: Arc<metrics::One>,
}

/// A cache that a turn can be read on top of.
struct State<B: Backend> {
    sequence: Sequence<B::Memory>,
    /// The text that the sequence has seen, and `pending` after it.
    text: String,
    /// Tokens of `text`, placeholders not expanded.
    tokens: Vec<u32>,
    /// The last token of the answer, if it is not in the cache yet.
    pending: Option<u32>,
    /// The form of each image and video in `text`, in the order of their placeholders.
    plans: Vec<ImagePlan>,
}

impl<B: Backend> Default for Sessions<B> {
    fn default() -> Self {
        Sessions { open: HashMap::new() }
    }
}

impl<B: Backend> Sessions<B> {
    /// Opens a session; gives its name, which nobody else knows.
    pub(super) fn open(&mut self, model: &Model<B>, method: Option<Arc<Method>>) -> Result<SessionId> {
        self.require_room()?;
        // For its errors: a calibration of another model, say.
        model.new_sequence_with(method.clone(), true)?;
        let name = SessionId::random()?;
        let session = Session {
            method,
            messages: Vec::new(),
            images: Vec::new(),
            order: Vec::new(),
            state: None,
            live: Arc::new(metrics::SESSIONS.one()),
        };
        self.open.insert(name, session);
        Ok(name)
    }

    fn require_room(&self) -> Result<()> {
        if self.open.len() >= MAX_SESSIONS {
            return Err(refuse(format!("{MAX_SESSIONS} sessions are open; close some")));
        }
        Ok(())
    }

    /// Opens a session that goes on from where another is; gives its name. The cache is there once until one of the two
    /// changes it.
    pub(super) fn fork(&mut self, of: SessionId) -> Result<SessionId> {
        self.require_room()?;
        let fork = self.open.get(&of).ok_or_else(unknown)?.fork()?;
        let name = SessionId::random()?;
        self.open.insert(name, fork);
        Ok(name)
    }

    pub(super) fn close(&mut self, name: SessionId) -> Result<()> {
        self.open.remove(&name).map(|_| ()).ok_or_else(unknown)
    }

    /// Begins a turn: the request's messages come after those of the session. When it fails, the session is as before; when it goes
    /// no further, the session has lost its cache and nothing else. One turn of a session at a time.
    pub(super) fn begin(
        &mut self,
        model: &Model<B>,
        name: SessionId,
        request: &GenerateRequest,
        images: &[Vec<u8>],
        events: &Events,
        alone: bool,
    ) -> Result<(PreparedPrompt<B>, Open<B>)> {
        let session = self.open.get_mut(&name).ok_or_else(unknown)?;
        // Built beside the old one, so that neither an error nor a panic leaves half a turn.
        let mut next = session.with(request, images);
        match next.prepare(model, request, events, alone) {
            Ok((turn, text, plans)) => {
                let tokens = turn.context.clone();
                Ok((turn, Open { name, next, text, tokens, plans }))
            }
            Err(error) => {
                session.state = next.state;
                Err(error)
            }
        }
    }

    /// Ends a turn with its answer, which later turns follow.
    pub(super) fn end(&mut self, turn: Open<B>, answered: &Answered, sequence: Sequence<B::Memory>) -> Result<()> {
        let Open { name, mut next, text, mut tokens, plans } = turn;
        let session = self.open.get_mut(&name).ok_or_else(unknown)?;
        let answer = json!({ "role": "assistant", "content": answered.text });
        let answer = serde_json::from_value(answer).map_err(|error| Error::Internal(error.to_string()))?;
        next.messages.push(answer);
        tokens.extend(&answered.tokens);
        // One that was left in the middle of its work cannot be read on: the next turn reads the whole conversation.
        next.state = sequence.is_sound().then(|| State {
            sequence,
            text: text + &answered.raw,
            tokens,
            pending: answered.tokens.last().copied().filter(|_| answered.pending),
            plans,
        });
        *session = next;
        Ok(())
    }
}

/// A turn on its way.
pub(super) struct Open<B: Backend> {
    pub(super) name: SessionId,
    /// The session as it will be, without the answer.
    next: Session<B>,
    /// The conversation up to the answer.
    text: String,
    /// Its tokens, placeholders not expanded.
    tokens: Vec<u32>,
    /// The form of its images.
    plans: Vec<ImagePlan>,
}

fn unknown() -> Error {
    refuse("no such session is open; it has been closed, or is of another model")
}

impl<B: Backend> State<B> {
    fn fork(&self) -> Result<State<B>> {
        let (text, tokens) = (self.text.clone(), self.tokens.clone());
        Ok(State { sequence: self.sequence.fork()?, text, tokens, pending: self.pending, plans: self.plans.clone() })
    }
}

impl<B: Backend> Session<B> {
    fn fork(&self) -> Result<Session<B>> {
        Ok(Session {
            method: self.method.clone(),
            messages: self.messages.clone(),
            images: self.images.clone(),
            order: self.order.clone(),
            state: self.state.as_ref().map(State::fork).transpose()?,
            live: Arc::new(metrics::SESSIONS.one()),
        })
    }

    /// How many videos the messages show.
    fn videos(&self) -> usize {
        let video = |medium: &Medium| match medium {
            Medium::Image(_) => None,
            Medium::Video(video) => Some(video.frames.start),
        };
        self.order.iter().filter_map(video).collect::<HashSet<_>>().len()
    }

    /// The session with the messages and images of a turn. Takes the cache along.
    fn with(&mut self, request: &GenerateRequest, images: &[Vec<u8>]) -> Session<B> {
        let (first, first_video) = (self.images.len(), self.videos());
        let mut messages = self.messages.clone();
        if let SourceText::Messages(new) = &request.source.text {
            for message in new {
                let mut message = message.clone();
                if let Content::Parts(parts) = &mut message.content {
                    for part in parts {
                        match part {
                            Part::Text { .. } => {}
                            Part::Image { index } => *index += first,
                            Part::Video { index } => *index += first_video,
                        }
                    }
                }
                messages.push(message);
            }
        }
        let new = request.source.order.iter().map(|medium| medium.beginning_at(first + medium.images().start));
        let order = self.order.iter().cloned().chain(new).collect();
        let images =
            self.images.iter().cloned().chain(images.iter().map(|image| Arc::from(image.as_slice()))).collect();
        let (method, live) = (self.method.clone(), self.live.clone());
        Session { method, messages, images, order, state: self.state.take(), live }
    }

    /// Takes the cache out; an error puts it back. With the turn come the text that it reads and the form of all images.
    fn prepare(
        &mut self,
        model: &Model<B>,
        request: &GenerateRequest,
        events: &Events,
        alone: bool,
    ) -> Result<(PreparedPrompt<B>, String, Vec<ImagePlan>)> {
        let mut timings = queued(events);
        let plans = prompt::plans(model, &self.images, &self.order)?;
        let chat = prompt::render(model, &self.messages, true)?;
        let Encoded { tokens: whole, pictures } = prompt::encode(model, &chat, &plans, request.source.special)?;
        let text = chat.text;
        // The cache is used when the new text goes on from it, in text, in tokens and in the form of images, which may be another once
        // there are several.
        let goes_on = |state: &State<B>| {
            let seen = text.starts_with(&state.text) && whole.starts_with(&state.tokens);
            let pieces = pictures.partition_point(|place| *place < state.tokens.len());
            let images = state.plans.iter().map(|plan| plan.pieces().count());
            seen && whole.len() > state.tokens.len()
                && plans.starts_with(&state.plans)
                && pieces == images.sum::<usize>()
        };
        let state = match self.state.take().filter(goes_on) {
            Some(state) => state,
            None => State {
                sequence: model.new_sequence_with(self.method.clone(), true)?,
                text: String::new(),
                tokens: Vec::new(),
                pending: None,
                plans: Vec::new(),
            },
        };
        let past = state.tokens.len();
        let rest = Encoded {
            tokens: whole[past..].to_vec(),
            pictures: pictures.iter().filter(|place| **place >= past).map(|place| place - past).collect(),
        };
        match self.read(
            model,
            &state,
            &rest,
            plans.get(state.plans.len()..).unwrap_or(&[]),
            request,
            events,
            &mut timings,
            alone,
        ) {
            Ok((prompt, features, room)) => {
                let turn = PreparedPrompt {
                    prompt,
                    features,
                    sequence: state.sequence,
                    context: whole,
                    history: state.tokens,
                    room,
                    trim: true,
                    sampler: request.sampler.clone(),
                    stop: request.stop.clone(),
                    ignore_eos: request.ignore_eos,
                    logprobs: request.logprobs,
                    timings,
                    read: 0,
                    silent: false,
                };
                Ok((turn, text, plans))
            }
            Err(error) => {
                // Nothing has touched the cache yet.
                self.state = (!state.tokens.is_empty()).then_some(state);
                Err(error)
            }
        }
    }

    /// The prompt of a turn, with the token before it that is not in the cache yet; its features; how much may follow.
    #[allow(clippy::too_many_arguments)]
    fn read(
        &self,
        model: &Model<B>,
        state: &State<B>,
        rest: &Encoded,
        plans: &[ImagePlan],
        request: &GenerateRequest,
        events: &Events,
        timings: &mut Timings,
        alone: bool,
    ) -> Result<(Prompt, Vec<Features<B>>, usize)> {
        let order = &self.order[state.plans.len()..];
        let mut prompt = prompt::expand(model, rest, plans, order.len())?;
        if let Some(pending) = state.pending {
            prompt.continue_from(pending);
        }
        let room = positions::room(&state.sequence, &prompt, request.max_tokens, model.max_positions())?;
        if !alone {
            prompt::admit(&state.sequence, &prompt)?;
        }
        let mut used: Vec<Arc<[u8]>> = Vec::new();
        let mut each = Vec::with_capacity(order.len());
        for medium in order {
            each.push(medium.beginning_at(used.len()));
            used.extend_from_slice(&self.images[medium.images()]);
        }
        let all = self.order.len();
        let features = prompt::features(model, &used, &each, all, state.sequence.pictures(), events, timings)?;
        Ok((prompt, features, room))
    }
}

/// The event that ends the opening or closing of a session.
pub(super) fn done(session: SessionId) -> Event {
    Event::Session { session }
}
