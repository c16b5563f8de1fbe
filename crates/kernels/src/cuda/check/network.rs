//! network.cu beside its twins: copies, sums and conversions to the bit.
//!
//! Norms and activations are f32 on the device and f64 in the twin. A norm adds up to 11008 numbers in f32, at most 43 of them one after another:
//! 1e-5 of each result; where the mean is taken off, 2e-5 of the largest, because the mean of numbers near 30 is off by 2e-6 and more. An
//! activation is off by a few units in the last place times the exponent, at most 20 here: 1e-5 of each. Results in f16 and bf16 are off by
//! what rounding costs as well.

use half::{bf16, f16};

use super::numbers::{Format, exact, narrowed, noise, of_each, of_largest, widened};
use super::{Case, Check};
use crate::activation::{self, Gate};
use crate::cuda::{self, Buffer, Error, Function, Gpu, Result, SliceMut};
use crate::reference::network as twin;

pub(super) fn all(check: &mut Check<'_>) {
    formats::<f32>(check);
    formats::<f16>(check);
    formats::<bf16>(check);
    check.kernel("add".into(), 0.0, &rows(), sums);
    check.kernel("add_bias".into(), 0.0, &rows(), biases);
    check.kernel("choose".into(), 0.0, &rows(), choices);
    check.kernel("place_columns".into(), 0.0, &rows(), places);
    check.kernel("scale".into(), 0.0, &rows(), scales);
    check.kernel("cap".into(), 1e-5, &rows(), caps);
}

fn formats<T: Format>(check: &mut Check<'_>) {
    let name = |kernel: &str| format!("{kernel} {}", T::NAME);
    check.kernel(name("rms_norm"), 1e-5 + T::ROUNDING, &rows(), rms_norms::<T>);
    check.kernel(name("layer_norm"), 2e-5 + T::ROUNDING, &rows(), layer_norms::<T>);
    check.kernel(name("swiglu"), 1e-5 + T::ROUNDING, &rows(), |gpu, case| gates::<T>(gpu, case, Gate::Silu));
    check.kernel(name("geglu"), 1e-5 + T::ROUNDING, &rows(), |gpu, case| gates::<T>(gpu, case, Gate::GeluTanh));
    check.kernel(name("activate"), 1e-5 + T::ROUNDING, &activations(), activates::<T>);
    check.kernel(name("take_rows"), 0.0, &rows(), takes::<T>);
    check.kernel(format!("convert {} to f32", T::NAME), 0.0, &lengths(), converts::<T, f32>);
    check.kernel(format!("convert {} to f16", T::NAME), 0.0, &lengths(), converts::<T, f16>);
    check.kernel(format!("convert {} to bf16", T::NAME), 0.0, &lengths(), converts::<T, bf16>);
}

/// Rows of elements that begin so many elements behind an aligned address, on the way in and on the way out.
#[derive(Clone, Copy, Debug)]
struct Rows {
    n: usize,
    width: usize,
    shift: usize,
    out_shift: usize,
}

impl Case for Rows {
    fn work(&self) -> usize {
        self.n * self.width
    }
}

/// Widths at and around those at which vectors, warps and blocks change, and those of a 7B model; one row and many.
fn rows() -> Vec<Rows> {
    let few = [8, 33, 1024, 1025, 4096, 11_008].into_iter().flat_map(|width| {
        [(1, 0, 0), (7, 0, 0), (3, 1, 0), (2, 0, 3)].map(|(n, shift, out_shift)| Rows { n, width, shift, out_shift })
    });
    let many = [(2000, 8), (601, 33), (577, 1024), (64, 4096), (16, 11_008)];
    few.chain(many.map(|(n, width)| Rows { n, width, shift: 0, out_shift: 0 })).collect()
}

/// `numbers` on the device, `shift` elements from an aligned address.
fn upload<T: Format>(gpu: &Gpu, numbers: &[T], shift: usize) -> Result<Buffer<T>> {
    let all: Vec<T> = std::iter::repeat_n(T::narrow(f32::NAN), shift).chain(numbers.iter().copied()).collect();
    Buffer::from_slice(gpu, &all)
}

/// Elements behind a result.
const BEHIND: usize = 5;

/// What `run` makes of elements that are `before`, `shift` elements from an aligned address; those around them must stay.
fn written<T: Format>(
    gpu: &Gpu,
    before: &[T],
    shift: usize,
    run: impl FnOnce(SliceMut<'_, T>) -> Result<()>,
) -> Result<Vec<T>> {
    let (around, end) = (T::narrow(9.0), shift + before.len());
    let mut all = vec![around; end + BEHIND];
    all[shift..end].copy_from_slice(before);
    let mut on_device = Buffer::from_slice(gpu, &all)?;
    run(on_device.all_mut().part(shift..end))?;
    let mut all = on_device.read()?;
    if all[..shift].iter().chain(&all[end..]).any(|x| *x != around) {
        return Err(Error::Driver("what lies around the result was written".into()));
    }
    all.truncate(end);
    Ok(all.split_off(shift))
}

/// The same of elements that hold nothing.
fn result<T: Format>(
    gpu: &Gpu,
    n: usize,
    shift: usize,
    run: impl FnOnce(SliceMut<'_, T>) -> Result<()>,
) -> Result<Vec<T>> {
    written(gpu, &vec![T::narrow(9.0); n], shift, run)
}

const EPS: f32 = 1e-5;

fn rms_norms<O: Format>(gpu: &Gpu, case: &Rows) -> Result<f64> {
    let Rows { n, width, shift, out_shift } = *case;
    let x: Vec<f32> = noise(1, n * width).iter().map(|x| x + 0.1).collect();
    let weight: Vec<f32> = noise(2, width).iter().map(|x| x + 1.5).collect();
    let (on_device, weights) = (upload(gpu, &x, shift)?, upload(gpu, &weight, shift)?);
    let (from, weights) = (on_device.slice(shift..on_device.len()), weights.slice(shift..weights.len()));
    let got = result::<O>(gpu, x.len(), out_shift, |out| cuda::rms_norm(gpu, from, weights, EPS, out))?;
    Ok(of_each(&got, &twin::rms_norm(&x, &weight, EPS)))
}

fn layer_norms<O: Format>(gpu: &Gpu, case: &Rows) -> Result<f64> {
    let Rows { n, width, shift, out_shift } = *case;
    // Far from 0, where squares of what is not centred lose digits.
    let x: Vec<f32> = noise(1, n * width).iter().map(|x| x + 30.0).collect();
    let weight: Vec<f32> = noise(2, width).iter().map(|x| x + 1.5).collect();
    let bias = noise(3, width);
    let (on_device, weights, biases) =
        (upload(gpu, &x, shift)?, upload(gpu, &weight, shift)?, upload(gpu, &bias, shift)?);
    let (from, end) = (on_device.slice(shift..on_device.len()), weights.len());
    let (weights, biases) = (weights.slice(shift..end), biases.slice(shift..end));
    let got = result::<O>(gpu, x.len(), out_shift, |out| cuda::layer_norm(gpu, from, weights, biases, EPS, out))?;
    let want: Vec<f32> = twin::layer_norm(&x, &weight, &bias, EPS).iter().map(|x| *x as f32).collect();
    Ok(of_largest(&widened(&got), &want))
}

fn gates<O: Format>(gpu: &Gpu, case: &Rows, gate: Gate) -> Result<f64> {
    let Rows { n, width, shift, out_shift } = *case;
    let both: Vec<f32> = noise(1, 2 * n * width).iter().map(|x| 12.0 * x).collect();
    let on_device = upload(gpu, &both, shift)?;
    let from = on_device.slice(shift..on_device.len());
    let got = result::<O>(gpu, n * width, out_shift, |out| cuda::glu(gpu, from, width, gate, out))?;
    let mut cpu = vec![f32::NAN; n * width];
    activation::glu(&both, width, gate, &mut cpu);
    Ok(f64::max(of_each(&got, &twin::glu(&both, width, gate)), of_each(&got, &wide(&cpu))))
}

#[derive(Clone, Copy, Debug)]
struct Activation {
    function: Function,
    n: usize,
    shift: usize,
    out_shift: usize,
}

impl Case for Activation {
    fn work(&self) -> usize {
        self.n
    }
}

const FUNCTIONS: [Function; 5] =
    [Function::Gelu, Function::GeluTanh, Function::QuickGelu, Function::Silu, Function::Relu];

fn twin_of(function: Function) -> fn(f64) -> f64 {
    match function {
        Function::Gelu => twin::gelu,
        Function::GeluTanh => twin::gelu_tanh,
        Function::QuickGelu => twin::quick_gelu,
        Function::Silu => twin::silu,
        Function::Relu => twin::relu,
    }
}

fn activations() -> Vec<Activation> {
    let of = |(n, shift, out_shift)| FUNCTIONS.map(|function| Activation { function, n, shift, out_shift });
    [(1, 0, 0), (33, 1, 0), (1024, 0, 0), (4098, 0, 3), (577 * 4096, 0, 0)].into_iter().flat_map(of).collect()
}

fn activates<O: Format>(gpu: &Gpu, case: &Activation) -> Result<f64> {
    let Activation { function, n, shift, out_shift } = *case;
    let mut x: Vec<f32> = noise(1, n).iter().map(|x| 5.0 * x).collect();
    // The edges, where there is room for them.
    x.iter_mut().skip(3).zip([0.0, -0.0, 1e-30, -1e-30, 12.0, 100.0, -100.0, -1e4]).for_each(|(x, edge)| *x = edge);
    let on_device = upload(gpu, &x, shift)?;
    let from = on_device.slice(shift..on_device.len());
    let got = result::<O>(gpu, n, out_shift, |out| cuda::activate(gpu, from, function, out))?;
    let twin = twin_of(function);
    let off = of_each(&got, &x.iter().map(|x| twin(f64::from(*x))).collect::<Vec<_>>());
    if function != Function::QuickGelu {
        return Ok(off);
    }
    activation::quick_gelu(&mut x);
    Ok(f64::max(off, of_each(&got, &wide(&x))))
}

fn sums(gpu: &Gpu, case: &Rows) -> Result<f64> {
    let Rows { n, width, shift, out_shift } = *case;
    let (x, y) = (noise(1, n * width), noise(2, n * width));
    let on_device = upload(gpu, &y, shift)?;
    let from = on_device.slice(shift..on_device.len());
    let got = written(gpu, &x, out_shift, |to| cuda::add(gpu, to, from))?;
    Ok(exact(&got, &x.iter().zip(&y).map(|(x, y)| x + y).collect::<Vec<_>>()))
}

fn biases(gpu: &Gpu, case: &Rows) -> Result<f64> {
    let Rows { n, width, shift, out_shift } = *case;
    let (x, bias) = (noise(1, n * width), noise(2, width));
    let on_device = upload(gpu, &bias, shift)?;
    let from = on_device.slice(shift..on_device.len());
    let got = written(gpu, &x, out_shift, |to| cuda::add_bias(gpu, to, from))?;
    Ok(exact(&got, &x.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect::<Vec<_>>()))
}

fn scales(gpu: &Gpu, case: &Rows) -> Result<f64> {
    const FACTOR: f32 = 50.5;
    let mut x = noise(1, case.n * case.width);
    let got = written(gpu, &x, case.out_shift, |to| cuda::scale(gpu, to, FACTOR))?;
    activation::scale(&mut x, FACTOR);
    Ok(exact(&got, &x))
}

fn caps(gpu: &Gpu, case: &Rows) -> Result<f64> {
    const CAP: f32 = 30.0;
    let mut x: Vec<f32> = noise(1, case.n * case.width).iter().map(|x| 200.0 * x).collect();
    let got = written(gpu, &x, case.out_shift, |to| cuda::cap(gpu, to, CAP))?;
    let off = of_each(&got, &x.iter().map(|x| twin::cap(f64::from(*x), f64::from(CAP))).collect::<Vec<_>>());
    activation::cap(&mut x, CAP);
    Ok(f64::max(off, of_each(&got, &wide(&x))))
}

/// As many rows of a table as it has, in another order and some twice.
fn takes<T: Format>(gpu: &Gpu, case: &Rows) -> Result<f64> {
    let Rows { n, width, shift, out_shift } = *case;
    let table = narrowed::<T>(&noise(1, n * width));
    let rows: Vec<u32> = (0..n).map(|row| ((row * 7919 + 3) % n) as u32 & !1).collect();
    let on_device = upload(gpu, &table, shift)?;
    let from = on_device.slice(shift..on_device.len());
    let got = result::<f32>(gpu, n * width, out_shift, |out| cuda::take_rows(gpu, from, width, &rows, out))?;
    let row = |row: &u32| widened(&table[*row as usize * width..][..width]);
    Ok(exact(&got, &rows.iter().flat_map(row).collect::<Vec<_>>()))
}

/// Rows with equal numbers, and every fourth with one that is none.
fn choices(gpu: &Gpu, case: &Rows) -> Result<f64> {
    let Rows { n, width, shift, out_shift } = *case;
    let mut x: Vec<f32> = noise(1, n * width).iter().map(|x| (x * 16.0).round()).collect();
    for (row, x) in x.chunks_exact_mut(width).enumerate().filter(|(row, _)| row % 4 == 3) {
        x[row * 7919 % width] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][row / 4 % 3];
    }
    let on_device = upload(gpu, &x, shift)?;
    let from = on_device.slice(shift..on_device.len());
    let mut out = Buffer::<u32>::new(gpu, out_shift + 2 * n)?;
    cuda::choose(gpu, from, width, out.all_mut().split_at(out_shift).1)?;
    let mut got = vec![0; 2 * n];
    out.read_at(out_shift, &mut got)?;
    let want = x.chunks_exact(width).flat_map(|row| {
        let most = row.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
        let index = row.iter().position(|x| *x == most).unwrap_or(0);
        [index as u32, u32::from(row.iter().any(|x| !x.is_finite()))]
    });
    Ok(if got.into_iter().eq(want) { 0.0 } else { f64::INFINITY })
}

/// Between columns that must stay.
fn places(gpu: &Gpu, case: &Rows) -> Result<f64> {
    let Rows { n, width, shift, out_shift } = *case;
    let (column, out_width) = if shift + out_shift == 0 { (4, width + 8) } else { (3, width + 4) };
    let (x, mut want) = (noise(1, n * width), noise(2, n * out_width));
    let on_device = upload(gpu, &x, shift)?;
    let from = on_device.slice(shift..on_device.len());
    let got = written(gpu, &want, out_shift, |out| cuda::place_columns(gpu, from, width, out, out_width, column))?;
    for (to, from) in want.chunks_exact_mut(out_width).zip(x.chunks_exact(width)) {
        to[column..column + width].copy_from_slice(from);
    }
    Ok(exact(&got, &want))
}

/// Elements in a row, and where they begin.
#[derive(Clone, Copy, Debug)]
struct Length {
    n: usize,
    shift: usize,
    out_shift: usize,
}

impl Case for Length {
    fn work(&self) -> usize {
        self.n
    }
}

fn lengths() -> Vec<Length> {
    [(1, 0, 0), (33, 1, 0), (1023, 0, 1), (4097, 2, 2), (1 << 16, 0, 0), (18 << 16, 0, 0)]
        .map(|(n, shift, out_shift)| Length { n, shift, out_shift })
        .into()
}

/// Numbers of both half formats, and those of f32 at and around the middle between two of them; 18 * 65536 are all there are.
fn tricky(n: usize) -> Vec<f32> {
    const STEPS: [i64; 9] = [0, -1, 1, 4095, 4096, 4097, 32_767, 32_768, 32_769];
    let number = |i: usize| {
        let (bits, kind) = ((i * 40_503) as u16, ((i >> 16) + i) % 18);
        let x = if kind < 9 { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() };
        let x = f32::from_bits((i64::from(x.to_bits()) + STEPS[kind % 9]) as u32);
        // NaN is equal to nothing.
        if x.is_nan() { 65_520.0 } else { x }
    };
    (0..n).map(number).collect()
}

fn converts<I: Format, O: Format>(gpu: &Gpu, case: &Length) -> Result<f64> {
    let Length { n, shift, out_shift } = *case;
    let x = narrowed::<I>(&tricky(n));
    let on_device = upload(gpu, &x, shift)?;
    let from = on_device.slice(shift..on_device.len());
    let got = result::<O>(gpu, n, out_shift, |out| cuda::convert(gpu, from, out))?;
    Ok(exact(&got, &narrowed::<O>(&widened(&x))))
}

fn wide(from: &[f32]) -> Vec<f64> {
    from.iter().map(|x| f64::from(*x)).collect()
}
