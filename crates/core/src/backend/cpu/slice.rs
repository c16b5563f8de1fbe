//! Reading a contiguous CPU tensor in place.

use candle_core::{CpuStorage, Storage, Tensor};
use half::{bf16, f16};

use crate::error::{Error, Result};

/// Calls `f` with the elements of `tensor`, which must be a contiguous f32 tensor on the CPU; nothing is copied.
pub(super) fn with<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(f(&data[start..end])),
        _ => Err(Error::Internal(format!("expected a contiguous f32 CPU tensor, found {tensor:?}"))),
    }
}

/// The elements of a dense weight.
pub(super) enum Dense<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

/// Calls `f` with the elements of a contiguous f32 or f16 CPU tensor; nothing is copied.
pub(super) fn with_dense<R>(tensor: &Tensor, f: impl FnOnce(Dense<'_>) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(f(Dense::F32(&data[start..end]))),
        (Storage::Cpu(CpuStorage::F16(data)), Some((start, end))) => Ok(f(Dense::F16(&data[start..end]))),
        _ => Err(Error::Internal(format!("expected a contiguous f32 or f16 CPU tensor, found {tensor:?}"))),
    }
}

/// Numbers in one of the formats of checkpoints.
pub(super) enum Numbers<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl Numbers<'_> {
    /// Writes those from `start` on to `to` in f32.
    pub(super) fn widen(&self, start: usize, to: &mut [f32]) {
        let range = start..start + to.len();
        match self {
            Numbers::F32(numbers) => to.copy_from_slice(&numbers[range]),
            Numbers::F16(numbers) => to.iter_mut().zip(&numbers[range]).for_each(|(to, x)| *to = x.to_f32()),
            Numbers::Bf16(numbers) => to.iter_mut().zip(&numbers[range]).for_each(|(to, x)| *to = x.to_f32()),
        }
    }
}

/// Calls `f` with the elements of a contiguous CPU tensor of floating-point numbers, wherever they begin in its storage.
pub(super) fn with_numbers<R>(tensor: &Tensor, f: impl FnOnce(Numbers<'_>) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(f(Numbers::F32(&data[start..end]))),
        (Storage::Cpu(CpuStorage::F16(data)), Some((start, end))) => Ok(f(Numbers::F16(&data[start..end]))),
        (Storage::Cpu(CpuStorage::BF16(data)), Some((start, end))) => Ok(f(Numbers::Bf16(&data[start..end]))),
        _ => Err(Error::Internal(format!("expected a contiguous CPU tensor of f32, f16 or bf16, found {tensor:?}"))),
    }
}
