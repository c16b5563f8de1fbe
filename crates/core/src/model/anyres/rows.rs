//! The rows of a picture from those of its tiles.

use super::sizes::Laid;

/// The positions of a picture, `[positions, width]`: all of its first tile, then the grid of the others as it is `laid`, row by row, `newline` behind each. `rows`
/// are those of all tiles, `side * side` each.
pub(super) fn assembled(rows: &[f32], newline: &[f32], laid: &Laid, side: usize) -> Vec<f32> {
    let width = newline.len();
    let base = side.pow(2) * width;
    let grid = Grid { rows: &rows[base..], width, side, laid };
    let mut out = Vec::with_capacity(base + laid.positions() * width);
    out.extend_from_slice(&rows[..base]);
    let (down, across) = (Axis::new(laid.cut.0, laid.shown.0), Axis::new(laid.cut.1, laid.shown.1));
    for row in 0..laid.shown.0 {
        for column in 0..laid.shown.1 {
            match laid.shown == laid.cut {
                true => out.extend_from_slice(grid.cell(row, column)),
                false => grid.between(down.at(row), across.at(column), &mut out),
            }
        }
        out.extend_from_slice(newline);
    }
    out
}

/// The cells of all tiles side by side, as far as they are not cut off.
struct Grid<'r> {
    rows: &'r [f32],
    width: usize,
    side: usize,
    laid: &'r Laid,
}

impl Grid<'_> {
    fn cell(&self, row: usize, column: usize) -> &[f32] {
        let (row, column) = (row + self.laid.first.0, column + self.laid.first.1);
        let tile = row / self.side * self.laid.across + column / self.side;
        let at = (tile * self.side + row % self.side) * self.side + column % self.side;
        &self.rows[at * self.width..(at + 1) * self.width]
    }

    /// Between four cells, in the order in which PyTorch multiplies and adds.
    fn between(&self, down: Between, across: Between, out: &mut Vec<f32>) {
        let [top, bottom] = down.cells.map(|row| across.cells.map(|column| self.cell(row, column)));
        for channel in 0..self.width {
            let mixed =
                |cells: [&[f32]; 2]| (1.0 - across.share) * cells[0][channel] + across.share * cells[1][channel];
            out.push((1.0 - down.share) * mixed(top) + down.share * mixed(bottom));
        }
    }
}

/// A place between two cells of an axis, and how near it is to the second.
#[derive(Clone, Copy)]
struct Between {
    cells: [usize; 2],
    share: f32,
}

/// An axis of cells that becomes shorter: bilinear, about the middles of cells, as torch's `interpolate` without `align_corners`.
struct Axis {
    cells: usize,
    step: f32,
}

impl Axis {
    fn new(cells: usize, shown: usize) -> Self {
        Axis { cells, step: cells as f32 / shown.max(1) as f32 }
    }

    fn at(&self, shown: usize) -> Between {
        let place = (self.step * (shown as f32 + 0.5) - 0.5).max(0.0);
        let first = (place as usize).min(self.cells - 1);
        Between { cells: [first, (first + 1).min(self.cells - 1)], share: (place - first as f32).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::anyres::Sizes;

    /// Tiles of 2 x 2 cells, each of which has one number: its tile, row and column.
    fn numbered(tiles: usize) -> Vec<f32> {
        (0..tiles).flat_map(|tile| [0, 1, 10, 11].map(|cell| (100 * tile + cell) as f32)).collect()
    }

    fn sizes(choice: (usize, usize), most: Option<usize>) -> Sizes {
        Sizes { tile: 8, side: 2, choices: vec![choice], most }
    }

    #[test]
    fn tiles_lie_side_by_side_and_lines_end() {
        let laid = sizes((16, 16), None).lay(16, 16);
        let rows = assembled(&numbered(5), &[-1.0], &laid, 2);
        let want = [
            0, 1, 10, 11, 100, 101, 200, 201, -1, 110, 111, 210, 211, -1, 300, 301, 400, 401, -1, 310, 311, 410, 411,
            -1,
        ];
        assert_eq!(rows, want.map(|cell| cell as f32));
    }

    #[test]
    fn padding_is_cut_off_at_both_ends() {
        // 16 x 5 pixels lie in the middle of 16 x 16: of 4 rows of cells int(1.25) are needed, and an odd rest leaves one more.
        let laid = sizes((16, 16), None).lay(16, 5);
        assert_eq!((laid.resized, laid.at, laid.first, laid.cut), ((16, 5), (0, 5), (1, 0), (2, 4)));
        let rows = assembled(&numbered(5), &[-1.0], &laid, 2);
        assert_eq!(rows[4..], [110, 111, 210, 211, -1, 300, 301, 400, 401, -1].map(|cell| cell as f32));
        // Nothing but line ends is left of a sliver.
        let laid = sizes((16, 16), None).lay(1, 90);
        assert_eq!((laid.shown, laid.positions()), ((4, 0), 4));
        assert_eq!(assembled(&numbered(5), &[-1.0], &laid, 2)[4..], [-1.0; 4]);
    }

    #[test]
    fn grids_that_are_too_large_are_made_smaller() {
        let laid = sizes((16, 16), Some(1)).lay(16, 16);
        assert_eq!(laid.shown, (2, 2));
        let rows = assembled(&numbered(5), &[-1.0], &laid, 2);
        assert_eq!(rows[4..], [105.5, 205.5, -1.0, 305.5, 405.5, -1.0]);
    }
}
