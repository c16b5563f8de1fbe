//! Rows of activations where the model runs.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::f16;
use prefixkv_kernels::cuda::{self, Buffer, Gpu, Number};

use crate::device::Place;
use crate::error::{Error, Result};

/// `[rows, columns]` activations. On the CPU they are f32; on a GPU f32, or f16 where they are the input of a product with f16
/// weights. Clones share their memory.
#[derive(Clone, Debug)]
pub enum Matrix {
    Cpu(Tensor),
    Gpu(Arc<OnGpu>),
}

/// A matrix on a GPU.
#[derive(Debug)]
pub struct OnGpu {
    pub data: Data,
    pub rows: usize,
    pub columns: usize,
}

/// Elements on a GPU.
#[derive(Debug)]
pub enum Data {
    F32(Buffer<f32>),
    F16(Buffer<f16>),
}

impl OnGpu {
    /// The elements, which must be f32.
    pub fn f32(&self) -> Result<&Buffer<f32>> {
        match &self.data {
            Data::F32(buffer) => Ok(buffer),
            Data::F16(_) => Err(Error::Internal("expected a matrix of f32, found f16".into())),
        }
    }

    pub fn gpu(&self) -> &Gpu {
        match &self.data {
            Data::F32(buffer) => buffer.gpu(),
            Data::F16(buffer) => buffer.gpu(),
        }
    }
}

impl Matrix {
    /// `data` has `rows * columns` elements.
    pub fn new(place: &Place, data: Vec<f32>, rows: usize, columns: usize) -> Result<Self> {
        Ok(match place {
            Place::Cpu => Matrix::Cpu(Tensor::from_vec(data, (rows, columns), &Device::Cpu)?),
            Place::Gpu { gpu, .. } => Matrix::on_gpu(Buffer::from_slice(gpu, &data)?, rows, columns),
        })
    }

    pub fn on_gpu(buffer: Buffer<f32>, rows: usize, columns: usize) -> Self {
        Matrix::Gpu(Arc::new(OnGpu { data: Data::F32(buffer), rows, columns }))
    }

    /// A matrix of one format that `fill` writes, f32 or f16.
    pub fn filled(
        gpu: &Gpu,
        number: Number,
        (rows, columns): (usize, usize),
        f32: impl FnOnce(cuda::SliceMut<'_, f32>) -> cuda::Result<()>,
        f16: impl FnOnce(cuda::SliceMut<'_, f16>) -> cuda::Result<()>,
    ) -> Result<Self> {
        let data = match number {
            Number::F16 => {
                let mut out = Buffer::new(gpu, rows * columns)?;
                f16(out.all_mut())?;
                Data::F16(out)
            }
            _ => {
                let mut out = Buffer::new(gpu, rows * columns)?;
                f32(out.all_mut())?;
                Data::F32(out)
            }
        };
        Ok(Matrix::Gpu(Arc::new(OnGpu { data, rows, columns })))
    }

    pub fn rows(&self) -> usize {
        match self {
            Matrix::Cpu(tensor) => tensor.dims().first().copied().unwrap_or(0),
            Matrix::Gpu(matrix) => matrix.rows,
        }
    }

    pub fn columns(&self) -> usize {
        match self {
            Matrix::Cpu(tensor) => tensor.dims().last().copied().unwrap_or(0),
            Matrix::Gpu(matrix) => matrix.columns,
        }
    }

    /// The elements in f32, row by row.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match self {
            Matrix::Cpu(tensor) => Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
            Matrix::Gpu(matrix) => match &matrix.data {
                Data::F32(buffer) => Ok(buffer.read()?),
                Data::F16(buffer) => Ok(buffer.read()?.into_iter().map(f16::to_f32).collect()),
            },
        }
    }

    /// A copy on the CPU: for tests and analysis.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match self {
            Matrix::Cpu(tensor) => Ok(tensor.clone()),
            Matrix::Gpu(matrix) => Ok(Tensor::from_vec(self.to_vec()?, (matrix.rows, matrix.columns), &Device::Cpu)?),
        }
    }

    /// The sum of two matrices of one shape, where this one lies if nothing else shares its memory.
    pub fn plus(self, other: &Matrix) -> Result<Matrix> {
        match (self, other) {
            (Matrix::Cpu(x), Matrix::Cpu(y)) => Ok(Matrix::Cpu((x + y)?)),
            (Matrix::Gpu(x), Matrix::Gpu(y)) => {
                let gpu = x.gpu().clone();
                let mut x = match Arc::try_unwrap(x) {
                    Ok(x) => x,
                    Err(x) => copy(&x, 0, x.rows)?,
                };
                match &mut x.data {
                    Data::F32(x) => cuda::add(&gpu, x.all_mut(), y.f32()?.all())?,
                    Data::F16(_) => return Err(Error::Internal("sums are f32".into())),
                }
                Ok(Matrix::Gpu(Arc::new(x)))
            }
            _ => Err(elsewhere()),
        }
    }

    /// The rows `start .. start + len`.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Matrix> {
        match self {
            Matrix::Cpu(tensor) => Ok(Matrix::Cpu(tensor.narrow(0, start, len)?)),
            Matrix::Gpu(matrix) if start == 0 && len == matrix.rows => Ok(self.clone()),
            Matrix::Gpu(matrix) => Ok(Matrix::Gpu(Arc::new(copy(matrix, start, len)?))),
        }
    }

    /// The rows of `parts`, one below the other.
    pub fn cat(parts: &[Matrix]) -> Result<Matrix> {
        match parts {
            [only] => Ok(only.clone()),
            [Matrix::Cpu(_), ..] => Ok(Matrix::Cpu(Tensor::cat(&tensors(parts)?, 0)?)),
            [Matrix::Gpu(first), ..] => {
                let (rows, columns) = (parts.iter().map(Matrix::rows).sum(), first.columns);
                let mut out = Buffer::<f32>::new(first.gpu(), rows * columns)?;
                let mut at = 0;
                for part in gpus(parts)? {
                    out.copy(at, part.f32()?.all())?;
                    at += part.rows * columns;
                }
                Ok(Matrix::on_gpu(out, rows, columns))
            }
            [] => Err(Error::Internal("nothing to join".into())),
        }
    }

    /// The columns of `parts`, one beside the other.
    pub fn cat_columns(parts: &[Matrix]) -> Result<Matrix> {
        match parts {
            [only] => Ok(only.clone()),
            [Matrix::Cpu(_), ..] => Ok(Matrix::Cpu(Tensor::cat(&tensors(parts)?, 1)?.contiguous()?)),
            [Matrix::Gpu(first), ..] => {
                let (rows, columns) = (first.rows, parts.iter().map(Matrix::columns).sum());
                let mut out = Buffer::<f32>::new(first.gpu(), rows * columns)?;
                let mut column = 0;
                for part in gpus(parts)? {
                    let from = part.f32()?.all();
                    cuda::place_columns(first.gpu(), from, part.columns, out.all_mut(), columns, column)?;
                    column += part.columns;
                }
                Ok(Matrix::on_gpu(out, rows, columns))
            }
            [] => Err(Error::Internal("nothing to join".into())),
        }
    }
}

/// Some rows in memory of their own.
fn copy(matrix: &OnGpu, start: usize, len: usize) -> Result<OnGpu> {
    let columns = matrix.columns;
    let range = start * columns..(start + len) * columns;
    let data = match &matrix.data {
        Data::F32(from) => {
            let mut to = Buffer::new(matrix.gpu(), range.len())?;
            to.copy(0, from.slice(range))?;
            Data::F32(to)
        }
        Data::F16(from) => {
            let mut to = Buffer::new(matrix.gpu(), range.len())?;
            to.copy(0, from.slice(range))?;
            Data::F16(to)
        }
    };
    Ok(OnGpu { data, rows: len, columns })
}

fn tensors(parts: &[Matrix]) -> Result<Vec<&Tensor>> {
    let tensors = parts.iter().map(|part| match part {
        Matrix::Cpu(tensor) => Ok(tensor),
        Matrix::Gpu(_) => Err(elsewhere()),
    });
    tensors.collect()
}

fn gpus(parts: &[Matrix]) -> Result<Vec<&OnGpu>> {
    let matrices = parts.iter().map(|part| match part {
        Matrix::Gpu(matrix) => Ok(&**matrix),
        Matrix::Cpu(_) => Err(elsewhere()),
    });
    matrices.collect()
}

/// Two parts of one network lie on different devices.
pub(crate) fn elsewhere() -> Error {
    Error::Internal("activations and weights lie on different devices".into())
}
