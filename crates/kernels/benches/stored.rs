//! A few rows of activations with blocks as they lie in a file: `cargo bench -p prefixkv-kernels --bench stored -- [shape] [type] [level]`.
//!
//! On one thread, beside reading the same bytes, in turn, round by round. There are so many layers that weights come from memory, as they
//! do in a model. The bench of this name in `prefixkv-core` compares with candle.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use prefixkv_kernels::quant::Level;
use prefixkv_kernels::quant::stored::{Activations, BlockType, Stored};

const SHAPES: [(&str, usize, usize); 4] =
    [("576x1536", 576, 1536), ("1536x576", 1536, 576), ("49152x576", 49152, 576), ("4096x4096", 4096, 4096)];

/// Bytes of all layers of a shape, more than a cache has.
const BYTES: usize = 96 << 20;

const ROUNDS: usize = 9;

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// Reads bytes, where the machine can 128 at a time.
fn read(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm256_extract_epi64, _mm256_loadu_si256, _mm256_setzero_si256, _mm256_xor_si256};
        #[target_feature(enable = "avx2")]
        fn wide(bytes: &[u8]) -> u64 {
            let mut sums = [_mm256_setzero_si256(); 4];
            for some in bytes.as_chunks::<128>().0 {
                for (sum, from) in sums.iter_mut().zip(some.as_chunks::<32>().0) {
                    // SAFETY: 32 bytes are there.
                    *sum = _mm256_xor_si256(*sum, unsafe { _mm256_loadu_si256(from.as_ptr().cast()) });
                }
            }
            let both = [_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3])];
            _mm256_extract_epi64::<0>(_mm256_xor_si256(both[0], both[1])) as u64
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has it.
            return unsafe { wide(bytes) };
        }
    }
    bytes.as_chunks::<8>().0.iter().fold(0, |a, b| a ^ u64::from_le_bytes(*b))
}

fn compare(level: Level, kind: BlockType, name: &str, rows: usize, columns: usize) {
    let bytes = rows * columns / kind.weights() * kind.bytes();
    let layers = BYTES.div_ceil(bytes);
    // Any bytes are blocks; these keep every scale finite.
    let all: Arc<Vec<u8>> = Arc::new((0..layers * bytes).map(|i| (i * 7919 % 101) as u8).collect());
    let layer = |i: usize| Stored::new(kind, rows, columns, all.clone(), i * bytes, None).expect("fits");
    let weights: Vec<Stored> = (0..layers).map(layer).collect();
    for n in [1, 2, 4, 8, 16] {
        several(level, &weights, &all, n, name);
    }
}

fn several(level: Level, weights: &[Stored], all: &[u8], n: usize, name: &str) {
    let (kind, rows, columns) = (weights[0].kind(), weights[0].rows(), weights[0].columns());
    let (layers, bytes) = (weights.len(), all.len() / weights.len());
    let x: Vec<f32> = (0..n * columns).map(|i| (i * 31 % 61) as f32 / 30.0 - 1.0).collect();
    let x = Activations::quantise(&x, columns);
    let mut out = vec![0.0; n * rows];
    let (mut ours, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let read = time(|| {
            black_box(read(all));
        });
        let product = time(|| {
            for weight in weights {
                weight.product_at(level, rows, &x, &mut out, rows, 0);
            }
        });
        ours.push(product / layers as f64);
        ratios.push(read / product);
    }
    let best = ours.iter().copied().fold(f64::INFINITY, f64::min);
    eprintln!(
        "{:7} {name:10} {n:2} rows: {:8.1} us, best {:8.1} ({:5.1} GB/s, {:5.1} billion products a second); {:.2} of the rate of reading",
        kind.name(),
        1e6 * median(ours),
        1e6 * best,
        bytes as f64 / best / 1e9,
        (n * rows * columns) as f64 / best / 1e9,
        median(ratios),
    );
}

fn main() {
    // Without it cargo only tries whether the bench runs.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let level = Level::available().into_iter().find(|level| only.contains(&format!("{level:?}")));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    for (name, rows, columns) in SHAPES {
        for kind in BlockType::ALL {
            let level = level.unwrap_or(Level::best());
            let of_level = format!("{level:?}");
            let names = [name, kind.name(), &of_level];
            if columns.is_multiple_of(kind.weights()) && only.iter().all(|only| names.contains(&only.as_str())) {
                pool.install(|| compare(level, kind, name, rows, columns));
            }
        }
    }
}
