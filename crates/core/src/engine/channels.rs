//! An order of the channels of every head, and clips for their codes: the calibration of SKVQ (arXiv 2405.06219).

use std::time::Instant;

use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec, Map, OwnedRun, decode_rows};
use rayon::prelude::*;

use super::clock::milliseconds;
use super::sharing::Read;
use super::ticket::Events;
use crate::backend::Backend;
use crate::cache::Memory;
use crate::error::Result;
use crate::fields::refuse;
use crate::method::channels::{ChannelsLayer, ChannelsSide, order};
use crate::method::score::rows::heads_apart;
use crate::model::Model;
use crate::sequence::Sequence;
use crate::wire::{ChannelsRequest, Event, Progress, Timings, Usage};

/// The clips that are tried, in hundredths.
const CLIPS: std::ops::RangeInclusive<u8> = 60..=100;

/// Reads the prompts twice: for the ranges of the channels, from which their order follows, and for the errors of the codes in it.
pub(super) fn channels<B: Backend>(
    model: &Model<B>,
    request: &ChannelsRequest,
    images: &[Vec<u8>],
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let (mut usage, count) = (Usage::default(), request.sources.len());
    let layers = model.info().layers;
    let mut sides: Vec<[Side; 2]> = (0..layers).map(|_| Default::default()).collect();
    for pass in [Pass::Ranges, Pass::Errors] {
        for (done, (source, own)) in request.sources.iter().enumerate() {
            let read = Read::new(model, source, &images[own.clone()], events, &mut timings)?;
            let start = Instant::now();
            let mut sequence = model.new_sequence()?;
            model.prefill(&read.prompt, &read.features, &mut sequence, &|| events.check())?;
            for (layer, sides) in sides.iter_mut().enumerate() {
                events.check()?;
                see(sides, &sequence, layer, request, pass)?;
            }
            timings.prefill += milliseconds(start.elapsed());
            if pass == Pass::Ranges {
                usage.prompt_tokens += read.prompt.tokens.len();
                usage.image_tokens += read.prompt.image_tokens;
            }
            let seen = if pass == Pass::Ranges { done } else { count + done } as u64 + 1;
            events.offer(Event::Progress(Progress { stage: "samples", done: seen, total: 2 * count as u64 }));
        }
        if pass == Pass::Ranges {
            if sides.iter().flatten().all(|side| side.ranges.is_empty()) {
                return Err(refuse(format!(
                    "no prompt is longer than the first {} positions, which are left out; take longer prompts or a smaller `sinks`",
                    request.sinks
                )));
            }
            sides.iter_mut().flatten().for_each(|side| side.put_in_order(request.group));
        }
    }
    let layers = sides.into_iter().map(|[keys, values]| ChannelsLayer { keys: keys.found(), values: values.found() });
    let layers = layers.collect();
    timings.total = milliseconds(events.submitted().elapsed());
    events.finish(Event::Channels { layers, usage, timings });
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Ranges,
    Errors,
}

/// The keys or the values of a layer.
#[derive(Default)]
struct Side {
    /// By head, of each channel; empty while nothing was seen.
    ranges: Vec<Vec<(f32, f32)>>,
    order: Vec<Vec<u16>>,
    /// The squared errors in 2 and in 4 bits, for each clip.
    errors: [Vec<f64>; 2],
}

/// Looks at what a layer holds of a prompt in the full cache.
fn see<M: Memory>(
    sides: &mut [Side; 2],
    sequence: &Sequence<M>,
    layer: usize,
    request: &ChannelsRequest,
    pass: Pass,
) -> Result<()> {
    if sequence.source(layer) != layer {
        return Ok(());
    }
    let lane = sequence.whole_lane(layer)?;
    let mut entries = lane.sorted();
    entries.retain(|entry| entry.position as usize >= request.sinks);
    if entries.is_empty() {
        return Ok(());
    }
    let (heads, dim) = (lane.heads().len(), sequence.head_dim());
    for (side, rows) in sides.iter_mut().zip([lane.keys(&entries)?, lane.values(&entries)?]) {
        let rows = heads_apart(&rows, heads, dim);
        match pass {
            Pass::Ranges => side.widen(&rows, heads, dim),
            Pass::Errors => side.measure(&rows, heads, dim, request.group)?,
        }
    }
    Ok(())
}

impl Side {
    /// `rows` are `[heads, entries, dim]`.
    fn widen(&mut self, rows: &[f32], heads: usize, dim: usize) {
        self.ranges.resize_with(heads, || vec![(f32::INFINITY, f32::NEG_INFINITY); dim]);
        for (ranges, rows) in self.ranges.iter_mut().zip(rows.chunks_exact(rows.len() / heads)) {
            for row in rows.chunks_exact(dim) {
                for ((low, high), x) in ranges.iter_mut().zip(row) {
                    (*low, *high) = (low.min(*x), high.max(*x));
                }
            }
        }
    }

    fn put_in_order(&mut self, group: usize) {
        let of = |ranges: &Vec<(f32, f32)>| {
            let group = Codec::channels(ranges.len(), group).map_or(ranges.len(), usize::from);
            order(ranges, group)
        };
        self.order = self.ranges.par_iter().map(of).collect();
    }

    /// Adds the squared errors of the codes of entries, for every clip.
    fn measure(&mut self, rows: &[f32], heads: usize, dim: usize, group: usize) -> Result<()> {
        let unfit = |reason: String| refuse(format!("skvq cannot store {reason}"));
        let group = Codec::channels(dim, group).ok_or_else(|| {
            refuse(format!("skvq takes heads of a multiple of 8 channels, and those of the model have {dim}"))
        })?;
        let map = Map::channels(heads, dim, self.order.concat()).map_err(unfit)?;
        let n = rows.len() / (heads * dim);
        // Once in their order; each codec then codes what lies there.
        let ordered = map.project(rows, n);
        for (dtype, errors) in [Dtype::U2, Dtype::U4].into_iter().zip(&mut self.errors) {
            let of = |clip: u8| -> f64 {
                let codec = Codec::per_entry(dtype, group).clipped(clip);
                let mut run = OwnedRun::new(KvCodec::new(codec, codec, Dual::None), heads, dim, n);
                run.push(&ordered, &ordered);
                let parts = run.parts();
                let mut back = vec![0.0; n * dim];
                let of = |head: usize| {
                    decode_rows(codec, parts.keys, parts.key_scales, (head, n), 0, dim, &mut back);
                    let pairs = back.iter().zip(&ordered[head * n * dim..(head + 1) * n * dim]);
                    pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
                };
                (0..heads).map(of).sum()
            };
            let found: Vec<f64> = CLIPS.into_par_iter().map(of).collect();
            errors.resize(found.len(), 0.0);
            errors.iter_mut().zip(found).for_each(|(sum, error)| *sum += error);
        }
        Ok(())
    }

    fn found(self) -> ChannelsSide {
        let clip = |errors: &[f64]| {
            // Of equal ones the one that cuts off least.
            let best = errors.iter().enumerate().rev().min_by(|a, b| a.1.total_cmp(b.1));
            f64::from(best.map_or(100, |(index, _)| CLIPS.start() + index as u8)) / 100.0
        };
        let [two, four] = &self.errors;
        ChannelsSide { clip2: clip(two), clip4: clip(four), order: self.order }
    }
}
