//! Safetensors checkpoints: memory-mapped, single or sharded, read tensor by tensor with their shapes checked.

pub mod memory;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::f16;
use prefixkv_kernels::mmap::Mapping;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a model folder by name. Nothing is read from a file before a tensor is asked for.
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<File>,
    tensors: HashMap<String, Entry>,
}

struct File {
    path: PathBuf,
    map: Mapping,
}

struct Entry {
    file: usize,
    dtype: DType,
    shape: Vec<usize>,
    /// Byte offsets within the file.
    start: usize,
    end: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Checkpoint {
    /// Maps the weights of `dir`: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut checkpoint = Checkpoint { dir: dir.to_owned(), files: Vec::new(), tensors: HashMap::new() };
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if index.is_file() {
            checkpoint.read_index(&index)?;
        } else if single.is_file() {
            checkpoint.add(single)?;
        } else {
            let others = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.gguf", "consolidated.00.pth"];
            let hint = match others.iter().find(|name| dir.join(name).exists()) {
                Some(name) => format!("only {name} is there, and pickled weights are not read: convert to safetensors"),
                None => format!("has neither {SINGLE} nor {INDEX}"),
            };
            return Err(Error::ModelNotFound { path: dir.to_owned(), reason: hint });
        }
        Ok(checkpoint)
    }

    fn read_index(&mut self, path: &Path) -> Result<()> {
        let bad = |reason: String| Error::ModelFile { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| bad(format!("cannot be read: {e}")))?;
        let index: Index = serde_json::from_str(&text).map_err(|e| bad(format!("not a weight index: {e}")))?;
        let mut shards: Vec<&String> = index.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            // A shard is a file of the folder, never a path out of it.
            if shard.contains(['/', '\\']) || shard == ".." {
                return Err(bad(format!("shard name `{shard}` is not a plain file name")));
            }
            let file = self.dir.join(shard);
            if !file.is_file() {
                return Err(Error::ModelNotFound {
                    path: file,
                    reason: format!("is missing, but {INDEX} needs it: download the folder again"),
                });
            }
            self.add(file)?;
        }
        match index.weight_map.keys().find(|name| !self.tensors.contains_key(*name)) {
            Some(name) => Err(bad(format!("tensor `{name}` is in the index but in no shard"))),
            None => Ok(()),
        }
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let bad = |reason: String| Error::ModelFile { path: path.clone(), reason };
        let map = Mapping::open(&path).map_err(|e| bad(format!("cannot be mapped: {e}")))?;
        let (header, metadata): (usize, Metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            bad(format!(
                "not a safetensors file, or its header is damaged ({e}; {} bytes): download it again",
                map.len()
            ))
        })?;
        // After the header's length (8 bytes) and the header come the data.
        let data_start = header + 8;
        let needed = data_start + metadata.data_len();
        if map.len() < needed {
            return Err(bad(format!(
                "truncated: {} bytes where the header promises {needed}; download it again",
                map.len()
            )));
        }
        let file = self.files.len();
        for (name, info) in metadata.tensors() {
            let dtype = match info.dtype {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                // Integer buffers such as position_ids are in old files and never needed.
                _ => continue,
            };
            let (start, end) = info.data_offsets;
            let entry =
                Entry { file, dtype, shape: info.shape.clone(), start: data_start + start, end: data_start + end };
            self.tensors.insert(name, entry);
        }
        self.files.push(File { path, map });
        Ok(())
    }

    /// Whether a tensor of this name exists.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The first of `prefixes` under which `name` exists.
    pub fn find_prefix(&self, prefixes: &[&'static str], name: &str) -> Result<&'static str> {
        prefixes.iter().find(|prefix| self.has(&format!("{prefix}{name}"))).copied().ok_or_else(|| {
            let tried: Vec<String> = prefixes.iter().map(|prefix| format!("`{prefix}{name}`")).collect();
            self.missing(&tried.join(" nor "))
        })
    }

    /// The number of elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|entry| entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// The elements of all tensors whose names begin with `prefix`.
    pub fn parameters_under(&self, prefix: &str) -> u64 {
        let under = self.tensors.iter().filter(|(name, _)| name.starts_with(prefix));
        under.map(|(_, entry)| entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// A hash of the names, formats and shapes of all tensors and of samples of their bytes, as `sha256:` and 64 hexadecimal
    /// digits. It does not depend on the folder or on how the tensors are spread over files.
    pub fn fingerprint(&self) -> String {
        /// Enough to tell two trainings of one architecture apart.
        const SAMPLE: usize = 64;
        let mut names: Vec<&String> = self.tensors.keys().collect();
        names.sort();
        let mut hash = Sha256::new();
        for name in names {
            let entry = &self.tensors[name];
            hash.update(format!("{name} {:?} {:?}\n", entry.dtype, entry.shape));
            let bytes = &self.files[entry.file].map[entry.start..entry.end];
            for start in [0, bytes.len() / 2] {
                hash.update(&bytes[start..(start + SAMPLE).min(bytes.len())]);
            }
        }
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    }

    /// A tensor on the CPU in the file's own format, its shape checked.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (dtype, bytes) = self.bytes(name, shape)?;
        Ok(Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)?)
    }

    /// The elements of a tensor where they are in the file, its shape checked; None where the file has another format.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Option<&[f32]>> {
        let (dtype, bytes) = self.bytes(name, shape)?;
        Ok(if dtype == DType::F32 { cast(bytes) } else { None })
    }

    /// As [`Checkpoint::f32`].
    pub fn f16(&self, name: &str, shape: &[usize]) -> Result<Option<&[f16]>> {
        let (dtype, bytes) = self.bytes(name, shape)?;
        Ok(if dtype == DType::F16 { cast(bytes) } else { None })
    }

    fn bytes(&self, name: &str, shape: &[usize]) -> Result<(DType, &[u8])> {
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(&format!("`{name}`")))?;
        let file = &self.files[entry.file];
        if entry.shape != shape {
            return Err(Error::ModelFile {
                path: file.path.clone(),
                reason: format!("tensor `{name}` has shape {:?}, config.json asks for {shape:?}", entry.shape),
            });
        }
        Ok((entry.dtype, &file.map[entry.start..entry.end]))
    }

    fn missing(&self, what: &str) -> Error {
        let path = match self.files.as_slice() {
            [only] => only.path.clone(),
            _ => self.dir.join(INDEX),
        };
        Error::ModelFile {
            path,
            reason: format!("has no tensor {what}; it holds {} tensors of another model or layout", self.tensors.len()),
        }
    }
}

/// Little-endian numbers as the machine reads them; None where they are not aligned.
fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> Option<&[T]> {
    if cfg!(target_endian = "little") { bytemuck::try_cast_slice(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, tensors: &[(&str, Vec<usize>)]) {
        let data: Vec<(String, Vec<u8>, Vec<usize>)> = tensors
            .iter()
            .map(|(name, shape)| (name.to_string(), vec![0u8; 4 * shape.iter().product::<usize>()], shape.clone()))
            .collect();
        let views = data.iter().map(|(name, bytes, shape)| {
            (name.clone(), safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), bytes).expect("valid view"))
        });
        let bytes = safetensors::serialize(views, None).expect("serialises");
        std::fs::write(dir.join(name), bytes).expect("written");
    }

    fn refused(dir: &Path) -> Error {
        match Checkpoint::open(dir) {
            Ok(_) => panic!("{} should be refused", dir.display()),
            Err(error) => error,
        }
    }

    #[test]
    fn folders_without_weights_say_what_is_missing() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert_eq!(refused(dir.path()).code(), "model-not-found");
        std::fs::write(dir.path().join("pytorch_model.bin"), b"x").expect("written");
        let error = refused(dir.path());
        assert!(
            error.to_string().contains("pytorch_model.bin") && error.to_string().contains("safetensors"),
            "{error}"
        );
    }

    #[test]
    fn truncated_and_foreign_files_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join(SINGLE);
        write(dir.path(), SINGLE, &[("a", vec![4, 8])]);
        let whole = std::fs::read(&path).expect("just written");
        for len in [0, 4, 8, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).expect("written");
            let error = refused(dir.path());
            assert_eq!(error.code(), "model-file", "{len} bytes");
            assert!(error.to_string().contains("download it again") || len == 0, "{error}");
        }
        std::fs::write(&path, "not a safetensors file at all").expect("written");
        assert_eq!(refused(dir.path()).code(), "model-file");
    }

    #[test]
    fn wrong_shapes_and_missing_tensors_are_named() {
        let dir = tempfile::tempdir().expect("temporary folder");
        write(dir.path(), SINGLE, &[("a", vec![4, 8])]);
        let checkpoint = Checkpoint::open(dir.path()).expect("opens");
        assert!(checkpoint.tensor("a", &[4, 8]).is_ok());
        let error = checkpoint.tensor("a", &[8, 4]).expect_err("wrong shape");
        assert!(error.to_string().contains("[4, 8]") && error.to_string().contains("[8, 4]"), "{error}");
        let error = checkpoint.tensor("b", &[1]).expect_err("missing");
        assert!(error.to_string().contains("`b`"), "{error}");
    }

    #[test]
    fn shards_must_exist_and_stay_in_the_folder() {
        let dir = tempfile::tempdir().expect("temporary folder");
        write(dir.path(), "one.safetensors", &[("a", vec![2])]);
        let index =
            |map: &str| std::fs::write(dir.path().join(INDEX), format!("{{\"weight_map\": {map}}}")).expect("written");
        index(r#"{"a": "one.safetensors"}"#);
        assert!(Checkpoint::open(dir.path()).expect("opens").has("a"));
        index(r#"{"a": "one.safetensors", "b": "two.safetensors"}"#);
        let error = refused(dir.path());
        assert!(error.code() == "model-not-found" && error.to_string().contains("two.safetensors"), "{error}");
        index(r#"{"a": "../one.safetensors"}"#);
        assert_eq!(refused(dir.path()).code(), "model-file");
        index(r#"{"a": "one.safetensors", "b": "one.safetensors"}"#);
        assert!(refused(dir.path()).to_string().contains("`b`"));
        index("{");
        assert_eq!(refused(dir.path()).code(), "model-file");
    }
}
