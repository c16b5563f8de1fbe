//! Activations by their Hugging Face names.

use candle_core::Tensor;
use prefixkv_kernels::cuda::{self, Function, Number};
use serde::Deserialize;

use super::matrix::Matrix;
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
    /// The result is in the format `number`, where that makes a difference: what the product that follows takes.
    pub fn forward(self, x: &Matrix, number: Number) -> Result<Matrix> {
        let x = match x {
            Matrix::Cpu(x) => return Ok(Matrix::Cpu(self.on_cpu(x)?)),
            Matrix::Gpu(x) => x,
        };
        let function = match self {
            Activation::Gelu => Function::Gelu,
            Activation::GeluTanh => Function::GeluTanh,
            Activation::QuickGelu => Function::QuickGelu,
            Activation::Silu => Function::Silu,
            Activation::Relu => Function::Relu,
        };
        let (gpu, from) = (x.gpu(), x.f32()?.all());
        let shape = (x.rows, x.columns);
        Matrix::filled(
            gpu,
            number,
            shape,
            |out| cuda::activate(gpu, from, function, out),
            |out| cuda::activate(gpu, from, function, out),
        )
    }

    fn on_cpu(self, x: &Tensor) -> Result<Tensor> {
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

/// SwiGLU of a fused projection: `both` is `[n, 2 * width]`, gate and up side by side; the result is `[n, width]`, in the
/// format `number` where that makes a difference.
pub fn swiglu(both: &Matrix, number: Number) -> Result<Matrix> {
    let (rows, width) = (both.rows(), both.columns() / 2);
    match both {
        Matrix::Cpu(both) => {
            let mut inner = vec![0.0; rows * width];
            slice::with(both, |both| prefixkv_kernels::activation::swiglu(both, width, &mut inner))?;
            Ok(Matrix::Cpu(Tensor::from_vec(inner, (rows, width), both.device())?))
        }
        Matrix::Gpu(both) => {
            let (gpu, from) = (both.gpu(), both.f32()?.all());
            Matrix::filled(
                gpu,
                number,
                (rows, width),
                |out| cuda::swiglu(gpu, from, width, out),
                |out| cuda::swiglu(gpu, from, width, out),
            )
        }
    }
}
