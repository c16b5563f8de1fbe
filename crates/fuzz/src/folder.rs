//! Model folders to read from.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use prefixkv_core::Result;
use serde_json::{Map, Value};
use tempfile::TempDir;

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The bytes of a file of the repository.
pub fn read(path: &str) -> Vec<u8> {
    fs::read(repository(path)).expect("the repository is whole")
}

/// A JSON file of the repository.
pub fn read_json(path: &str) -> Value {
    serde_json::from_slice(&read(path)).expect("the repository's JSON is sound")
}

/// An object of the files of a folder, as an input holds them.
pub fn files(folder: &str, names: &[&str]) -> Value {
    let file = |name: &&str| Some(((*name).to_owned(), json_file(&format!("{folder}/{name}"))?));
    Value::Object(names.iter().filter_map(file).collect())
}

fn json_file(path: &str) -> Option<Value> {
    let text = fs::read_to_string(repository(path)).ok()?;
    Some(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Files that lie in a folder besides those of the input.
pub fn scratch(links: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for link in links {
        let source = repository(link);
        let name = source.file_name().expect("a file's path");
        fs::copy(&source, dir.path().join(name)).expect("a temporary file");
    }
    dir
}

/// Writes the files of an input: a string as it is, anything else as JSON. Names that are not listed are left out.
pub fn write(dir: &Path, files: &Map<String, Value>, names: &[&str]) {
    for name in names {
        let path = dir.join(name);
        let written = match files.get(*name) {
            None => fs::remove_file(&path).or(Ok(())),
            Some(Value::String(text)) => fs::write(&path, text),
            Some(value) => fs::write(&path, value.to_string()),
        };
        written.expect("a temporary file");
    }
}

/// The object that an input is, or None.
pub fn object(data: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(data).ok()
}

/// A JSON text written anew, if it says the same: serde_json reads some long fractions with a last bit that differs.
pub fn written_anew(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let written = value.to_string();
    (serde_json::from_str::<Value>(&written).ok()? == value).then_some(written)
}

/// Checks what came of a text and of the same text written anew. Only a field that was there twice may make a difference: written
/// anew it is there once. Where a refusal stands in the text is another place.
pub fn means_the_same<T: Debug>(read: &Result<T>, again: &Result<T>) {
    match (read, again) {
        (Err(_), Err(_)) => {}
        (Err(error), Ok(_)) => assert!(error.to_string().contains("is there twice"), "{error}"),
        (Ok(_), _) => assert_eq!(format!("{read:?}"), format!("{again:?}")),
    }
}
