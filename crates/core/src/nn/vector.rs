//! Small f32 parameters: weights of norms, biases, embeddings of positions.

use candle_core::Tensor;
use prefixkv_kernels::cuda::Buffer;

use crate::device::Place;
use crate::error::Result;

/// f32 parameters where the model runs.
pub enum Vector {
    Cpu(Tensor),
    Gpu(Buffer<f32>),
}

impl Vector {
    /// `tensor` is an f32 tensor on the CPU.
    pub fn new(place: &Place, tensor: Tensor) -> Result<Self> {
        Ok(match place {
            Place::Cpu => Vector::Cpu(tensor),
            Place::Gpu { gpu, .. } => Vector::Gpu(Buffer::from_slice(gpu, &tensor.flatten_all()?.to_vec1()?)?),
        })
    }
}
