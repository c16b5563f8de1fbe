//! The bridge from tensors to the attention kernels: a model hands over projections and the sequence, never owns a cache.

use candle_core::Tensor;
use prefixkv_kernels::attention::{self as kernel, AnyRun, DecodeItem, Gather, LaneView, Mask, Rows, Run};
use prefixkv_kernels::rotary::{self, Angles, New};

use super::slice;
use crate::cache::{Lane, Sequence};
use crate::error::{Error, Result};

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub query: usize,
    pub kv: usize,
    pub dim: usize,
}

impl Heads {
    /// Columns of a fused projection: queries, then keys, then values.
    pub fn fused(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// The rotations of the positions that one pass through the layers adds.
pub struct Rotary {
    /// One per new position.
    angles: Angles,
    /// One per rank of an entry, for lanes whose keys are rotated when they are read.
    ranks: Option<Angles>,
}

impl Rotary {
    /// For the next `n` positions of `sequence`; `inverse_frequencies` as in [`Angles::new`].
    pub fn new(inverse_frequencies: &[f32], sequence: &Sequence, n: usize) -> Self {
        let first = sequence.next_phase();
        let angles = |range| Angles::new(range, inverse_frequencies, 1.0);
        let ranks = sequence.rotates_on_read().then(|| angles(0..sequence.next_position() + n as u32));
        Rotary { angles: angles(first..first + n as u32), ranks }
    }
}

/// Stores the new keys and values in the lanes of `layer` and attends to all that is kept.
///
/// `fused` is `[n, heads.fused()]`, the projections of the next `n` positions of the sequence; the result is
/// `[n, heads.query * heads.dim]`.
pub fn causal(fused: &Tensor, heads: Heads, rotary: &Rotary, layer: usize, sequence: &mut Sequence) -> Result<Tensor> {
    let n = rotary.angles.positions();
    let width = heads.fused();
    let mut out = vec![0.0; n * heads.query * heads.dim];
    slice::with(fused, |fused| -> Result<()> {
        let at = |head: usize| Rows::strided(fused, head * heads.dim, width);
        let (queries, keys, values) = (at(0), at(heads.query), at(heads.query + heads.kv));
        sequence.store(layer, keys, values, &rotary.angles)?;
        let lanes = sequence.lanes(layer);
        let phases: Vec<Option<Angles>> =
            lanes.iter().map(|lane| rotary.ranks.as_ref().map(|ranks| ranks.select(&lane.ranks()))).collect();
        let views: Vec<LaneView<'_>> =
            lanes.iter().zip(&phases).map(|(lane, phases)| lane.view(phases.as_ref())).collect();
        let mut rotated = vec![0.0; out.len()];
        match &rotary.ranks {
            None => rotary::rotate(queries, heads.query, heads.dim, &rotary.angles, &mut rotated),
            Some(ranks) => {
                // The last entries of a lane are the queries' own.
                let len = lanes.first().map_or(0, Lane::len);
                if lanes.iter().any(|lane| lane.len() != len) {
                    return Err(Error::Internal("ranks need lanes of one length in a layer".into()));
                }
                let own: Vec<u32> = (len - n..len).map(|rank| rank as u32).collect();
                rotary::rotate(queries, heads.query, heads.dim, &ranks.select(&own), &mut rotated);
            }
        }
        if sequence.in_prompt() {
            let queries = Rows::dense(&rotated, heads.query * heads.dim);
            let mut sums = Vec::new();
            let weights = sequence.query_weights(layer);
            let gather = weights.as_deref().map(|weights| Gather { weights, sums: &mut sums });
            let places: usize = lanes.iter().map(|lane| lane.places() * lane.heads().len()).sum();
            let _workspace = match gather {
                Some(_) => Some(sequence.account().charge((places * size_of::<f32>()) as u64)?),
                None => None,
            };
            kernel::prefill(queries, n, heads.query, heads.dim, &views, heads.scale(), Mask::Causal, gather, &mut out);
            drop(views);
            sequence.attended(layer, &sums)
        } else {
            let group = heads.query / heads.kv;
            let gathers = sequence.gathers_step(layer);
            let mut sums: Vec<Vec<f32>> =
                lanes.iter().map(|lane| vec![0.0; if gathers { lane.places() } else { 0 }]).collect();
            let mut items = Vec::with_capacity(lanes.len());
            let (mut queries, mut rest) = (&rotated[..], &mut out[..]);
            for ((lane, view), sums) in lanes.iter().zip(views).zip(&mut sums) {
                let width = lane.heads().len() * group * heads.dim;
                let (query, queries_left) = queries.split_at(width);
                let (out, rest_left) = rest.split_at_mut(width);
                (queries, rest) = (queries_left, rest_left);
                items.push(DecodeItem { lane: view, queries: query, out, sums: gathers.then_some(&mut sums[..]) });
            }
            kernel::decode(&mut items, heads.dim, heads.scale());
            drop(items);
            sequence.stepped(layer, if gathers { &sums } else { &[] })
        }
    })??;
    Ok(Tensor::from_vec(out, (n, heads.query * heads.dim), fused.device())?)
}

/// Attention of every row to every row, without positions and without a cache: image towers.
///
/// `fused` is `[n, heads.fused()]`, the result `[n, heads.query * heads.dim]`.
pub fn bidirectional(fused: &Tensor, n: usize, heads: Heads) -> Result<Tensor> {
    let width = heads.fused();
    let mut out = vec![0.0; n * heads.query * heads.dim];
    slice::with(fused, |fused| {
        let at = |head: usize| Rows::strided(fused, head * heads.dim, width);
        let (mut keys, mut values) = (vec![0.0f32; n * heads.kv * heads.dim], vec![0.0f32; n * heads.kv * heads.dim]);
        let new = New { keys: at(heads.query), values: at(heads.query + heads.kv), skip: 0, n, angles: None };
        rotary::append(new, 0..heads.kv, heads.dim, &mut keys, &mut values, 0);
        let run = AnyRun::F32(Run { keys: &keys, values: &values, len: n, capacity: n });
        let lane = LaneView::new(heads.kv, vec![run]);
        kernel::prefill(at(0), n, heads.query, heads.dim, &[lane], heads.scale(), Mask::None, None, &mut out);
    })?;
    Ok(Tensor::from_vec(out, (n, heads.query * heads.dim), fused.device())?)
}
