//! Linear layers in the formats that weights are held in, and the loader that converts a checkpoint into them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use half::f16;
use prefixkv_kernels::cuda::{self, Buffer, Gpu, Number};
use prefixkv_kernels::{linear as kernel, quant, simd};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::matrix::{Data, Matrix, OnGpu, elsewhere};
use super::slice;
use super::table::Table;
use super::vector::Vector;
use crate::cache::Format;
use crate::device::Place;
use crate::error::{Error, Result};
use crate::weights::{Checkpoint, Role, numbers};

/// How the weights of linear layers are held in memory, whatever the file holds. Activations are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// 4 bytes a weight.
    #[default]
    F32,
    /// 2 bytes a weight; products are computed in f32.
    F16,
    /// 8-bit blocks of 32 with one scale: 8.5 bits a weight.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// 4-bit super-blocks of 256: 4.5 bits a weight. Rows that are no multiple of 256 long are held as q8_0.
    #[serde(rename = "q4_k")]
    Q4K,
}

impl WeightFormat {
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
            WeightFormat::Q8_0 => "q8_0",
            WeightFormat::Q4K => "q4_k",
        }
    }

    /// The format of cache entries beside such weights: f32 for f32, else f16.
    pub fn cache_format(self) -> Format {
        match self {
            WeightFormat::F32 => Format::F32,
            _ => Format::F16,
        }
    }

    /// Bytes that `elements` weights take.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            WeightFormat::F32 => elements * 4,
            WeightFormat::F16 => elements * 2,
            WeightFormat::Q8_0 => elements / 32 * 34,
            WeightFormat::Q4K => elements / 256 * 144,
        }
    }

    /// Refuses formats that no GPU kernel reads.
    pub fn require(self, place: &Place) -> Result<()> {
        match (place, self) {
            (Place::Gpu { device, .. }, WeightFormat::Q8_0 | WeightFormat::Q4K) => Err(Error::Device {
                device: device.clone(),
                reason: format!("weights \"{}\" run on the CPU only; use \"f16\" or \"f32\"", self.name()),
            }),
            _ => Ok(()),
        }
    }

    /// The format that rows of `columns` weights can be held in: blocks must fill a row.
    pub(crate) fn fitting(self, columns: usize) -> WeightFormat {
        match self {
            WeightFormat::Q4K if !columns.is_multiple_of(256) => WeightFormat::Q8_0.fitting(columns),
            WeightFormat::Q8_0 if !columns.is_multiple_of(32) => WeightFormat::F16,
            other => other,
        }
    }
}

/// Reads layers from a checkpoint and counts what they take.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub format: WeightFormat,
    /// Where the layers are to be.
    pub place: Place,
    /// What is in memory so far: layers and bytes by format.
    tally: RefCell<Tally>,
}

/// Linear layers by the format they are really held in, and the bytes of all tensors.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub layers: BTreeMap<&'static str, usize>,
    pub bytes: u64,
}

impl<'a> Loader<'a> {
    pub fn new(checkpoint: &'a Checkpoint, format: WeightFormat, place: Place) -> Self {
        Loader { checkpoint, format, place, tally: RefCell::default() }
    }

    pub fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// The `width` elements of a tensor in f32.
    pub fn vector(&self, name: &str, width: usize) -> Result<Vector> {
        let tensor = self.checkpoint.tensor(name, &[width])?.to_dtype(DType::F32)?;
        self.tally.borrow_mut().bytes += 4 * width as u64;
        Vector::new(&self.place, tensor)
    }

    /// A tensor of `[rows, columns]` elements, or of any shape with as many, in f32.
    pub fn matrix(&self, name: &str, shape: &[usize], rows: usize, columns: usize) -> Result<Matrix> {
        let tensor = self.checkpoint.tensor(name, shape)?.to_dtype(DType::F32)?;
        self.tally.borrow_mut().bytes += 4 * tensor.elem_count() as u64;
        match &self.place {
            Place::Cpu => Ok(Matrix::Cpu(tensor.reshape((rows, columns))?)),
            place => Matrix::new(place, tensor.flatten_all()?.to_vec1()?, rows, columns),
        }
    }

    /// A table from which rows are taken: f32 for f32 weights, else f16.
    pub fn table(&self, name: &str, rows: usize, width: usize) -> Result<Table> {
        let number = self.number();
        let dtype = if number == Number::F32 { DType::F32 } else { DType::F16 };
        self.tally.borrow_mut().bytes += (rows * width * dtype.size_in_bytes()) as u64;
        match &self.place {
            Place::Cpu => {
                let table = self.checkpoint.tensor_for(name, &[rows, width], Role::Table, self.format)?;
                Ok(Table::Cpu(table.to_dtype(dtype)?))
            }
            Place::Gpu { gpu, .. } => {
                let data = self.upload(gpu, number, &[(name.to_owned(), vec![rows, width])], Role::Table)?;
                Ok(Table::Gpu(Arc::new(OnGpu { data, rows, columns: width })))
            }
        }
    }

    /// One linear layer made of the rows of `names`, each `[rows, columns]`, one below the other; biases likewise.
    pub fn linear(&self, names: &[(&str, usize)], columns: usize, bias: bool) -> Result<Linear> {
        let weights: Vec<_> =
            names.iter().map(|(name, rows)| (format!("{name}.weight"), vec![*rows, columns])).collect();
        let biases: Vec<_> = names.iter().map(|(name, rows)| (format!("{name}.bias"), vec![*rows])).collect();
        let rows: usize = names.iter().map(|(_, rows)| rows).sum();
        let bias = if bias {
            self.tally.borrow_mut().bytes += 4 * rows as u64;
            Some(Vector::new(&self.place, self.joined(&biases, Role::Plain)?.to_dtype(DType::F32)?)?)
        } else {
            None
        };
        match &self.place {
            Place::Cpu => self.hold(self.joined(&weights, Role::Rows(columns))?, bias),
            Place::Gpu { gpu, .. } => self.uploaded(gpu, &weights, rows, columns, bias),
        }
    }

    /// The rows of several tensors, one below the other.
    fn joined(&self, parts: &[(String, Vec<usize>)], role: Role) -> Result<Tensor> {
        let read = |(name, shape): &(String, Vec<usize>)| self.checkpoint.tensor_for(name, shape, role, self.format);
        let parts: Vec<Tensor> = parts.iter().map(read).collect::<Result<_>>()?;
        // The tensors of one model may differ in format; no number may change by being joined.
        let parts: Vec<Tensor> = match parts.iter().all(|part| part.dtype() == parts[0].dtype()) {
            true => parts,
            false => parts.iter().map(|part| part.to_dtype(DType::F32)).collect::<Result<_, _>>()?,
        };
        Ok(if parts.len() == 1 { parts[0].clone() } else { Tensor::cat(&parts, 0)? })
    }

    /// The tensors one behind the other on the GPU. Nothing is joined on the way.
    fn upload(&self, gpu: &Gpu, number: Number, parts: &[(String, Vec<usize>)], role: Role) -> Result<Data> {
        let sizes: Vec<usize> = parts.iter().map(|(_, shape)| shape.iter().product()).collect();
        let total = sizes.iter().sum();
        let mut data = match number {
            Number::F32 => Data::F32(Buffer::new(gpu, total)?),
            _ => Data::F16(Buffer::new(gpu, total)?),
        };
        let mut at = 0;
        for ((name, shape), size) in parts.iter().zip(sizes) {
            match &mut data {
                Data::F32(to) => to.write(at, &self.checkpoint.f32(name, shape)?)?,
                Data::F16(to) => to.write(at, &self.checkpoint.f16(name, shape, role)?)?,
            }
            at += size;
        }
        Ok(data)
    }

    /// A linear layer of `rows` in all, whose tensors lie one behind the other on the GPU.
    fn uploaded(
        &self,
        gpu: &Gpu,
        parts: &[(String, Vec<usize>)],
        rows: usize,
        columns: usize,
        bias: Option<Vector>,
    ) -> Result<Linear> {
        self.format.require(&self.place)?;
        let number = self.number();
        let data = self.upload(gpu, number, parts, Role::Rows(columns))?;
        self.count(self.format, self.format.bytes((rows * columns) as u64));
        Ok(Linear { weight: Weight::Gpu(Arc::new(OnGpu { data, rows, columns })), bias })
    }

    /// The format of tables, and of layers on a GPU.
    fn number(&self) -> Number {
        if self.format == WeightFormat::F32 { Number::F32 } else { Number::F16 }
    }

    fn count(&self, format: WeightFormat, bytes: u64) {
        let mut tally = self.tally.borrow_mut();
        *tally.layers.entry(format.name()).or_default() += 1;
        tally.bytes += bytes;
    }

    /// The output layer of a model whose embeddings are its weights, the tensor `name`. Where the formats allow it, both share
    /// their memory.
    pub fn tied(&self, table: &Table, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        let weight = match table {
            Table::Cpu(table) if matches!(self.format, WeightFormat::F32 | WeightFormat::F16) => {
                Weight::Dense(table.clone())
            }
            // From the file, so that quantisation starts from its numbers.
            Table::Cpu(_) => {
                let role = Role::Rows(columns);
                return self.hold(self.checkpoint.tensor_for(name, &[rows, columns], role, self.format)?, None);
            }
            Table::Gpu(table) => Weight::Gpu(table.clone()),
        };
        *self.tally.borrow_mut().layers.entry(self.format.name()).or_default() += 1;
        Ok(Linear { weight, bias: None })
    }

    /// A linear layer whose rows are those of a tensor of another shape.
    pub fn reshaped(&self, name: &str, shape: &[usize], rows: usize, columns: usize) -> Result<Linear> {
        match &self.place {
            Place::Cpu => {
                let kernel = self.checkpoint.tensor_for(name, shape, Role::Rows(columns), self.format)?;
                self.hold(kernel.reshape((rows, columns))?, None)
            }
            Place::Gpu { gpu, .. } => self.uploaded(gpu, &[(name.to_owned(), shape.to_vec())], rows, columns, None),
        }
    }

    /// A linear layer of one tensor on the CPU, converted to the format it will be held in.
    fn hold(&self, weight: Tensor, bias: Option<Vector>) -> Result<Linear> {
        let elements = weight.elem_count() as u64;
        let format = self.format.fitting(weight.dim(1)?);
        let weight = match format {
            WeightFormat::F32 => Weight::Dense(weight.to_dtype(DType::F32)?),
            WeightFormat::F16 => Weight::Dense(weight.to_dtype(DType::F16)?),
            WeightFormat::Q8_0 => quantised(&weight, quant::Format::Q8_0)?,
            WeightFormat::Q4K => quantised(&weight, quant::Format::Q4K)?,
        };
        let bytes = match &weight {
            Weight::Quantised(blocks) => blocks.bytes(),
            _ => format.bytes(elements),
        };
        self.count(format, bytes);
        Ok(Linear { weight, bias })
    }
}

/// Blocks of the numbers of a tensor, in whatever format of a file.
fn quantised(weight: &Tensor, format: quant::Format) -> Result<Weight> {
    let (rows, columns) = weight.dims2()?;
    let blocks = slice::with_numbers(weight, |numbers| {
        quant::Weights::quantise(format, rows, columns, |row, to| numbers.widen(row * columns, to))
    })?;
    Ok(Weight::Quantised(blocks))
}

/// `x W^T + b`.
pub struct Linear {
    weight: Weight,
    bias: Option<Vector>,
}

enum Weight {
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
