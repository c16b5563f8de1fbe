//! rotary.cu against its twin, to the bit: the same products and sums in the same order, and the same rounding to storage.

use half::{bf16, f16};
use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::codec::{Dual, KvCodec};
use prefixkv_kernels::cuda::{self, AppendItem, Buffer, Error};
use prefixkv_kernels::element::Element;
use prefixkv_kernels::rotary::{self, Angles};
use proptest::prelude::*;

use crate::common::{Format, in_both_orders, narrowed, noise, widened};

fn angles(n: usize, dim: usize, seed: u64) -> Angles {
    let frequencies: Vec<f32> = (0..dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / dim as f32)).collect();
    Angles::new((0..n as u64).map(|i| (seed % 5000 + i) as u32), &frequencies, 1.0)
}

fn dims() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![2usize, 6, 32, 64, 80, 96, 128, 256])
}

fn rotates<A: Format>(n: usize, heads: usize, dim: usize, offset: usize, spare: usize, seed: u64) {
    let stride = heads * dim + spare;
    let rows: Vec<A> = narrowed(&noise(seed, offset + n * stride));
    let angles = angles(n, dim, seed);
    let mut want = vec![0.0; n * heads * dim];
    let wide = widened(&rows);
    rotary::rotate(Rows::strided(&wide, offset, stride), heads, dim, &angles, &mut want);
    let got = in_both_orders(1, |shim| {
        let data = Buffer::from_slice(shim, &rows).expect("room");
        let mut out = Buffer::<f32>::new(shim, want.len()).expect("room");
        let rows = cuda::Rows { data: data.all(), offset, stride };
        let angles = cuda::Angles::new(shim, &angles).expect("room");
        assert_eq!(angles.positions(), n);
        cuda::rotate(shim, rows, heads, dim, &angles, out.all_mut()).expect("it runs");
        out.read().expect("contents")
    });
    assert!(got == want, "rotated rows differ");
}

struct Case {
    heads: [usize; 2],
    rows: usize,
    skip: usize,
    dim: usize,
    at: usize,
    spare: usize,
    rotated: bool,
    dual: Dual,
    seed: u64,
}

/// Two lanes share the heads of the layer; the first takes all rows, the second those from `skip` on.
fn appends<A: Format, T: Format + Element>(case: &Case) {
    let Case { heads, rows, skip, dim, at, spare, rotated, dual, seed } = *case;
    let all = heads[0] + heads[1];
    let strides = [all * dim + 3, all * dim];
    let keys: Vec<A> = narrowed(&noise(seed, 2 + rows * strides[0]));
    let values: Vec<A> = narrowed(&noise(seed + 1, rows * strides[1]));
    let angles = angles(rows, dim, seed);
    let angles = rotated.then_some(&angles);
    let lanes = [(0, heads[0], 0, rows), (heads[0], heads[1], skip, rows - skip)];
    let (wide_keys, wide_values) = (widened(&keys), widened(&values));
    let empty = |heads: usize, n: usize| vec![Format::narrow(9.0); heads * (at + n + spare) * dim];
    let mut want = Vec::new();
    for (first, heads, skip, n) in lanes {
        let mut to = [empty(heads, n), empty(heads, n)];
        let new = rotary::New {
            keys: Rows::strided(&wide_keys, 2, strides[0]),
            values: Rows::strided(&wide_values, 0, strides[1]),
            skip,
            n,
            angles,
        };
        if n > 0 {
            let [keys, values] = &mut to;
            rotary::append::<T, T>(new, dual, first..first + heads, dim, keys, values, at);
        }
        want.push(to);
    }
    let got = in_both_orders(2, |shim| {
        let angles = angles.map(|angles| cuda::Angles::new(shim, angles).expect("room"));
        let (keys, values) =
            (Buffer::from_slice(shim, &keys).expect("room"), Buffer::from_slice(shim, &values).expect("room"));
        let mut buffers: Vec<_> = lanes
            .iter()
            .map(|(_, heads, _, n)| [(); 2].map(|()| Buffer::from_slice(shim, &empty(*heads, *n)).expect("room")))
            .collect();
        let mut items: Vec<AppendItem<'_>> = buffers
            .iter_mut()
            .zip(lanes)
            .map(|([keys, values], (first_head, heads, first_row, n))| AppendItem {
                first_head,
                heads,
                first_row,
                n,
                codec: KvCodec { dual, ..KvCodec::plain(T::DTYPE) },
                keys: keys.all_mut().bytes(),
                values: values.all_mut().bytes(),
                capacity: at + n + spare,
                at,
            })
            .collect();
        let new = cuda::New {
            keys: cuda::Rows { data: keys.all(), offset: 2, stride: strides[0] },
            values: cuda::Rows { data: values.all(), offset: 0, stride: strides[1] },
            rows,
            heads: all,
            angles: angles.as_ref(),
        };
        cuda::append(shim, new, &mut items, dim).expect("it runs");
        drop(items);
        buffers
            .iter()
            .map(|buffers| buffers.each_ref().map(|buffer| buffer.read().expect("contents")))
            .collect::<Vec<_>>()
    });
    assert!(got == want, "appended entries differ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rotation_equals_the_twin(
        n in 0usize..40, heads in 1usize..5, dim in dims(), offset in 0usize..5, spare in 0usize..7, seed in 1u64..10_000,
        format in 0..3,
    ) {
        match format {
            0 => rotates::<f32>(n, heads, dim, offset, spare, seed),
            1 => rotates::<f16>(n, heads, dim, offset, spare, seed),
            _ => rotates::<bf16>(n, heads, dim, offset, spare, seed),
        }
    }

    #[test]
    fn append_equals_the_twin(
        heads in (1usize..4, 1usize..4), rows in 1usize..30, skip in 0usize..30, dim in dims(), at in 0usize..5,
        spare in 0usize..4, rotated: bool, through: bool, seed in 1u64..10_000, formats in 0..6,
    ) {
        let duals = [Dual::Hadamard, Dual::Random, Dual::HadamardKeys, Dual::HadamardValues];
        let dual = if through && dim.is_power_of_two() { duals[seed as usize % 4] } else { Dual::None };
        let case = Case { heads: [heads.0, heads.1], rows, skip: skip.min(rows), dim, at, spare, rotated, dual, seed };
        match formats {
            0 => appends::<f32, f32>(&case),
            1 => appends::<f32, f16>(&case),
            2 => appends::<f16, f32>(&case),
            3 => appends::<f16, f16>(&case),
            4 => appends::<bf16, f32>(&case),
            _ => appends::<bf16, f16>(&case),
        }
    }
}

/// A step of decode: a row per sequence, each at its own position, to the end of that sequence's lanes.
#[test]
fn one_row_of_each_of_several_sequences_goes_to_its_own_lanes() {
    let (heads, dim, positions) = (3, 32, [700u32, 3, 41, 0]);
    let width = heads * dim;
    // Per sequence: how the heads are split over lanes, and the entries of each.
    let lanes: [&[(usize, usize)]; 4] = [&[(3, 5)], &[(1, 9), (2, 2)], &[(2, 1), (1, 0)], &[(1, 4), (1, 4), (1, 7)]];
    let frequencies: Vec<f32> = (0..dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / dim as f32)).collect();
    let angles = Angles::new(positions, &frequencies, 1.0);
    let keys = noise(3, positions.len() * width);
    let values: Vec<f16> = narrowed(&noise(4, positions.len() * width));
    let keys_half: Vec<f16> = narrowed(&keys);
    let (wide_keys, wide_values) = (widened(&keys_half), widened(&values));
    let capacity = 10;
    let items: Vec<(usize, usize, usize, usize)> = lanes
        .iter()
        .enumerate()
        .flat_map(|(row, lanes)| {
            let mut first = 0;
            lanes.iter().map(move |&(heads, at)| {
                first += heads;
                (row, first - heads, heads, at)
            })
        })
        .collect();
    let empty = |heads: usize| vec![f16::from_f32(9.0); heads * capacity * dim];
    let want: Vec<[Vec<f16>; 2]> = items
        .iter()
        .map(|&(row, first, heads, at)| {
            let mut to = [empty(heads), empty(heads)];
            let rows = |data| Rows::dense(data, width);
            let new = rotary::New {
                keys: rows(&wide_keys),
                values: rows(&wide_values),
                skip: row,
                n: 1,
                angles: Some(&angles),
            };
            let [keys, values] = &mut to;
            rotary::append(new, Dual::None, first..first + heads, dim, keys, values, at);
            to
        })
        .collect();
    let got = in_both_orders(1, |shim| {
        let angles = cuda::Angles::new(shim, &angles).expect("room");
        let up = |numbers: &[f16]| Buffer::from_slice(shim, numbers).expect("room");
        let (keys, values) = (up(&keys_half), up(&values));
        let mut buffers: Vec<_> = items.iter().map(|item| [(); 2].map(|()| up(&empty(item.2)))).collect();
        let mut to: Vec<AppendItem<'_>> = Vec::new();
        for ([keys, values], &(first_row, first_head, heads, at)) in buffers.iter_mut().zip(&items) {
            let (keys, values, codec) = (keys.all_mut().bytes(), values.all_mut().bytes(), KvCodec::F16);
            to.push(AppendItem { first_head, heads, first_row, n: 1, codec, keys, values, capacity, at });
        }
        let rows = |data| cuda::Rows { data, offset: 0, stride: width };
        let (keys, values) = (rows(keys.all()), rows(values.all()));
        let new = cuda::New { keys, values, rows: positions.len(), heads, angles: Some(&angles) };
        cuda::append(shim, new, &mut to, dim).expect("it runs");
        drop(to);
        assert_eq!(shim.launched(), ["append_f16"]);
        buffers.iter().map(|pair| pair.each_ref().map(|buffer| buffer.read().expect("contents"))).collect::<Vec<_>>()
    });
    assert!(got == want, "appended entries differ");
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_a_launch() {
    let shim = prefixkv_cuda_shim::Shim::new(prefixkv_cuda_shim::Order::FirstToLast, 1);
    let data = Buffer::from_slice(&shim, &[0.0f32; 4 * 16]).expect("room");
    let mut out = Buffer::<f32>::new(&shim, 4 * 16).expect("room");
    let rows = |offset, stride| cuda::Rows { data: data.all(), offset, stride };
    let angles = cuda::Angles::new(&shim, &angles(4, 8, 1)).expect("room");
    let mut refuse = |rows, heads, dim| match cuda::rotate(&shim, rows, heads, dim, &angles, out.all_mut()) {
        Err(Error::Argument(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(refuse(rows(1, 16), 2, 8).contains("4 rows of 16 elements"));
    assert!(refuse(rows(0, 15), 2, 8).contains("15 apart"));
    assert!(refuse(rows(0, 16), 3, 8).contains("3 heads"));
    assert!(refuse(rows(0, 16), 2, 6).contains("angles"));
    assert!(shim.launched().is_empty());
}
