//! GGUF files, versions 2 and 3, little-endian: metadata, and tensors whose blocks are used as they lie.
//!
//! The format is described by ggml's `docs/gguf.md`: a header of keys with values, names, shapes and offsets of tensors, and behind it the
//! tensors, each at a multiple of `general.alignment`. Nothing in a header is believed before it is checked against the file.

mod cursor;
mod find;
mod kind;
mod metadata;
mod names;
mod pair;
mod source;
mod split;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prefixkv_kernels::os::map::Map;
use rayon::prelude::*;

use super::file::Stamp;
use crate::error::{Error, Result};
use crate::folder::{self, unusable};
use cursor::Cursor;
pub(crate) use find::{in_folder, tower_beside};
pub use kind::Kind;
pub use metadata::{Metadata, Texts, Value};
pub(crate) use names::{Architecture, ROPE, SHORT_ROPE, TOWER, named};
pub(in crate::weights) use pair::Pair;
pub(crate) use pair::{Join, Made};
pub(in crate::weights) use source::Named;

/// Most tensors, and most bytes of a name; ggml's own names have 63.
const MAX_TENSORS: u64 = 65_536;
const MAX_NAME: u64 = 255;
const MAX_DIMENSIONS: u32 = 4;
/// Where tensors begin unless `general.alignment` says otherwise, and the most that it may say.
const ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
/// Bytes that are read together.
const TOGETHER: usize = 4 << 20;

/// A file by which it is known whether it is still what it was.
#[derive(Debug)]
pub(crate) struct Origin {
    path: PathBuf,
    file: std::fs::File,
    stamp: Stamp,
}

impl Origin {
    /// Errors when the file, which is in use, was written to since it was opened.
    pub(crate) fn require_same(&self) -> Result<()> {
        let changed = "was changed since it was loaded, and its numbers with it: dispose of the model and load it again, with `map: false` if \
                       it may change once more";
        self.stamp.require(&self.file, &self.path).map_err(|_| unusable(&self.path, changed))
    }
}

/// A GGUF file, or the files of a split model. Their headers were read; tensors are read when they are asked for.
#[derive(Debug)]
pub struct Gguf {
    /// The files, the first one with the metadata of the model.
    parts: Vec<Arc<Origin>>,
    metadata: Metadata,
    tensors: HashMap<String, Tensor>,
}

/// Where a tensor lies and how.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Rows first, as Hugging Face has them; the file has them the other way round.
    pub shape: Vec<usize>,
    pub kind: Kind,
    /// Bytes from the beginning of the file, and their number.
    pub start: u64,
    pub bytes: usize,
    /// Which of a model's files has it, from 0 on.
    pub part: usize,
}

impl Tensor {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Gguf {
    /// Reads the header of a file, and where it is the first of a split model, those of the others.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] when one is not there; [`Error::ModelFile`] when one is no GGUF, is damaged or cut, goes past a limit, or is not
    /// the part that its name says; [`Error::UnsupportedModel`] for a version, a byte order or a type of tensor that is not read.
    pub fn open(path: &Path) -> Result<Gguf> {
        split::whole(Self::open_one(path)?)
    }

    fn open_one(path: &Path) -> Result<Gguf> {
        let Some(file) = folder::open(path)? else {
            return Err(Error::ModelNotFound { path: path.to_owned(), reason: "is not there".into() });
        };
        let stamp = Stamp::of(&file).map_err(|error| unusable(path, format!("cannot be read: {error}")))?;
        let damaged = |reason: String| unusable(path, reason);
        let unsupported = |reason: String| Error::UnsupportedModel { reason, known: vec![] };
        let mut cursor = Cursor::new(&file, stamp.len).map_err(damaged)?;
        if cursor.bytes::<4>().map_err(damaged)? != *b"GGUF" {
            return Err(damaged("is not a GGUF file: it does not begin with `GGUF`".into()));
        }
        let version = cursor.u32().map_err(damaged)?;
        if !matches!(version, 2 | 3) {
            let what = match version.swap_bytes() {
                2 | 3 => {
                    "is a big-endian GGUF file; only little-endian ones are read: convert the model on such a machine"
                        .into()
                }
                _ => format!(
                    "is a GGUF file of version {version}; 2 and 3 are read: convert the model anew with llama.cpp"
                ),
            };
            return Err(unsupported(format!("{} {what}", path.display())));
        }
        let count = cursor.u64().map_err(damaged)?;
        if count > MAX_TENSORS {
            return Err(damaged(format!("it promises {count} tensors; at most {MAX_TENSORS} are read")));
        }
        let keys = cursor.u64().map_err(damaged)?;
        let metadata = Metadata::read(path, &mut cursor, keys).map_err(damaged)?;
        let origin = Arc::new(Origin { path: path.to_owned(), file, stamp });
        let mut gguf = Gguf { parts: vec![origin], metadata, tensors: HashMap::new() };
        gguf.read_tensors(&mut cursor, count)?;
        Ok(gguf)
    }

    fn read_tensors(&mut self, cursor: &mut Cursor, count: u64) -> Result<()> {
        let path = self.path().to_owned();
        let damaged = |reason: String| unusable(&path, reason);
        for _ in 0..count {
            let name = cursor.text(MAX_NAME, "the name of a tensor").map_err(damaged)?;
            let tensor = self.read_tensor(cursor, &name)?;
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(damaged(format!("it has the tensor `{name}` twice")));
            }
        }
        let alignment = self.metadata.size("general.alignment")?.map_or(ALIGNMENT, |found| found as u64);
        if !(8..=MAX_ALIGNMENT).contains(&alignment) || !alignment.is_power_of_two() {
            let reason = format!("{alignment}, expected a power of two from 8 to {MAX_ALIGNMENT}");
            return Err(self.metadata.bad("general.alignment", reason));
        }
        let start = cursor.at().next_multiple_of(alignment);
        let len = self.parts[0].stamp.len;
        for (name, tensor) in &mut self.tensors {
            if !tensor.start.is_multiple_of(alignment) {
                let at = tensor.start;
                return Err(damaged(format!(
                    "tensor `{name}` lies at {at}, no multiple of {alignment}; download it again"
                )));
            }
            let end = start.checked_add(tensor.start).and_then(|start| start.checked_add(tensor.bytes as u64));
            match end {
                Some(end) if end <= len => tensor.start += start,
                _ => {
                    return Err(damaged(format!(
                        "truncated: tensor `{name}` ends behind the {len} bytes of the file; download it again"
                    )));
                }
            }
        }
        let mut places: Vec<_> =
            self.tensors.iter().map(|(name, tensor)| (tensor.start, tensor.bytes as u64, name)).collect();
        places.sort_unstable();
        match places.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            Some(pair) => {
                Err(damaged(format!("the tensors `{}` and `{}` overlap; download it again", pair[0].2, pair[1].2)))
            }
            None => Ok(()),
        }
    }

    /// The entry of a tensor, whose start does not count the header yet.
    fn read_tensor(&self, cursor: &mut Cursor, name: &str) -> Result<Tensor> {
        let damaged = |reason: String| unusable(self.path(), reason);
        let dimensions = cursor.u32().map_err(damaged)?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(damaged(format!(
                "tensor `{name}` has {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}"
            )));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        let mut elements: u64 = 1;
        for _ in 0..dimensions {
            let size = cursor.u64().map_err(damaged)?;
            // More than any file holds: block types have at least two bits a weight.
            elements = match elements
                .checked_mul(size)
                .filter(|elements| (1..=self.parts[0].stamp.len.saturating_mul(4)).contains(elements))
            {
                Some(elements) => elements,
                None => {
                    return Err(damaged(format!(
                        "tensor `{name}` has a dimension of {size}, which the file cannot hold"
                    )));
                }
            };
            shape.insert(0, size as usize);
        }
        let kind = Kind::of(cursor.u32().map_err(damaged)?).map_err(|name_of_kind| Error::UnsupportedModel {
            reason: format!(
                "tensor `{name}` of {} is {name_of_kind}; read are {}: take another file of the model, for instance Q4_K_M or Q8_0",
                self.path().display(),
                Kind::names()
            ),
            known: vec![],
        })?;
        let start = cursor.u64().map_err(damaged)?;
        let row = shape[shape.len() - 1];
        if !row.is_multiple_of(kind.weights) {
            let (kind, weights) = (kind.name, kind.weights);
            return Err(damaged(format!("tensor `{name}` is {kind} with rows of {row}, no multiple of {weights}")));
        }
        Ok(Tensor { shape, kind, start, bytes: elements as usize / kind.weights * kind.bytes, part: 0 })
    }

    /// The file, of several the first.
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// All files of the model.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.parts.iter().map(|part| &*part.path)
    }

    /// The file that has a tensor.
    fn path_of(&self, tensor: &Tensor) -> &Path {
        &self.parts[tensor.part].path
    }

    /// The files themselves, which outlive this and know whether they are still the same.
    pub(crate) fn origins(&self) -> &[Arc<Origin>] {
        &self.parts
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// A tensor by its name in the file.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The tensors with their names, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The bytes of a tensor.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when the file has been cut since it was opened.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        let mut bytes = vec![0; tensor.bytes];
        let chunks = bytes.par_chunks_mut(TOGETHER).enumerate();
        let Origin { file, path, .. } = &*self.parts[tensor.part];
        let read = chunks.map(|(index, chunk)| file.read_exact_at(chunk, tensor.start + (index * TOGETHER) as u64));
        read.collect::<io::Result<()>>().map_err(|error| shrunk(path, &error))?;
        Ok(bytes)
    }

    /// `count` bytes of a tensor from byte `offset` of it on.
    fn sample(&self, tensor: &Tensor, offset: usize, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let Origin { file, path, .. } = &*self.parts[tensor.part];
        file.read_exact_at(&mut bytes, tensor.start + offset as u64).map_err(|error| shrunk(path, &error))?;
        Ok(bytes)
    }

    /// A whole file as memory.
    fn map(&self, part: usize) -> Result<Map> {
        let Origin { path, file, stamp } = &*self.parts[part];
        stamp.require(file, path)?;
        let map = Map::open(file);
        map.map_err(|error| {
            unusable(path, format!("cannot be mapped into memory ({error}): load it with `map: false`"))
        })
    }

    /// Errors when a file was written to since it was opened.
    pub(crate) fn require_unchanged(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.stamp.require(&part.file, &part.path))
    }
}

fn shrunk(path: &Path, error: &io::Error) -> Error {
    unusable(path, format!("cannot be read to its end ({error}): it was cut or changed while it was read"))
}

#[cfg(test)]
mod tests;
