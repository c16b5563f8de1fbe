//! A GPU: matrix products are its own library's, the rest is our kernels. `docs/design/cuda.md` has their contracts.

mod attention;
mod matrix;
mod plan;
mod weights;
mod write;

use half::f16;
use prefixkv_kernels::activation::Gate;
use prefixkv_kernels::cuda::{self, Angles, Buffer, Function, Gpu, Memory, Number, PoolUse, Slice, SliceMut};
use prefixkv_kernels::rotary::{Frequencies, Phase};

use matrix::filled;
pub use matrix::{Array, Input, Matrix};
pub use plan::Rotary;
pub use weights::Weights;

use super::{Activations, Backend, Held};
use crate::backend::{Activation, Heads, LayerKind};
use crate::check::Check;
use crate::device::{Cuda, DeviceMemory, DevicePool, GpuMemory};
use crate::error::{Error, Result};
use crate::sequence::{Pass, Phases};
use crate::weights::{Tensors, WeightFormat};

/// Bytes that may stay with the process unused.
const SLACK: u64 = 64 << 20;

impl Backend for Cuda {
    type Memory = Cuda;
    type Matrix = Matrix;
    type Input = Input;
    type Weights = Weights;
    type Table = Weights;
    type Vector = Buffer<f32>;
    type Rotary = Rotary;

    /// A GPU wants products of many rows and copies each part; for a 7B model this many take 350 MB.
    const MLP_ROWS: usize = 4096;

    fn name(&self) -> &str {
        &self.device
    }

    fn memory(&self) -> Cuda {
        self.clone()
    }

    fn device_memory(&self) -> Result<DeviceMemory> {
        let Memory { free, total, pool } = self.gpu.memory()?;
        let PoolUse { reserved, most_reserved, used, most_used } = pool;
        let gpu = GpuMemory { free, total, pool: DevicePool { reserved, most_reserved, used, most_used } };
        Ok(DeviceMemory { device: self.name().into(), gpu: Some(gpu) })
    }

    fn available(&self) -> Result<Option<u64>> {
        Ok(Some(self.gpu.memory()?.free))
    }

    /// Less than [`SLACK`] stays for the next prompt: giving it back waits for the device, and for the steps of others with it.
    fn trim(&self) -> Result<()> {
        let Memory { pool: PoolUse { reserved, used, .. }, .. } = self.gpu.memory()?;
        if reserved.saturating_sub(used) > SLACK { Ok(self.gpu.trim()?) } else { Ok(()) }
    }

    fn with_weights(self, format: WeightFormat) -> Result<Cuda> {
        if format == WeightFormat::Stored {
            let reason =
                "the blocks of a GGUF file run on the CPU only; load it with weights \"f16\" or \"f32\"".into();
            return Err(self.refusal(reason));
        }
        if format.in_blocks() {
            let reason = format!("weights \"{}\" run on the CPU only; use \"f16\" or \"f32\"", format.name());
            return Err(self.refusal(reason));
        }
        let factors = if format == WeightFormat::F16 { Number::F16 } else { Number::F32 };
        Ok(Cuda { factors, ..self })
    }

    fn advice(&self, format: WeightFormat) -> &'static str {
        match format {
            WeightFormat::F32 => "weights \"f16\" take half; or close what else runs on the GPU, or use the CPU",
            _ => "close what else runs on the GPU, or use a smaller model, a larger GPU or the CPU",
        }
    }

    fn require_heads(&self, heads: Heads) -> Result<()> {
        if heads.dim > 0 && heads.dim <= 256 && heads.dim.is_multiple_of(8) {
            return Ok(());
        }
        Err(self.refusal(format!(
            "the model has heads of {} elements; the CUDA kernels take multiples of 8 up to 256. Use `cpu`",
            heads.dim
        )))
    }

    fn matrix(&self, data: Vec<f32>, rows: usize, columns: usize) -> Result<Matrix> {
        Ok(Matrix::new(Buffer::working_from(&self.gpu, &data)?, rows, columns))
    }

    fn vector(&self, data: Vec<f32>) -> Result<Buffer<f32>> {
        Ok(Buffer::from_slice(&self.gpu, &data)?)
    }

    fn weights(&self, tensors: &Tensors<'_>, rows: usize, columns: usize) -> Result<Weights> {
        Weights::upload(self, tensors, rows, columns)
    }

    fn table(&self, tensors: &Tensors<'_>, rows: usize, columns: usize) -> Result<Weights> {
        Weights::upload(self, tensors, rows, columns)
    }

    fn table_bytes(&self, table: &Weights) -> u64 {
        table.bytes()
    }

    fn tied(&self, table: &Weights, _: WeightFormat) -> Option<Weights> {
        Some(table.clone())
    }

    fn rows(&self, table: &Weights, numbers: &[u32]) -> Result<Matrix> {
        let (rows, width) = table.shape();
        let last = u32::try_from(rows.saturating_sub(1)).unwrap_or(u32::MAX);
        let numbers: Vec<u32> = numbers.iter().map(|number| (*number).min(last)).collect();
        let mut out = Buffer::<f32>::working(&self.gpu, numbers.len() * width)?;
        match table {
            Weights::F32(table) => cuda::take_rows(&self.gpu, table.all(), width, &numbers, out.all_mut())?,
            Weights::F16(table) => cuda::take_rows(&self.gpu, table.all(), width, &numbers, out.all_mut())?,
        }
        Ok(Matrix::new(out, numbers.len(), width))
    }

    fn input(&self, x: &Matrix) -> Input {
        Input::F32(x.clone())
    }

    fn linear(&self, x: &Input, weights: &Weights, bias: Option<&Buffer<f32>>, rows: usize) -> Result<Matrix> {
        let (n, gpu) = (x.rows(), &self.gpu);
        let mut y = Buffer::<f32>::working(gpu, n * rows)?;
        multiply(gpu, x, weights, rows, y.all_mut(), false)?;
        if let Some(bias) = bias {
            cuda::add_bias(gpu, y.all_mut(), bias.slice(0..rows))?;
        }
        Ok(Matrix::new(y, n, rows))
    }

    fn linear_onto(&self, x: &Input, weights: &Weights, bias: Option<&Buffer<f32>>, onto: Matrix) -> Result<Matrix> {
        // The bias would be added in another order.
        if bias.is_some() {
            return onto.plus(&self.linear(x, weights, bias, weights.rows())?);
        }
        let mut sum = onto.own()?;
        multiply(&self.gpu, x, weights, weights.rows(), sum.data.all_mut(), true)?;
        Ok(Matrix::from(sum))
    }

    fn greatest(&self, rows: &Matrix) -> Result<Option<Vec<Option<u32>>>> {
        let mut found = Buffer::<u32>::working(&self.gpu, 2 * rows.rows())?;
        cuda::choose(&self.gpu, rows.all(), rows.columns(), found.all_mut())?;
        let of = |pair: &[u32]| if pair[1] == 0 { Some(pair[0]) } else { None };
        Ok(Some(found.read()?.chunks_exact(2).map(of).collect()))
    }

    fn rms_norm(&self, x: &Matrix, weight: &Buffer<f32>, eps: f32) -> Result<Input> {
        filled!(self, (x.rows(), x.columns()), out => cuda::rms_norm(&self.gpu, x.all(), weight.all(), eps, out))
    }

    fn rms_norm_rows(&self, x: &Matrix, weight: &Buffer<f32>, eps: f32) -> Result<Matrix> {
        let mut out = Buffer::<f32>::working(&self.gpu, x.rows() * x.columns())?;
        cuda::rms_norm(&self.gpu, x.all(), weight.all(), eps, out.all_mut())?;
        Ok(Matrix::new(out, x.rows(), x.columns()))
    }

    fn layer_norm(&self, x: &Matrix, weight: &Buffer<f32>, bias: &Buffer<f32>, eps: f32) -> Result<Input> {
        filled!(self, (x.rows(), x.columns()), out => {
            cuda::layer_norm(&self.gpu, x.all(), weight.all(), bias.all(), eps, out)
        })
    }

    fn layer_norm_rows(&self, x: &Matrix, weight: &Buffer<f32>, bias: &Buffer<f32>, eps: f32) -> Result<Matrix> {
        let mut out = Buffer::<f32>::working(&self.gpu, x.rows() * x.columns())?;
        cuda::layer_norm(&self.gpu, x.all(), weight.all(), bias.all(), eps, out.all_mut())?;
        Ok(Matrix::new(out, x.rows(), x.columns()))
    }

    fn activate(&self, x: &Matrix, activation: Activation) -> Result<Input> {
        let function = match activation {
            Activation::Gelu => Function::Gelu,
            Activation::GeluTanh => Function::GeluTanh,
            Activation::QuickGelu => Function::QuickGelu,
            Activation::Silu => Function::Silu,
            Activation::Relu => Function::Relu,
        };
        filled!(self, (x.rows(), x.columns()), out => cuda::activate(&self.gpu, x.all(), function, out))
    }

    fn glu(&self, both: &Matrix, gate: Gate) -> Result<Input> {
        let width = both.columns() / 2;
        filled!(self, (both.rows(), width), out => cuda::glu(&self.gpu, both.all(), width, gate, out))
    }

    fn head_norms(&self, fused: &Matrix, parts: &[(usize, &Buffer<f32>)], eps: f32) -> Result<Matrix> {
        let parts: Vec<_> = parts.iter().map(|(heads, weight)| (*heads, weight.all())).collect();
        let mut out = Buffer::working(&self.gpu, fused.rows() * fused.columns())?;
        cuda::head_norms(&self.gpu, fused.all(), fused.columns(), &parts, eps, out.all_mut())?;
        Ok(Matrix::new(out, fused.rows(), fused.columns()))
    }

    fn rotary(
        &self,
        variants: &[Frequencies],
        kinds: &[LayerKind],
        pass: &mut Pass<'_, '_, Cuda>,
        rows: usize,
    ) -> Result<Rotary> {
        let n = pass.rows_each(rows);
        let mut stored = Vec::new();
        for sequence in pass.sequences() {
            match sequence.phases(n) {
                Phases::Stored(phases) => stored.extend(phases),
                Phases::Ranks(_) | Phases::OnRead { .. } => {
                    return Err(Error::Internal("keys on a GPU are stored rotated".into()));
                }
            }
        }
        let angles: Vec<_> = variants.iter().map(|one| one.angles(stored.iter().copied())).collect();
        match pass {
            Pass::Step(_) => Rotary::of_step(self, &angles, kinds, pass),
            Pass::Prompt(_) => {
                let sent = angles.iter().map(|angles| Angles::new(&self.gpu, angles));
                Ok(Rotary::of_rows(sent.collect::<cuda::Result<_>>()?))
            }
        }
    }

    fn causal(
        &self,
        fused: &Matrix,
        kind: &LayerKind,
        rotary: &Rotary,
        pass: &mut Pass<'_, '_, Cuda>,
        _: Check<'_>,
    ) -> Result<Input> {
        match pass {
            Pass::Prompt(sequence) => attention::prompt(self, fused, kind, rotary.angles(kind.rope)?, sequence),
            Pass::Step(members) => attention::step(self, fused, kind, rotary, members),
        }
    }

    fn bidirectional(&self, fused: &Matrix, heads: Heads) -> Result<Input> {
        let out = attention::bidirectional(self, fused, heads)?;
        Ok(Input::F32(Matrix::new(out, fused.rows(), heads.width())))
    }

    fn rotary_at(&self, frequencies: &Frequencies, phases: &[Phase]) -> Result<Rotary> {
        let angles = Angles::new(&self.gpu, &frequencies.angles(phases.iter().copied()))?;
        Ok(Rotary::of_rows(vec![angles]))
    }

    fn segmented(
        &self,
        fused: &Matrix,
        heads: Heads,
        rotary: &Rotary,
        segments: &[usize],
        _: Check<'_>,
    ) -> Result<Input> {
        let out = attention::segmented(self, fused, heads, rotary.angles(0)?, segments)?;
        Ok(Input::F32(Matrix::new(out, fused.rows(), heads.width())))
    }
}

/// The product with the first `rows` rows of the weights, or `y` and it added up.
fn multiply(gpu: &Gpu, x: &Input, weights: &Weights, rows: usize, y: SliceMut<'_, f32>, onto: bool) -> Result<()> {
    fn of<T: cuda::Element>(
        gpu: &Gpu,
        x: Slice<'_, T>,
        weights: &Array<T>,
        rows: usize,
        y: SliceMut<'_, f32>,
        onto: bool,
    ) -> Result<()> {
        let product = if onto { cuda::product_onto } else { cuda::product };
        Ok(product(gpu, x, weights.first(rows), weights.columns, y)?)
    }
    match (x, weights) {
        (Input::F32(x), Weights::F32(weights)) => of(gpu, x.all(), weights, rows, y, onto),
        (Input::F16(x), Weights::F16(weights)) => of(gpu, x.all(), weights, rows, y, onto),
        (Input::F32(x), Weights::F16(weights)) => {
            let mut narrow = Buffer::<f16>::working(gpu, x.all().len())?;
            cuda::convert(gpu, x.all(), narrow.all_mut())?;
            of(gpu, narrow.all(), weights, rows, y, onto)
        }
        (Input::F16(x), Weights::F32(weights)) => {
            let mut wide = Buffer::<f32>::working(gpu, x.all().len())?;
            cuda::convert(gpu, x.all(), wide.all_mut())?;
            of(gpu, wide.all(), weights, rows, y, onto)
        }
    }
}

impl Cuda {
    fn refusal(&self, reason: String) -> Error {
        Error::Device { device: self.device.clone(), reason }
    }
}
