//! Products with weights in the formats that they are held in.

use std::ops::Range;

use candle_core::{DType, Tensor};
use prefixkv_kernels::quant::stored::Activations;
use prefixkv_kernels::{linear as kernel, quant, simd};
use rayon::prelude::*;

use super::slice;
use crate::backend::Held;
use crate::error::Result;
use crate::weights::{Part, Tensors, WeightFormat, numbers};

/// The weights of a linear layer.
pub enum Weights {
    /// f32 or f16.
    Dense(Tensor),
    /// In blocks, as the kernels read them.
    Blocks(quant::Weights),
    /// Rows of several tensors, one below the other, as a GGUF file has them.
    Stored(Vec<Part>),
}

impl Weights {
    /// `weight` is `[rows, columns]` in whatever format of a file.
    pub(super) fn hold(weight: &Tensor, format: WeightFormat) -> Result<Weights> {
        Ok(match format.fitting(weight.dim(1)?) {
            WeightFormat::F32 => Weights::Dense(weight.to_dtype(DType::F32)?),
            WeightFormat::F16 => Weights::Dense(weight.to_dtype(DType::F16)?),
            WeightFormat::Q8_0 => quantised(weight, quant::Format::Q8_0)?,
            WeightFormat::Q4K => quantised(weight, quant::Format::Q4K)?,
            WeightFormat::Stored => Weights::Dense(weight.to_dtype(plain(weight.dtype()))?),
        })
    }

    /// The rows of `tensors`, `[rows, columns]`, as their file has them.
    pub(super) fn stored(tensors: &Tensors<'_>, rows: usize, columns: usize) -> Result<Weights> {
        let (mut parts, mut dense) = (Vec::new(), Vec::new());
        for part in tensors.each_stored() {
            parts.push(match part? {
                Part::Plain(weight) => {
                    let weight = weight.reshape(((), columns))?.to_dtype(plain(weight.dtype()))?;
                    dense.push(weight.clone());
                    Part::Plain(weight)
                }
                blocks => blocks,
            });
        }
        let alike = dense.len() == parts.len() && dense.iter().all(|part| part.dtype() == dense[0].dtype());
        Ok(match alike {
            true => Weights::Dense(Tensor::cat(&dense, 0)?.reshape((rows, columns))?),
            false => Weights::Stored(parts),
        })
    }

    /// `x W^T` with the first `rows` rows: `x` is `[n, columns]`, the result `[n, rows]`.
    pub(super) fn product(&self, x: &Tensor, rows: usize) -> Result<Tensor> {
        match self {
            Weights::Dense(weight) => dense(x, &weight.narrow(0, 0, rows)?),
            Weights::Blocks(weight) => {
                slice::with(x, numbers::require_quantisable)??;
                blocks(x, weight, rows)
            }
            Weights::Stored(parts) => stored(x, parts, rows),
        }
    }
}

/// The type in which plain numbers of a GGUF file are held: bf16 as f16.
pub(super) fn plain(dtype: DType) -> DType {
    if dtype == DType::F32 { DType::F32 } else { DType::F16 }
}

impl Held for Weights {
    fn format(&self) -> WeightFormat {
        match self {
            Weights::Dense(weight) if weight.dtype() == DType::F32 => WeightFormat::F32,
            Weights::Dense(_) => WeightFormat::F16,
            Weights::Blocks(weight) => match weight.format() {
                quant::Format::Q8_0 => WeightFormat::Q8_0,
                quant::Format::Q4K => WeightFormat::Q4K,
            },
            Weights::Stored(_) => WeightFormat::Stored,
        }
    }

    fn formats(&self) -> Vec<&'static str> {
        match self {
            Weights::Stored(parts) => parts.iter().map(format_of).collect(),
            _ => vec![self.format().name()],
        }
    }

    fn rows(&self) -> usize {
        match self {
            Weights::Dense(weight) => weight.dims()[0],
            Weights::Blocks(weight) => weight.rows(),
            Weights::Stored(parts) => parts.iter().map(rows_of).sum(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Weights::Dense(weight) => (weight.elem_count() * weight.dtype().size_in_bytes()) as u64,
            Weights::Blocks(weight) => weight.bytes(),
            Weights::Stored(parts) => parts.iter().map(bytes_of).sum(),
        }
    }

    fn read(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        match self {
            Weights::Dense(weight) => {
                let some = weight.narrow(0, rows.start, rows.len())?.to_dtype(DType::F32)?;
                Ok(some.flatten_all()?.to_vec1()?)
            }
            Weights::Blocks(weight) => {
                let mut out = vec![0.0; rows.len() * weight.columns()];
                for (row, out) in rows.zip(out.chunks_exact_mut(weight.columns())) {
                    weight.dequantise(row, out);
                }
                Ok(out)
            }
            Weights::Stored(parts) => {
                let (mut out, mut first) = (Vec::new(), 0);
                for part in parts {
                    let end = first + rows_of(part);
                    let some = rows.start.max(first)..rows.end.min(end);
                    if !some.is_empty() {
                        read(part, some.start - first..some.end - first, &mut out)?;
                    }
                    first = end;
                }
                Ok(out)
            }
        }
    }
}

fn rows_of(part: &Part) -> usize {
    match part {
        Part::Plain(weight) => weight.dims()[0],
        Part::Blocks(weight) => weight.rows(),
    }
}

fn bytes_of(part: &Part) -> u64 {
    match part {
        Part::Plain(weight) => (weight.elem_count() * weight.dtype().size_in_bytes()) as u64,
        Part::Blocks(weight) => weight.bytes(),
    }
}

fn format_of(part: &Part) -> &'static str {
    match part {
        Part::Plain(weight) if weight.dtype() == DType::F32 => WeightFormat::F32.name(),
        Part::Plain(_) => WeightFormat::F16.name(),
        Part::Blocks(weight) => weight.kind().name(),
    }
}

/// Appends the numbers of some rows of a part.
fn read(part: &Part, rows: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
    match part {
        Part::Plain(weight) => {
            let some = weight.narrow(0, rows.start, rows.len())?.to_dtype(DType::F32)?;
            out.extend(some.flatten_all()?.to_vec1::<f32>()?);
        }
        Part::Blocks(weight) => {
            for row in rows {
                let at = out.len();
                out.resize(at + weight.columns(), 0.0);
                weight.dequantise(row, &mut out[at..]);
            }
        }
    }
    Ok(())
}

/// Any number of rows of activations against the first `rows` rows of parts, which read activations that were rounded once.
fn stored(x: &Tensor, parts: &[Part], rows: usize) -> Result<Tensor> {
    let (n, columns) = x.dims2()?;
    let rounded = match parts.iter().any(|part| matches!(part, Part::Blocks(_))) {
        true => {
            slice::with(x, numbers::require_quantisable)??;
            Some(slice::with(x, |x| Activations::quantise(x, columns))?)
        }
        false => None,
    };
    let mut out = vec![0.0; n * rows];
    let mut at = 0;
    for part in parts {
        let some = rows_of(part).min(rows - at);
        match part {
            Part::Blocks(weight) => {
                if let Some(rounded) = &rounded {
                    weight.product(some, rounded, &mut out, rows, at);
                }
            }
            Part::Plain(weight) if some > 0 => {
                slice::with(&dense(x, &weight.narrow(0, 0, some)?)?, |from| {
                    for (to, from) in out.chunks_exact_mut(rows).zip(from.chunks_exact(some)) {
                        to[at..at + some].copy_from_slice(from);
                    }
                })?;
            }
            Part::Plain(_) => {}
        }
        at += some;
    }
    Ok(Tensor::from_vec(out, (n, rows), x.device())?)
}

/// Rows of activations up to which our own kernel is used. From two rows up to so many it was never slower than a general matrix
/// product (`cargo bench -p prefixkv-kernels --bench linear`). So many sequences get the same bits together as alone.
pub const FEW: usize = 32;

/// Any number of rows of activations against a dense weight.
fn dense(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match weight.dtype() {
        _ if x.dim(0)? <= FEW => few(x, weight),
        DType::F32 => Ok(x.matmul(&weight.t()?)?),
        _ => widened(x, weight),
    }
}

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

/// Any number of rows of activations against the first `rows` rows of a weight in blocks. Rows get the same bits together as alone.
fn blocks(x: &Tensor, weight: &quant::Weights, rows: usize) -> Result<Tensor> {
    let mut out = vec![0.0; x.dim(0)? * rows];
    slice::with(x, |x| weight.first_product(rows, x, &mut out))?;
    Ok(Tensor::from_vec(out, (x.dim(0)?, rows), x.device())?)
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

/// Blocks of the numbers of a tensor, in whatever format of a file.
fn quantised(weight: &Tensor, format: quant::Format) -> Result<Weights> {
    let (rows, columns) = weight.dims2()?;
    let blocks = slice::with_numbers(weight, |numbers| {
        quant::Weights::quantise(format, rows, columns, |row, to| numbers.widen(row * columns, to))
    })?;
    Ok(Weights::Blocks(blocks))
}
