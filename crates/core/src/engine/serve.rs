//! The [`Runner`] over a [`Model`].

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::event::Event;
use super::generate::generate;
use super::profile::profile;
use super::request::ModelRequest;
use super::runner::{Codec, OnProgress, Runner};
use super::score::score;
use super::session::{self, Sessions};
use super::ticket::Events;
use super::trace::trace;
use crate::error::{Error, Result};
use crate::model::{LoadOptions, Model};
use crate::text::Tokenizer;

struct ModelRunner {
    model: Model,
    sessions: Sessions,
}

pub(super) fn load(options: &LoadOptions, progress: &mut OnProgress) -> Result<Box<dyn Runner>> {
    let mut report = |step: crate::model::Progress| {
        progress(Event::Progress { stage: step.stage, done: step.done, total: step.total })
    };
    Ok(Box::new(ModelRunner { model: Model::load(options, &mut report)?, sessions: Sessions::default() }))
}

pub(super) fn to_json(info: &impl Serialize) -> Result<Value> {
    serde_json::to_value(info).map_err(|error| Error::Internal(error.to_string()))
}

impl Runner for ModelRunner {
    fn info(&self) -> Result<Value> {
        to_json(self.model.info())
    }

    fn codec(&self) -> Arc<dyn Codec> {
        self.model.tokenizer().clone()
    }

    fn run(&mut self, request: ModelRequest, images: Vec<Vec<u8>>, events: &Events) -> Result<()> {
        match request {
            ModelRequest::Generate(request) => match request.session {
                Some(session) => self.sessions.turn(&mut self.model, session, request, images, events),
                None => generate(&mut self.model, request, images, events),
            },
            ModelRequest::Score(request) => score(&mut self.model, request, images, events),
            ModelRequest::Profile(request) => profile(&mut self.model, request, images, events),
            ModelRequest::Trace(request) => trace(&mut self.model, request, images, events),
            ModelRequest::OpenSession(method) => {
                let session = self.sessions.open(&self.model, method)?;
                events.finish(session::done(session));
                Ok(())
            }
            ModelRequest::CloseSession(session) => {
                self.sessions.close(session)?;
                events.finish(session::done(session));
                Ok(())
            }
        }
    }

    /// Weights never change; the sequence of a request, or of its session, has been dropped by the panic.
    fn is_sound(&self) -> bool {
        true
    }
}

impl Codec for Tokenizer {
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        Tokenizer::encode(self, text, special)
    }

    fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String> {
        Tokenizer::decode(self, tokens, skip_special)
    }
}
