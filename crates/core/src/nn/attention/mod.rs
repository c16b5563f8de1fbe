//! The bridge from activations to the attention kernels: a model hands over projections and the sequences, never owns a cache.

mod cpu;
mod gpu;
mod storable;

use std::sync::Arc;

use candle_core::Tensor;
use prefixkv_kernels::attention::{AttentionParams, Mask};
use prefixkv_kernels::cuda::{self, Number};
use prefixkv_kernels::rotary::Angles;

use super::matrix::{Data, Matrix, OnGpu, elsewhere};
use super::slice;
use crate::backend::Backend;
use crate::cache::Memory;
use crate::check::Check;
use crate::device::{Cuda, Place};
use crate::error::{Error, Result};
use crate::sequence::{Pass, Sequence};

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

    /// Columns of the queries, and of the result.
    fn width(&self) -> usize {
        self.query * self.dim
    }

    /// Refuses heads that no kernel of the device reads.
    pub fn require(self, place: &Place) -> Result<()> {
        match place {
            Place::Gpu { device, .. } if self.dim == 0 || self.dim > 256 || !self.dim.is_multiple_of(8) => {
                let reason = format!(
                    "the model has heads of {} elements; the CUDA kernels take multiples of 8 up to 256. Use `cpu`",
                    self.dim
                );
                Err(Error::Device { device: device.clone(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Causal attention over these heads.
    fn params(&self) -> AttentionParams {
        AttentionParams::new(self.query, self.kv, self.dim)
    }
}

/// The rotations of the positions that one pass through the layers adds.
pub struct Rotary {
    /// One for a prompt, else one per sequence.
    turns: Vec<RopeAngles>,
    /// Of all rows, for a network on a GPU.
    on_gpu: Option<cuda::Angles>,
}

struct RopeAngles {
    /// One per new position.
    angles: Angles,
    /// One per rank of an entry, for lanes whose keys are rotated when they are read.
    ranks: Option<Angles>,
}

impl Rotary {
    /// For the rows of `pass`; `inverse_frequencies` as in [`Angles::new`].
    pub fn new<M: Memory>(
        inverse_frequencies: &[f32],
        pass: &Pass<'_, '_, M>,
        rows: usize,
        place: &Place,
    ) -> Result<Self> {
        let sequences = pass.sequences();
        let n = match pass {
            Pass::Prompt(_) => rows,
            Pass::Step(_) => 1,
        };
        let phases = |sequence: &Sequence<M>| sequence.next_phase()..sequence.next_phase() + n as u32;
        let on_gpu = match place {
            Place::Cpu => None,
            Place::Gpu { gpu, .. } => {
                let angles =
                    Angles::new(sequences.iter().flat_map(|sequence| phases(sequence)), inverse_frequencies, 1.0);
                Some(cuda::Angles::new(gpu, &angles)?)
            }
        };
        let turn = |sequence: &&Sequence<M>| {
            let angles = |range| Angles::new(range, inverse_frequencies, 1.0);
            let ranks = sequence.rotates_on_read().then(|| angles(0..(sequence.longest_lane() + n) as u32));
            RopeAngles { angles: angles(phases(sequence)), ranks }
        };
        Ok(Rotary { turns: sequences.iter().map(turn).collect(), on_gpu })
    }
}

/// Stores the new keys and values in the lanes of `layer` and attends to all that is kept.
///
/// `fused` is `[n, heads.fused()]`, the projections of the rows of `pass`; the result is `[n, heads.query * heads.dim]`, in the
/// format `number` where the device can: what the product that follows takes. On the CPU `check` is asked between blocks of a prompt's
/// queries, and its error ends the work in the middle of the layer.
pub fn causal<B: Backend>(
    fused: &Matrix,
    heads: Heads,
    rotary: &Rotary,
    layer: usize,
    pass: &mut Pass<'_, '_, B::Memory>,
    number: Number,
    check: Check<'_>,
) -> Result<Matrix> {
    B::causal(fused, heads, rotary, layer, pass, number, check)
}

pub(crate) fn causal_on_cpu(
    fused: &Matrix,
    heads: Heads,
    rotary: &Rotary,
    layer: usize,
    pass: &mut Pass<'_, '_>,
    check: Check<'_>,
) -> Result<Matrix> {
    let Matrix::Cpu(fused) = fused else { return Err(elsewhere()) };
    let out = slice::with(fused, |fused| match pass {
        Pass::Prompt(sequence) => cpu::prompt(fused, heads, &rotary.turns[0], layer, sequence, check),
        Pass::Step(members) => cpu::step(fused, heads, &rotary.turns, layer, members),
    })??;
    let rows = out.len() / heads.width();
    Ok(Matrix::Cpu(Tensor::from_vec(out, (rows, heads.width()), fused.device())?))
}

pub(crate) fn causal_on_gpu(
    fused: &Matrix,
    heads: Heads,
    rotary: &Rotary,
    layer: usize,
    pass: &mut Pass<'_, '_, Cuda>,
    number: Number,
) -> Result<Matrix> {
    let (Matrix::Gpu(fused), Some(angles)) = (fused, &rotary.on_gpu) else { return Err(elsewhere()) };
    let data = match pass {
        Pass::Prompt(sequence) => Data::F32(gpu::prompt(fused, heads, angles, layer, sequence)?),
        Pass::Step(members) => gpu::step(fused, heads, angles, layer, members, number)?,
    };
    Ok(Matrix::Gpu(Arc::new(OnGpu { data, rows: fused.rows, columns: heads.width() })))
}

/// Attention of every row to every row, without positions and without a cache: image towers.
///
/// `fused` is `[n, heads.fused()]`, the result `[n, heads.query * heads.dim]`.
pub fn bidirectional(fused: &Matrix, heads: Heads) -> Result<Matrix> {
    match fused {
        Matrix::Cpu(fused) => {
            let n = fused.dim(0)?;
            let out = slice::with(fused, |fused| cpu::bidirectional(fused, n, heads))??;
            Ok(Matrix::Cpu(Tensor::from_vec(out, (n, heads.width()), fused.device())?))
        }
        Matrix::Gpu(fused) => Ok(Matrix::on_gpu(gpu::bidirectional(fused, heads)?, fused.rows, heads.width())),
    }
}

/// Of [`bidirectional`].
fn every(heads: Heads) -> AttentionParams {
    AttentionParams { mask: Mask::None, ..heads.params() }
}
