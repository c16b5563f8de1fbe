//! The question of a search for directions along which keys and values are stored: of each layer (CSKV, arXiv 2409.10593), or of two layers
//! together (CLLA, arXiv 2410.15252).

use std::time::Instant;

use rayon::prelude::*;

use super::clock::milliseconds;
use super::moments::{Moments, Part, Side, Wanted, gather, own_layers};
use super::ticket::Events;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::directions::gram;
use crate::method::latent::{
    DirectionsHeads, DirectionsInit, DirectionsSpan, LARGEST, LayerDirections, MOST_TEXT, PARTS, directions as first,
};
use crate::model::Model;
use crate::wire::{DirectionsRequest, Event, Progress, Timings};

/// Least mean magnitude of what goes into the weights, as in the published code.
const LEAST: f64 = 1e-6;
/// Directions are stored as so many coordinates or a multiple.
const STEP: usize = 8;

/// Reads the prompts with a full cache, and finds the directions of every layer.
pub(super) fn directions<B: Backend>(
    model: &Model<B>,
    request: &DirectionsRequest,
    images: &[Vec<u8>],
    events: &Events,
) -> Result<()> {
    let started = Instant::now();
    let mut timings = Timings { queued: milliseconds(started - events.submitted()), ..Timings::default() };
    let info = model.info();
    let (heads, dim) = (info.kv_heads, info.head_dim);
    let joint = request.heads == DirectionsHeads::Joint;
    let part = if joint { heads * dim } else { dim };
    let pairs = request.span == DirectionsSpan::Pair;
    let size = if pairs { PARTS * part } else { part };
    if size > LARGEST {
        let of = if pairs { " of keys and values of two layers" } else { "" };
        let instead = if joint { "use `heads: \"each\"`" } else { "this method is not for it" };
        return Err(refuse(format!(
            "directions are found for up to {LARGEST} channels{of} together, and this model has {size}; {instead}"
        )));
    }
    let rank = ((request.most * size as f64 - 1e-9).ceil().max(1.0) as usize).next_multiple_of(STEP).min(size);
    let mut own = own_layers(model)?;
    if pairs {
        own.truncate(own.len() / 2 * 2);
    }
    if own.is_empty() {
        return Err(refuse("directions of two layers need a model with two that have keys and values of their own"));
    }
    let text = |rank: usize| own.len() * 2 * (rank * heads * dim).div_ceil(3) * 4;
    if text(rank) > MOST_TEXT {
        let fits = (1..=rank / STEP).rev().map(|steps| steps * STEP).find(|rank| text(*rank) <= MOST_TEXT);
        let share = fits.map_or(0.0, |rank| (rank as f64 / size as f64 * 100.0).floor() / 100.0);
        return Err(refuse(format!(
            "{rank} directions of {size} channels would take {} bytes in a file, which may have {MOST_TEXT}; take `most` up to {share}",
            text(rank)
        )));
    }
    let asvd = request.init == DirectionsInit::Asvd;
    if asvd {
        // A model that it cannot be done for is refused before the work.
        own.first().map_or(Ok(None), |layer| model.projection(*layer))?;
    }
    let sides = |layer: &usize| [Side::Keys, Side::Values].map(|side| Part { layer: *layer, side });
    let groups: Vec<Vec<Part>> = match pairs {
        true => own.chunks_exact(2).map(|pair| pair.iter().flat_map(sides).collect()).collect(),
        false => own.iter().flat_map(sides).map(|part| vec![part]).collect(),
    };
    let wanted = Wanted { groups: if asvd { Vec::new() } else { groups }, joint, inputs: asvd };
    let moments = gather(model, &request.sources, images, &wanted, events, &mut timings)?;
    let total = own.len() as u64;
    let mut layers = Vec::with_capacity(own.len());
    let step = if pairs { 2 } else { 1 };
    for (index, layer) in own.iter().enumerate().step_by(step) {
        events.check()?;
        let progress = Event::Progress(Progress { stage: "layers", done: (index + step) as u64, total });
        if pairs {
            layers.extend(together(&moments, index / 2, [*layer, own[index + 1]], (part, rank), events)?);
            events.offer(progress);
            continue;
        }
        let matrices = if asvd {
            let inputs = moments.inputs.get(layer).map_or(&[][..], Vec::as_slice);
            scaled(model, *layer, size, inputs, request.alpha)?
        } else {
            let of = |group: usize| moments.groups[group].iter().map(|moment| moment.matrix()).collect();
            [of(2 * index), of(2 * index + 1)]
        };
        check_finite(*layer, matrices.iter().flatten())?;
        let find = |matrices: Vec<Vec<f64>>| -> Vec<i8> {
            let found: Vec<Vec<i8>> = matrices.into_par_iter().map(|matrix| first(matrix, size, rank)).collect();
            found.concat()
        };
        layers.push(LayerDirections::new(*layer, matrices.map(find)));
        events.offer(progress);
    }
    timings.total = milliseconds(events.submitted().elapsed());
    let (positions, usage) = (moments.positions, moments.usage);
    events.finish(Event::Directions { layers, rank, positions, usage, timings });
    Ok(())
}

fn check_finite<'a>(layer: usize, mut matrices: impl Iterator<Item = &'a Vec<f64>>) -> Result<()> {
    match matrices.all(|matrix| matrix.iter().all(|x| x.is_finite())) {
        true => Ok(()),
        false => {
            let reason = format!("the keys and values of layer {layer} are not finite");
            Err(Error::Numbers { reason, fits: Vec::new() })
        }
    }
}

/// The first `rank` directions of the keys and values of two layers, whose moments are those of a group: parts of `part` numbers, each divided
/// by its root mean square, so that none counts more for being larger.
fn together(
    moments: &Moments,
    group: usize,
    pair: [usize; 2],
    (part, rank): (usize, usize),
    events: &Events,
) -> Result<Vec<LayerDirections>> {
    let size = PARTS * part;
    let mut matrices: Vec<Vec<f64>> = moments.groups[group].iter().map(|moment| moment.matrix()).collect();
    check_finite(pair[0], matrices.iter())?;
    let numbers = (moments.positions * part * matrices.len()) as f64;
    let squares = |of: usize| -> f64 {
        let diagonal = |matrix: &Vec<f64>| (of * part..(of + 1) * part).map(|at| matrix[at * size + at]).sum::<f64>();
        matrices.iter().map(diagonal).sum()
    };
    let sizes: Vec<f64> = (0..PARTS)
        .map(|of| match (squares(of) / numbers).sqrt() {
            root if root > 1e-6 => root,
            // Nothing is as good as anything for a part that is nothing.
            _ => 1.0,
        })
        .collect();
    for (at, x) in matrices.iter_mut().flat_map(|matrix| matrix.iter_mut().enumerate()) {
        *x /= sizes[at / size / part] * sizes[at % size / part];
    }
    let find = |matrix: Vec<f64>| -> Result<Vec<i8>> {
        events.check()?;
        Ok(first(matrix, size, rank))
    };
    let found: Vec<Vec<i8>> = matrices.into_par_iter().map(find).collect::<Result<_>>()?;
    let of = |side: usize| -> Vec<i8> {
        let rows = found.iter().flat_map(|codes| codes.chunks_exact(size));
        rows.flat_map(|row| &row[side * part..(side + 1) * part]).copied().collect()
    };
    let layer = |index: usize| {
        let sizes = Some([sizes[2 * index], sizes[2 * index + 1]]);
        LayerDirections { sizes, ..LayerDirections::new(pair[index], [of(2 * index), of(2 * index + 1)]) }
    };
    Ok(vec![layer(0), layer(1)])
}

/// `W S^2 W^T` of the weights of keys and of values, of each head or of all, with `S` the mean magnitudes of what goes into them to the power
/// `alpha`.
fn scaled<B: Backend>(
    model: &Model<B>,
    layer: usize,
    size: usize,
    inputs: &[f64],
    alpha: f64,
) -> Result<[Vec<Vec<f64>>; 2]> {
    let Some(projection) = model.projection(layer)? else {
        return Err(Error::Internal(format!("layer {layer} has no weights of its own")));
    };
    let scales: Vec<f32> = inputs.iter().map(|mean| (mean + LEAST).powf(alpha) as f32).collect();
    let of = |mut weights: Vec<f32>| -> Result<Vec<Vec<f64>>> {
        if scales.is_empty() || !weights.len().is_multiple_of(size * scales.len()) {
            return Err(Error::Internal(format!("layer {layer} has {} inputs that were seen", scales.len())));
        }
        for row in weights.chunks_exact_mut(scales.len()) {
            row.iter_mut().zip(&scales).for_each(|(x, scale)| *x *= scale);
        }
        Ok(weights.par_chunks_exact(size * scales.len()).map(|rows| gram(rows, size)).collect())
    };
    Ok([of(projection.keys)?, of(projection.values)?])
}
