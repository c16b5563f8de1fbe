//! Prompts that are read in pieces: the entries, sums and decisions of prompts that are read whole.

use std::path::Path;
use std::sync::Arc;

use prefixkv_core::Error;
use prefixkv_core::cache::{Format, Kept, Lane, LayerCache, Modality, Pool, Shape, Span};
use prefixkv_core::method::external::{LaneReply, MethodView, PlanReply};
use prefixkv_core::method::{METHODS, Method, OptionKind};
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::{Layout, Phases, Placing, Sequence};
use prefixkv_core::weights::WeightFormat;
use prefixkv_kernels::attention::{AttentionParams, Rows};
use prefixkv_kernels::rotary::{Frequencies, Sections};
use proptest::prelude::*;
use serde_json::{Value, json};

const LAYERS: usize = 3;
const HEADS: usize = 2;
const DIM: usize = 8;
const WIDTH: usize = HEADS * DIM;
/// Query heads of each KV head.
const GROUP: usize = 2;

/// One of many values, small and whole, so that sums are exact in any order.
fn draw(numbers: [u64; 4]) -> f32 {
    let mix = |state: u64, number: u64| (state ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (numbers.into_iter().fold(1, mix) >> 40 & 31) as f32
}

fn rows(seed: u64, layer: usize, positions: std::ops::Range<usize>, width: usize) -> Vec<f32> {
    let row = |position: usize| (0..width).map(move |i| draw([seed, layer as u64, position as u64, i as u64]) - 16.0);
    positions.flat_map(row).collect()
}

/// The attention that the entries of a lane have got from the queries at `positions`, which count `weights`.
fn sums(lane: &Lane, layer: usize, positions: std::ops::Range<usize>, weights: &[f32]) -> Vec<Vec<f32>> {
    let of = |head: usize| {
        let mut sums = vec![0.0; lane.places()];
        for entry in lane.entries() {
            let seen = positions.clone().zip(weights).filter(|(query, _)| *query >= entry.position as usize);
            let got = |(query, weight): (usize, &f32)| {
                weight * draw([(layer * HEADS + head) as u64, query as u64, u64::from(entry.position), 7])
            };
            sums[entry.place as usize] = seen.map(got).sum();
        }
        sums
    };
    lane.heads().map(of).collect()
}

/// Frequencies for all three axes.
fn turns() -> Frequencies {
    Frequencies::new(vec![1.0, 0.3, 0.1, 0.01], Some(Sections { sizes: [2, 1, 1], interleaved: false }))
}

/// The rows on their way, which a prompt, a piece of it or a token has brought, through all layers.
fn layers(sequence: &mut Sequence, first: usize, n: usize, step: bool, seed: u64) -> Result<(), Error> {
    let angles = match sequence.phases(n) {
        Phases::Stored(phases) => Some(turns().angles(phases)),
        Phases::Ranks(_) | Phases::OnRead { .. } => None,
    };
    let positions = first..first + n;
    sequence.look_ahead(&[turns()], n)?;
    for layer in 0..LAYERS {
        let (keys, values) =
            (rows(seed, layer, positions.clone(), WIDTH), rows(!seed, layer, positions.clone(), WIDTH));
        sequence.store(layer, Rows::dense(&keys, WIDTH), Rows::dense(&values, WIDTH), angles.as_ref())?;
        let all = |sequence: &Sequence, weights: &[f32]| -> Vec<Vec<f32>> {
            sequence.lanes(layer).iter().flat_map(|lane| sums(lane, layer, positions.clone(), weights)).collect()
        };
        if step {
            // Per lane, the heads together.
            let gathered = |lane: &Lane| sums(lane, layer, positions.clone(), &[1.0]).swap_remove(0);
            let gathers = sequence.gathers_step(layer);
            let sums: Vec<Vec<f32>> = sequence.lanes(layer).iter().filter(|_| gathers).map(gathered).collect();
            sequence.stepped(layer, &sums);
            continue;
        }
        let sums = sequence.query_weights(layer).map(|weights| all(sequence, &weights)).unwrap_or_default();
        let wanted = sequence.wanted_queries();
        if wanted > 0 {
            let params = AttentionParams::new(HEADS * GROUP, HEADS, DIM);
            sequence.keep_queries(
                layer,
                &params,
                &rows(seed ^ 5, layer, first + n - wanted..first + n, WIDTH * GROUP),
            )?;
        }
        sequence.attended(layer, &sums)?;
    }
    Ok(())
}

fn text(n: usize) -> [Span; 1] {
    [Span { modality: Modality::Text, start: 0, len: n }]
}

/// Where the positions of a prompt are turned: anywhere, as in pictures, or one by one.
fn placing(n: usize, seed: u64) -> Placing {
    if !seed.is_multiple_of(3) {
        return Placing::InOrder;
    }
    let axis = |position: usize, axis: u64| draw([seed, position as u64, axis, 3]) as u32;
    let phases = (0..n).map(|position| [0, 1, 2].map(|of| axis(position, of))).collect();
    Placing::Placed { phases, advance: 32 }
}

/// Layers with entries of their own; and some that read those of another or have a window.
fn layout(seed: u64) -> Arc<Layout> {
    let layer = |source, window| LayerCache { source, window, rope: 0 };
    Arc::new(match seed % 2 {
        0 => Layout::plain(LAYERS),
        _ => Layout::new(vec![layer(0, None), layer(1, Some(20 + seed as u32 % 40)), layer(0, None)]),
    })
}

/// Reads a prompt whole, or in pieces of so many positions.
fn read(
    sequence: &mut Sequence,
    n: usize,
    placing: &Placing,
    pieces: Option<&[usize]>,
    seed: u64,
) -> Result<(), Error> {
    let past = sequence.next_position() as usize;
    match pieces {
        None => {
            sequence.begin_prompt(&text(n), placing)?;
            layers(sequence, past, n, false, seed)?;
        }
        Some(pieces) => {
            sequence.begin_cut_prompt(&text(n), placing)?;
            let mut done = 0;
            for piece in pieces {
                sequence.begin_piece(*piece)?;
                layers(sequence, past + done, *piece, false, seed)?;
                sequence.finish_piece()?;
                done += piece;
            }
        }
    }
    sequence.finish_prompt()
}

/// Carries out a plan from outside: every third entry goes.
fn answer(sequence: &mut Sequence) -> Result<Option<MethodView>, Error> {
    let Some(view) = sequence.question()? else { return Ok(None) };
    let kept = sequence.kept();
    let lanes = view.lanes.iter().map(|shown| {
        let lane = kept[shown.layer].iter().find(|lane| lane.heads == shown.heads).expect("there");
        let keep = (0..lane.positions.len() as u32).filter(|entry| entry % 3 != 1).collect();
        LaneReply { keep: Some(keep), merge: Vec::new() }
    });
    let reply = PlanReply { lanes: lanes.collect() };
    sequence.answer(&reply)?;
    Ok(Some(view))
}

fn step(sequence: &mut Sequence, seed: u64) -> Result<(), Error> {
    let position = sequence.next_position() as usize;
    sequence.begin_step()?;
    layers(sequence, position, 1, true, seed)?;
    sequence.finish_step()
}

/// Positions and places, the bits of the scores, those of keys and values.
type LaneState = (Vec<[u32; 2]>, Vec<u32>, Vec<u32>);

/// Everything that attention and methods see of a sequence.
fn state(sequence: &Sequence) -> Vec<LaneState> {
    let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    let of = |lane: &Lane| {
        let sorted = lane.sorted();
        let mut numbers = lane.keys(&sorted).expect("read");
        numbers.extend(lane.values(&sorted).expect("read"));
        (sorted.iter().map(|entry| [entry.position, entry.place]).collect(), bits(lane.scores()), bits(numbers))
    };
    (0..LAYERS).flat_map(|layer| sequence.lanes(layer).iter().map(of).collect::<Vec<_>>()).collect()
}

fn sequence(pool: &Pool, cache: &Value, layout: Arc<Layout>) -> Result<Sequence, Error> {
    let shape = Shape { layers: LAYERS, kv_heads: HEADS, head_dim: DIM, format: Format::F32 };
    Sequence::with_layout(shape, layout, pool, Method::parse(cache)?, true)
}

fn named() -> Vec<Value> {
    vec![
        json!({ "method": "full" }),
        json!({ "method": "prefixkv", "keep": 0.5 }),
        json!({ "method": "prefixkv", "keep": 0.5, "score": "text" }),
        json!({ "method": "prefixkv", "keep": 0.4, "variant": "paper" }),
        json!({ "method": "prefixkv", "keep": 0.5, "variant": "official" }),
        json!({ "method": "prefixkv", "keep": { "tokens": 20 } }),
        json!({ "method": "h2o", "keep": 0.5 }),
        json!({ "method": "h2o", "keep": { "tokens": 20 } }),
        json!({ "method": "snapkv", "keep": 0.5 }),
        json!({ "method": "snapkv", "keep": { "tokens": 40 } }),
        json!({ "method": "knorm", "keep": 0.5 }),
        json!({ "method": "streaming", "keep": { "tokens": 20 }, "positions": "cache" }),
        json!({ "method": "streaming", "keep": 0.5 }),
        json!({ "method": "random", "keep": 0.5 }),
        json!([{ "method": "h2o", "keep": 0.5 }, { "method": "merge" }]),
        json!({ "method": "int4", "window": 8, "group": 8 }),
        json!([{ "method": "h2o", "keep": 0.5 }, { "method": "int8" }]),
        json!([{ "method": "prefixkv", "keep": 0.5 }, { "method": "merge" }, { "method": "int2", "window": 8, "group": 16 }]),
        json!({ "method": "custom", "needs": { "sums": "columns", "lanes": "head", "moments": ["prompt", "step"], "every": 3 } }),
        json!({ "method": "custom", "needs": { "sums": "window", "window": 9, "queries": 12, "keys": true, "values": true } }),
        json!({ "method": "custom", "needs": { "sums": "question", "queries": 1000 } }),
    ]
}

/// The combinations that options give.
fn combinations() -> Vec<Value> {
    let spec = METHODS.iter().find(|spec| spec.name == "custom").expect("a method");
    let choices = |name: &str| match spec.options.iter().find(|option| option.name == name).map(|option| option.kind) {
        Some(OptionKind::Choice { values }) => values.to_vec(),
        _ => panic!("no choice {name}"),
    };
    let mut all = Vec::new();
    for score in choices("score") {
        for budget in choices("budget") {
            for lanes in choices("lanes") {
                for decode in choices("decode") {
                    all.push(json!({
                        "method": "custom", "keep": 0.5, "score": score, "budget": budget, "lanes": lanes, "decode": decode,
                    }));
                }
            }
        }
    }
    all.retain(|cache| Method::parse(cache).is_ok());
    all
}

/// Pieces of random sizes, `n` positions in all.
fn cut(n: usize, seed: u64) -> Vec<usize> {
    let (mut pieces, mut left) = (Vec::new(), n);
    while left > 0 {
        let most = 1 + (draw([seed, left as u64, 0, 0]) as usize * draw([seed, left as u64, 1, 0]) as usize) / 8;
        pieces.push(most.min(left));
        left -= most.min(left);
    }
    pieces
}

fn same(cache: &Value, n: usize, seed: u64) -> Result<(), TestCaseError> {
    let (pool, of_whole) = (Pool::unlimited(), Pool::unlimited());
    let (mut whole, mut pieces) = (
        sequence(&of_whole, cache, layout(seed)).expect("takes it"),
        sequence(&pool, cache, layout(seed)).expect("takes it"),
    );
    // Methods that place entries themselves refuse the placing of others.
    let places = cache.get("positions").is_some() || cache["variant"] == "official";
    whole.keep_plans();
    pieces.keep_plans();
    for turn in 0..2 {
        let cuts = cut(n + turn * 5, seed + turn as u64);
        let what = format!("{cache}, turn {turn} in pieces of {cuts:?}");
        let n = n + turn * 5;
        let placing = if places { Placing::InOrder } else { placing(n, seed) };
        read(&mut whole, n, &placing, None, seed).unwrap_or_else(|error| panic!("{what}: {error}"));
        read(&mut pieces, n, &placing, Some(&cuts), seed).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (want, got) = (answer(&mut whole).expect("a plan"), answer(&mut pieces).expect("a plan"));
        prop_assert_eq!(want.is_some(), cache.get("needs").is_some());
        prop_assert_eq!(got, want, "{}", &what);
        prop_assert_eq!(state(&pieces), state(&whole), "{}", &what);
        for token in 0..7 {
            step(&mut whole, token).expect("goes on");
            step(&mut pieces, token).expect("goes on");
            prop_assert_eq!(answer(&mut pieces).expect("a plan"), answer(&mut whole).expect("a plan"), "{}", &what);
            prop_assert_eq!(state(&pieces), state(&whole), "{} token {}", &what, token);
        }
        let (of_pieces, of_whole) = (pieces.memory(), whole.memory());
        prop_assert_eq!((of_pieces.payload, of_pieces.resident), (of_whole.payload, of_whole.resident), "{}", &what);
    }
    prop_assert_eq!(pieces.take_plans(), whole.take_plans(), "{}", cache);
    drop(pieces);
    prop_assert_eq!(pool.used(), 0, "{}", cache);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_cuts_leave_what_the_whole_leaves(n in 45usize..130, seed in 0u64..1_000_000) {
        for cache in named() {
            same(&cache, n, seed)?;
        }
    }

    #[test]
    fn so_with_every_combination(n in 45usize..100, seed in 0u64..1_000_000) {
        let combinations = combinations();
        // A sixteenth of them each time.
        for cache in combinations.iter().skip(seed as usize % 16).step_by(16) {
            same(cache, n, seed)?;
            same(&json!([cache, { "method": "merge" }]), n, seed)?;
            same(&json!([cache, { "method": "int4", "window": 8, "group": 8 }]), n, seed)?;
        }
    }

    #[test]
    fn what_stops_between_or_in_pieces_leaves_nothing(n in 45usize..130, seed in 0u64..1_000_000, stop in 0usize..40) {
        for cache in named() {
            let pool = Pool::unlimited();
            let mut sequence = sequence(&pool, &cache, layout(seed)).expect("takes it");
            read(&mut sequence, 50, &Placing::InOrder, None, seed).expect("reads");
            answer(&mut sequence).expect("a plan");
            let mut other = sequence.fork().expect("between two pieces of work");
            let before = state(&other);
            let cuts = cut(n, seed);
            sequence.begin_cut_prompt(&text(n), &Placing::InOrder).expect("begins");
            let mut done = 50;
            for piece in &cuts[..stop % cuts.len()] {
                sequence.begin_piece(*piece).expect("comes next");
                layers(&mut sequence, done, *piece, false, seed).expect("goes through");
                sequence.finish_piece().expect("is through");
                done += piece;
            }
            prop_assert!(sequence.fork().is_err() && sequence.begin_step().is_err() && sequence.finish_prompt().is_err());
            prop_assert!(sequence.begin_piece(0).is_err() && sequence.begin_piece(n + 1).is_err());
            prop_assert!(!sequence.is_sound());
            drop(sequence);
            prop_assert_eq!(state(&other), before, "{}", &cache);
            step(&mut other, seed).expect("goes on");
            drop(other);
            prop_assert_eq!(pool.used(), 0, "{}", &cache);
        }
    }
}

/// A whole prompt of a method that frees layer by layer needs less than pieces do; a refused one changes nothing.
#[test]
fn pieces_need_room_for_all_entries() {
    let cache = json!({ "method": "snapkv", "keep": 0.5 });
    let entry = (2 * WIDTH * 4) as u64;
    let held = sequence(&Pool::unlimited(), &cache, layout(0)).expect("no cap").memory().resident;
    let pool = Pool::with_cap(held + (LAYERS as u64 + 1) * 100 * entry);
    let mut sequence = sequence(&pool, &cache, layout(0)).expect("fits");
    assert!(matches!(sequence.admit_cut(&text(110)), Err(Error::OutOfMemory { .. })));
    assert!(sequence.admit(&text(110)).is_ok());
    assert_eq!(pool.used(), held);
    sequence.admit_cut(&text(80)).expect("fits");
    sequence.begin_cut_prompt(&text(80), &Placing::InOrder).expect("fits");
    sequence.begin_piece(30).expect("the first");
    layers(&mut sequence, 0, 30, false, 1).expect("fits");
    sequence.finish_piece().expect("ends");
    // The others take all that is left; the copy of a layer that the last piece makes has been set aside.
    let taken = pool.account().charge(pool.available()).expect("there");
    sequence.begin_piece(50).expect("the last");
    layers(&mut sequence, 30, 50, false, 1).expect("fits");
    sequence.finish_piece().expect("ends");
    sequence.finish_prompt().expect("ends");
    drop(taken);
    drop(sequence);
    assert_eq!(pool.used(), 0);
}

/// The prompt's logits, the entries that are left, the logits of what follows, and all scores.
type Read = (Vec<f32>, Vec<Vec<Kept>>, Vec<Vec<f32>>, Vec<f32>);

/// Reads `tokens`, whole or in pieces of at most so many, and `answer`.
fn through(model: &Model, cache: &Value, tokens: &[u32], answer: &[u32], most: Option<usize>) -> Read {
    let prompt = model.expand(tokens, 0).expect("text");
    let method = Method::parse(cache).expect("parses");
    let mut sequence = model.new_sequence_with(method, true).expect("a sequence");
    let logits = match most {
        None => model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads"),
        Some(most) => {
            let mut prefill = model.begin_prefill(&prompt, &[], &mut sequence, most).expect("begins");
            loop {
                if let Some(logits) = model.prefill_piece(&mut prefill, &mut sequence, &|| Ok(())).expect("reads") {
                    break logits;
                }
            }
        }
    };
    let kept = sequence.kept();
    let follow = answer.iter().map(|token| model.decode(*token, &mut sequence).expect("goes on")).collect();
    let lanes = (0..kept.len()).flat_map(|layer| sequence.lanes(layer).iter().map(Lane::scores).collect::<Vec<_>>());
    (logits, kept, follow, lanes.flatten().collect())
}

/// Through a model on the CPU: to the bit where no sum goes over several pieces, else to rounding.
fn bits(folder: &str, weights: WeightFormat, lengths: &[usize], sizes: &[usize]) {
    let exact = |cache: &Value| {
        let (method, score) = (cache["method"].as_str().unwrap_or(""), cache["score"].as_str().unwrap_or(""));
        ["full", "snapkv", "knorm", "streaming", "random"].contains(&method)
            || (method == "prefixkv" && score != "text" && cache.get("variant").is_none())
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let model = Model::load(&LoadOptions { weights, ..LoadOptions::new(source) }, &mut |_| Ok(())).expect("loads");
    let vocab = model.info().vocab_size as u32;
    for &n in lengths {
        let all: Vec<u32> = (0..n as u32 + 12).map(|i| (i * 7919 + i * i * 31) % (vocab - 10) + 5).collect();
        let (tokens, answer) = all.split_at(n);
        for cache in named().into_iter().filter(|cache| cache.get("needs").is_none()) {
            let (logits, kept, follow, scores) = through(&model, &cache, tokens, answer, None);
            for &most in sizes {
                let what = format!("{cache}: {n} positions in pieces of {most}, {weights:?}");
                let got = through(&model, &cache, tokens, answer, Some(most));
                assert!(got.0 == logits, "{what}: the prompt's logits");
                if exact(&cache) {
                    assert!(got.1 == kept && got.2 == follow && got.3 == scores, "{what}");
                } else if got.1 == kept {
                    for (want, got) in scores.iter().zip(got.3) {
                        let bound = n as f32 * f32::EPSILON * want.abs().max(1.0);
                        assert!((want - got).abs() <= bound, "{what}: a sum of {want} is {got}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_model_reads_pieces_to_the_bits_of_the_whole() {
    let folder = "tests/golden/fixtures/llama-linear-tied";
    for weights in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0] {
        bits(folder, weights, &[193, 520, 700], &[192, 256, 512]);
    }
}
