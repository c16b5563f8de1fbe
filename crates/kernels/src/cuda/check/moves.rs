//! gather.cu, rotary.cu and codec.cu: copies, moves, rotations and codes to the bit, norms to 1e-5 of each.

use half::{bf16, f16};

use super::numbers::{Format, Random, exact, narrowed, noise, of_each, widened};
use super::{Case, Check};
use crate::attention::Rows;
use crate::codec::{Codec, Dtype, Dual, KvCodec, Levels, OwnedRun, Parts, encode};
use crate::cuda::{self, AppendItem, Buffer, EncodeItem, GatherItem, Gpu, MoveItem, NormItem, Result, Source};
use crate::element::Element;
use crate::rotary::{self, Angles};
use crate::{gather, reference};

pub(super) fn all(check: &mut Check<'_>) {
    let dims = [8, 32, 80, 128, 256];
    for (name, codec) in [("f32", Codec::F32), ("f16", Codec::F16)] {
        check.kernel(format!("key_norms {name}"), 1e-5, &segments(&dims), |gpu, case| norms(gpu, case, codec));
    }
    for dtype in [Dtype::Bf16, Dtype::F8] {
        let codec = Codec::plain(dtype);
        check.kernel(format!("key_norms {dtype}"), 1e-5, &segments(&dims), |gpu, case| norms(gpu, case, codec));
        check.kernel(format!("encode {dtype}"), 0.0, &segments(&dims), |gpu, case| encodes(gpu, case, codec));
    }
    for dtype in [Dtype::U8, Dtype::U4, Dtype::U2] {
        let codec = Codec::per_entry(dtype, 8);
        check.kernel(format!("key_norms {dtype}"), 1e-5, &segments(&dims), |gpu, case| norms(gpu, case, codec));
        check.kernel(format!("encode {dtype}"), 0.0, &segments(&dims), |gpu, case| encodes(gpu, case, codec));
        let codec = Codec::per_channel(dtype, 16);
        check.kernel(format!("encode {dtype} per channel"), 0.0, &segments(&dims), |gpu, case| {
            encodes(gpu, case, codec)
        });
    }
    for dtype in [Dtype::U4, Dtype::U2] {
        let codec = Codec::of_levels(dtype, Levels::Normal, 8);
        check.kernel(format!("key_norms {dtype} levels"), 1e-5, &segments(&dims), |gpu, case| norms(gpu, case, codec));
        check.kernel(format!("encode {dtype} levels"), 0.0, &segments(&dims), |gpu, case| encodes(gpu, case, codec));
    }
    stored::<f32>(check);
    stored::<f16>(check);
    network::<f32>(check);
    network::<f16>(check);
    network::<bf16>(check);
}

fn stored<T: Format + Element>(check: &mut Check<'_>) {
    let name = |kernel: &str| format!("{kernel} {}", T::NAME);
    check.kernel(name("gather"), 0.0, &segments(&[2, 6, 8, 64, 80, 128, 256]), gathers::<T>);
    check.kernel(name("move_entries"), 0.0, &segments(&[2, 6, 8, 64, 80, 128, 256]), moves::<T>);
}

fn network<T: Format>(check: &mut Check<'_>) {
    check.kernel(format!("rotate {}", T::NAME), 0.0, &rows(), rotates::<T>);
    check.kernel(format!("append {} to f32", T::NAME), 0.0, &rows(), appends::<T, f32>);
    check.kernel(format!("append {} to f16", T::NAME), 0.0, &rows(), appends::<T, f16>);
}

/// A segment of a lane, of which every third entry and the last are chosen.
#[derive(Debug)]
struct Segment {
    heads: usize,
    capacity: usize,
    spare: usize,
    dim: usize,
    seed: u64,
}

impl Case for Segment {
    fn work(&self) -> usize {
        self.heads * self.capacity * self.dim
    }
}

impl Segment {
    /// Every third entry of the first half is overwritten by one from the end.
    fn moves(&self) -> Vec<(u32, u32)> {
        let last = self.capacity as u32 - 1;
        let targets = (0..(self.capacity / 2).max(1) as u32).filter(|slot| slot % 3 == 0);
        targets.zip(0..).map(|(to, back)| (last - back, to)).collect()
    }

    fn slots(&self) -> Vec<u32> {
        (0..self.capacity as u32).filter(|slot| slot % 3 == 1 || *slot + 1 == self.capacity as u32).collect()
    }
}

fn segments(dims: &[usize]) -> Vec<Segment> {
    let mut random = Random::new(11);
    let mut all: Vec<Segment> = dims
        .iter()
        .flat_map(|dim| [(1, 1), (3, 33), (2, 257)].map(|(heads, capacity)| (*dim, heads, capacity)))
        .map(|(dim, heads, capacity)| Segment {
            heads,
            capacity,
            spare: random.below(3),
            dim,
            seed: random.below(1000) as u64 + 1,
        })
        .collect();
    all.push(Segment { heads: 32, capacity: 640, spare: 0, dim: 128, seed: 5 });
    all
}

fn gathers<T: Format + Element>(gpu: &Gpu, case: &Segment) -> Result<f64> {
    let Segment { heads, capacity, spare, dim, seed } = *case;
    let slots = case.slots();
    let room = 1 + slots.len() + spare;
    let numbers = |seed: u64| narrowed::<T>(&noise(seed, heads * capacity * dim));
    let (keys, values) = (numbers(seed), numbers(seed + 1));
    let empty = vec![Format::narrow(9.0); heads * room * dim];
    let (from_keys, from_values) = (Buffer::from_slice(gpu, &keys)?, Buffer::from_slice(gpu, &values)?);
    let (mut to_keys, mut to_values) = (Buffer::from_slice(gpu, &empty)?, Buffer::from_slice(gpu, &empty)?);
    let row = dim * size_of::<T>();
    let mut items = [(&from_keys, &mut to_keys), (&from_values, &mut to_values)].map(|(from, to)| GatherItem {
        from: from.all().bytes(),
        capacity,
        slots: &slots,
        heads,
        to: to.all_mut().bytes(),
        to_capacity: room,
        at: 1,
        row,
    });
    cuda::gather(gpu, &mut items)?;
    let want = |from: &[T]| {
        let mut to = empty.clone();
        gather::gather(T::bytes(from), capacity, &slots, heads, row, T::bytes_mut(&mut to), room, 1);
        to
    };
    Ok(f64::max(exact(&to_keys.read()?, &want(&keys)), exact(&to_values.read()?, &want(&values))))
}

fn moves<T: Format>(gpu: &Gpu, case: &Segment) -> Result<f64> {
    let Segment { heads, capacity, dim, seed, .. } = *case;
    let moves = case.moves();
    let numbers = |seed: u64| narrowed::<T>(&noise(seed, heads * capacity * dim));
    let (keys, values) = (numbers(seed), numbers(seed + 1));
    let (mut on_keys, mut on_values) = (Buffer::from_slice(gpu, &keys)?, Buffer::from_slice(gpu, &values)?);
    let row = dim * size_of::<T>();
    let mut items = [&mut on_keys, &mut on_values].map(|rows| MoveItem {
        rows: rows.all_mut().bytes(),
        capacity,
        heads,
        row,
        moves: &moves,
    });
    cuda::move_entries(gpu, &mut items)?;
    let want = |mut entries: Vec<T>| {
        for head in entries.chunks_exact_mut(capacity * dim) {
            for (from, to) in &moves {
                let from = *from as usize * dim;
                head.copy_within(from..from + dim, *to as usize * dim);
            }
        }
        entries
    };
    Ok(f64::max(exact(&on_keys.read()?, &want(keys)), exact(&on_values.read()?, &want(values))))
}

/// Keys in a codec, and no values.
fn keys(codec: Codec, heads: usize, dim: usize, capacity: usize, seed: u64) -> OwnedRun {
    let mut run = OwnedRun::new(KvCodec::new(codec, Codec::F32, Dual::None), heads, dim, capacity);
    let rows = noise(seed, heads * capacity * dim);
    run.push(&rows, &rows);
    run
}

fn norms(gpu: &Gpu, case: &Segment, codec: Codec) -> Result<f64> {
    let Segment { heads, capacity: len, spare, dim, seed } = *case;
    let capacity = len + spare;
    let run = keys(codec, heads, dim, capacity, seed);
    let Parts { keys, key_scales, .. } = run.parts();
    let (on_device, scales) = (Buffer::from_slice(gpu, keys)?, Buffer::from_slice(gpu, key_scales)?);
    let mut out = Buffer::<f32>::new(gpu, heads * len)?;
    let (keys, scales, out_all) = (on_device.all(), scales.all(), out.all_mut());
    cuda::key_norms(gpu, &mut [NormItem { codec, keys, scales, capacity, len, heads, out: out_all }], dim)?;
    Ok(of_each(&out.read()?, &reference::key_norms(&run.run(), len, heads, dim)))
}

/// Rows of two segments in f16, taken in another order, beside what the CPU makes of them.
fn encodes(gpu: &Gpu, case: &Segment, codec: Codec) -> Result<f64> {
    let Segment { heads, capacity, dim, seed, .. } = *case;
    let n = capacity.next_multiple_of(codec.entries());
    let sources = [0, 1].map(|i| keys(Codec::F16, heads, dim, n + i as usize, seed + i));
    let rows: Vec<(u32, u32)> = (0..n as u32).map(|i| (i % 2, (i * 7) % n as u32)).collect();
    let mut wide = vec![0.0; heads * n * dim];
    for (at, to) in wide.chunks_exact_mut(dim).enumerate() {
        let (source, slot) = rows[at % n];
        sources[source as usize].run().read_keys(at / n, slot as usize, dim, to);
    }
    let mut want = (
        vec![0; heads * n * codec.row(dim)],
        vec![f16::ZERO; heads * (n / codec.entries()) * codec.scales_row(dim) / 2],
    );
    encode(codec, &wide, heads, dim, &mut want.0, f16::bytes_mut(&mut want.1), n, 0);

    let on_device = [0, 1].map(|i: usize| Buffer::from_slice(gpu, sources[i].parts().keys));
    let [first, second] = on_device;
    let (on_device, none) = ([first?, second?], Buffer::<u8>::new(gpu, 0)?);
    let (mut numbers, mut scales) = (Buffer::<u8>::new(gpu, want.0.len())?, Buffer::<f16>::new(gpu, want.1.len())?);
    let of = |i: usize| Source {
        codec: Codec::F16,
        numbers: on_device[i].all(),
        scales: none.all(),
        capacity: sources[i].capacity(),
    };
    let item = EncodeItem {
        heads,
        sources: vec![of(0), of(1)],
        rows: &rows,
        codec,
        numbers: numbers.all_mut(),
        scales: scales.all_mut().bytes(),
        capacity: n,
        at: 0,
    };
    cuda::encode(gpu, &mut [item], dim)?;
    let same = numbers.read()? == want.0 && f16::bytes(&scales.read()?) == f16::bytes(&want.1);
    Ok(if same { 0.0 } else { 1.0 })
}

/// Rows of new positions, with something between them.
#[derive(Debug)]
struct New {
    rows: usize,
    heads: usize,
    dim: usize,
    first: u32,
    seed: u64,
}

fn rows() -> Vec<New> {
    let all = [(1, 1, 2), (1, 32, 128), (3, 2, 6), (17, 3, 80), (33, 4, 64), (5, 2, 256), (100, 8, 128)];
    all.into_iter()
        .zip(1..)
        .map(|((rows, heads, dim), i)| New { rows, heads, dim, first: i * 577, seed: i.into() })
        .collect()
}

impl Case for New {
    fn work(&self) -> usize {
        self.rows * self.stride()
    }
}

impl New {
    fn angles(&self) -> Angles {
        let frequencies: Vec<f32> =
            (0..self.dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / self.dim as f32)).collect();
        Angles::new(self.first..self.first + self.rows as u32, &frequencies, 1.0)
    }

    /// Elements from one row to the next.
    fn stride(&self) -> usize {
        self.heads * self.dim + 3
    }
}

fn rotates<A: Format>(gpu: &Gpu, case: &New) -> Result<f64> {
    let New { rows, heads, dim, seed, .. } = *case;
    let (angles, stride) = (case.angles(), case.stride());
    let data = narrowed::<A>(&noise(seed, 1 + rows * stride));
    let mut want = vec![0.0; rows * heads * dim];
    rotary::rotate(Rows::strided(&widened(&data), 1, stride), heads, dim, &angles, &mut want);
    let on_device = Buffer::from_slice(gpu, &data)?;
    let mut out = Buffer::<f32>::new(gpu, want.len())?;
    let rows = cuda::Rows { data: on_device.all(), offset: 1, stride };
    cuda::rotate(gpu, rows, heads, dim, &cuda::Angles::new(gpu, &angles)?, out.all_mut())?;
    Ok(exact(&out.read()?, &want))
}

fn appends<A: Format, T: Format + Element>(gpu: &Gpu, case: &New) -> Result<f64> {
    let New { rows, heads, dim, seed, .. } = *case;
    let (angles, stride) = (case.angles(), case.stride());
    let data = |seed: u64| narrowed::<A>(&noise(seed, 1 + rows * stride));
    let (keys, values) = (data(seed), data(seed + 1));
    let (at, capacity) = (2, rows + 3);
    let empty = vec![9.0f32; heads * capacity * dim];

    let (mut want_keys, mut want_values) = (empty.clone(), empty.clone());
    let (wide_keys, wide_values) = (widened(&keys), widened(&values));
    let new = rotary::New {
        keys: Rows::strided(&wide_keys, 1, stride),
        values: Rows::strided(&wide_values, 1, stride),
        skip: 0,
        n: rows,
        angles: Some(&angles),
    };
    rotary::append(new, Dual::None, 0..heads, dim, &mut want_keys, &mut want_values, at);

    let on_device = cuda::Angles::new(gpu, &angles)?;
    let (keys, values) = (Buffer::from_slice(gpu, &keys)?, Buffer::from_slice(gpu, &values)?);
    let empty = narrowed::<T>(&empty);
    let (mut to_keys, mut to_values) = (Buffer::from_slice(gpu, &empty)?, Buffer::from_slice(gpu, &empty)?);
    let item = AppendItem {
        first_head: 0,
        heads,
        first_row: 0,
        n: rows,
        codec: KvCodec::plain(T::DTYPE),
        keys: to_keys.all_mut().bytes(),
        values: to_values.all_mut().bytes(),
        capacity,
        at,
    };
    let new = cuda::New {
        keys: cuda::Rows { data: keys.all(), offset: 1, stride },
        values: cuda::Rows { data: values.all(), offset: 1, stride },
        rows,
        heads,
        angles: Some(&on_device),
    };
    cuda::append(gpu, new, &mut [item], dim)?;
    let off = |got: &[T], want: &[f32]| exact(got, &narrowed::<T>(want));
    Ok(f64::max(off(&to_keys.read()?, &want_keys), off(&to_values.read()?, &want_values)))
}
