//! The error that each layer makes when its keys and values are stored in few bits: the measure of KVTuner (arXiv 2502.04420).

use std::sync::Arc;
use std::time::Instant;

use prefixkv_kernels::attention::AttentionParams;
use prefixkv_kernels::codec::{KvCodec, OwnedRun, decode_rows};
use prefixkv_kernels::simd;
use rayon::prelude::*;

use super::clock::milliseconds;
use super::prompt;
use super::sharing::Read;
use super::ticket::Events;
use crate::backend::Backend;
use crate::cache::{Memory, Shape};
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::Method;
use crate::method::bits::Pair;
use crate::method::score::rows::{attend, heads_apart};
use crate::method::store::settled;
use crate::model::Model;
use crate::sequence::Sequence;
use crate::wire::{Event, SensitivityRequest, Timings};

/// The queries of a prompt that attend, its last ones.
const QUERIES: usize = 64;

/// Reads the prompt with the full cache, then has its last queries attend to every layer in each pair of bits.
pub(super) fn sensitivity<B: Backend>(
    model: &Model<B>,
    request: &SensitivityRequest,
    images: &[Vec<u8>],
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let read = Read::new(model, &request.source, images, events, &mut timings)?;
    let start = Instant::now();
    let mut sequence = model.new_sequence_with(Some(Arc::new(Method::watching(QUERIES))), false)?;
    model.prefill(&read.prompt, &read.features, &mut sequence, &|| events.check())?;
    let queries = sequence.take_queries();
    let (shape, attention) = (sequence.shape(), model.attention());
    let mut layers = Vec::with_capacity(attention.len());
    let mut encoded = 0;
    for (layer, params) in attention.iter().enumerate() {
        events.check()?;
        let held = match queries.get(layer) {
            Some(queries) if sequence.source(layer) == layer => Held::new(&sequence, layer, *params, queries)?,
            _ => {
                layers.push(Vec::new());
                continue;
            }
        };
        let found = held.sensitivities(request, &shape)?;
        encoded = encoded.max(found.encoded);
        if let Some(value) = found.errors.iter().find(|value| !value.is_finite()) {
            return Err(Error::Numbers {
                reason: format!("the results of layer {layer}'s attention are off by {value}"),
                fits: Vec::new(),
            });
        }
        layers.push(found.errors);
    }
    if encoded == 0 {
        return Err(refuse(format!(
            "a prompt of {} positions has no entries that `window: {}` leaves to be stored in few bits; take a longer prompt or a smaller \
             window",
            read.prompt.tokens.len(),
            request.window
        )));
    }
    timings.prefill = milliseconds(start.elapsed());
    timings.total = milliseconds(events.submitted().elapsed());
    events.finish(Event::Sensitivity { layers, usage: prompt::usage(0, &read.prompt, 0), timings });
    Ok(())
}

/// A layer of a full cache, and the last queries of the prompt.
struct Held<'a> {
    params: AttentionParams,
    /// `[queries, query heads, dim]`.
    queries: &'a [f32],
    /// Of the entries, ascending; the last ones are the queries' own.
    positions: Vec<u32>,
    /// Of the same, the position behind the last that a query there sees.
    sights: Vec<usize>,
    /// `[KV heads, entries, dim]`.
    keys: Vec<f32>,
    values: Vec<f32>,
}

struct Sensitivities {
    /// For each pair.
    errors: Vec<f64>,
    /// Entries that were in few bits.
    encoded: usize,
}

/// Keys and values in some bits, or as they are.
struct InBits {
    bits: u8,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl<'a> Held<'a> {
    fn new<M: Memory>(
        sequence: &Sequence<M>,
        layer: usize,
        params: AttentionParams,
        queries: &'a [f32],
    ) -> Result<Held<'a>> {
        let lane = sequence.whole_lane(layer)?;
        let entries = lane.sorted();
        let positions: Vec<u32> = entries.iter().map(|entry| entry.position).collect();
        let sights = sequence.sights(positions.iter().map(|position| *position as usize));
        let by_head = |rows: Vec<f32>| heads_apart(&rows, params.kv_heads, params.dim);
        Ok(Held {
            params,
            queries,
            positions,
            sights,
            keys: by_head(lane.keys(&entries)?),
            values: by_head(lane.values(&entries)?),
        })
    }

    /// `|O - O^| / |O|` for each pair: `O` are the results of all heads and queries.
    fn sensitivities(&self, request: &SensitivityRequest, shape: &Shape) -> Result<Sensitivities> {
        let mut widths: Vec<u8> = request.pairs.iter().flat_map(|pair| [pair.key, pair.value]).collect();
        widths.sort_unstable();
        widths.dedup();
        let mut stored = vec![InBits { bits: 0, keys: self.keys.clone(), values: self.values.clone() }];
        let mut encoded = 0;
        for bits in widths {
            let codec = request.quantiser.codec("kvtuner", Pair { key: bits, value: bits }, shape)?;
            let count = if codec.is_plain() { 0 } else { settled(codec, request.window, self.positions.len()) };
            encoded = encoded.max(count);
            stored.push(self.stored(codec, bits, count));
        }
        let at = |bits: u8| stored.iter().position(|stored| stored.bits == bits).unwrap_or(0);
        let pairs: Vec<(usize, usize)> = request.pairs.iter().map(|pair| (at(pair.key), at(pair.value))).collect();
        let heads: Vec<Squares> =
            (0..self.params.kv_heads).into_par_iter().map(|head| self.squares(head, &stored, &pairs)).collect();
        let of = |part: &dyn Fn(&Squares) -> f64| heads.iter().map(part).sum::<f64>();
        let length = of(&|squares| squares.length);
        let error = |pair: usize| {
            let off = of(&|squares| squares.off[pair]);
            // Results without length are off by nothing, or by anything.
            if off == 0.0 { 0.0 } else { (off / length).sqrt() }
        };
        Ok(Sensitivities { errors: (0..pairs.len()).map(error).collect(), encoded })
    }

    /// The `count` oldest entries through a codec.
    fn stored(&self, codec: KvCodec, bits: u8, count: usize) -> InBits {
        let AttentionParams { kv_heads, dim, .. } = self.params;
        let n = self.positions.len();
        let (mut keys, mut values) = (self.keys.clone(), self.values.clone());
        if count > 0 {
            let oldest = |rows: &[f32]| -> Vec<f32> {
                rows.chunks_exact(n * dim).flat_map(|head| &head[..count * dim]).copied().collect()
            };
            let mut run = OwnedRun::new(codec, kv_heads, dim, count);
            run.push(&oldest(&keys), &oldest(&values));
            let parts = run.parts();
            let heads = keys.chunks_exact_mut(n * dim).zip(values.chunks_exact_mut(n * dim)).enumerate();
            for (head, (keys, values)) in heads {
                let place = (head, count);
                decode_rows(codec.key, parts.keys, parts.key_scales, place, 0, dim, &mut keys[..count * dim]);
                decode_rows(codec.value, parts.values, parts.value_scales, place, 0, dim, &mut values[..count * dim]);
            }
        }
        InBits { bits, keys, values }
    }

    /// Of the query heads of a KV head; the first of `stored` is the layer as it is.
    fn squares(&self, head: usize, stored: &[InBits], pairs: &[(usize, usize)]) -> Squares {
        let params = &self.params;
        let (dim, group, n) = (params.dim, params.group(), self.positions.len());
        let asked = self.queries.len() / (params.query_heads * dim);
        // Behind a window the entries of earlier queries are gone.
        let queries = asked.min(n);
        let part = head * n * dim..(head + 1) * n * dim;
        let mut squares = Squares { length: 0.0, off: vec![0.0; pairs.len()] };
        for query in 0..queries {
            let own = n - queries + query;
            let since = params.since(self.positions[own]);
            let first = self.positions.partition_point(|position| *position < since);
            let end = self.positions.partition_point(|position| (*position as usize) < self.sights[own]);
            let seen = part.start + first * dim..part.start + end * dim;
            for query_head in head * group..(head + 1) * group {
                let at = ((asked - queries + query) * params.query_heads + query_head) * dim;
                let row = &self.queries[at..at + dim];
                let weights = |stored: &InBits| {
                    let mut weights = vec![0.0; seen.len() / dim];
                    attend(params, row, &stored.keys[seen.clone()], &mut weights);
                    weights
                };
                let weights: Vec<Vec<f32>> = stored.iter().map(weights).collect();
                let result = |key: usize, value: usize| mixed(&weights[key], &stored[value].values[seen.clone()], dim);
                let whole = result(0, 0);
                squares.length += whole.iter().map(|x| x * x).sum::<f64>();
                for (off, (key, value)) in squares.off.iter_mut().zip(pairs) {
                    let pairs = result(*key, *value).into_iter().zip(&whole).map(|(a, b)| (a - b) * (a - b));
                    *off += pairs.sum::<f64>();
                }
            }
        }
        squares
    }
}

/// Sums of squares over queries, heads and channels.
struct Squares {
    /// Of the results.
    length: f64,
    /// Of how far they are off, for each pair.
    off: Vec<f64>,
}

fn mixed(weights: &[f32], values: &[f32], dim: usize) -> Vec<f64> {
    let mut result = vec![0.0f32; dim];
    simd::weighted_sums(weights, weights.len(), values, dim, &mut result);
    result.into_iter().map(f64::from).collect()
}
