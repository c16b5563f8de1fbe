//! Windows of cells, in which most blocks of Qwen2.5-VL's tower attend.

/// Squares of cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    /// Cells along a side.
    pub side: usize,
    /// The blocks that attend to all of a picture.
    pub whole: Vec<usize>,
}

/// The cells of a picture, numbered row by row, window by window, and how many each window has. Windows lie row by row from the top left
/// corner; those at the right and at the bottom may be smaller.
pub(super) fn order(rows: usize, columns: usize, side: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut cells, mut sizes) = (Vec::with_capacity(rows * columns), Vec::new());
    for top in (0..rows).step_by(side) {
        for left in (0..columns).step_by(side) {
            let (bottom, right) = (rows.min(top + side), columns.min(left + side));
            cells.extend((top..bottom).flat_map(|row| (left..right).map(move |column| row * columns + column)));
            sizes.push((bottom - top) * (right - left));
        }
    }
    (cells, sizes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_at_the_edges_are_smaller() {
        let (cells, sizes) = order(3, 5, 2);
        assert_eq!(cells, [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]);
        assert_eq!(sizes, [4, 4, 2, 2, 2, 1]);
        assert_eq!(order(2, 2, 4), (vec![0, 1, 2, 3], vec![4]));
    }

    proptest! {
        /// As it reads: two cells share a window when they agree in both numbers of squares.
        #[test]
        fn cells_share_a_window_when_they_lie_in_one_square(rows in 1usize..20, columns in 1usize..20, side in 1usize..7) {
            let (cells, sizes) = order(rows, columns, side);
            let mut sorted = cells.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..rows * columns).collect::<Vec<_>>());
            prop_assert_eq!(sizes.iter().sum::<usize>(), rows * columns);
            let window: Vec<usize> = sizes.iter().enumerate().flat_map(|(index, size)| vec![index; *size]).collect();
            let square = |cell: usize| (cell / columns / side, cell % columns / side);
            for (a, b) in (0..cells.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                prop_assert_eq!(window[a] == window[b], square(cells[a]) == square(cells[b]));
            }
        }
    }
}
