//! Loops over whole rows of entries: weighted sums of rows, rotation, norms.

use super::*;

/// Rows that are added in one pass over the sums, so that each sum is read and written once for all of them.
const ROWS: usize = 8;

#[inline(always)]
fn add_rows_body<S: Level>(factors: &[f32], rows: &[f32], step: usize, sums: &mut [f32]) {
    // Rows of factor 0 are left out of a pass rather than multiplied.
    let mut counting = factors.iter().enumerate().filter(|(_, factor)| **factor != 0.0);
    let width = sums.len();
    loop {
        let mut held: [(f32, &[f32]); ROWS] = [(0.0, &[]); ROWS];
        let mut n = 0;
        while n < ROWS
            && let Some((row, factor)) = counting.next()
        {
            held[n] = (*factor, &rows[row * step..row * step + width]);
            n += 1;
        }
        match n {
            0 => return,
            ROWS => add_some::<S, ROWS>(&held, sums),
            _ => {
                for row in &held[..n] {
                    add_some::<S, 1>(&[*row], sums);
                }
            }
        }
    }
}

/// `sums += factor * row` for `R` rows as long as `sums`, in their order.
#[inline(always)]
fn add_some<S: Level, const R: usize>(rows: &[(f32, &[f32]); R], sums: &mut [f32]) {
    let factors = rows.map(|(factor, _)| S::splat(factor));
    let (eights, rest) = sums.as_chunks_mut::<LANES>();
    let n = eights.len();
    // Of one length that the compiler sees, so that the loop checks no bounds.
    let row_eights = rows.map(|(_, row)| &row.as_chunks::<LANES>().0[..n]);
    for (i, to) in eights.iter_mut().enumerate() {
        let mut sum = S::load(to);
        for (factor, row) in factors.iter().zip(&row_eights) {
            sum = S::mul_add(*factor, S::load(&row[i]), sum);
        }
        S::store(sum, to);
    }
    for (i, to) in rest.iter_mut().enumerate() {
        for (factor, row) in rows {
            *to += factor * row[n * LANES + i];
        }
    }
}

#[inline(always)]
fn rotate_rows_body<S: Level>(rows: &mut [f32], dim: usize, cos: &[f32], sin: &[f32]) {
    let half = dim / 2;
    let whole = half / LANES * LANES;
    for (row, (cos, sin)) in rows.chunks_exact_mut(dim).zip(cos.chunks_exact(half).zip(sin.chunks_exact(half))) {
        let (low, high) = row.split_at_mut(half);
        let mut at = 0;
        while at < whole {
            let (l, h) = (S::load(&low[at..at + LANES]), S::load(&high[at..at + LANES]));
            let (c, s) = (S::load(&cos[at..at + LANES]), S::load(&sin[at..at + LANES]));
            // Not fused: a key rotated at read has the same bits as one rotated when it was stored.
            S::store(S::sub(S::mul(l, c), S::mul(h, s)), &mut low[at..at + LANES]);
            S::store(S::add(S::mul(h, c), S::mul(l, s)), &mut high[at..at + LANES]);
            at += LANES;
        }
        for at in whole..half {
            let (l, h) = (low[at], high[at]);
            low[at] = l * cos[at] - h * sin[at];
            high[at] = h * cos[at] + l * sin[at];
        }
    }
}

#[inline(always)]
fn norms_body<S: Level, T: Element>(rows: &[T], dim: usize, out: &mut [f32]) {
    for (row, out) in rows.chunks_exact(dim).zip(out) {
        let eights = row.chunks_exact(LANES);
        let rest: f32 = eights.remainder().iter().map(|x| x.widen() * x.widen()).sum();
        let mut sum = S::splat(0.0);
        for eight in eights {
            let x = load::<S, T>(eight);
            sum = S::mul_add(x, x, sum);
        }
        *out = (S::sum(sum) + rest).sqrt();
    }
}

/// Butterflies: each round pairs elements twice as far apart.
#[inline(always)]
fn hadamard_body<S: Level>(rows: &mut [f32], dim: usize) {
    let whole = 1.0 / (dim as f32).sqrt();
    for row in rows.chunks_exact_mut(dim) {
        let mut apart = 1;
        while apart < dim {
            for pair in row.chunks_exact_mut(2 * apart) {
                let (low, high) = pair.split_at_mut(apart);
                for (low, high) in low.iter_mut().zip(high) {
                    (*low, *high) = (*low + *high, *low - *high);
                }
            }
            apart *= 2;
        }
        row.iter_mut().for_each(|x| *x *= whole);
    }
}

dispatch! {
    /// `sums[i] += factors[r] * rows[r * step + i]` over r, in the order of the rows.
    pub fn add_rows(factors: &[f32], rows: &[f32], step: usize, sums: &mut [f32]) = add_rows_body
}
dispatch! {
    /// Rotates rows of `dim` elements, row `i` by the `dim / 2` cosines and sines at `i * dim / 2`.
    pub fn rotate_rows(rows: &mut [f32], dim: usize, cos: &[f32], sin: &[f32]) = rotate_rows_body
}
dispatch! {
    /// The orthonormal Walsh-Hadamard transform of each row of `dim` elements, a power of two.
    pub fn hadamard(rows: &mut [f32], dim: usize) = hadamard_body
}
dispatch! {
    /// The Euclidean norm of each row of `dim` elements.
    pub fn norms<T: Element>(rows: &[T], dim: usize, out: &mut [f32]) = norms_body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_agree() {
        for (dim, n) in [(2, 3), (16, 5), (30, 19), (64, 8), (128, 33)] {
            let rows: Vec<f32> = (0..n * dim).map(|i| ((i * 7919) % 101) as f32 / 50.0 - 1.0).collect();
            let (cos, sin): (Vec<f32>, Vec<f32>) =
                (0..n * dim / 2).map(|i| ((i as f32).cos(), (i as f32).sin())).unzip();
            let (mut fast, mut plain) = (rows.clone(), rows.clone());
            rotate_rows(&mut fast, dim, &cos, &sin);
            rotate_rows_body::<Portable>(&mut plain, dim, &cos, &sin);
            assert_eq!(fast, plain);

            let factors: Vec<f32> = (0..n).map(|i| if i % 3 == 1 { 0.0 } else { i as f32 * 0.1 }).collect();
            let (mut fast, mut plain) = (vec![0.5; dim - 1], vec![0.5; dim - 1]);
            add_rows(&factors, &rows, dim, &mut fast);
            add_rows_body::<Portable>(&factors, &rows, dim, &mut plain);
            for (i, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
                let want: f64 = (0..n).map(|r| f64::from(factors[r]) * f64::from(rows[r * dim + i])).sum();
                assert!((f64::from(*fast) - 0.5 - want).abs() < 1e-5 && (fast - plain).abs() < 1e-5);
            }
        }
    }
}
