//! How much attention heads look at images (SparseMM, arXiv 2506.05344), and how much they fetch what comes next from earlier text (HeadKV, arXiv
//! 2410.19258).

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use prefixkv_kernels::attention::AttentionParams;
use rayon::prelude::*;

use super::clock::milliseconds;
use super::sharing::Read;
use super::ticket::Events;
use super::{prompt, score};
use crate::backend::Backend;
use crate::cache::{Memory, Modality, Span};
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::Method;
use crate::method::heads::HeadMeasure;
use crate::method::score::rows::{attend, heads_apart};
use crate::model::Model;
use crate::sequence::Sequence;
use crate::wire::{Event, HeadsRequest, HeadsSource, Progress, Timings, Usage};

/// The most attended positions of a head that count as what it fetches: about as many as a needle of HeadKV's code has tokens.
const FETCHED: usize = 20;

/// Reads the prompts with a full cache, and scores the heads of the layers that methods size.
pub(super) fn heads<B: Backend>(
    model: &Model<B>,
    request: &HeadsRequest,
    images: &[Vec<u8>],
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let (measure, total) = (request.measure, request.sources.len() as u64);
    let (sized, attention) = (model.sized_layers(), model.attention());
    // One more, since nothing comes after the last.
    let method = Arc::new(Method::watching(request.queries + 1));
    let (mut scores, mut usage) = (vec![Vec::new(); sized.len()], Usage::default());
    let (mut samples, mut positions) = (0, 0);
    for (done, source) in request.sources.iter().enumerate() {
        let read = read(model, source, &images[source.images.clone()], events, &mut timings)?;
        let start = Instant::now();
        let mut sequence = model.new_sequence_with(Some(method.clone()), false)?;
        model.prefill(&read.prompt, &read.features, &mut sequence, &|| events.check())?;
        let queries = sequence.take_queries();
        let seen = Seen::new(&read.prompt.tokens, &read.prompt.spans);
        let counted = seen.counted(measure, request.queries);
        if !counted.is_empty() {
            (samples, positions) = (samples + 1, positions + counted.len());
            for (layer, sums) in sized.iter().zip(&mut scores) {
                events.check()?;
                let queries = queries.get(*layer).map_or(&[][..], Vec::as_slice);
                let found = Held::new(&sequence, *layer, attention[*layer], queries)?.scores(&seen, measure, &counted);
                sums.resize(found.len(), 0.0);
                sums.iter_mut().zip(found).for_each(|(sum, score)| *sum += score);
            }
        }
        timings.prefill += milliseconds(start.elapsed());
        usage.prompt_tokens += read.prompt.tokens.len();
        usage.image_tokens += read.prompt.image_tokens;
        events.offer(Event::Progress(Progress { stage: "samples", done: done as u64 + 1, total }));
    }
    if samples == 0 {
        return Err(nothing(measure, request.queries));
    }
    scores.iter_mut().flatten().for_each(|score| *score /= samples as f64);
    if let Some(layer) = scores.iter().position(|scores| scores.iter().any(|score| !score.is_finite())) {
        let reason = format!("the attention of layer {} is not finite", sized[layer]);
        return Err(Error::Numbers { reason, fits: Vec::new() });
    }
    if scores.iter().flatten().all(|score| *score == 0.0) {
        return Err(refuse(format!(
            "no head has a score above 0 over {positions} positions of {samples} samples; take more samples{}",
            if measure == HeadMeasure::ImageHits { ", or `measure: \"image-mass\"`" } else { "" }
        )));
    }
    timings.total = milliseconds(events.submitted().elapsed());
    events.finish(Event::Heads { scores, samples, positions, usage, timings });
    Ok(())
}

/// No position of any sample can be scored by.
fn nothing(measure: HeadMeasure, queries: usize) -> Error {
    refuse(match measure {
        HeadMeasure::Copies => format!(
            "no sample has a token among the last {queries} that is in its text before, so nothing is copied; take longer prompts, or answers \
             that repeat what they say"
        ),
        HeadMeasure::ImageHits | HeadMeasure::ImageMass => format!(
            "no sample has text behind an image among its last {queries} positions; take prompts with images, or `measure: \"copies\"`"
        ),
    })
}

/// A prompt with its answer, if it has one, ready for the layers.
fn read<B: Backend>(
    model: &Model<B>,
    source: &HeadsSource,
    images: &[Vec<u8>],
    events: &Events,
    timings: &mut Timings,
) -> Result<Read<B>> {
    let HeadsSource { source, answer: Some(answer), .. } = source else {
        return Read::new(model, &source.source, images, events, timings);
    };
    let plans = prompt::plans(model, images, &source.order)?;
    let (mut encoded, answer) = score::split(model, source, answer, &plans)?;
    encoded.tokens.extend(answer);
    Read::of(model, source, (&encoded, &plans), images, events, timings)
}

/// The tokens of a prompt, and which of them are of images.
struct Seen<'a> {
    tokens: &'a [u32],
    /// Whether it is of an image.
    pictured: Vec<bool>,
}

impl<'a> Seen<'a> {
    fn new(tokens: &'a [u32], spans: &[Span]) -> Seen<'a> {
        let mut pictured = vec![false; tokens.len()];
        for span in spans.iter().filter(|span| matches!(span.modality, Modality::Image { .. })) {
            pictured[span.start..span.start + span.len].fill(true);
        }
        Seen { tokens, pictured }
    }

    /// The positions among the last `queries` at which a head has something to look at.
    fn counted(&self, measure: HeadMeasure, queries: usize) -> Vec<usize> {
        let n = self.tokens.len();
        match measure {
            HeadMeasure::Copies => {
                let last = n.saturating_sub(1);
                let copies = |at: &usize| (0..*at).any(|before| self.is_next(*at, before));
                (last.saturating_sub(queries)..last).filter(copies).collect()
            }
            HeadMeasure::ImageHits | HeadMeasure::ImageMass => {
                let first = self.pictured.iter().position(|pictured| *pictured).unwrap_or(n);
                let behind = |at: &usize| *at > first && !self.pictured[*at];
                (n.saturating_sub(queries)..n).filter(behind).collect()
            }
        }
    }

    /// Whether `before` is text before `at` with the token that comes behind `at`, which is text too.
    fn is_next(&self, at: usize, before: usize) -> bool {
        let next = self.tokens.get(at + 1).filter(|_| !self.pictured[at + 1]);
        before < at && !self.pictured[before] && Some(&self.tokens[before]) == next
    }

    /// The score of a position at which a head has these `weights` over the positions of `part`; the last of them is its own.
    fn measured(&self, measure: HeadMeasure, weights: &[f32], part: Range<usize>) -> f64 {
        let at = |position: usize| f64::from(weights[position - part.start]);
        match measure {
            HeadMeasure::ImageMass => part.clone().filter(|position| self.pictured[*position]).map(at).sum(),
            HeadMeasure::ImageHits => {
                // Of equal ones the first.
                let others = part.clone().filter(|position| *position > 0).rev();
                let most = others.max_by(|a, b| at(*a).total_cmp(&at(*b)));
                f64::from(most.is_some_and(|position| self.pictured[position]))
            }
            HeadMeasure::Copies => {
                let mut order: Vec<usize> = part.clone().collect();
                let fetched = FETCHED.min(order.len());
                if fetched < order.len() {
                    order.select_nth_unstable_by(fetched, |a, b| at(*b).total_cmp(&at(*a)).then(a.cmp(b)));
                    order.truncate(fetched);
                }
                order.into_iter().filter(|before| self.is_next(part.end - 1, *before)).map(at).sum()
            }
        }
    }
}

/// The keys of a layer of a full cache, and the last queries of its prompt.
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
        let keys = heads_apart(&lane.keys(&entries)?, params.kv_heads, params.dim);
        let positions: Vec<u32> = entries.iter().map(|entry| entry.position).collect();
        let sights = sequence.sights(positions.iter().map(|position| *position as usize));
        Ok(Held { params, queries, positions, sights, keys })
    }

    /// The mean of each query head over the positions that count.
    fn scores(&self, seen: &Seen<'_>, measure: HeadMeasure, counted: &[usize]) -> Vec<f64> {
        let AttentionParams { query_heads, kv_heads, dim, .. } = self.params;
        let (group, n) = (self.params.group(), self.positions.len());
        let asked = self.queries.len() / (query_heads * dim);
        let last = seen.tokens.len();
        let of = |head: usize| {
            let keys = &self.keys[head / group * n * dim..(head / group + 1) * n * dim];
            let one = |at: usize| {
                let query = ((asked + at - last) * query_heads + head) * dim;
                let since = self.params.since(at as u32);
                // In a window the entries of earlier positions are gone.
                let first = self.positions.partition_point(|position| *position < since);
                let own = self.positions.partition_point(|position| *position as usize <= at);
                let end = self.sights[own - 1];
                let end = self.positions.partition_point(|position| (*position as usize) < end);
                let mut weights = vec![0.0; end - first];
                attend(&self.params, &self.queries[query..query + dim], &keys[first * dim..end * dim], &mut weights);
                weights.truncate(own - first);
                seen.measured(measure, &weights, at + 1 - weights.len()..at + 1)
            };
            counted.iter().map(|at| one(*at)).sum::<f64>() / counted.len() as f64
        };
        (0..kv_heads * group).into_par_iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Piece;

    fn seen(tokens: &[u32]) -> Seen<'_> {
        let image = Span { modality: Modality::Image { index: 0, piece: Piece::base(1, 2) }, start: 2, len: 2 };
        Seen::new(tokens, &[image])
    }

    #[test]
    fn positions_count_that_have_something_to_look_at() {
        // The image, whose placeholder is 9, is at 2 and 3.
        let tokens = [1, 5, 9, 9, 6, 5, 7, 5];
        let seen = seen(&tokens);
        assert_eq!(seen.counted(HeadMeasure::ImageHits, 32), [4, 5, 6, 7]);
        assert_eq!(seen.counted(HeadMeasure::ImageMass, 2), [6, 7]);
        // Behind 4 comes the 5 that stood at 1, and behind 6 again; what stands in an image is no token.
        assert_eq!(seen.counted(HeadMeasure::Copies, 32), [4, 6]);
        assert_eq!(seen.counted(HeadMeasure::Copies, 2), [6]);
        assert_eq!(Seen::new(&[1], &[]).counted(HeadMeasure::Copies, 4), [0; 0]);
        assert_eq!(Seen::new(&[1, 1, 1], &[]).counted(HeadMeasure::ImageHits, 4), [0; 0]);
    }

    #[test]
    fn a_head_is_measured_by_what_it_looks_at() {
        let tokens = [1, 5, 9, 9, 6, 5, 7, 5];
        let seen = seen(&tokens);
        let weights = [0.5, 0.125, 0.0625, 0.125, 0.0625, 0.0625, 0.0625];
        assert_eq!(seen.measured(HeadMeasure::ImageMass, &weights, 0..7), 0.1875);
        assert_eq!(seen.measured(HeadMeasure::ImageHits, &weights, 0..7), 0.0, "of equal ones the first, a text");
        assert_eq!(seen.measured(HeadMeasure::ImageHits, &weights[2..], 2..7), 1.0);
        assert_eq!(seen.measured(HeadMeasure::Copies, &weights, 0..7), 0.1875);
        // Only the most attended positions are fetched.
        let long: Vec<u32> = (0..60).map(|i| if i % 2 == 0 { 3 } else { 100 + i }).collect();
        let spread: Vec<f32> = (0..60).map(|i| (i + 1) as f32).collect();
        let of = Seen::new(&long, &[]);
        // At 57 comes a 3, which stood at 38 to 56 as far as it counts.
        let want: f64 = (38..57).step_by(2).map(|at| f64::from(spread[at])).sum();
        assert_eq!(of.measured(HeadMeasure::Copies, &spread[..58], 0..58), want);
    }
}
