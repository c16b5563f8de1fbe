//! Products of weights in blocks: `cargo bench -p prefixkv-core --bench quantised`.
//!
//! Our own beside candle's quantised product in parts of 512 rows, beside the same rows one after the other, and beside reading the
//! weights, in turn, round by round, so that a machine that others use too slows all of it alike. Prints medians of the rounds'
//! ratios. There are so many layers that the weights come from memory, as they do in a model.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use prefixkv_kernels::quant::{Format, Weights};
use rayon::prelude::*;

const SHAPES: [(&str, usize, usize); 6] = [
    ("576x576", 576, 576),
    ("1536x576", 1536, 576),
    ("576x1536", 576, 1536),
    ("2048x2048", 2048, 2048),
    ("4096x4096", 4096, 4096),
    ("32064x2048", 32_064, 2048),
];

/// Weights of all layers of a shape.
const WEIGHTS: usize = 64 << 20;

/// Rows of a part of candle's.
const PART: usize = 512;

fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn candle(format: Format, numbers: &[f32], columns: usize) -> Vec<QMatMul> {
    let dtype = if format == Format::Q8_0 { GgmlDType::Q8_0 } else { GgmlDType::Q4K };
    let part = |part: &[f32]| {
        let tensor = Tensor::from_slice(part, (part.len() / columns, columns), &Device::Cpu).expect("a matrix");
        QMatMul::from_arc(Arc::new(QTensor::quantize(&tensor, dtype).expect("quantises"))).expect("a product")
    };
    numbers.par_chunks(PART * columns).map(part).collect()
}

fn compare(format: Format, name: &str, rows: usize, columns: usize) {
    let size = rows * columns;
    let numbers: Vec<f32> = (0..size).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let layers = (WEIGHTS / size).clamp(1, 64);
    let start = Instant::now();
    let ours: Vec<Weights> = (0..layers)
        .map(|_| {
            Weights::quantise(format, rows, columns, |row, to| to.copy_from_slice(&numbers[row * columns..][..columns]))
        })
        .collect();
    let quantised = start.elapsed().as_secs_f64() / layers as f64;
    let start = Instant::now();
    let theirs: Vec<Vec<QMatMul>> = (0..layers).map(|_| candle(format, &numbers, columns)).collect();
    eprintln!(
        "{format:?} {name}: quantised in {:.1} ms, by candle in {:.1} ms",
        1e3 * quantised,
        1e3 * start.elapsed().as_secs_f64() / layers as f64
    );
    let bytes: Vec<u64> = vec![1; layers * size * if format == Format::Q8_0 { 34 } else { 18 } / 32 / 8];
    for n in [1, 2, 4, 8, 16, 64, 512] {
        let x: Vec<f32> = (0..n * columns).map(|i| (i * 31 % 61) as f32 / 30.0 - 1.0).collect();
        let tensor = Tensor::from_slice(&x, (n, columns), &Device::Cpu).expect("a matrix");
        let mut out = vec![0.0; n * rows];
        let mut found: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::new());
        // Candle's many rows take long.
        let some = if n >= 64 { layers.div_ceil(8) } else { layers };
        for _ in 0..5 {
            found[0].push(
                time(|| {
                    black_box(
                        bytes
                            .par_chunks(1 << 16)
                            .map(|part| part.iter().fold(0, |a: u64, b| a ^ b))
                            .reduce(|| 0, |a, b| a ^ b),
                    );
                }) * some as f64
                    / layers as f64,
            );
            found[1].push(time(|| ours[..some].iter().for_each(|weight| weight.product(&x, &mut out))));
            found[2].push(if n > 16 {
                f64::NAN
            } else {
                time(|| {
                    ours[..some].iter().for_each(|weight| {
                        x.chunks_exact(columns)
                            .zip(out.chunks_exact_mut(rows))
                            .for_each(|(x, out)| weight.product(x, out));
                    });
                })
            });
            found[3].push(time(|| {
                theirs[..some].iter().for_each(|parts| {
                    let parts: Vec<Tensor> =
                        parts.par_iter().map(|part| part.forward(&tensor).expect("runs")).collect();
                    black_box(Tensor::cat(&parts, 1).expect("one matrix"));
                });
            }));
        }
        let ratio = |a: usize| median(found[a].iter().zip(&found[1]).map(|(a, b)| a / b).collect());
        let together = median(found[1].clone());
        let rate = (2 * n * some * size) as f64 / together / 1e9;
        eprintln!(
            "{format:?} {name}, {n:3} rows: {:9.1} us a layer, {rate:6.1} GOP/s; {:.2} of reading; faster than alone {:.2}, than candle {:.2}",
            1e6 * together / some as f64,
            ratio(0),
            ratio(2),
            ratio(3),
        );
    }
}

fn main() {
    // Without it cargo only tries whether the bench runs.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, rows, columns) in SHAPES {
        for format in [Format::Q8_0, Format::Q4K] {
            if columns.is_multiple_of(format.granule()) && only.as_ref().is_none_or(|only| name.contains(only.as_str()))
            {
                compare(format, name, rows, columns);
            }
        }
    }
}
