//! Products with weights as they lie in a file of ggml: `cargo bench -p prefixkv-core --bench stored -- [shape] [type]`.
//!
//! Ours beside candle's product of the same blocks and beside reading their bytes, in turn, round by round, so that a machine that others
//! use too slows all of it alike. Prints medians of the rounds' ratios. There are so many layers that the weights come from memory, as
//! they do in a model.

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use prefixkv_kernels::quant::stored::{Activations, BlockType, Stored};
use rayon::prelude::*;

const SHAPES: [(&str, usize, usize); 3] =
    [("576x1536", 576, 1536), ("2048x2048", 2048, 2048), ("4096x4096", 4096, 4096)];

/// Weights of all layers of a shape.
const WEIGHTS: usize = 64 << 20;

const ROUNDS: usize = 5;

fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// CPU time of the process so far, which other processes disturb less.
#[cfg(unix)]
fn cpu() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a time that the call writes.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    now.tv_sec as f64 + 1e-9 * now.tv_nsec as f64
}

#[cfg(not(unix))]
fn cpu() -> f64 {
    f64::NAN
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// The type in candle, which has no iq4.
fn candle(kind: BlockType) -> Option<GgmlDType> {
    Some(match kind {
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q2K => GgmlDType::Q2K,
        BlockType::Q3K => GgmlDType::Q3K,
        BlockType::Q4K => GgmlDType::Q4K,
        BlockType::Q5K => GgmlDType::Q5K,
        BlockType::Q6K => GgmlDType::Q6K,
        BlockType::Iq4Nl | BlockType::Iq4Xs => return None,
    })
}

/// Blocks of a matrix: candle's, or bytes of which any are f16 numbers that are finite. The first rows again and again, because candle
/// takes long to quantise.
fn blocks(kind: BlockType, rows: usize, columns: usize) -> Vec<u8> {
    const FIRST: usize = 32;
    let size = FIRST * columns;
    let Some(dtype) = candle(kind) else {
        let bytes: Vec<u8> = (0..size / kind.weights() * kind.bytes()).map(|i| (i * 7919 % 101) as u8).collect();
        return bytes.repeat(rows / FIRST);
    };
    let numbers: Vec<f32> = (0..size).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let tensor = Tensor::from_vec(numbers, (FIRST, columns), &Device::Cpu).expect("a matrix");
    QTensor::quantize(&tensor, dtype).expect("quantises").data().expect("on the CPU").repeat(rows / FIRST)
}

fn compare(kind: BlockType, name: &str, rows: usize, columns: usize) {
    let size = rows * columns;
    let layers = (WEIGHTS / size).clamp(1, 64);
    let bytes = blocks(kind, rows, columns);
    let ours: Vec<Stored> = (0..layers)
        .map(|_| Stored::new(kind, rows, columns, Arc::new(bytes.clone()), 0, None).expect("fits"))
        .collect();
    let theirs: Vec<QMatMul> = candle(kind).map_or_else(Vec::new, |dtype| {
        let layer = |_| {
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).expect("blocks");
            QMatMul::from_arc(Arc::new(QTensor::new(storage, (rows, columns)).expect("a matrix"))).expect("a product")
        };
        (0..layers).map(layer).collect()
    });
    let all: Vec<u64> = vec![1; layers * bytes.len() / 8];
    for n in [1, 4, 64, 512] {
        let x: Vec<f32> = (0..n * columns).map(|i| (i * 31 % 61) as f32 / 30.0 - 1.0).collect();
        let tensor = Tensor::from_slice(&x, (n, columns), &Device::Cpu).expect("a matrix");
        let mut out = vec![0.0; n * rows];
        let mut found: [Vec<f64>; 3] = std::array::from_fn(|_| Vec::new());
        let mut of_cpu = Vec::new();
        // Many rows take long.
        let some = if n >= 64 { layers.div_ceil(8) } else { layers };
        for _ in 0..ROUNDS {
            let read = time(|| {
                let sum = |part: &[u64]| part.iter().fold(0, |a: u64, b| a ^ b);
                black_box(all.par_chunks(1 << 16).map(sum).reduce(|| 0, |a, b| a ^ b));
            });
            found[0].push(read * some as f64 / layers as f64);
            let start = cpu();
            found[1].push(time(|| {
                for weight in &ours[..some] {
                    weight.product(rows, &Activations::quantise(&x, columns), &mut out, rows, 0);
                }
            }));
            of_cpu.push(cpu() - start);
            found[2].push(time(|| {
                for weight in theirs.iter().take(some) {
                    black_box(weight.forward(&tensor).expect("runs"));
                }
            }));
        }
        let ratio = |a: usize| median(found[a].iter().zip(&found[1]).map(|(a, b)| a / b).collect());
        let ours = median(found[1].clone());
        let of_cpu = median(of_cpu);
        eprintln!(
            "{} {name}, {n:3} rows: {:9.1} us a layer, {:9.1} us of CPU time ({:6.1} GOP/s, {:5.1} GB/s); {:.2} of reading; faster than \
             candle {:.2}",
            kind.name(),
            1e6 * ours / some as f64,
            1e6 * of_cpu / some as f64,
            (2 * n * some * size) as f64 / of_cpu / 1e9,
            (some * bytes.len()) as f64 / of_cpu / 1e9,
            ratio(0),
            ratio(2),
        );
    }
}

fn main() {
    // Without it cargo only tries whether the bench runs.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, rows, columns) in SHAPES {
        for kind in BlockType::ALL {
            let names = [name, kind.name()];
            if only.iter().all(|only| names.contains(&only.as_str())) {
                compare(kind, name, rows, columns);
            }
        }
    }
}
