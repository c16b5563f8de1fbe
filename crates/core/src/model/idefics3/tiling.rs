//! The tiles of a picture: which sizes it is resized to and how it is cut, by arithmetic. As transformers' Idefics3ImageProcessorPil.

/// Longest side of a picture before it is brought to whole tiles, in pixels.
const LONGEST: usize = 4096;

/// The first resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The longer side becomes this long, even if that enlarges the picture.
    LongestEdge(usize),
    Exact {
        width: usize,
        height: usize,
    },
}

/// The settings that sizes depend on.
#[derive(Clone, Debug)]
pub(super) struct Tiling {
    /// None: pictures are not resized first.
    pub target: Option<Target>,
    /// Side of a tile, in pixels.
    pub tile: usize,
    /// Whether pictures are cut at all.
    pub split: bool,
}

/// The way of one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// (width, height) after the first resize.
    pub first: (usize, usize),
    /// (width, height) after the second: whole tiles, or one tile.
    pub second: (usize, usize),
    /// Tiles from top to bottom; 0 where the picture is one tile.
    pub rows: usize,
    /// Tiles from left to right; 0 where the picture is one tile.
    pub columns: usize,
}

impl Cut {
    /// All tiles, with the one that shows the whole picture.
    pub(super) fn tiles(&self) -> usize {
        self.rows * self.columns + 1
    }
}

impl Tiling {
    /// The way of a picture of `width` x `height` pixels.
    pub(super) fn cut(&self, width: usize, height: usize) -> Cut {
        let tile = self.tile;
        let first = match self.target {
            None => (width, height),
            Some(Target::Exact { width, height }) => (width, height),
            Some(Target::LongestEdge(edge)) => capped(to_longest(width, height, edge)),
        };
        if !self.split {
            return Cut { first, second: (tile, tile), rows: 0, columns: 0 };
        }
        let second = whole_tiles(first, tile);
        let (columns, rows) = (second.0 / tile, second.1 / tile);
        let (rows, columns) = if rows * columns == 1 { (0, 0) } else { (rows, columns) };
        Cut { first, second, rows, columns }
    }

    /// Most tiles that a picture may become; None where the picture's own size says.
    pub(super) fn most_tiles(&self) -> Option<usize> {
        match self.target {
            _ if !self.split => Some(1),
            None => None,
            Some(Target::Exact { width, height }) => Some(self.cut(width, height).tiles()),
            Some(Target::LongestEdge(edge)) => Some(edge.min(LONGEST).div_ceil(self.tile).pow(2) + 1),
        }
    }
}

/// `long / ratio` or `short = long * ratio`, truncated as by Python's int().
fn follow(value: f64) -> usize {
    value as usize
}

fn to_longest(width: usize, height: usize, edge: usize) -> (usize, usize) {
    let ratio = width as f64 / height as f64;
    let even = |side: usize| side + side % 2;
    if width >= height {
        (edge, even(follow(edge as f64 / ratio)).max(1))
    } else {
        (even(follow(edge as f64 * ratio)).max(1), edge)
    }
}

fn capped((width, height): (usize, usize)) -> (usize, usize) {
    let ratio = width as f64 / height as f64;
    if width >= height && width > LONGEST {
        (LONGEST, follow(LONGEST as f64 / ratio).max(1))
    } else if height > width && height > LONGEST {
        (follow(LONGEST as f64 * ratio).max(1), LONGEST)
    } else {
        (width, height)
    }
}

/// The longer side grows to whole tiles, the other follows and grows to whole tiles too.
fn whole_tiles((width, height): (usize, usize), tile: usize) -> (usize, usize) {
    let ratio = width as f64 / height as f64;
    // A side that rounds to nothing is refused by Pillow; here it is one tile.
    let whole = |side: usize| side.max(1).next_multiple_of(tile);
    if width >= height {
        let width = whole(width);
        (width, whole(follow(width as f64 / ratio)))
    } else {
        let height = whole(height);
        (whole(follow(height as f64 * ratio)), height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(edge: usize, tile: usize) -> Tiling {
        Tiling { target: Some(Target::LongestEdge(edge)), tile, split: true }
    }

    /// (rows, columns) and positions of pictures by the processors of SmolVLM-256M (2048, tiles of 512, 64 cells) and 2.2B (1536, tiles of 384,
    /// 81 cells).
    #[test]
    fn known_pictures_have_known_tiles_and_positions() {
        for ((width, height), rows, columns, positions) in [
            ((200, 150), 3, 4, [832, 1053]),
            ((640, 480), 3, 4, [832, 1053]),
            ((1013, 677), 3, 4, [832, 1053]),
            ((300, 1200), 4, 1, [320, 405]),
            ((1920, 1080), 3, 4, [832, 1053]),
            ((512, 512), 4, 4, [1088, 1377]),
            ((1, 32_768), 4, 1, [320, 405]),
        ] {
            for ((tiling, cells), positions) in
                [(longest(2048, 512), 64), (longest(1536, 384), 81)].iter().zip(positions)
            {
                let cut = tiling.cut(width, height);
                assert_eq!((cut.rows, cut.columns), (rows, columns), "{width} x {height}");
                assert_eq!(cut.tiles() * cells, positions, "{width} x {height}");
                assert!(cut.tiles() <= tiling.most_tiles().unwrap());
            }
        }
        assert_eq!(longest(2048, 512).cut(1013, 677).first, (2048, 1368));
    }

    #[test]
    fn odd_sides_become_even_and_long_ones_are_capped() {
        assert_eq!(longest(128, 32).cut(97, 211).first, (58, 128));
        assert_eq!(longest(8000, 512).cut(300, 100).first, (4096, 1364));
        assert_eq!(longest(8000, 512).cut(100, 300).first, (1364, 4096));
        assert_eq!(longest(2048, 512).cut(32_768, 1).first, (2048, 1));
    }

    #[test]
    fn one_tile_is_no_grid() {
        let one = longest(364, 364).cut(90, 50);
        assert_eq!((one.second, one.rows, one.columns, one.tiles()), ((364, 364), 0, 0, 1));
        let whole = Tiling { split: false, ..longest(2048, 512) }.cut(640, 480);
        assert_eq!((whole.first, whole.second, whole.tiles()), ((2048, 1536), (512, 512), 1));
        let as_it_is = Tiling { target: None, tile: 32, split: true }.cut(70, 33);
        assert_eq!((as_it_is.second, as_it_is.rows, as_it_is.columns), ((96, 64), 2, 3));
    }
}
