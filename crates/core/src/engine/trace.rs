//! A generation that also says what the cache held, and by what order its entries were chosen.

use std::sync::Arc;

use serde_json::json;

use super::generate::PreparedPrompt;
use super::ticket::Events;
use crate::backend::Backend;
use crate::cache::Memory;
use crate::error::{Error, Result};
use crate::media::upright_size;
use crate::method::{Method, Record};
use crate::model::Model;
use crate::sequence::Sequence;
use crate::wire::{Event, GenerateRequest, Trace, TraceImage, TraceLayer, TraceStep};

/// Generates as a `generate` request does. Without a method the importance is that of PrefixKV's default score, and everything
/// is kept. What is recorded is not counted as memory of the cache.
pub(super) fn trace<B: Backend>(
    model: &Model<B>,
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
    let layers = layers.into_iter().zip(kept).map(|(record, kept)| TraceLayer { record, kept }).collect();
    events.finish(Event::Traced(Box::new(Trace {
        result: answered.result(&sequence),
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

fn step<M: Memory>(sequence: &Sequence<M>) -> TraceStep {
    let memory = sequence.memory();
    let kept = memory.kept_per_layer.iter().sum::<f64>() / memory.kept_per_layer.len().max(1) as f64;
    let positions = sequence.next_position() as usize;
    TraceStep { positions, resident: memory.resident, payload: memory.payload, full: memory.full, kept }
}

/// The pictures in the order of their placeholders.
fn pictures<B: Backend>(model: &Model<B>, images: &[Vec<u8>], order: &[usize]) -> Result<Vec<TraceImage>> {
    let (Some(processor), Some(info)) = (model.image_processor(), model.info().image) else { return Ok(Vec::new()) };
    let side = info.size / info.patch.max(1);
    let lead = info.tokens.saturating_sub(side * side);
    let seen =
        images.iter().enumerate().map(|(index, bytes)| upright_size(bytes, index)).collect::<Result<Vec<_>>>()?;
    let picture = |&source: &usize| {
        let (width, height) = seen[source];
        TraceImage { source, width, height, rows: side, columns: side, lead, area: processor.area(width, height) }
    };
    Ok(order.iter().map(picture).collect())
}
