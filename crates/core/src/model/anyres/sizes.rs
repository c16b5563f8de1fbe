//! The way of a picture of any size through tiles and back to a grid of cells, by arithmetic. As transformers' LlavaNext and LlavaOnevision
//! classes, in f64, as Python computes.

/// Above this ratio of its side to what it may be, a grid is made smaller.
const SLACK: f64 = 1.1;
/// Python rounds a size to 7 digits before it cuts off its fraction.
const NEARLY: f64 = 5e-8;

/// The settings that sizes depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::model) struct Sizes {
    /// Side of a tile, in pixels.
    pub tile: usize,
    /// Cells along a side of a tile.
    pub side: usize,
    /// The (height, width) in pixels that a picture may be brought to: whole tiles. The first of equal ones is taken.
    pub choices: Vec<(usize, usize)>,
    /// How many tiles' cells a grid may have; None: as many as it has.
    pub most: Option<usize>,
}

/// The way of one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Laid {
    /// (width, height) after the resize.
    pub resized: (usize, usize),
    /// Where it then lies on black: (left, top), in pixels.
    pub at: (usize, usize),
    /// Tiles from top to bottom, and from left to right.
    pub down: usize,
    pub across: usize,
    /// The cells that are not cut off: the first row and column, and how many.
    pub first: (usize, usize),
    pub cut: (usize, usize),
    /// The (rows, columns) that they become.
    pub shown: (usize, usize),
}

impl Laid {
    /// Positions, with one behind each row.
    pub(super) fn positions(&self) -> usize {
        self.shown.0 * (self.shown.1 + 1)
    }

    pub(super) fn tiles(&self) -> usize {
        self.down * self.across
    }
}

impl Sizes {
    /// The way of a picture of `width` x `height` pixels.
    pub(super) fn lay(&self, width: usize, height: usize) -> Laid {
        let (high, wide) = self.choose(width, height);
        let (w, h) = (width as f64, height as f64);
        let (by_width, by_height) = (wide as f64 / w, high as f64 / h);
        let resized = match by_width < by_height {
            true => (wide, ((h * by_width).ceil() as usize).min(high)),
            false => (((w * by_height).ceil() as usize).min(wide), high),
        };
        let (down, across) = (high / self.tile, wide / self.tile);
        let (rows, columns) = (down * self.side, across * self.side);
        let (first, cut) = if w / h > columns as f64 / rows as f64 {
            let lost = rows.saturating_sub(whole(h * (columns as f64 / w))) / 2;
            ((lost, 0), (rows - 2 * lost, columns))
        } else {
            let lost = columns.saturating_sub(whole(w * (rows as f64 / h))) / 2;
            ((0, lost), (rows, columns - 2 * lost))
        };
        let at = ((wide - resized.0) / 2, (high - resized.1) / 2);
        Laid { resized, at, down, across, first, cut, shown: self.shrunk(cut) }
    }

    /// The (height, width) that holds most of a picture's pixels, and of those that hold as many the one that wastes least.
    fn choose(&self, width: usize, height: usize) -> (usize, usize) {
        let (w, h) = (width as f64, height as f64);
        let mut best: Option<((usize, usize), usize, usize)> = None;
        for &(high, wide) in &self.choices {
            let scale = (wide as f64 / w).min(high as f64 / h);
            let held = ((w * scale) as usize * (h * scale) as usize).min(width * height);
            let waste = (high * wide).saturating_sub(held);
            if best.is_none_or(|(_, most, least)| held > most || held == most && waste < least) {
                best = Some(((high, wide), held, waste));
            }
        }
        best.map_or((self.tile, self.tile), |(choice, ..)| choice)
    }

    /// The (rows, columns) of a grid of which no more may be shown.
    fn shrunk(&self, (rows, columns): (usize, usize)) -> (usize, usize) {
        let Some(most) = self.most else { return (rows, columns) };
        let ratio = ((rows * columns) as f64 / (most * self.side.pow(2)) as f64).sqrt();
        if ratio <= SLACK {
            return (rows, columns);
        }
        (divided(rows as f64, ratio), divided(columns as f64, ratio))
    }
}

/// Python's `int(round(x, 7))` of what is not negative.
fn whole(x: f64) -> usize {
    let near = x.round();
    (if near > x && near - x < NEARLY { near } else { x }) as usize
}

/// Python's `int(a // b)` of positive numbers, which goes by the remainder.
fn divided(a: f64, b: f64) -> usize {
    let quotient = (a - a % b) / b;
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// As on the hub.
    fn next() -> Sizes {
        let choices = vec![(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];
        Sizes { tile: 336, side: 24, choices, most: None }
    }

    fn onevision() -> Sizes {
        let choices = (1..=6).flat_map(|high| (1..=6).map(move |wide| (384 * high, 384 * wide)));
        Sizes { tile: 384, side: 27, choices: choices.collect(), most: Some(9) }
    }

    #[test]
    fn known_pictures_take_known_numbers_of_positions() {
        for (width, height, of_next, of_onevision) in [
            (200, 150, (1368, 24, 32), (1317, 21, 27)),
            (640, 480, (2340, 36, 48), (2929, 40, 54)),
            (1013, 677, (2144, 32, 48), (5157, 54, 81)),
            (300, 1200, (1944, 72, 18), (3753, 108, 27)),
            (1920, 1080, (1948, 28, 48), (7269, 60, 108)),
        ] {
            for (sizes, want) in [(next(), of_next), (onevision(), of_onevision)] {
                let laid = sizes.lay(width, height);
                let found = (sizes.side.pow(2) + laid.positions(), laid.shown.0, laid.shown.1);
                assert_eq!(found, want, "{width} x {height}, tiles of {}", sizes.tile);
            }
        }
    }

    #[test]
    fn sizes_are_those_of_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/anyres_sizes.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut compared = 0;
        for case in golden["cases"].as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let sizes = Sizes {
                tile: number("tile"),
                side: number("side"),
                choices: serde_json::from_value(case["choices"].clone()).unwrap(),
                most: case["most"].as_u64().map(|most| most as usize),
            };
            for size in case["sizes"].as_array().unwrap() {
                let numbers: Vec<usize> = serde_json::from_value(size.clone()).unwrap();
                let laid = sizes.lay(numbers[0], numbers[1]);
                let found = [laid.resized.0, laid.resized.1, sizes.tile * laid.across, sizes.tile * laid.down];
                let grid = [laid.cut.0, laid.cut.1, sizes.side.pow(2) + laid.positions()];
                assert_eq!([&found[..], &grid].concat(), numbers[2..], "{} x {}", numbers[0], numbers[1]);
                compared += 1;
            }
        }
        assert!(compared >= 400, "{compared} sizes");
    }
}
