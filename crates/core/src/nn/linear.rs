//! Linear layers in the formats that weights are held in.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use half::f16;
use prefixkv_kernels::cuda::{self, Buffer, Number};
use prefixkv_kernels::{linear as kernel, quant, simd};
use rayon::prelude::*;

use super::matrix::{Data, Matrix, OnGpu, elsewhere};
use super::slice;
use super::vector::Vector;
use crate::error::{Error, Result};
use crate::weights::numbers;

/// `x W^T + b`.
pub struct Linear {
    pub(super) weight: Weight,
    pub(super) bias: Option<Vector>,
}

pub(super) enum Weight {
    Dense(Tensor),
    Quantised(quant::Weights),
    Gpu(Arc<OnGpu>),
}

impl Linear {
    /// The format in which the layer takes its input without converting it.
    pub fn input(&self) -> Number {
        match &self.weight {
            Weight::Gpu(weight) if matches!(weight.data, Data::F16(_)) => Number::F16,
            _ => Number::F32,
        }
    }

    /// `x` is `[n, columns]`; the result is `[n, rows]` in f32.
    pub fn forward(&self, x: &Matrix) -> Result<Matrix> {
        match (x, &self.weight) {
            (Matrix::Gpu(x), Weight::Gpu(weight)) => self.on_gpu(x, weight),
            (Matrix::Cpu(x), _) => Ok(Matrix::Cpu(self.on_cpu(x)?)),
            _ => Err(elsewhere()),
        }
    }

    fn on_cpu(&self, x: &Tensor) -> Result<Tensor> {
        if matches!(self.weight, Weight::Quantised(_)) {
            slice::with(x, numbers::require_quantisable)??;
        }
        let y = match &self.weight {
            Weight::Dense(weight) if x.dim(0)? <= FEW => few(x, weight)?,
            Weight::Dense(weight) if weight.dtype() == DType::F32 => x.matmul(&weight.t()?)?,
            Weight::Dense(weight) => widened(x, weight)?,
            Weight::Quantised(weight) => blocks(x, weight)?,
            Weight::Gpu(_) => return Err(elsewhere()),
        };
        Ok(match &self.bias {
            Some(Vector::Cpu(bias)) => y.broadcast_add(bias)?,
            Some(Vector::Gpu(_)) => return Err(elsewhere()),
            None => y,
        })
    }

    fn on_gpu(&self, x: &OnGpu, weight: &OnGpu) -> Result<Matrix> {
        let gpu = x.gpu();
        let mut y = Buffer::<f32>::new(gpu, x.rows * weight.rows)?;
        let columns = weight.columns;
        match (&x.data, &weight.data) {
            (Data::F32(x), Data::F32(weight)) => cuda::product(gpu, x.all(), weight.all(), columns, y.all_mut())?,
            (Data::F16(x), Data::F16(weight)) => cuda::product(gpu, x.all(), weight.all(), columns, y.all_mut())?,
            (Data::F32(x), Data::F16(weight)) => {
                let mut narrow = Buffer::<f16>::new(gpu, x.len())?;
                cuda::convert(gpu, x.all(), narrow.all_mut())?;
                cuda::product(gpu, narrow.all(), weight.all(), columns, y.all_mut())?;
            }
            (Data::F16(_), Data::F32(_)) => return Err(Error::Internal("f16 activations for f32 weights".into())),
        }
        match &self.bias {
            Some(Vector::Gpu(bias)) => cuda::add_bias(gpu, y.all_mut(), bias.all())?,
            Some(Vector::Cpu(_)) => return Err(elsewhere()),
            None => {}
        }
        Ok(Matrix::on_gpu(y, x.rows, weight.rows))
    }
}

/// Rows of activations up to which our own kernel is used. From two rows up to so many it was never slower than a general matrix
/// product (`cargo bench -p prefixkv-kernels --bench linear`). So many sequences get the same bits together as alone.
pub const FEW: usize = 32;

/// A few rows of activations against a dense weight.
fn few(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (n, (rows, columns)) = (x.dim(0)?, weight.dims2()?);
    let mut out = vec![0.0; n * rows];
    slice::with(x, |x| {
        slice::with_dense(weight, |weight| match weight {
            slice::Dense::F32(weight) => kernel::matvecs(x, columns, weight, &mut out),
            slice::Dense::F16(weight) => kernel::matvecs(x, columns, weight, &mut out),
        })
    })??;
    Ok(Tensor::from_vec(out, (n, rows), x.device())?)
}

/// Any number of rows of activations against a weight in blocks. Rows get the same bits together as alone.
fn blocks(x: &Tensor, weight: &quant::Weights) -> Result<Tensor> {
    let mut out = vec![0.0; x.dim(0)? * weight.rows()];
    slice::with(x, |x| weight.product(x, &mut out))?;
    Ok(Tensor::from_vec(out, (x.dim(0)?, weight.rows()), x.device())?)
}

/// Weights widened at a time: bounds the buffer to 16 MiB.
const WIDENED: usize = 4 << 20;

/// Many rows against f16 weights, which are widened piece by piece: the product then runs at the f32 rate with f32 activations,
/// and the conversion costs one part in as many as there are rows of `x`.
fn widened(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (rows, columns) = weight.dims2()?;
    let pieces = (rows * columns).div_ceil(WIDENED).max(1);
    let products: Vec<Tensor> = (0..pieces)
        .map(|piece| {
            let (from, to) = (piece * rows / pieces, (piece + 1) * rows / pieces);
            let mut wide = vec![0.0; (to - from) * columns];
            slice::with_dense(weight, |weight| {
                if let slice::Dense::F16(weight) = weight {
                    let narrow = &weight[from * columns..to * columns];
                    let chunks = wide.par_chunks_mut(WIDENED / 64).zip(narrow.par_chunks(WIDENED / 64));
                    chunks.for_each(|(wide, narrow)| simd::widen(narrow, wide));
                }
            })?;
            Ok(x.matmul(&Tensor::from_vec(wide, (to - from, columns), x.device())?.t()?)?)
        })
        .collect::<Result<_>>()?;
    Ok(if pieces == 1 { products[0].clone() } else { Tensor::cat(&products, 1)? })
}
