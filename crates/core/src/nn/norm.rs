//! Normalisation over the last dimension, in f32.

use candle_core::Tensor;
use prefixkv_kernels::cuda::{self, Number};

use super::loader::Loader;
use super::matrix::{Matrix, elsewhere};
use super::vector::Vector;
use crate::error::Result;

/// Root-mean-square normalisation. Zhang and Sennrich 2019, arXiv 1910.07467.
pub struct RmsNorm {
    weight: Vector,
    eps: f32,
}

impl RmsNorm {
    /// Reads `{name}.weight` of `width` elements.
    pub fn load(loader: &Loader<'_>, name: &str, width: usize, eps: f64) -> Result<Self> {
        Ok(RmsNorm { weight: loader.vector(&format!("{name}.weight"), width)?, eps: eps as f32 })
    }

    /// The result is in the format `number`, where that makes a difference: what the product that follows takes.
    pub fn forward(&self, x: &Matrix, number: Number) -> Result<Matrix> {
        match (x, &self.weight) {
            (Matrix::Cpu(x), Vector::Cpu(weight)) => Ok(Matrix::Cpu(candle_nn::ops::rms_norm(x, weight, self.eps)?)),
            (Matrix::Gpu(x), Vector::Gpu(weight)) => {
                let (gpu, from, weight) = (x.gpu(), x.f32()?.all(), weight.all());
                Matrix::filled(
                    gpu,
                    number,
                    (x.rows, x.columns),
                    |out| cuda::rms_norm(gpu, from, weight, self.eps, out),
                    |out| cuda::rms_norm(gpu, from, weight, self.eps, out),
                )
            }
            _ => Err(elsewhere()),
        }
    }
}

/// Mean and variance normalisation with bias.
pub struct LayerNorm {
    weight: Vector,
    bias: Vector,
    eps: f32,
}

impl LayerNorm {
    /// Reads `{name}.weight` and `{name}.bias` of `width` elements.
    pub fn load(loader: &Loader<'_>, name: &str, width: usize, eps: f64) -> Result<Self> {
        let part = |part: &str| loader.vector(&format!("{name}.{part}"), width);
        Ok(LayerNorm { weight: part("weight")?, bias: part("bias")?, eps: eps as f32 })
    }

    /// As [`RmsNorm::forward`].
    pub fn forward(&self, x: &Matrix, number: Number) -> Result<Matrix> {
        match (x, &self.weight, &self.bias) {
            (Matrix::Cpu(x), Vector::Cpu(weight), Vector::Cpu(bias)) => {
                let y: Tensor = candle_nn::ops::layer_norm(x, weight, bias, self.eps)?;
                Ok(Matrix::Cpu(y))
            }
            (Matrix::Gpu(x), Vector::Gpu(weight), Vector::Gpu(bias)) => {
                let (gpu, from, weight, bias) = (x.gpu(), x.f32()?.all(), weight.all(), bias.all());
                Matrix::filled(
                    gpu,
                    number,
                    (x.rows, x.columns),
                    |out| cuda::layer_norm(gpu, from, weight, bias, self.eps, out),
                    |out| cuda::layer_norm(gpu, from, weight, bias, self.eps, out),
                )
            }
            _ => Err(elsewhere()),
        }
    }
}
