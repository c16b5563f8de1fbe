//! prefill.cu against the reference in f64 and against its twin; tolerances as in decode.rs.

use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::attention::{self, AttentionParams, Mask, Rows};
use prefixkv_kernels::cuda::{self, Buffer, Error};
use prefixkv_kernels::reference;
use proptest::prelude::*;

use crate::common::{
    CODES, F16, F32, Owned, STORAGES, Storage, Uploaded, assert_close, assert_relatively_close, cut, in_both_orders,
    noise, sliding, softcap,
};

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    dim: usize,
    group: usize,
    n: usize,
    past: usize,
    heads: Vec<usize>,
    dead: u64,
    spare: usize,
    mask: Mask,
    /// Queries of a block, all of which see each other; 1: none do.
    block: usize,
    /// Positions that a query sees.
    sliding: Option<u32>,
    softcap: Option<f32>,
    /// Only the last so many queries have a weight.
    window: usize,
    /// Behind the queries of a row.
    wider: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = || prop::sample::select(vec![1usize, 2, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129]);
    (
        (1u64..1_000_000, prop::sample::select(vec![8usize, 32, 64, 72, 80, 96, 128, 136, 256])),
        (prop::sample::select(vec![1usize, 2, 3, 4, 8]), sizes(), prop_oneof![Just(0), sizes()]),
        prop::collection::vec(1usize..3, 1..3),
        (prop::sample::select(vec![0u64, 0, 2, 7]), 0usize..3, any::<bool>(), 0usize..150, 0usize..3),
        (sliding(), softcap(), prop::sample::select(vec![1usize, 1, 5, 33, 64, 100])),
    )
        .prop_map(
            |(
                (seed, dim),
                (group, n, past),
                heads,
                (dead, spare, causal, window, wider),
                (sliding, softcap, block),
            )| Case {
                seed,
                dim,
                group,
                // Keeps the work of the reference, which is not fast, in bounds.
                n: if group * heads.iter().sum::<usize>() > 8 { n.min(40) } else { n },
                past,
                heads,
                dead,
                spare,
                mask: if causal { Mask::Causal } else { Mask::None },
                block: if causal { block } else { 1 },
                sliding: sliding.filter(|_| causal),
                softcap,
                window,
                wider,
            },
        )
}

fn check(case: &Case, storage: Storage) {
    let Case { seed, dim, group, n, past, ref heads, dead, spare, mask, block, sliding, softcap, window, wider } =
        *case;
    let scale = 1.3 / (dim as f32).sqrt();
    // Ragged lanes: each keeps another number of past entries, in several runs.
    let owned: Vec<Owned> = heads
        .iter()
        .enumerate()
        .map(|(i, &heads)| {
            let seed = seed + 100 * i as u64;
            Owned::new(storage, seed, (heads, dim), &cut(n + past / (i + 1), seed), spare, dead)
                .with_own(n)
                .with_blocks(n, block)
        })
        .collect();
    let views: Vec<_> = owned.iter().map(Owned::view).collect();
    let query_heads = group * heads.iter().sum::<usize>();
    let params = AttentionParams {
        scale,
        softcap,
        window: sliding,
        mask,
        ..AttentionParams::new(query_heads, heads.iter().sum(), dim)
    };
    let stride = query_heads * dim + wider;
    let rows = noise(seed + 9, wider + n * stride);
    let queries: Vec<f32> =
        (0..n).flat_map(|i| rows[wider + i * stride..][..query_heads * dim].iter().copied()).collect();
    // Weights of the last queries only, some of them 0.
    let weights: Vec<f32> = noise(seed + 5, n)
        .iter()
        .enumerate()
        .map(|(i, x)| if i + window >= n && *x > -0.6 { x + 1.0 } else { 0.0 })
        .collect();
    let (want, columns) = reference::attention_and_sums(&params, &queries, n, &views, &weights);

    let run = |shim: &Shim, gathers: bool| {
        let uploaded: Vec<_> = owned.iter().map(|lane| lane.upload(shim)).collect();
        let lanes: Vec<_> = uploaded.iter().map(Uploaded::lane).collect();
        let data = Buffer::from_slice(shim, &rows).expect("room");
        let mut out = Buffer::<f32>::new(shim, want.len()).expect("room");
        let mut sums: Vec<_> =
            owned.iter().map(|lane| Buffer::<f32>::new(shim, lane.heads * lane.len()).expect("room")).collect();
        let gather =
            gathers.then(|| cuda::Gather { weights: &weights, sums: sums.iter_mut().map(Buffer::all_mut).collect() });
        let rows = cuda::Rows { data: data.all(), offset: wider, stride };
        cuda::prefill(shim, &params, rows, n, &lanes, gather, out.all_mut()).expect("it runs");
        let sums: Vec<Vec<f32>> =
            sums.iter().map(|sums| if gathers { sums.read().expect("contents") } else { Vec::new() }).collect();
        (out.read().expect("contents"), sums)
    };
    let (got, sums) = in_both_orders(4, |shim| run(shim, true));
    assert_eq!(got, run(&Shim::new(Order::FirstToLast, 1), false).0, "the sums change the result");

    let mut twin = vec![f32::NAN; want.len()];
    let mut twin_sums = Vec::new();
    let gather = Some(attention::Gather { weights: &weights, sums: &mut twin_sums });
    attention::prefill(&params, Rows::strided(&rows, wider, stride), n, &views, gather, &mut twin);
    assert_close(&got, &twin, 2e-5);
    // A query that sees only dead entries is NaN in the reference's division by nothing, zeros elsewhere.
    let want: Vec<f32> = want.iter().map(|x| if x.is_nan() { 0.0 } else { *x }).collect();
    assert_close(&got, &want, 2e-5);
    let sums: Vec<f32> = sums.concat();
    let columns: Vec<f64> = columns.concat();
    assert_relatively_close(&sums, &columns, 1e-4);
    let twin_sums: Vec<f64> = twin_sums.concat().iter().map(|x| f64::from(*x)).collect();
    assert_relatively_close(&sums, &twin_sums, 1e-4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn prefill_equals_the_twins(case in cases(), storage in 0..STORAGES.len()) {
        check(&case, STORAGES[storage]);
    }
}

#[test]
fn longer_lanes_than_a_few_tiles() {
    for (n, past, sliding) in
        [(70, 511, None), (65, 512, None), (3, 1000, None), (140, 511, Some(70)), (3, 1000, Some(600))]
    {
        let case = Case {
            seed: 11,
            dim: 64,
            group: 2,
            n,
            past,
            heads: vec![1],
            dead: 7,
            spare: 1,
            mask: Mask::Causal,
            block: 60,
            sliding,
            softcap: None,
            window: 20,
            wider: 0,
        };
        check(&case, CODES);
    }
}

#[test]
fn no_weight_at_all_gives_zeros_and_no_query_nothing() {
    let shim = Shim::new(Order::FirstToLast, 1);
    let lane = Owned::new(F16, 3, (2, 32), &[40], 0, 0);
    let uploaded = lane.upload(&shim);
    let data = Buffer::from_slice(&shim, &noise(4, 5 * 64)).expect("room");
    for n in [5, 0] {
        let mut out = Buffer::<f32>::new(&shim, n * 64).expect("room");
        let mut sums = Buffer::<f32>::new(&shim, 2 * 40).expect("room");
        let weights = vec![0.0; n];
        let gather = cuda::Gather { weights: &weights, sums: vec![sums.all_mut()] };
        let rows = cuda::Rows { data: data.all(), offset: 0, stride: 64 };
        let lanes = [uploaded.lane()];
        cuda::prefill(&shim, &AttentionParams::new(2, 2, 32), rows, n, &lanes, Some(gather), out.all_mut())
            .expect("it runs");
        assert_eq!(sums.read().expect("contents"), vec![0.0; 80]);
        assert!(out.read().expect("contents").iter().all(|x| x.is_finite()));
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_a_launch() {
    let shim = Shim::new(Order::FirstToLast, 1);
    let lane = Owned::new(F32, 3, (2, 8), &[4], 0, 0);
    let uploaded = lane.upload(&shim);
    let data = Buffer::from_slice(&shim, &noise(4, 5 * 32)).expect("room");
    let refuse = |n: usize, query_heads: usize, dim: usize, stride: usize, mask: Mask| {
        let mut out = Buffer::<f32>::new(&shim, n * query_heads * dim).expect("room");
        let rows = cuda::Rows { data: data.all(), offset: 0, stride };
        let params = AttentionParams { mask, ..AttentionParams::new(query_heads, 2, dim) };
        match cuda::prefill(&shim, &params, rows, n, &[uploaded.lane()], None, out.all_mut()) {
            Err(Error::Argument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert!(refuse(4, 3, 8, 32, Mask::None).contains("3 query heads over 2 KV heads"));
    assert!(refuse(5, 4, 8, 32, Mask::Causal).contains("a causal lane of 4 entries for 5 queries"));
    assert!(refuse(4, 4, 10, 40, Mask::None).contains("multiples of 8"));
    assert!(refuse(6, 4, 8, 32, Mask::None).contains("6 rows of 32 elements"));
    assert!(refuse(4, 4, 8, 31, Mask::None).contains("31 apart"));
    let unplaced = |params: AttentionParams, positions: Option<&[u32]>| {
        let mut out = Buffer::<f32>::new(&shim, 32).expect("room");
        let rows = cuda::Rows { data: data.all(), offset: 0, stride: 32 };
        let lane = cuda::Lane { positions, ..uploaded.lane() };
        match cuda::prefill(&shim, &params, rows, 1, &[lane], None, out.all_mut()) {
            Err(Error::Argument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let seeing = |mask: Mask, ends: &[u32]| {
        let mut out = Buffer::<f32>::new(&shim, 2 * 32).expect("room");
        let rows = cuda::Rows { data: data.all(), offset: 0, stride: 32 };
        let lane = cuda::Lane { ends: Some(ends), ..uploaded.lane() };
        let params = AttentionParams { mask, ..AttentionParams::new(4, 2, 8) };
        match cuda::prefill(&shim, &params, rows, 2, &[lane], None, out.all_mut()) {
            Err(Error::Argument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert!(seeing(Mask::Causal, &[2]).contains("the ends of 1 queries for 2"));
    assert!(seeing(Mask::None, &[2, 2]).contains("under None"));
    for ends in [[1, 1], [0, 2], [2, 3]] {
        assert!(seeing(Mask::Causal, &ends).contains("less than its own entry"));
    }
    let params = AttentionParams { window: Some(3), ..AttentionParams::new(4, 2, 8) };
    assert!(unplaced(params, None).contains("0 positions of 4 entries under a window"));
    assert!(unplaced(params, Some(&[1, 2, 3])).contains("3 positions of 4 entries under a window"));
    assert!(unplaced(AttentionParams { window: Some(0), ..params }, None).contains("a window of no position"));
    assert!(unplaced(AttentionParams { mask: Mask::None, ..params }, None).contains("without a causal mask"));
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(unplaced(AttentionParams { softcap: Some(cap), ..params }, None).contains("a soft cap of"));
    }
    assert!(shim.launched().is_empty());
}
