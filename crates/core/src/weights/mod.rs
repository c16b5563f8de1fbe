//! Safetensors checkpoints, single or sharded, read tensor by tensor: their shapes and every number checked.

mod file;
mod foreign;
mod format;
pub(crate) mod numbers;
pub(crate) mod quantised;
mod tensors;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::folder::{read_object, unusable};
use file::File;
pub(crate) use foreign::instead_of_a_model;
pub use format::WeightFormat;
use numbers::Element;
pub use numbers::Role;
pub use tensors::{Folding, Tensors};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Most bytes of an index, and most shards.
const MAX_INDEX: u64 = 64 << 20;
const MAX_SHARDS: usize = 2000;

/// The tensors of a model folder by name. Nothing is read from a file before a tensor is asked for.
///
/// Tensors that were read belong to the caller: afterwards nobody can change them by writing to the files.
pub struct Checkpoint {
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

/// The numbers of a tensor in the format of the file, all of them finite.
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Checkpoint {
    /// Opens the weights of `dir`: `model.safetensors`, or without it the shards that `model.safetensors.index.json` names. In this order,
    /// because transformers has it, and folders keep the index of an earlier save.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] without either, or without a shard; [`Error::ModelFile`] for a file that cannot be used;
    /// [`Error::UnsupportedModel`] for a GGUF.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut checkpoint = Checkpoint { dir: dir.to_owned(), files: Vec::new(), tensors: HashMap::new() };
        if checkpoint.add(&dir.join(SINGLE))? {
            return Ok(checkpoint);
        }
        let index = dir.join(INDEX);
        match read_object(&index, MAX_INDEX)? {
            Some(object) => checkpoint.read_shards(&index, &object)?,
            None => return Err(foreign::without_weights(dir)),
        }
        Ok(checkpoint)
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

    /// The tensors in a format that is read. Integer buffers such as position_ids are in old files and never needed.
    fn readable(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.tensors.iter().filter(|(_, entry)| matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16))
    }

    /// The number of elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.parameters_under("")
    }

    /// The elements of all tensors whose names begin with `prefix`.
    pub fn parameters_under(&self, prefix: &str) -> u64 {
        let under = self.readable().filter(|(name, _)| name.starts_with(prefix));
        under.map(|(_, entry)| entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// The format in which somebody has quantised the weights, as far as names and types of tensors tell; None for plain numbers.
    pub(crate) fn packing(&self) -> Option<&'static str> {
        quantised::packing(self.tensors.iter().map(|(name, entry)| (name.as_str(), entry.dtype)))
    }

    /// A hash of the names, formats and shapes of all tensors and of samples of their bytes, as `sha256:` and 64 hexadecimal
    /// digits. It does not depend on the folder or on how the tensors are spread over files.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when a file has been cut since it was opened.
    pub fn fingerprint(&self) -> Result<String> {
        /// Enough to tell two trainings of one architecture apart.
        const SAMPLE: usize = 64;
        let mut tensors: Vec<_> = self.readable().collect();
        tensors.sort_by_key(|(name, _)| *name);
        let mut hash = Sha256::new();
        for (name, entry) in tensors {
            hash.update(format!("{name} {:?} {:?}\n", entry.dtype, entry.shape));
            let len = entry.end - entry.start;
            for start in [0, len / 2] {
                hash.update(self.files[entry.file].sample(entry.start + start, SAMPLE.min(len - start))?);
            }
        }
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{digits}"))
    }

    /// Errors when a file was written to since it was opened: what was read may be of two models.
    pub(crate) fn require_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(File::require_unchanged)
    }

    /// A tensor on the CPU in the file's own format, its shape checked.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when it is not there, has another shape, or holds NaN or infinity; [`Error::UnsupportedModel`] when its numbers
    /// are none of f32, f16 and bf16.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        tensor(self.numbers(name, shape)?.0, shape)
    }

    /// As [`Checkpoint::tensor`], for a tensor that is to be held as `format` has it for its role; nothing is converted yet.
    ///
    /// # Errors
    /// [`Error::Numbers`] too, when that format cannot hold the numbers.
    pub fn tensor_for(&self, name: &str, shape: &[usize], role: Role, format: WeightFormat) -> Result<Tensor> {
        let (numbers, most) = self.numbers(name, shape)?;
        self.require_fit(name, most, role, format)?;
        tensor(numbers, shape)
    }

    /// `x` as the type of a tensor has it. Errors when the tensor is not there.
    pub fn rounded(&self, name: &str, x: f32) -> Result<f32> {
        Ok(match self.tensors.get(name).ok_or_else(|| self.missing(&format!("`{name}`")))?.dtype {
            Dtype::F16 => f16::from_f32(x).to_f32(),
            Dtype::BF16 => bf16::from_f32(x).to_f32(),
            _ => x,
        })
    }

    /// The elements of a tensor in f32. Errors as [`Checkpoint::tensor`].
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self.numbers(name, shape)?.0 {
            Numbers::F32(numbers) => Ok(numbers),
            other => Ok(tensor(other, shape)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
        }
    }

    /// The elements of a tensor in f16. Errors as [`Checkpoint::tensor_for`].
    pub fn f16(&self, name: &str, shape: &[usize], role: Role) -> Result<Vec<f16>> {
        let (numbers, most) = self.numbers(name, shape)?;
        self.require_fit(name, most, role, WeightFormat::F16)?;
        match numbers {
            Numbers::F16(numbers) => Ok(numbers),
            other => Ok(tensor(other, shape)?.to_dtype(DType::F16)?.flatten_all()?.to_vec1()?),
        }
    }

    /// The numbers of a tensor, and their greatest magnitude.
    fn numbers(&self, name: &str, shape: &[usize]) -> Result<(Numbers, f32)> {
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(&format!("`{name}`")))?;
        let path = &self.files[entry.file].path;
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(self.unreadable(name, entry.dtype, path));
        }
        if entry.shape != shape {
            let reason = format!("tensor `{name}` has shape {:?}, config.json asks for {shape:?}", entry.shape);
            return Err(unusable(path, reason));
        }
        match entry.dtype {
            Dtype::F32 => self.finite(name, entry).map(|(numbers, most)| (Numbers::F32(numbers), most)),
            Dtype::F16 => self.finite(name, entry).map(|(numbers, most)| (Numbers::F16(numbers), most)),
            _ => self.finite(name, entry).map(|(numbers, most)| (Numbers::Bf16(numbers), most)),
        }
    }

    /// The numbers of a tensor, which must all be finite, and their greatest magnitude.
    fn finite<T: Element>(&self, name: &str, entry: &Entry) -> Result<(Vec<T>, f32)> {
        let file = &self.files[entry.file];
        let (numbers, most) = file.read::<T>(entry.start, entry.shape.iter().product())?;
        let most = T::magnitude(most);
        if most.is_finite() {
            return Ok((numbers, most));
        }
        let at = numbers.iter().position(|number| !number.is_finite()).unwrap_or(0);
        let what = if numbers[at].to_f32().is_nan() { "NaN" } else { "infinity" };
        let count = numbers.iter().filter(|number| !number.is_finite()).count();
        let rest = if count > 1 { format!(", the first of {count} that are no numbers") } else { String::new() };
        let place = place(at, &entry.shape);
        Err(unusable(
            &file.path,
            format!(
                "tensor `{name}` holds {what} at {place:?}{rest}: the file is damaged or its training failed; download it again, \
                 or take another revision"
            ),
        ))
    }

    fn require_fit(&self, name: &str, most: f32, role: Role, format: WeightFormat) -> Result<()> {
        if role.holds(format, most) {
            return Ok(());
        }
        const ALL: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K];
        let fits: Vec<&'static str> =
            ALL.into_iter().filter(|format| role.holds(*format, most)).map(WeightFormat::name).collect();
        let quoted: Vec<String> = fits.iter().map(|format| format!("\"{format}\"")).collect();
        Err(Error::Numbers {
            reason: format!(
                "tensor `{name}` of {} holds numbers up to {most}, which do not fit weights \"{}\"{}; load with weights {}",
                self.tensors.get(name).map_or(self.dir.as_path(), |entry| &self.files[entry.file].path).display(),
                format.name(),
                role.why(format),
                quoted.join(" or "),
            ),
            fits,
        })
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

fn tensor(numbers: Numbers, shape: &[usize]) -> Result<Tensor> {
    Ok(match numbers {
        Numbers::F32(numbers) => Tensor::from_vec(numbers, shape, &Device::Cpu)?,
        Numbers::F16(numbers) => Tensor::from_vec(numbers, shape, &Device::Cpu)?,
        Numbers::Bf16(numbers) => Tensor::from_vec(numbers, shape, &Device::Cpu)?,
    })
}

/// The indices of element `at` of a tensor.
fn place(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let index = at % size;
            at /= size;
            index
        })
        .collect();
    place.reverse();
    place
}

#[cfg(test)]
mod tests;
