//! Activations on a GPU.

use std::sync::Arc;

use half::f16;
use prefixkv_kernels::cuda::{self, Buffer, Slice};

use crate::backend::Activations;
use crate::error::{Error, Result};

/// `[rows, columns]` elements.
#[derive(Debug)]
pub struct Array<T> {
    pub(super) data: Buffer<T>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<T: cuda::Plain> Array<T> {
    pub(super) fn all(&self) -> Slice<'_, T> {
        self.data.all()
    }

    /// The first `rows` rows.
    pub(super) fn first(&self, rows: usize) -> Slice<'_, T> {
        self.data.slice(0..rows * self.columns)
    }
}

/// Activations in f32.
#[derive(Clone, Debug)]
pub struct Matrix(Arc<Array<f32>>);

/// Activations as products take them: beside f16 weights they are rounded where they are computed, which saves a launch.
#[derive(Debug)]
pub enum Input {
    F32(Matrix),
    F16(Array<f16>),
}

impl Matrix {
    pub(super) fn new(data: Buffer<f32>, rows: usize, columns: usize) -> Self {
        Matrix(Arc::new(Array { data, rows, columns }))
    }

    pub(super) fn all(&self) -> Slice<'_, f32> {
        self.0.all()
    }

    /// The elements, in memory that nothing else shares.
    pub(super) fn own(self) -> Result<Array<f32>> {
        match Arc::try_unwrap(self.0) {
            Ok(x) => Ok(x),
            Err(x) => Matrix(x.clone()).copy(0, x.rows),
        }
    }

    fn copy(&self, start: usize, len: usize) -> Result<Array<f32>> {
        let Array { data, columns, .. } = &*self.0;
        let range = start * columns..(start + len) * columns;
        let mut to = Buffer::working(data.gpu(), range.len())?;
        to.copy(0, data.slice(range))?;
        Ok(Array { data: to, rows: len, columns: *columns })
    }
}

impl From<Array<f32>> for Matrix {
    fn from(array: Array<f32>) -> Self {
        Matrix(Arc::new(array))
    }
}

impl Input {
    pub(super) fn rows(&self) -> usize {
        match self {
            Input::F32(x) => x.rows(),
            Input::F16(x) => x.rows,
        }
    }
}

impl Activations for Matrix {
    fn rows(&self) -> usize {
        self.0.rows
    }

    fn columns(&self) -> usize {
        self.0.columns
    }

    fn to_vec(&self) -> Result<Vec<f32>> {
        Ok(self.0.data.read()?)
    }

    fn plus(self, other: &Matrix) -> Result<Matrix> {
        let mut sum = self.own()?;
        let gpu = sum.data.gpu().clone();
        cuda::add(&gpu, sum.data.all_mut(), other.all())?;
        Ok(Matrix(Arc::new(sum)))
    }

    fn reshaped(self, rows: usize, columns: usize) -> Result<Matrix> {
        if rows * columns != self.0.rows * self.0.columns {
            let (from, to) = ((self.0.rows, self.0.columns), (rows, columns));
            return Err(Error::Internal(format!("{from:?} elements reshaped to {to:?}")));
        }
        Ok(Matrix::new(self.own()?.data, rows, columns))
    }

    fn times(self, factor: f32) -> Result<Matrix> {
        let mut x = self.own()?;
        let gpu = x.data.gpu().clone();
        cuda::scale(&gpu, x.data.all_mut(), factor)?;
        Ok(Matrix(Arc::new(x)))
    }

    fn capped(self, cap: f32) -> Result<Matrix> {
        let mut x = self.own()?;
        let gpu = x.data.gpu().clone();
        cuda::cap(&gpu, x.data.all_mut(), cap)?;
        Ok(Matrix(Arc::new(x)))
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Matrix> {
        if start == 0 && len == self.0.rows {
            return Ok(self.clone());
        }
        Ok(Matrix(Arc::new(self.copy(start, len)?)))
    }

    fn cat(parts: &[Matrix]) -> Result<Matrix> {
        let first = match parts {
            [only] => return Ok(only.clone()),
            parts => parts.first().ok_or_else(nothing)?,
        };
        let (rows, columns) = (parts.iter().map(Matrix::rows).sum(), first.columns());
        let mut out = Buffer::<f32>::working(first.0.data.gpu(), rows * columns)?;
        let mut at = 0;
        for part in parts {
            out.copy(at, part.all())?;
            at += part.rows() * columns;
        }
        Ok(Matrix::new(out, rows, columns))
    }

    fn cat_columns(parts: &[Matrix]) -> Result<Matrix> {
        let first = match parts {
            [only] => return Ok(only.clone()),
            parts => parts.first().ok_or_else(nothing)?,
        };
        let (rows, columns) = (first.rows(), parts.iter().map(Matrix::columns).sum());
        let gpu = first.0.data.gpu();
        let mut out = Buffer::<f32>::working(gpu, rows * columns)?;
        let mut column = 0;
        for part in parts {
            cuda::place_columns(gpu, part.all(), part.columns(), out.all_mut(), columns, column)?;
            column += part.columns();
        }
        Ok(Matrix::new(out, rows, columns))
    }
}

fn nothing() -> Error {
    Error::Internal("nothing to join".into())
}

/// An [`Input`] of `$shape` that `$write` fills, in the number that the products of the model take.
macro_rules! filled {
    ($cuda:expr, $shape:expr, $out:ident => $write:expr) => {{
        let (rows, columns): (usize, usize) = $shape;
        match $cuda.factors {
            Number::F16 => {
                let mut data = Buffer::<f16>::working(&$cuda.gpu, rows * columns)?;
                let $out = data.all_mut();
                $write?;
                Ok(Input::F16(Array { data, rows, columns }))
            }
            Number::F32 | Number::Bf16 => {
                let mut data = Buffer::<f32>::working(&$cuda.gpu, rows * columns)?;
                let $out = data.all_mut();
                $write?;
                Ok(Input::F32(Matrix::new(data, rows, columns)))
            }
        }
    }};
}
pub(super) use filled;
