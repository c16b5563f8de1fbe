//! Reading a contiguous f32 CPU tensor in place.

use candle_core::{CpuStorage, Storage, Tensor};

use crate::error::{Error, Result};

/// Calls `f` with the elements of `tensor`, which must be a contiguous f32 tensor on the CPU; nothing is copied.
pub fn with<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(f(&data[start..end])),
        _ => Err(Error::Internal(format!("expected a contiguous f32 CPU tensor, found {tensor:?}"))),
    }
}
