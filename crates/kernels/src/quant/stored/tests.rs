use half::f16;
use proptest::prelude::*;

use super::super::{Format, Weights};
use super::*;
use crate::reference;

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 32
    }
}

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut next = random(seed);
    (0..n).map(|_| (next() as f32 / 4_294_967_296.0 - 0.5) * 3.0).collect()
}

/// Where the f16 numbers of a block lie.
fn halves(kind: BlockType) -> &'static [usize] {
    match kind {
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        _ => &[0],
    }
}

/// Blocks of random bits whose scales are finite.
fn blocks(kind: BlockType, n: usize, seed: u64) -> Vec<u8> {
    let mut next = random(seed);
    let mut bytes: Vec<u8> = (0..n * kind.bytes()).map(|_| next() as u8).collect();
    for block in bytes.chunks_exact_mut(kind.bytes()) {
        for at in halves(kind) {
            let scale = f16::from_f32((next() as f32 / 4_294_967_296.0 - 0.4) * 0.02);
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// Rows of random blocks from an odd byte on, in the order of the file or another.
fn stored(kind: BlockType, rows: usize, columns: usize, seed: u64, ordered: bool) -> Stored {
    let start = 13;
    let mut bytes = vec![255; start];
    bytes.extend(blocks(kind, rows * columns / kind.weights(), seed));
    let order: Option<Arc<[u32]>> = ordered.then(|| {
        let mut order: Vec<u32> = (0..rows as u32).collect();
        let mut next = random(seed + 7);
        for i in (1..rows).rev() {
            order.swap(i, next() as usize % (i + 1));
        }
        order.into()
    });
    Stored::new(kind, rows, columns, Arc::new(bytes), start, order).expect("fits")
}

fn bits(of: &[f32]) -> Vec<u32> {
    of.iter().map(|x| x.to_bits()).collect()
}

/// A product as dense `[n, rows]`.
fn product(weights: &Stored, level: Level, rows: usize, x: &[f32]) -> Vec<f32> {
    let x = Activations::quantise(x, weights.columns());
    let mut out = vec![f32::NAN; x.rows() * rows];
    weights.product_at(level, rows, &x, &mut out, rows, 0);
    out
}

#[test]
fn blocks_are_as_gguf_reads_them() {
    let mut rest: &[u8] = include_bytes!("../../../../../tests/golden/data/blocks.bin");
    let mut take = |n: usize| {
        let (some, left) = rest.split_at(n);
        rest = left;
        some
    };
    for kind in BlockType::ALL {
        let mut number = || u32::from_le_bytes(take(4).try_into().expect("four bytes"));
        assert_eq!(BlockType::from_ggml(number()), Some(kind));
        let n = number() as usize;
        let blocks = take(n * kind.bytes());
        let want: Vec<u32> =
            take(4 * n * kind.weights()).as_chunks::<4>().0.iter().map(|x| u32::from_le_bytes(*x)).collect();
        let mut got = vec![f32::NAN; n * kind.weights()];
        kind.dequantise(blocks, &mut got);
        // A zero of either sign.
        let bits = |of: &[f32]| -> Vec<u32> { of.iter().map(|x| (x + 0.0).to_bits()).collect() };
        let want = bits(&want.iter().map(|x| f32::from_bits(*x)).collect::<Vec<_>>());
        assert_eq!(bits(&got), want, "{}", kind.name());
        let twin: Vec<f32> = blocks
            .chunks_exact(kind.bytes())
            .flat_map(|block| reference::quant::numbers(kind, block))
            .map(|x| x as f32)
            .collect();
        assert_eq!(bits(&twin), want, "{}, the readable twin", kind.name());
    }
    assert!(take(0).is_empty() && rest.is_empty());
}

#[test]
fn every_bit_of_a_block_lies_where_the_twin_has_it() {
    for kind in BlockType::ALL {
        for seed in 0..50 {
            let block = blocks(kind, 1, seed);
            let mut got = vec![f32::NAN; kind.weights()];
            kind.dequantise(&block, &mut got);
            let want = reference::quant::numbers(kind, &block);
            assert!(got.iter().zip(&want).all(|(got, want)| *got == *want as f32), "{}", kind.name());
        }
    }
}

#[test]
fn numbers_and_names_are_those_of_ggml() {
    let found: Vec<(u32, &str)> = (0..64).filter_map(|n| Some((n, BlockType::from_ggml(n)?.name()))).collect();
    let want = [
        (2, "q4_0"),
        (3, "q4_1"),
        (6, "q5_0"),
        (7, "q5_1"),
        (8, "q8_0"),
        (10, "q2_k"),
        (11, "q3_k"),
        (12, "q4_k"),
        (13, "q5_k"),
        (14, "q6_k"),
        (20, "iq4_nl"),
        (23, "iq4_xs"),
    ];
    assert_eq!(found, want);
}

/// The portable product is right, and at all levels, in parts and row by row there are the same bits.
fn check(kind: BlockType, n: usize, rows: usize, columns: usize, seed: u64, ordered: bool) {
    let what = format!("{}, {n} rows of {rows}x{columns}, ordered: {ordered}", kind.name());
    let weights = stored(kind, rows, columns, seed, ordered);
    let x = noise(seed + 1, n * columns);
    let first = product(&weights, Level::Portable, rows, &x);
    let mut row = vec![0.0; columns];
    let largest: Vec<f64> = (0..rows)
        .map(|index| {
            weights.dequantise(index, &mut row);
            row.iter().map(|w| f64::from(w.abs())).sum()
        })
        .collect();
    for (at, (got, want)) in first.iter().zip(reference::quant::stored_product(&weights, &x)).enumerate() {
        // A bound of the partial sums, scales times codes and minima apart; f32 keeps 24 bits at each of the additions.
        let size = largest[at % rows] * 1.5 * 8.0;
        assert!((f64::from(*got) - want).abs() <= 1e-6 * size, "{what}: {got} for {want} at {at}");
    }
    for level in Level::available() {
        let all = product(&weights, level, rows, &x);
        assert_eq!(bits(&all), bits(&first), "{what}, {level:?}");
    }
    for (x, all) in x.chunks_exact(columns).zip(first.chunks_exact(rows)).take(3) {
        assert_eq!(bits(&product(&weights, Level::best(), rows, x)), bits(all), "{what}, one row alone");
    }
    // A part of the rows as a part of a wider result.
    let (some, stride, at) = (rows - rows / 3, rows + 5, 3);
    let mut wide = vec![f32::NAN; n * stride];
    weights.product(some, &Activations::quantise(&x, columns), &mut wide, stride, at);
    for (wide, all) in wide.chunks_exact(stride).zip(first.chunks_exact(rows)) {
        assert_eq!(bits(&wide[at..at + some]), bits(&all[..some]), "{what}, the first {some}");
        let rest = [&wide[..at], &wide[at + some..]].concat();
        assert!(rest.iter().all(|x| x.is_nan()), "{what}: wrote beside its place");
    }
}

#[test]
fn every_level_gives_the_same_right_bits() {
    for (index, kind) in BlockType::ALL.into_iter().enumerate() {
        let granule = kind.weights();
        for (case, (n, rows, columns)) in [
            (1, 1, granule),
            (2, 15, 2 * granule),
            (4, 16, 3 * granule),
            (7, 17, 768),
            (33, 50, 1280),
            (1, 600, 1024),
            (130, 33, 512),
            (5, 513, 256),
        ]
        .into_iter()
        .enumerate()
        {
            check(kind, n, rows, columns, (index * 8 + case) as u64, case % 2 == 1);
        }
        if granule == 32 {
            check(kind, 3, 40, 96, 3, false);
            check(kind, 6, 31, 608, 4, true);
        }
        check(kind, 4, 2048, 512, 5, true);
    }
}

#[test]
fn neither_threads_nor_tasks_change_a_bit() {
    let (n, rows, columns) = (5, 3000, 1024);
    for kind in BlockType::ALL {
        let weights = stored(kind, rows, columns, 1, true);
        let x = noise(2, n * columns);
        let found: Vec<Vec<u32>> = [1, 2, 3, 7]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| bits(&product(&weights, Level::best(), rows, &x)))
            })
            .collect();
        assert!(found.iter().all(|one| *one == found[0]), "{}", kind.name());
    }
}

#[test]
fn q8_0_has_the_bits_of_weights_that_we_quantise() {
    let (n, rows, columns) = (6, 50, 1536);
    let numbers = noise(1, rows * columns);
    let ours = Weights::quantise(Format::Q8_0, rows, columns, |row, to| {
        to.copy_from_slice(&numbers[row * columns..][..columns]);
    });
    // The same blocks as a file has them: the codes are whole steps of the scale.
    let mut bytes = Vec::new();
    for block in numbers.as_chunks::<32>().0 {
        let scale = f16::from_f32(block.iter().fold(0.0, |most: f32, x| most.max(x.abs())) / 127.0);
        bytes.extend(scale.to_le_bytes());
        let codes = reference::quant::q8_0(block).into_iter().map(|x| (x / scale.to_f64()).round() as i8 as u8);
        bytes.extend(codes);
    }
    let theirs = Stored::new(BlockType::Q8_0, rows, columns, Arc::new(bytes), 0, None).expect("fits");
    let x = noise(2, n * columns);
    let mut want = vec![f32::NAN; n * rows];
    ours.product(&x, &mut want);
    assert_eq!(bits(&product(&theirs, Level::best(), rows, &x)), bits(&want));
}

#[test]
fn extreme_codes_are_exact() {
    // All bits set or none, with the largest activations of either sign, where 16-bit sums could overflow.
    for kind in BlockType::ALL {
        for fill in [0u8, 255, 0x80, 0x7f] {
            let columns = 512;
            let mut bytes = vec![fill; columns / kind.weights() * kind.bytes()];
            for block in bytes.chunks_exact_mut(kind.bytes()) {
                for at in halves(kind) {
                    block[*at..at + 2].copy_from_slice(&f16::ONE.to_le_bytes());
                }
            }
            let weights = Stored::new(kind, 1, columns, Arc::new(bytes), 0, None).expect("fits");
            let x: Vec<f32> =
                (0..2 * columns).map(|i| if i < columns || i % 3 == 0 { 127.0 } else { -127.0 }).collect();
            let want = reference::quant::stored_product(&weights, &x);
            for level in Level::available() {
                for (got, want) in product(&weights, level, 1, &x).iter().zip(&want) {
                    let size = want.abs().max(1.0);
                    assert!(
                        (f64::from(*got) - want).abs() <= 1e-5 * size,
                        "{}, {level:?}: {got} for {want}",
                        kind.name()
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_does_not_become_finite() {
    let (rows, columns) = (20, 512);
    for kind in BlockType::ALL {
        for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
            for half in halves(kind) {
                let mut bytes = blocks(kind, rows * columns / kind.weights(), 3);
                let row = columns / kind.weights() * kind.bytes();
                bytes[7 * row + half..][..2].copy_from_slice(&bad.to_le_bytes());
                let weights = Stored::new(kind, rows, columns, Arc::new(bytes), 0, None).expect("fits");
                for level in Level::available() {
                    for (at, got) in product(&weights, level, rows, &noise(2, 2 * columns)).iter().enumerate() {
                        assert_eq!(got.is_finite(), at % rows != 7, "{}, {level:?}, {bad}: {got} at {at}", kind.name());
                    }
                }
            }
        }
        let weights = stored(kind, rows, columns, 4, false);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = noise(2, 3 * columns);
            x[columns + 300] = bad;
            for level in Level::available() {
                for (at, got) in product(&weights, level, rows, &x).iter().enumerate() {
                    assert_eq!(got.is_nan(), at / rows == 1, "{}, {level:?}, {bad}: {got} at {at}", kind.name());
                }
            }
        }
    }
}

#[test]
fn empty_products_are_empty() {
    for kind in BlockType::ALL {
        let none = Stored::new(kind, 0, 256, Arc::new(Vec::new()), 0, None).expect("fits");
        none.product(0, &Activations::quantise(&noise(1, 512), 256), &mut [], 0, 0);
        let weights = stored(kind, 3, 256, 1, false);
        weights.product(3, &Activations::quantise(&[], 256), &mut [], 3, 0);
        weights.product(0, &Activations::quantise(&noise(1, 256), 256), &mut [f32::NAN; 2], 2, 2);
    }
}

#[test]
fn rows_in_another_order_and_times_numbers_are_those_rows() {
    for (kind, ordered) in BlockType::ALL.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let (rows, columns) = (37, 2 * kind.weights().max(128));
        let plain = stored(kind, rows, columns, 3, ordered);
        let order: Vec<u32> = (0..rows as u32).map(|row| (row * 5 + 2) % rows as u32).collect();
        let factors: Vec<f32> = (0..rows).map(|row| 0.5 + row as f32 / 16.0).collect();
        let changed = plain.in_order(&order).and_then(|rows| rows.scaled(&factors)).expect("fits");
        let (mut want, mut got) = (vec![0.0; columns], vec![0.0; columns]);
        for (row, factor) in factors.iter().enumerate() {
            plain.dequantise(order[row] as usize, &mut want);
            changed.dequantise(row, &mut got);
            want.iter_mut().for_each(|number| *number *= factor);
            assert_eq!(bits(&got), bits(&want), "row {row} of {}", kind.name());
        }
        for n in [1, 5] {
            let x = noise(11, n * columns);
            let all = product(&plain, Level::best(), rows, &x);
            // Also of the first rows alone.
            for some in [rows, 9] {
                let want: Vec<f32> = (0..n * some)
                    .map(|at| all[at / some * rows + order[at % some] as usize] * factors[at % some])
                    .collect();
                let got = product(&changed, Level::best(), some, &x);
                assert_eq!(bits(&got), bits(&want), "{some} rows of {}, {n} of x", kind.name());
            }
        }
    }
    let plain = stored(BlockType::Q8_0, 4, 32, 1, false);
    assert!(plain.in_order(&[0, 1, 2, 4]).unwrap_err().contains("row 4 of 4"));
    assert!(plain.in_order(&[0, 1]).unwrap_err().contains("an order of 2 rows for 4"));
    assert!(plain.scaled(&[1.0; 3]).unwrap_err().contains("3 factors for 4 rows"));
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let new = |rows, columns, held, start, order: Option<&[u32]>| {
        Stored::new(BlockType::Q4K, rows, columns, Arc::new(vec![0; held]), start, order.map(Arc::from)).map(|_| ())
    };
    assert_eq!(new(2, 512, 576 + 5, 5, Some(&[1, 0])), Ok(()));
    for (refused, says) in [
        (new(2, 500, 10_000, 0, None), "rows of 500 weights are no whole blocks of q4_k, which have 256"),
        (new(2, 0, 10_000, 0, None), "rows of 0 weights are no whole blocks of q4_k, which have 256"),
        (new(2, 512, 576 + 4, 5, None), "2 rows of 512 weights in q4_k from byte 5 do not fit into 580 bytes"),
        (
            new(usize::MAX / 2, 512, 100, 0, None),
            "9223372036854775807 rows of 512 weights in q4_k from byte 0 do not fit into 100 bytes",
        ),
        (
            new(1, 256, 144, usize::MAX, None),
            "1 rows of 256 weights in q4_k from byte 18446744073709551615 do not fit into 144 bytes",
        ),
        (new(2, 256, 288, 0, Some(&[0])), "an order of 1 rows for 2"),
        (new(2, 256, 288, 0, Some(&[0, 2])), "an order with row 2 of 2"),
    ] {
        assert_eq!(refused, Err(says.to_string()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_shape_is_right(
        kind in 0usize..12,
        n in prop_oneof![1usize..12, Just(33usize)],
        rows in prop_oneof![1usize..70, Just(513usize)],
        blocks in 1usize..12,
        seed in 0u64..1000,
        ordered in any::<bool>(),
    ) {
        let kind = BlockType::ALL[kind];
        check(kind, n, rows, blocks * kind.weights(), seed, ordered);
    }
}
