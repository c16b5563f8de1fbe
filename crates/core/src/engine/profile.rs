//! The sizes per layer that a prompt asks for: one sample of a calibration.

use std::time::Instant;

use super::clock::milliseconds;
use super::prompt;
use super::ticket::Events;
use crate::backend::Backend;
use crate::error::Result;
use crate::model::Model;
use crate::wire::{Event, ProfileRequest, Timings};

/// Runs the prompt and gives the retained share of every layer for each asked size; nothing is evicted.
pub(super) fn profile<B: Backend>(
    model: &Model<B>,
    request: &ProfileRequest,
    images: &[Vec<u8>],
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let plans = prompt::plans(model, images, &request.source.order)?;
    let tokens = prompt::tokens(model, &request.source, &plans)?;
    let prompt = prompt::expand(model, &tokens, &plans, request.source.order.len())?;
    prompt::room(0, &prompt, None, model.max_positions())?;
    let features =
        prompt::features(model, images, &request.source.order, request.source.order.len(), None, events, &mut timings)?;
    let mut sequence = model.new_sequence_with(Some(request.method.clone()), false)?;
    sequence.profile(request.keeps.clone());
    let start = Instant::now();
    model.prefill(&prompt, &features, &mut sequence, &|| events.check())?;
    timings.prefill = milliseconds(start.elapsed());
    timings.total = milliseconds(events.submitted().elapsed());
    events.finish(Event::Profiled { retained: sequence.take_profile(), usage: prompt::usage(0, &prompt, 0), timings });
    Ok(())
}
