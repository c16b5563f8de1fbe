//! A square table of learned places, stretched over a picture.

/// Along one axis: of `n` patches the `at`-th lies between two places of a table with `side` of them, at this share of the way from the first
/// to the second. The corners of picture and table lie upon each other; in f32, as the reference computes it.
fn tap(at: usize, n: usize, side: usize) -> (usize, usize, f32) {
    let source = at as f32 * (side - 1) as f32 / (n - 1).max(1) as f32;
    let low = (source.floor() as usize).min(side - 1);
    (low, (low + 1).min(side - 1), source - low as f32)
}

/// The place of the patch at `row` and `column` of a picture of `rows` x `columns` patches, from a table `[side * side, width]`; added to
/// `out`.
pub(super) fn add(
    table: &[f32],
    side: usize,
    (row, column): (usize, usize),
    (rows, columns): (usize, usize),
    out: &mut [f32],
) {
    let width = out.len();
    let ((top, bottom, down), (left, right, across)) = (tap(row, rows, side), tap(column, columns, side));
    let taps = [
        (top, left, (1.0 - down) * (1.0 - across)),
        (top, right, (1.0 - down) * across),
        (bottom, left, down * (1.0 - across)),
        (bottom, right, down * across),
    ];
    for (row, column, weight) in taps {
        let start = (row * side + column) * width;
        out.iter_mut().zip(&table[start..start + width]).for_each(|(out, place)| *out += place * weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table whose numbers are a plane: whatever lies between is that plane too.
    #[test]
    fn a_plane_stays_a_plane_and_corners_stay_corners() {
        let side = 6;
        let table: Vec<f32> = (0..side * side).map(|at| (10 * (at / side) + at % side) as f32).collect();
        for (rows, columns) in [(2, 14), (6, 6), (31, 4), (1, 2)] {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let mut out = [0.0];
                add(&table, side, (row, column), (rows, columns), &mut out);
                let share = |at: usize, n: usize| 5.0 * at as f32 / (n - 1).max(1) as f32;
                let want = 10.0 * share(row, rows) + share(column, columns);
                assert!((out[0] - want).abs() < 1e-4, "{row}, {column} of {rows} x {columns}: {} for {want}", out[0]);
            }
        }
    }
}
