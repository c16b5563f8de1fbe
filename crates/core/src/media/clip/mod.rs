//! CLIP's image processor: an encoded image to one square that the vision tower takes.

mod config;

use std::ops::Range;
use std::path::{Path, PathBuf};

use image::RgbImage;

use self::config::{Config, Size};
use super::decode::decode;
use super::kernel::Filter;
use super::normalise::Tables;
use super::prepared::{Area, Pixels};
use super::resize::{Canvas, resize_part};
use super::settings::SettingsOf;
use crate::{Error, Result};

/// The image processing that a model's `preprocessor_config.json` asks for.
///
/// The result equals the output of transformers' Pillow processors (`CLIPImageProcessorPil`, `LlavaImageProcessorPil`) for
/// images from `load_image`; their torchvision counterparts resize with other rounding. See [`decode`] for the pixels.
#[derive(Debug, Clone)]
pub struct ClipProcessor {
    config: Config,
    /// The file that it was read from.
    path: Option<PathBuf>,
    /// (height, width)
    output: (usize, usize),
    tables: Tables,
}

impl ClipProcessor {
    /// Reads the processor of the model folder `dir`: `image_processor` in `processor_config.json`, or else
    /// `preprocessor_config.json`. Settings that are left out have the defaults of transformers' CLIP processor
    /// (shortest edge 224, bicubic, centre crop 224 x 224, OpenAI's mean and deviation). Without either file, the
    /// same at `fallback_size` pixels.
    ///
    /// # Errors
    /// [`Error::ModelFile`] for a file that cannot be read or a setting of the wrong type or range (sizes are 1 to
    /// 4096), or settings that leave the output size open. [`Error::UnsupportedModel`] for another kind of processor.
    pub fn from_folder(dir: &Path, fallback_size: usize) -> Result<Self> {
        Self::read(&SettingsOf::Folder(dir.to_owned()), fallback_size)
    }

    /// As [`ClipProcessor::from_folder`], of settings wherever they are.
    pub(crate) fn read(settings: &SettingsOf, fallback_size: usize) -> Result<Self> {
        let (path, config) = match settings.read()? {
            Some(settings) => (Some(settings.path().to_owned()), Config::of(&settings)?),
            None => (None, Config::clip(fallback_size)),
        };
        let output = config.output_size().ok_or_else(|| Error::Internal("image processor without a size".into()))?;
        let tables = config.normalise.tables();
        Ok(Self { config, path, output, tables })
    }

    /// The file that it was read from; None for the defaults of a folder without one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// (height, width), in pixels, of every processed image.
    pub fn output_size(&self) -> (usize, usize) {
        self.output
    }

    /// Decodes and processes one image file; `index` is its place in the request, for errors.
    ///
    /// # Errors
    /// [`Error::Image`] as [`decode`] raises it.
    pub fn process(&self, bytes: &[u8], index: usize) -> Result<Pixels> {
        Ok(self.process_rgb(&decode(bytes, index)?))
    }

    /// Processes a decoded image, which must not be empty.
    pub fn process_rgb(&self, image: &RgbImage) -> Pixels {
        let canvas = if self.config.pad_to_square {
            // The cast truncates, like Python's int().
            Canvas::square(image, self.config.normalise.mean.map(|mean| (mean * 255.0) as u8))
        } else {
            Canvas::plain(image)
        };
        let (height, width) = self.output;
        let (resized_height, resized_width) = self.resized_size(canvas.height(), canvas.width());
        let (rows, top) = centre(resized_height, height);
        let (columns, left) = centre(resized_width, width);
        let filter = self.config.resize.map_or(Filter::Nearest, |(_, filter)| filter);
        // Only what the crop keeps is computed; a sliver of an image would otherwise grow to gigabytes.
        let part = resize_part(canvas, (resized_width, resized_height), (columns, rows), filter);

        let mut data = Vec::with_capacity(3 * height * width);
        for (channel, table) in self.tables.0.iter().enumerate() {
            let plane = data.len();
            // Outside of a small image the crop is black, before normalisation.
            data.resize(plane + height * width, table[0]);
            for (y, row) in part.rows().enumerate() {
                let start = plane + (top + y) * width + left;
                for (value, pixel) in data[start..].iter_mut().zip(row) {
                    *value = table[usize::from(pixel[channel])];
                }
            }
        }
        Pixels { data, height, width }
    }

    /// The part of a picture of `width` x `height` pixels that the processed image shows: smaller than the picture where it
    /// is cropped, larger where it is padded.
    pub fn area(&self, width: usize, height: usize) -> Area {
        let (left, top, across, down) = match self.config.pad_to_square {
            true => {
                let side = width.max(height);
                ((side - width) / 2, (side - height) / 2, side, side)
            }
            false => (0, 0, width, height),
        };
        let (resized_height, resized_width) = self.resized_size(down, across);
        let (x, width) = span(across, resized_width, self.output.1);
        let (y, height) = span(down, resized_height, self.output.0);
        Area { x: x - left as f64, y: y - top as f64, width, height }
    }

    /// (height, width) after the resize step.
    fn resized_size(&self, height: usize, width: usize) -> (usize, usize) {
        // Truncated, as Python's int(): product first, then one division in f64.
        let follow = |side: usize, long: usize, short: usize| ((side * long) as f64 / short as f64) as usize;
        match self.config.resize {
            None => (height, width),
            Some((Size::Exact { height, width }, _)) => (height, width),
            Some((Size::ShortestEdge(side), _)) if width <= height => (follow(side, height, width), side),
            Some((Size::ShortestEdge(side), _)) => (side, follow(side, width, height)),
        }
    }
}

/// Along one axis: the part of `size` pixels that a centre crop to `crop` keeps, and where in the crop it lies.
fn centre(size: usize, crop: usize) -> (Range<usize>, usize) {
    if size >= crop {
        let start = (size - crop) / 2;
        (start..start + crop, 0)
    } else {
        // transformers' Pillow processors put the odd pixel of padding before; its torchvision ones after.
        (0..size, (crop - size).div_ceil(2))
    }
}

/// Along one axis: where, in pixels before a resize of `size` to `resized`, a centre crop to `crop` starts, and its length.
fn span(size: usize, resized: usize, crop: usize) -> (f64, f64) {
    let (kept, before) = centre(resized, crop);
    let scale = size as f64 / resized.max(1) as f64;
    ((kept.start as f64 - before as f64) * scale, crop as f64 * scale)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use image::Rgb;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn processor(json: &str) -> Result<ClipProcessor> {
        ClipProcessor::from_folder(folder(&[("preprocessor_config.json", json)]).path(), 336)
    }

    #[test]
    fn defaults_and_precedence() {
        let size = |files: &[(&str, &str)]| {
            ClipProcessor::from_folder(folder(files).path(), 336).map(|it| it.output_size()).unwrap()
        };
        let plain = ("preprocessor_config.json", r#"{"crop_size": {"height": 30, "width": 40}}"#);
        let nested = ("processor_config.json", r#"{"image_processor": {"crop_size": 50}}"#);
        let legacy = ("processor_config.json", r#"{"patch_size": 14}"#);
        assert_eq!(size(&[]), (336, 336));
        assert_eq!(size(&[("preprocessor_config.json", "{}")]), (224, 224));
        assert_eq!(size(&[plain]), (30, 40));
        assert_eq!(size(&[plain, nested]), (50, 50));
        assert_eq!(size(&[plain, legacy]), (30, 40));
        assert_eq!(size(&[legacy]), (336, 336));
    }

    #[test]
    fn accepted_spellings() {
        for (json, expected) in [
            (r#"{"size": 99, "crop_size": 98, "image_processor_type": "CLIPImageProcessorFast"}"#, (98, 98)),
            (r#"{"size": {"height": 12, "width": 34}, "do_center_crop": false}"#, (12, 34)),
            (r#"{"size": [12, 34], "do_center_crop": false, "image_std": 0.5}"#, (12, 34)),
            (r#"{"size": 20, "do_center_crop": false, "image_aspect_ratio": "pad"}"#, (20, 20)),
            (r#"{"size": 20, "do_center_crop": false, "default_to_square": true, "resample": 1}"#, (20, 20)),
            (r#"{"feature_extractor_type": "CLIPFeatureExtractor", "do_pad": null}"#, (224, 224)),
        ] {
            assert_eq!(processor(json).unwrap().output_size(), expected, "{json}");
        }
    }

    #[test]
    fn wrong_files_are_named() {
        for (json, part) in [
            ("{", "not valid JSON"),
            ("[]", "JSON object"),
            (r#"{"size": 0}"#, "`size` is 0"),
            (r#"{"size": {"shortest_edge": 5000}}"#, "`size`"),
            (r#"{"size": {"shortest_edge": 8, "longest_edge": 9}}"#, "`size`"),
            (r#"{"crop_size": "big"}"#, "`crop_size` is \"big\""),
            (r#"{"image_std": [1, 0, 1]}"#, "`image_std`"),
            (r#"{"image_mean": [1, 0]}"#, "`image_mean`"),
            (r#"{"rescale_factor": 0}"#, "`rescale_factor`"),
            (r#"{"rescale_factor": -1}"#, "`rescale_factor`"),
            (r#"{"rescale_factor": 1e39}"#, "`rescale_factor`"),
            (r#"{"rescale_factor": 1e-60}"#, "`rescale_factor`"),
            (r#"{"rescale_factor": 3e38}"#, "`rescale_factor`"),
            (r#"{"image_mean": 1e39}"#, "`image_mean`"),
            (r#"{"image_mean": [0.5, -1e39, 0.5]}"#, "`image_mean`"),
            (r#"{"image_std": 1e-45}"#, "`image_std`"),
            (r#"{"image_std": 1e39}"#, "`image_std`"),
            (r#"{"image_std": -1}"#, "`image_std`"),
            (r#"{"image_std": 2e-38, "image_mean": 9}"#, "do not go together"),
            (r#"{"resample": 5}"#, "`resample`"),
            (r#"{"do_resize": "yes"}"#, "`do_resize`"),
            (r#"{"image_aspect_ratio": "anyres"}"#, "`image_aspect_ratio`"),
            (r#"{"do_center_crop": false}"#, "depend on the image"),
        ] {
            match processor(json).unwrap_err() {
                Error::ModelFile { path, reason } => {
                    assert!(path.ends_with("preprocessor_config.json"));
                    assert!(reason.contains(part), "{json}: {reason}");
                }
                other => panic!("{json}: {other:?}"),
            }
        }
        match processor(r#"{"image_processor_type": "ViTImageProcessor"}"#).unwrap_err() {
            Error::UnsupportedModel { reason, known } => {
                assert!(reason.contains("ViTImageProcessor") && known.contains(&"LlavaImageProcessor"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn follows_the_steps_by_hand() {
        let image = RgbImage::from_fn(4, 3, |x, y| Rgb([(10 * x + y) as u8, 100, 200]));
        let raw = r#""do_resize": false, "do_rescale": false, "do_normalize": false"#;
        // Cropped to rows 0..2 (the odd row goes below), columns 1..3.
        let crop = processor(&format!(r#"{{{raw}, "crop_size": 2}}"#)).unwrap().process_rgb(&image);
        assert_eq!(crop.data[..4], [10.0, 20.0, 11.0, 21.0]);
        // Padded with black to 6 rows: two before, one after.
        let grown = processor(&format!(r#"{{{raw}, "crop_size": [6, 4]}}"#)).unwrap().process_rgb(&image);
        let first_column: Vec<f32> = grown.data[..24].iter().step_by(4).copied().collect();
        assert_eq!(first_column, [0.0, 0.0, 0.0, 1.0, 2.0, 0.0]);
        // On a square of the mean colour, the odd row below.
        let json = format!(r#"{{{raw}, "crop_size": 4, "image_mean": 0.5, "image_aspect_ratio": "pad"}}"#);
        let padded = processor(&json).unwrap().process_rgb(&image);
        assert_eq!(padded.data[12..16], [127.0; 4]);
        assert_eq!(padded.data[..4], [0.0, 10.0, 20.0, 30.0]);
    }

    #[test]
    fn the_area_is_what_is_seen_of_the_picture() {
        let area = |json: &str, width, height| {
            let Area { x, y, width, height } = processor(json).unwrap().area(width, height);
            [x, y, width, height]
        };
        let crop = r#"{"size": 100, "crop_size": 100}"#;
        assert_eq!(area(crop, 200, 200), [0.0, 0.0, 200.0, 200.0]);
        assert_eq!(area(crop, 400, 200), [100.0, 0.0, 200.0, 200.0]);
        assert_eq!(area(crop, 50, 150), [0.0, 50.0, 50.0, 50.0]);
        let pad = r#"{"size": 100, "crop_size": 100, "image_aspect_ratio": "pad"}"#;
        assert_eq!(area(pad, 400, 200), [0.0, -100.0, 400.0, 400.0]);
        assert_eq!(area(pad, 200, 300), [-50.0, 0.0, 300.0, 300.0]);
        // Squeezed, not cropped.
        let exact = r#"{"size": {"height": 30, "width": 60}, "do_center_crop": false}"#;
        assert_eq!(area(exact, 90, 90), [0.0, 0.0, 90.0, 90.0]);
        // A small picture in the middle of a larger output.
        assert_eq!(area(r#"{"do_resize": false, "crop_size": 10}"#, 4, 8), [-3.0, -1.0, 10.0, 10.0]);
    }

    #[test]
    fn normalises_as_clip_does() {
        let image = RgbImage::from_pixel(50, 20, Rgb([0, 128, 255]));
        let pixels = ClipProcessor::from_folder(Path::new("/nonexistent"), 8).unwrap().process_rgb(&image);
        assert_eq!((pixels.height, pixels.width, pixels.data.len()), (8, 8, 192));
        assert_eq!(pixels.data[0], -1.792_262_6);
        assert_eq!(pixels.data[64], 0.168_897_32);
        assert_eq!(pixels.data[191], 2.145_897);
    }

    #[test]
    fn a_sliver_costs_no_more_than_its_crop() {
        let image = RgbImage::new(1, 32_768);
        let pixels = processor(r#"{"size": 4096, "crop_size": 16}"#).unwrap().process_rgb(&image);
        assert_eq!(pixels.data.len(), 3 * 16 * 16);
    }
}
