//! The settings of an image processor: a file of a model folder, read key by key.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::kernel::Filter;
use crate::folder::{CONFIGURATION, read_object};
use crate::{Error, Result};

/// Most pixels along a side that a setting may ask for.
pub(crate) const MAX_SIDE: u64 = 4096;

/// The endings of a class that is bound to one way of computing.
const ENDINGS: [&str; 2] = ["Fast", "Pil"];

/// Where the settings of a model's image processor are.
#[derive(Clone, Debug)]
pub enum SettingsOf {
    /// In files of a folder, or in none.
    Folder(PathBuf),
    /// A file of another kind comes to them.
    Said { path: PathBuf, settings: Map<String, Value> },
}

impl SettingsOf {
    /// The settings; `None` where nothing says any.
    pub(crate) fn read(&self) -> Result<Option<Settings>> {
        match self {
            SettingsOf::Folder(dir) => Settings::read(dir),
            SettingsOf::Said { path, settings } => Ok(Some(Settings { path: path.clone(), object: settings.clone() })),
        }
    }

    /// The settings of the video processor, which are the image processor's where nothing says others; `None` where nothing says any.
    pub(crate) fn read_video(&self) -> Result<Option<Settings>> {
        match self {
            SettingsOf::Folder(dir) => Settings::read_video(dir),
            SettingsOf::Said { .. } => self.read(),
        }
    }

    /// Reads a whole file of the folder; `None` if it is not there.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Settings>> {
        match self {
            SettingsOf::Folder(dir) => Settings::of(dir.join(name)),
            SettingsOf::Said { .. } => Ok(None),
        }
    }

    /// The folder, or the file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            SettingsOf::Folder(path) | SettingsOf::Said { path, .. } => path,
        }
    }
}

/// The settings of one file. A setting that is null counts as left out, as in transformers.
pub(crate) struct Settings {
    path: PathBuf,
    object: Map<String, Value>,
}

impl Settings {
    /// Reads the image processor's file of the model folder `dir`; `None` if there is none.
    ///
    /// Like transformers: `image_processor` in `processor_config.json`, else `preprocessor_config.json`.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        match Settings::nested(dir, "image_processor")? {
            Some(settings) => Ok(Some(settings)),
            None => Settings::of(dir.join("preprocessor_config.json")),
        }
    }

    fn nested(dir: &Path, key: &str) -> Result<Option<Self>> {
        let path = dir.join("processor_config.json");
        let Some(mut file) = read_object(&path, CONFIGURATION)? else { return Ok(None) };
        match file.remove(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Settings { path, object })),
            Some(_) => Err(Error::ModelFile { path, reason: format!("`{key}` must be an object") }),
        }
    }

    /// Reads the video processor's file of the model folder `dir`; `None` if there is none.
    ///
    /// Like transformers: `video_processor` in `processor_config.json`, else `video_preprocessor_config.json`, else the image
    /// processor's `preprocessor_config.json`.
    pub(crate) fn read_video(dir: &Path) -> Result<Option<Self>> {
        match Settings::nested(dir, "video_processor")? {
            Some(settings) => Ok(Some(settings)),
            None => match Settings::of(dir.join("video_preprocessor_config.json"))? {
                Some(settings) => Ok(Some(settings)),
                None => Settings::of(dir.join("preprocessor_config.json")),
            },
        }
    }

    /// Reads what a whole file says; `None` if it is not there.
    pub(crate) fn of(path: PathBuf) -> Result<Option<Self>> {
        Ok(read_object(&path, CONFIGURATION)?.map(|object| Settings { path, object }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// [`Error::ModelFile`] of this file.
    pub(crate) fn fail(&self, reason: String) -> Error {
        Error::ModelFile { path: self.path.clone(), reason }
    }

    pub(crate) fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = self.object.get(key).unwrap_or(&Value::Null);
        self.fail(format!("`{key}` is {found} but must be {expected}"))
    }

    /// The class that the file names, one of `known`, whichever way of computing it is bound to; `None` if it names none.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for another class.
    pub(crate) fn class(&self, known: &[&'static str]) -> Result<Option<&'static str>> {
        let key =
            if self.get("image_processor_type").is_some() { "image_processor_type" } else { "feature_extractor_type" };
        let Some(value) = self.get(key) else { return Ok(None) };
        let named = value.as_str().ok_or_else(|| self.wrong(key, "a string"))?;
        let plain = ENDINGS.iter().find_map(|ending| named.strip_suffix(ending)).unwrap_or(named);
        match known.iter().find(|class| **class == plain) {
            Some(class) => Ok(Some(class)),
            None => Err(Error::UnsupportedModel {
                reason: format!("{}: image processor `{named}`", self.path.display()),
                known: known.to_vec(),
            }),
        }
    }

    /// Refuses a file that names another class of video processors than `known`.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`].
    pub(crate) fn video_class(&self, known: &'static str) -> Result<()> {
        let Some(value) = self.get("video_processor_type") else { return Ok(()) };
        let named = value.as_str().ok_or_else(|| self.wrong("video_processor_type", "a string"))?;
        if named == known {
            return Ok(());
        }
        let reason = format!("{}: video processor `{named}`", self.path.display());
        Err(Error::UnsupportedModel { reason, known: vec![known] })
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false")))
    }

    pub(crate) fn positive(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value
            .as_f64()
            .filter(|number| is_positive(*number))
            .ok_or_else(|| self.wrong(key, "a number above 0 that an f32 can hold"))
    }

    /// One number for all channels, or three.
    pub(crate) fn triple(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3]> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let numbers = match value {
            Value::Array(items) => items.iter().map(Value::as_f64).collect::<Option<Vec<_>>>(),
            single => single.as_f64().map(|number| vec![number; 3]),
        };
        numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| self.wrong(key, "three numbers"))
    }

    pub(crate) fn filter(&self, default: Filter) -> Result<Filter> {
        let Some(value) = self.get("resample") else { return Ok(default) };
        value
            .as_i64()
            .and_then(Filter::from_pillow)
            .ok_or_else(|| self.wrong("resample", "0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic) or 4 (box)"))
    }
}

/// Whether a number is above 0 and stays so, and finite, in f32.
pub(super) fn is_positive(number: f64) -> bool {
    let number = number as f32;
    number >= f32::MIN_POSITIVE && number.is_finite()
}

/// A number of pixels, from 1 to [`MAX_SIDE`].
pub(crate) fn side(value: &Value) -> Option<usize> {
    value.as_u64().filter(|side| (1..=MAX_SIDE).contains(side)).map(|side| side as usize)
}
