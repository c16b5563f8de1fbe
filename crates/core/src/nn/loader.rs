//! Reads layers from a checkpoint into the formats they are held in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use prefixkv_kernels::cuda::{Buffer, Gpu, Number};
use prefixkv_kernels::quant;

use super::linear::{Linear, Weight};
use super::matrix::{Data, Matrix, OnGpu};
use super::slice;
use super::table::Table;
use super::vector::Vector;
use crate::device::Place;
use crate::error::Result;
use crate::weights::{Checkpoint, Role, WeightFormat};

/// Reads layers from a checkpoint and counts what they take.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub format: WeightFormat,
    /// Where the layers are to be.
    pub place: Place,
    /// What is in memory so far: layers and bytes by format.
    tally: RefCell<Tally>,
}

/// Linear layers by the format they are really held in, and the bytes of all tensors.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub layers: BTreeMap<&'static str, usize>,
    pub bytes: u64,
}

impl<'a> Loader<'a> {
    pub fn new(checkpoint: &'a Checkpoint, format: WeightFormat, place: Place) -> Self {
        Loader { checkpoint, format, place, tally: RefCell::default() }
    }

    pub fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// The `width` elements of a tensor in f32.
    pub fn vector(&self, name: &str, width: usize) -> Result<Vector> {
        let tensor = self.checkpoint.tensor(name, &[width])?.to_dtype(DType::F32)?;
        self.tally.borrow_mut().bytes += 4 * width as u64;
        Vector::new(&self.place, tensor)
    }

    /// A tensor of `[rows, columns]` elements, or of any shape with as many, in f32.
    pub fn matrix(&self, name: &str, shape: &[usize], rows: usize, columns: usize) -> Result<Matrix> {
        let tensor = self.checkpoint.tensor(name, shape)?.to_dtype(DType::F32)?;
        self.tally.borrow_mut().bytes += 4 * tensor.elem_count() as u64;
        match &self.place {
            Place::Cpu => Ok(Matrix::Cpu(tensor.reshape((rows, columns))?)),
            place => Matrix::new(place, tensor.flatten_all()?.to_vec1()?, rows, columns),
        }
    }

    /// A table from which rows are taken: f32 for f32 weights, else f16.
    pub fn table(&self, name: &str, rows: usize, width: usize) -> Result<Table> {
        let number = self.number();
        let dtype = if number == Number::F32 { DType::F32 } else { DType::F16 };
        self.tally.borrow_mut().bytes += (rows * width * dtype.size_in_bytes()) as u64;
        match &self.place {
            Place::Cpu => {
                let table = self.checkpoint.tensor_for(name, &[rows, width], Role::Table, self.format)?;
                Ok(Table::Cpu(table.to_dtype(dtype)?))
            }
            Place::Gpu { gpu, .. } => {
                let data = self.upload(gpu, number, &[(name.to_owned(), vec![rows, width])], Role::Table)?;
                Ok(Table::Gpu(Arc::new(OnGpu { data, rows, columns: width })))
            }
        }
    }

    /// One linear layer made of the rows of `names`, each `[rows, columns]`, one below the other; biases likewise.
    pub fn linear(&self, names: &[(&str, usize)], columns: usize, bias: bool) -> Result<Linear> {
        let weights: Vec<_> =
            names.iter().map(|(name, rows)| (format!("{name}.weight"), vec![*rows, columns])).collect();
        let biases: Vec<_> = names.iter().map(|(name, rows)| (format!("{name}.bias"), vec![*rows])).collect();
        let rows: usize = names.iter().map(|(_, rows)| rows).sum();
        let bias = if bias {
            self.tally.borrow_mut().bytes += 4 * rows as u64;
            Some(Vector::new(&self.place, self.joined(&biases, Role::Plain)?.to_dtype(DType::F32)?)?)
        } else {
            None
        };
        match &self.place {
            Place::Cpu => self.hold(self.joined(&weights, Role::Rows(columns))?, bias),
            Place::Gpu { gpu, .. } => self.uploaded(gpu, &weights, rows, columns, bias),
        }
    }

    /// The rows of several tensors, one below the other.
    fn joined(&self, parts: &[(String, Vec<usize>)], role: Role) -> Result<Tensor> {
        let read = |(name, shape): &(String, Vec<usize>)| self.checkpoint.tensor_for(name, shape, role, self.format);
        let parts: Vec<Tensor> = parts.iter().map(read).collect::<Result<_>>()?;
        // The tensors of one model may differ in format; no number may change by being joined.
        let parts: Vec<Tensor> = match parts.iter().all(|part| part.dtype() == parts[0].dtype()) {
            true => parts,
            false => parts.iter().map(|part| part.to_dtype(DType::F32)).collect::<Result<_, _>>()?,
        };
        Ok(if parts.len() == 1 { parts[0].clone() } else { Tensor::cat(&parts, 0)? })
    }

    /// The tensors one behind the other on the GPU. Nothing is joined on the way.
    fn upload(&self, gpu: &Gpu, number: Number, parts: &[(String, Vec<usize>)], role: Role) -> Result<Data> {
        let sizes: Vec<usize> = parts.iter().map(|(_, shape)| shape.iter().product()).collect();
        let total = sizes.iter().sum();
        let mut data = match number {
            Number::F32 => Data::F32(Buffer::new(gpu, total)?),
            _ => Data::F16(Buffer::new(gpu, total)?),
        };
        let mut at = 0;
        for ((name, shape), size) in parts.iter().zip(sizes) {
            match &mut data {
                Data::F32(to) => to.write(at, &self.checkpoint.f32(name, shape)?)?,
                Data::F16(to) => to.write(at, &self.checkpoint.f16(name, shape, role)?)?,
            }
            at += size;
        }
        Ok(data)
    }

    /// A linear layer of `rows` in all, whose tensors lie one behind the other on the GPU.
    fn uploaded(
        &self,
        gpu: &Gpu,
        parts: &[(String, Vec<usize>)],
        rows: usize,
        columns: usize,
        bias: Option<Vector>,
    ) -> Result<Linear> {
        self.format.require(&self.place)?;
        let number = self.number();
        let data = self.upload(gpu, number, parts, Role::Rows(columns))?;
        self.count(self.format, self.format.bytes((rows * columns) as u64));
        Ok(Linear { weight: Weight::Gpu(Arc::new(OnGpu { data, rows, columns })), bias })
    }

    /// The format of tables, and of layers on a GPU.
    fn number(&self) -> Number {
        if self.format == WeightFormat::F32 { Number::F32 } else { Number::F16 }
    }

    fn count(&self, format: WeightFormat, bytes: u64) {
        let mut tally = self.tally.borrow_mut();
        *tally.layers.entry(format.name()).or_default() += 1;
        tally.bytes += bytes;
    }

    /// The output layer of a model whose embeddings are its weights, the tensor `name`. Where the formats allow it, both share
    /// their memory.
    pub fn tied(&self, table: &Table, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        let weight = match table {
            Table::Cpu(table) if matches!(self.format, WeightFormat::F32 | WeightFormat::F16) => {
                Weight::Dense(table.clone())
            }
            // From the file, so that quantisation starts from its numbers.
            Table::Cpu(_) => {
                let role = Role::Rows(columns);
                return self.hold(self.checkpoint.tensor_for(name, &[rows, columns], role, self.format)?, None);
            }
            Table::Gpu(table) => Weight::Gpu(table.clone()),
        };
        *self.tally.borrow_mut().layers.entry(self.format.name()).or_default() += 1;
        Ok(Linear { weight, bias: None })
    }

    /// A linear layer whose rows are those of a tensor of another shape.
    pub fn reshaped(&self, name: &str, shape: &[usize], rows: usize, columns: usize) -> Result<Linear> {
        match &self.place {
            Place::Cpu => {
                let kernel = self.checkpoint.tensor_for(name, shape, Role::Rows(columns), self.format)?;
                self.hold(kernel.reshape((rows, columns))?, None)
            }
            Place::Gpu { gpu, .. } => self.uploaded(gpu, &[(name.to_owned(), shape.to_vec())], rows, columns, None),
        }
    }

    /// A linear layer of one tensor on the CPU, converted to the format it will be held in.
    fn hold(&self, weight: Tensor, bias: Option<Vector>) -> Result<Linear> {
        let elements = weight.elem_count() as u64;
        let format = self.format.fitting(weight.dim(1)?);
        let weight = match format {
            WeightFormat::F32 => Weight::Dense(weight.to_dtype(DType::F32)?),
            WeightFormat::F16 => Weight::Dense(weight.to_dtype(DType::F16)?),
            WeightFormat::Q8_0 => quantised(&weight, quant::Format::Q8_0)?,
            WeightFormat::Q4K => quantised(&weight, quant::Format::Q4K)?,
        };
        let bytes = match &weight {
            Weight::Quantised(blocks) => blocks.bytes(),
            _ => format.bytes(elements),
        };
        self.count(format, bytes);
        Ok(Linear { weight, bias })
    }
}

/// Blocks of the numbers of a tensor, in whatever format of a file.
fn quantised(weight: &Tensor, format: quant::Format) -> Result<Weight> {
    let (rows, columns) = weight.dims2()?;
    let blocks = slice::with_numbers(weight, |numbers| {
        quant::Weights::quantise(format, rows, columns, |row, to| numbers.widen(row * columns, to))
    })?;
    Ok(Weight::Quantised(blocks))
}
