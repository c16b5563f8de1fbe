//! Reading a contiguous f32 CPU tensor in place.

use candle_core::{CpuStorage, Storage, Tensor};

use half::f16;

use crate::error::{Error, Result};

/// Calls `f` with the elements of `tensor`, which must be a contiguous f32 tensor on the CPU; nothing is copied.
pub fn with<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(f(&data[start..end])),
        _ => Err(Error::Internal(format!("expected a contiguous f32 CPU tensor, found {tensor:?}"))),
    }
}

/// The elements of a dense weight.
pub enum Dense<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

/// Calls `f` with the elements of a contiguous f32 or f16 CPU tensor; nothing is copied.
pub fn with_dense<R>(tensor: &Tensor, f: impl FnOnce(Dense<'_>) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(f(Dense::F32(&data[start..end]))),
        (Storage::Cpu(CpuStorage::F16(data)), Some((start, end))) => Ok(f(Dense::F16(&data[start..end]))),
        _ => Err(Error::Internal(format!("expected a contiguous f32 or f16 CPU tensor, found {tensor:?}"))),
    }
}
