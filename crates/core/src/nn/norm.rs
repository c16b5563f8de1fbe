//! Normalisation over the last dimension, in f32.

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Root-mean-square normalisation. Zhang and Sennrich 2019, arXiv 1910.07467.
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub fn new(weight: Tensor, eps: f64) -> Result<Self> {
        Ok(RmsNorm { weight: weight.to_dtype(DType::F32)?, eps: eps as f32 })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(candle_nn::ops::rms_norm(x, &self.weight, self.eps)?)
    }
}

/// Mean and variance normalisation with bias.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Result<Self> {
        Ok(LayerNorm { weight: weight.to_dtype(DType::F32)?, bias: bias.to_dtype(DType::F32)?, eps: eps as f32 })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(candle_nn::ops::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}
