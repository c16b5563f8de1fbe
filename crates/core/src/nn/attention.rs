//! The bridge from tensors to the attention kernels: a model hands over projections and the sequence, never owns a cache.

use candle_core::Tensor;
use prefixkv_kernels::attention::{self as kernel, AnyRun, DecodeItem, LaneView, Mask, Rows, Run};
use prefixkv_kernels::rotary::{self, Angles, New};

use super::slice;
use crate::cache::Sequence;
use crate::error::Result;

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

/// Stores the new keys and values in the lanes of `layer` and attends to all that is kept.
///
/// `fused` is `[n, heads.fused()]`, the projections of the next `n` positions of the sequence; the result is
/// `[n, heads.query * heads.dim]`.
pub fn causal(fused: &Tensor, heads: Heads, angles: &Angles, layer: usize, sequence: &mut Sequence) -> Result<Tensor> {
    let n = angles.positions();
    let first = sequence.next_position();
    let width = heads.fused();
    let mut out = vec![0.0; n * heads.query * heads.dim];
    slice::with(fused, |fused| -> Result<()> {
        let at = |head: usize| Rows::strided(fused, head * heads.dim, width);
        let (queries, keys, values) = (at(0), at(heads.query), at(heads.query + heads.kv));
        for lane in &mut sequence.layers[layer] {
            lane.append(keys, values, n, first, angles)?;
        }
        let mut rotated = vec![0.0; out.len()];
        rotary::rotate(queries, heads.query, heads.dim, angles, &mut rotated);
        let lanes = sequence.lanes(layer);
        if n == 1 {
            let group = heads.query / heads.kv;
            let mut items = Vec::with_capacity(lanes.len());
            let (mut queries, mut rest) = (&rotated[..], &mut out[..]);
            for lane in lanes {
                let width = lane.heads().len() * group * heads.dim;
                let (query, queries_left) = queries.split_at(width);
                let (out, rest_left) = rest.split_at_mut(width);
                (queries, rest) = (queries_left, rest_left);
                items.push(DecodeItem { lane: lane.view(), queries: query, out, sums: None });
            }
            kernel::decode(&mut items, heads.dim, heads.scale());
        } else {
            let views: Vec<LaneView<'_>> = lanes.iter().map(|lane| lane.view()).collect();
            let queries = Rows::dense(&rotated, heads.query * heads.dim);
            kernel::prefill(queries, n, heads.query, heads.dim, &views, heads.scale(), Mask::Causal, None, &mut out);
        }
        Ok(())
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
