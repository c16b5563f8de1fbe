//! The new entries of a layer on a GPU, of a prompt.

use prefixkv_kernels::cuda::{self, Gpu, New, Queries};

use crate::cache::Lane;
use crate::device::Cuda;
use crate::error::Result;
use crate::sequence::Sequence;

/// Writes what `reserve` counted in the lanes of `layer`, after the moves that wait, and rotates the queries of the same rows.
pub(super) fn write(
    gpu: &Gpu,
    sequence: &mut Sequence<Cuda>,
    layer: usize,
    new: New<'_, f32>,
    queries: Queries<'_, f32>,
    dim: usize,
) -> Result<()> {
    let lanes = sequence.lanes_mut(layer);
    let mut moves: Vec<_> = lanes.iter_mut().flat_map(Lane::moves).map(|(item, _)| item).collect();
    if !moves.is_empty() {
        cuda::move_entries(gpu, &mut moves)?;
        drop(moves);
        lanes.iter_mut().for_each(Lane::moved);
    }
    let mut items: Vec<_> = lanes.iter_mut().flat_map(|lane| lane.unwritten(0)).map(|(item, _)| item).collect();
    cuda::append_and_rotate(gpu, new, queries, &mut items, dim)?;
    drop(items);
    lanes.iter_mut().for_each(Lane::written);
    Ok(())
}
