//! Patches of a picture as rows, for a convolution whose stride is its kernel.

use crate::media::Pixels;

/// The samples of each patch of `patch` x `patch` pixels as a row, `[patches, 3 * patch * patch]`, channel by channel; in the order of
/// [`order`]. A rest at the right and the bottom is not seen, as by a convolution without padding.
pub(super) fn rows(pixels: &Pixels, patch: usize, merge: usize) -> Vec<f32> {
    numbered(pixels, patch, &order(pixels.height / patch, pixels.width / patch, merge))
}

/// As [`rows`], in an order of its own.
pub(super) fn numbered(pixels: &Pixels, patch: usize, order: &[usize]) -> Vec<f32> {
    let across = pixels.width / patch;
    let mut rows = Vec::with_capacity(order.len() * 3 * patch * patch);
    for at in order {
        let (row, column) = (at / across, at % across);
        for (channel, y) in (0..3).flat_map(|channel| (0..patch).map(move |y| (channel, y))) {
            let start = (channel * pixels.height + row * patch + y) * pixels.width + column * patch;
            rows.extend_from_slice(&pixels.data[start..start + patch]);
        }
    }
    rows
}

/// The numbers, row by row, of `rows` x `columns` patches in the order of cells of `merge` x `merge` patches: cells row by row, and row by row
/// inside a cell. Then the patches of a cell lie side by side, and rows that many times as wide are its joined features.
pub(super) fn order(rows: usize, columns: usize, merge: usize) -> Vec<usize> {
    let cells = (0..rows / merge).flat_map(|row| (0..columns / merge).map(move |column| (row, column)));
    cells
        .flat_map(|(row, column)| {
            let inside = (0..merge).flat_map(|down| (0..merge).map(move |across| (down, across)));
            inside.map(move |(down, across)| (row * merge + down) * columns + column * merge + across)
        })
        .collect()
}

/// As [`order`], but the first patches of all cells lie side by side, then the second ones: one behind the other they are added up to the
/// sums of cells.
pub(super) fn apart(rows: usize, columns: usize, merge: usize) -> Vec<usize> {
    let joined = order(rows, columns, merge);
    let of = merge * merge;
    (0..of).flat_map(|inside| joined.iter().skip(inside).step_by(of).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each sample says its channel, row and column.
    fn marked(height: usize, width: usize) -> Pixels {
        let data = (0..3 * height * width).map(|at| {
            let (channel, row, column) = (at / (height * width), at / width % height, at % width);
            (100 * channel + 10 * row + column) as f32
        });
        Pixels { data: data.collect(), height, width }
    }

    #[test]
    fn patches_are_cut_row_by_row_and_the_rest_is_left() {
        let rows = rows(&marked(5, 7), 2, 1);
        assert_eq!(rows.len(), 2 * 3 * 12);
        assert_eq!(rows[..12], [0.0, 1.0, 10.0, 11.0, 100.0, 101.0, 110.0, 111.0, 200.0, 201.0, 210.0, 211.0]);
        let corners: Vec<f32> = rows.iter().step_by(12).copied().collect();
        assert_eq!(corners, [0.0, 2.0, 4.0, 20.0, 22.0, 24.0]);
    }

    #[test]
    fn patches_of_a_cell_stand_together() {
        let rows = rows(&marked(4, 6), 1, 2);
        let corners: Vec<f32> = rows.iter().step_by(3).copied().collect();
        let cell = |row: usize, column: usize| [0, 1, 10, 11].map(|at| (20 * row + 2 * column + at) as f32);
        let cells = [cell(0, 0), cell(0, 1), cell(0, 2), cell(1, 0), cell(1, 1), cell(1, 2)];
        assert_eq!(corners, cells.concat());
        assert_eq!(order(3, 3, 3), (0..9).collect::<Vec<_>>());
        assert_eq!(apart(2, 6, 2), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        assert_eq!(apart(3, 5, 1), order(3, 5, 1));
    }
}
