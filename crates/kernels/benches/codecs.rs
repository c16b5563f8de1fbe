//! Attention of one generated token to entries in every codec, beside f16 and the read bandwidth: `cargo bench -p prefixkv-kernels --bench
//! codecs`.
//!
//! All codecs of a shape in turn, round by round, beginning with another each time, so that a machine that others use too slows all
//! of them alike. Prints medians and quartiles of the rounds' ratios. Each codec has as many layers as leave the last-level cache cold,
//! and entries lie as a cache has them: those that share scales over a group in a run of their own.

use std::time::Instant;

use prefixkv_kernels::attention::{AttentionParams, DecodeItem, LaneView, decode};
use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec, Levels, OwnedRun};
use prefixkv_kernels::rotary::{Frequencies, Turns};
use rayon::prelude::*;

const DIM: usize = 128;
const ENTRIES: usize = 4096;
const ROUNDS: usize = 21;

/// Query heads and KV heads.
const SHAPES: [(usize, usize); 2] = [(32, 32), (32, 8)];
/// More than any last-level cache of the machines that this is for.
const COLD: usize = 192 << 20;

/// With those whose keys are rotated when they are read.
fn codecs() -> Vec<(&'static str, KvCodec, bool)> {
    let of = |key, value| KvCodec::new(key, value, Dual::None);
    let kivi = |dtype| of(Codec::per_channel(dtype, 32), Codec::per_entry(dtype, 32));
    let both = |codec| of(codec, codec);
    let plain = vec![
        ("f16", KvCodec::F16),
        ("f32", KvCodec::F32),
        ("bf16", KvCodec::plain(Dtype::Bf16)),
        ("fp8", KvCodec::plain(Dtype::F8)),
        ("int8", both(Codec::per_entry(Dtype::U8, 32))),
        ("int4", kivi(Dtype::U4)),
        ("int4, keys per entry", both(Codec::per_entry(Dtype::U4, 32))),
        (
            "turboquant, 4 bits",
            KvCodec { dual: Dual::Random, ..both(Codec::of_levels(Dtype::U4, Levels::Normal, DIM as u16)) },
        ),
        ("int2", kivi(Dtype::U2)),
        (
            "turboquant, 2 bits",
            KvCodec { dual: Dual::Random, ..both(Codec::of_levels(Dtype::U2, Levels::Normal, DIM as u16)) },
        ),
    ];
    let on_read = [("f16, before RoPE", KvCodec::F16), ("int4, before RoPE", kivi(Dtype::U4))];
    let stored = plain.into_iter().map(|(name, codec)| (name, codec, false));
    stored.chain(on_read.map(|(name, codec)| (name, codec, true))).collect()
}

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

/// Reads every element on all threads.
fn read(big: &[u64]) -> u64 {
    big.par_chunks(1 << 17).map(|chunk| chunk.iter().fold(0u64, |sum, x| sum.wrapping_add(*x))).sum()
}

/// The layers of a codec; the first one's entries in all of them.
struct Cache {
    name: &'static str,
    layers: Vec<Vec<OwnedRun>>,
    bytes: usize,
    on_read: bool,
}

fn cache((name, codec, on_read): (&'static str, KvCodec, bool), kv_heads: usize) -> Cache {
    let run = if codec.group() > 1 { codec.group() } else { ENTRIES };
    let (keys, values) = (noise(kv_heads * run * DIM), noise(kv_heads * run * DIM));
    let mut first = OwnedRun::new(codec, kv_heads, DIM, run);
    first.push(&keys, &values);
    let layer = vec![first; ENTRIES / run];
    let bytes = layer.iter().map(|run| run.bytes().len()).sum::<usize>();
    let layers = vec![layer; COLD.div_ceil(bytes)];
    Cache { name, bytes: bytes * layers.len(), layers, on_read }
}

fn attend(cache: &Cache, params: &AttentionParams, queries: &[f32], out: &mut [f32]) {
    // Once per token, for all layers.
    let inverse = (0..DIM / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / DIM as f32)).collect();
    let frequencies = Frequencies::new(inverse, None);
    let of: Vec<u32> = (0..ENTRIES as u32).collect();
    let angles = cache.on_read.then(|| frequencies.angles(of.iter().map(|position| [*position; 3])));
    for layer in &cache.layers {
        let turns = angles.as_ref().map(|angles| Turns { angles, of: &of });
        let runs = layer.iter().map(OwnedRun::run).collect();
        let lane = LaneView { turns, ..LaneView::new(layer[0].heads(), runs) };
        decode(params, &mut [DecodeItem { lane, queries, out, sums: None }]);
    }
}

fn seconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn middle(mut of: Vec<f64>) -> [f64; 3] {
    of.sort_by(f64::total_cmp);
    [2, 1, 3].map(|part| of[(of.len() - 1) * part / 4])
}

fn main() {
    // Tried without `--bench`, as tests are.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let frequencies = Frequencies::new(vec![0.1; DIM / 2], None);
    let angles = (0..ROUNDS).map(|_| seconds(|| drop(frequencies.angles((0..ENTRIES as u32).map(|at| [at; 3])))));
    eprintln!("angles of {ENTRIES} positions: {:.2} ms", 1e3 * middle(angles.collect())[0]);
    let big = vec![1u64; (512 << 20) / 8];
    for (query_heads, kv_heads) in SHAPES {
        let params = AttentionParams { scale: 0.1, ..AttentionParams::new(query_heads, kv_heads, DIM) };
        let queries = noise(query_heads * DIM);
        let mut out = vec![0.0; queries.len()];
        let caches: Vec<Cache> = codecs().into_iter().map(|codec| cache(codec, kv_heads)).collect();
        // Seconds per byte that a cache in f32 would have, whose numbers are as many for all.
        let of_f32 = |cache: &Cache| (cache.layers.len() * 2 * kv_heads * ENTRIES * DIM * 4) as f64;
        let (mut times, mut floors) = (vec![Vec::new(); caches.len()], Vec::new());
        for round in 0..ROUNDS {
            let floor = seconds(|| {
                std::hint::black_box(read(&big));
            });
            floors.push(floor / (8 * big.len()) as f64);
            for i in 0..caches.len() {
                let which = (i + round) % caches.len();
                times[which]
                    .push(seconds(|| attend(&caches[which], &params, &queries, &mut out)) / of_f32(&caches[which]));
            }
        }
        eprintln!("{query_heads} query heads, {kv_heads} KV heads of {DIM}, {ENTRIES} entries");
        for (cache, times_of) in caches.iter().zip(&times) {
            let bytes = cache.bytes as f64 / of_f32(cache);
            let [faster, low, high] = middle(times[0].iter().zip(times_of).map(|(f16, time)| f16 / time).collect());
            let reached = middle(floors.iter().zip(times_of).map(|(floor, time)| floor * bytes / time).collect())[0];
            eprintln!(
                "{:22} {faster:6.2} [{low:.2} {high:.2}] times f16, by bytes {:5.2}: {:4.0} %; of the read bandwidth {:4.0} %",
                cache.name,
                0.5 / bytes,
                100.0 * faster * bytes / 0.5,
                100.0 * reached,
            );
        }
    }
}
