//! Weights on a GPU.

use std::sync::Arc;

use half::f16;
use prefixkv_kernels::cuda::{Buffer, Number};

use super::matrix::Array;
use crate::backend::Held;
use crate::device::Cuda;
use crate::error::Result;
use crate::weights::{Tensors, WeightFormat};

/// The weights of a linear layer, or a table. Clones share their memory.
#[derive(Clone, Debug)]
pub enum Weights {
    F32(Arc<Array<f32>>),
    F16(Arc<Array<f16>>),
}

impl Weights {
    /// The tensors one behind the other. Nothing is joined on the way.
    pub(super) fn upload(cuda: &Cuda, tensors: &Tensors<'_>, rows: usize, columns: usize) -> Result<Weights> {
        let elements = rows * columns;
        Ok(match cuda.factors {
            Number::F16 => {
                let mut data = Buffer::<f16>::new(&cuda.gpu, elements)?;
                let mut at = 0;
                for part in tensors.each_f16() {
                    let part = part?;
                    data.write(at, &part)?;
                    at += part.len();
                }
                Weights::F16(Arc::new(Array { data, rows, columns }))
            }
            Number::F32 | Number::Bf16 => {
                let mut data = Buffer::<f32>::new(&cuda.gpu, elements)?;
                let mut at = 0;
                for part in tensors.each_f32() {
                    let part = part?;
                    data.write(at, &part)?;
                    at += part.len();
                }
                Weights::F32(Arc::new(Array { data, rows, columns }))
            }
        })
    }

    /// Rows and columns.
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Weights::F32(weight) => (weight.rows, weight.columns),
            Weights::F16(weight) => (weight.rows, weight.columns),
        }
    }
}

impl Held for Weights {
    fn format(&self) -> WeightFormat {
        match self {
            Weights::F32(_) => WeightFormat::F32,
            Weights::F16(_) => WeightFormat::F16,
        }
    }

    fn rows(&self) -> usize {
        self.shape().0
    }

    fn bytes(&self) -> u64 {
        let (rows, columns) = self.shape();
        self.format().bytes((rows * columns) as u64)
    }
}
