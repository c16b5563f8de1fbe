//! PrefixKV's search over 32 layers of 4096 entries: the curves (sorting, per layer and once) and the search itself.
//!
//! Floor of the curves: 32 sorts of 4096 numbers, about 32 x 4096 x 12 comparisons. Floor of the search: 64 halvings x 32 layers x
//! 12 steps of a binary search, about 25 000 look-ups.

use criterion::{Criterion, criterion_group, criterion_main};
use prefixkv_core::method::budget::prefix::{Curve, search};

const LAYERS: usize = 32;
const ENTRIES: usize = 4096;

fn scores(layer: usize) -> Vec<f32> {
    let noise = |i: usize| ((i * 7919 + layer * 104_729) % 10_007) as f32 / 10_007.0;
    (0..ENTRIES).map(|i| noise(i).powi(1 + layer as i32 % 12)).collect()
}

fn benches(c: &mut Criterion) {
    let layers: Vec<Vec<f32>> = (0..LAYERS).map(scores).collect();
    let mut safe = vec![false; ENTRIES];
    safe[0] = true;
    safe[ENTRIES - 1] = true;
    c.bench_function("curves of 32 x 4096", |b| {
        b.iter(|| layers.iter().map(|scores| Curve::new(scores, &safe, 0)).collect::<Vec<_>>());
    });
    let curves: Vec<Curve> = layers.iter().map(|scores| Curve::new(scores, &safe, 0)).collect();
    for keep in [0.5, 0.1] {
        let total = (keep * (LAYERS * ENTRIES) as f64) as usize;
        c.bench_function(&format!("search of 32 x 4096, keep {keep}"), |b| b.iter(|| search(&curves, total)));
    }
}

criterion_group!(search_benches, benches);
criterion_main!(search_benches);
