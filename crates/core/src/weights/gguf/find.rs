//! The GGUF file that a path means.

use std::path::{Path, PathBuf};

use super::super::foreign;
use super::split::firsts;
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
/// layout. Vision towers (`mmproj`) are not counted, and of a model in several files it is the first.
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
    let found = firsts(found);
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(path.join(only))),
        several => {
            let reason = format!("has {} GGUF files: give the path of one of {}", several.len(), listed(several));
            Err(Error::ModelNotFound { path: path.to_owned(), reason })
        }
    }
}

/// The vision tower that goes with the language model `text`: the only one of its folder, where that holds no other language model.
///
/// # Errors
/// [`Error::ModelNotFound`] where there are several.
pub(crate) fn tower_beside(text: &Path) -> Result<Option<PathBuf>> {
    let (Some(dir), Some(own)) = (text.parent(), text.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut found = foreign::names(dir);
    found.retain(|name| is_gguf(Path::new(name)));
    let (towers, texts): (Vec<String>, Vec<String>) = found.into_iter().partition(|name| is_projector(name));
    if is_projector(own) || firsts(texts) != firsts(vec![own.to_owned()]) {
        return Ok(None);
    }
    match towers.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(dir.join(only))),
        several => {
            let reason = format!(
                "has {} vision towers beside {own}: name one of {} with `vision`, or leave them out with `vision: false`",
                several.len(),
                listed(several)
            );
            Err(Error::ModelNotFound { path: dir.to_owned(), reason })
        }
    }
}

/// The names of a message, not all of too many.
fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_LISTED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", names[..names.len().min(MAX_LISTED)].join(", "))
}

fn is_projector(name: &str) -> bool {
    name.to_ascii_lowercase().contains("mmproj")
}
