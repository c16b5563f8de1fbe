//! The rows of a matrix as a checkpoint has them.

use candle_core::{DType, Device, Tensor};
use half::f16;
use prefixkv_kernels::fold::Fold;
use prefixkv_kernels::quant::stored::Stored;

use super::numbers::Element as _;
use super::{Checkpoint, Role, WeightFormat};
use crate::error::{Error, Result};

/// A transform that is folded into one of some tensors.
#[derive(Clone, Copy, Debug)]
pub struct Folding {
    /// Which of them.
    pub part: usize,
    /// The first row that it is folded into; all behind it are.
    pub first: usize,
    pub fold: Fold,
}

/// Tensors whose rows, one below the other, are the rows of a matrix. Each is read when it is asked for.
#[derive(Clone, Copy)]
pub struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    /// Names and shapes, at least one.
    parts: &'a [(String, Vec<usize>)],
    role: Role,
    format: WeightFormat,
    /// A transform that is folded into one of the parts, and the columns of its rows.
    folding: Option<(Folding, usize)>,
    /// Whether each has the columns of the matrix as its rows.
    transposed: bool,
    /// Numbers by which the rows of the only part are multiplied, and the columns of these.
    factors: Option<(&'a [f32], usize)>,
    /// For each row of the only part which row of the tensor it is, and the columns of these.
    order: Option<(&'a [u32], usize)>,
}

/// A tensor as a GGUF file has it.
pub enum Part {
    /// Plain numbers, on the CPU.
    Plain(Tensor),
    /// Blocks where they lie.
    Blocks(Stored),
}

impl<'a> Tensors<'a> {
    /// `format` is what the matrix is to be held in.
    pub fn new(
        checkpoint: &'a Checkpoint,
        parts: &'a [(String, Vec<usize>)],
        role: Role,
        format: WeightFormat,
    ) -> Self {
        Tensors { checkpoint, parts, role, format, folding: None, transposed: false, factors: None, order: None }
    }

    /// The same with a transform folded into one part, whose rows have so many columns, before it is rounded to any format. Whatever
    /// reads a part asks `transformed` first.
    pub fn folded(self, folding: Folding, columns: usize) -> Self {
        Tensors { folding: Some((folding, columns)), ..self }
    }

    /// The same of tensors whose rows are the columns of the matrix; nothing is folded into these.
    pub fn transposed(self) -> Self {
        Tensors { transposed: true, ..self }
    }

    /// The same with each row of the only part, of so many columns, multiplied by a number, before it is rounded to any format.
    pub fn scaled(self, factors: &'a [f32], columns: usize) -> Self {
        Tensors { factors: Some((factors, columns)), ..self }
    }

    /// The same with the rows of the only part, of so many columns, in another order.
    pub fn in_order(self, order: &'a [u32], columns: usize) -> Self {
        Tensors { order: Some((order, columns)), ..self }
    }

    /// The format in which the matrix is to be held.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// All of them on the CPU, in the format of the file. Errors as [`Checkpoint::tensor_for`].
    pub fn joined(&self) -> Result<Tensor> {
        let read = |part: usize| match self.transformed(part)? {
            Some(data) => Ok(Tensor::from_vec(data, self.shape(part), &Device::Cpu)?),
            None => {
                let (name, shape) = &self.parts[part];
                self.checkpoint.tensor_for(name, shape, self.role, self.format)
            }
        };
        let parts: Vec<Tensor> = (0..self.parts.len()).map(read).collect::<Result<_>>()?;
        // The tensors of one model may differ in format; no number may change by being joined.
        let parts: Vec<Tensor> = match parts.iter().all(|part| part.dtype() == parts[0].dtype()) {
            true => parts,
            false => parts.iter().map(|part| part.to_dtype(DType::F32)).collect::<Result<_, _>>()?,
        };
        Ok(if parts.len() == 1 { parts[0].clone() } else { Tensor::cat(&parts, 0)? })
    }

    /// Each as a GGUF file has it; nothing is folded into these, a load that asks for both is refused. Errors as [`Checkpoint::tensor_for`] and [`Checkpoint::stored`].
    pub fn each_stored(&self) -> impl Iterator<Item = Result<Part>> {
        self.parts.iter().enumerate().map(|(part, (name, shape))| {
            if self.transposed
                && let Some(data) = self.transformed(part)?
            {
                return Ok(Part::Plain(Tensor::from_vec(data, self.shape(part), &Device::Cpu)?));
            }
            if let Some(blocks) = self.checkpoint.stored(name, shape)? {
                let ordered =
                    self.order.map(|(order, _)| blocks.in_order(order)).transpose().map_err(Error::Internal)?;
                let blocks = ordered.unwrap_or(blocks);
                let scaled =
                    self.factors.map(|(factors, _)| blocks.scaled(factors)).transpose().map_err(Error::Internal)?;
                return Ok(Part::Blocks(scaled.unwrap_or(blocks)));
            }
            let tensor = self.checkpoint.tensor_for(name, shape, self.role, self.format)?;
            if self.order.is_none() && self.factors.is_none() {
                return Ok(Part::Plain(tensor));
            }
            // As wide as the file has it.
            match self.transformed(part)? {
                Some(data) => {
                    let held = if tensor.dtype() == DType::F32 { DType::F32 } else { DType::F16 };
                    Ok(Part::Plain(Tensor::from_vec(data, self.shape(part), &Device::Cpu)?.to_dtype(held)?))
                }
                None => Ok(Part::Plain(tensor)),
            }
        })
    }

    /// The shape of a part as the matrix has it.
    fn shape(&self, part: usize) -> Vec<usize> {
        let shape = &self.parts[part].1;
        if self.transposed { shape.iter().rev().copied().collect() } else { shape.clone() }
    }

    /// The elements of each in f32. Errors as [`Checkpoint::f32`].
    pub fn each_f32(&self) -> impl Iterator<Item = Result<Vec<f32>>> {
        self.parts.iter().enumerate().map(move |(part, (name, shape))| match self.transformed(part)? {
            Some(data) => Ok(data),
            None => self.checkpoint.f32(name, shape),
        })
    }

    /// The elements of each in f16. Errors as [`Checkpoint::f16`].
    pub fn each_f16(&self) -> impl Iterator<Item = Result<Vec<f16>>> {
        self.parts.iter().enumerate().map(move |(part, (name, shape))| match self.transformed(part)? {
            Some(data) => Ok(data.into_iter().map(f16::from_f32).collect()),
            None => self.checkpoint.f16(name, shape, self.role),
        })
    }

    /// A part with what is folded into it, or transposed; None for one as the file has it.
    fn transformed(&self, part: usize) -> Result<Option<Vec<f32>>> {
        if self.transposed {
            let (name, shape) = &self.parts[part];
            let [rows, columns] = shape[..] else {
                return Err(Error::Internal(format!("`{name}` of shape {shape:?} is to be transposed")));
            };
            let data = self.checkpoint.f32(name, shape)?;
            self.checkpoint.require_fit(name, f32::magnitude(f32::most(&data)), self.role, self.format)?;
            let turned = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
            return Ok(Some(turned.map(|at| data[at]).collect()));
        }
        let folding = self.folding.filter(|(of, _)| of.part == part);
        if folding.is_none() && self.factors.is_none() && self.order.is_none() {
            return Ok(None);
        }
        let (name, shape) = &self.parts[part];
        let mut data = self.checkpoint.f32(name, shape)?;
        if let Some((order, columns)) = self.order {
            data = order.iter().flat_map(|row| &data[*row as usize * columns..][..columns]).copied().collect();
        }
        if let Some((Folding { first, fold, .. }, columns)) = folding {
            fold.apply(&mut data[first * columns..], columns);
        }
        if let Some((factors, columns)) = self.factors {
            let rows = data.chunks_exact_mut(columns).zip(factors);
            rows.for_each(|(row, factor)| row.iter_mut().for_each(|x| *x *= factor));
        }
        self.checkpoint.require_fit(name, f32::magnitude(f32::most(&data)), self.role, self.format)?;
        Ok(Some(data))
    }
}
