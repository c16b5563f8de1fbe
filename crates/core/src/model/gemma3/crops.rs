//! Pan and scan: a long picture is shown a second time, in crops side by side. As in transformers' Gemma3ImageProcessorPil.

use crate::error::Result;
use crate::media::settings::Settings;

/// Most crops that a file may ask for.
const MOST: u64 = 64;

/// When a picture is cut, and into how many crops.
#[derive(Clone, Copy, Debug)]
pub(super) struct PanAndScan {
    /// Least pixels along a side of a crop.
    least: usize,
    most: usize,
    /// How many times as long as the other a side must be.
    stretched: f64,
}

/// Crops of a picture along its longer side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crops {
    count: usize,
    across: bool,
}

impl PanAndScan {
    /// None where `do_pan_and_scan` is not on; numbers that are left out are those of Gemma3Processor.
    pub(super) fn read(settings: &Settings) -> Result<Option<Self>> {
        if !settings.flag("do_pan_and_scan", false)? {
            return Ok(None);
        }
        let number = |key: &str, default: u64, most: u64| {
            let expected = format!("1 to {most}");
            let read = |value: &serde_json::Value| value.as_u64().filter(|number| (1..=most).contains(number));
            settings.get(key).map_or(Some(default), read).ok_or_else(|| settings.wrong(key, &expected))
        };
        Ok(Some(PanAndScan {
            least: number("pan_and_scan_min_crop_size", 256, 1 << 16)? as usize,
            most: number("pan_and_scan_max_num_crops", 4, MOST)? as usize,
            stretched: settings.positive("pan_and_scan_min_ratio_to_activate", 1.2)?,
        }))
    }

    /// None for a picture that is shown once.
    pub(super) fn crops(&self, width: usize, height: usize) -> Option<Crops> {
        let (long, short, across) = if width >= height { (width, height, true) } else { (height, width, false) };
        let ratio = long as f64 / short.max(1) as f64;
        if ratio < self.stretched {
            return None;
        }
        let wanted = (ratio + 0.5).floor() as usize;
        let count = wanted.min(long / self.least).max(2).min(self.most);
        let crops = Crops { count, across };
        let least = short.min(crops.step(long));
        // A last crop without a pixel cannot be resized.
        let whole = crops.step(long) * (count - 1) < long;
        (least >= self.least && whole).then_some(crops)
    }
}

impl Crops {
    pub(super) fn count(self) -> usize {
        self.count
    }

    fn step(self, long: usize) -> usize {
        long.div_ceil(self.count)
    }

    /// Row and column of each.
    pub(super) fn places(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).map(move |at| if self.across { (0, at) } else { (at, 0) })
    }

    /// Left and top edge, width and height of each, of a picture of `width` x `height`. The last one may be smaller.
    pub(super) fn parts(self, width: usize, height: usize) -> impl Iterator<Item = [usize; 4]> {
        let long = if self.across { width } else { height };
        let step = self.step(long);
        (0..self.count).map(move |at| {
            let (start, len) = (at * step, step.min(long - at * step));
            if self.across { [start, 0, len, height] } else { [0, start, width, len] }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: PanAndScan = PanAndScan { least: 256, most: 4, stretched: 1.2 };

    #[test]
    fn long_pictures_are_cut_along_their_longer_side() {
        let count = |width, height| USUAL.crops(width, height).map(|crops| (crops.count, crops.across));
        assert_eq!(count(1000, 999), None);
        assert_eq!(count(1200, 1000), Some((2, true)));
        assert_eq!(count(1000, 1200), Some((2, false)));
        assert_eq!(count(2500, 1000), Some((3, true)));
        assert_eq!(count(9000, 1000), Some((4, true)));
        // Crops would be too small.
        assert_eq!(count(900, 200), None);
        assert_eq!(count(400, 300), None);
        let parts: Vec<_> = USUAL.crops(2500, 1000).into_iter().flat_map(|crops| crops.parts(2500, 1000)).collect();
        assert_eq!(parts, [[0, 0, 834, 1000], [834, 0, 834, 1000], [1668, 0, 832, 1000]]);
        let tiny = PanAndScan { least: 1, most: 4, stretched: 1.2 };
        assert_eq!(tiny.crops(5, 1), None);
        assert_eq!(PanAndScan { most: 1, ..USUAL }.crops(1200, 1000), Some(Crops { count: 1, across: true }));
    }
}
