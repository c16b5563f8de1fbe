//! Sequences that share a prefix: each is as if it were alone, and what both hold is there once.

use std::sync::Arc;

use prefixkv_core::cache::{Format, Lane, LaneOptions, LayerCache, Modality, New, Pool, Recode, Rotation, Shape, Span};
use prefixkv_core::error::Error;
use prefixkv_core::method::Method;
use prefixkv_core::sequence::{Layout, Placing, Sequence};
use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::codec::{Codec, Dtype, KvCodec};
use prefixkv_kernels::rotary::Angles;
use proptest::prelude::*;
use serde_json::{Value, json};

const LAYERS: usize = 4;
const HEADS: usize = 2;
const DIM: usize = 8;
const WIDTH: usize = HEADS * DIM;

fn shape(format: Format) -> Shape {
    Shape { layers: LAYERS, kv_heads: HEADS, head_dim: DIM, format }
}

/// Lanes per layer and per head, with scores and without, rotated when stored and when read, compacted by layer and at the end.
fn caches() -> Vec<Value> {
    vec![
        json!({ "method": "full" }),
        json!({ "method": "prefixkv", "keep": 0.5 }),
        json!({ "method": "prefixkv", "keep": 0.4, "variant": "paper", "decode": "lowest-score" }),
        json!({ "method": "prefixkv", "keep": { "tokens": 20 } }),
        json!({ "method": "h2o", "keep": 0.5 }),
        json!({ "method": "h2o", "keep": { "tokens": 20 } }),
        json!({ "method": "snapkv", "keep": 0.5 }),
        json!({ "method": "snapkv", "keep": { "tokens": 40 } }),
        json!({ "method": "knorm", "keep": 0.5 }),
        json!({ "method": "streaming", "keep": { "tokens": 20 }, "positions": "cache" }),
        json!({ "method": "streaming", "keep": 0.5 }),
        json!({ "method": "random", "keep": 0.5 }),
        json!({ "method": "int4", "window": 8, "group": 8 }),
        json!([{ "method": "h2o", "keep": 0.5 }, { "method": "int8" }]),
        json!({ "method": "minicache", "window": 8, "from": 0 }),
        json!([{ "method": "h2o", "keep": 0.5 }, { "method": "minicache", "window": 3, "bits": "4" }]),
        json!([{ "method": "prefixkv", "keep": 0.6 }, { "method": "merge" }, { "method": "minicache", "window": 4, "from": 0.25 }]),
        json!([{ "method": "snapkv", "keep": { "tokens": 40 } }, { "method": "int2", "window": 3, "group": 16 }]),
        json!([{ "method": "prefixkv", "keep": 0.5 }, { "method": "merge" }, { "method": "int4", "window": 0, "rotate": true }]),
    ]
}

/// Layers with entries of their own; and some that read those of others, or have a window.
fn layouts() -> [Arc<Layout>; 2] {
    let layer = |source, window| LayerCache { source, window, rope: 0 };
    let mixed = vec![layer(0, None), layer(1, Some(25)), layer(0, None), layer(1, Some(30))];
    [Layout::plain(LAYERS), Layout::new(mixed)].map(Arc::new)
}

/// One thing that is done to a sequence.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Positions of a prompt; 0 for a generated token.
    prompt: usize,
    seed: u64,
}

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| next()).collect()
}

fn angles(first: u32, n: usize) -> Angles {
    Angles::new(first..first + n as u32, &[1.0, 0.3, 0.1, 0.01], 1.0)
}

fn run(sequence: &mut Sequence, work: Work) -> Result<(), Error> {
    let n = work.prompt.max(1);
    let angles = angles(sequence.next_position(), n);
    match work.prompt {
        0 => sequence.begin_step()?,
        n => sequence.begin_prompt(&[Span { modality: Modality::Text, start: 0, len: n }], &Placing::InOrder)?,
    }
    for layer in 0..LAYERS {
        let seed = work.seed.wrapping_mul(31).wrapping_add(layer as u64);
        let (keys, values) = (noise(seed, n * WIDTH), noise(!seed, n * WIDTH));
        sequence.store(layer, Rows::dense(&keys, WIDTH), Rows::dense(&values, WIDTH), Some(&angles))?;
        let places: Vec<usize> =
            sequence.lanes(layer).iter().flat_map(|lane| lane.heads().map(|_| lane.places())).collect();
        if work.prompt > 0 {
            let sums: Vec<Vec<f32>> = match sequence.query_weights(layer) {
                Some(_) => places.iter().map(|places| noise(seed ^ 7, *places)).collect(),
                None => Vec::new(),
            };
            sequence.attended(layer, &sums)?;
        } else {
            let gathers = sequence.gathers_step(layer);
            let sums: Vec<Vec<f32>> = sequence.lanes(layer).iter().map(|lane| noise(seed ^ 7, lane.places())).collect();
            sequence.stepped(layer, if gathers { &sums } else { &[] });
        }
    }
    if work.prompt > 0 { sequence.finish_prompt() } else { sequence.finish_step() }
}

/// The bits of keys and values, in physical order.
fn bits(lane: &Lane, dim: usize) -> Vec<u32> {
    let mut bits = Vec::new();
    for run in lane.view(None).runs {
        for head in 0..lane.heads().len() {
            let mut rows = vec![0.0; run.len * dim];
            run.read_keys(head, 0, dim, &mut rows);
            bits.extend(rows.iter().map(|number| number.to_bits()));
            run.read_values(head, 0, dim, &mut rows);
            bits.extend(rows.iter().map(|number| number.to_bits()));
        }
    }
    bits
}

/// Everything that attention, methods and reports see of a sequence: places, positions, scores and numbers.
fn state(sequence: &Sequence) -> Vec<(Vec<u32>, Vec<u32>, Vec<u32>)> {
    let of = |lane: &Lane| {
        let positions = lane.entries().flat_map(|entry| [entry.position, entry.place]).collect();
        (positions, lane.scores().iter().map(|score| score.to_bits()).collect(), bits(lane, DIM))
    };
    (0..LAYERS).flat_map(|layer| sequence.lanes(layer).iter().map(of).collect::<Vec<_>>()).collect()
}

fn sequence(pool: &Pool, format: Format, cache: &Value, layout: &Arc<Layout>) -> Sequence {
    let method = Method::parse(cache).unwrap_or_else(|error| panic!("{cache}: {error}"));
    Sequence::with_layout(shape(format), layout.clone(), pool, method, true).expect("no cap")
}

/// The pool has what both hold once.
fn counted_once(pool: &Pool, a: &Sequence, b: &Sequence) {
    let (of_a, of_b) = (a.memory(), b.memory());
    assert_eq!(of_a.shared, of_b.shared);
    assert_eq!(pool.used(), of_a.resident + of_b.resident - of_a.shared);
    for memory in [of_a, of_b] {
        assert!(memory.payload + memory.scales + memory.metadata + memory.dead <= memory.resident);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_of_two_is_as_if_it_were_alone(
        first in 1usize..60,
        tokens in 0u64..40,
        works in prop::collection::vec((any::<bool>(), 0usize..8, any::<u64>()), 1..40),
        half: bool,
    ) {
        let format = if half { Format::F16 } else { Format::F32 };
        for (cache, layout) in caches().iter().flat_map(|cache| layouts().map(|layout| (cache, layout))) {
            let pool = Pool::unlimited();
            let mut past = vec![Work { prompt: first.max(45), seed: 3 }];
            past.extend((0..tokens).map(|seed| Work { prompt: 0, seed }));
            let fresh = || {
                let mut sequence = sequence(&Pool::unlimited(), format, cache, &layout);
                past.iter().for_each(|work| run(&mut sequence, *work).expect("no cap"));
                sequence
            };
            let mut a = sequence(&pool, format, cache, &layout);
            past.iter().for_each(|work| run(&mut a, *work).expect("no cap"));
            let mut b = a.fork().expect("no cap");
            counted_once(&pool, &a, &b);
            prop_assert!(b.memory().shared > b.memory().payload, "all entries are shared at first");
            let (mut alone_a, mut alone_b) = (fresh(), fresh());
            prop_assert_eq!(state(&b), state(&alone_b), "{} {:?}", cache, &layout);
            for (in_a, kind, seed) in &works {
                // Mostly generated tokens; now and then a prompt.
                let work = Work { prompt: if *kind == 7 { (seed % 50) as usize + 45 } else { 0 }, seed: *seed };
                let (one, alone) = if *in_a { (&mut a, &mut alone_a) } else { (&mut b, &mut alone_b) };
                run(one, work).expect("no cap");
                run(alone, work).expect("no cap");
                prop_assert_eq!(state(&a), state(&alone_a), "{} {:?}", cache, &layout);
                prop_assert_eq!(state(&b), state(&alone_b), "{} {:?}", cache, &layout);
                counted_once(&pool, &a, &b);
            }
            drop(a);
            prop_assert_eq!(b.memory().shared, 0);
            prop_assert_eq!(pool.used(), b.memory().resident);
            prop_assert_eq!(state(&b), state(&alone_b), "{} {:?}", cache, &layout);
            drop(b);
            prop_assert_eq!(pool.used(), 0);
        }
    }
}

#[test]
fn what_finds_no_room_in_one_leaves_the_other_alone() {
    for cache in caches().into_iter().filter(|cache| cache["method"] != "full") {
        let pool = Pool::with_cap(60_000);
        let mut a = sequence(&pool, Format::F32, &cache, &layouts()[0]);
        run(&mut a, Work { prompt: 60, seed: 1 }).expect("fits");
        let mut b = a.fork().expect("fits");
        let before = state(&b);
        let mut seed = 2;
        let refused = loop {
            match run(&mut a, Work { prompt: if seed % 5 == 0 { 45 } else { 0 }, seed }) {
                Ok(()) if seed > 60 => {
                    // Nothing is left for the other to copy into.
                    let forks: Vec<_> = std::iter::from_fn(|| a.fork().ok()).collect();
                    let error = a.fork().map(|_| ()).expect_err("the pool is full");
                    drop(forks);
                    break error;
                }
                Ok(()) => seed += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::OutOfMemory { .. }), "{cache}: {refused}");
        assert_eq!(state(&b), before, "{cache}");
        drop(a);
        run(&mut b, Work { prompt: 0, seed: 9 }).unwrap_or_else(|error| panic!("{cache}: {error}"));
        drop(b);
        assert_eq!(pool.used(), 0, "{cache}");
    }
}

/// An entry of a group is deleted by a flag, which is part of what is shared.
#[test]
fn groups_that_are_shared_are_deleted_from_in_one_only() {
    let (pool, other) = (Pool::unlimited(), Pool::unlimited());
    let options =
        LaneOptions { head_dim: 32, codec: KvCodec::F32, folded: false, rotation: Rotation::Stored, scored: true };
    let mut a = Lane::new(0..HEADS, options, pool.account()).expect("no cap");
    let data = noise(5, 80 * HEADS * 32);
    let rows = Rows::dense(&data, HEADS * 32);
    a.append(New { keys: rows, values: rows, angles: None }, 80, 0).expect("no cap");
    let group: Vec<u32> = (0..32).collect();
    let value = Codec::per_entry(Dtype::U4, 32);
    let codec = KvCodec { key: Codec::per_channel(Dtype::U4, 32), value, ..KvCodec::F32 };
    a.recode(&[Recode::new(codec, group)]).expect("a group");
    let before = (a.positions(), bits(&a, 32), a.dead_bytes());
    let mut b = a.fork(&pool.account()).expect("no cap");
    assert!(a.fork(&other.account()).is_ok_and(|fork| fork.shared_bytes() > 0));
    let shared = b.shared_bytes();
    let of_group = b.sorted()[5].place;
    b.delete(of_group).expect("there");
    assert!(b.dead_bytes() > 0 && b.shared_bytes() < shared);
    let kept: Vec<u32> = b.sorted().iter().skip(3).step_by(2).map(|entry| entry.place).collect();
    b.retain(&kept).expect("there");
    assert_eq!((a.positions(), bits(&a, 32), a.dead_bytes()), before);
    assert_eq!((b.shared_bytes(), a.shared_bytes()), (0, 0));
    drop((a, b));
    assert_eq!(pool.used(), 0);
}
