//! Reading the small text files of a model folder.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// The text of a file, or `None` when there is no such file. [`Error::ModelFile`] when it cannot be read as UTF-8.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(path, error)),
    }
}

/// The JSON of a file, or `None` when there is no such file. [`Error::ModelFile`] when it is not JSON.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| unusable(path, format!("not valid JSON: {error}")))
}

pub(super) fn unusable(path: &Path, reason: impl ToString) -> Error {
    Error::ModelFile { path: path.to_path_buf(), reason: reason.to_string() }
}
