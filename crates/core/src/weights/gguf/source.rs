//! The tensors of a GGUF file by Hugging Face's names.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use half::{bf16, f16};
use prefixkv_kernels::os::map::Map;
use prefixkv_kernels::quant::stored::{BlockType, Bytes, Stored};
use rayon::prelude::*;

use super::names::Turned;
use super::{Architecture, Gguf, Kind, Tensor};
use crate::error::{Error, Result};
use crate::folder::unusable;
use crate::weights::numbers::Element;
use crate::weights::{Numbers, Source, require_finite, require_shape};

/// The tensors of a GGUF file as a checkpoint.
pub(in crate::weights) struct Named {
    file: Arc<Gguf>,
    tensors: HashMap<String, Entry>,
    /// Whether blocks are used where the file has them.
    mapped: bool,
    /// The file in memory, once somebody asked for that.
    map: OnceLock<Arc<Map>>,
}

struct Entry {
    tensor: Tensor,
    /// The row of the file for each row that Hugging Face has, where these differ.
    order: Option<Arc<[u32]>>,
}

impl Named {
    /// Errors as [`crate::weights::Checkpoint::of_gguf`].
    pub(in crate::weights) fn new(file: Arc<Gguf>, mapped: bool) -> Result<Named> {
        let architecture = Architecture::of(&file)?;
        let metadata = file.metadata();
        let key = |name: &str| format!("{}.attention.{name}", architecture.name);
        let query = metadata.of_all_layers(&key("head_count"))?.ok_or_else(|| metadata.missing(&key("head_count")))?;
        let kv = metadata.of_all_layers(&key("head_count_kv"))?.unwrap_or(query);
        let mut orders = HashMap::new();
        let mut tensors = HashMap::new();
        for (name, tensor) in file.tensors() {
            let Some((theirs, turned)) = architecture.hugging_face(name) else {
                let reason = format!(
                    "{} has the tensor `{name}`, which a model of the architecture `{}` does not have as far as this reader knows: without \
                     it the model would not be the one that was trained",
                    file.path().display(),
                    architecture.name
                );
                return Err(Error::UnsupportedModel { reason, known: vec![] });
            };
            let order = match turned {
                Turned::No => None,
                Turned::Queries => Some(order(&mut orders, &file, name, tensor.shape[0], query)?),
                Turned::Keys => Some(order(&mut orders, &file, name, tensor.shape[0], kv)?),
            };
            tensors.insert(theirs, Entry { tensor: tensor.clone(), order });
        }
        Ok(Named { file, tensors, mapped, map: OnceLock::new() })
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| self.missing(&format!("`{name}`")))
    }

    /// The numbers of a tensor of plain type, its rows in order.
    fn plain<T: Element>(&self, name: &str, entry: &Entry, of: fn(Vec<T>) -> Numbers) -> Result<(Numbers, f32)> {
        let bytes = self.file.read(&entry.tensor)?;
        // Files are little-endian, and so is every machine that this runs on.
        let mut numbers: Vec<T> = bytemuck::pod_collect_to_vec(&bytes);
        if let Some(order) = &entry.order {
            numbers = in_order(&numbers, order);
        }
        let most = T::most(&numbers);
        require_finite(self.file.path(), name, &entry.tensor.shape, (numbers, most), of)
    }
}

impl Named {
    /// The bytes of a tensor, and where it begins in them.
    fn bytes_of(&self, tensor: &Tensor) -> Result<(Bytes, usize)> {
        if !self.mapped {
            return Ok((Arc::new(self.file.read(tensor)?), 0));
        }
        let map = match self.map.get() {
            Some(map) => map.clone(),
            None => {
                let map = Arc::new(self.file.map()?);
                self.map.get_or_init(|| map).clone()
            }
        };
        Ok((map, tensor.start as usize))
    }

    /// The numbers of a tensor in blocks, its rows in order.
    fn dequantised(&self, name: &str, entry: &Entry, kind: BlockType) -> Result<(Numbers, f32)> {
        let Entry { tensor, order } = entry;
        let bytes = self.file.read(tensor)?;
        require_scales(&self.file, name, tensor, &bytes)?;
        let width = tensor.shape[tensor.shape.len() - 1];
        let row_bytes = width / kind.weights() * kind.bytes();
        let mut numbers = vec![0.0; tensor.elements()];
        numbers.par_chunks_exact_mut(width).enumerate().for_each(|(row, to)| {
            let row = order.as_ref().map_or(row, |order| order[row] as usize);
            kind.dequantise(&bytes[row * row_bytes..][..row_bytes], to);
        });
        let most = f32::most(&numbers);
        require_finite(self.file.path(), name, &tensor.shape, (numbers, most), Numbers::F32)
    }
}

/// Errors when a scale of `bytes`, the blocks of a tensor, is NaN or infinite: then so are all numbers of its block.
fn require_scales(file: &Gguf, name: &str, tensor: &Tensor, bytes: &[u8]) -> Result<()> {
    /// Blocks that are looked at together.
    const TOGETHER: usize = 4096;
    let Kind { weights, bytes: size, scales, .. } = tensor.kind;
    let is_bad = |block: &[u8]| scales.iter().any(|at| !f16::from_le_bytes([block[*at], block[at + 1]]).is_finite());
    let chunks = bytes.par_chunks(TOGETHER * size).enumerate();
    let found = chunks.find_map_first(|(index, chunk)| {
        chunk.chunks_exact(size).position(is_bad).map(|block| index * TOGETHER + block)
    });
    let Some(block) = found else { return Ok(()) };
    let width = tensor.shape[tensor.shape.len() - 1];
    let (row, column) = (block * weights / width, block * weights % width);
    let reason = format!(
        "tensor `{name}` has a scale that is NaN or infinite, of the block at [{row}, {column}] of the file: the file is damaged or its \
         conversion failed; download it again, or take another one"
    );
    Err(unusable(file.path(), reason))
}

/// The rows of a tensor in another order.
fn in_order<T: Copy>(numbers: &[T], order: &[u32]) -> Vec<T> {
    let width = numbers.len() / order.len();
    order.iter().flat_map(|row| &numbers[*row as usize * width..][..width]).copied().collect()
}

/// For each of `rows` rows of heads as Hugging Face has them, the row of the file.
fn order(
    known: &mut HashMap<(usize, usize), Arc<[u32]>>,
    file: &Gguf,
    name: &str,
    rows: usize,
    heads: usize,
) -> Result<Arc<[u32]>> {
    let width = rows.checked_div(heads).unwrap_or(0);
    if width == 0 || !rows.is_multiple_of(heads) || !width.is_multiple_of(2) || u32::try_from(rows).is_err() {
        return Err(unusable(
            file.path(),
            format!("tensor `{name}` has {rows} rows, which make no {heads} heads of even width"),
        ));
    }
    let row = |row: usize| {
        let (head, channel) = (row / width, row % width);
        (head * width + 2 * (channel % (width / 2)) + channel / (width / 2)) as u32
    };
    Ok(known.entry((rows, heads)).or_insert_with(|| (0..rows).map(row).collect()).clone())
}

impl Source for Named {
    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn tensors(&self) -> Vec<(&str, &[usize])> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), &entry.tensor.shape[..])).collect()
    }

    fn bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.tensor.bytes as u64).sum()
    }

    fn path(&self, _: &str) -> &Path {
        self.file.path()
    }

    fn numbers(&self, name: &str, shape: &[usize]) -> Result<(Numbers, f32)> {
        let entry = self.entry(name)?;
        require_shape(self.file.path(), name, &entry.tensor.shape, shape, "its metadata")?;
        match entry.tensor.kind.name {
            "F32" => self.plain::<f32>(name, entry, Numbers::F32),
            "F16" => self.plain::<f16>(name, entry, Numbers::F16),
            "BF16" => self.plain::<bf16>(name, entry, Numbers::Bf16),
            _ => match BlockType::from_ggml(entry.tensor.kind.id) {
                Some(kind) => self.dequantised(name, entry, kind),
                None => Err(unread(&self.file, name, entry.tensor.kind)),
            },
        }
    }

    fn stored(&self, name: &str, shape: &[usize]) -> Result<Option<Stored>> {
        let Entry { tensor, order } = self.entry(name)?;
        let (Some(kind), &[rows, columns]) = (BlockType::from_ggml(tensor.kind.id), shape) else { return Ok(None) };
        require_shape(self.file.path(), name, &tensor.shape, shape, "its metadata")?;
        let (bytes, start) = self.bytes_of(tensor)?;
        require_scales(&self.file, name, tensor, &(*bytes).as_ref()[start..start + tensor.bytes])?;
        Stored::new(kind, rows, columns, bytes, start, order.clone())
            .map(Some)
            .map_err(|reason| unusable(self.file.path(), format!("tensor `{name}`: {reason}")))
    }

    fn format(&self, name: &str) -> String {
        self.tensors.get(name).map_or_else(String::new, |entry| entry.tensor.kind.name.to_owned())
    }

    fn sample(&self, name: &str, count: usize) -> Result<Vec<u8>> {
        let tensor = &self.entry(name)?.tensor;
        let mut bytes = Vec::with_capacity(2 * count);
        for start in [0, tensor.bytes / 2] {
            bytes.extend(self.file.sample(tensor, start, count.min(tensor.bytes - start))?);
        }
        Ok(bytes)
    }

    fn require_unchanged(&self) -> Result<()> {
        self.file.require_unchanged()
    }

    fn missing(&self, what: &str) -> Error {
        let held = self.tensors.len();
        unusable(
            self.file.path(),
            format!("has no tensor {what} under llama.cpp's name of it; it holds {held} tensors"),
        )
    }
}

fn unread(file: &Gguf, name: &str, kind: Kind) -> Error {
    Error::UnsupportedModel {
        reason: format!("tensor `{name}` of {} is {}, which is not read", file.path().display(), kind.name),
        known: vec![],
    }
}
