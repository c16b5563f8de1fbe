//! Reading the files of a model folder, which may come from strangers: plain files only, and never more bytes than a limit.
//!
//! Links are followed, as the cache of the Hugging Face hub is made of them. Whatever lies at their end must be a plain file: a FIFO
//! would hang the reader for ever, and a device has no end. Bytes are counted while they are read, because the size that a file
//! system states can be 0 for a file without end.

use std::fs::{File, FileType, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Most bytes of a configuration or a chat template.
pub(crate) const CONFIGURATION: u64 = 4 << 20;
/// Most bytes of tokenizer.json and of the lists of tokens beside it; the largest known has 33 MB.
pub(crate) const TOKENIZER: u64 = 64 << 20;

/// Opens a plain file for reading, or gives None when there is no such file.
///
/// # Errors
/// [`Error::ModelFile`] for a folder, a FIFO, a socket or a device, and for a file that cannot be opened. Never waits for anybody to
/// write.
pub(crate) fn open(path: &Path) -> Result<Option<File>> {
    // Asked before opening, which can be an act in itself (a tape rewinds), and of the open file, which may be another one by then.
    match std::fs::metadata(path) {
        Ok(metadata) => require_plain(path, metadata.file_type())?,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(unusable(path, format!("cannot be read: {error}"))),
    }
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let cannot = |error: std::io::Error| unusable(path, format!("cannot be opened: {error}"));
    let file = options.open(path).map_err(cannot)?;
    require_plain(path, file.metadata().map_err(cannot)?.file_type())?;
    Ok(Some(file))
}

/// The bytes of a plain file, or None when there is no such file.
///
/// # Errors
/// As [`open`]; [`Error::ModelFile`] also for more than `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| unusable(path, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > limit {
        return Err(unusable(path, format!("has more than {} MiB, the most that is read of such a file", limit >> 20)));
    }
    Ok(Some(bytes))
}

/// The text of a plain file, or None when there is no such file.
///
/// # Errors
/// As [`read`]; [`Error::ModelFile`] also for what is not UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let Some(bytes) = read(path, limit)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| unusable(path, format!("not UTF-8: {}", error.utf8_error())))
}

/// The JSON of a plain file, or None when there is no such file.
///
/// # Errors
/// As [`read`]; [`Error::ModelFile`] also for what is not JSON.
pub(crate) fn read_json(path: &Path, limit: u64) -> Result<Option<Value>> {
    let Some(bytes) = read(path, limit)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| unusable(path, format!("not valid JSON: {error}")))
}

/// The JSON object of a plain file, or None when there is no such file.
///
/// # Errors
/// As [`read_json`]; [`Error::ModelFile`] also for JSON that is no object.
pub(crate) fn read_object(path: &Path, limit: u64) -> Result<Option<Map<String, Value>>> {
    match read_json(path, limit)? {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(unusable(path, "the top level must be a JSON object")),
    }
}

/// The error of a file of the folder that is there and cannot be used.
pub(crate) fn unusable(path: &Path, reason: impl ToString) -> Error {
    Error::ModelFile { path: path.to_owned(), reason: reason.to_string() }
}

fn require_plain(path: &Path, kind: FileType) -> Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    Err(unusable(path, format!("is {}, not a plain file", name_of(kind))))
}

#[cfg(unix)]
fn name_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "something else",
    }
}

#[cfg(not(unix))]
fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "something else" }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
