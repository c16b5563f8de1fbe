//! The settings of the processors of CLIP, SigLIP and LLaVA-1.5, with the defaults of their classes for what is left out.

use serde_json::Value;

use crate::Result;
use crate::media::kernel::Filter;
use crate::media::normalise::Normalise;
use crate::media::settings::{Settings, side};

/// The size that transformers assumes when the file gives none.
const CLIP_SIZE: usize = 224;

/// The class whose pictures are brought to both sides and not cropped.
const SIGLIP: &str = "SiglipImageProcessor";
const KNOWN: [&str; 4] = ["CLIPImageProcessor", "CLIPFeatureExtractor", "LlavaImageProcessor", SIGLIP];

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
    pub(super) normalise: Normalise,
}

impl Config {
    /// CLIP's processor for square images of `size` pixels.
    pub(super) fn clip(size: usize) -> Self {
        Self {
            pad_to_square: false,
            resize: Some((Size::ShortestEdge(size), Filter::Bicubic)),
            crop: Some((size, size)),
            normalise: Normalise::clip(),
        }
    }

    /// As the file says.
    pub(super) fn of(settings: &Settings) -> Result<Self> {
        let class = settings.class(&KNOWN)?.unwrap_or(KNOWN[0]);
        let siglip = class == SIGLIP;
        let normalise = if siglip { Normalise::by([0.5; 3], [0.5; 3]) } else { Normalise::clip() };
        let resize = (size(settings, siglip)?, settings.filter(Filter::Bicubic)?);
        let crop = crop_size(settings)?;
        settings.flag("do_convert_rgb", true)?;
        let config = Config {
            pad_to_square: pad_to_square(settings, class)?,
            resize: settings.flag("do_resize", true)?.then_some(resize),
            crop: settings.flag("do_center_crop", !siglip)?.then_some(crop),
            normalise: normalise.or(settings)?,
        };
        if config.output_size().is_none() {
            return Err(settings.fail(
                "the size of a processed image would depend on the image; set `do_center_crop`, or a `size` with \
                 `height` and `width`"
                    .into(),
            ));
        }
        Ok(config)
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

fn pad_to_square(settings: &Settings, class: &str) -> Result<bool> {
    let pad = settings.flag("do_pad", false)?;
    if settings.get("pad_size").is_some() && pad {
        return Err(settings.fail("`pad_size` is not supported".into()));
    }
    // Only LLaVA's processor pads to a square; CLIP's pads to the largest of a batch, which one image always is.
    let llava = pad && class.starts_with("Llava");
    match settings.get("image_aspect_ratio") {
        None => Ok(llava),
        Some(value) => match value.as_str() {
            Some("pad") => Ok(true),
            Some("square") => Ok(llava),
            _ => Err(settings.wrong("image_aspect_ratio", "\"pad\" or \"square\"")),
        },
    }
}

/// `exact` says whether both sides are given where the file says nothing.
fn size(settings: &Settings, exact: bool) -> Result<Size> {
    let Some(value) = settings.get("size") else {
        return Ok(match exact {
            true => Size::Exact { height: CLIP_SIZE, width: CLIP_SIZE },
            false => Size::ShortestEdge(CLIP_SIZE),
        });
    };
    let square = settings.flag("default_to_square", false)?;
    let size = match value {
        Value::Object(size) if size.len() == 1 => size.get("shortest_edge").and_then(side).map(Size::ShortestEdge),
        Value::Number(_) if !square => side(value).map(Size::ShortestEdge),
        other => height_width(other).map(|(height, width)| Size::Exact { height, width }),
    };
    let expected = "1 to 4096: a number, {\"shortest_edge\"} or {\"height\", \"width\"}";
    size.ok_or_else(|| settings.wrong("size", expected))
}

/// (height, width)
fn crop_size(settings: &Settings) -> Result<(usize, usize)> {
    let Some(value) = settings.get("crop_size") else { return Ok((CLIP_SIZE, CLIP_SIZE)) };
    height_width(value).ok_or_else(|| settings.wrong("crop_size", "1 to 4096: a number or {\"height\", \"width\"}"))
}

/// (height, width) of a number, a pair, or an object with exactly these two keys.
fn height_width(value: &Value) -> Option<(usize, usize)> {
    match value {
        Value::Array(pair) if pair.len() == 2 => Some((side(&pair[0])?, side(&pair[1])?)),
        Value::Object(size) if size.len() == 2 => Some((side(size.get("height")?)?, side(size.get("width")?)?)),
        single => side(single).map(|side| (side, side)),
    }
}
