//! The means with which a model computes: one folder per kind of device.
//!
//! Layers ([`crate::nn`]) and models are written once, over a [`Backend`]. Which one it is, is decided where a model is loaded and
//! nowhere else.

mod activation;
pub mod cpu;
pub mod cuda;
mod heads;
mod kind;

use std::fmt::Debug;
use std::ops::Range;

pub use activation::Activation;
pub use heads::Heads;
pub use kind::LayerKind;
use prefixkv_kernels::activation::Gate;
use prefixkv_kernels::rotary::{Frequencies, Phase};

use crate::cache::Memory;
use crate::check::Check;
use crate::device::DeviceMemory;
use crate::error::Result;
use crate::fields::refuse;
use crate::sequence::Pass;
use crate::weights::{Tensors, WeightFormat};

/// A kind of device that models run on, and a handle to one.
///
/// Activations, weights and caches are types of the back end, so that those of two never meet:
///
/// ```
/// # use prefixkv_core::{Result, backend::Backend, cache::Pool, model::Model, nn::{Input, Linear, Matrix}, sequence::Sequence};
/// fn pool<B: Backend>(model: &Model<B>) -> &Pool<B::Memory> {
///     model.pool()
/// }
/// fn product<B: Backend>(layer: &Linear<B>, x: &Input<B>) -> Result<Matrix<B>> {
///     layer.forward(x)
/// }
/// fn step<B: Backend>(model: &Model<B>, sequence: &mut Sequence<B::Memory>) -> Result<Vec<f32>> {
///     model.decode(7, sequence)
/// }
/// ```
///
/// A model on a GPU has no pool on the CPU,
///
/// ```compile_fail,E0308
/// # use prefixkv_core::{cache::Pool, device::Cuda, model::Model};
/// fn pool(model: &Model<Cuda>) -> &Pool {
///     model.pool()
/// }
/// ```
///
/// a layer on the CPU takes no rows that lie on a GPU,
///
/// ```compile_fail,E0308
/// # use prefixkv_core::{Result, device::{Cpu, Cuda}, nn::{Input, Linear, Matrix}};
/// fn product(layer: &Linear<Cpu>, x: &Input<Cuda>) -> Result<Matrix<Cpu>> {
///     layer.forward(x)
/// }
/// ```
///
/// and a sequence goes only through a model that lies where it does.
///
/// ```compile_fail,E0308
/// # use prefixkv_core::{Result, device::Cuda, model::Model, sequence::Sequence};
/// fn step(model: &Model<Cuda>, sequence: &mut Sequence) -> Result<Vec<f32>> {
///     model.decode(7, sequence)
/// }
/// ```
pub trait Backend: Clone + Debug + Send + Sync + 'static {
    /// Where the caches of its models lie.
    type Memory: Memory;
    /// Rows of activations in f32.
    type Matrix: Activations;
    /// Rows of activations as a product takes them: what is rounded, is rounded by whatever computes them.
    type Input: Debug + Send + Sync;
    /// The weights of a linear layer, `[rows, columns]`.
    type Weights: Held;
    /// A matrix from which rows are taken.
    type Table: Send + Sync;
    /// f32 parameters of one dimension.
    type Vector: Send + Sync;
    /// The rotations of rows: of the positions that one pass through the layers adds, or of the patches of an image.
    type Rotary;

    /// Rows of a prompt that go through an MLP at a time, which bounds its widest buffer.
    const MLP_ROWS: usize;

    /// As [`crate::device::Device`] names it: `cpu`, `cuda:0`.
    fn name(&self) -> &str;

    /// Where the entries of caches are.
    fn memory(&self) -> Self::Memory;

    /// The device's own count of its memory.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the device does not answer.
    fn device_memory(&self) -> Result<DeviceMemory>;

    /// Bytes that can be had without others giving some up; None where that is not known.
    fn available(&self) -> Result<Option<u64>>;

    /// Gives memory that nothing uses any more back to the device.
    fn trim(&self) -> Result<()>;

    /// The back end for a model whose weights are held as `format`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when it computes with no such weights.
    fn with_weights(self, format: WeightFormat) -> Result<Self>;

    /// Choices that take less memory than weights in `format`.
    fn advice(&self, format: WeightFormat) -> &'static str;

    /// Refuses heads that attention cannot read, with [`Error::Device`](crate::Error::Device).
    fn require_heads(&self, heads: Heads) -> Result<()>;

    /// Activations of `rows * columns` elements.
    fn matrix(&self, data: Vec<f32>, rows: usize, columns: usize) -> Result<Self::Matrix>;

    fn vector(&self, data: Vec<f32>) -> Result<Self::Vector>;

    /// The rows of `tensors` as the weights of a linear layer.
    fn weights(&self, tensors: &Tensors<'_>, rows: usize, columns: usize) -> Result<Self::Weights>;

    /// The rows of `tensors` as a table: f32 beside f32 weights, those of a GGUF file as it has them, else f16.
    fn table(&self, tensors: &Tensors<'_>, rows: usize, columns: usize) -> Result<Self::Table>;

    /// Bytes that a table takes.
    fn table_bytes(&self, table: &Self::Table) -> u64;

    /// A table as weights of `format`, in the same memory; None where they are to be read from the file again.
    fn tied(&self, table: &Self::Table, format: WeightFormat) -> Option<Self::Weights>;

    /// Some rows of a table. A number past the table takes its last row.
    fn rows(&self, table: &Self::Table, numbers: &[u32]) -> Result<Self::Matrix>;

    /// Rows that a product takes as they are.
    fn input(&self, x: &Self::Matrix) -> Self::Input;

    /// `x W^T + b` with the first `rows` rows of `weights` and numbers of `bias`: `x` is `[n, columns]`, the result `[n, rows]`. The others
    /// are not read.
    fn linear(
        &self,
        x: &Self::Input,
        weights: &Self::Weights,
        bias: Option<&Self::Vector>,
        rows: usize,
    ) -> Result<Self::Matrix>;

    /// The sum of `onto` and [`Backend::linear`], in place if nothing else shares the memory of `onto`.
    fn linear_onto(
        &self,
        x: &Self::Input,
        weights: &Self::Weights,
        bias: Option<&Self::Vector>,
        onto: Self::Matrix,
    ) -> Result<Self::Matrix> {
        onto.plus(&self.linear(x, weights, bias, weights.rows())?)
    }

    /// Where rows are far from the host: of each of them the index of the greatest number, the lowest of equals, or None if one of its numbers
    /// is NaN or infinite.
    fn greatest(&self, rows: &Self::Matrix) -> Result<Option<Vec<Option<u32>>>> {
        let _ = rows;
        Ok(None)
    }

    /// Root-mean-square normalisation of rows.
    fn rms_norm(&self, x: &Self::Matrix, weight: &Self::Vector, eps: f32) -> Result<Self::Input>;

    /// [`Backend::rms_norm`] for more than a product.
    fn rms_norm_rows(&self, x: &Self::Matrix, weight: &Self::Vector, eps: f32) -> Result<Self::Matrix>;

    /// Mean and variance normalisation of rows.
    fn layer_norm(&self, x: &Self::Matrix, weight: &Self::Vector, bias: &Self::Vector, eps: f32)
    -> Result<Self::Input>;

    /// [`Backend::layer_norm`] for more than a product.
    fn layer_norm_rows(
        &self,
        x: &Self::Matrix,
        weight: &Self::Vector,
        bias: &Self::Vector,
        eps: f32,
    ) -> Result<Self::Matrix>;

    /// An activation, element by element.
    fn activate(&self, x: &Self::Matrix, activation: Activation) -> Result<Self::Input>;

    /// `both` is `[n, 2 * width]`, gate and up side by side; the result is `[n, width]`, the function of the gate times up.
    fn glu(&self, both: &Self::Matrix, gate: Gate) -> Result<Self::Input>;

    /// Root-mean-square normalisation of the heads of fused rows: of each of `parts` in turn as many as it says, as wide as its weights.
    /// The columns behind them stay as they are.
    fn head_norms(&self, fused: &Self::Matrix, parts: &[(usize, &Self::Vector)], eps: f32) -> Result<Self::Matrix>;

    /// For the `rows` rows of `pass`, by each of a model's rotary embeddings, and the plan for `kinds`, its layers, where a back end makes one.
    /// A step that is planned has its new entries counted in all layers; a sequence that finds no room for one has failed.
    fn rotary(
        &self,
        variants: &[Frequencies],
        kinds: &[LayerKind],
        pass: &mut Pass<'_, '_, Self::Memory>,
        rows: usize,
    ) -> Result<Self::Rotary>;

    /// Stores the new keys and values in the lanes that the sequences have of a layer, and attends to all that is kept and that a query
    /// sees.
    ///
    /// `fused` is `[n, kind.fused()]`, the projections of the rows of `pass`; the result is `[n, heads.width()]`. On the CPU `check`
    /// is asked between blocks of a prompt's queries, and its error ends the work in the middle of the layer.
    fn causal(
        &self,
        fused: &Self::Matrix,
        kind: &LayerKind,
        rotary: &Self::Rotary,
        pass: &mut Pass<'_, '_, Self::Memory>,
        check: Check<'_>,
    ) -> Result<Self::Input>;

    /// Attention of every row to every row, without positions and without a cache: image towers.
    ///
    /// `fused` is `[n, heads.fused()]`, the result `[n, heads.width()]`.
    fn bidirectional(&self, fused: &Self::Matrix, heads: Heads) -> Result<Self::Input>;

    /// For rows that lie at `phases`, in no cache.
    fn rotary_at(&self, frequencies: &Frequencies, phases: &[Phase]) -> Result<Self::Rotary>;

    /// As [`Backend::bidirectional`], of rows whose queries and keys are first turned by `rotary`, and that attend within their segment
    /// alone: `segments` are the lengths of runs that follow each other and are all rows. On the CPU `check` is asked between blocks of
    /// queries, and its error ends the work.
    fn segmented(
        &self,
        fused: &Self::Matrix,
        heads: Heads,
        rotary: &Self::Rotary,
        segments: &[usize],
        check: Check<'_>,
    ) -> Result<Self::Input>;
}

/// Rows of activations in f32, `[rows, columns]`. Clones share their memory.
pub trait Activations: Clone + Debug + Send + Sync {
    fn rows(&self) -> usize;

    fn columns(&self) -> usize;

    /// The elements, row by row.
    fn to_vec(&self) -> Result<Vec<f32>>;

    /// The largest magnitude in each row.
    fn row_peaks(&self) -> Result<Vec<f32>> {
        let largest = |row: &[f32]| row.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        Ok(self.to_vec()?.chunks_exact(self.columns().max(1)).map(largest).collect())
    }

    /// The mean magnitude in each column; zeros where there is no row.
    fn column_magnitudes(&self) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; self.columns()];
        for row in self.to_vec()?.chunks_exact(self.columns().max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(x.abs()));
        }
        let rows = self.rows().max(1) as f64;
        sums.iter_mut().for_each(|sum| *sum /= rows);
        Ok(sums)
    }

    /// The sum of two matrices of one shape, in place if nothing else shares the memory of this one.
    fn plus(self, other: &Self) -> Result<Self>;

    /// The same elements, row by row, in rows of another width; as many as before.
    fn reshaped(self, rows: usize, columns: usize) -> Result<Self>;

    /// `factor * x` of every element, in place if nothing else shares the memory.
    fn times(self, factor: f32) -> Result<Self>;

    /// `cap * tanh(x / cap)` of every element, in place if nothing else shares the memory.
    fn capped(self, cap: f32) -> Result<Self>;

    /// The rows `start .. start + len`.
    fn narrow(&self, start: usize, len: usize) -> Result<Self>;

    /// The rows of `parts`, at least one, one below the other.
    fn cat(parts: &[Self]) -> Result<Self>;

    /// The rows `numbers`, at least one, ascending.
    fn select(&self, numbers: &[usize]) -> Result<Self> {
        let runs = numbers.chunk_by(|a, b| a + 1 == *b);
        let parts = runs.map(|run| self.narrow(run[0], run.len())).collect::<Result<Vec<Self>>>()?;
        Self::cat(&parts)
    }

    /// The columns of `parts`, at least one, one beside the other.
    fn cat_columns(parts: &[Self]) -> Result<Self>;
}

/// Weights in memory, in blocks or plain.
pub trait Held: Send + Sync {
    /// The format that they are really held in.
    fn format(&self) -> WeightFormat;

    /// The names of the formats of its parts, of which there is more than one only where a GGUF file has them.
    fn formats(&self) -> Vec<&'static str> {
        vec![self.format().name()]
    }

    fn rows(&self) -> usize;

    fn bytes(&self) -> u64;

    /// The numbers of some rows, `[rows, columns]`, as products read them. Refuses weights that are not read back.
    fn read(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let _ = rows;
        Err(refuse(
            "a method that reads the weights of the model runs on the CPU alone; use another method, or the CPU",
        ))
    }
}
