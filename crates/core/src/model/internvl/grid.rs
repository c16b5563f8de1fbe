//! The grid of tiles that a picture is cut into, by arithmetic. As transformers' GotOcr2ImageProcessorPil and OpenGVLab's code.

/// The settings that grids depend on.
#[derive(Clone, Debug)]
pub(super) struct Tiling {
    /// Side of a tile, in pixels.
    pub tile: usize,
    /// Whether one tile that shows all of the picture comes behind several others.
    pub thumbnail: bool,
    /// (columns, rows) to choose from, those with fewer tiles first, then those with fewer columns.
    grids: Vec<(usize, usize)>,
}

/// How one picture is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub rows: usize,
    pub columns: usize,
    /// Whether the whole picture is a tile behind these.
    pub thumbnail: bool,
}

impl Cut {
    pub(super) fn is_one(&self) -> bool {
        self.rows * self.columns == 1
    }

    /// All tiles, with the one that shows the whole picture.
    pub(super) fn tiles(&self) -> usize {
        self.rows * self.columns + usize::from(self.thumbnail)
    }
}

impl Tiling {
    /// Grids of `least` to `most` tiles; one tile where there is none of so many.
    pub(super) fn new(tile: usize, (least, most): (usize, usize), thumbnail: bool) -> Self {
        let mut grids: Vec<(usize, usize)> = (1..=most)
            .flat_map(|columns| (1..=most / columns).map(move |rows| (columns, rows)))
            .filter(|(columns, rows)| columns * rows >= least)
            .collect();
        grids.sort_by_key(|(columns, rows)| columns * rows);
        Tiling { tile, thumbnail, grids }
    }

    /// The grid whose shape is the nearest to a picture of `width` x `height` pixels. Of two that are equally near, the one with
    /// more tiles as long as they have not more than twice its pixels.
    pub(super) fn cut(&self, width: usize, height: usize) -> Cut {
        let (shape, pixels) = (width as f64 / height as f64, (width * height) as f64);
        let mut best = (f64::INFINITY, (1, 1));
        for &(columns, rows) in &self.grids {
            let off = (shape - columns as f64 / rows as f64).abs();
            let fills = || pixels > 0.5 * (self.tile * self.tile * columns * rows) as f64;
            if off < best.0 || off == best.0 && fills() {
                best = (off, (columns, rows));
            }
        }
        let (columns, rows) = best.1;
        Cut { rows, columns, thumbnail: self.thumbnail && columns * rows > 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(tiling: &Tiling, width: usize, height: usize) -> (usize, usize) {
        let cut = tiling.cut(width, height);
        (cut.columns, cut.rows)
    }

    /// (columns, rows) and positions of pictures by the processor of InternVL3: up to 12 tiles of 448 pixels, 256 cells each.
    #[test]
    fn known_pictures_have_known_tiles_and_positions() {
        let tiling = Tiling::new(448, (1, 12), true);
        for ((width, height), grid, positions) in [
            ((200, 150), (4, 3), 3328),
            ((640, 480), (4, 3), 3328),
            ((1013, 677), (3, 2), 1792),
            ((300, 1200), (1, 4), 1280),
            ((1920, 1080), (4, 2), 2304),
            ((448, 448), (1, 1), 256),
            ((1, 32_768), (1, 12), 3328),
            ((32_768, 1), (12, 1), 3328),
        ] {
            let cut = tiling.cut(width, height);
            assert_eq!(((cut.columns, cut.rows), 256 * cut.tiles()), (grid, positions), "{width} x {height}");
        }
    }

    #[test]
    fn of_grids_of_one_shape_the_picture_fills_half() {
        let tiling = Tiling::new(448, (1, 12), true);
        // 1 x 1, 2 x 2 and 3 x 3 are all square: more of them once the picture has more than half of their pixels.
        for (side, want) in [(448, 1), (633, 1), (634, 2), (950, 2), (951, 3), (4000, 3)] {
            assert_eq!(grid(&tiling, side, side), (want, want), "{side}");
        }
        for ((width, height), want) in [((500, 250), (2, 1)), ((1268, 634), (4, 2)), ((1266, 633), (2, 1))] {
            assert_eq!(grid(&tiling, width, height), want, "{width} x {height}");
        }
    }

    #[test]
    fn grids_have_as_many_tiles_as_is_said() {
        let one = Tiling::new(448, (1, 1), true).cut(1920, 1080);
        assert_eq!((one, one.tiles(), one.is_one()), (Cut { rows: 1, columns: 1, thumbnail: false }, 1, true));
        let bare = Tiling::new(448, (1, 6), false).cut(640, 480);
        assert_eq!((bare, bare.tiles()), (Cut { rows: 2, columns: 3, thumbnail: false }, 6));
        let several = Tiling::new(448, (2, 6), true).cut(448, 448);
        assert_eq!((several, several.tiles()), (Cut { rows: 2, columns: 2, thumbnail: true }, 5));
        assert!(Tiling::new(448, (9, 4), true).cut(640, 480).is_one());
        assert!(Tiling::new(448, (0, 0), true).cut(640, 480).is_one());
    }
}
