//! The tensors of a GGUF file by Hugging Face's names.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use half::{bf16, f16};
use prefixkv_kernels::os::map::Map;
use prefixkv_kernels::quant::stored::{BlockType, Bytes, Stored};
use rayon::prelude::*;

use super::names::Turned;
use super::{Architecture, Gguf, Join, Kind, Made, Tensor};
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
    /// The files in memory, once somebody asked for that.
    maps: Vec<OnceLock<Arc<Map>>>,
}

struct Entry {
    /// Those of the file, at least one.
    parts: Vec<Tensor>,
    /// The shape that Hugging Face has.
    shape: Vec<usize>,
    join: Join,
    /// The row of the file for each row that Hugging Face has, where these differ; only of one part.
    order: Option<Arc<[u32]>>,
}

impl Entry {
    fn one(tensor: Tensor, order: Option<Arc<[u32]>>) -> Entry {
        Entry { shape: tensor.shape.clone(), parts: vec![tensor], join: Join::Rows, order }
    }

    /// The tensor of the file, where it is one and has the same shape.
    fn alone(&self) -> Option<&Tensor> {
        match &self.parts[..] {
            [tensor] if tensor.shape == self.shape => Some(tensor),
            _ => None,
        }
    }

    /// Numbers of a part that lie together.
    fn together(&self) -> usize {
        match self.join {
            Join::Rows => usize::MAX,
            Join::Frames => self.shape[self.shape.len() - 2..].iter().product(),
        }
    }
}

impl Named {
    /// The tensors of a language model, which Hugging Face has under `prefix`. Errors as [`crate::weights::Checkpoint::of_gguf`].
    pub(in crate::weights) fn text(file: Arc<Gguf>, prefix: &str, mapped: bool) -> Result<Named> {
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
            let theirs = match theirs.strip_prefix("model.") {
                Some(rest) => format!("{prefix}{rest}"),
                None => theirs,
            };
            tensors.insert(theirs, Entry::one(tensor.clone(), order));
        }
        Ok(Named::of(file, tensors, mapped))
    }

    /// The tensors that are `made` of those of a vision tower.
    pub(in crate::weights) fn tower(file: Arc<Gguf>, made: &[Made], mapped: bool) -> Result<Named> {
        let mut tensors = HashMap::new();
        for Made { name, parts, join } in made {
            let found: Vec<Tensor> = parts.iter().filter_map(|part| file.tensor(part)).cloned().collect();
            let shape = joined_shape(&found, *join).filter(|_| found.len() == parts.len());
            let Some(shape) = shape else {
                let shapes: Vec<_> = found.iter().map(|part| &part.shape).collect();
                let reason =
                    format!("the tensors `{}` have shapes {shapes:?}, which do not go together", parts.join("`, `"));
                return Err(unusable(file.path(), reason));
            };
            tensors.insert(name.clone(), Entry { parts: found, shape, join: *join, order: None });
        }
        Ok(Named::of(file, tensors, mapped))
    }

    fn of(file: Arc<Gguf>, tensors: HashMap<String, Entry>, mapped: bool) -> Named {
        let maps = file.origins().iter().map(|_| OnceLock::new()).collect();
        Named { file, tensors, mapped, maps }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| self.missing(&format!("`{name}`")))
    }

    /// The numbers of a tensor of plain type, its rows in order.
    fn plain<T: Element>(&self, name: &str, entry: &Entry, of: fn(Vec<T>) -> Numbers) -> Result<(Numbers, f32)> {
        let mut parts = Vec::with_capacity(entry.parts.len());
        for part in &entry.parts {
            // Files are little-endian, and so is every machine that this runs on.
            parts.push(bytemuck::pod_collect_to_vec(&self.file.read(part)?));
        }
        let mut numbers: Vec<T> = woven(parts, entry.together());
        if let Some(order) = &entry.order {
            numbers = in_order(&numbers, order);
        }
        let most = T::most(&numbers);
        require_finite(self.path(name), name, &entry.shape, (numbers, most), of)
    }
}

impl Named {
    /// The bytes of a tensor, and where it begins in them.
    fn bytes_of(&self, tensor: &Tensor) -> Result<(Bytes, usize)> {
        if !self.mapped {
            return Ok((Arc::new(self.file.read(tensor)?), 0));
        }
        let known = &self.maps[tensor.part];
        let map = match known.get() {
            Some(map) => map.clone(),
            None => {
                let map = Arc::new(self.file.map(tensor.part)?);
                known.get_or_init(|| map).clone()
            }
        };
        Ok((map, tensor.start as usize))
    }

    /// The numbers of a tensor in f32, its rows in order, whatever types its parts have.
    fn widened(&self, name: &str, entry: &Entry) -> Result<(Numbers, f32)> {
        let parts = entry.parts.iter().map(|part| self.part(name, part, entry.order.as_deref()));
        let numbers = woven(parts.collect::<Result<_>>()?, entry.together());
        let most = f32::most(&numbers);
        require_finite(self.path(name), name, &entry.shape, (numbers, most), Numbers::F32)
    }

    /// The numbers of a tensor of the file in f32; those of blocks have their rows in order.
    fn part(&self, name: &str, tensor: &Tensor, order: Option<&[u32]>) -> Result<Vec<f32>> {
        let bytes = self.file.read(tensor)?;
        match tensor.kind.name {
            "F32" => return Ok(bytemuck::pod_collect_to_vec(&bytes)),
            "F16" => return Ok(bytemuck::pod_collect_to_vec::<_, f16>(&bytes).into_iter().map(f16::to_f32).collect()),
            "BF16" => {
                return Ok(bytemuck::pod_collect_to_vec::<_, bf16>(&bytes).into_iter().map(bf16::to_f32).collect());
            }
            _ => {}
        }
        let Some(kind) = BlockType::from_ggml(tensor.kind.id) else {
            return Err(unread(&self.file, name, tensor.kind));
        };
        require_scales(&self.file, name, tensor, &bytes)?;
        let width = tensor.shape[tensor.shape.len() - 1];
        let row_bytes = width / kind.weights() * kind.bytes();
        let mut numbers = vec![0.0; tensor.elements()];
        numbers.par_chunks_exact_mut(width).enumerate().for_each(|(row, to)| {
            let row = order.map_or(row, |order| order[row] as usize);
            kind.dequantise(&bytes[row * row_bytes..][..row_bytes], to);
        });
        Ok(numbers)
    }
}

/// The shape of parts one below the other, or of the frames of a kernel; None where they do not go together.
fn joined_shape(parts: &[Tensor], join: Join) -> Option<Vec<usize>> {
    let first = parts.first()?;
    let mut shape = first.shape.clone();
    match join {
        Join::Rows => {
            shape[0] = parts.iter().map(|part| part.shape[0]).sum();
            parts.iter().all(|part| part.shape[1..] == first.shape[1..]).then_some(shape)
        }
        Join::Frames => {
            let alike = shape.len() == 4 && parts.iter().all(|part| part.shape == first.shape);
            shape.insert(shape.len().min(2), parts.len());
            alike.then_some(shape)
        }
    }
}

/// The numbers of several tensors in turn, so many of each.
fn woven<T: Copy>(mut parts: Vec<Vec<T>>, together: usize) -> Vec<T> {
    match parts.len() {
        1 => parts.remove(0),
        _ if together == usize::MAX => parts.concat(),
        _ => {
            let count = parts[0].len() / together;
            (0..count)
                .flat_map(|at| parts.iter().flat_map(move |part| &part[at * together..][..together]))
                .copied()
                .collect()
        }
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
    Err(unusable(file.path_of(tensor), reason))
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
        self.tensors.iter().map(|(name, entry)| (name.as_str(), &entry.shape[..])).collect()
    }

    fn bytes(&self) -> u64 {
        self.tensors.values().flat_map(|entry| &entry.parts).map(|part| part.bytes as u64).sum()
    }

    fn path(&self, name: &str) -> &Path {
        let part = self.tensors.get(name).map_or(0, |entry| entry.parts[0].part);
        &self.file.origins()[part].path
    }

    fn numbers(&self, name: &str, shape: &[usize]) -> Result<(Numbers, f32)> {
        let entry = self.entry(name)?;
        require_shape(self.path(name), name, &entry.shape, shape, "its metadata")?;
        let kind = entry.parts[0].kind;
        match kind.name {
            _ if entry.parts.iter().any(|part| part.kind != kind) => self.widened(name, entry),
            "F32" => self.plain::<f32>(name, entry, Numbers::F32),
            "F16" => self.plain::<f16>(name, entry, Numbers::F16),
            "BF16" => self.plain::<bf16>(name, entry, Numbers::Bf16),
            _ => self.widened(name, entry),
        }
    }

    fn stored(&self, name: &str, shape: &[usize]) -> Result<Option<Stored>> {
        let entry = self.entry(name)?;
        let kind = entry.parts[0].kind;
        let (Some(block), &[rows, columns]) = (BlockType::from_ggml(kind.id), shape) else { return Ok(None) };
        require_shape(self.path(name), name, &entry.shape, shape, "its metadata")?;
        if entry.parts.iter().any(|part| part.kind != kind) {
            return Ok(None);
        }
        let (bytes, start) = match entry.alone() {
            Some(tensor) => {
                let (bytes, start) = self.bytes_of(tensor)?;
                require_scales(&self.file, name, tensor, &(*bytes).as_ref()[start..start + tensor.bytes])?;
                (bytes, start)
            }
            // Parts that lie apart in the file are brought together in memory.
            None => {
                let mut together = Vec::with_capacity(entry.parts.iter().map(|part| part.bytes).sum());
                for part in &entry.parts {
                    let bytes = self.file.read(part)?;
                    require_scales(&self.file, name, part, &bytes)?;
                    together.extend(bytes);
                }
                (Arc::new(together) as Bytes, 0)
            }
        };
        Stored::new(block, rows, columns, bytes, start, entry.order.clone())
            .map(Some)
            .map_err(|reason| unusable(self.path(name), format!("tensor `{name}`: {reason}")))
    }

    fn format(&self, name: &str) -> String {
        let kinds = self.tensors.get(name).into_iter().flat_map(|entry| &entry.parts).map(|part| part.kind.name);
        let mut kinds: Vec<&str> = kinds.collect();
        kinds.dedup();
        kinds.join("+")
    }

    fn sample(&self, name: &str, count: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for tensor in &self.entry(name)?.parts {
            for start in [0, tensor.bytes / 2] {
                bytes.extend(self.file.sample(tensor, start, count.min(tensor.bytes - start))?);
            }
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
