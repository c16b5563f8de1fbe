mod among;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::codec::{Basis, Channels, Codec, Dtype, Found, KvCodec, Levels, Map, OwnedRun};
use crate::reference;
use crate::rotary::Angles;

/// Deterministic noise in -1..1.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Entries that a codec encodes together.
const GROUP: usize = 32;

/// A lane of several runs, some with room to spare, in several codecs.
struct Owned {
    heads: usize,
    runs: Vec<OwnedRun>,
    turns: Option<(Angles, Vec<u32>)>,
    dead: Option<Vec<bool>>,
    positions: Vec<u32>,
    ends: Option<Vec<u32>>,
}

/// How the lanes of a test are made.
#[derive(Clone, Copy, Debug)]
struct Traits {
    /// Whether f16 is among the formats.
    halves: bool,
    /// Whether runs are kept in codes, if their length and width allow it.
    codes: bool,
    /// Whether keys are stored unrotated.
    phases: bool,
    /// The transforms that keys and values are stored through, if the width allows it and transformed keys are rotated.
    dual: Dual,
    /// Whether some runs have bases of their own.
    bases: bool,
    /// Whether values in a basis are read from the coordinates of keys, where both have as many.
    shared: bool,
    /// Whether the rows of some runs have factors.
    gains: bool,
    /// One of this many entries is dead; 0: none.
    dead: usize,
    /// Entries of room behind those in use.
    spare: usize,
}

fn traits() -> impl Strategy<Value = Traits> {
    let dual = prop::sample::select(vec![
        Dual::None,
        Dual::None,
        Dual::Hadamard,
        Dual::Random,
        Dual::HadamardKeys,
        Dual::HadamardValues,
    ]);
    let some = any::<bool>;
    let flags = (some(), some(), some(), some(), some(), some(), dual);
    (flags, prop::sample::select(vec![0, 0, 2, 7]), 0usize..5).prop_map(
        |((halves, codes, phases, bases, shared, gains, dual), dead, spare)| Traits {
            halves,
            codes,
            phases,
            dual,
            bases,
            shared,
            gains,
            dead,
            spare,
        },
    )
}

/// The codec of run `index` of a lane of heads of `dim`, stored in rows of `width`.
fn codec_of(index: usize, (dim, width): (usize, usize), len: usize, traits: Traits) -> KvCodec {
    let plain = KvCodec::plain(if traits.halves && index.is_multiple_of(2) { Dtype::F16 } else { Dtype::F32 });
    let rotates = traits.phases && !traits.dual.keys().is_none();
    let dual = if !rotates && dim.is_power_of_two() { traits.dual } else { Dual::None };
    let channels = Codec::channels(width, 32).unwrap_or(8);
    let of = |key, value| KvCodec::new(key, value, dual);
    let codes = match index % 9 {
        0 => of(Codec::per_channel(Dtype::U4, 32), Codec::per_entry(Dtype::U4, channels)),
        1 => of(Codec::per_channel(Dtype::U2, 32), Codec::per_entry(Dtype::U2, channels)),
        2 => of(Codec::per_entry(Dtype::U8, channels), Codec::per_entry(Dtype::U8, channels)),
        3 => of(Codec::per_entry(Dtype::U4, channels), Codec::per_channel(Dtype::U2, 16)),
        4 => of(Codec::F16, Codec::per_entry(Dtype::U4, channels)),
        5 => of(Codec::plain(Dtype::Bf16), Codec::plain(Dtype::F8)),
        6 => {
            let whole = |dtype| Codec::of_levels(dtype, Levels::Normal, width as u16);
            of(whole(Dtype::U4), whole(Dtype::U2))
        }
        7 => of(Codec::per_entry(Dtype::U2, channels), Codec::per_entry(Dtype::U4, channels)),
        _ => of(plain.key, plain.value),
    };
    let check = KvCodec { dual: Dual::None, ..codes }.check(width).and(codes.dual.check(dim));
    let fits = traits.codes && check.is_ok() && len.is_multiple_of(codes.group());
    if fits { codes } else { KvCodec { dual, ..plain } }
}

/// Levels that were found, with a number of each row apart.
fn found_of(seed: u64, heads: usize, dim: usize, dual: Dual) -> (KvCodec, Arc<Basis>) {
    let levels = |n: usize| (0..n).map(|i| (i as f32 / n as f32).powi(2) - 0.4).collect::<Vec<_>>();
    let scales = noise(seed, heads * dim).iter().map(|x| x.abs() + 0.2).collect();
    let channels = Channels { scales, zeros: noise(seed + 1, heads * dim) };
    let keys = Found::new(&levels(4), Some(channels)).expect("keys");
    let values = Found::new(&levels(16), None).expect("values");
    let codec = KvCodec::new(keys.codec(1), values.codec(1), dual);
    (codec, Basis::calibrated(heads, dim, keys, values).expect("a basis"))
}

/// The coordinates of keys or values: some channels, a matrix per head or one for all heads, or those of the heads.
fn map_of(seed: u64, heads: usize, dim: usize, width: usize) -> Option<Map> {
    let matrix = |seed| noise(seed, heads * dim * width).iter().map(|x| x / (dim as f32).sqrt()).collect();
    let map = match seed % 4 {
        0 => return None,
        1 => {
            let step = if dim.is_multiple_of(5) { 3 } else { 5 };
            let channels = |head: usize| (0..width).map(move |i| ((i * step + head) % dim) as u16);
            Map::channels(heads, dim, (0..heads).flat_map(channels).collect())
        }
        2 => Map::per_head(heads, dim, width, matrix(seed)),
        _ => Map::joint(heads, dim, width, matrix(seed)),
    };
    Some(map.expect("a map"))
}

fn run(seed: u64, heads: usize, dim: usize, len: usize, codec: KvCodec, spare: usize) -> OwnedRun {
    run_in(None, seed, heads, dim, len, codec, spare)
}

#[allow(clippy::too_many_arguments)]
fn run_in(
    basis: Option<Arc<Basis>>,
    seed: u64,
    heads: usize,
    dim: usize,
    len: usize,
    codec: KvCodec,
    spare: usize,
) -> OwnedRun {
    let capacity = if codec.group() > 1 { len + spare / 2 * codec.group() } else { len + spare };
    let mut run = match basis {
        Some(basis) => OwnedRun::based(codec, basis, capacity),
        None => OwnedRun::new(codec, heads, dim, capacity),
    };
    run.push(&noise(seed, heads * len * dim), &noise(seed + 1, heads * len * dim));
    run
}

impl Owned {
    fn new(seed: u64, heads: usize, dim: usize, lens: &[usize], traits: Traits) -> Self {
        // Two runs share a basis.
        let width = if dim.is_multiple_of(8) { dim / 8 * 8 - if dim > 8 { 8 } else { 0 } } else { dim - 2 };
        let (keys, values) = (map_of(seed, heads, dim, width), map_of(seed / 4, heads, dim, width));
        let of_both = keys.is_some() && values.is_some();
        let width = if of_both { width } else { dim };
        let one_row = match (&keys, &values) {
            (Some(keys), Some(values)) => traits.shared && keys.cut() == values.cut(),
            _ => false,
        };
        let basis = (traits.bases && (of_both || !traits.codes)).then(|| match (keys, values) {
            (Some(keys), Some(values)) if one_row => Basis::shared(heads, dim, keys, values, [0.75, 0.5]),
            (keys, values) => Basis::new(heads, dim, keys, values),
        });
        let basis = basis.map(|basis| basis.expect("a basis"));
        let runs = lens
            .iter()
            .enumerate()
            .map(|(i, &len)| {
                let basis = basis.clone().filter(|_| i % 3 != 1);
                let width = if basis.is_some() { width } else { dim };
                let mut codec = codec_of(i + seed as usize % 9, (dim, width), len, traits);
                if basis.as_ref().is_some_and(|basis| basis.based().is_shared()) {
                    codec.value = codec.key;
                }
                let (codec, basis) = if traits.codes && i % 3 == 1 && seed.is_multiple_of(2) && dim.is_multiple_of(8) {
                    let (codec, basis) = found_of(seed, heads, dim, codec.dual);
                    (codec, Some(basis))
                } else {
                    (codec, basis)
                };
                let run = run_in(basis, seed + 2 * i as u64 + 1, heads, dim, len, codec, traits.spare);
                if !traits.gains || (i as u64 + seed) % 4 == 3 {
                    return run;
                }
                let numbers = heads * run.capacity();
                let gains = |seed| noise(seed, numbers).iter().map(|x| x.abs() + 0.2).collect();
                run.scaled(gains(seed + 11), gains(seed + 12))
            })
            .collect();
        let len = lens.iter().sum::<usize>();
        let turns = (traits.phases && dim.is_multiple_of(2)).then(|| {
            let frequencies: Vec<f32> = (0..dim / 2).map(|i| 0.7f32.powi(i as i32)).collect();
            // Angles of entries to come do no harm; in any order, some of them together.
            let (len, some) = (len as u32, seed as u32 % 5 + 1);
            let of = (0..len).map(|entry| (entry / some * some * 7 + entry % some) % (len + 2)).collect();
            (Angles::new(3..5 + len, &frequencies, 1.0), of)
        });
        let dead = (traits.dead > 0).then(|| {
            let of = traits.dead as u64;
            // Whole chunks of decode die now and then.
            (0..len as u64)
                .map(|e| ((e * 7919 + seed) % 101).is_multiple_of(of) || of == 2 && e / 300 % 2 == 1)
                .collect()
        });
        Owned { heads, runs, turns, dead, positions: positions(seed, len, len / 2), ends: None }
    }

    fn view(&self) -> LaneView<'_> {
        LaneView {
            turns: self.turns.as_ref().map(|(angles, of)| Turns { angles, of }),
            dead: self.dead.as_deref(),
            positions: Some(&self.positions),
            ends: self.ends.as_deref(),
            ..LaneView::new(self.heads, self.runs.iter().map(OwnedRun::run).collect())
        }
    }
}

/// Positions of `len` entries, of which the last `own` are in order: some are missing, and of the others some are out of order.
fn positions(seed: u64, len: usize, own: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..len as u32).map(|entry| entry + entry / 5 * (seed % 3) as u32).collect();
    for i in 0..(len - own) / 4 {
        all.swap(i, (i * 7919 + seed as usize) % (len - own));
    }
    all
}

/// How far each of `n` queries sees: some are in blocks that see each other, shorter and longer than the kernel's own.
fn ends(seed: u64, n: usize) -> Vec<u32> {
    let (mut ends, mut random) = (Vec::with_capacity(n), noise(seed, n + 1).into_iter());
    while ends.len() < n {
        let x = random.next().unwrap_or(0.0);
        let len = if x > 0.0 { 1 + (x * [9.0, 90.0, 200.0][ends.len() % 3]) as usize } else { 1 };
        let end = (ends.len() + len).min(n);
        ends.resize(end, end as u32);
    }
    ends
}

fn params(query_heads: usize, kv_heads: usize, dim: usize, scale: f32) -> AttentionParams {
    AttentionParams { scale, ..AttentionParams::new(query_heads, kv_heads, dim) }
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "element {i}: {got} for {want}");
    }
}

/// Each element to 1e-5 of itself; nothing where there must be nothing.
fn assert_relatively_close(got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= 1e-5 * want.abs(), "element {i}: {got} for {want}");
    }
}

fn on_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(run)
}

/// A window, if any: shorter and longer than blocks, tiles and lanes.
fn sliding() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(prop::sample::select(vec![1u32, 2, 5, 33, 64, 100, 700, 2000]))
}

fn softcap() -> impl Strategy<Value = Option<f32>> {
    prop::option::of(prop::sample::select(vec![0.3f32, 2.0, 30.0]))
}

fn dims() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![4usize, 7, 16, 32, 64, 80, 96, 128, 256])
}

/// `len` entries as runs: up to `cut` entries at first, groups of codes, then the rest.
fn lens(len: usize, cut: usize) -> Vec<usize> {
    let first = cut.min(len);
    let groups = (len - first) / GROUP / 2;
    let mut lens = vec![first];
    lens.extend(std::iter::repeat_n(GROUP, groups));
    lens.push(len - first - groups * GROUP);
    lens
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn prefill_equals_the_reference(
        seed in 1u64..1_000_000, dim in dims(), group in 1usize..4, n in 1usize..150, past in 0usize..90,
        heads in prop::collection::vec(1usize..3, 1..3), traits in traits(), causal: bool, cut in 0usize..200,
        window in 0usize..200, sliding in sliding(), softcap in softcap(), blocks: bool,
    ) {
        // Ragged lanes: each keeps another number of past entries, in several runs.
        let ends = (causal && blocks).then(|| ends(seed + 3, n));
        let lanes: Vec<Owned> = heads
            .iter()
            .enumerate()
            .map(|(i, &heads)| {
                let seed = seed + 100 * i as u64;
                let lane = Owned::new(seed, heads, dim, &lens(n + past / (i + 1), cut), traits);
                Owned { positions: positions(seed, n + past / (i + 1), n), ends: ends.clone(), ..lane }
            })
            .collect();
        let views: Vec<LaneView<'_>> = lanes.iter().map(Owned::view).collect();
        let query_heads = group * heads.iter().sum::<usize>();
        let queries = noise(seed, n * query_heads * dim);
        let params = AttentionParams {
            mask: if causal { Mask::Causal } else { Mask::None },
            window: sliding.filter(|_| causal),
            softcap,
            ..AttentionParams::new(query_heads, heads.iter().sum(), dim)
        };
        // Weights of the last queries only, some of them 0.
        let weights: Vec<f32> = noise(seed + 5, n)
            .iter()
            .enumerate()
            .map(|(i, x)| if i + window >= n && *x > -0.6 { x + 1.0 } else { 0.0 })
            .collect();
        let (want, columns) = reference::attention_and_sums(&params, &queries, n, &views, &weights);

        let mut got = vec![f32::NAN; want.len()];
        prefill(&params, Rows::dense(&queries, query_heads * dim), n, &views, None, &mut got);
        assert_close(&got, &want, 2e-5);

        // The same queries as a slice of wider rows.
        let stride = query_heads * dim + 5;
        let mut wide = vec![9.0; n * stride];
        for i in 0..n {
            wide[i * stride + 3..][..query_heads * dim].copy_from_slice(&queries[i * query_heads * dim..][..query_heads * dim]);
        }
        let rows = Rows::strided(&wide, 3, stride);
        let mut again = vec![f32::NAN; want.len()];
        prefill(&params, rows, n, &views, None, &mut again);
        assert_close(&again, &want, 2e-5);

        // The column sums, into buffers that held something else; `out` is the same to the bit.
        let mut sums = vec![vec![7.0; 3]; 9];
        again.fill(f32::NAN);
        let gather = Some(Gather { weights: &weights, sums: &mut sums });
        prefill(&params, rows, n, &views, gather, &mut again);
        prop_assert!(got == again);
        prop_assert_eq!(sums.len(), columns.len());
        for (sums, columns) in sums.iter().zip(&columns) {
            assert_relatively_close(sums, columns);
        }

        // And so are the sums from any number of threads.
        for threads in [1, 3] {
            let mut others = Vec::new();
            on_threads(threads, || {
                let gather = Some(Gather { weights: &weights, sums: &mut others });
                prefill(&params, rows, n, &views, gather, &mut again);
            });
            prop_assert!(sums == others && got == again);
        }
    }

    #[test]
    fn decode_equals_the_reference(
        seed in 1u64..1_000_000, dim in dims(), group in 1usize..8, traits in traits(),
        lens in prop::collection::vec(prop::sample::select(vec![0usize, 1, 2, 15, 16, 17, 32, 511, 512, 513, 700]), 1..5),
        heads in prop::collection::vec(1usize..4, 1..3), spare in 0usize..17, window in sliding(), softcap in softcap(),
    ) {
        prop_assume!(lens.iter().sum::<usize>() > 0);
        // Two sequences with the same lanes but other queries, in one sweep.
        let lanes: Vec<Owned> = heads
            .iter()
            .enumerate()
            .map(|(i, &heads)| {
                let lens: Vec<usize> = lens.iter().map(|&len| if len == GROUP { len } else { len / (i + 1) }).collect();
                Owned::new(seed + 100 * i as u64, heads, dim, &lens, Traits { spare, ..traits })
            })
            .collect();
        let views: Vec<LaneView<'_>> = lanes.iter().map(Owned::view).filter(|view| !view.is_empty()).collect();
        prop_assume!(!views.is_empty());
        let kv_heads = views.iter().map(|view| view.heads).sum::<usize>();
        let scale = 1.7 / (dim as f32).sqrt();
        let params = AttentionParams { window, softcap, ..params(group * kv_heads, kv_heads, dim, scale) };
        let queries: Vec<Vec<f32>> = (0..2 * views.len())
            .map(|i| noise(seed + 7 * i as u64, views[i % views.len()].heads * group * dim))
            .collect();
        // The second sequence asks for sums.
        let run = || {
            let mut outs: Vec<Vec<f32>> = queries.iter().map(|q| vec![f32::NAN; q.len()]).collect();
            let mut sums: Vec<Vec<f32>> =
                (0..queries.len()).map(|i| vec![0.0; views[i % views.len()].len()]).collect();
            let mut items: Vec<DecodeItem<'_>> = queries
                .iter()
                .zip(outs.iter_mut().zip(&mut sums))
                .enumerate()
                .map(|(i, (queries, (out, sums)))| {
                    let lane = views[i % views.len()].clone();
                    DecodeItem { lane, queries, out, sums: (i >= views.len()).then_some(sums) }
                })
                .collect();
            decode(&params, &mut items);
            (outs, sums)
        };
        let (outs, sums) = run();
        prop_assert!((&outs, &sums) == (&on_threads(1, run).0, &on_threads(3, run).1));
        for (i, (out, sums)) in outs.iter().zip(&sums).enumerate() {
            let view = &views[i % views.len()];
            let (want, want_sums) = reference::decode(&params, &queries[i], view);
            assert_close(out, &want, 2e-5);
            if i < views.len() {
                prop_assert!(sums.iter().all(|sum| *sum == 0.0));
            } else {
                assert_relatively_close(sums, &want_sums);
            }
        }
    }
}

/// 16-entry blocks behind groups of codes behind a long run: the tiles of a lane cover it once, in order.
#[test]
fn tiles_cover_a_lane() {
    let plain = Traits {
        halves: false,
        codes: true,
        phases: false,
        dual: Dual::None,
        bases: false,
        shared: false,
        gains: false,
        dead: 0,
        spare: 3,
    };
    let mut runs = vec![700, 20];
    runs.extend([GROUP; 40]);
    runs.extend([16; 5]);
    runs.extend([512, 9]);
    for traits in [plain, Traits { phases: true, ..plain }, Traits { halves: true, ..plain }] {
        let lane = Owned::new(5, 2, 32, &runs, traits);
        let view = lane.view();
        for width in [1, 699, 700, 701, 1500, view.len()] {
            let from = width / 3;
            let tiles = view.tiles(from, width);
            assert_eq!(tiles.iter().fold(from, |end, tile| if tile.0 == end { tile.1 } else { usize::MAX }), width);
            assert!(tiles.len() <= (width - from) / 512 + 4, "{tiles:?}");
        }
        let n = 300;
        let queries = noise(9, n * 4 * 32);
        let weights = vec![1.0; n];
        let (mut out, mut sums) = (vec![f32::NAN; queries.len()], Vec::new());
        let gather = Some(Gather { weights: &weights, sums: &mut sums });
        let params = params(4, 2, 32, 0.2);
        prefill(&params, Rows::dense(&queries, 4 * 32), n, std::slice::from_ref(&view), gather, &mut out);
        let (want, columns) = reference::attention_and_sums(&params, &queries, n, &[view], &weights);
        assert_close(&out, &want, 2e-5);
        for (sums, columns) in sums.iter().zip(&columns) {
            assert_relatively_close(sums, columns);
        }
    }
}

#[test]
fn keys_rotated_at_read_give_the_bits_of_keys_stored_rotated() {
    let (heads, dim, n) = (2, 64, 100);
    let (keys, values, queries) = (noise(1, n * heads * dim), noise(2, n * heads * dim), noise(3, n * 4 * dim));
    let frequencies: Vec<f32> = (0..dim / 2).map(|i| 0.8f32.powi(i as i32)).collect();
    let angles = Angles::new(0..n as u32, &frequencies, 1.0);
    let order: Vec<u32> = (0..n as u32).collect();
    let store = |angles| {
        let (mut k, mut v) = (vec![0.0f32; keys.len()], vec![0.0f32; keys.len()]);
        let (keys, values) = (Rows::dense(&keys, heads * dim), Rows::dense(&values, heads * dim));
        crate::rotary::append(
            crate::rotary::New { keys, values, skip: 0, n, angles },
            Dual::None,
            0..heads,
            dim,
            &mut k,
            &mut v,
            0,
        );
        (k, v)
    };
    let (rotated, plain) = (store(Some(&angles)), store(None));
    let view = |(keys, values)| LaneView::new(heads, vec![Run::plain(keys, values, n, n)]);
    let stored = view((&rotated.0, &rotated.1));
    let read = LaneView { turns: Some(Turns { angles: &angles, of: &order }), ..view((&plain.0, &plain.1)) };
    let prefilled = |view: &LaneView<'_>| {
        let mut out = vec![f32::NAN; queries.len()];
        let rows = Rows::dense(&queries, 4 * dim);
        prefill(&params(4, heads, dim, 0.1), rows, n, std::slice::from_ref(view), None, &mut out);
        out
    };
    assert!(prefilled(&stored) == prefilled(&read));
    let decoded = |lane: &LaneView<'_>| {
        let mut out = vec![f32::NAN; 4 * dim];
        let item = DecodeItem { lane: lane.clone(), queries: &queries[..4 * dim], out: &mut out, sums: None };
        decode(&params(4, heads, dim, 0.1), &mut [item]);
        out
    };
    assert!(decoded(&stored) == decoded(&read));
}

#[test]
fn a_lane_of_dead_entries_gives_zeros() {
    let (dim, len) = (32, 1100);
    let (keys, values, queries) = (noise(1, len * dim), noise(2, len * dim), noise(3, 3 * 2 * dim));
    let run = Run::plain(&keys, &values, len, len);
    let dead = vec![true; len];
    let view = LaneView { dead: Some(&dead), ..LaneView::new(1, vec![run]) };
    let (mut out, mut sums) = (vec![f32::NAN; 2 * dim], vec![0.5; len]);
    let queries_now = &queries[..2 * dim];
    let params = params(2, 1, dim, 1.0);
    let item = DecodeItem { lane: view.clone(), queries: queries_now, out: &mut out, sums: Some(&mut sums) };
    decode(&params, &mut [item]);
    assert!(out.iter().all(|x| *x == 0.0) && sums.iter().all(|x| *x == 0.5));
    let (mut out, mut sums) = (vec![f32::NAN; queries.len()], Vec::new());
    let gather = Some(Gather { weights: &[1.0; 3], sums: &mut sums });
    prefill(&params, Rows::dense(&queries, 2 * dim), 3, &[view], gather, &mut out);
    assert!(out.iter().all(|x| *x == 0.0) && sums == [vec![0.0; len]]);
}

#[test]
fn extreme_scores_neither_overflow_nor_vanish() {
    // Scores of +-3000: the softmax must still sum to one, on one entry.
    let keys = [vec![1000.0f32; 4], vec![-1000.0; 4], vec![999.0; 4]].concat();
    let values = [vec![1.0f32; 4], vec![2.0; 4], vec![3.0; 4]].concat();
    let run = Run::plain(&keys, &values, 3, 3);
    let view = LaneView::new(1, vec![run]);
    let queries = [0.75f32; 4];
    let mut out = [0.0; 4];
    let params = params(1, 1, 4, 1.0);
    decode(&params, &mut [DecodeItem { lane: view.clone(), queries: &queries, out: &mut out, sums: None }]);
    let want = reference::decode(&params, &queries, &view).0;
    assert_close(&out, &want, 1e-5);
    assert!((out[0] - 1.0).abs() < 0.2);
}

#[test]
fn a_prefill_that_is_stopped_does_no_more_blocks() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (n, dim) = (640, 8);
    let data: Vec<f32> = (0..n * dim).map(|i| ((i * 37) % 101) as f32 / 101.0 + 0.1).collect();
    let run = Run::plain(&data, &data, n, n);
    let lanes = [LaneView::new(1, vec![run])];
    for gathers in [false, true] {
        let asked = AtomicUsize::new(0);
        let stopped = || asked.fetch_add(1, Ordering::Relaxed) >= 4;
        let (weights, mut sums) = (vec![1.0; n], Vec::new());
        let gather = gathers.then_some(Gather { weights: &weights, sums: &mut sums });
        let mut out = vec![0.0; n * dim];
        let rows = Rows::dense(&data, dim);
        prefill_unless(&stopped, &params(1, 1, dim, 0.1), rows, n, &lanes, gather, &mut out);
        let done = out.chunks(dim).filter(|row| row.iter().any(|x| *x != 0.0)).count();
        assert_eq!(done, 4 * 64, "four blocks of ten, each whole");
        assert_eq!(asked.load(Ordering::Relaxed), 10);
    }
}

#[test]
fn what_no_query_of_a_block_sees_is_not_read() {
    let (n, dim) = (1024, 8);
    // Entries before the window of the queries are not numbers, and not a product of 0 either.
    let mut data = noise(4, n * dim);
    let queries = noise(5, 64 * dim);
    let positions: Vec<u32> = (0..n as u32).collect();
    data[..(n - 64 - 255) * dim].fill(f32::NAN);
    let run = Run::plain(&data, &data, n, n);
    let view = LaneView { positions: Some(&positions), ..LaneView::new(1, vec![run]) };
    let params = AttentionParams { window: Some(256), ..params(1, 1, dim, 0.5) };
    let (mut out, mut sums) = (vec![f32::NAN; 64 * dim], Vec::new());
    let gather = Some(Gather { weights: &[1.0; 64], sums: &mut sums });
    prefill(&params, Rows::dense(&queries, dim), 64, std::slice::from_ref(&view), gather, &mut out);
    assert!(out.iter().chain(&sums[0]).all(|x| x.is_finite()));
    assert!((sums[0].iter().sum::<f32>() - 64.0).abs() < 1e-3);
    let item = DecodeItem { lane: view, queries: &queries[..dim], out: &mut out[..dim], sums: None };
    decode(&params, &mut [item]);
    assert!(out[..dim].iter().all(|x| x.is_finite()));
}

#[test]
#[should_panic(expected = "a window needs the positions")]
fn a_window_over_unknown_positions_is_a_defect() {
    let data = noise(4, 8);
    let run = Run::plain(&data, &data, 1, 1);
    let params = AttentionParams { window: Some(2), ..params(1, 1, 8, 0.5) };
    prefill(&params, Rows::dense(&data, 8), 1, &[LaneView::new(1, vec![run])], None, &mut [0.0; 8]);
}

/// A lane of entries in two, four and eight bits, in f16, and in bf16 and f8, and in levels of four and two, one run each.
fn lane_of_every_codec(seed: u64, heads: usize, dim: usize, dual: Dual) -> Vec<OwnedRun> {
    let channels = Codec::channels(dim, 32).expect("a multiple of 8");
    let kivi = |dtype| (Codec::per_channel(dtype, 32), Codec::per_entry(dtype, channels));
    let eight = Codec::per_entry(Dtype::U8, channels);
    let floats = (Codec::plain(Dtype::F8), Codec::plain(Dtype::Bf16));
    let normal = |dtype, group: usize| Codec::of_levels(dtype, Levels::Normal, group as u16);
    let looked_up = (normal(Dtype::U4, dim), normal(Dtype::U2, dim / 2));
    [kivi(Dtype::U2), kivi(Dtype::U4), (eight, eight), (Codec::F16, Codec::F16), floats, looked_up]
        .into_iter()
        .zip([96, 32, 51, 70, 41, 37])
        .zip(seed..)
        .map(|(((key, value), len), seed)| run(2 * seed, heads, dim, len, KvCodec::new(key, value, dual), 0))
        .collect()
}

#[test]
fn a_lane_of_every_codec_is_attended_like_its_decoded_entries() {
    for (dim, group) in [(64, 1), (64, 3), (80, 2), (128, 4), (128, 8)] {
        for (dual, n) in [
            (Dual::None, 1),
            (Dual::None, 40),
            (Dual::Hadamard, 1),
            (Dual::Random, 1),
            (Dual::Random, 40),
            (Dual::HadamardKeys, 1),
            (Dual::HadamardKeys, 40),
            (Dual::HadamardValues, 1),
            (Dual::HadamardValues, 40),
        ] {
            if dual.check(dim).is_err() {
                continue;
            }
            // Two heads of one length, and one whose lane has lost its first run.
            let lanes = [lane_of_every_codec(3, 2, dim, dual), lane_of_every_codec(9, 1, dim, dual).split_off(1)];
            let views =
                lanes.each_ref().map(|runs| LaneView::new(runs[0].heads(), runs.iter().map(OwnedRun::run).collect()));
            let params = params(3 * group, 3, dim, 2.0 / (dim as f32).sqrt());
            let queries = noise(5, n * 3 * group * dim);
            let weights = vec![1.0; n];
            let (want, columns) = reference::attention_and_sums(&params, &queries, n, &views, &weights);
            let (mut out, mut sums) = (vec![f32::NAN; queries.len()], Vec::new());
            if n > 1 {
                let gather = Some(Gather { weights: &weights, sums: &mut sums });
                prefill(&params, Rows::dense(&queries, 3 * group * dim), n, &views, gather, &mut out);
                for (sums, columns) in sums.iter().zip(&columns) {
                    assert_relatively_close(sums, columns);
                }
            } else {
                let (first, second) = out.split_at_mut(2 * group * dim);
                let mut items = [
                    DecodeItem { lane: views[0].clone(), queries: &queries[..first.len()], out: first, sums: None },
                    DecodeItem {
                        lane: views[1].clone(),
                        queries: &queries[2 * group * dim..],
                        out: second,
                        sums: None,
                    },
                ];
                decode(&params, &mut items);
            }
            assert_close(&out, &want, 2e-5);
        }
    }
}

/// The dual of a transform that spreads an outlier leaves attention to plain entries as it is.
#[test]
fn attention_through_a_transform_is_attention() {
    for dim in [32, 64, 128] {
        let duals = [Dual::None, Dual::Hadamard, Dual::Random, Dual::HadamardKeys, Dual::HadamardValues];
        let [plain, through, turned, of_keys, of_values] = duals.map(|dual| {
            let lane = run(7, 2, dim, 300, KvCodec { dual, ..KvCodec::F32 }, 4);
            let view = LaneView::new(2, vec![lane.run()]);
            let queries = noise(9, 40 * 4 * dim);
            let params = params(4, 2, dim, 1.0 / (dim as f32).sqrt());
            let (mut all, mut one) = (vec![f32::NAN; queries.len()], vec![f32::NAN; 4 * dim]);
            let rows = Rows::dense(&queries, 4 * dim);
            prefill(&params, rows, 40, std::slice::from_ref(&view), None, &mut all);
            let queries = &queries[..4 * dim];
            decode(&params, &mut [DecodeItem { lane: view, queries, out: &mut one, sums: None }]);
            (all, one)
        });
        for (through, other) in [
            (&through, &plain),
            (&turned, &through),
            (&of_keys, &through),
            (&of_values, &through),
            (&of_keys, &of_values),
        ] {
            assert_close(&through.0, &plain.0, 1e-5);
            assert_close(&through.1, &plain.1, 1e-5);
            assert!(through.0 != other.0, "the transform was taken");
        }
    }
}
