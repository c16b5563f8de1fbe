//! PrefixKV's search over 32 layers of 4096 entries: the curves (sorting, per layer and once) and the search itself. And which
//! entry a lane of 800 gives up, which is asked for every lane and every token.
//!
//! Floor of the curves: 32 sorts of 4096 numbers, about 32 x 4096 x 12 comparisons. Floor of the search: 64 halvings x 32 layers x
//! 12 steps of a binary search, about 25 000 look-ups.

use criterion::{Criterion, criterion_group, criterion_main};
use prefixkv_core::cache::{Format, Lane, LaneOptions, New, Pool, Rotation};
use prefixkv_core::method::Eviction;
use prefixkv_core::method::budget::prefix::{Curve, Objective, search};
use prefixkv_core::method::eviction::{EvictionQuery, Search};
use prefixkv_kernels::attention::Rows;

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
        for objective in [Objective::Least, Objective::Sum] {
            let name = format!("search of 32 x 4096, keep {keep}, {objective:?}");
            c.bench_function(&name, |b| b.iter(|| search(&curves, total, objective)));
        }
    }
}

/// A lane of 800 entries as generation leaves it: a compacted prompt, a tail, and some gone.
fn lane(pool: &Pool) -> Lane {
    let options = LaneOptions {
        head_dim: 8,
        codec: Format::F32.codec(),
        folded: false,
        rotation: Rotation::Stored,
        scored: true,
    };
    let mut lane = Lane::new(0..1, options, pool.account()).expect("no cap");
    let rows = vec![0.5; 2000 * 8];
    let rows = Rows::dense(&rows, 8);
    let new = New { keys: rows, values: rows, angles: None };
    lane.append(new, 1600, 0).expect("no cap");
    let places: Vec<u32> = (0..1600).filter(|place| place % 2 == 0).collect();
    lane.retain(&places).expect("there");
    for step in 0..300u32 {
        lane.append_one(new, 1600 + step).expect("no cap");
        lane.delete(lane.sorted()[770 - step as usize].place).expect("there");
    }
    lane.update_scores(|place, score| *score = ((place * 7919) % 10_007) as f32);
    assert_eq!(lane.len(), 800);
    lane
}

fn victims(c: &mut Criterion) {
    let pool = Pool::unlimited();
    let lane = lane(&pool);
    let mut search = Search::default();
    for (name, eviction) in
        [("distance", Eviction::Distance(25)), ("lowest score", Eviction::LowestScore), ("oldest", Eviction::Oldest)]
    {
        let ask = EvictionQuery { eviction, kept: 800, sinks: 1, recent: 10, text: None };
        c.bench_function(&format!("victim among 800, {name}"), |b| b.iter(|| search.victim(&lane, &ask)));
    }
}

criterion_group!(search_benches, benches, victims);
criterion_main!(search_benches);
