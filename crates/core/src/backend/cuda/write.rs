//! The new entries of a layer on a GPU, of all sequences that go through it together.

use prefixkv_kernels::cuda::{self, Gpu, New};

use crate::cache::Lane;
use crate::device::Cuda;
use crate::error::Result;
use crate::sequence::Sequence;

/// Writes what `reserve` counted in the lanes of `layer` of every sequence, after the moves that wait. The rows of a sequence
/// are those of `new` from the number beside it on.
pub(super) fn write(
    gpu: &Gpu,
    sequences: &mut [(&mut Sequence<Cuda>, usize)],
    layer: usize,
    new: New<'_, f32>,
    dim: usize,
) -> Result<()> {
    let mut moves = Vec::new();
    for (sequence, _) in sequences.iter_mut() {
        moves.extend(sequence.lanes_mut(layer).iter_mut().flat_map(Lane::moves));
    }
    if !moves.is_empty() {
        cuda::move_entries(gpu, &mut moves)?;
        drop(moves);
        for (sequence, _) in sequences.iter_mut() {
            sequence.lanes_mut(layer).iter_mut().for_each(Lane::moved);
        }
    }
    let mut items = Vec::new();
    for (sequence, row) in sequences.iter_mut() {
        items.extend(sequence.lanes_mut(layer).iter_mut().flat_map(|lane| lane.unwritten(*row)));
    }
    cuda::append(gpu, new, &mut items, dim)?;
    drop(items);
    for (sequence, _) in sequences.iter_mut() {
        sequence.lanes_mut(layer).iter_mut().for_each(Lane::written);
    }
    Ok(())
}
