//! Lanes with noise in them, on the host and on the shim's device.

use half::{bf16, f16};
use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::attention::{AnyRun, LaneView, Run};
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

/// Keys and values of one run as the device stores them, and widened.
struct OwnedRun<T> {
    keys: Vec<T>,
    values: Vec<T>,
    wide: (Vec<f32>, Vec<f32>),
    len: usize,
    capacity: usize,
}

/// A lane of several runs, with room to spare that is NaN.
pub(crate) struct Owned<T> {
    pub(crate) heads: usize,
    runs: Vec<OwnedRun<T>>,
    pub(crate) dead: Option<Vec<bool>>,
    positions: Vec<u32>,
}

impl<T: Format> Owned<T> {
    /// One of `dead` entries is dead; 0: none.
    pub(crate) fn new(seed: u64, heads: usize, dim: usize, lens: &[usize], spare: usize, dead: u64) -> Self {
        let runs = lens
            .iter()
            .enumerate()
            .map(|(i, &len)| {
                let capacity = len + spare;
                let fill = |seed: u64| {
                    let mut numbers = noise(seed, heads * capacity * dim);
                    for (i, x) in numbers.iter_mut().enumerate() {
                        if i / dim % capacity >= len {
                            *x = f32::NAN;
                        }
                    }
                    narrowed::<T>(&numbers)
                };
                let (keys, values) = (fill(seed + 2 * i as u64), fill(seed + 2 * i as u64 + 1));
                OwnedRun { wide: (widened(&keys), widened(&values)), keys, values, len, capacity }
            })
            .collect();
        let len = lens.iter().sum::<usize>() as u64;
        // Whole tasks of decode die now and then.
        let marks = |of: u64| {
            (0..len).map(|e| ((e * 7919 + seed) % 101).is_multiple_of(of) || of == 2 && e / 300 % 2 == 1).collect()
        };
        let positions = positions(seed, len as usize, len as usize / 2);
        Owned { heads, runs, dead: (dead > 0).then(|| marks(dead)), positions }
    }

    /// With the last `own` entries in the order of their positions.
    pub(crate) fn with_own(self, own: usize) -> Self {
        Owned { positions: positions(own as u64, self.len(), own), ..self }
    }

    pub(crate) fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len).sum()
    }

    /// As the twins read it.
    pub(crate) fn view(&self) -> LaneView<'_> {
        let runs = self
            .runs
            .iter()
            .map(|run| {
                AnyRun::F32(Run { keys: &run.wide.0, values: &run.wide.1, len: run.len, capacity: run.capacity })
            })
            .collect();
        LaneView { dead: self.dead.as_deref(), positions: Some(&self.positions), ..LaneView::new(self.heads, runs) }
    }

    pub(crate) fn upload(&self, shim: &Shim) -> Uploaded<T> {
        let up = |numbers: &[T]| Buffer::from_slice(shim, numbers).expect("room");
        let dead = self.dead.as_ref().map(|dead| dead.iter().map(|dead| u8::from(*dead)).collect::<Vec<_>>());
        Uploaded {
            heads: self.heads,
            runs: self.runs.iter().map(|run| (up(&run.keys), up(&run.values), run.len, run.capacity)).collect(),
            dead: dead.map(|dead| Buffer::from_slice(shim, &dead).expect("room")),
            positions: self.positions.clone(),
        }
    }
}

/// Keys, values, entries in use and room.
type UploadedRun<T> = (Buffer<T>, Buffer<T>, usize, usize);

/// A lane on the device.
pub(crate) struct Uploaded<T> {
    heads: usize,
    runs: Vec<UploadedRun<T>>,
    dead: Option<Buffer<u8>>,
    positions: Vec<u32>,
}

impl<T: Format> Uploaded<T> {
    pub(crate) fn lane(&self) -> cuda::Lane<'_, T> {
        cuda::Lane {
            heads: self.heads,
            runs: self
                .runs
                .iter()
                .map(|(keys, values, len, capacity)| cuda::Run {
                    keys: keys.all(),
                    values: values.all(),
                    len: *len,
                    capacity: *capacity,
                })
                .collect(),
            dead: self.dead.as_ref().map(Buffer::all),
            positions: Some(&self.positions),
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
