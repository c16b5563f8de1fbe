//! Pictures of any size: resized to whole cells, as many as their pixels are worth within limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use serde_json::Value;

use super::config::{QwenVlConfig, TowerConfig};
use super::videos::Films;
use crate::cache::Piece;
use crate::error::{Error, Result};
use crate::media::normalise::{Normalise, Tables};
use crate::media::settings::Settings;
use crate::media::{Area, Canvas, Filter, Prepared, SettingsOf, resize};
use crate::model::images::{ImagePlan, ImageProcessor, Images, SizeOf};
use crate::model::videos::{VideoMark, VideoProcessor};

/// How many times as long as the other a side may be.
const MOST_STRETCHED: f64 = 200.0;
/// Most pixels that a file may ask for.
const MOST_PIXELS: u64 = 1 << 26;
/// The limits of Hugging Face's class.
const LEAST: u64 = 56 * 56;
const MOST: u64 = 28 * 28 * 1280;
/// OpenAI CLIP's, which the class assumes.
pub(super) const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
pub(super) const STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// The sizes that pictures become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Pixels along a side of a cell.
    pub cell: usize,
    /// Least and most pixels of a picture.
    pub least: u64,
    pub most: u64,
}

impl Limits {
    /// (height, width) in pixels, whole cells, of a picture that has these. In f64, as Python computes.
    pub(super) fn fit(&self, height: usize, width: usize) -> (usize, usize) {
        self.fit_all(height, width, 1.0, 1.0)
    }

    /// As [`Limits::fit`], of `frames` frames together, which count as `counted` where they are compared with the limits.
    pub(super) fn fit_all(&self, height: usize, width: usize, frames: f64, counted: f64) -> (usize, usize) {
        let (high, wide, cell) = (height as f64, width as f64, self.cell as f64);
        let near = |side: f64| (side / cell).round_ties_even() * cell;
        let (rows, columns) = (near(high), near(wide));
        let (rows, columns) = if counted * rows * columns > self.most as f64 {
            let shrink = (frames * high * wide / self.most as f64).sqrt();
            let side = |side: f64| ((side / shrink / cell).floor() * cell).max(cell);
            (side(high), side(wide))
        } else if counted * rows * columns < self.least as f64 {
            let grow = (self.least as f64 / (frames * high * wide)).sqrt();
            let side = |side: f64| (side * grow / cell).ceil() * cell;
            (side(high), side(wide))
        } else {
            (rows, columns)
        };
        (rows as usize, columns as usize)
    }
}

#[derive(Debug)]
struct Cells {
    path: Option<PathBuf>,
    limits: Limits,
    filter: Filter,
    tables: Tables,
    videos: Films,
}

impl Cells {
    fn read(at: &SettingsOf, tower: &TowerConfig) -> Result<Self> {
        let settings = at.read()?;
        let path = settings.as_ref().map(|settings| settings.path().to_owned());
        let normalise = Normalise::by(MEAN, STD);
        let videos = Films::read(at, tower)?;
        let Some(settings) = settings else {
            let limits = Limits { cell: tower.cell(), least: LEAST, most: MOST };
            return Ok(Cells { path, limits, filter: Filter::Bicubic, tables: normalise.tables(), videos });
        };
        settings.class(&["Qwen2VLImageProcessor"])?;
        require_fit(&settings, tower, 14)?;
        let (least, most) = (
            pixels(&settings, Some("min_pixels"), "shortest_edge", LEAST, MOST_PIXELS)?,
            pixels(&settings, Some("max_pixels"), "longest_edge", MOST, MOST_PIXELS)?,
        );
        if least > most {
            return Err(settings.fail(format!("a picture may have {least} pixels at least and {most} at most")));
        }
        Ok(Cells {
            path,
            limits: Limits { cell: tower.cell(), least, most },
            filter: settings.filter(Filter::Bicubic)?,
            tables: normalise.or(&settings)?.tables(),
            videos,
        })
    }
}

/// Refuses settings whose patches are not the tower's; `patch` is the size that their class assumes.
pub(super) fn require_fit(settings: &Settings, tower: &TowerConfig, patch: u64) -> Result<()> {
    for (key, default, has) in
        [("patch_size", patch, tower.patch), ("merge_size", 2, tower.merge), ("temporal_patch_size", 2, tower.frames)]
    {
        let asked = settings.get(key).map_or(Some(default), Value::as_u64);
        if asked != Some(has as u64) {
            return Err(settings.wrong(key, &format!("{has}, as the vision tower has it")));
        }
    }
    settings.flag("do_convert_rgb", true)?;
    if !settings.flag("do_resize", true)? {
        return Err(settings.fail("`do_resize` is false, but pictures must become whole cells".into()));
    }
    Ok(())
}

/// A number of pixels, at most `limit`: the one of its own key, else the one in `size`, by its new name or by the old one.
pub(super) fn pixels(settings: &Settings, own: Option<&str>, in_size: &str, default: u64, limit: u64) -> Result<u64> {
    let expected = format!("1 to {limit}");
    let read = |value: &Value| value.as_u64().filter(|pixels| (1..=limit).contains(pixels));
    if let Some((own, value)) = own.and_then(|own| Some((own, settings.get(own)?))) {
        return read(value).ok_or_else(|| settings.wrong(own, &expected));
    }
    match settings.get("size") {
        None => Ok(default),
        Some(size) => {
            let value = size.get(in_size).or_else(|| size.get(own?)).filter(|value| !value.is_null());
            let expected = format!("an object with `{in_size}`, a number of pixels from {expected}");
            value.and_then(read).ok_or_else(|| settings.wrong("size", &expected))
        }
    }
}

impl Images for QwenVlConfig {
    fn placeholder(&self) -> u32 {
        self.image_token
    }

    fn placeholder_key(&self) -> &'static str {
        "image_token_id"
    }

    fn processor(&self, settings: &SettingsOf) -> Result<Arc<dyn ImageProcessor>> {
        Ok(Arc::new(Cells::read(settings, &self.tower)?))
    }

    fn video_mark(&self) -> Option<VideoMark> {
        Some(VideoMark::Token(self.video_token))
    }
}

impl ImageProcessor for Cells {
    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// # Errors
    /// [`Error::Image`] of a picture that is too long and thin.
    fn plan(&self, size: SizeOf<'_>) -> Result<ImagePlan> {
        let (width, height) = size()?;
        require_shape(width, height)?;
        let (rows, columns) = self.limits.fit(height, width);
        let (rows, columns) = (rows / self.limits.cell, columns / self.limits.cell);
        Ok(ImagePlan::whole(Piece::base(rows, columns), rows * columns))
    }

    fn prepare(&self, image: &RgbImage) -> Prepared {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (rows, columns) = self.limits.fit(height, width);
        let resized = resize(Canvas::plain(image), columns, rows, self.filter);
        Prepared { tiles: vec![self.tables.part(&resized, (0, 0), (columns, rows))], width, height }
    }

    fn videos(&self) -> Option<&dyn VideoProcessor> {
        Some(&self.videos)
    }

    fn areas(&self, width: usize, height: usize) -> Vec<Area> {
        vec![Area { x: 0.0, y: 0.0, width: width as f64, height: height as f64 }]
    }

    fn bytes(&self, width: usize, height: usize) -> u64 {
        let (rows, columns) = self.limits.fit(height, width);
        // As 8-bit samples and normalised, and what lies between the two passes of the resize.
        let between = columns as u64 * height as u64;
        3 * (5 * rows as u64 * columns as u64 + between)
    }
}

/// Refuses a picture that is too long and thin, as the class does.
pub(super) fn require_shape(width: usize, height: usize) -> Result<()> {
    let stretched = width.max(height) as f64 / width.min(height).max(1) as f64;
    if stretched > MOST_STRETCHED {
        let reason = format!(
            "it has {width} x {height} pixels, and this model takes pictures whose longer side is at most {MOST_STRETCHED} times the other"
        );
        return Err(Error::Image { index: 0, reason });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HUB: Limits = Limits { cell: 28, least: 3136, most: 12_845_056 };
    const HUB3: Limits = Limits { cell: 32, least: 65_536, most: 16_777_216 };

    #[test]
    fn known_pictures_take_known_numbers_of_positions() {
        for (width, height, two, three) in [
            (200, 150, 35, 70),
            (640, 480, 391, 300),
            (1013, 677, 864, 672),
            (300, 1200, 473, 342),
            (1920, 1080, 2691, 2040),
        ] {
            let tokens = |limits: Limits| {
                let (rows, columns) = limits.fit(height, width);
                rows / limits.cell * (columns / limits.cell)
            };
            assert_eq!((tokens(HUB), tokens(HUB3)), (two, three), "{width} x {height}");
        }
    }

    #[test]
    fn sizes_are_those_of_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/qwen_vl_sizes.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (mut fitted, mut refused) = (0, 0);
        for case in golden["cases"].as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap();
            let limits =
                Limits { cell: number("factor") as usize, least: number("min_pixels"), most: number("max_pixels") };
            for sizes in case["sizes"].as_array().unwrap() {
                let [height, width, rows, columns] = [0, 1, 2, 3].map(|at: usize| sizes[at].as_u64().unwrap() as usize);
                match require_shape(width, height) {
                    Err(error) => {
                        assert!(error.code() == "image" && rows == 0, "{width} x {height}: {error}");
                        refused += 1;
                    }
                    Ok(()) => {
                        assert_eq!(limits.fit(height, width), (rows, columns), "{width} x {height} in {limits:?}");
                        fitted += 1;
                    }
                }
            }
        }
        assert!(fitted >= 200 && refused >= 5, "{fitted} fitted, {refused} refused");
    }
}
