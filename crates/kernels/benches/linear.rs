//! Products of a few rows with dense weights: `cargo bench -p prefixkv-kernels --bench linear`.
//!
//! Rows together beside the same rows one after the other, beside a general matrix product, and beside reading the weights, all in
//! turn, round by round, so that a machine that others use too slows all of it alike. Prints medians of the rounds' ratios. There
//! are so many layers that the weights come from memory, as they do in a model.

use std::hint::black_box;
use std::time::Instant;

use half::f16;
use prefixkv_kernels::element::Element;
use prefixkv_kernels::linear::{matvec, matvecs};
use prefixkv_kernels::simd;
use rayon::prelude::*;

const SHAPES: [(&str, usize, usize); 4] =
    [("960x576", 960, 576), ("576x1536", 576, 1536), ("49152x576", 49_152, 576), ("4096x4096", 4096, 4096)];

/// Weights of all layers of a shape.
const WEIGHTS: usize = 32 << 20;

fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn read<T: Element>(all: &[T]) {
    let words = |part: &[T]| match (T::as_f32(part), T::as_f16(part)) {
        (Some(part), _) => part.iter().fold(0u32, |sum, x| sum.wrapping_add(x.to_bits())),
        (_, Some(part)) => part.iter().fold(0u16, |sum, x| sum.wrapping_add(x.to_bits())).into(),
        _ => 0,
    };
    black_box(all.par_chunks(1 << 18).map(words).reduce(|| 0, u32::wrapping_add));
}

fn gemm(x: &[f32], weight: &[f32], columns: usize, out: &mut [f32]) {
    let (n, rows) = (x.len() / columns, weight.len() / columns);
    // SAFETY: `[n, columns]` times the transpose of `[rows, columns]` to `[n, rows]`, all row-major.
    unsafe {
        gemm::gemm(
            n,
            rows,
            columns,
            out.as_mut_ptr(),
            1,
            rows as isize,
            false,
            x.as_ptr(),
            1,
            columns as isize,
            weight.as_ptr(),
            columns as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(rayon::current_num_threads()),
        );
    }
}

fn product<T: Element>(x: &[f32], weight: &[T], columns: usize, wide: &mut [f32], out: &mut [f32]) {
    if let Some(weight) = T::as_f32(weight) {
        return gemm(x, weight, columns, out);
    }
    let wide = &mut wide[..weight.len()];
    wide.par_chunks_mut(1 << 16).zip(weight.par_chunks(1 << 16)).for_each(|(wide, narrow)| simd::widen(narrow, wide));
    gemm(x, wide, columns, out);
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn compare<T: Element>(format: &str, name: &str, rows: usize, columns: usize) {
    let size = rows * columns;
    let layers = (WEIGHTS / size).max(1);
    let all: Vec<T> = (0..layers * size).map(|i| T::narrow((i * 7919 % 1009) as f32 / 504.5 - 1.0)).collect();
    let mut wide = vec![0.0; if T::as_f32(&all).is_some() { 0 } else { size }];
    for n in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32] {
        let x: Vec<f32> = (0..n * columns).map(|i| (i * 31 % 61) as f32 / 30.0 - 1.0).collect();
        let mut out = vec![0.0; n * rows];
        let mut found: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::new());
        for _ in 0..7 {
            let once = all.chunks_exact(size);
            found[0].push(time(|| read(&all)));
            found[1].push(time(|| once.clone().for_each(|weight| matvecs(&x, columns, weight, &mut out))));
            found[2].push(time(|| {
                once.clone().for_each(|weight| {
                    x.chunks_exact(columns).zip(out.chunks_exact_mut(rows)).for_each(|(x, out)| matvec(x, weight, out));
                });
            }));
            found[3].push(time(|| once.clone().for_each(|weight| product(&x, weight, columns, &mut wide, &mut out))));
        }
        let ratio = |a: usize| median(found[a].iter().zip(&found[1]).map(|(a, b)| a / b).collect());
        let together = median(found[1].clone());
        let rate = (2 * n * layers * size) as f64 / together / 1e9;
        eprintln!(
            "{format} {name}, {n:2} rows: {:7.1} us a layer, {rate:5.1} GFLOP/s; {:.2} of reading; faster than alone {:.2}, than gemm {:.2}",
            1e6 * together / layers as f64,
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
    for (name, rows, columns) in SHAPES {
        compare::<f32>("f32", name, rows, columns);
        compare::<f16>("f16", name, rows, columns);
    }
}
