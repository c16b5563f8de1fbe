//! Second moments of keys and values over prompts: the directions in which they lie, and how those of several layers go together.
//!
//! A calibration asks for groups of [`Part`]s. At each position the parts of a group are one long vector of each head, and the group's
//! moment is the sum of its products with itself over all positions of all prompts. So `[keys of 3]` says in which directions the keys of
//! layer 3 lie, and `[keys of 0, values of 0, keys of 1, values of 1]` what two neighbouring layers have in common. Keys are before their
//! rotary embedding. Nothing is kept of a position but its share in the moments, so prompts may be as many as one likes; a moment of `n`
//! numbers takes `4 n (n + 1)` bytes, which are on the account of the model's cache while [`Moments`] lives.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use rayon::prelude::*;

use super::clock::milliseconds;
use super::sharing::Read;
use super::ticket::Events;
use crate::backend::Backend;
use crate::cache::{Charge, Memory};
use crate::error::Result;
use crate::method::store::{Inputs, Notes};
use crate::model::Model;
use crate::sequence::Sequence;
use crate::wire::{Event, Progress, Source, Timings, Usage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Keys,
    Values,
}

/// The keys, or the values, of a layer that has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) layer: usize,
    pub(super) side: Side,
}

/// The moments that are to be gathered.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) groups: Vec<Vec<Part>>,
    /// Of all heads of a layer together, and not of each by itself.
    pub(super) joint: bool,
    /// Whether it is asked what keys and values are made from as well.
    pub(super) inputs: bool,
}

/// The moments of the prompts so far.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// By group, one per head or one of all.
    pub(super) groups: Vec<Vec<Moment>>,
    /// By layer, the mean magnitude of each channel that its keys and values are made from: the mean over the prompts of each one's mean
    /// over its positions.
    pub(super) inputs: BTreeMap<usize, Vec<f64>>,
    /// Positions of all prompts.
    pub(super) positions: usize,
    pub(super) usage: Usage,
    _charges: Vec<Charge>,
}

/// A sum of products of vectors with themselves.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    size: usize,
    /// The lower triangle, row by row.
    sums: Vec<f64>,
}

/// The layers that have keys and values of their own.
pub(super) fn own_layers<B: Backend>(model: &Model<B>) -> Result<Vec<usize>> {
    let sequence = model.new_sequence()?;
    Ok((0..model.info().layers).filter(|layer| sequence.source(*layer) == *layer).collect())
}

/// Reads the prompts, each with its own of the images, with a full cache.
pub(super) fn gather<B: Backend>(
    model: &Model<B>,
    sources: &[(Source, Range<usize>)],
    images: &[Vec<u8>],
    wanted: &Wanted,
    events: &Events,
    timings: &mut Timings,
) -> Result<Moments> {
    let (account, watch) = (model.pool().account(), Inputs::new(wanted.inputs));
    let (mut found, method) = (Moments::default(), watch.method());
    let total = sources.len();
    for (done, (source, own)) in sources.iter().enumerate() {
        let read = Read::new(model, source, &images[own.clone()], events, timings)?;
        let start = Instant::now();
        let mut sequence = model.new_sequence_with(Some(method.clone()), false)?;
        if done == 0 {
            for group in &wanted.groups {
                let moments = empty(&sequence, group, wanted.joint)?;
                let bytes: usize = moments.iter().map(|moment| size_of_val(&moment.sums[..])).sum();
                found._charges.push(account.charge(bytes as u64)?);
                found.groups.push(moments);
            }
        }
        model.prefill(&read.prompt, &read.features, &mut sequence, &|| events.check())?;
        for (group, moments) in wanted.groups.iter().zip(&mut found.groups) {
            events.check()?;
            add(&sequence, group, moments)?;
        }
        for (layer, magnitudes) in watch.take() {
            let means = found.inputs.entry(layer).or_default();
            means.resize(magnitudes.len(), 0.0);
            means.iter_mut().zip(magnitudes).for_each(|(mean, x)| *mean += x / total as f64);
        }
        timings.prefill += milliseconds(start.elapsed());
        found.positions += read.prompt.tokens.len();
        found.usage.prompt_tokens += read.prompt.tokens.len();
        found.usage.image_tokens += read.prompt.image_tokens;
        events.offer(Event::Progress(Progress { stage: "samples", done: done as u64 + 1, total: total as u64 }));
    }
    Ok(found)
}

fn empty<M: Memory>(sequence: &Sequence<M>, group: &[Part], joint: bool) -> Result<Vec<Moment>> {
    let mut heads = 0;
    for part in group {
        heads = sequence.whole_lane(part.layer)?.heads().len();
    }
    let (count, size) = if joint { (1, heads) } else { (heads, 1) };
    let size = size * sequence.head_dim() * group.len();
    Ok(vec![Moment { size, sums: vec![0.0; size * (size + 1) / 2] }; count])
}

/// Adds the positions of a prompt.
fn add<M: Memory>(sequence: &Sequence<M>, group: &[Part], moments: &mut [Moment]) -> Result<()> {
    let mut sides = Vec::with_capacity(group.len());
    for Part { layer, side } in group {
        let lane = sequence.whole_lane(*layer)?;
        let entries = lane.sorted();
        sides.push(match side {
            Side::Keys => lane.keys(&entries)?,
            Side::Values => lane.values(&entries)?,
        });
    }
    let heads = moments.len();
    moments.par_iter_mut().enumerate().for_each(|(head, moment)| {
        let of = moment.size / group.len().max(1);
        let rows: Vec<_> = sides.iter().map(|side| side.chunks_exact(of).skip(head).step_by(heads)).collect();
        moment.add(rows);
    });
    Ok(())
}

impl Moment {
    /// Adds vectors whose parts come from `parts`, side by side.
    fn add<'a>(&mut self, mut parts: Vec<impl Iterator<Item = &'a [f32]>>) {
        let mut row = Vec::with_capacity(self.size);
        loop {
            row.clear();
            parts.iter_mut().filter_map(Iterator::next).for_each(|part| row.extend(part.iter().map(|x| f64::from(*x))));
            if row.len() != self.size || row.is_empty() {
                return;
            }
            let mut start = 0;
            for (i, x) in row.iter().enumerate() {
                let sums = &mut self.sums[start..start + i + 1];
                sums.iter_mut().zip(&row).for_each(|(sum, y)| *sum += x * y);
                start += i + 1;
            }
        }
    }

    /// The sum over all positions, `[size, size]`.
    pub(super) fn matrix(&self) -> Vec<f64> {
        let size = self.size;
        let at = |i: usize, j: usize| self.sums[i.max(j) * (i.max(j) + 1) / 2 + i.min(j)];
        (0..size * size).map(|index| at(index / size, index % size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_sum_of_products_of_all_parts() {
        let number = |i: usize| ((i * 37 + 11) % 23) as f32 / 7.0 - 1.5;
        for (positions, parts, of) in [(1, 1, 1), (5, 1, 4), (7, 4, 3), (0, 2, 2)] {
            let sides: Vec<Vec<f32>> =
                (0..parts).map(|part| (0..positions * of).map(|i| number(i + 100 * part)).collect()).collect();
            let size = parts * of;
            let mut moment = Moment { size, sums: vec![0.0; size * (size + 1) / 2] };
            moment.add(sides.iter().map(|side| side.chunks_exact(of)).collect());
            let of_row = |position: usize, i: usize| f64::from(sides[i / of][position * of + i % of]);
            for (index, got) in moment.matrix().into_iter().enumerate() {
                let (i, j) = (index / size, index % size);
                let want: f64 = (0..positions).map(|p| of_row(p, i) * of_row(p, j)).sum();
                assert!((got - want).abs() < 1e-9, "{got} for {want} at {i}, {j} of {parts} parts");
            }
        }
    }
}
