//! Attention beside the machine's limits, all measured in one run: `cargo bench -p prefixkv-kernels`.
//!
//! `limits/gemm` is the f32 matrix product rate that bounds prefill; `limits/read` the memory bandwidth that bounds decode.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prefixkv_kernels::attention::{AnyRun, DecodeItem, LaneView, Mask, Rows, Run, decode, prefill};
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
        bencher.iter(|| {
            let total: u64 = big
                .par_chunks(1 << 20)
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
                .sum();
            std::hint::black_box(total)
        });
    });
    group.finish();
}

fn prefill_rate(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefill");
    group.sample_size(10);
    for (name, query_heads, kv_heads, dim) in SHAPES {
        for n in [512, 2048] {
            let (keys, values) = (noise(kv_heads * n * dim), noise(kv_heads * n * dim));
            let queries = noise(n * query_heads * dim);
            let mut out = vec![0.0; queries.len()];
            let run = AnyRun::F32(Run { keys: &keys, values: &values, len: n, capacity: n });
            let lanes = [LaneView::new(kv_heads, vec![run])];
            group.throughput(Throughput::Elements((2 * query_heads * dim * n * (n + 1)) as u64));
            group.bench_function(BenchmarkId::new(name, n), |bencher| {
                bencher.iter(|| {
                    let rows = Rows::dense(&queries, query_heads * dim);
                    prefill(rows, n, query_heads, dim, &lanes, 0.1, Mask::Causal, None, &mut out);
                });
            });
        }
    }
    group.finish();
}

fn decode_rate(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, query_heads, kv_heads, dim) in SHAPES {
        for len in [512, 4096, 16_384] {
            // Several layers in turn, so that the keys and values come from memory as they do in a model.
            let layers = ((256 << 20) / (8 * kv_heads * len * dim)).clamp(1, 32);
            let (keys, values) = (noise(layers * kv_heads * len * dim), noise(layers * kv_heads * len * dim));
            let queries = noise(query_heads * dim);
            let mut out = vec![0.0; queries.len()];
            let size = kv_heads * len * dim;
            group.throughput(Throughput::Bytes((layers * 8 * size) as u64));
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| {
                    for layer in 0..layers {
                        let keys = &keys[layer * size..(layer + 1) * size];
                        let values = &values[layer * size..(layer + 1) * size];
                        let run = AnyRun::F32(Run { keys, values, len, capacity: len });
                        let lane = LaneView::new(kv_heads, vec![run]);
                        decode(&mut [DecodeItem { lane, queries: &queries, out: &mut out, sums: None }], dim, 0.1);
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, limits, prefill_rate, decode_rate);
criterion_main!(benches);
