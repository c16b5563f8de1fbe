//! Reading the small text files of a model folder.

use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::folder::{self, TOKENIZER};

pub(super) use crate::folder::unusable;

/// The text of a file, or `None` when there is no such file. [`Error::ModelFile`](crate::Error::ModelFile) when it is no plain file, too
/// large or not UTF-8.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    folder::read_text(path, TOKENIZER)
}

/// The JSON of a file, or `None` when there is no such file. [`Error::ModelFile`](crate::Error::ModelFile) also when it is not JSON.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>> {
    folder::read_json(path, TOKENIZER)
}
