//! Lanes whose entries are stored in several codecs: whatever has been done to them, they hold what they should, and attention reads
//! the numbers that their codes stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use prefixkv_core::cache::{Account, Entry, Lane, LaneOptions, New, Pool, Recode, Rotation};
use prefixkv_kernels::attention::{AttentionParams, DecodeItem, LaneView, Rows, decode};
use prefixkv_kernels::codec::{Basis, Codec, Deletion, Dtype, Dual, KvCodec, Levels, Map, Transform};
use proptest::prelude::*;

const HEADS: usize = 2;
const DIM: usize = 32;
const WIDTH: usize = HEADS * DIM;
/// Queries per KV head.
const QUERIES: usize = 3;

const TWO: Codec = Codec::per_entry(Dtype::U2, 16);
const FOUR: Codec = Codec::per_entry(Dtype::U4, 32);
const EIGHT: Codec = Codec::per_entry(Dtype::U8, 8);

/// Full precision, codes per entry and per channel, keys and values in unlike codecs.
fn codecs(dual: Dual) -> [KvCodec; 10] {
    let of = |key, value| KvCodec::new(key, value, dual);
    [
        of(Codec::F16, Codec::F16),
        of(Codec::F32, Codec::F16),
        of(EIGHT, EIGHT),
        of(Codec::per_channel(Dtype::U4, 32), FOUR),
        of(Codec::per_channel(Dtype::U2, 8), TWO),
        of(Codec::per_channel(Dtype::U8, 16), Codec::per_channel(Dtype::U4, 16)),
        of(Codec::F16, TWO),
        of(Codec::plain(Dtype::Bf16), Codec::plain(Dtype::F8)),
        of(Codec::plain(Dtype::F8), FOUR),
        of(Codec::of_levels(Dtype::U4, Levels::Normal, 32), Codec::of_levels(Dtype::U2, Levels::Normal, 16)),
    ]
}

/// A quarter of the channels of each head left out, and the rest in other orders; half of the coordinates of each head in an orthonormal
/// basis; and half of those of all heads together, with the values in another order.
fn bases() -> [Arc<Basis>; 3] {
    let order =
        |width: u16| (0..HEADS as u16).flat_map(move |head| (0..width).map(move |i| (i * 5 + head) % DIM as u16));
    let channels = |width| Map::channels(HEADS, DIM, order(width).collect()).expect("channels");
    // Rows of the Walsh-Hadamard transform of `n` channels.
    let orthonormal = |n: usize| -> Vec<f32> {
        let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        (0..n / 2).flat_map(|i| (0..n).map(move |j| sign(i, j) / (n as f32).sqrt())).collect()
    };
    let per_head = Map::per_head(HEADS, DIM, DIM / 2, orthonormal(DIM).repeat(HEADS)).expect("rows per head");
    let joint = Map::joint(HEADS, DIM, WIDTH / 2, orthonormal(WIDTH)).expect("rows of all");
    [(Some(channels(24)), None), (Some(per_head.clone()), Some(per_head)), (Some(joint), Some(channels(DIM as u16)))]
        .map(|(keys, values)| Basis::new(HEADS, DIM, keys, values).expect("a basis"))
}

/// The codecs of entries in bases, whose rows are of 16, 24 and 32 numbers.
fn based(dual: Dual) -> [KvCodec; 4] {
    let of = |key, value| KvCodec::new(key, value, dual);
    let four = Codec::per_entry(Dtype::U4, 8);
    [
        of(Codec::F16, Codec::F16),
        of(Codec::F32, four),
        of(Codec::per_channel(Dtype::U4, 16), Codec::plain(Dtype::F8)),
        of(four, Codec::F32),
    ]
}

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The largest error of a number that is stored in a codec, when the numbers lie within `bound`: half a step of the codes, and scale and
/// zero in f16, of which the codes take the scale `most` times.
fn step(codec: Codec, bound: f64) -> f64 {
    const HALF_ULP: f64 = 1.0 / 2048.0;
    match codec.dtype {
        Dtype::F32 => 0.0,
        Dtype::F16 => bound * HALF_ULP,
        Dtype::Bf16 => bound / 256.0,
        Dtype::F8 => bound / 16.0,
        // Levels are 1.06 scales apart at most, and no number lies farther from the last one than from 0.
        _ if codec.levels == Levels::Normal => bound,
        dtype => 2.0 * bound / f64::from(dtype.most()) / 2.0 + 3.0 * bound * HALF_ULP + 1e-6,
    }
}

/// An entry as it should be.
#[derive(Clone, Debug)]
struct Want {
    key: Vec<f32>,
    value: Vec<f32>,
    /// How far a stored number may be from these, keys and values.
    off: [f64; 2],
    codec: KvCodec,
    basis: Option<Arc<Basis>>,
    /// Entries with the same number share scales.
    group: Option<u64>,
}

/// A lane and what it should hold, by position.
struct History {
    lane: Lane,
    account: Account,
    want: BTreeMap<u32, Want>,
    dual: Dual,
    /// Whether new values come through the Hadamard transform.
    folded: bool,
    bases: [Arc<Basis>; 3],
    next: u32,
    groups: u64,
}

impl History {
    fn new(pool: &Pool, dual: Dual, folded: bool) -> History {
        let account = pool.account();
        let codec = KvCodec { dual, ..KvCodec::F32 };
        let options = LaneOptions { head_dim: DIM, codec, folded, rotation: Rotation::Stored, scored: true };
        let lane = Lane::new(0..HEADS, options, account.clone()).expect("no cap");
        History { lane, account, want: BTreeMap::new(), dual, folded, bases: bases(), next: 0, groups: 0 }
    }

    /// Whether rows lie there as they are asked for.
    fn is_plain(&self) -> bool {
        self.dual.is_none() && !self.folded
    }

    /// The transforms that keys (0) or values (1) are stored through.
    fn through(&self, side: usize) -> impl DoubleEndedIterator<Item = Transform> {
        let folded = (side == 1 && self.folded).then_some(Transform::Hadamard);
        folded.into_iter().chain([[self.dual.keys(), self.dual.values()][side]])
    }

    fn fork(&self, pool: &Pool) -> History {
        let account = pool.account();
        let lane = self.lane.fork(&account).expect("no cap");
        History { lane, account, want: self.want.clone(), bases: self.bases.clone(), ..*self }
    }

    fn append(&mut self, n: usize, seed: u64) {
        let (keys, values) = (noise(seed, n * WIDTH), noise(!seed, n * WIDTH));
        let rows = |rows| Rows::dense(rows, WIDTH);
        let mut arriving = values.clone();
        if self.folded {
            Transform::Hadamard.apply(&mut arriving, DIM);
        }
        let new = New { keys: rows(&keys), values: rows(&arriving), angles: None };
        match n {
            1 => drop(self.lane.append_one(new, self.next).expect("no cap")),
            n => self.lane.append(new, n, self.next).expect("no cap"),
        }
        for (key, value) in keys.chunks(WIDTH).zip(values.chunks(WIDTH)) {
            // The transform and its inverse are in f32.
            let off = [if self.is_plain() { 0.0 } else { 1e-5 }; 2];
            let codec = KvCodec { dual: self.dual, ..KvCodec::F32 };
            self.want
                .insert(self.next, Want { key: key.into(), value: value.into(), off, codec, basis: None, group: None });
            self.next += 1;
        }
    }

    /// The most that an entry may be off by after it went through a codec once more. A transform mixes the channels, so that a head's errors may
    /// come together in one of them.
    fn stored(&self, want: &Want, codec: KvCodec) -> [f64; 2] {
        let (mixed, wide) = match (self.is_plain(), codec.basis) {
            (true, None) => (1.0, 1.0),
            (false, None) => ((DIM as f64).sqrt(), (DIM as f64).sqrt()),
            // A transform of each head, and a matrix of all of them.
            _ => ((WIDTH as f64).sqrt(), DIM as f64),
        };
        // With coordinates that are left out an error moves to others.
        let moved = if codec.basis.is_some() { mixed } else { 1.0 };
        let of = |codec: Codec, off: f64| moved * off + mixed * step(codec, wide * (1.0 + off)) + 1e-5 * (moved - 1.0);
        [of(codec.key, want.off[0]), of(codec.value, want.off[1])]
    }

    /// A key or a value, as much of it as a map keeps.
    fn kept(&self, side: usize, map: Option<&Map>, row: &[f32]) -> Vec<f32> {
        let Some(map) = map else { return row.into() };
        let (mut turned, mut out) = (row.to_vec(), vec![0.0; WIDTH]);
        self.through(side).for_each(|through| through.apply(&mut turned, DIM));
        let stored = map.project(&turned, 1);
        let width = usize::from(map.cut().width);
        for (head, out) in out.chunks_exact_mut(DIM).enumerate() {
            map.expand(head, &stored[map.row(head) * width..][..width], out);
        }
        self.through(side).rev().for_each(|through| through.undo(&mut out, DIM));
        out
    }

    fn entry(&self, index: usize) -> Option<Entry> {
        let sorted = self.lane.sorted();
        (!sorted.is_empty()).then(|| sorted[index % sorted.len()])
    }

    fn delete(&mut self, index: usize) {
        let Some(entry) = self.entry(index) else { return };
        self.lane.delete(entry.place).expect("there");
        self.want.remove(&entry.position);
    }

    /// Every `every`-th entry, as many as fill groups of the codec.
    fn recode(&mut self, codec: KvCodec, basis: Option<Arc<Basis>>, every: usize) {
        let codec = KvCodec { basis: basis.as_ref().map(|basis| basis.based()), ..codec };
        let entries: Vec<Entry> = self.lane.sorted().into_iter().step_by(every).collect();
        let entries = &entries[..entries.len() / codec.group() * codec.group()];
        // The numbers that are encoded together may be as far off as the worst of them.
        let worst = |side: usize| entries.iter().map(|entry| self.want[&entry.position].off[side]).fold(0.0, f64::max);
        let worst = [worst(0), worst(1)];
        let places: Vec<u32> = entries.iter().map(|entry| entry.place).collect();
        self.lane.recode(&[Recode { codec, basis: basis.clone(), places }]).expect("all there");
        for (index, entry) in entries.iter().enumerate() {
            let grouped = codec.deletion() == Deletion::Group;
            let mut want = self.want[&entry.position].clone();
            want.off = self.stored(&Want { off: worst, ..want.clone() }, codec);
            let map = |side: fn(&Basis) -> Option<&Map>| basis.as_deref().and_then(side);
            want.key = self.kept(0, map(|basis| basis.keys.as_ref()), &want.key);
            want.value = self.kept(1, map(|basis| basis.values.as_ref()), &want.value);
            (want.codec, want.basis) = (codec, basis.clone());
            want.group = grouped.then_some(self.groups + (index / codec.group()) as u64);
            self.want.insert(entry.position, want);
        }
        self.groups += entries.len() as u64;
    }

    fn retain(&mut self, seed: u64) {
        let keep = |position: u32| (u64::from(position).wrapping_mul(seed | 1) >> 3) & 3 != 0;
        self.want.retain(|position, _| keep(*position));
        let sorted = self.lane.sorted().into_iter();
        let places: Vec<u32> = sorted.filter(|entry| keep(entry.position)).map(|entry| entry.place).collect();
        self.lane.retain(&places).expect("all there");
    }

    /// As merging does it.
    fn overwrite(&mut self, index: usize, seed: u64) {
        let Some(entry) = self.entry(index) else { return };
        let (key, value) = (noise(seed, WIDTH), noise(!seed, WIDTH));
        self.lane.overwrite(&[entry], &key, &value).expect("on the CPU");
        let old = &self.want[&entry.position];
        let sharing: Vec<u32> = match old.group {
            Some(group) => {
                let shares = |(position, want): (&u32, &Want)| (want.group == Some(group)).then_some(*position);
                self.want.iter().filter_map(shares).collect()
            }
            None => vec![entry.position],
        };
        let (codec, basis, group) = (old.codec, old.basis.clone(), old.group);
        let map = |side: fn(&Basis) -> Option<&Map>| basis.as_deref().and_then(side);
        let key = self.kept(0, map(|basis| basis.keys.as_ref()), &key);
        let value = self.kept(1, map(|basis| basis.values.as_ref()), &value);
        let worst = |side: usize| sharing.iter().map(|position| self.want[position].off[side]).fold(0.0, f64::max);
        let fresh = Want { key, value, off: [worst(0), worst(1)], codec, basis: basis.clone(), group };
        let off = self.stored(&fresh, codec);
        for position in sharing {
            let old = if position == entry.position { &fresh } else { &self.want[&position] };
            self.want.insert(position, Want { off, ..old.clone() });
        }
    }

    /// Positions, numbers, bytes and attention.
    fn check(&self) {
        let lane = &self.lane;
        assert_eq!(lane.positions(), self.want.keys().copied().collect::<Vec<_>>());
        let sorted = lane.sorted();
        let (keys, values) = (lane.keys(&sorted).expect("on the CPU"), lane.values(&sorted).expect("on the CPU"));
        for ((want, key), value) in self.want.values().zip(keys.chunks(WIDTH)).zip(values.chunks(WIDTH)) {
            for (off, got, want) in [(want.off[0], key, &want.key), (want.off[1], value, &want.value)] {
                for (got, want) in got.iter().zip(want) {
                    assert!(f64::from((got - want).abs()) <= off, "{got} for {want}, at most {off} off");
                }
            }
        }
        let held = lane.payload() + lane.scales() + lane.metadata() + lane.dead_bytes();
        assert!(held <= self.account.used(), "{held} of {}", self.account.used());
        assert_eq!(lane.scores().len(), lane.places());
        for window in [None, Some(9)] {
            for softcap in [None, Some(2.0)] {
                let params = AttentionParams::new(QUERIES * HEADS, HEADS, DIM);
                attends(lane, AttentionParams { window, softcap, ..params }, self.folded);
            }
        }
    }
}

/// One query per query head to all entries of a lane, against softmax in f64 over the numbers that the entries' codes stand for. The results of
/// a lane whose values come through the Hadamard transform are left in it.
fn attends(lane: &Lane, params: AttentionParams, folded: bool) {
    let sorted = lane.sorted();
    let Some(newest) = sorted.last().map(|entry| entry.position) else { return };
    let queries = noise(77, QUERIES * HEADS * DIM);
    let mut out = vec![f32::NAN; queries.len()];
    let positions: Vec<u32> = {
        // Slots of deleted entries have a position too.
        let mut positions = vec![0; lane.places()];
        lane.entries().for_each(|entry| positions[entry.place as usize] = entry.position);
        positions
    };
    let view = LaneView { positions: Some(&positions), ..lane.view(None) };
    decode(&params, &mut [DecodeItem { lane: view, queries: &queries, out: &mut out, sums: None }]);
    if folded {
        // As the weights behind attention do.
        Transform::Hadamard.apply(&mut out, DIM);
    }

    let (keys, values) = (lane.keys(&sorted).expect("on the CPU"), lane.values(&sorted).expect("on the CPU"));
    let seen = |index: &usize| params.window.is_none_or(|window| newest - sorted[*index].position < window);
    for (head, query) in queries.chunks(DIM).enumerate() {
        let row = |of: &[f32], index: usize| -> Vec<f64> {
            let start = index * WIDTH + head / QUERIES * DIM;
            of[start..start + DIM].iter().map(|x| f64::from(*x)).collect()
        };
        let score = |index: usize| {
            let dot: f64 = row(&keys, index).iter().zip(query).map(|(k, q)| k * f64::from(*q)).sum();
            let score = f64::from(params.scale) * dot;
            params.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        };
        let weights: Vec<(usize, f64)> =
            (0..sorted.len()).filter(seen).map(|index| (index, score(index).exp())).collect();
        let whole: f64 = weights.iter().map(|(_, weight)| weight).sum();
        for (channel, got) in out[head * DIM..(head + 1) * DIM].iter().enumerate() {
            let want =
                weights.iter().map(|(index, weight)| weight * row(&values, *index)[channel]).sum::<f64>() / whole;
            assert!((f64::from(*got) - want).abs() < 2e-5, "{got} for {want}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_history_of_codecs_leaves_the_right_entries(
        steps in prop::collection::vec((0usize..10, 0usize..48, any::<u64>(), any::<bool>()), 1..40), rotate in 0usize..5,
        folded: bool,
    ) {
        let pool = Pool::unlimited();
        let dual = [Dual::None, Dual::Hadamard, Dual::Random, Dual::HadamardKeys, Dual::HadamardValues][rotate];
        let mut first = History::new(&pool, dual, folded);
        first.append(40, 1);
        let mut second: Option<History> = None;
        for (kind, n, seed, in_second) in steps {
            let history = second.as_mut().filter(|_| in_second).unwrap_or(&mut first);
            match kind {
                0 => history.append(n.max(1), seed),
                1 => history.append(1, seed),
                2 => history.delete(n),
                3 | 4 => history.recode(codecs(dual)[n % codecs(dual).len()], None, 1 + (seed % 3) as usize),
                5 => history.retain(seed),
                6 => history.overwrite(n, seed),
                7 | 8 => {
                    let basis = history.bases[n % 3].clone();
                    history.recode(based(dual)[n / 3 % 4], Some(basis), 1 + (seed % 3) as usize);
                }
                _ => second = Some(first.fork(&pool)),
            }
            first.check();
            let mut held = first.account.used();
            if let Some(second) = &second {
                second.check();
                assert_eq!(first.lane.shared_bytes(), second.lane.shared_bytes());
                held += second.account.used() - second.lane.shared_bytes();
            }
            assert_eq!(pool.used(), held, "what both hold is there once");
        }
        drop((first, second));
        assert_eq!(pool.used(), 0);
    }
}

/// Old entries in two bits, younger ones in four, the newest in f16: attention reads all of them where they are.
#[test]
fn a_lane_of_two_four_and_sixteen_bits_attends_as_in_f64() {
    let pool = Pool::unlimited();
    let codec = KvCodec::F16;
    let options = LaneOptions { head_dim: DIM, codec, folded: false, rotation: Rotation::Stored, scored: false };
    let mut lane = Lane::new(0..HEADS, options, pool.account()).expect("no cap");
    let (keys, values) = (noise(1, 200 * WIDTH), noise(2, 200 * WIDTH));
    let new = New { keys: Rows::dense(&keys, WIDTH), values: Rows::dense(&values, WIDTH), angles: None };
    lane.append(new, 200, 0).expect("no cap");
    let whole = pool.used();
    let places = |lane: &Lane, from: usize, n: usize| -> Vec<u32> {
        lane.sorted()[from..from + n].iter().map(|entry| entry.place).collect()
    };
    let two = KvCodec::new(Codec::per_channel(Dtype::U2, 32), TWO, Dual::None);
    let four = KvCodec::new(Codec::per_channel(Dtype::U4, 32), FOUR, Dual::None);
    let parts = [Recode::new(two, places(&lane, 0, 96)), Recode::new(four, places(&lane, 96, 64))];
    lane.recode(&parts).expect("five groups");
    let runs: Vec<(KvCodec, usize)> = lane.view(None).runs.iter().map(|run| (run.codec, run.len)).collect();
    for (codec, entries) in [(two, 96), (four, 64), (KvCodec::F16, 40)] {
        assert_eq!(runs.iter().filter(|run| run.0 == codec).map(|run| run.1).sum::<usize>(), entries, "{codec:?}");
    }
    assert!(pool.used() < whole / 2, "{} of {whole}", pool.used());
    for window in [None, Some(64), Some(130)] {
        for softcap in [None, Some(30.0)] {
            let params = AttentionParams::new(QUERIES * HEADS, HEADS, DIM);
            attends(&lane, AttentionParams { window, softcap, ..params }, false);
        }
    }
    // One entry of each goes.
    for position in [5, 120, 170] {
        let entry = lane.entries().find(|entry| entry.position == position).expect("there");
        lane.delete(entry.place).expect("there");
    }
    assert_eq!(lane.len(), 197);
    attends(&lane, AttentionParams::new(QUERIES * HEADS, HEADS, DIM), false);
}
