//! A generation that also says what the cache held, and by what order its entries were chosen.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::event::{Event, Finish, Timings, Usage};
use super::generate::PreparedPrompt;
use super::prompt;
use super::request::GenerateRequest;
use super::ticket::Events;
use crate::cache::{Kept, MemoryReport, Span};
use crate::error::{Error, Result};
use crate::media::{Area, upright_size};
use crate::method::{LayerRecord, Method, Record};
use crate::model::Model;
use crate::sequence::Sequence;

/// A picture of the prompt and where its patches lie. Patches are numbered by rows, from the top left.
#[derive(Clone, Debug, Serialize)]
pub struct TracedImage {
    /// Its number among the images of the request.
    pub source: usize,
    /// Of the upright picture, in pixels.
    pub width: usize,
    pub height: usize,
    pub rows: usize,
    pub columns: usize,
    /// Positions of the picture before its first patch.
    pub lead: usize,
    /// What the patches cover, in pixels of the picture.
    pub area: Area,
}

/// A layer after the prompt.
#[derive(Clone, Debug, Serialize)]
pub struct TracedLayer {
    #[serde(flatten)]
    pub record: LayerRecord,
    /// The positions that are left after the prompt, per range of heads.
    pub kept: Vec<Kept>,
}

/// The cache after the prompt, or after a token was read.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TracedStep {
    /// Positions seen.
    pub positions: usize,
    pub resident: u64,
    pub payload: u64,
    /// What a cache that keeps every position takes.
    pub full: u64,
    /// Entries held; the mean over the layers.
    pub kept: f64,
}

/// The outcome of a trace.
#[derive(Clone, Debug, Serialize)]
pub struct Traced {
    text: String,
    tokens: Vec<u32>,
    finish: Finish,
    usage: Usage,
    timings: Timings,
    memory: MemoryReport,
    /// The name of what the entries were ranked by.
    score: &'static str,
    /// Whether it is attention, so that sums of it mean something.
    mass: bool,
    threshold: Option<f64>,
    spans: Vec<Span>,
    images: Vec<TracedImage>,
    layers: Vec<TracedLayer>,
    steps: Vec<TracedStep>,
}

/// Generates as a `generate` request does. Without a method the importance is that of PrefixKV's default score, and everything
/// is kept. What is recorded is not counted as memory of the cache.
pub(super) fn trace(
    model: &mut Model,
    request: &GenerateRequest,
    images: &[Vec<u8>],
    events: &Events,
    alone: bool,
) -> Result<()> {
    let method = match &request.method {
        Some(method) => Some(method.clone()),
        None => probe()?,
    };
    let mut turn = PreparedPrompt::prepare(model, request, method, images, events, alone)?;
    let pictures = pictures(model, images, &request.source.order)?;
    turn.sequence.record();
    let mut generation = turn.start(model, events)?;
    let kept = generation.sequence.kept();
    let mut steps = vec![step(&generation.sequence)];
    let finish = loop {
        if let Some(finish) = generation.advance(model, events)? {
            break finish;
        }
        if let Some(token) = generation.next.take() {
            generation.logits = model.decode(token, &mut generation.sequence)?;
            steps.push(step(&generation.sequence));
        }
    };
    let (answered, mut sequence) = generation.end(finish, events)?;
    let record = sequence.take_record();
    let Record { score, mass, threshold, layers } =
        record.ok_or_else(|| Error::Internal("the prompt was not recorded".into()))?;
    let layers = layers.into_iter().zip(kept).map(|(record, kept)| TracedLayer { record, kept }).collect();
    events.finish(Event::Traced(Box::new(Traced {
        usage: prompt::usage(answered.cached, &answered.prompt, answered.tokens.len()),
        text: answered.text,
        tokens: answered.tokens,
        finish: answered.finish,
        timings: answered.timings,
        memory: sequence.memory(),
        score,
        mass,
        threshold,
        spans: sequence.spans().to_vec(),
        images: pictures,
        layers,
        steps,
    })));
    Ok(())
}

/// A method that keeps everything and still ranks it.
fn probe() -> Result<Option<Arc<Method>>> {
    Method::parse(&json!({ "method": "prefixkv", "keep": 1, "variant": "paper" }))
}

fn step(sequence: &Sequence) -> TracedStep {
    let memory = sequence.memory();
    let kept = memory.kept_per_layer.iter().sum::<f64>() / memory.kept_per_layer.len().max(1) as f64;
    let positions = sequence.next_position() as usize;
    TracedStep { positions, resident: memory.resident, payload: memory.payload, full: memory.full, kept }
}

/// The pictures in the order of their placeholders.
fn pictures(model: &Model, images: &[Vec<u8>], order: &[usize]) -> Result<Vec<TracedImage>> {
    let (Some(processor), Some(info)) = (model.image_processor(), model.info().image) else { return Ok(Vec::new()) };
    let side = info.size / info.patch.max(1);
    let lead = info.tokens.saturating_sub(side * side);
    let seen =
        images.iter().enumerate().map(|(index, bytes)| upright_size(bytes, index)).collect::<Result<Vec<_>>>()?;
    let picture = |&source: &usize| {
        let (width, height) = seen[source];
        TracedImage { source, width, height, rows: side, columns: side, lead, area: processor.area(width, height) }
    };
    Ok(order.iter().map(picture).collect())
}
