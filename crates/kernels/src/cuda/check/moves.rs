//! gather.cu and rotary.cu: copies and moves and rotations to the bit, norms to 1e-5 of each.

use half::{bf16, f16};

use super::numbers::{Format, Random, exact, narrowed, noise, of_each, widened};
use super::{Case, Check};
use crate::attention::Rows;
use crate::cuda::{self, AppendItem, Buffer, GatherItem, Gpu, MoveItem, NormItem, Result};
use crate::rotary::{self, Angles};
use crate::{gather, reference};

pub(super) fn all(check: &mut Check<'_>) {
    formats::<f32>(check);
    formats::<f16>(check);
    formats::<bf16>(check);
}

fn formats<T: Format + Send + Sync>(check: &mut Check<'_>) {
    let name = |kernel: &str| format!("{kernel} {}", T::NAME);
    check.kernel(name("gather"), 0.0, &segments(&[2, 6, 8, 64, 80, 128, 256]), gathers::<T>);
    check.kernel(name("move_entries"), 0.0, &segments(&[2, 6, 8, 64, 80, 128, 256]), moves::<T>);
    check.kernel(name("key_norms"), 1e-5, &segments(&[8, 32, 80, 128, 256]), norms::<T>);
    check.kernel(name("rotate"), 0.0, &rows(), rotates::<T>);
    check.kernel(format!("append {} to f32", T::NAME), 0.0, &rows(), appends::<T, f32>);
    check.kernel(format!("append {} to f16", T::NAME), 0.0, &rows(), appends::<T, f16>);
    check.kernel(format!("append {} to bf16", T::NAME), 0.0, &rows(), appends::<T, bf16>);
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

fn gathers<T: Format + Send + Sync>(gpu: &Gpu, case: &Segment) -> Result<f64> {
    let Segment { heads, capacity, spare, dim, seed } = *case;
    let slots = case.slots();
    let room = 1 + slots.len() + spare;
    let numbers = |seed: u64| narrowed::<T>(&noise(seed, heads * capacity * dim));
    let (keys, values) = (numbers(seed), numbers(seed + 1));
    let empty = vec![T::narrow(9.0); heads * room * dim];
    let (from_keys, from_values) = (Buffer::from_slice(gpu, &keys)?, Buffer::from_slice(gpu, &values)?);
    let (mut to_keys, mut to_values) = (Buffer::from_slice(gpu, &empty)?, Buffer::from_slice(gpu, &empty)?);
    let item = GatherItem {
        keys: from_keys.all(),
        values: from_values.all(),
        capacity,
        slots: &slots,
        heads,
        to_keys: to_keys.all_mut(),
        to_values: to_values.all_mut(),
        to_capacity: room,
        at: 1,
    };
    cuda::gather(gpu, &mut [item], dim)?;
    let want = |from: &[T]| {
        let mut to = empty.clone();
        gather::gather(from, capacity, &slots, heads, dim, &mut to, room, 1);
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
    let item = MoveItem { keys: on_keys.all_mut(), values: on_values.all_mut(), capacity, heads, moves: &moves };
    cuda::move_entries(gpu, &mut [item], dim)?;
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

fn norms<T: Format>(gpu: &Gpu, case: &Segment) -> Result<f64> {
    let Segment { heads, capacity: len, spare, dim, seed } = *case;
    let capacity = len + spare;
    let keys = narrowed::<T>(&noise(seed, heads * capacity * dim));
    let on_device = Buffer::from_slice(gpu, &keys)?;
    let mut out = Buffer::<f32>::new(gpu, heads * len)?;
    let item = NormItem { keys: on_device.all(), capacity, len, heads, out: out.all_mut() };
    cuda::key_norms(gpu, &mut [item], dim)?;
    Ok(of_each(&out.read()?, &reference::key_norms(&widened(&keys), capacity, len, heads, dim)))
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

fn appends<A: Format, T: Format>(gpu: &Gpu, case: &New) -> Result<f64> {
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
    rotary::append(new, 0..heads, dim, &mut want_keys, &mut want_values, at);

    let on_device = cuda::Angles::new(gpu, &angles)?;
    let (keys, values) = (Buffer::from_slice(gpu, &keys)?, Buffer::from_slice(gpu, &values)?);
    let empty = narrowed::<T>(&empty);
    let (mut to_keys, mut to_values) = (Buffer::from_slice(gpu, &empty)?, Buffer::from_slice(gpu, &empty)?);
    let item = AppendItem {
        first_head: 0,
        heads,
        first_row: 0,
        n: rows,
        keys: to_keys.all_mut(),
        values: to_values.all_mut(),
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
