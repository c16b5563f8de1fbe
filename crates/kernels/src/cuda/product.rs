//! Products of activations and weights, which the device's own library computes.

use super::{Element, Gpu, Result, Slice, SliceMut, require};

/// How the factors of a product are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    F32,
    F16,
    Bf16,
}

/// `y = x W^T`, or `y += x W^T`, row by row: `x` is `[n, columns]`, `weight` `[rows, columns]`, `y` `[n, rows]` in f32.
#[derive(Clone, Copy, Debug)]
pub struct Multiply {
    pub x: u64,
    pub weight: u64,
    pub y: u64,
    pub n: usize,
    pub rows: usize,
    pub columns: usize,
    /// Of `x` and `weight`; sums are f32.
    pub number: Number,
    /// Whether the product is added to what is in `y`.
    pub onto: bool,
}

/// `x` is `[n, columns]`, `weight` `[rows, columns]`, `y` `[n, rows]`: `y = x W^T`, added up in f32.
pub fn product<T: Element>(
    gpu: &Gpu,
    x: Slice<'_, T>,
    weight: Slice<'_, T>,
    columns: usize,
    y: SliceMut<'_, f32>,
) -> Result<()> {
    multiply(gpu, x, weight, columns, y, false)
}

/// As [`product`], added to what is in `y`: `y += x W^T`.
pub fn product_onto<T: Element>(
    gpu: &Gpu,
    x: Slice<'_, T>,
    weight: Slice<'_, T>,
    columns: usize,
    y: SliceMut<'_, f32>,
) -> Result<()> {
    multiply(gpu, x, weight, columns, y, true)
}

fn multiply<T: Element>(
    gpu: &Gpu,
    x: Slice<'_, T>,
    weight: Slice<'_, T>,
    columns: usize,
    y: SliceMut<'_, f32>,
    onto: bool,
) -> Result<()> {
    require(columns > 0 && x.len().is_multiple_of(columns) && weight.len().is_multiple_of(columns), || {
        format!("{} activations and {} weights in rows of {columns}", x.len(), weight.len())
    })?;
    let (n, rows) = (x.len() / columns, weight.len() / columns);
    require(y.len() == n * rows, || format!("{} results of {n} x {rows}", y.len()))?;
    if y.is_empty() {
        return Ok(());
    }
    let (x, weight, y) = (x.address(), weight.address(), y.address());
    // SAFETY: sizes were checked above; slices are aligned to their elements, and `y` is borrowed uniquely.
    unsafe { gpu.product(&Multiply { x, weight, y, n, rows, columns, number: T::NUMBER, onto }) }
}
