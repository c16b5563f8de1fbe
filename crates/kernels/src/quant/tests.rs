use proptest::prelude::*;

use super::*;
use crate::reference;
use crate::simd::level::Portable;

/// Numbers that look like weights: a bell of sums of uniform ones, and a few that are far larger.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n)
        .map(|i| {
            let bell = next() + next() + next() + next();
            if i % 173 == 5 { 4.0 * bell } else { bell }
        })
        .collect()
}

fn weights(format: Format, rows: usize, columns: usize, numbers: &[f32]) -> Weights {
    Weights::quantise(format, rows, columns, |row, to| to.copy_from_slice(&numbers[row * columns..][..columns]))
}

fn dequantised(weights: &Weights) -> Vec<f32> {
    let mut all = vec![f32::NAN; weights.rows() * weights.columns()];
    for (row, to) in all.chunks_exact_mut(weights.columns().max(1)).enumerate() {
        weights.dequantise(row, to);
    }
    all
}

fn bits(of: &[f32]) -> Vec<u32> {
    of.iter().map(|x| x.to_bits()).collect()
}

/// All levels and single rows give the same bits, and these are right.
fn check(format: Format, n: usize, rows: usize, columns: usize, seed: u64) {
    let what = format!("{format:?}, {n} rows of {rows}x{columns}");
    let weights = weights(format, rows, columns, &noise(seed, rows * columns));
    let x = noise(seed + 1, n * columns);
    let mut first = vec![f32::NAN; n * rows];
    weights.product_at(Level::Portable, &x, &mut first);
    let want = reference::quant::product(&weights, &x);
    for (at, (got, want)) in first.iter().zip(&want).enumerate() {
        // The sizes of what is added, of which f32 keeps 24 bits at each of the additions.
        let size: f64 = x[at / rows * columns..][..columns].iter().map(|x| f64::from(x.abs())).sum::<f64>() * 4.0;
        assert!((f64::from(*got) - want).abs() <= 1e-6 * (1.0 + size), "{what}: {got} for {want} at {at}");
    }
    for some in [0, 1, rows / 2, rows.saturating_sub(1), rows] {
        let some = some.min(rows);
        let mut part = vec![f32::NAN; n * some];
        weights.first_product(some, &x, &mut part);
        let want: Vec<f32> = first.chunks_exact(rows.max(1)).flat_map(|row| &row[..some]).copied().collect();
        assert_eq!(bits(&part), bits(&want), "{what}, the first {some} rows");
    }
    for level in Level::available() {
        let mut all = vec![f32::NAN; n * rows];
        weights.product_at(level, &x, &mut all);
        assert_eq!(bits(&all), bits(&first), "{what}, {level:?}");
        for (x, all) in x.chunks_exact(columns.max(1)).zip(all.chunks_exact(rows.max(1))) {
            let mut alone = vec![f32::NAN; rows];
            weights.product_at(level, x, &mut alone);
            assert_eq!(bits(&alone), bits(all), "{what}, {level:?}, one row alone");
        }
    }
}

#[test]
fn every_level_gives_the_same_right_bits() {
    for n in 1..=9 {
        for (rows, columns) in [(1, 256), (15, 512), (16, 256), (17, 768), (33, 1024), (50, 1280)] {
            check(Format::Q8_0, n, rows, columns, 1);
            check(Format::Q4K, n, rows, columns, 2);
        }
        for (rows, columns) in [(1, 32), (40, 96), (16, 576), (31, 608)] {
            check(Format::Q8_0, n, rows, columns, 3);
        }
    }
    for (n, rows, columns) in [(64, 100, 1536), (3, 2100, 512), (130, 49, 2304)] {
        check(Format::Q8_0, n, rows, columns, 4);
        check(Format::Q4K, n, rows, columns, 5);
    }
}

#[test]
fn neither_threads_nor_tasks_change_a_bit() {
    let (n, rows, columns) = (5, 3000, 1024);
    for format in [Format::Q8_0, Format::Q4K] {
        let numbers = noise(1, rows * columns);
        let x = noise(2, n * columns);
        let found: Vec<(Vec<u32>, Vec<u32>)> = [1, 2, 3, 7]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| {
                    let weights = weights(format, rows, columns, &numbers);
                    let mut out = vec![f32::NAN; n * rows];
                    weights.product(&x, &mut out);
                    (bits(&dequantised(&weights)), bits(&out))
                })
            })
            .collect();
        assert!(found.iter().all(|one| *one == found[0]), "{format:?}");
    }
}

#[test]
fn empty_ones_are_empty() {
    for format in [Format::Q8_0, Format::Q4K] {
        for (n, rows, columns) in [(0, 3, 256), (3, 0, 256), (0, 0, 0)] {
            let weights = weights(format, rows, columns, &vec![1.0; rows * columns]);
            weights.product(&vec![1.0; n * columns], &mut vec![f32::NAN; n * rows]);
        }
    }
}

#[test]
fn blocks_take_what_their_format_says() {
    for (rows, filled) in [(16, 16), (512, 512), (1, 16), (17, 32)] {
        let numbers = noise(1, rows * 512);
        assert_eq!(weights(Format::Q8_0, rows, 512, &numbers).bytes(), filled * 512 / 32 * 34);
        assert_eq!(weights(Format::Q4K, rows, 512, &numbers).bytes(), filled * 512 / 256 * 144);
    }
}

#[test]
fn q8_0_equals_the_reference() {
    for scale in [1e-12, 1e-6, 1e-3, 1.0, 1e4] {
        let numbers: Vec<f32> = noise(3, 20 * 96).iter().map(|x| x * scale).collect();
        let got = dequantised(&weights(Format::Q8_0, 20, 96, &numbers));
        let want = reference::quant::q8_0(&numbers);
        assert!(got.iter().zip(&want).all(|(got, want)| f64::from(*got) == *want), "numbers of {scale}");
    }
}

/// Mean squared error of some numbers after `quantise`.
fn loss(numbers: &[f32], after: &[f32]) -> f64 {
    let squares = numbers.iter().zip(after).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>() / numbers.len() as f64
}

#[test]
fn q4_k_loses_less_than_the_ends_of_the_range_as_codes_would() {
    let numbers = noise(5, 64 * 1024);
    let got = dequantised(&weights(Format::Q4K, 64, 1024, &numbers));
    let mut plain = Vec::new();
    for block in numbers.as_chunks::<BLOCK>().0 {
        let low = block.iter().fold(0.0f32, |low, x| low.min(*x));
        let step = (block.iter().fold(f32::MIN, |high, x| high.max(*x)) - low) / 15.0;
        plain.extend(block.iter().map(|x| ((x - low) / step).round() * step + low));
    }
    let share = (loss(&numbers, &got) / loss(&numbers, &plain)).sqrt();
    eprintln!("q4_k: {share:.4} of the rms error of the plain range");
    // The plain range has scales and minima of full precision.
    assert!(share < 0.93, "{share}");
}

#[test]
fn scales_are_as_good_as_a_search_over_all_of_them() {
    for seed in 0..40 {
        let numbers: [f32; BLOCK] =
            std::array::from_fn(|i| noise(seed, BLOCK)[i] + [0.0, 0.5, -2.0, 3.0][seed as usize % 4]);
        let x = scales::load::<Portable>(&numbers);
        let counts = scales::importance::<Portable>(&x);
        let found = scales::search::<Portable>(&x);
        let low = numbers.iter().fold(0.0f32, |low, x| low.min(*x));
        let range = numbers.iter().fold(f32::MIN, |high, x| high.max(*x)) - low;
        let mut best = f32::INFINITY;
        for scale in (0..400).map(|i| range / 15.0 * (0.6 + i as f32 / 800.0)) {
            for minimum in (0..200).map(|i| -low + range * (i as f32 / 1000.0 - 0.15)).filter(|minimum| *minimum >= 0.0)
            {
                let codes = scales::round::<Portable>(&x, minimum, 1.0 / scale);
                best = best.min(scales::error::<Portable>(&x, &counts, &codes, scale, minimum));
            }
        }
        assert!(found.error <= 1.12 * best, "seed {seed}: {} where {best} can be had", found.error);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn scales_have_the_same_bits_at_every_level() {
    use crate::simd::level::Avx2;
    #[target_feature(enable = "avx2,fma,f16c")]
    fn fast(x: &[f32; BLOCK]) -> scales::Fit {
        scales::search::<Avx2>(&scales::load::<Avx2>(x))
    }
    if !crate::simd::has_avx2() {
        return;
    }
    for (index, x) in noise(7, 2000 * BLOCK).as_chunks::<BLOCK>().0.iter().enumerate() {
        let x = x.map(|x| x + [0.0, 0.7, -3.0][index % 3]);
        let plain = scales::search::<Portable>(&scales::load::<Portable>(&x));
        // SAFETY: the required features were just detected.
        let fast = unsafe { fast(&x) };
        assert_eq!((fast.scale.to_bits(), fast.minimum.to_bits()), (plain.scale.to_bits(), plain.minimum.to_bits()));
    }
}

#[test]
fn blocks_of_one_number_and_of_outliers_hold() {
    for value in [0.0f32, 1.0, -1.0, 1e-7, -3e4, 6e4] {
        for format in [Format::Q8_0, Format::Q4K] {
            let got = dequantised(&weights(format, 3, 256, &[value; 768]));
            let worst = got.iter().fold(0.0f32, |worst, got| worst.max((got - value).abs()));
            assert!(worst <= value.abs() * 2e-3 + 1e-6, "{format:?} of {value}: {worst}");
        }
    }
    // A column that is a thousand times as large takes the precision of its block, not of the others.
    let mut numbers = noise(1, 512);
    numbers[40] = 1000.0;
    for format in [Format::Q8_0, Format::Q4K] {
        let got = dequantised(&weights(format, 1, 512, &numbers));
        let near = loss(&numbers[256..], &got[256..]).sqrt();
        assert!(near < 0.1 && (got[40] - 1000.0).abs() < 5.0, "{format:?}: {near}, {}", got[40]);
    }
}

#[test]
fn what_is_not_finite_or_does_not_fit_becomes_nan() {
    for format in [Format::Q8_0, Format::Q4K] {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1e9] {
            let (rows, columns) = (20, 512);
            let mut numbers = noise(1, rows * columns);
            numbers[7 * columns + 300] = bad;
            let weights = weights(format, rows, columns, &numbers);
            let held = dequantised(&weights)[7 * columns + 300];
            assert!(held.is_nan(), "{format:?}: {bad} became {held}");
            for level in Level::available() {
                let mut out = vec![0.0; 2 * rows];
                weights.product_at(level, &noise(2, 2 * columns), &mut out);
                for (at, got) in out.iter().enumerate() {
                    assert_eq!(got.is_nan(), at % rows == 7, "{format:?}, {level:?}, {bad}: {got} at {at}");
                }
            }
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let weights = weights(format, 20, 512, &noise(1, 20 * 512));
            let mut x = noise(2, 3 * 512);
            x[512 + 300] = bad;
            for level in Level::available() {
                let mut out = vec![0.0; 60];
                weights.product_at(level, &x, &mut out);
                for (at, got) in out.iter().enumerate() {
                    assert_eq!(got.is_nan(), at / 20 == 1, "{format:?}, {level:?}, {bad}: {got} at {at}");
                }
            }
        }
    }
}

#[test]
fn small_and_large_activations_keep_their_precision() {
    let weights = weights(Format::Q8_0, 16, 64, &noise(1, 16 * 64));
    for scale in [1e-30f32, 1e-20, 1e20, 1e34] {
        let x: Vec<f32> = noise(2, 64).iter().map(|x| x * scale).collect();
        let mut out = vec![f32::NAN; 16];
        weights.product(&x, &mut out);
        let want = reference::quant::product(&weights, &x);
        for (got, want) in out.iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() <= 1e-5 * f64::from(scale), "{got} for {want}");
        }
    }
}

proptest! {
    #[test]
    fn any_shape_is_right(
        n in 0usize..12, rows in 0usize..70, blocks in 1usize..12, seed in 0u64..1000, four in any::<bool>(),
    ) {
        let format = if four { Format::Q4K } else { Format::Q8_0 };
        check(format, n, rows, blocks * format.granule(), seed);
    }
}
