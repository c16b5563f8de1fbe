//! Activations on the CPU.

use candle_core::{Device, Tensor};
use prefixkv_kernels::activation;

use crate::backend::Activations;
use crate::error::Result;

/// `[rows, columns]` in f32, contiguous.
#[derive(Clone, Debug)]
pub struct Matrix(pub Tensor);

impl Matrix {
    /// `data` has `rows * columns` elements.
    pub fn new(data: Vec<f32>, rows: usize, columns: usize) -> Result<Self> {
        Ok(Matrix(Tensor::from_vec(data, (rows, columns), &Device::Cpu)?))
    }

    /// The elements, row by row.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        Ok(self.0.flatten_all()?.to_vec1()?)
    }

    fn changed(self, change: impl FnOnce(&mut [f32])) -> Result<Self> {
        let (rows, columns) = self.0.dims2()?;
        let mut data = self.to_vec()?;
        change(&mut data);
        Matrix::new(data, rows, columns)
    }
}

impl Activations for Matrix {
    fn rows(&self) -> usize {
        self.0.dims().first().copied().unwrap_or(0)
    }

    fn columns(&self) -> usize {
        self.0.dims().last().copied().unwrap_or(0)
    }

    fn to_vec(&self) -> Result<Vec<f32>> {
        Matrix::to_vec(self)
    }

    fn plus(self, other: &Matrix) -> Result<Matrix> {
        Ok(Matrix((self.0 + &other.0)?))
    }

    fn reshaped(self, rows: usize, columns: usize) -> Result<Matrix> {
        Ok(Matrix(self.0.reshape((rows, columns))?))
    }

    fn times(self, factor: f32) -> Result<Matrix> {
        self.changed(|data| activation::scale(data, factor))
    }

    fn capped(self, cap: f32) -> Result<Matrix> {
        self.changed(|data| activation::cap(data, cap))
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Matrix> {
        Ok(Matrix(self.0.narrow(0, start, len)?))
    }

    fn cat(parts: &[Matrix]) -> Result<Matrix> {
        match parts {
            [only] => Ok(only.clone()),
            _ => Ok(Matrix(Tensor::cat(&tensors(parts), 0)?)),
        }
    }

    fn cat_columns(parts: &[Matrix]) -> Result<Matrix> {
        match parts {
            [only] => Ok(only.clone()),
            _ => Ok(Matrix(Tensor::cat(&tensors(parts), 1)?.contiguous()?)),
        }
    }
}

fn tensors(parts: &[Matrix]) -> Vec<&Tensor> {
    parts.iter().map(|part| &part.0).collect()
}
