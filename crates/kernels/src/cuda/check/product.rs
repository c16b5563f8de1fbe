//! Matrix products beside sums in f64, in parts of the sum of the absolute products: what f32 arithmetic may be off by does not grow
//! with what cancels out. f32 allows 5e-6, which arithmetic in TF32 or half precision does not reach; sums of tensor cores, which do not
//! round to the nearest, get 2e-5.

use half::{bf16, f16};

use super::numbers::{Format, furthest, narrowed, noise, twice, widened};
use super::{Case as OfKernel, Check};
use crate::cuda::{self, Buffer, Gpu, Result};

pub(super) fn all(check: &mut Check<'_>) {
    formats::<f32>(check, 5e-6);
    formats::<f16>(check, 2e-5);
    formats::<bf16>(check, 2e-5);
}

#[derive(Debug)]
struct Case {
    n: usize,
    rows: usize,
    columns: usize,
}

impl OfKernel for Case {
    fn work(&self) -> usize {
        self.n * self.rows * self.columns
    }
}

fn formats<T: Format>(check: &mut Check<'_>, tolerance: f64) {
    let case = |(n, rows, columns)| Case { n, rows, columns };
    // One row as decoding has them, a batch, a prompt; widths that fill no vector; long sums.
    let cases = [
        (1, 1, 1),
        (1, 4096, 64),
        (1, 33, 4096),
        (2, 3, 7),
        (3, 130, 24),
        (8, 512, 129),
        (16, 100, 1024),
        (17, 257, 63),
        (64, 128, 64),
        (65, 129, 65),
        (128, 256, 128),
        (577, 64, 100),
    ]
    .map(case);
    check.kernel(format!("product {}", T::NAME), tolerance, &cases, products::<T>);
    check.kernel(format!("product {} added", T::NAME), tolerance, &cases, added::<T>);
}

fn products<T: Format>(gpu: &Gpu, case: &Case) -> Result<f64> {
    let Case { n, rows, columns } = *case;
    let (x, weight) = (narrowed::<T>(&noise(1, n * columns)), narrowed::<T>(&noise(2, rows * columns)));
    let got = twice(|| {
        let (x, weight) = (Buffer::from_slice(gpu, &x)?, Buffer::from_slice(gpu, &weight)?);
        let mut y = Buffer::<f32>::from_slice(gpu, &vec![f32::NAN; n * rows])?;
        cuda::product(gpu, x.all(), weight.all(), columns, y.all_mut())?;
        y.read()
    })?;
    Ok(off_by(&got, &x, &weight, columns, &vec![0.0; n * rows]))
}

fn added<T: Format>(gpu: &Gpu, case: &Case) -> Result<f64> {
    let Case { n, rows, columns } = *case;
    let (x, weight) = (narrowed::<T>(&noise(1, n * columns)), narrowed::<T>(&noise(2, rows * columns)));
    let before = noise(3, n * rows);
    let got = twice(|| {
        let (x, weight) = (Buffer::from_slice(gpu, &x)?, Buffer::from_slice(gpu, &weight)?);
        let mut y = Buffer::from_slice(gpu, &before)?;
        cuda::product_onto(gpu, x.all(), weight.all(), columns, y.all_mut())?;
        y.read()
    })?;
    Ok(off_by(&got, &x, &weight, columns, &before))
}

/// By how much results differ from those in f64, which are added to `before`.
fn off_by<T: Format>(got: &[f32], x: &[T], weight: &[T], columns: usize, before: &[f32]) -> f64 {
    let (x, weight) = (widened(x), widened(weight));
    // The sum, and what it would be if nothing cancelled out.
    let want: Vec<(f64, f64)> = x
        .chunks_exact(columns)
        .flat_map(|x| weight.chunks_exact(columns).map(move |weight| (x, weight)))
        .zip(before)
        .map(|((x, weight), before)| {
            let before = f64::from(*before);
            x.iter().zip(weight).fold((before, before.abs()), |(sum, size), (x, w)| {
                let product = f64::from(*x) * f64::from(*w);
                (sum + product, size + product.abs())
            })
        })
        .collect();
    furthest(got, &want, |got, (sum, size)| (f64::from(got) - sum).abs() / size.max(f64::MIN_POSITIVE))
}
