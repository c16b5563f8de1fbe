//! Tables whose rows are taken by number: token embeddings.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use prefixkv_kernels::cuda::{self, Buffer};

use super::matrix::{Data, Matrix, OnGpu};
use crate::error::Result;

/// `[rows, width]`, f32 or f16.
pub enum Table {
    Cpu(Tensor),
    Gpu(Arc<OnGpu>),
}

impl Table {
    /// Some rows, in f32. A number past the table takes its last row.
    pub fn rows(&self, numbers: &[u32]) -> Result<Matrix> {
        let last = |rows: usize| u32::try_from(rows.saturating_sub(1)).unwrap_or(u32::MAX);
        match self {
            Table::Cpu(table) => {
                let numbers = Tensor::new(numbers, table.device())?.minimum(last(table.dim(0)?))?;
                Ok(Matrix::Cpu(table.index_select(&numbers, 0)?.to_dtype(DType::F32)?))
            }
            Table::Gpu(table) => {
                let (gpu, width) = (table.gpu(), table.columns);
                let numbers: Vec<u32> = numbers.iter().map(|number| (*number).min(last(table.rows))).collect();
                let mut out = Buffer::<f32>::new(gpu, numbers.len() * width)?;
                match &table.data {
                    Data::F32(table) => cuda::take_rows(gpu, table.all(), width, &numbers, out.all_mut())?,
                    Data::F16(table) => cuda::take_rows(gpu, table.all(), width, &numbers, out.all_mut())?,
                }
                Ok(Matrix::on_gpu(out, numbers.len(), width))
            }
        }
    }
}
