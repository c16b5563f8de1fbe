//! The question of a search for codebooks: the levels and ranges of keys and values over some prompts.

use std::time::Instant;

use rayon::prelude::*;

use super::clock::milliseconds;
use super::sharing::Read;
use super::ticket::Events;
use crate::backend::Backend;
use crate::cache::{Account, Charge, Memory};
use crate::error::Result;
use crate::method::codebooks::LayerCodebooks;
use crate::method::store::{Notes, Watch};
use crate::model::Model;
use crate::sequence::Sequence;
use crate::wire::{CodebooksRequest, Event, Progress, Timings, Usage};

/// Positions that are looked at, over all prompts.
const POSITIONS: usize = 2048;
/// The least that a position counts, of which attention has found nothing.
const LEAST: f64 = 1e-3;

/// Reads the prompts with a full cache of keys before their rotary embedding, and finds codebooks for every layer.
pub(super) fn codebooks<B: Backend>(
    model: &Model<B>,
    request: &CodebooksRequest,
    images: &[Vec<u8>],
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let mut usage = Usage::default();
    let account = model.pool().account();
    let watch = Watch::default();
    let whole = watch.method();
    let total = request.sources.len();
    let mut seen = Seen::default();
    for (done, (source, own)) in request.sources.iter().enumerate() {
        let read = Read::new(model, source, &images[own.clone()], events, &mut timings)?;
        let start = Instant::now();
        let mut sequence = model.new_sequence_with(Some(whole.clone()), false)?;
        model.prefill(&read.prompt, &read.features, &mut sequence, &|| events.check())?;
        seen.add(&sequence, &watch, model.info().layers, POSITIONS.div_ceil(total), &account)?;
        timings.prefill += milliseconds(start.elapsed());
        usage.prompt_tokens += read.prompt.tokens.len();
        usage.image_tokens += read.prompt.image_tokens;
        events.offer(Event::Progress(Progress { stage: "samples", done: done as u64 + 1, total: total as u64 }));
    }
    events.check()?;
    let find = |layer: &Rows| {
        let Rows { layer, keys, values, weights, width, dim } = layer;
        LayerCodebooks::find(*layer, keys, values, weights, (*width, *dim), request.bits, request.outliers)
    };
    let layers: Vec<LayerCodebooks> = seen.layers.par_iter().map(find).collect();
    timings.total = milliseconds(events.submitted().elapsed());
    events.finish(Event::Codebooks { layers, positions: seen.positions, usage, timings });
    Ok(())
}

/// Keys and values of some positions of every layer that has its own.
#[derive(Default)]
struct Seen {
    layers: Vec<Rows>,
    positions: usize,
    charges: Vec<Charge>,
}

/// Keys and values of a layer, `[positions, width]` each.
struct Rows {
    layer: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Of positions: the attention that they got.
    weights: Vec<f64>,
    width: usize,
    dim: usize,
}

impl Seen {
    /// Adds up to `most` positions of a prompt, evenly spread; it stands in a full cache, whose lanes have all heads of a layer.
    fn add<M: Memory>(
        &mut self,
        sequence: &Sequence<M>,
        watch: &Watch,
        layers: usize,
        most: usize,
        account: &Account<M>,
    ) -> Result<()> {
        let mut positions = 0;
        for layer in (0..layers).filter(|layer| sequence.source(*layer) == *layer) {
            let lane = sequence.whole_lane(layer)?;
            let entries = lane.sorted();
            let step = entries.len().div_ceil(most.max(1)).max(1);
            let some: Vec<_> = entries.into_iter().step_by(step).collect();
            let (keys, values) = (lane.keys(&some)?, lane.values(&some)?);
            positions = positions.max(some.len());
            let got = watch.take(layer);
            let weight = |position: u32| got.get(&position).copied().unwrap_or(1.0).max(LEAST);
            let weights: Vec<f64> = some.iter().map(|entry| weight(entry.position)).collect();
            self.charges.push(account.charge((size_of_val(&keys[..]) + size_of_val(&values[..])) as u64)?);
            let (dim, width) = (sequence.head_dim(), lane.heads().len() * sequence.head_dim());
            match self.layers.iter_mut().find(|rows| rows.layer == layer) {
                Some(rows) => {
                    rows.keys.extend_from_slice(&keys);
                    rows.values.extend_from_slice(&values);
                    rows.weights.extend(weights);
                }
                None => self.layers.push(Rows { layer, keys, values, weights, width, dim }),
            }
        }
        self.positions += positions;
        Ok(())
    }
}
