//! Attention beside the machine's limits, all measured in one run: `cargo bench -p prefixkv-kernels`.
//!
//! `limits/gemm` is the f32 matrix product rate that bounds prefill; `limits/read` the memory bandwidth that bounds decode.

use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prefixkv_kernels::attention::{AttentionParams, DecodeItem, Gather, LaneView, Rows, Run, decode, prefill};
use rayon::prelude::*;

fn noise(n: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Heads of SmolLM2-135M and of one LLaVA-1.5-7B layer.
const SHAPES: [(&str, usize, usize, usize); 2] = [("9q3kv-d64", 9, 3, 64), ("32q32kv-d128", 32, 32, 128)];

/// Reads every element on all threads.
fn read(big: &[f32]) -> u64 {
    big.par_chunks(1 << 20)
        .map(|chunk| {
            chunk
                .chunks_exact(8)
                .fold([0u32; 8], |mut sum, eight| {
                    for lane in 0..8 {
                        sum[lane] = sum[lane].wrapping_add(eight[lane].to_bits());
                    }
                    sum
                })
                .iter()
                .map(|x| u64::from(*x))
                .sum::<u64>()
        })
        .sum()
}

fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("limits");
    let n = 1024;
    let (a, b, mut out) = (noise(n * n), noise(n * n), vec![0.0f32; n * n]);
    group.throughput(Throughput::Elements(2 * (n as u64).pow(3)));
    group.bench_function("gemm", |bencher| {
        bencher.iter(|| {
            // SAFETY: three square matrices of n * n elements each, row-major.
            unsafe {
                gemm::gemm(
                    n,
                    n,
                    n,
                    out.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    a.as_ptr(),
                    1,
                    n as isize,
                    b.as_ptr(),
                    1,
                    n as isize,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::Rayon(rayon::current_num_threads()),
                );
            }
        });
    });
    let big = noise(64 << 20);
    group.throughput(Throughput::Bytes(4 * big.len() as u64));
    group.bench_function("read", |bencher| {
        bencher.iter(|| std::hint::black_box(read(&big)));
    });
    group.finish();
}

fn prefill_rate(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefill");
    group.sample_size(10);
    for (name, query_heads, kv_heads, dim) in SHAPES {
        let params = AttentionParams { scale: 0.1, ..AttentionParams::new(query_heads, kv_heads, dim) };
        for n in [512, 2048, 4096] {
            let (keys, values) = (noise(kv_heads * n * dim), noise(kv_heads * n * dim));
            let queries = noise(n * query_heads * dim);
            let mut out = vec![0.0; queries.len()];
            let (weights, mut sums) = (vec![1.0; n], Vec::new());
            let run = Run::plain(&keys, &values, n, n);
            let lanes = [LaneView::new(kv_heads, vec![run])];
            group.throughput(Throughput::Elements((2 * query_heads * dim * n * (n + 1)) as u64));
            group.bench_function(BenchmarkId::new(name, n), |bencher| {
                bencher.iter(|| {
                    let rows = Rows::dense(&queries, query_heads * dim);
                    prefill(&params, rows, n, &lanes, None, &mut out);
                });
            });
            group.bench_function(BenchmarkId::new(format!("{name}-column-sums"), n), |bencher| {
                bencher.iter(|| {
                    let rows = Rows::dense(&queries, query_heads * dim);
                    let gather = Some(Gather { weights: &weights, sums: &mut sums });
                    prefill(&params, rows, n, &lanes, gather, &mut out);
                });
            });
        }
    }
    group.finish();
}

fn decode_rate(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, query_heads, kv_heads, dim) in SHAPES {
        let params = AttentionParams { scale: 0.1, ..AttentionParams::new(query_heads, kv_heads, dim) };
        for len in [512, 4096, 16_384] {
            // Several layers in turn, so that the keys and values come from memory as they do in a model.
            let layers = ((256 << 20) / (8 * kv_heads * len * dim)).clamp(1, 32);
            let (keys, values) = (noise(layers * kv_heads * len * dim), noise(layers * kv_heads * len * dim));
            let queries = noise(query_heads * dim);
            let mut out = vec![0.0; queries.len()];
            let size = kv_heads * len * dim;
            let mut sums = vec![0.0; len];
            group.throughput(Throughput::Bytes((layers * 8 * size) as u64));
            for summed in [false, true] {
                let name = if summed { format!("{name}-sums") } else { name.to_owned() };
                group.bench_function(BenchmarkId::new(name, len), |bencher| {
                    bencher.iter(|| {
                        for layer in 0..layers {
                            let keys = &keys[layer * size..(layer + 1) * size];
                            let values = &values[layer * size..(layer + 1) * size];
                            let run = Run::plain(keys, values, len, len);
                            let lane = LaneView::new(kv_heads, vec![run]);
                            let sums = summed.then_some(&mut sums[..]);
                            decode(&params, &mut [DecodeItem { lane, queries: &queries, out: &mut out, sums }]);
                        }
                    });
                });
            }
        }
    }
    group.finish();
}

/// The cost of column sums and decode sums, and the part of the read bandwidth that decode reaches: everything of a shape in turn, round
/// by round, so that a machine that others use too slows all of it alike. Prints medians and quartiles of the rounds' ratios.
fn ratios(_: &mut Criterion) {
    // Without `--bench` criterion only tries each benchmark once; `limits` is the filter for these alone.
    let asked = |name: &str| std::env::args().any(|argument| argument == name);
    if !asked("--bench") || asked("limits") {
        return;
    }
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    let show = |name: String, mut ratios: Vec<f64>| {
        ratios.sort_by(f64::total_cmp);
        let at = |part: usize| ratios[(ratios.len() - 1) * part / 4];
        eprintln!("ratio {name}: {:.3} [{:.3} {:.3}]", at(2), at(1), at(3));
    };
    for (name, query_heads, kv_heads, dim) in SHAPES {
        let params = AttentionParams { scale: 0.1, ..AttentionParams::new(query_heads, kv_heads, dim) };
        for n in [2048, 4096] {
            let (keys, values) = (noise(kv_heads * n * dim), noise(kv_heads * n * dim));
            let queries = noise(n * query_heads * dim);
            let mut out = vec![0.0; queries.len()];
            let (weights, mut sums) = (vec![1.0; n], Vec::new());
            let run = Run::plain(&keys, &values, n, n);
            let lanes = [LaneView::new(kv_heads, vec![run])];
            let mut attend = |gather: Option<Gather<'_>>| {
                let rows = Rows::dense(&queries, query_heads * dim);
                prefill(&params, rows, n, &lanes, gather, &mut out);
            };
            let rounds = (0..((1 << 36) / (query_heads * dim * n * n)).clamp(11, 41)).map(|_| {
                let plain = time(&mut || attend(None));
                time(&mut || attend(Some(Gather { weights: &weights, sums: &mut sums }))) / plain
            });
            show(format!("{name} {n} prefill with column sums to without"), rounds.collect());
        }
        for len in [4096, 16_384] {
            let layers = ((256 << 20) / (8 * kv_heads * len * dim)).clamp(1, 32);
            let size = kv_heads * len * dim;
            let (keys, values) = (noise(layers * size), noise(layers * size));
            let queries = noise(query_heads * dim);
            let (mut out, mut sums) = (vec![0.0; queries.len()], vec![0.0; len]);
            let mut sweep = |summed: bool| {
                for (keys, values) in keys.chunks_exact(size).zip(values.chunks_exact(size)) {
                    let lane = LaneView::new(kv_heads, vec![Run::plain(keys, values, len, len)]);
                    let sums = summed.then_some(&mut sums[..]);
                    decode(&params, &mut [DecodeItem { lane, queries: &queries, out: &mut out, sums }]);
                }
            };
            let (mut reached, mut summed) = (Vec::new(), Vec::new());
            for _ in 0..15 {
                let floor = time(&mut || {
                    std::hint::black_box(read(&keys) + read(&values));
                });
                let plain = time(&mut || sweep(false));
                reached.push(floor / plain);
                summed.push(time(&mut || sweep(true)) / plain);
            }
            show(format!("{name} {len} decode to read bandwidth"), reached);
            show(format!("{name} {len} decode with sums to without"), summed);
        }
    }
}

criterion_group!(benches, limits, prefill_rate, decode_rate, ratios);
criterion_main!(benches);
