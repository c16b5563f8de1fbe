//! The question of a search for directions along which keys and values are stored (CSKV, arXiv 2409.10593).

use std::time::Instant;

use rayon::prelude::*;

use super::clock::milliseconds;
use super::moments::{Part, Side, Wanted, gather, own_layers};
use super::ticket::Events;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::directions::gram;
use crate::method::latent::{
    DirectionsHeads, DirectionsInit, LARGEST, LayerDirections, MOST_TEXT, directions as first,
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
    let size = if joint { heads * dim } else { dim };
    if size > LARGEST {
        return Err(refuse(format!(
            "directions are found for up to {LARGEST} channels together, and this model has {size}; use `heads: \"each\"`"
        )));
    }
    let rank = ((request.most * size as f64 - 1e-9).ceil().max(1.0) as usize).next_multiple_of(STEP).min(size);
    let own = own_layers(model)?;
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
    let side = |layer: usize, side: Side| vec![Part { layer, side }];
    let groups = own.iter().flat_map(|layer| [side(*layer, Side::Keys), side(*layer, Side::Values)]);
    let wanted = Wanted { groups: if asvd { Vec::new() } else { groups.collect() }, joint, inputs: asvd };
    let moments = gather(model, &request.sources, images, &wanted, events, &mut timings)?;
    let total = own.len() as u64;
    let mut layers = Vec::with_capacity(own.len());
    for (index, layer) in own.iter().enumerate() {
        events.check()?;
        let matrices = if asvd {
            let inputs = moments.inputs.get(layer).map_or(&[][..], Vec::as_slice);
            scaled(model, *layer, size, inputs, request.alpha)?
        } else {
            let of = |group: usize| moments.groups[group].iter().map(|moment| moment.matrix()).collect();
            [of(2 * index), of(2 * index + 1)]
        };
        if matrices.iter().flatten().flatten().any(|x| !x.is_finite()) {
            return Err(Error::Numbers {
                reason: format!("the keys and values of layer {layer} are not finite"),
                fits: Vec::new(),
            });
        }
        let find = |matrices: Vec<Vec<f64>>| -> Vec<i8> {
            let found: Vec<Vec<i8>> = matrices.into_par_iter().map(|matrix| first(matrix, size, rank)).collect();
            found.concat()
        };
        layers.push(LayerDirections::new(*layer, matrices.map(find)));
        events.offer(Event::Progress(Progress { stage: "layers", done: index as u64 + 1, total }));
    }
    timings.total = milliseconds(events.submitted().elapsed());
    let (positions, usage) = (moments.positions, moments.usage);
    events.finish(Event::Directions { layers, rank, positions, usage, timings });
    Ok(())
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
