use half::f16;
use proptest::prelude::*;

use super::*;
use crate::reference;

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

/// A lane of several runs, some with room to spare, f32 and f16 in turn.
struct Owned {
    heads: usize,
    runs: Vec<OwnedRun>,
}

enum OwnedRun {
    Full(Vec<f32>, Vec<f32>, usize, usize),
    Half(Vec<f16>, Vec<f16>, usize, usize),
}

impl Owned {
    fn new(seed: u64, heads: usize, dim: usize, lens: &[usize], spare: usize, halves: bool) -> Self {
        let runs = lens
            .iter()
            .enumerate()
            .map(|(i, &len)| {
                let capacity = len + spare;
                let keys = noise(seed + 2 * i as u64 + 1, heads * capacity * dim);
                let values = noise(seed + 2 * i as u64 + 2, heads * capacity * dim);
                if halves && i % 2 == 0 {
                    let half = |v: Vec<f32>| v.into_iter().map(f16::from_f32).collect::<Vec<_>>();
                    OwnedRun::Half(half(keys), half(values), len, capacity)
                } else {
                    OwnedRun::Full(keys, values, len, capacity)
                }
            })
            .collect();
        Owned { heads, runs }
    }

    fn view(&self) -> LaneView<'_> {
        let runs = self
            .runs
            .iter()
            .map(|run| match run {
                OwnedRun::Full(keys, values, len, capacity) => {
                    AnyRun::F32(Run { keys, values, len: *len, capacity: *capacity })
                }
                OwnedRun::Half(keys, values, len, capacity) => {
                    AnyRun::F16(Run { keys, values, len: *len, capacity: *capacity })
                }
            })
            .collect();
        LaneView { heads: self.heads, runs }
    }
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "element {i}: {got} for {want}");
    }
}

fn dims() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![4usize, 7, 16, 32, 64, 80, 128])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn prefill_equals_the_reference(
        seed in 1u64..1_000_000, dim in dims(), group in 1usize..4, n in 1usize..150, past in 0usize..90,
        heads in prop::collection::vec(1usize..3, 1..3), spare in 0usize..5, halves: bool, causal: bool, cut in 0usize..200,
    ) {
        // Ragged lanes: each keeps another number of past entries, in two runs.
        let lanes: Vec<Owned> = heads
            .iter()
            .enumerate()
            .map(|(i, &heads)| {
                let len = n + past / (i + 1);
                let cut = cut.min(len);
                Owned::new(seed + 100 * i as u64, heads, dim, &[cut, len - cut], spare, halves)
            })
            .collect();
        let views: Vec<LaneView<'_>> = lanes.iter().map(Owned::view).collect();
        let query_heads = group * heads.iter().sum::<usize>();
        let queries = noise(seed, n * query_heads * dim);
        let mask = if causal { Mask::Causal } else { Mask::None };
        let scale = 1.0 / (dim as f32).sqrt();
        let want = reference::attention(&queries, n, query_heads, dim, &views, scale, mask);

        let mut got = vec![f32::NAN; want.len()];
        prefill(Rows::dense(&queries, query_heads * dim), n, query_heads, dim, &views, scale, mask, &mut got);
        assert_close(&got, &want, 2e-5);

        // The same queries as a slice of wider rows.
        let stride = query_heads * dim + 5;
        let mut wide = vec![9.0; n * stride];
        for i in 0..n {
            wide[i * stride + 3..][..query_heads * dim].copy_from_slice(&queries[i * query_heads * dim..][..query_heads * dim]);
        }
        got.fill(f32::NAN);
        prefill(Rows::strided(&wide, 3, stride), n, query_heads, dim, &views, scale, mask, &mut got);
        assert_close(&got, &want, 2e-5);
    }

    #[test]
    fn decode_equals_the_reference(
        seed in 1u64..1_000_000, dim in dims(), group in 1usize..5, halves: bool, spare in 0usize..17,
        lens in prop::collection::vec(prop::sample::select(vec![0usize, 1, 2, 15, 16, 17, 511, 512, 513, 700]), 1..4),
        heads in prop::collection::vec(1usize..4, 1..3),
    ) {
        prop_assume!(lens.iter().sum::<usize>() > 0);
        // Two sequences with the same lanes but other queries, in one sweep.
        let lanes: Vec<Owned> = heads
            .iter()
            .enumerate()
            .map(|(i, &heads)| {
                let lens: Vec<usize> = lens.iter().map(|len| len / (i + 1)).collect();
                Owned::new(seed + 100 * i as u64, heads, dim, &lens, spare, halves)
            })
            .collect();
        let views: Vec<LaneView<'_>> = lanes.iter().map(Owned::view).filter(|view| !view.is_empty()).collect();
        prop_assume!(!views.is_empty());
        let scale = 0.3;
        let queries: Vec<Vec<f32>> = (0..2 * views.len())
            .map(|i| noise(seed + 7 * i as u64, views[i % views.len()].heads * group * dim))
            .collect();
        let mut outs: Vec<Vec<f32>> = queries.iter().map(|q| vec![f32::NAN; q.len()]).collect();
        let mut items: Vec<DecodeItem<'_>> = queries
            .iter()
            .zip(&mut outs)
            .enumerate()
            .map(|(i, (queries, out))| DecodeItem { lane: views[i % views.len()].clone(), queries, out })
            .collect();
        decode(&mut items, dim, scale);
        for (i, out) in outs.iter().enumerate() {
            let view = &views[i % views.len()];
            let want = reference::attention(&queries[i], 1, view.heads * group, dim, std::slice::from_ref(view), scale, Mask::None);
            assert_close(out, &want, 2e-5);
        }
    }
}

#[test]
fn extreme_scores_neither_overflow_nor_vanish() {
    // Scores of +-3000: the softmax must still sum to one, on one entry.
    let keys = [vec![1000.0f32; 4], vec![-1000.0; 4], vec![999.0; 4]].concat();
    let values = [vec![1.0f32; 4], vec![2.0; 4], vec![3.0; 4]].concat();
    let run = Run { keys: &keys, values: &values, len: 3, capacity: 3 };
    let view = LaneView { heads: 1, runs: vec![AnyRun::F32(run)] };
    let queries = [0.75f32; 4];
    let mut out = [0.0; 4];
    decode(&mut [DecodeItem { lane: view.clone(), queries: &queries, out: &mut out }], 4, 1.0);
    let want = reference::attention(&queries, 1, 1, 4, &[view], 1.0, Mask::None);
    assert_close(&out, &want, 1e-5);
    assert!((out[0] - 1.0).abs() < 0.2);
}
