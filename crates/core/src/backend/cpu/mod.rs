//! The CPU: linear algebra is candle's and, for a few rows and for quantised weights, our own; so is attention.

mod attention;
mod linear;
mod matrix;
mod slice;
mod storable;

use candle_core::{DType, Device, Tensor};
use prefixkv_kernels::activation::{self, Gate};
use prefixkv_kernels::quant::stored::Stored;
use prefixkv_kernels::rotary::{Frequencies, Phase};
use rayon::prelude::*;

pub use attention::Rotary;
pub use linear::{FEW, Weights};
pub use matrix::Matrix;

use super::Backend;
use crate::backend::{Activation, Heads, LayerKind};
use crate::check::Check;
use crate::device::{Cpu, DeviceMemory};
use crate::error::Result;
use crate::sequence::Pass;
use crate::weights::{Part, Tensors, WeightFormat};

impl Backend for Cpu {
    type Memory = Cpu;
    type Matrix = Matrix;
    type Input = Matrix;
    type Weights = Weights;
    type Table = Table;
    type Vector = Tensor;
    type Rotary = Rotary;

    const MLP_ROWS: usize = 512;

    fn name(&self) -> &str {
        "cpu"
    }

    fn memory(&self) -> Cpu {
        Cpu
    }

    fn device_memory(&self) -> Result<DeviceMemory> {
        Ok(DeviceMemory { device: self.name().into(), gpu: None })
    }

    fn available(&self) -> Result<Option<u64>> {
        Ok(available())
    }

    fn trim(&self) -> Result<()> {
        Ok(())
    }

    fn with_weights(self, _: WeightFormat) -> Result<Cpu> {
        Ok(self)
    }

    fn advice(&self, format: WeightFormat) -> &'static str {
        match format {
            WeightFormat::F32 => "weights \"f16\", \"q8_0\" or \"q4_k\" take 2, 4 and 7 times less",
            WeightFormat::F16 => "weights \"q8_0\" or \"q4_k\" take 2 and 3.5 times less",
            WeightFormat::Q8_0 => "weights \"q4_k\" take half",
            WeightFormat::Q4K | WeightFormat::Stored => "use a smaller model or a larger machine",
        }
    }

    fn require_heads(&self, _: Heads) -> Result<()> {
        Ok(())
    }

    fn matrix(&self, data: Vec<f32>, rows: usize, columns: usize) -> Result<Matrix> {
        Matrix::new(data, rows, columns)
    }

    fn vector(&self, data: Vec<f32>) -> Result<Tensor> {
        let len = data.len();
        Ok(Tensor::from_vec(data, len, &Device::Cpu)?)
    }

    fn weights(&self, tensors: &Tensors<'_>, rows: usize, columns: usize) -> Result<Weights> {
        match tensors.format() {
            WeightFormat::Stored => Weights::stored(tensors, rows, columns),
            format => Weights::hold(&tensors.joined()?.reshape((rows, columns))?, format),
        }
    }

    fn table(&self, tensors: &Tensors<'_>, rows: usize, columns: usize) -> Result<Table> {
        if tensors.format() == WeightFormat::Stored
            && let [Part::Blocks(blocks)] = &tensors.each_stored().collect::<Result<Vec<_>>>()?[..]
        {
            return Ok(Table::Blocks(blocks.clone()));
        }
        let table = tensors.joined()?.reshape((rows, columns))?;
        let dtype = match tensors.format() {
            WeightFormat::F32 => DType::F32,
            WeightFormat::Stored => linear::plain(table.dtype()),
            _ => DType::F16,
        };
        Ok(Table::Dense(table.to_dtype(dtype)?))
    }

    fn table_bytes(&self, table: &Table) -> u64 {
        match table {
            Table::Dense(table) => (table.elem_count() * table.dtype().size_in_bytes()) as u64,
            Table::Blocks(table) => table.bytes(),
        }
    }

    fn tied(&self, table: &Table, format: WeightFormat) -> Option<Weights> {
        match table {
            Table::Blocks(blocks) => Some(Weights::Stored(vec![Part::Blocks(blocks.clone())])),
            // Quantisation starts from the numbers of the file.
            Table::Dense(table) => {
                (!format.in_blocks() || format == WeightFormat::Stored).then(|| Weights::Dense(table.clone()))
            }
        }
    }

    fn rows(&self, table: &Table, numbers: &[u32]) -> Result<Matrix> {
        let table = match table {
            Table::Dense(table) => table,
            Table::Blocks(table) => return table_rows(table, numbers),
        };
        let last = u32::try_from(table.dim(0)?.saturating_sub(1)).unwrap_or(u32::MAX);
        let numbers = Tensor::new(numbers, table.device())?.minimum(last)?;
        Ok(Matrix(table.index_select(&numbers, 0)?.to_dtype(DType::F32)?))
    }

    fn input(&self, x: &Matrix) -> Matrix {
        x.clone()
    }

    fn linear(&self, x: &Matrix, weights: &Weights, bias: Option<&Tensor>, rows: usize) -> Result<Matrix> {
        let y = weights.product(&x.0, rows)?;
        Ok(Matrix(match bias {
            Some(bias) => y.broadcast_add(&bias.narrow(0, 0, rows)?)?,
            None => y,
        }))
    }

    fn rms_norm(&self, x: &Matrix, weight: &Tensor, eps: f32) -> Result<Matrix> {
        Ok(Matrix(candle_nn::ops::rms_norm(&x.0, weight, eps)?))
    }

    fn rms_norm_rows(&self, x: &Matrix, weight: &Tensor, eps: f32) -> Result<Matrix> {
        self.rms_norm(x, weight, eps)
    }

    fn layer_norm(&self, x: &Matrix, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Matrix> {
        Ok(Matrix(candle_nn::ops::layer_norm(&x.0, weight, bias, eps)?))
    }

    fn layer_norm_rows(&self, x: &Matrix, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Matrix> {
        self.layer_norm(x, weight, bias, eps)
    }

    fn activate(&self, Matrix(x): &Matrix, activation: Activation) -> Result<Matrix> {
        Ok(Matrix(match activation {
            Activation::Gelu => x.gelu_erf()?,
            Activation::GeluTanh => x.gelu()?,
            Activation::QuickGelu => {
                let mut data = slice::with(x, <[f32]>::to_vec)?;
                activation::quick_gelu(&mut data);
                Tensor::from_vec(data, x.shape(), x.device())?
            }
            Activation::Silu => x.silu()?,
            Activation::Relu => x.relu()?,
        }))
    }

    fn glu(&self, both: &Matrix, gate: Gate) -> Result<Matrix> {
        let (rows, columns) = both.0.dims2()?;
        let width = columns / 2;
        let mut inner = vec![0.0; rows * width];
        slice::with(&both.0, |both| activation::glu(both, width, gate, &mut inner))?;
        Matrix::new(inner, rows, width)
    }

    fn head_norms(&self, fused: &Matrix, parts: &[(usize, &Tensor)], eps: f32) -> Result<Matrix> {
        let (rows, columns) = fused.0.dims2()?;
        let mut out = slice::with(&fused.0, <[f32]>::to_vec)?;
        let mut at = 0;
        for (heads, weight) in parts {
            slice::with(weight, |weight| {
                let range = at..at + heads * weight.len();
                at = range.end;
                out.par_chunks_mut(columns).with_min_len(16).for_each(|row| {
                    for head in row[range.clone()].chunks_exact_mut(weight.len()) {
                        let squares: f32 = head.iter().map(|x| x * x).sum();
                        let inverse = 1.0 / (squares / head.len() as f32 + eps).sqrt();
                        head.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * inverse * weight);
                    }
                });
            })?;
        }
        Matrix::new(out, rows, columns)
    }

    fn rotary(
        &self,
        variants: &[Frequencies],
        _: &[LayerKind],
        pass: &mut Pass<'_, '_>,
        rows: usize,
    ) -> Result<Rotary> {
        Ok(Rotary::new(variants, pass, rows))
    }

    fn causal(
        &self,
        fused: &Matrix,
        kind: &LayerKind,
        rotary: &Rotary,
        pass: &mut Pass<'_, '_>,
        check: Check<'_>,
    ) -> Result<Matrix> {
        let out = slice::with(&fused.0, |fused| attention::causal(fused, kind, rotary, pass, check))??;
        Matrix::new(out, fused.0.dim(0)?, kind.heads.width())
    }

    fn bidirectional(&self, fused: &Matrix, heads: Heads) -> Result<Matrix> {
        let n = fused.0.dim(0)?;
        let out = slice::with(&fused.0, |fused| attention::bidirectional(fused, n, heads))??;
        Matrix::new(out, n, heads.width())
    }

    fn rotary_at(&self, frequencies: &Frequencies, phases: &[Phase]) -> Result<Rotary> {
        Ok(Rotary::at(frequencies, phases))
    }

    fn segmented(
        &self,
        fused: &Matrix,
        heads: Heads,
        rotary: &Rotary,
        segments: &[usize],
        check: Check<'_>,
    ) -> Result<Matrix> {
        let out = slice::with(&fused.0, |fused| attention::segmented(fused, heads, rotary, segments, check))??;
        Matrix::new(out, fused.0.dim(0)?, heads.width())
    }
}

/// A matrix from which rows are taken.
pub enum Table {
    /// f32 or f16.
    Dense(Tensor),
    /// As a GGUF file has it; rows become numbers when they are taken.
    Blocks(Stored),
}

fn table_rows(table: &Stored, numbers: &[u32]) -> Result<Matrix> {
    let (last, columns) = (table.rows().saturating_sub(1), table.columns());
    let mut rows = vec![0.0; numbers.len() * columns];
    let each = rows.par_chunks_exact_mut(columns).zip(numbers).with_min_len(16);
    each.for_each(|(to, number)| table.dequantise((*number as usize).min(last), to));
    Matrix::new(rows, numbers.len(), columns)
}

/// Bytes that new allocations can get without swapping.
fn available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}
