//! Writes, copies and reads of a device.

use super::numbers::{exact, noise};
use super::{Case as OfKernel, Check};
use crate::cuda::{Buffer, Gpu, Result};

/// Allocations of so many numbers, all written before any is read.
#[derive(Debug)]
struct Case {
    sizes: Vec<usize>,
}

impl OfKernel for Case {
    /// Copies of the host cost next to nothing.
    fn work(&self) -> usize {
        0
    }
}

pub(super) fn all(check: &mut Check<'_>) {
    let around = |n: usize| [n - 1, n, n + 1];
    let cases = [
        // Around the sizes at which a way in or out changes.
        Case {
            sizes: [vec![0, 1, 2, 63], [64 << 8, 128 << 10, 512 << 10].into_iter().flat_map(around).collect()].concat(),
        },
        // More in a row than is staged at once.
        Case { sizes: (0..400).map(|i| 1 + i * 977 % 8192).collect() },
    ];
    check.kernel("writes and reads".into(), 0.0, &cases, round_trip);
    check.kernel("copies".into(), 0.0, &cases, copies);
}

fn numbers(case: &Case) -> Vec<Vec<f32>> {
    case.sizes.iter().enumerate().map(|(i, size)| noise(i as u64 + 1, *size)).collect()
}

fn round_trip(gpu: &Gpu, case: &Case) -> Result<f64> {
    let want = numbers(case);
    let buffers = want.iter().map(|want| Buffer::from_slice(gpu, want)).collect::<Result<Vec<_>>>()?;
    compare(&buffers, &want)
}

fn copies(gpu: &Gpu, case: &Case) -> Result<f64> {
    let want = numbers(case);
    let mut copies = Vec::new();
    for want in &want {
        let from = Buffer::from_slice(gpu, want)?;
        let mut to = Buffer::<f32>::new(gpu, want.len())?;
        let half = want.len() / 2;
        to.copy(half, from.slice(half..want.len()))?;
        to.copy(0, from.slice(0..half))?;
        // The source of the copy is freed here, before anything was waited for.
        copies.push(to);
    }
    compare(&copies, &want)
}

fn compare(buffers: &[Buffer<f32>], want: &[Vec<f32>]) -> Result<f64> {
    let mut worst = 0.0;
    for (buffer, want) in buffers.iter().zip(want) {
        worst = f64::max(worst, exact(&buffer.read()?, want));
    }
    Ok(worst)
}
