//! The GGUF file that a path means.

use std::path::{Path, PathBuf};

use super::super::foreign;
use crate::error::{Error, Result};

/// Files that a folder in Hugging Face's layout has one of.
const LAYOUT: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];
/// Most names that a message lists.
const MAX_LISTED: usize = 20;

/// Whether a name is one of a GGUF file.
pub(crate) fn is_gguf(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The file that `path` means: itself, or the only GGUF of a folder that holds no other weights; None for a folder in Hugging Face's
/// layout. Vision towers (`mmproj`) are not counted.
///
/// # Errors
/// [`Error::ModelNotFound`] for a folder with several.
pub(crate) fn in_folder(path: &Path) -> Result<Option<PathBuf>> {
    if path.is_file() {
        return Ok(is_gguf(path).then(|| path.to_owned()));
    }
    if LAYOUT.iter().any(|name| path.join(name).exists()) {
        return Ok(None);
    }
    let mut found = foreign::names(path);
    found.retain(|name| is_gguf(Path::new(name)));
    if found.iter().any(|name| !is_projector(name)) {
        found.retain(|name| !is_projector(name));
    }
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(path.join(only))),
        several => {
            let more = several.len().saturating_sub(MAX_LISTED);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            let listed = several[..several.len().min(MAX_LISTED)].join(", ");
            let reason = format!("has {} GGUF files: give the path of one of {listed}{rest}", several.len());
            Err(Error::ModelNotFound { path: path.to_owned(), reason })
        }
    }
}

fn is_projector(name: &str) -> bool {
    name.to_ascii_lowercase().contains("mmproj")
}
