//! Requests of the host to a device beside the launches: an allocation and a write each cost as much as a small kernel.

use half::f16;
use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::attention::AttentionParams;
use prefixkv_kernels::codec::{Codec, Dtype, KvCodec};
use prefixkv_kernels::cuda::{
    self, Angles, AppendItem, Buffer, DecodeItem, EncodeItem, Gather, GatherItem, Gpu, MoveItem, New, NormItem, Rows,
    Source,
};
use prefixkv_kernels::rotary;

use crate::common::{F16, Owned, noise};

/// Allocations and writes.
const ONE: [usize; 2] = [1, 1];
/// And a workspace.
const TWO: [usize; 2] = [2, 1];

/// Allocations and writes since this was last asked. Nothing is kept for the next launch, which then allocates too.
fn asked(shim: &Shim) -> [usize; 2] {
    let traffic = shim.traffic();
    shim.release();
    [traffic.allocations, traffic.writes]
}

#[test]
fn a_launch_sends_what_it_needs_in_one_write() {
    let shim = Shim::new(Order::FirstToLast, 4);
    let (heads, dim, n) = (2, 32, 3);
    let owned = [Owned::new(F16, 5, (heads, dim), &[9, 4], 1, 7), Owned::new(F16, 6, (heads, dim), &[20], 0, 0)];
    let uploaded: Vec<_> = owned.iter().map(|lane| lane.upload(&shim)).collect();
    let up = |n: usize| Buffer::from_slice(&shim, &noise(4, n)).expect("room");
    let queries = up(n * 2 * heads * dim);
    let mut outs = [(); 2].map(|()| up(heads * dim));
    let mut sums = owned.each_ref().map(|lane| up(lane.len()));
    shim.traffic();

    let mut items: Vec<DecodeItem<'_>> = Vec::new();
    for ((lane, out), sums) in uploaded.iter().zip(&mut outs).zip(&mut sums) {
        let queries = queries.slice(0..heads * dim);
        items.push(DecodeItem { lane: lane.lane(), queries, out: out.all_mut(), sums: Some(sums.all_mut()) });
    }
    cuda::decode(&shim, &AttentionParams::new(heads, heads, dim), &mut items).expect("it runs");
    drop(items);
    assert_eq!(asked(&shim), TWO);

    let lanes: Vec<_> = uploaded.iter().map(|lane| lane.lane()).collect();
    let mut out = up(n * 2 * heads * dim);
    let mut columns = owned.each_ref().map(|lane| up(heads * lane.len()));
    shim.traffic();
    let rows = Rows { data: queries.all(), offset: 0, stride: 2 * heads * dim };
    let gather = Gather { weights: &[1.0; 3], sums: columns.iter_mut().map(Buffer::all_mut).collect() };
    for (gather, traffic) in [(None, ONE), (Some(gather), TWO)] {
        let out = out.all_mut();
        cuda::prefill(&shim, &AttentionParams::new(2 * heads, 2 * heads, dim), rows, n, &lanes, gather, out)
            .expect("it runs");
        assert_eq!(asked(&shim), traffic);
    }

    let (capacity, len) = (20, heads * 20 * dim);
    let segment = up(len);
    let mut to = [(); 4].map(|()| up(len));
    shim.traffic();
    let (row, slots) = (dim * 4, [3, 1, 2]);
    let mut items: Vec<GatherItem<'_>> = Vec::new();
    for to in &mut to {
        let (from, to) = (segment.all().bytes(), to.all_mut().bytes());
        items.push(GatherItem { from, capacity, slots: &slots, heads, to, to_capacity: capacity, at: 0, row });
    }
    cuda::gather(&shim, &mut items).expect("it runs");
    assert_eq!(asked(&shim), ONE);

    let mut items: Vec<MoveItem<'_>> = Vec::new();
    for rows in &mut to {
        items.push(MoveItem { rows: rows.all_mut().bytes(), capacity, heads, row, moves: &[(3, 1), (4, 2)] });
    }
    cuda::move_entries(&shim, &mut items).expect("it runs");
    assert_eq!(asked(&shim), ONE);

    let [first, second, keys, values] = &mut to;
    let norms = [first, second].map(|out| out.all_mut().split_at(heads * 5).0);
    let none = Buffer::<u8>::new(&shim, 0).expect("room");
    let (all, scales) = (segment.all().bytes(), none.all());
    let mut items = norms.map(|out| NormItem { codec: Codec::F32, keys: all, scales, capacity, len: 5, heads, out });
    cuda::key_norms(&shim, &mut items, dim).expect("it runs");
    assert_eq!(asked(&shim), ONE);

    let rows: Vec<(u32, u32)> = (0..20).map(|slot| (0, slot)).collect();
    let codec = Codec::per_entry(Dtype::U4, 8);
    let mut numbers = Buffer::<u8>::new(&shim, heads * capacity * codec.row(dim)).expect("room");
    let mut pairs = Buffer::<u8>::new(&shim, heads * capacity * codec.scales_row(dim)).expect("room");
    shim.traffic();
    let item = EncodeItem {
        heads,
        sources: vec![Source { codec: Codec::F32, numbers: all, scales, capacity }],
        rows: &rows,
        codec,
        numbers: numbers.all_mut(),
        scales: pairs.all_mut(),
        capacity,
        at: 0,
    };
    cuda::encode(&shim, &mut [item], dim).expect("it runs");
    assert_eq!(asked(&shim), ONE);

    let angles = Angles::new(&shim, &rotary::Angles::new(0..3, &[0.5; 16], 1.0)).expect("room");
    assert_eq!(asked(&shim), ONE);
    let rows = Rows { data: queries.all(), offset: 0, stride: 2 * heads * dim };
    cuda::rotate(&shim, rows, 2 * heads, dim, &angles, out.all_mut()).expect("it runs");
    assert_eq!(asked(&shim), [0, 0]);
    let new = New { keys: rows, values: rows, rows: n, heads: 2 * heads, angles: Some(&angles) };
    let (keys, values, codec) = (keys.all_mut().bytes(), values.all_mut().bytes(), KvCodec::F32);
    let item = AppendItem { first_head: 0, heads, first_row: 0, n, codec, keys, values, capacity, at: 0 };
    cuda::append(&shim, new, &mut [item], dim).expect("it runs");
    assert_eq!(asked(&shim), ONE);

    let to = out.all_mut().split_at(3 * dim).0;
    cuda::take_rows(&shim, segment.all(), dim, &[7, 0, 7], to).expect("it runs");
    assert_eq!(asked(&shim), [0, 0], "so few are part of the argument");
    let (mut many, rows) = (up(65 * dim), vec![7; 65]);
    shim.traffic();
    cuda::take_rows(&shim, segment.all(), dim, &rows, many.all_mut()).expect("it runs");
    assert_eq!(asked(&shim), ONE);
}

#[test]
fn nothing_to_do_costs_nothing() {
    let shim = Shim::new(Order::FirstToLast, 4);
    let (mut a, mut b) = (Buffer::<f32>::new(&shim, 0).expect("room"), Buffer::<f32>::new(&shim, 0).expect("room"));
    shim.traffic();
    cuda::decode::<f32>(&shim, &AttentionParams::new(1, 1, 8), &mut []).expect("it runs");
    cuda::gather(&shim, &mut []).expect("it runs");
    let item = MoveItem { rows: a.all_mut().bytes(), capacity: 0, heads: 2, row: 32, moves: &[] };
    cuda::move_entries(&shim, &mut [item]).expect("it runs");
    cuda::take_rows(&shim, a.all(), 8, &[], b.all_mut()).expect("it runs");
    cuda::add(&shim, a.all_mut(), b.all()).expect("it runs");
    cuda::convert(&shim, a.all(), b.all_mut()).expect("it runs");
    assert_eq!(asked(&shim), [0, 0]);
    assert!(shim.launched().is_empty());
}

#[test]
fn what_lives_on_a_device_may_go_to_other_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Gpu>();
    shared::<Buffer<f32>>();
    shared::<Buffer<f16>>();
    shared::<Angles>();
    shared::<cuda::Slice<'_, f32>>();
    shared::<cuda::SliceMut<'_, f16>>();
}
