//! Weights by name, wherever they lie: safetensors files, single or sharded, and GGUF files, with adapters merged into them. Read tensor by
//! tensor, their shapes and every number checked.

mod adapter;
mod file;
mod foreign;
mod format;
pub mod gguf;
pub(crate) mod numbers;
pub(crate) mod quantised;
mod shards;
mod tensors;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use prefixkv_kernels::quant::stored::Stored;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::folder::unusable;
pub use adapter::{Layouts, MAX_ADAPTERS};
pub(crate) use foreign::instead_of_a_model;
pub use format::WeightFormat;
use numbers::Element;
pub use numbers::Role;
pub use tensors::{Folding, Part, Tensors};

/// The tensors of a model by their names in Hugging Face's files. Nothing is read from a file before a tensor is asked for.
///
/// Tensors that were read belong to the caller: afterwards nobody can change them by writing to the files. Only blocks that are used where a
/// GGUF file has them are the file's.
pub struct Checkpoint {
    source: Box<dyn Source>,
}

/// Files of weights in one format.
trait Source: Send + Sync {
    /// Whether a tensor of this name exists.
    fn has(&self, name: &str) -> bool;
    /// Names and shapes of all tensors in a format that is read.
    fn tensors(&self) -> Vec<(&str, &[usize])>;
    /// Bytes of all tensors in their files.
    fn bytes(&self) -> u64;
    /// The file of a tensor.
    fn path(&self, name: &str) -> &Path;
    /// The format in which somebody has quantised the weights, as far as names and types of tensors tell; None for plain numbers.
    fn packing(&self) -> Option<&'static str> {
        None
    }
    /// The numbers of a tensor of this shape, all of them finite, and their greatest magnitude.
    fn numbers(&self, name: &str, shape: &[usize]) -> Result<(Numbers, f32)>;
    /// The blocks of a matrix of this shape where they lie; None where it is plain numbers or no matrix.
    fn stored(&self, name: &str, shape: &[usize]) -> Result<Option<Stored>> {
        let _ = (name, shape);
        Ok(None)
    }
    /// The format of a tensor, as its file names it.
    fn format(&self, name: &str) -> String;
    /// Up to `count` bytes each of the beginning and the middle of a tensor.
    fn sample(&self, name: &str, count: usize) -> Result<Vec<u8>>;
    /// Errors when a file was written to since it was opened: what was read may be of two models.
    fn require_unchanged(&self) -> Result<()>;
    /// The error of a tensor that is not there.
    fn missing(&self, what: &str) -> Error;
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
    /// [`Error::ModelNotFound`] without either, or without a shard; [`Error::ModelFile`] for a file that cannot be used.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Checkpoint { source: Box::new(shards::Folder::open(dir)?) })
    }

    /// The weights of a GGUF file. With `mapped`, blocks are used where the file has them, mapped into memory; else each tensor is read.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for an architecture that is not known, and for tensors that it does not have; [`Error::ModelFile`] where
    /// metadata and tensors contradict each other.
    pub fn of_gguf(file: Arc<gguf::Gguf>, mapped: bool) -> Result<Self> {
        Ok(Checkpoint { source: Box::new(gguf::Named::text(file, "model.", mapped)?) })
    }

    /// As [`Checkpoint::of_gguf`], of a language model, which Hugging Face has under `prefix`, and of a tower, of whose tensors `made` are made.
    pub(crate) fn of_pair(
        text: Arc<gguf::Gguf>,
        prefix: &str,
        tower: Arc<gguf::Gguf>,
        made: &[gguf::Made],
        mapped: bool,
    ) -> Result<Self> {
        let text = gguf::Named::text(text, prefix, mapped)?;
        let tower = gguf::Named::tower(tower, made, mapped)?;
        Ok(Checkpoint { source: Box::new(gguf::Pair { text, tower }) })
    }

    /// The same with the LoRA adapter of the folder `dir` merged into every tensor that it changes, in f32, whenever one is read; `layouts` are
    /// those of the model's family.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] for a folder that is no adapter; [`Error::UnsupportedModel`] for one of another kind; [`Error::ModelFile`] when
    /// not all of its tensors find theirs.
    pub fn adapted(self, dir: &Path, layouts: &Layouts) -> Result<Self> {
        Ok(Checkpoint { source: Box::new(adapter::Merged::new(self.source, dir, layouts)?) })
    }

    /// Whether a tensor of this name exists.
    pub fn has(&self, name: &str) -> bool {
        self.source.has(name)
    }

    /// The first of `prefixes` under which `name` exists.
    pub fn find_prefix(&self, prefixes: &[&'static str], name: &str) -> Result<&'static str> {
        prefixes.iter().find(|prefix| self.has(&format!("{prefix}{name}"))).copied().ok_or_else(|| {
            let tried: Vec<String> = prefixes.iter().map(|prefix| format!("`{prefix}{name}`")).collect();
            self.source.missing(&tried.join(" nor "))
        })
    }

    /// The number of elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.parameters_under("")
    }

    /// The elements of all tensors whose names begin with `prefix`.
    pub fn parameters_under(&self, prefix: &str) -> u64 {
        let tensors = self.source.tensors();
        let under = tensors.iter().filter(|(name, _)| name.starts_with(prefix));
        under.map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
    }

    /// Bytes that all tensors take when they are held as `format`.
    pub fn bytes(&self, format: WeightFormat) -> u64 {
        match format {
            WeightFormat::Stored => self.source.bytes(),
            other => other.bytes(self.parameters()),
        }
    }

    /// The format in which somebody has quantised the weights, as far as names and types of tensors tell; None for plain numbers.
    pub(crate) fn packing(&self) -> Option<&'static str> {
        self.source.packing()
    }

    /// A hash of the names, formats and shapes of all tensors and of samples of their bytes, as `sha256:` and 64 hexadecimal
    /// digits. It does not depend on the folder or on how the tensors are spread over files.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when a file has been cut since it was opened.
    pub fn fingerprint(&self) -> Result<String> {
        /// Enough to tell two trainings of one architecture apart.
        const SAMPLE: usize = 64;
        let mut tensors = self.source.tensors();
        tensors.sort_unstable();
        let mut hash = Sha256::new();
        for (name, shape) in tensors {
            hash.update(format!("{name} {} {shape:?}\n", self.source.format(name)));
            hash.update(self.source.sample(name, SAMPLE)?);
        }
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{digits}"))
    }

    /// Errors when a file was written to since it was opened: what was read may be of two models.
    pub(crate) fn require_unchanged(&self) -> Result<()> {
        self.source.require_unchanged()
    }

    /// A tensor on the CPU in the file's own format, its shape checked.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when it is not there, has another shape, or holds NaN or infinity; [`Error::UnsupportedModel`] when its numbers
    /// are none of f32, f16 and bf16.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        tensor(self.source.numbers(name, shape)?.0, shape)
    }

    /// As [`Checkpoint::tensor`], for a tensor that is to be held as `format` has it for its role; nothing is converted yet.
    ///
    /// # Errors
    /// [`Error::Numbers`] too, when that format cannot hold the numbers.
    pub fn tensor_for(&self, name: &str, shape: &[usize], role: Role, format: WeightFormat) -> Result<Tensor> {
        let (numbers, most) = self.source.numbers(name, shape)?;
        let held = match (format, &numbers) {
            // As it is held then.
            (WeightFormat::Stored, Numbers::Bf16(_)) => WeightFormat::F16,
            _ => format,
        };
        self.require_fit(name, most, role, held)?;
        tensor(numbers, shape)
    }

    /// `x` as the type of a tensor has it. Errors when the tensor is not there.
    pub fn rounded(&self, name: &str, x: f32) -> Result<f32> {
        if !self.has(name) {
            return Err(self.source.missing(&format!("`{name}`")));
        }
        Ok(match &*self.source.format(name) {
            "F16" => f16::from_f32(x).to_f32(),
            "BF16" => bf16::from_f32(x).to_f32(),
            _ => x,
        })
    }

    /// The blocks of a matrix of this shape as a GGUF file has them, in its own memory; None where it is plain numbers or no matrix.
    ///
    /// # Errors
    /// [`Error::ModelFile`] when it is not there, has another shape, holds scales that are NaN or infinite, or cannot be mapped.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Option<Stored>> {
        self.source.stored(name, shape)
    }

    /// The elements of a tensor in f32. Errors as [`Checkpoint::tensor`].
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self.source.numbers(name, shape)?.0 {
            Numbers::F32(numbers) => Ok(numbers),
            other => Ok(tensor(other, shape)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
        }
    }

    /// The elements of a tensor in f16. Errors as [`Checkpoint::tensor_for`].
    pub fn f16(&self, name: &str, shape: &[usize], role: Role) -> Result<Vec<f16>> {
        let (numbers, most) = self.source.numbers(name, shape)?;
        self.require_fit(name, most, role, WeightFormat::F16)?;
        match numbers {
            Numbers::F16(numbers) => Ok(numbers),
            other => Ok(tensor(other, shape)?.to_dtype(DType::F16)?.flatten_all()?.to_vec1()?),
        }
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
                self.source.path(name).display(),
                format.name(),
                role.why(format),
                quoted.join(" or "),
            ),
            fits,
        })
    }
}

/// Errors unless a tensor of shape `found` has the shape that `asker` asks for.
fn require_shape(path: &Path, name: &str, found: &[usize], asked: &[usize], asker: &str) -> Result<()> {
    if found == asked {
        return Ok(());
    }
    Err(unusable(path, format!("tensor `{name}` has shape {found:?}, {asker} asks for {asked:?}")))
}

/// The numbers of a tensor with their greatest magnitude, of which `most` are the bits. Errors unless all are finite.
fn require_finite<T: Element>(
    path: &Path,
    name: &str,
    shape: &[usize],
    (numbers, most): (Vec<T>, u32),
    of: fn(Vec<T>) -> Numbers,
) -> Result<(Numbers, f32)> {
    let most = T::magnitude(most);
    if most.is_finite() {
        return Ok((of(numbers), most));
    }
    let at = numbers.iter().position(|number| !number.is_finite()).unwrap_or(0);
    let what = if numbers[at].to_f32().is_nan() { "NaN" } else { "infinity" };
    let count = numbers.iter().filter(|number| !number.is_finite()).count();
    let rest = if count > 1 { format!(", the first of {count} that are no numbers") } else { String::new() };
    let place = place(at, shape);
    Err(unusable(
        path,
        format!(
            "tensor `{name}` holds {what} at {place:?}{rest}: the file is damaged or its training failed; download it again, \
             or take another revision"
        ),
    ))
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
