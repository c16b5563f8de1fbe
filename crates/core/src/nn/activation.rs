//! Activations by their Hugging Face names.

use candle_core::Tensor;
use serde::Deserialize;

use super::slice;
use crate::error::Result;

/// The `hidden_act` values that are implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Activation {
    /// With the error function.
    #[serde(rename = "gelu")]
    Gelu,
    /// With the tanh approximation.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluTanh,
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    #[serde(rename = "relu")]
    Relu,
}

impl Activation {
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Gelu => x.gelu_erf()?,
            Activation::GeluTanh => x.gelu()?,
            Activation::QuickGelu => {
                let mut data = slice::with(x, <[f32]>::to_vec)?;
                prefixkv_kernels::activation::quick_gelu(&mut data);
                Tensor::from_vec(data, x.shape(), x.device())?
            }
            Activation::Silu => x.silu()?,
            Activation::Relu => x.relu()?,
        })
    }
}
