//! decode.cu against the reference in f64 and against its twin.
//!
//! Stored values are read alike on both sides, so the formats add no error: what differs is the order of sums in f32 and 2^x for
//! e^x. 2e-5 of the largest result and 1e-4 of each probability sum are what the CPU's own tests allow themselves, times ten for
//! the sums: 2^x of a score near 30 is off by 30 units in the last place.

use half::{bf16, f16};
use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::attention::{self, AttentionParams};
use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec};
use prefixkv_kernels::cuda::{self, Buffer, Error};
use prefixkv_kernels::reference;
use proptest::prelude::*;

use crate::common::{
    F16, F32, Format, Owned, STORAGES, Storage, assert_close, assert_relatively_close, cut, in_both_orders, narrowed,
    noise, sliding, softcap,
};

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    dim: usize,
    group: usize,
    /// Per lane: heads, entries, one of so many dead, whether sums are wanted.
    lanes: Vec<(usize, usize, u64, bool)>,
    spare: usize,
    processors: u32,
    window: Option<u32>,
    softcap: Option<f32>,
}

fn cases() -> impl Strategy<Value = Case> {
    let len = prop::sample::select(vec![1usize, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1000]);
    let lane = (1usize..4, len, prop::sample::select(vec![0u64, 0, 2, 7]), any::<bool>());
    (
        1u64..1_000_000,
        prop::sample::select(vec![8usize, 32, 40, 64, 80, 96, 128, 136, 256]),
        prop::sample::select(vec![1usize, 2, 3, 4, 5, 8, 11]),
        prop::collection::vec(lane, 1..4),
        0usize..3,
        prop::sample::select(vec![1u32, 4, 132]),
        (sliding(), softcap()),
    )
        .prop_map(|(seed, dim, group, lanes, spare, processors, (window, softcap))| Case {
            seed,
            dim,
            group,
            lanes,
            spare,
            processors,
            window,
            softcap,
        })
}

fn check(case: &Case, storage: Storage) {
    let Case { seed, dim, group, ref lanes, spare, processors, window, softcap } = *case;
    let scale = 1.7 / (dim as f32).sqrt();
    let owned: Vec<Owned> = lanes
        .iter()
        .enumerate()
        .map(|(i, &(heads, len, dead, _))| {
            let seed = seed + 100 * i as u64;
            Owned::new(storage, seed, (heads, dim), &cut(len, seed), spare, dead)
        })
        .collect();
    let kv_heads = lanes.iter().map(|lane| lane.0).sum::<usize>();
    let params = AttentionParams { scale, window, softcap, ..AttentionParams::new(kv_heads * group, kv_heads, dim) };
    let queries: Vec<Vec<f32>> =
        owned.iter().enumerate().map(|(i, lane)| noise(seed + 7 + i as u64, lane.heads * group * dim)).collect();
    let before = |len: usize| -> Vec<f32> { noise(seed + 3, len) };

    let got = in_both_orders(processors, |shim| {
        let uploaded: Vec<_> = owned.iter().map(|lane| lane.upload(shim)).collect();
        let up = |numbers: &[f32]| Buffer::from_slice(shim, numbers).expect("room");
        let device_queries: Vec<_> = queries.iter().map(|queries| up(queries)).collect();
        let mut outs: Vec<_> = queries.iter().map(|queries| Buffer::new(shim, queries.len()).expect("room")).collect();
        let mut sums: Vec<_> = owned.iter().map(|lane| up(&before(lane.len()))).collect();
        let mut items: Vec<cuda::DecodeItem<'_>> = Vec::new();
        for (i, (out, sums)) in outs.iter_mut().zip(&mut sums).enumerate() {
            items.push(cuda::DecodeItem {
                lane: uploaded[i].lane(),
                queries: device_queries[i].all(),
                out: out.all_mut(),
                sums: lanes[i].3.then(|| sums.all_mut()),
            });
        }
        cuda::decode(shim, &params, &mut items).expect("it runs");
        drop(items);
        let read = |buffers: &[Buffer<f32>]| -> Vec<Vec<f32>> {
            buffers.iter().map(|buffer| buffer.read().expect("contents")).collect()
        };
        (read(&outs), read(&sums))
    });

    let mut twins: Vec<(Vec<f32>, Vec<f32>)> = owned
        .iter()
        .zip(&queries)
        .map(|(lane, queries)| (vec![f32::NAN; queries.len()], vec![0.0; lane.len()]))
        .collect();
    let mut items: Vec<attention::DecodeItem<'_>> = owned
        .iter()
        .zip(&queries)
        .zip(&mut twins)
        .map(|((lane, queries), (out, sums))| attention::DecodeItem {
            lane: lane.view(),
            queries,
            out,
            sums: Some(sums),
        })
        .collect();
    attention::decode(&params, &mut items);
    drop(items);

    for (i, lane) in owned.iter().enumerate() {
        let view = lane.view();
        let (want, want_sums) = reference::decode(&params, &queries[i], &view);
        // A lane whose entries are all dead gives NaN there and zeros here.
        if lane.dead.as_ref().is_some_and(|dead| dead.iter().all(|dead| *dead)) {
            assert!(got.0[i].iter().all(|x| *x == 0.0));
        } else {
            assert_close(&got.0[i], &want, 2e-5);
        }
        assert_close(&got.0[i], &twins[i].0, 2e-5);
        let start = before(lane.len());
        if lanes[i].3 {
            let added: Vec<f32> = got.1[i].iter().zip(&start).map(|(got, start)| got - start).collect();
            // The sum before was up to 1: half a unit in its last place, and what the probability itself may be off.
            for ((added, want), twin) in added.iter().zip(&want_sums).zip(&twins[i].1) {
                let room = 1.2e-7 + 1e-4 * want.abs();
                assert!((f64::from(*added) - want).abs() <= room, "{added} for {want}");
                assert!(f64::from((added - twin).abs()) <= room, "{added} for {twin}");
            }
        } else {
            assert_eq!(got.1[i], start, "sums that nobody asked for");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn decode_equals_the_twins(case in cases(), storage in 0..STORAGES.len()) {
        check(&case, STORAGES[storage]);
    }
}

/// Sums into zeros, so that small probabilities are compared relative to themselves.
#[test]
fn probability_sums_are_relatively_right() {
    let (dim, group, scale) = (64, 3, 4.0 / 8.0);
    let params = AttentionParams { scale, ..AttentionParams::new(2 * group, 2, dim) };
    let lane = Owned::new(F16, 5, (2, dim), &[300, 1, 212], 1, 7);
    let queries = noise(8, 2 * group * dim);
    let got = in_both_orders(132, |shim| {
        let (up, uploaded) = (Buffer::from_slice(shim, &queries).expect("room"), lane.upload(shim));
        let mut out = Buffer::<f32>::new(shim, queries.len()).expect("room");
        let mut sums = Buffer::from_slice(shim, &vec![0.0f32; lane.len()]).expect("room");
        let item = cuda::DecodeItem {
            lane: uploaded.lane(),
            queries: up.all(),
            out: out.all_mut(),
            sums: Some(sums.all_mut()),
        };
        cuda::decode(shim, &params, &mut [item]).expect("it runs");
        sums.read().expect("contents")
    });
    let want = reference::decode(&params, &queries, &lane.view()).1;
    assert_relatively_close(&got, &want, 1e-4);
    assert!((got.iter().sum::<f32>() - 1.0).abs() < 1e-5);
}

/// For a product that takes the format of its weights.
#[test]
fn results_in_other_formats_are_those_in_f32_rounded() {
    let (dim, group) = (40, 2);
    let lanes = [Owned::new(F16, 5, (2, dim), &[300, 7], 1, 7), Owned::new(F16, 6, (1, dim), &[3], 0, 0)];
    fn run<O: Format>(lanes: &[Owned], group: usize, dim: usize) -> Vec<Vec<O>> {
        let params = AttentionParams { scale: 0.3, ..AttentionParams::new(3 * group, 3, dim) };
        in_both_orders(4, |shim| {
            let uploaded: Vec<_> = lanes.iter().map(|lane| lane.upload(shim)).collect();
            let queries: Vec<_> = (8..)
                .zip(lanes)
                .map(|(seed, lane)| Buffer::from_slice(shim, &noise(seed, lane.heads * group * dim)).expect("room"))
                .collect();
            let mut outs: Vec<_> = queries.iter().map(|x| Buffer::<O>::new(shim, x.len()).expect("room")).collect();
            let mut items: Vec<cuda::DecodeItem<'_, O>> = Vec::new();
            for ((lane, queries), out) in uploaded.iter().zip(&queries).zip(&mut outs) {
                items.push(cuda::DecodeItem {
                    lane: lane.lane(),
                    queries: queries.all(),
                    out: out.all_mut(),
                    sums: None,
                });
            }
            cuda::decode(shim, &params, &mut items).expect("it runs");
            drop(items);
            outs.iter().map(|out| out.read().expect("contents")).collect()
        })
    }
    let full = run::<f32>(&lanes, group, dim);
    assert!(full.iter().flatten().any(|x| *x != 0.0));
    assert!(run::<f16>(&lanes, group, dim) == full.iter().map(|x| narrowed(x)).collect::<Vec<Vec<f16>>>());
    assert!(run::<bf16>(&lanes, group, dim) == full.iter().map(|x| narrowed(x)).collect::<Vec<Vec<bf16>>>());
}

#[test]
fn every_variant_runs_for_its_width() {
    let shim = Shim::new(Order::FirstToLast, 1);
    let run = |dim: usize, group: usize| {
        let lane = Owned::new(F16, 5, (1, dim), &[3], 0, 0);
        let queries = Buffer::from_slice(&shim, &noise(8, group * dim)).expect("room");
        let mut out = Buffer::<f32>::new(&shim, group * dim).expect("room");
        let uploaded = lane.upload(&shim);
        let item = cuda::DecodeItem { lane: uploaded.lane(), queries: queries.all(), out: out.all_mut(), sums: None };
        cuda::decode(&shim, &AttentionParams::new(group, 1, dim), &mut [item]).expect("it runs");
        shim.launched().into_iter().rev().find(|kernel| kernel.starts_with("decode_attend")).expect("it attends")
    };
    assert_eq!(run(64, 1), "decode_attend_l8_g1");
    assert_eq!(run(80, 3), "decode_attend_l16_g4");
    assert_eq!(run(256, 8), "decode_attend_l32_g8");
    assert_eq!(run(136, 9), "decode_attend_l32_g8");
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_a_launch() {
    let shim = Shim::new(Order::FirstToLast, 1);
    let refuse = |dim: usize, group: usize, lens: &[usize], queries: usize| {
        let lane = Owned::new(F32, 5, (1, 8), lens, 0, 0);
        let queries = Buffer::from_slice(&shim, &noise(8, queries)).expect("room");
        let mut out = Buffer::<f32>::new(&shim, queries.len()).expect("room");
        let uploaded = lane.upload(&shim);
        let item = cuda::DecodeItem { lane: uploaded.lane(), queries: queries.all(), out: out.all_mut(), sums: None };
        match cuda::decode(&shim, &AttentionParams::new(group, 1, dim), &mut [item]) {
            Err(Error::Argument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert!(refuse(12, 1, &[3], 12).contains("multiples of 8 up to 256"));
    assert!(refuse(264, 1, &[3], 264).contains("multiples of 8 up to 256"));
    assert_eq!(refuse(8, 1, &[0, 0], 8), "attention to an empty lane");
    assert!(refuse(8, 2, &[3], 8).contains("1 heads of 2 queries of 8"));
    assert!(refuse(16, 1, &[3], 16).contains("3 entries of 16"));
    assert!(shim.launched().is_empty());
}

/// Entries of two bits, of four bits and of f16 in one lane, with a window and a soft cap and without, against f64 on the numbers that
/// the codes stand for; all in the launches of one lane.
#[test]
fn a_lane_of_two_four_and_sixteen_bits_attends_as_in_f64() {
    const MIXED: Storage = |index, dim| {
        let channels = Codec::channels(dim, 32).expect("a multiple of 8");
        let of = |dtype| KvCodec::new(Codec::per_channel(dtype, 32), Codec::per_entry(dtype, channels), Dual::None);
        [of(Dtype::U2), of(Dtype::U4), KvCodec::F16][index % 3]
    };
    let (dim, group) = (64, 3);
    // A seed from which run 0 is in two bits.
    let lane = Owned::new(MIXED, 6, (2, dim), &[96, 64, 40], 1, 7);
    let found: Vec<Dtype> = lane.view().runs.iter().map(|run| run.codec.key.dtype).collect();
    assert_eq!(found, [Dtype::U2, Dtype::U4, Dtype::F16]);
    let queries = noise(8, 2 * group * dim);
    for (window, softcap) in [(None, None), (Some(90), None), (None, Some(2.0)), (Some(33), Some(30.0))] {
        let scale = 1.7 / (dim as f32).sqrt();
        let params = AttentionParams { scale, window, softcap, ..AttentionParams::new(2 * group, 2, dim) };
        let got = in_both_orders(132, |shim| {
            let (up, uploaded) = (Buffer::from_slice(shim, &queries).expect("room"), lane.upload(shim));
            let mut out = Buffer::<f32>::new(shim, queries.len()).expect("room");
            let item = cuda::DecodeItem { lane: uploaded.lane(), queries: up.all(), out: out.all_mut(), sums: None };
            cuda::decode(shim, &params, &mut [item]).expect("it runs");
            // Up to 64 entries are one task, whose results need no merge.
            let launches = if window == Some(33) { 1 } else { 2 };
            assert_eq!(shim.launched().len(), launches, "{:?}", shim.launched());
            out.read().expect("contents")
        });
        assert_close(&got, &reference::decode(&params, &queries, &lane.view()).0, 2e-5);
    }
}
