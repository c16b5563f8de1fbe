//! Some queries over all entries, and over some of them.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Entries that are not among those that are named might as well be dead, and rows that are not stay as they were.
    #[test]
    fn attention_among_some_entries_equals_the_reference_without_the_others(
        seed in 1u64..1_000_000, dim in dims(), group in 1usize..4, n in 1usize..150, past in 0usize..700,
        heads in 1usize..3, before in 0usize..3, traits in traits(), cut in 0usize..200, share in 0.0f32..1.2,
        sliding in sliding(), softcap in softcap(), blocks: bool,
    ) {
        let len = n + past;
        let lane = Owned::new(seed, heads, dim, &lens(len, cut), traits);
        let lane = Owned { positions: positions(seed, len, n), ends: blocks.then(|| ends(seed + 3, n)), ..lane };
        let view = lane.view();
        let query_heads = group * heads;
        let params = AttentionParams { window: sliding, softcap, ..AttentionParams::new(query_heads, heads, dim) };
        let taken: Vec<bool> = noise(seed + 9, len).iter().map(|x| x.abs() < share).collect();
        let entries: Vec<usize> = (0..len).filter(|entry| taken[*entry]).collect();
        let dead: Vec<bool> = (0..len).map(|i| !taken[i] || view.dead.is_some_and(|dead| dead[i])).collect();
        // Rows of more heads than those of the lane, which are not the first.
        let width = (before + query_heads + 1) * dim;
        let (wide, first) = (noise(seed, n * width), before * dim);
        let queries: Vec<f32> = wide.chunks(width).flat_map(|row| &row[first..first + query_heads * dim]).copied().collect();
        let without = LaneView { dead: Some(&dead), ..view.clone() };
        let weights = vec![0.0; n];
        let (want, _) = reference::attention_and_sums(&params, &queries, n, std::slice::from_ref(&without), &weights);

        let mut out = vec![9.0; n * width];
        let rows = Rows::strided(&wide, first, width);
        let run = |out: &mut [f32]| {
            prefill_among(&|| false, &params, (rows, n), &view, &entries, (&mut out[first..], width));
        };
        run(&mut out);
        for (row, (got, want)) in out.chunks(width).zip(want.chunks(query_heads * dim)).enumerate() {
            let (others, got) = (got[..first].iter().chain(&got[first + want.len()..]), &got[first..first + want.len()]);
            prop_assert!(others.into_iter().all(|x| *x == 9.0));
            match taken[past + row] {
                true => assert_close(got, want, 2e-5),
                false => prop_assert!(got.iter().all(|x| *x == 9.0), "row {} takes no part", row),
            }
        }
        for threads in [1, 3] {
            let mut again = vec![9.0; n * width];
            on_threads(threads, || run(&mut again));
            prop_assert!(again == out);
        }
    }

    /// The sums of some queries are those that all of them gather with a weight of 0 for the others.
    #[test]
    fn sums_of_some_queries_equal_the_reference(
        seed in 1u64..1_000_000, dim in dims(), group in 1usize..4, n in 1usize..300, past in 0usize..90,
        heads in prop::collection::vec(1usize..3, 1..3), traits in traits(), cut in 0usize..200, share in 0.0f32..1.2,
        sliding in sliding(), softcap in softcap(), blocks: bool,
    ) {
        let ends = blocks.then(|| ends(seed + 3, n));
        let lanes: Vec<Owned> = heads
            .iter()
            .enumerate()
            .map(|(i, &heads)| {
                let (seed, len) = (seed + 100 * i as u64, n + past / (i + 1));
                Owned {
                    positions: positions(seed, len, n),
                    ends: ends.clone(),
                    ..Owned::new(seed, heads, dim, &lens(len, cut), traits)
                }
            })
            .collect();
        let views: Vec<LaneView<'_>> = lanes.iter().map(Owned::view).collect();
        let kv_heads = heads.iter().sum();
        let params = AttentionParams { window: sliding, softcap, ..AttentionParams::new(group * kv_heads, kv_heads, dim) };
        let queries = noise(seed, n * params.query_heads * dim);
        let all: Vec<f32> = noise(seed + 9, n).iter().map(|x| if x.abs() < share { x + 1.5 } else { 0.0 }).collect();
        let rows: Vec<usize> = (0..n).filter(|row| all[*row] != 0.0).collect();
        let weights: Vec<f32> = rows.iter().map(|row| all[*row]).collect();
        let (_, columns) = reference::attention_and_sums(&params, &queries, n, &views, &all);
        let mut sums = vec![vec![7.0; 3]; 9];
        let gather = Gather { weights: &weights, sums: &mut sums };
        received(&|| false, &params, Rows::dense(&queries, params.query_heads * dim), (n, &rows), &views, gather);
        prop_assert_eq!(sums.len(), columns.len());
        for (sums, columns) in sums.iter().zip(&columns) {
            assert_relatively_close(sums, columns);
        }
    }
}
