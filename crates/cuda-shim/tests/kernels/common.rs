//! Lanes with noise in them, on the host and on the shim's device.

use half::{bf16, f16};
use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::attention::LaneView;
use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec, Levels, OwnedRun, Run};
use prefixkv_kernels::cuda::{self, Buffer, Element};
use proptest::prelude::*;

/// A format of the tests: numbers that both sides read alike.
pub(crate) trait Format: Element + PartialEq + std::fmt::Debug {
    fn narrow(x: f32) -> Self;
    fn widen(self) -> f32;
}

impl Format for f32 {
    fn narrow(x: f32) -> Self {
        x
    }
    fn widen(self) -> f32 {
        self
    }
}

impl Format for f16 {
    fn narrow(x: f32) -> Self {
        f16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Format for bf16 {
    fn narrow(x: f32) -> Self {
        bf16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Deterministic noise in -1..1.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
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

/// Positions of `len` entries, of which the last `own` are in order: some are missing, and of the others some are out of order.
fn positions(seed: u64, len: usize, own: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..len as u32).map(|entry| entry + entry / 5 * (seed % 3) as u32).collect();
    if seed.is_multiple_of(2) {
        (0..(len - own) / 4).for_each(|i| all.swap(i, (i * 7919 + seed as usize) % (len - own)));
    }
    all
}

/// A window, if any: shorter and longer than tiles, tasks and lanes.
pub(crate) fn sliding() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(prop::sample::select(vec![1u32, 2, 5, 33, 64, 100, 700, 2000]))
}

pub(crate) fn softcap() -> impl Strategy<Value = Option<f32>> {
    prop::option::of(prop::sample::select(vec![0.3f32, 2.0, 30.0]))
}

pub(crate) fn narrowed<T: Format>(from: &[f32]) -> Vec<T> {
    from.iter().map(|x| T::narrow(*x)).collect()
}

pub(crate) fn widened<T: Format>(from: &[T]) -> Vec<f32> {
    from.iter().map(|x| x.widen()).collect()
}

/// Both orders; what a kernel gives may depend on neither.
pub(crate) fn in_both_orders<R: PartialEq + std::fmt::Debug>(processors: u32, run: impl Fn(&Shim) -> R) -> R {
    let first = run(&Shim::new(Order::FirstToLast, processors));
    let last = run(&Shim::new(Order::LastToFirst, processors));
    assert!(first == last, "threads or blocks depend on their order");
    first
}

/// How the runs of a lane are stored: of run `index`, heads of `dim` elements.
pub(crate) type Storage = fn(index: usize, dim: usize) -> KvCodec;

pub(crate) const F32: Storage = |_, _| KvCodec::F32;
pub(crate) const F16: Storage = |_, _| KvCodec::F16;
/// Two, four and eight bits, f16, bf16 with f8, levels of a table, and keys and values in unlike codecs, in turn.
pub(crate) const CODES: Storage = |index, dim| {
    let channels = Codec::channels(dim, 32).expect("a multiple of 8");
    let of = |key, value| KvCodec::new(key, value, Dual::None);
    let eight = Codec::per_entry(Dtype::U8, channels);
    match index % 8 {
        0 => of(Codec::per_channel(Dtype::U4, 32), Codec::per_entry(Dtype::U4, channels).clipped(92)),
        1 => of(eight, eight),
        2 => of(Codec::per_channel(Dtype::U2, 16).clipped(80), Codec::per_entry(Dtype::U2, channels).clipped(80)),
        3 => of(Codec::F16, Codec::per_entry(Dtype::U2, 8)),
        4 => of(Codec::per_entry(Dtype::U4, 8), Codec::F32),
        5 => of(Codec::plain(Dtype::Bf16), Codec::plain(Dtype::F8)),
        6 => {
            let normal = |dtype, group: usize| Codec::of_levels(dtype, Levels::Normal, group as u16);
            of(normal(Dtype::U4, dim), normal(Dtype::U2, channels.into()))
        }
        _ => of(Codec::per_channel(Dtype::U8, 32), Codec::per_channel(Dtype::U4, 32)),
    }
};
/// Like [`CODES`], through a transform where the width allows one.
pub(crate) const THROUGH: Storage = |index, dim| {
    let dual = if dim.is_power_of_two() { Dual::Hadamard } else { Dual::None };
    KvCodec { dual, ..CODES(index, dim) }
};
/// Like [`THROUGH`], through another.
pub(crate) const TURNED: Storage = |index, dim| {
    let dual = if dim.is_power_of_two() { Dual::Random } else { Dual::None };
    KvCodec { dual, ..CODES(index, dim) }
};
/// Like [`THROUGH`], of keys alone and of values alone.
pub(crate) const KEYS: Storage = |index, dim| {
    let dual = if dim.is_power_of_two() { Dual::HadamardKeys } else { Dual::None };
    KvCodec { dual, ..CODES(index, dim) }
};
pub(crate) const VALUES: Storage = |index, dim| {
    let dual = if dim.is_power_of_two() { Dual::HadamardValues } else { Dual::None };
    KvCodec { dual, ..CODES(index, dim) }
};
pub(crate) const STORAGES: [Storage; 7] = [F32, F16, CODES, THROUGH, TURNED, KEYS, VALUES];

/// A lane of several runs, with room to spare that is NaN.
pub(crate) struct Owned {
    pub(crate) heads: usize,
    dim: usize,
    runs: Vec<OwnedRun>,
    pub(crate) dead: Option<Vec<bool>>,
    positions: Vec<u32>,
    ends: Option<Vec<u32>>,
}

impl Owned {
    /// One of `dead` entries is dead; 0: none. Entries that fill no group of a codec are kept in f16 behind it.
    pub(crate) fn new(
        storage: Storage,
        seed: u64,
        (heads, dim): (usize, usize),
        lens: &[usize],
        spare: usize,
        dead: u64,
    ) -> Self {
        let mut runs = Vec::new();
        for (i, &len) in lens.iter().enumerate() {
            let codec = storage(i + seed as usize % 8, dim);
            let coded = len / codec.group() * codec.group();
            let left = (coded < len).then_some((KvCodec { dual: codec.dual, ..KvCodec::F16 }, len - coded));
            for (part, (codec, len)) in std::iter::once((codec, coded)).chain(left).enumerate() {
                let mut run = OwnedRun::new(codec, heads, dim, len + spare * codec.group());
                let seed = seed + 4 * i as u64 + 2 * part as u64;
                run.push(&noise(seed, heads * len * dim), &noise(seed + 1, heads * len * dim));
                runs.push(run);
            }
        }
        let len = lens.iter().sum::<usize>() as u64;
        // Whole tasks of decode die now and then.
        let marks = |of: u64| {
            (0..len).map(|e| ((e * 7919 + seed) % 101).is_multiple_of(of) || of == 2 && e / 300 % 2 == 1).collect()
        };
        let positions = positions(seed, len as usize, len as usize / 2);
        Owned { heads, dim, runs, dead: (dead > 0).then(|| marks(dead)), positions, ends: None }
    }

    /// With the last `own` entries in the order of their positions.
    pub(crate) fn with_own(self, own: usize) -> Self {
        Owned { positions: positions(own as u64, self.len(), own), ..self }
    }

    /// With the last `own` entries in runs of `block`, every second of which sees itself whole; of 1: none does.
    pub(crate) fn with_blocks(self, own: usize, block: usize) -> Self {
        let end = |row: usize| if row / block % 2 == 1 { own.min((row / block + 1) * block) } else { row + 1 } as u32;
        Owned { ends: (block > 1).then(|| (0..own).map(end).collect()), ..self }
    }

    pub(crate) fn len(&self) -> usize {
        self.runs.iter().map(OwnedRun::len).sum()
    }

    /// As the twins read it.
    pub(crate) fn view(&self) -> LaneView<'_> {
        let runs = self.runs.iter().map(OwnedRun::run).collect();
        LaneView {
            dead: self.dead.as_deref(),
            positions: Some(&self.positions),
            ends: self.ends.as_deref(),
            ..LaneView::new(self.heads, runs)
        }
    }

    pub(crate) fn upload(&self, shim: &Shim) -> Uploaded<'_> {
        let up = |bytes: &[u8]| Buffer::from_slice(shim, bytes).expect("room");
        Uploaded { lane: self, runs: self.runs.iter().map(|run| up(run.bytes())).collect() }
    }
}

/// A lane on the device.
pub(crate) struct Uploaded<'a> {
    lane: &'a Owned,
    runs: Vec<Buffer<u8>>,
}

impl Uploaded<'_> {
    pub(crate) fn lane(&self) -> cuda::Lane<'_> {
        let Owned { heads, dim, .. } = *self.lane;
        let runs = self
            .lane
            .runs
            .iter()
            .zip(&self.runs)
            .map(|(run, bytes)| Run::of_slice(run.codec(), bytes.all(), heads, dim, run.len(), run.capacity()));
        cuda::Lane {
            heads,
            runs: runs.collect(),
            dead: self.lane.dead.as_deref(),
            positions: Some(&self.lane.positions),
            ends: self.lane.ends.as_deref(),
        }
    }
}

/// Every element within `tolerance` of the largest expected one.
pub(crate) fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // Not "greater than": NaN must fail.
        assert!((got - want).abs() <= tolerance * largest, "element {i}: {got} for {want}");
    }
}

/// Each element to `tolerance` of itself; nothing where there must be nothing.
pub(crate) fn assert_relatively_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= tolerance * want.abs(), "element {i}: {got} for {want}");
    }
}

/// Cuts `len` into runs; some are empty.
pub(crate) fn cut(len: usize, seed: u64) -> Vec<usize> {
    match seed % 4 {
        0 => vec![len],
        1 => vec![len / 2, 0, len - len / 2],
        2 => vec![len - len / 7 - len / 3, len / 7, len / 3],
        _ => {
            let tail = len.min(3);
            vec![len - tail].into_iter().chain(std::iter::repeat_n(1, tail)).collect()
        }
    }
}
