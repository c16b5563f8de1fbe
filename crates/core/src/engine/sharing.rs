//! The questions of a search for layers that can share: how far apart their keys and values are, and what a map does to the results.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::clock::milliseconds;
use super::prompt;
use super::ticket::Events;
use crate::backend::Backend;
use crate::cache::{Account, Charge, Memory};
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::Method;
use crate::model::{Features, ImagePlan, Model, Prompt};
use crate::sequence::Sequence;
use crate::text::Encoded;
use crate::wire::{
    DistanceVariant, DistancesRequest, Event, LayerDistance, Progress, SimilarityRequest, Source, Timings, Usage,
};

/// Reads the prompts with the full cache and gives the distances of all pairs of layers that may share, the largest first.
pub(super) fn distances<B: Backend>(
    model: &Model<B>,
    request: &DistancesRequest,
    images: &[Vec<u8>],
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let (mut averages, mut usage) = (Averages::default(), Usage::default());
    let account = model.pool().account();
    let total = request.sources.len() as u64;
    for (done, (source, own)) in request.sources.iter().enumerate() {
        let read = Read::new(model, source, &images[own.clone()], events, &mut timings)?;
        let start = Instant::now();
        let mut sequence = model.new_sequence()?;
        model.prefill(&read.prompt, &read.features, &mut sequence, &|| events.check())?;
        averages.add(&sequence, model.info().layers, &account)?;
        timings.prefill += milliseconds(start.elapsed());
        usage.prompt_tokens += read.prompt.tokens.len();
        usage.image_tokens += read.prompt.image_tokens;
        events.offer(Event::Progress(Progress { stage: "samples", done: done as u64 + 1, total }));
    }
    averages.divide();
    events.check()?;
    let mut pairs = pairs(model)?;
    pairs.par_iter_mut().for_each(|pair| pair.distance = averages.distance(pair.layer, pair.source, request.variant));
    if let Some(pair) = pairs.iter().find(|pair| !pair.distance.is_finite()) {
        return Err(Error::Numbers {
            reason: format!("the keys and values of layers {} and {} have no finite distance", pair.layer, pair.source),
            fits: Vec::new(),
        });
    }
    pairs.sort_by(|a, b| b.distance.total_cmp(&a.distance).then((a.layer, a.source).cmp(&(b.layer, b.source))));
    timings.total = milliseconds(events.submitted().elapsed());
    events.finish(Event::Distances { pairs, usage, timings });
    Ok(())
}

/// Reads the prompt with the full cache and with the method's, and gives the cosine of the last hidden states.
pub(super) fn similarity<B: Backend>(
    model: &Model<B>,
    request: &SimilarityRequest,
    images: &[Vec<u8>],
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let read = Read::new(model, &request.source, images, events, &mut timings)?;
    let start = Instant::now();
    let fewer = || refuse(format!("{} has no last hidden states of all positions to compare", request.method.name));
    let hidden = |method: Option<&Arc<Method>>| {
        let mut sequence = model.new_sequence_with(method.cloned(), false)?;
        if sequence.pictures().is_some() && !images.is_empty() {
            return Err(fewer());
        }
        model.hidden(&read.prompt, &read.features, &mut sequence, &|| events.check())
    };
    // A refusal comes before the work.
    let (with, without) = (hidden(Some(&request.method))?, hidden(None)?);
    if with.len() != without.len() {
        return Err(fewer());
    }
    timings.prefill = milliseconds(start.elapsed());
    timings.total = milliseconds(events.submitted().elapsed());
    let usage = prompt::usage(0, &read.prompt, 0);
    events.finish(Event::Similarity { similarity: cosine(&with, &without), usage, timings });
    Ok(())
}

/// A prompt, ready for the layers.
pub(super) struct Read<B: Backend> {
    pub(super) prompt: Prompt,
    pub(super) features: Vec<Features<B>>,
}

impl<B: Backend> Read<B> {
    pub(super) fn new(
        model: &Model<B>,
        source: &Source,
        images: &[Vec<u8>],
        events: &Events,
        timings: &mut Timings,
    ) -> Result<Read<B>> {
        let plans = prompt::plans(model, images, &source.order)?;
        let tokens = prompt::tokens(model, source, &plans)?;
        Read::of(model, source, (&tokens, &plans), images, events, timings)
    }

    /// As [`Read::new`], with the tokens of the source and the pieces of its images.
    pub(super) fn of(
        model: &Model<B>,
        source: &Source,
        (tokens, plans): (&Encoded, &[ImagePlan]),
        images: &[Vec<u8>],
        events: &Events,
        timings: &mut Timings,
    ) -> Result<Read<B>> {
        let prompt = prompt::expand(model, tokens, plans, source.order.len())?;
        prompt::room(0, &prompt, None, model.max_positions())?;
        let before = (timings.images, timings.vision);
        let features = prompt::features(model, images, &source.order, source.order.len(), None, events, timings)?;
        if !images.is_empty() {
            (timings.images, timings.vision) = (timings.images + before.0, timings.vision + before.1);
        }
        Ok(Read { prompt, features })
    }
}

/// The pairs of layers that may share, in their order, their distances still 0.
fn pairs<B: Backend>(model: &Model<B>) -> Result<Vec<LayerDistance>> {
    let sequence = model.new_sequence()?;
    let layers = model.info().layers;
    let all = (0..layers).flat_map(|layer| (0..layer).map(move |source| (layer, source)));
    let may = all.filter(|&(layer, source)| sequence.may_share(layer, source));
    Ok(may.map(|(layer, source)| LayerDistance { layer, source, distance: 0.0 }).collect())
}

/// Keys and values of every layer, the mean over the prompts: at each position over those that have it.
#[derive(Default)]
struct Averages {
    /// By layer; empty for one that reads another's.
    layers: Vec<Averaged>,
    charges: Vec<Charge>,
}

#[derive(Default)]
struct Averaged {
    /// `[positions, width]`.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Prompts that hold the position.
    counts: Vec<u32>,
    /// Numbers of a position: those of all KV heads.
    width: usize,
    head: usize,
}

impl Averages {
    /// Adds a prompt; it stands in a full cache, whose lanes have all heads of a layer.
    fn add<M: Memory>(&mut self, sequence: &Sequence<M>, layers: usize, account: &Account<M>) -> Result<()> {
        self.layers.resize_with(layers, Averaged::default);
        for (layer, averaged) in self.layers.iter_mut().enumerate() {
            let lane = sequence.whole_lane(layer)?;
            if sequence.source(layer) != layer || lane.is_empty() {
                continue;
            }
            let entries = lane.sorted();
            let (keys, values) = (lane.keys(&entries)?, lane.values(&entries)?);
            averaged.width = keys.len() / entries.len();
            averaged.head = averaged.width / lane.heads().len();
            let positions = entries.last().map_or(0, |entry| entry.position as usize + 1);
            if averaged.counts.len() < positions {
                let more = (positions - averaged.counts.len()) * (2 * averaged.width + 1);
                self.charges.push(account.charge((more * size_of::<f32>()) as u64)?);
                averaged.counts.resize(positions, 0);
                averaged.keys.resize(positions * averaged.width, 0.0);
                averaged.values.resize(positions * averaged.width, 0.0);
            }
            let rows = keys.chunks_exact(averaged.width).zip(values.chunks_exact(averaged.width));
            for (entry, (keys, values)) in entries.iter().zip(rows) {
                let position = entry.position as usize;
                averaged.counts[position] += 1;
                let at = averaged.row(position);
                averaged.keys[at.clone()].iter_mut().zip(keys).for_each(|(sum, key)| *sum += key);
                averaged.values[at].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(())
    }

    fn divide(&mut self) {
        self.layers.par_iter_mut().for_each(|averaged| {
            for position in 0..averaged.counts.len() {
                let (at, count) = (averaged.row(position), averaged.counts[position].max(1) as f32);
                averaged.keys[at.clone()].iter_mut().for_each(|key| *key /= count);
                averaged.values[at].iter_mut().for_each(|value| *value /= count);
            }
        });
    }

    /// Half the sum of the distances of keys and of values.
    fn distance(&self, layer: usize, source: usize, variant: DistanceVariant) -> f64 {
        let (a, b) = (&self.layers[layer], &self.layers[source]);
        let head = match variant {
            DistanceVariant::Paper => None,
            DistanceVariant::Official => Some(a.head),
        };
        let heads = a.width.checked_div(a.head).unwrap_or(0);
        let held = a.counts.iter().filter(|count| **count > 0).count();
        let of = |a: &[f32], b: &[f32]| match head {
            None => squares(a, b).sqrt(),
            Some(head) => {
                let parts = a.chunks_exact(head).zip(b.chunks_exact(head));
                // Positions that no prompt holds are 0 in both.
                parts.map(|(a, b)| squares(a, b).sqrt()).sum::<f64>() / (held * heads).max(1) as f64
            }
        };
        (of(&a.keys, &b.keys) + of(&a.values, &b.values)) / 2.0
    }
}

impl Averaged {
    fn row(&self, position: usize) -> Range<usize> {
        position * self.width..(position + 1) * self.width
    }
}

/// The sum of the squared differences.
fn squares(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum()
}

/// 0 where one of the two has no length.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}
