//! A generation that also says what the cache held, and by what order its entries were chosen.

use std::sync::Arc;

use serde_json::json;

use super::generate::{Generation, PreparedPrompt};
use super::grids::{Picture, grids, pictures};
use super::ticket::Events;
use crate::backend::Backend;
use crate::cache::{Kept, Memory};
use crate::error::{Error, Result};
use crate::method::{Method, Record};
use crate::model::Model;
use crate::sequence::Sequence;
use crate::wire::{Event, Finish, GenerateRequest, Trace, TraceLayer, TracePlan, TraceStep};

/// A generation that is watched. Its record does not count as memory of the cache.
pub(super) struct Tracing<B: Backend> {
    pub(super) generation: Generation<B>,
    pictures: Vec<Picture>,
    /// Entries left after the prompt, once the method has acted.
    kept: Option<Vec<Vec<Kept>>>,
    steps: Vec<TraceStep>,
    /// The sequence has gone further, and the method may not have acted yet.
    unseen: bool,
}

impl<B: Backend> Tracing<B> {
    /// Reads the prompt, as a `generate` request does. Without a method, importance comes from PrefixKV's default score, and
    /// everything is kept.
    pub(super) fn start(
        model: &Model<B>,
        request: &GenerateRequest,
        images: &[Vec<u8>],
        events: &Events,
        alone: bool,
    ) -> Result<Tracing<B>> {
        let method = match &request.method {
            Some(method) => Some(method.clone()),
            None => probe()?,
        };
        let mut turn = PreparedPrompt::prepare(model, request, method, images, events, alone)?;
        let pictures = pictures(model, images, &request.source.order)?;
        turn.sequence.record();
        turn.sequence.keep_plans();
        Ok(Tracing { generation: turn.start(model, events)?, pictures, kept: None, steps: Vec::new(), unseen: true })
    }

    /// Generates a token; says why it was the last one if it was.
    pub(super) fn advance(&mut self, model: &Model<B>, events: &Events) -> Result<Option<Finish>> {
        let finish = self.generation.advance(model, events)?;
        self.look();
        if let Some(token) = self.generation.next.take() {
            self.generation.logits = model.decode(token, &mut self.generation.sequence)?;
            self.unseen = true;
            self.look();
        }
        Ok(finish)
    }

    /// Records the cache as the method leaves it; later while a plan from outside is awaited.
    fn look(&mut self) {
        let sequence = &self.generation.sequence;
        if self.unseen && sequence.is_sound() {
            self.kept.get_or_insert_with(|| sequence.kept());
            self.steps.push(step(sequence));
            self.unseen = false;
        }
    }

    /// Sends the trace.
    pub(super) fn finish(self, finish: Finish, events: &Events) -> Result<()> {
        let Tracing { generation, pictures, kept, steps, .. } = self;
        let (answered, mut sequence) = generation.end(finish, events)?;
        let Some(Record { score, ranking, mass, threshold, layers }) = sequence.take_record() else {
            return Err(Error::Internal("the prompt was not recorded".into()));
        };
        let kept = kept.unwrap_or_default();
        let layer = |(layer, (record, kept))| TraceLayer { record, source: sequence.source(layer), kept };
        let layers = layers.into_iter().zip(kept).enumerate().map(layer).collect();
        let (planned, dim) = (sequence.take_plans(), sequence.head_dim());
        let plans = planned.iter().map(|planned| TracePlan::new(planned, dim));
        events.finish(Event::Traced(Box::new(Trace {
            result: answered.result(&sequence),
            score,
            ranking,
            mass,
            threshold,
            spans: sequence.spans().to_vec(),
            images: grids(&pictures, sequence.spans()),
            layers,
            steps,
            plans: plans.filter(|plan| !plan.is_empty()).collect(),
        })));
        Ok(())
    }
}

/// A method that keeps everything and still ranks it.
fn probe() -> Result<Option<Arc<Method>>> {
    Method::parse(&json!({ "method": "prefixkv", "keep": 1, "variant": "paper" }))
}

fn step<M: Memory>(sequence: &Sequence<M>) -> TraceStep {
    let memory = sequence.memory();
    let kept = memory.kept_per_layer.iter().sum::<f64>() / memory.kept_per_layer.len().max(1) as f64;
    let positions = sequence.next_position() as usize;
    TraceStep { positions, resident: memory.resident, payload: memory.payload, full: memory.full, kept }
}
