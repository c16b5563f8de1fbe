//! Several rows of activations against the same rows of weights.

use super::*;

/// Rows of activations that are at work at once.
const MOST: usize = 16;

/// Columns at a time: eight rows of weights and three of activations of so many fit the first-level cache together.
const COLUMNS: usize = 512;

/// Eight rows of weights at a time, and of them [`COLUMNS`] columns for all rows of `x`. The sums of a row of `x` are taken in the
/// order in which [`scores_body`] takes them, so neither the number of rows nor a row's place among them changes its bits.
#[inline(always)]
fn products_body<S: Level, T: Element>(x: &[f32], columns: usize, weight: &[T], out: &mut [f32], step: usize) {
    let rows = weight.len() / columns;
    let whole = rows / LANES * LANES;
    for (x, out) in x.chunks(MOST * columns).zip(out.chunks_mut(MOST * step)) {
        let mut wide = [0.0; LANES * COLUMNS];
        for at in (0..whole).step_by(LANES) {
            let block = &weight[at * columns..(at + LANES) * columns];
            eight_rows::<S, T>(x, columns, block, &mut wide, &mut out[at..], step);
        }
        for row in whole..rows {
            let weight = &weight[row * columns..(row + 1) * columns];
            for (index, x) in x.chunks_exact(columns).enumerate() {
                out[index * step + row] = dot::<S, T>(x, weight);
            }
        }
    }
}

#[inline(always)]
fn eight_rows<S: Level, T: Element>(
    x: &[f32],
    columns: usize,
    weight: &[T],
    wide: &mut [f32; LANES * COLUMNS],
    out: &mut [f32],
    step: usize,
) {
    let n = x.len() / columns;
    let whole = columns / LANES * LANES;
    let mut sums = [[S::splat(0.0); LANES]; MOST];
    for from in (0..whole).step_by(COLUMNS) {
        let to = whole.min(from + COLUMNS);
        let narrow: [&[T]; LANES] = std::array::from_fn(|row| &weight[row * columns + from..row * columns + to]);
        // To what is read next: the same rows further on, or the next eight rows.
        let ahead = size_of::<T>() * if to < whole { COLUMNS } else { LANES * columns - from };
        // More than one pass over f16 weights pays for widening them once.
        if n > 4 && T::as_f16(weight).is_some() {
            for (narrow, wide) in narrow.iter().zip(wide.chunks_exact_mut(COLUMNS)) {
                let pairs = narrow.as_chunks::<LANES>().0.iter().zip(wide.as_chunks_mut::<LANES>().0);
                for (narrow, wide) in pairs {
                    S::prefetch(narrow.as_ptr().cast::<u8>().wrapping_add(ahead));
                    S::store(load::<S, T>(narrow), wide);
                }
            }
            let wide: [&[f32]; LANES] = std::array::from_fn(|row| &wide[row * COLUMNS..row * COLUMNS + to - from]);
            passes::<S, f32>(x, columns, from, &wide, None, &mut sums[..n]);
        } else {
            passes::<S, T>(x, columns, from, &narrow, Some(ahead), &mut sums[..n]);
        }
    }
    for (index, (sums, x)) in sums.iter().zip(x.chunks_exact(columns)).enumerate() {
        let out = &mut out[index * step..index * step + LANES];
        S::store(S::sums(sums), out);
        for (row, out) in out.iter_mut().enumerate() {
            for column in whole..columns {
                *out += x[column] * weight[row * columns + column].widen();
            }
        }
    }
}

/// All rows of `x` against some columns of eight rows of weights, as many rows of both as the registers hold at a time.
#[inline(always)]
fn passes<S: Level, T: Element>(
    x: &[f32],
    columns: usize,
    from: usize,
    weight: &[&[T]; LANES],
    mut ahead: Option<usize>,
    sums: &mut [[S::Vector; LANES]],
) {
    let mut row = 0;
    while row < sums.len() {
        let (x, left) = (&x[row * columns + from..], sums.len() - row);
        let sums = &mut sums[row..];
        row += match left {
            1 => pass::<S, T, 1, 8>(x, columns, weight, ahead, sums),
            2 => pass::<S, T, 2, 4>(x, columns, weight, ahead, sums),
            4 => pass::<S, T, 4, 2>(x, columns, weight, ahead, sums),
            _ => pass::<S, T, 3, 4>(x, columns, weight, ahead, sums),
        };
        ahead = None;
    }
}

/// `X` rows of activations against eight rows of weights, `K` of which are at work at a time. Returns `X`.
#[allow(clippy::needless_range_loop)] // Indices into several arrays at once, of lengths that the compiler knows.
#[inline(always)]
fn pass<S: Level, T: Element, const X: usize, const K: usize>(
    x: &[f32],
    columns: usize,
    weight: &[&[T]; LANES],
    ahead: Option<usize>,
    sums: &mut [[S::Vector; LANES]],
) -> usize {
    // No closures: they would be compiled without the instruction set of the function around them where they are not inlined.
    // All slices have one length that the compiler sees, so that the loop checks no bounds.
    let pairs = weight[0].len() / (2 * LANES);
    let (mut x_pairs, mut x_rest): ([&[[f32; 2 * LANES]]; X], [&[f32]; X]) = ([&[]; X], [&[]; X]);
    for row in 0..X {
        let x = &x[row * columns..row * columns + weight[0].len()];
        x_pairs[row] = &x.as_chunks().0[..pairs];
        x_rest[row] = x.as_chunks::<{ 2 * LANES }>().1;
    }
    for first in (0..LANES).step_by(K) {
        let (mut w_pairs, mut w_rest): ([&[[T; 2 * LANES]]; K], [&[T]; K]) = ([&[]; K], [&[]; K]);
        let mut held = [[S::splat(0.0); K]; X];
        for row in 0..K {
            w_pairs[row] = &weight[first + row].as_chunks().0[..pairs];
            w_rest[row] = weight[first + row].as_chunks::<{ 2 * LANES }>().1;
            for index in 0..X {
                held[index][row] = sums[index][first + row];
            }
        }
        for i in 0..pairs {
            if let Some(ahead) = ahead {
                for pairs in w_pairs {
                    // Never read through, so it may lie behind the end.
                    S::prefetch(pairs[i].as_ptr().cast::<u8>().wrapping_add(ahead));
                }
            }
            for half in [0, LANES] {
                let mut xs = [S::splat(0.0); X];
                for index in 0..X {
                    xs[index] = S::load(&x_pairs[index][i][half..half + LANES]);
                }
                for row in 0..K {
                    let w = load::<S, T>(&w_pairs[row][i][half..half + LANES]);
                    for index in 0..X {
                        held[index][row] = S::mul_add(xs[index], w, held[index][row]);
                    }
                }
            }
        }
        if !w_rest[0].is_empty() {
            for row in 0..K {
                let w = load::<S, T>(w_rest[row]);
                for index in 0..X {
                    held[index][row] = S::mul_add(S::load(x_rest[index]), w, held[index][row]);
                }
            }
        }
        for index in 0..X {
            sums[index][first..first + K].copy_from_slice(&held[index]);
        }
    }
    X
}

dispatch! {
    /// `out[i * step + r] = x[i] . weight[r]`; `x` and `weight` have rows of `columns` elements.
    pub fn products<T: Element>(x: &[f32], columns: usize, weight: &[T], out: &mut [f32], step: usize) = products_body
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    fn noise(n: usize, modulus: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 104_729 + 7) % modulus) as f32 / (modulus as f32 / 2.0) - 1.0).collect()
    }

    /// Both levels against sums in f64, and, bit for bit, against one row alone.
    fn check<T: Element>(n: usize, rows: usize, columns: usize) {
        let step = rows + 3;
        let (x, weight) = (noise(n * columns, 101), noise(rows * columns, 97));
        let weight: Vec<T> = weight.into_iter().map(T::narrow).collect();
        let (mut fast, mut plain) = (vec![f32::NAN; n * step], vec![f32::NAN; n * step]);
        products(&x, columns, &weight, &mut fast, step);
        products_body::<Portable, T>(&x, columns, &weight, &mut plain, step);
        for (index, x) in x.chunks_exact(columns).enumerate() {
            let (mut alone, mut plain_alone) = (vec![0.0; rows], vec![0.0; rows]);
            scores(x, columns, &weight, 1.0, &mut alone, rows);
            scores_body::<Portable, T>(x, columns, &weight, 1.0, &mut plain_alone, rows);
            for row in 0..rows {
                let at = index * step + row;
                let name = format!("row {index} of {n}, {row} of {rows}x{columns}");
                let weight = weight[row * columns..].iter();
                let exact: f64 = x.iter().zip(weight).map(|(x, w)| f64::from(*x) * f64::from(w.widen())).sum();
                let close = |got: f32| (f64::from(got) - exact).abs() < 1e-6 * (10 + columns) as f64;
                assert!(close(fast[at]) && close(plain[at]), "{name}: {} {} {exact}", fast[at], plain[at]);
                assert_eq!(fast[at].to_bits(), alone[row].to_bits(), "{name}");
                assert_eq!(plain[at].to_bits(), plain_alone[row].to_bits(), "{name}, portable");
            }
        }
    }

    #[test]
    fn every_number_of_rows_matches_sums_and_a_row_alone() {
        for n in 1..=MOST + 5 {
            for (rows, columns) in [(1, 1), (7, 9), (8, 8), (9, 48), (19, 33)] {
                check::<f32>(n, rows, columns);
                check::<f16>(n, rows, columns);
            }
        }
        for n in [1, 4, 7, 17] {
            for (rows, columns) in [(8, COLUMNS), (10, 2 * COLUMNS + 13)] {
                check::<f32>(n, rows, columns);
                check::<f16>(n, rows, columns);
            }
        }
    }
}
