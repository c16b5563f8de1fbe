//! The rows of a matrix as a checkpoint has them.

use candle_core::{DType, Tensor};
use half::f16;

use super::{Checkpoint, Role, WeightFormat};
use crate::error::Result;

/// Tensors whose rows, one below the other, are the rows of a matrix. Each is read when it is asked for.
#[derive(Clone, Copy)]
pub struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    /// Names and shapes, at least one.
    parts: &'a [(String, Vec<usize>)],
    role: Role,
    format: WeightFormat,
}

impl<'a> Tensors<'a> {
    /// `format` is what the matrix is to be held in.
    pub fn new(
        checkpoint: &'a Checkpoint,
        parts: &'a [(String, Vec<usize>)],
        role: Role,
        format: WeightFormat,
    ) -> Self {
        Tensors { checkpoint, parts, role, format }
    }

    /// The format in which the matrix is to be held.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// All of them on the CPU, in the format of the file. Errors as [`Checkpoint::tensor_for`].
    pub fn joined(&self) -> Result<Tensor> {
        let read =
            |(name, shape): &(String, Vec<usize>)| self.checkpoint.tensor_for(name, shape, self.role, self.format);
        let parts: Vec<Tensor> = self.parts.iter().map(read).collect::<Result<_>>()?;
        // The tensors of one model may differ in format; no number may change by being joined.
        let parts: Vec<Tensor> = match parts.iter().all(|part| part.dtype() == parts[0].dtype()) {
            true => parts,
            false => parts.iter().map(|part| part.to_dtype(DType::F32)).collect::<Result<_, _>>()?,
        };
        Ok(if parts.len() == 1 { parts[0].clone() } else { Tensor::cat(&parts, 0)? })
    }

    /// The elements of each in f32. Errors as [`Checkpoint::f32`].
    pub fn each_f32(&self) -> impl Iterator<Item = Result<Vec<f32>>> {
        self.parts.iter().map(|(name, shape)| self.checkpoint.f32(name, shape))
    }

    /// The elements of each in f16. Errors as [`Checkpoint::f16`].
    pub fn each_f16(&self) -> impl Iterator<Item = Result<Vec<f16>>> {
        self.parts.iter().map(|(name, shape)| self.checkpoint.f16(name, shape, self.role))
    }
}
