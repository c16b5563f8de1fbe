//! `preprocessor_config.json`: what it says, checked, with CLIP's defaults for what it leaves out.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::kernel::Filter;
use crate::folder::{CONFIGURATION, read_object};
use crate::{Error, Result};

/// OpenAI CLIP's mean and standard deviation of RGB samples scaled to 0..1.
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
/// The size that transformers assumes when the file gives none.
const CLIP_SIZE: usize = 224;
const MAX_SIZE: u64 = 4096;

const KNOWN: [&str; 7] = [
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
    "CLIPFeatureExtractor",
    "LlavaImageProcessor",
    "LlavaImageProcessorFast",
    "LlavaImageProcessorPil",
];

/// The size to which an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// The shorter side becomes this long and the other follows.
    ShortestEdge(usize),
    /// Both sides are given; proportions may change.
    Exact { height: usize, width: usize },
}

/// The steps of the processor; `None` is a step that is switched off.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    pub(super) pad_to_square: bool,
    pub(super) resize: Option<(Size, Filter)>,
    /// (height, width)
    pub(super) crop: Option<(usize, usize)>,
    pub(super) rescale: Option<f64>,
    pub(super) normalize: bool,
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
}

impl Config {
    /// CLIP's processor for square images of `size` pixels.
    pub(super) fn clip(size: usize) -> Self {
        Self {
            pad_to_square: false,
            resize: Some((Size::ShortestEdge(size), Filter::Bicubic)),
            crop: Some((size, size)),
            rescale: Some(1.0 / 255.0),
            normalize: true,
            mean: CLIP_MEAN,
            std: CLIP_STD,
        }
    }

    /// Reads the processor's file of the model folder `dir`, and gives its path; `None` if there is none.
    ///
    /// Like transformers: `image_processor` in `processor_config.json`, else `preprocessor_config.json`.
    pub(super) fn read(dir: &Path) -> Result<Option<(PathBuf, Self)>> {
        let path = dir.join("processor_config.json");
        if let Some(mut file) = read_object(&path, CONFIGURATION)?
            && let Some(nested) = file.remove("image_processor").filter(|value| !value.is_null())
        {
            let Value::Object(object) = nested else {
                return Err(Error::ModelFile { path, reason: "`image_processor` must be an object".into() });
            };
            return Fields { path, object }.read().map(Some);
        }
        let path = dir.join("preprocessor_config.json");
        match read_object(&path, CONFIGURATION)? {
            Some(object) => Fields { path, object }.read().map(Some),
            None => Ok(None),
        }
    }

    /// The model's input for a sample, 0 to 255, of a channel: rescaled in f64 and normalised in f32, as transformers does it with numpy.
    pub(super) fn value(&self, channel: usize, sample: usize) -> f32 {
        let value = self.rescale.map_or(sample as f32, |factor| (sample as f64 * factor) as f32);
        if self.normalize { (value - self.mean[channel] as f32) / self.std[channel] as f32 } else { value }
    }

    /// (height, width) of every processed image; `None` if that depends on the image.
    pub(super) fn output_size(&self) -> Option<(usize, usize)> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some(crop),
            (None, Some((Size::Exact { height, width }, _))) => Some((height, width)),
            (None, Some((Size::ShortestEdge(side), _))) if self.pad_to_square => Some((side, side)),
            _ => None,
        }
    }
}

/// The settings of one file. A setting that is null counts as left out, as in transformers.
struct Fields {
    path: PathBuf,
    object: Map<String, Value>,
}

impl Fields {
    fn read(self) -> Result<(PathBuf, Config)> {
        let config = self.config()?;
        Ok((self.path, config))
    }

    fn config(&self) -> Result<Config> {
        let kind = self.kind()?;
        let defaults = Config::clip(CLIP_SIZE);
        let resize = (self.size()?, self.filter()?);
        let crop = self.crop_size()?;
        let rescale = self.positive("rescale_factor", 1.0 / 255.0)?;
        self.flag("do_convert_rgb", true)?;
        let config = Config {
            pad_to_square: self.pad_to_square(kind)?,
            resize: self.flag("do_resize", true)?.then_some(resize),
            crop: self.flag("do_center_crop", true)?.then_some(crop),
            rescale: self.flag("do_rescale", true)?.then_some(rescale),
            normalize: self.flag("do_normalize", true)?,
            mean: self.triple("image_mean", defaults.mean)?,
            std: self.triple("image_std", defaults.std)?,
        };
        if config.std.iter().any(|&std| !is_positive(std)) {
            return Err(self.wrong("image_std", "three numbers above 0 that an f32 can hold"));
        }
        if config.mean.iter().any(|&mean| !(mean as f32).is_finite()) {
            return Err(self.wrong("image_mean", "three numbers that an f32 can hold"));
        }
        // They grow with the sample: if the ends are finite, all are.
        let ends = (0..3).flat_map(|channel| [0, 255].map(|sample| config.value(channel, sample)));
        if let Some(value) = ends.into_iter().find(|value| !value.is_finite()) {
            return Err(self.fail(format!(
                "`rescale_factor`, `image_mean` and `image_std` make {value} of a pixel: they do not go together"
            )));
        }
        if config.output_size().is_none() {
            return Err(self.fail(
                "the size of a processed image would depend on the image; set `do_center_crop`, or a `size` with \
                 `height` and `width`"
                    .into(),
            ));
        }
        Ok(config)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn fail(&self, reason: String) -> Error {
        Error::ModelFile { path: self.path.clone(), reason }
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = self.object.get(key).unwrap_or(&Value::Null);
        self.fail(format!("`{key}` is {found} but must be {expected}"))
    }

    fn kind(&self) -> Result<&str> {
        let key =
            if self.get("image_processor_type").is_some() { "image_processor_type" } else { "feature_extractor_type" };
        let Some(value) = self.get(key) else { return Ok(KNOWN[0]) };
        let kind = value.as_str().ok_or_else(|| self.wrong(key, "a string"))?;
        if KNOWN.contains(&kind) {
            return Ok(kind);
        }
        Err(Error::UnsupportedModel {
            reason: format!("{}: image processor `{kind}`", self.path.display()),
            known: KNOWN.to_vec(),
        })
    }

    fn pad_to_square(&self, kind: &str) -> Result<bool> {
        let pad = self.flag("do_pad", false)?;
        if self.get("pad_size").is_some() && pad {
            return Err(self.fail("`pad_size` is not supported".into()));
        }
        // Only LLaVA's processor pads to a square; CLIP's pads to the largest of a batch, which one image always is.
        let llava = pad && kind.starts_with("Llava");
        match self.get("image_aspect_ratio") {
            None => Ok(llava),
            Some(value) => match value.as_str() {
                Some("pad") => Ok(true),
                Some("square") => Ok(llava),
                _ => Err(self.wrong("image_aspect_ratio", "\"pad\" or \"square\"")),
            },
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false")))
    }

    fn positive(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value
            .as_f64()
            .filter(|number| is_positive(*number))
            .ok_or_else(|| self.wrong(key, "a number above 0 that an f32 can hold"))
    }

    /// One number for all channels, or three.
    fn triple(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let numbers = match value {
            Value::Array(items) => items.iter().map(Value::as_f64).collect::<Option<Vec<_>>>(),
            single => single.as_f64().map(|number| vec![number; 3]),
        };
        numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| self.wrong(key, "three numbers"))
    }

    fn filter(&self) -> Result<Filter> {
        let Some(value) = self.get("resample") else { return Ok(Filter::Bicubic) };
        value
            .as_i64()
            .and_then(Filter::from_pillow)
            .ok_or_else(|| self.wrong("resample", "0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic) or 4 (box)"))
    }

    fn size(&self) -> Result<Size> {
        let Some(value) = self.get("size") else { return Ok(Size::ShortestEdge(CLIP_SIZE)) };
        let square = self.flag("default_to_square", false)?;
        let size = match value {
            Value::Object(size) if size.len() == 1 => size.get("shortest_edge").and_then(side).map(Size::ShortestEdge),
            Value::Number(_) if !square => side(value).map(Size::ShortestEdge),
            other => height_width(other).map(|(height, width)| Size::Exact { height, width }),
        };
        let expected = "1 to 4096: a number, {\"shortest_edge\"} or {\"height\", \"width\"}";
        size.ok_or_else(|| self.wrong("size", expected))
    }

    /// (height, width)
    fn crop_size(&self) -> Result<(usize, usize)> {
        let Some(value) = self.get("crop_size") else { return Ok((CLIP_SIZE, CLIP_SIZE)) };
        height_width(value).ok_or_else(|| self.wrong("crop_size", "1 to 4096: a number or {\"height\", \"width\"}"))
    }
}

/// Whether a number is above 0 and stays so, and finite, in f32.
fn is_positive(number: f64) -> bool {
    let number = number as f32;
    number >= f32::MIN_POSITIVE && number.is_finite()
}

fn side(value: &Value) -> Option<usize> {
    value.as_u64().filter(|side| (1..=MAX_SIZE).contains(side)).map(|side| side as usize)
}

/// (height, width) of a number, a pair, or an object with exactly these two keys.
fn height_width(value: &Value) -> Option<(usize, usize)> {
    match value {
        Value::Array(pair) if pair.len() == 2 => Some((side(&pair[0])?, side(&pair[1])?)),
        Value::Object(size) if size.len() == 2 => Some((side(size.get("height")?)?, side(size.get("width")?)?)),
        single => side(single).map(|side| (side, side)),
    }
}
