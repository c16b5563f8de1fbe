//! A folder of safetensors files, single or sharded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::file::File;
use super::{Numbers, Source, foreign, quantised, require_finite, require_shape};
use crate::error::{Error, Result};
use crate::folder::{read_object, unusable};

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Most bytes of an index, and most shards.
const MAX_INDEX: u64 = 64 << 20;
const MAX_SHARDS: usize = 2000;

/// The tensors of a folder by name.
pub(super) struct Folder {
    dir: PathBuf,
    files: Vec<File>,
    tensors: HashMap<String, Entry>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Byte offsets within the data of the file.
    start: usize,
    end: usize,
}

impl Folder {
    /// Opens the weights of `dir`, as [`super::Checkpoint::open`] says.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut folder = Folder { dir: dir.to_owned(), files: Vec::new(), tensors: HashMap::new() };
        if folder.add(&dir.join(SINGLE))? {
            return Ok(folder);
        }
        let index = dir.join(INDEX);
        match read_object(&index, MAX_INDEX)? {
            Some(object) => folder.read_shards(&index, &object)?,
            None => return Err(foreign::without_weights(dir)),
        }
        Ok(folder)
    }

    /// The tensors of one file; None when there is no such file.
    pub(super) fn file(path: &Path) -> Result<Option<Self>> {
        let dir = path.parent().unwrap_or(path).to_owned();
        let mut folder = Folder { dir, files: Vec::new(), tensors: HashMap::new() };
        Ok(folder.add(path)?.then_some(folder))
    }

    /// The names of all tensors, whatever their types.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| &entry.shape[..])
    }

    fn read_shards(&mut self, path: &Path, index: &Map<String, Value>) -> Result<()> {
        let bad = |reason: String| unusable(path, reason);
        let Some(Value::Object(map)) = index.get("weight_map") else {
            return Err(bad("not a weight index: it has no object `weight_map`".into()));
        };
        let mut shards = Vec::new();
        for (name, shard) in map {
            match shard.as_str() {
                // A shard is a file of the folder, never a path out of it.
                Some(shard) if !shard.is_empty() && !shard.contains(['/', '\\']) && shard != "." && shard != ".." => {
                    shards.push(shard);
                }
                _ => return Err(bad(format!("the shard of `{name}` is {shard}, not a plain file name"))),
            }
        }
        shards.sort_unstable();
        shards.dedup();
        if shards.is_empty() || shards.len() > MAX_SHARDS {
            return Err(bad(format!("it names {} files, expected 1 to {MAX_SHARDS}", shards.len())));
        }
        for shard in shards {
            let file = self.dir.join(shard);
            if !self.add(&file)? {
                return Err(Error::ModelNotFound {
                    path: file,
                    reason: format!(
                        "is missing, but {INDEX} needs it, and there is no {SINGLE}: download the folder again"
                    ),
                });
            }
        }
        match map.keys().find(|name| !self.tensors.contains_key(*name)) {
            Some(name) => Err(bad(format!("tensor `{name}` is in the index but in no shard"))),
            None => Ok(()),
        }
    }

    /// Takes the tensors of a file; false when there is no such file.
    fn add(&mut self, path: &Path) -> Result<bool> {
        let Some((file, metadata)) = File::open(path)? else { return Ok(false) };
        let index = self.files.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            self.tensors.insert(name, Entry { file: index, dtype: info.dtype, shape: info.shape.clone(), start, end });
        }
        self.files.push(file);
        Ok(true)
    }

    fn unreadable(&self, name: &str, dtype: Dtype, path: &Path) -> Error {
        let reason = match self.packing() {
            Some(format) => format!(
                "{} holds quantised weights ({format}; `{name}` is {dtype:?}), which are not read: {}",
                path.display(),
                quantised::CURE
            ),
            None => format!(
                "tensor `{name}` of {} is {dtype:?}; only F32, F16 and BF16 are read: convert the checkpoint to one of them",
                path.display()
            ),
        };
        Error::UnsupportedModel { reason, known: vec![] }
    }
}

/// Integer buffers such as position_ids are in old files and never needed.
fn is_readable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

impl Source for Folder {
    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn tensors(&self) -> Vec<(&str, &[usize])> {
        let readable = self.tensors.iter().filter(|(_, entry)| is_readable(entry.dtype));
        readable.map(|(name, entry)| (name.as_str(), &entry.shape[..])).collect()
    }

    fn bytes(&self) -> u64 {
        let readable = self.tensors.values().filter(|entry| is_readable(entry.dtype));
        readable.map(|entry| (entry.end - entry.start) as u64).sum()
    }

    fn path(&self, name: &str) -> &Path {
        match (self.tensors.get(name), self.files.as_slice()) {
            (Some(entry), files) => &files[entry.file].path,
            (None, [only]) => &only.path,
            (None, _) => &self.dir,
        }
    }

    fn packing(&self) -> Option<&'static str> {
        quantised::packing(self.tensors.iter().map(|(name, entry)| (name.as_str(), entry.dtype)))
    }

    fn numbers(&self, name: &str, shape: &[usize]) -> Result<(Numbers, f32)> {
        let Some(entry) = self.tensors.get(name) else { return Err(self.missing(&format!("`{name}`"))) };
        let file = &self.files[entry.file];
        if !is_readable(entry.dtype) {
            return Err(self.unreadable(name, entry.dtype, &file.path));
        }
        require_shape(&file.path, name, &entry.shape, shape, "config.json")?;
        let count = shape.iter().product();
        match entry.dtype {
            Dtype::F32 => require_finite(&file.path, name, shape, file.read(entry.start, count)?, Numbers::F32),
            Dtype::F16 => require_finite(&file.path, name, shape, file.read(entry.start, count)?, Numbers::F16),
            _ => require_finite(&file.path, name, shape, file.read(entry.start, count)?, Numbers::Bf16),
        }
    }

    fn format(&self, name: &str) -> String {
        self.tensors.get(name).map_or_else(String::new, |entry| format!("{:?}", entry.dtype))
    }

    fn sample(&self, name: &str, count: usize) -> Result<Vec<u8>> {
        let Some(entry) = self.tensors.get(name) else { return Err(self.missing(&format!("`{name}`"))) };
        let len = entry.end - entry.start;
        let mut bytes = Vec::with_capacity(2 * count);
        for start in [0, len / 2] {
            bytes.extend(self.files[entry.file].sample(entry.start + start, count.min(len - start))?);
        }
        Ok(bytes)
    }

    fn require_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(File::require_unchanged)
    }

    fn missing(&self, what: &str) -> Error {
        let path = match self.files.as_slice() {
            [only] => only.path.clone(),
            _ => self.dir.join(INDEX),
        };
        if let Some(format) = self.packing() {
            return Error::UnsupportedModel {
                reason: format!(
                    "{} holds quantised weights ({format}) and no tensor {what}; they are not read: {}",
                    path.display(),
                    quantised::CURE
                ),
                known: vec![],
            };
        }
        let held = self.tensors.len();
        unusable(&path, format!("has no tensor {what}; it holds {held} tensors of another model or layout"))
    }
}
