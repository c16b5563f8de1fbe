//! Steps between the matrix products of a network. Contract: `cuda/network.cu`; twin: [`crate::reference::network`].
//!
//! Results in f16 and bf16 are those in f32, rounded to nearest even.

use super::args::{ChooseArgs, MapArgs, NormalizeArgs, Rows as Numbers, TakeArgs};
use super::memory::Upload;
use super::{Element, Geometry, Gpu, Plain, Result, Slice, SliceMut, blocks, count, require};
use crate::activation::Gate;

const THREADS: u32 = 256;

/// Rows up to this width are normalised by a warp, wider ones by a block.
const WARP_WIDTH: usize = 1024;

/// Element-wise functions by their Hugging Face names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `gelu`, with the error function.
    Gelu,
    /// `gelu_new`, with the approximation by tanh.
    GeluTanh,
    /// `quick_gelu`: `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `silu`: `x * sigmoid(x)`.
    Silu,
    Relu,
}

/// Whether `len` elements are as many as rows of `width` may have; how many rows.
fn rows_of(len: usize, width: usize, what: &str) -> Result<usize> {
    require(width > 0 && len.is_multiple_of(width), || format!("{len} {what} in rows of {width}"))?;
    Ok(len / width)
}

fn require_results(found: usize, n: usize, width: usize) -> Result<()> {
    require(found == n * width, || format!("{found} results of {n} rows of {width}"))
}

/// Whether `n` rows, so many elements apart, all start at multiples of four.
fn in_fours(n: usize, strides: &[usize]) -> bool {
    n == 1 || strides.iter().all(|stride| stride.is_multiple_of(4))
}

fn aligned<T: Element>(slice: Slice<'_, T>) -> bool {
    slice.aligned(4 * size_of::<T>())
}

fn aligned_mut<T: Element>(slice: &SliceMut<'_, T>) -> bool {
    slice.aligned(4 * size_of::<T>())
}

/// Root-mean-square normalisation of rows, Zhang and Sennrich 2019, arXiv 1910.07467: `x` and `out` are `[n, weight.len()]`,
/// `out = x / sqrt(mean(x^2) + eps) * weight`.
pub fn rms_norm<O: Element>(
    gpu: &Gpu,
    x: Slice<'_, f32>,
    weight: Slice<'_, f32>,
    eps: f32,
    out: SliceMut<'_, O>,
) -> Result<()> {
    normalise(gpu, x, weight, None, eps, out)
}

/// Layer normalisation of rows: `x` and `out` are `[n, weight.len()]`,
/// `out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`.
pub fn layer_norm<O: Element>(
    gpu: &Gpu,
    x: Slice<'_, f32>,
    weight: Slice<'_, f32>,
    bias: Slice<'_, f32>,
    eps: f32,
    out: SliceMut<'_, O>,
) -> Result<()> {
    normalise(gpu, x, weight, Some(bias), eps, out)
}

fn normalise<O: Element>(
    gpu: &Gpu,
    x: Slice<'_, f32>,
    weight: Slice<'_, f32>,
    bias: Option<Slice<'_, f32>>,
    eps: f32,
    out: SliceMut<'_, O>,
) -> Result<()> {
    let width = weight.len();
    let n = rows_of(x.len(), width, "elements")?;
    require(bias.is_none_or(|bias| bias.len() == width), || format!("{width} weights, and a bias of another width"))?;
    require(eps >= 0.0, || format!("an epsilon of {eps}"))?;
    require_results(out.len(), n, width)?;
    if n == 0 {
        return Ok(());
    }
    // A row of its own too: the kernel reads whole fours then.
    let vectors =
        width.is_multiple_of(4) && aligned(x) && aligned(weight) && bias.is_none_or(aligned) && aligned_mut(&out);
    let args = NormalizeArgs {
        x: x.address(),
        weight: weight.address(),
        bias: bias.map_or(0, |bias| bias.address()),
        out: out.address(),
        x_stride: width as u64,
        out_stride: width as u64,
        n: count(n, "rows")?,
        together: 1,
        width: count(width, "elements")?,
        eps,
        vectors: vectors.into(),
        unused: 0,
    };
    // SAFETY: lengths and alignment were checked above; the target is borrowed uniquely.
    unsafe { launch_norm::<O>(gpu, &args) }
}

/// # Safety
/// As [`super::Backend::launch`].
unsafe fn launch_norm<O: Element>(gpu: &Gpu, args: &NormalizeArgs) -> Result<()> {
    let name = if args.bias == 0 { "rms_norm" } else { "layer_norm" };
    let (team, grid, shared) = if args.width as usize <= WARP_WIDTH {
        (32, args.n.div_ceil(THREADS / 32), 0)
    } else {
        (256, args.n, THREADS / 32 * 4)
    };
    let kernel = format!("{name}_{}_t{team}", O::NAME);
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(&kernel, Geometry { grid: [grid, 1], threads: THREADS, shared }, args) }
}

/// Root-mean-square normalisation of the heads of wider rows: `x` and `out` are `[n, columns]`, each row first as many heads as each of
/// `parts` says, of as many elements as its weights, and then columns that are copied.
pub fn head_norms(
    gpu: &Gpu,
    x: Slice<'_, f32>,
    columns: usize,
    parts: &[(usize, Slice<'_, f32>)],
    eps: f32,
    out: SliceMut<'_, f32>,
) -> Result<()> {
    let n = rows_of(x.len(), columns, "elements")?;
    let normed: usize = parts.iter().map(|(heads, weight)| heads * weight.len()).sum();
    require(normed <= columns && parts.iter().all(|(_, weight)| !weight.is_empty()), || {
        format!("heads of {normed} elements in rows of {columns}")
    })?;
    require(eps >= 0.0, || format!("an epsilon of {eps}"))?;
    require_results(out.len(), n, columns)?;
    let fours = |lengths: &[usize]| lengths.iter().all(|length| length.is_multiple_of(4));
    let mut at = 0;
    for (heads, weight) in parts {
        let (width, offset) = (weight.len(), (at * size_of::<f32>()) as u64);
        let args = NormalizeArgs {
            x: x.address() + offset,
            weight: weight.address(),
            bias: 0,
            out: out.address() + offset,
            x_stride: columns as u64,
            out_stride: columns as u64,
            n: count(n * heads, "rows")?,
            together: count(*heads, "heads")?,
            width: count(width, "elements")?,
            eps,
            vectors: (fours(&[width, columns, at]) && aligned(x) && aligned(*weight) && aligned_mut(&out)).into(),
            unused: 0,
        };
        if args.n > 0 {
            // SAFETY: lengths and alignment were checked above; the target is borrowed uniquely.
            unsafe { launch_norm::<f32>(gpu, &args)? };
        }
        at += heads * width;
    }
    let offset = (at * size_of::<f32>()) as u64;
    let args = MapArgs {
        x: x.address() + offset,
        out: out.address() + offset,
        x_stride: columns as u64,
        out_stride: columns as u64,
        n: count(n, "rows")?,
        width: count(columns - at, "elements")?,
        vectors: (fours(&[columns, at]) && aligned(x) && aligned_mut(&out)).into(),
        ..MapArgs::default()
    };
    // SAFETY: as above.
    unsafe { map(gpu, "copy_f32_f32", &args) }
}

/// Launches a kernel over `args.n` rows of `args.width` elements.
///
/// # Safety
/// As [`super::Backend::launch`].
unsafe fn map(gpu: &Gpu, kernel: &str, args: &MapArgs) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { map_with(gpu, kernel, args, args) }
}

/// As [`map`], with an argument that `map` is part of.
///
/// # Safety
/// As [`super::Backend::launch`].
unsafe fn map_with<A: Plain>(gpu: &Gpu, kernel: &str, map: &MapArgs, args: &A) -> Result<()> {
    let fours = count(map.n as usize * map.width.div_ceil(4) as usize, "groups of four elements")?;
    if fours == 0 {
        return Ok(());
    }
    let grid = [blocks(gpu, fours, THREADS), 1];
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(kernel, Geometry { grid, threads: THREADS, shared: 0 }, args) }
}

impl Function {
    /// As `activated` of the kernels counts them.
    fn number(self) -> u32 {
        match self {
            Function::Gelu => 0,
            Function::GeluTanh => 1,
            Function::QuickGelu => 2,
            Function::Silu => 3,
            Function::Relu => 4,
        }
    }
}

/// `both` is `[n, 2 * width]`, gate and then up in every row; `out` is `[n, width]`, the function of the gate times up.
pub fn glu<O: Element>(gpu: &Gpu, both: Slice<'_, f32>, width: usize, gate: Gate, out: SliceMut<'_, O>) -> Result<()> {
    let function = match gate {
        Gate::Silu => Function::Silu,
        Gate::GeluTanh => Function::GeluTanh,
    };
    let n = rows_of(both.len(), 2 * width, "gates and ups")?;
    require_results(out.len(), n, width)?;
    let up = both.part(width.min(both.len())..both.len());
    let vectors = in_fours(n, &[width]) && aligned(both) && aligned(up) && aligned_mut(&out);
    let args = MapArgs {
        x: both.address(),
        y: up.address(),
        out: out.address(),
        x_stride: 2 * width as u64,
        y_stride: 2 * width as u64,
        out_stride: width as u64,
        n: count(n, "rows")?,
        width: count(width, "elements")?,
        function: function.number(),
        vectors: vectors.into(),
        ..MapArgs::default()
    };
    // SAFETY: lengths and alignment were checked above; the target is borrowed uniquely.
    unsafe { map(gpu, &format!("glu_{}", O::NAME), &args) }
}

/// `out = function(x)`, element by element.
pub fn activate<O: Element>(gpu: &Gpu, x: Slice<'_, f32>, function: Function, out: SliceMut<'_, O>) -> Result<()> {
    require(x.len() == out.len(), || format!("{} elements and {} results", x.len(), out.len()))?;
    let args = MapArgs {
        x: x.address(),
        out: out.address(),
        n: 1,
        width: count(x.len(), "elements")?,
        function: function.number(),
        vectors: (aligned(x) && aligned_mut(&out)).into(),
        ..MapArgs::default()
    };
    // SAFETY: as above.
    unsafe { map(gpu, &format!("activate_{}", O::NAME), &args) }
}

/// `x += y`, element by element.
pub fn add(gpu: &Gpu, x: SliceMut<'_, f32>, y: Slice<'_, f32>) -> Result<()> {
    require(x.len() == y.len(), || format!("{} elements and {} to add", x.len(), y.len()))?;
    if y.is_empty() { Ok(()) } else { add_bias(gpu, x, y) }
}

/// Adds `bias` to every row of `x`, `[n, bias.len()]`.
pub fn add_bias(gpu: &Gpu, x: SliceMut<'_, f32>, bias: Slice<'_, f32>) -> Result<()> {
    let width = bias.len();
    let n = rows_of(x.len(), width, "elements")?;
    let args = MapArgs {
        y: bias.address(),
        out: x.address(),
        out_stride: width as u64,
        n: count(n, "rows")?,
        width: count(width, "elements")?,
        vectors: (in_fours(n, &[width]) && aligned_mut(&x) && aligned(bias)).into(),
        ..MapArgs::default()
    };
    // SAFETY: as above.
    unsafe { map(gpu, "add", &args) }
}

/// `x *= factor`, element by element.
pub fn scale(gpu: &Gpu, x: SliceMut<'_, f32>, factor: f32) -> Result<()> {
    in_place(gpu, "scale", x, factor)
}

/// `x = cap * tanh(x / cap)`, element by element.
pub fn cap(gpu: &Gpu, x: SliceMut<'_, f32>, cap: f32) -> Result<()> {
    require(cap.is_normal() && cap > 0.0, || format!("a soft cap of {cap}"))?;
    in_place(gpu, "cap", x, cap)
}

fn in_place(gpu: &Gpu, kernel: &str, x: SliceMut<'_, f32>, factor: f32) -> Result<()> {
    let args = MapArgs {
        out: x.address(),
        n: 1,
        width: count(x.len(), "elements")?,
        vectors: aligned_mut(&x).into(),
        factor,
        ..MapArgs::default()
    };
    // SAFETY: length and alignment are those of the target, which is borrowed uniquely.
    unsafe { map(gpu, kernel, &args) }
}

/// Copies elements to another format, rounding to nearest even.
pub fn convert<I: Element, O: Element>(gpu: &Gpu, x: Slice<'_, I>, out: SliceMut<'_, O>) -> Result<()> {
    require(x.len() == out.len(), || format!("{} elements and {} results", x.len(), out.len()))?;
    let args = MapArgs {
        x: x.address(),
        out: out.address(),
        n: 1,
        width: count(x.len(), "elements")?,
        vectors: (aligned(x) && aligned_mut(&out)).into(),
        ..MapArgs::default()
    };
    // SAFETY: as above.
    unsafe { map(gpu, &format!("copy_{}_{}", I::NAME, O::NAME), &args) }
}

/// Copies row `rows[i]` of `table`, `[_, width]`, to row `i` of `out`, `[rows.len(), width]`.
pub fn take_rows<T: Element>(
    gpu: &Gpu,
    table: Slice<'_, T>,
    width: usize,
    rows: &[u32],
    out: SliceMut<'_, f32>,
) -> Result<()> {
    let there = rows_of(table.len(), width, "elements")?;
    if let Some(row) = rows.iter().find(|row| **row as usize >= there) {
        return require(false, || format!("row {row} of {there}"));
    }
    require_results(out.len(), rows.len(), width)?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut by = MapArgs {
        x: table.address(),
        out: out.address(),
        x_stride: width as u64,
        out_stride: width as u64,
        n: count(rows.len(), "rows")?,
        width: count(width, "elements")?,
        vectors: (in_fours(there.max(rows.len()), &[width]) && aligned(table) && aligned_mut(&out)).into(),
        ..MapArgs::default()
    };
    if rows.len() <= Numbers::MOST {
        let mut args = TakeArgs { map: by, ..TakeArgs::default() };
        args.rows.0[..rows.len()].copy_from_slice(rows);
        // SAFETY: lengths, rows and alignment were checked above; the target is borrowed uniquely.
        return unsafe { map_with(gpu, &format!("take_{}", T::NAME), &by, &args) };
    }
    let mut upload = Upload::new(gpu, Upload::room::<u32>(rows.len()))?;
    by.rows = upload.add(rows);
    let _sent = upload.send()?;
    // SAFETY: as above.
    unsafe { map(gpu, &format!("copy_{}_f32", T::NAME), &by) }
}

/// Of every row of `x`, `[n, width]`, the index of the greatest number (the lowest of equals, 0 where none is above minus infinity), and
/// whether one is NaN or infinite: pairs in `out`, `[n, 2]`.
pub fn choose(gpu: &Gpu, x: Slice<'_, f32>, width: usize, out: SliceMut<'_, u32>) -> Result<()> {
    let n = rows_of(x.len(), width, "elements")?;
    require_results(out.len(), n, 2)?;
    if n == 0 {
        return Ok(());
    }
    let args = ChooseArgs {
        x: x.address(),
        out: out.address(),
        x_stride: width as u64,
        n: count(n, "rows")?,
        width: count(width, "elements")?,
    };
    let geometry = Geometry { grid: [args.n, 1], threads: THREADS, shared: THREADS / 32 * 12 };
    // SAFETY: lengths were checked above; the target is borrowed uniquely.
    unsafe { gpu.launch("choose", geometry, &args) }
}

/// Copies `x`, `[n, width]`, to the columns `column .. column + width` of `out`, `[n, out_width]`.
pub fn place_columns(
    gpu: &Gpu,
    x: Slice<'_, f32>,
    width: usize,
    out: SliceMut<'_, f32>,
    out_width: usize,
    column: usize,
) -> Result<()> {
    let n = rows_of(x.len(), width, "elements")?;
    require(column.checked_add(width).is_some_and(|end| end <= out_width), || {
        format!("columns {column}+{width} of {out_width}")
    })?;
    require_results(out.len(), n, out_width)?;
    let to = out.part(column.min(n * out_width)..n * out_width);
    let args = MapArgs {
        x: x.address(),
        out: to.address(),
        x_stride: width as u64,
        out_stride: out_width as u64,
        n: count(n, "rows")?,
        width: count(width, "elements")?,
        vectors: (in_fours(n, &[width, out_width]) && aligned(x) && aligned_mut(&to)).into(),
        ..MapArgs::default()
    };
    // SAFETY: as above.
    unsafe { map(gpu, "copy_f32_f32", &args) }
}
