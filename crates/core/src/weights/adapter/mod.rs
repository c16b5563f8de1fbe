//! LoRA adapters in the format of PEFT, merged into the weights that they were made for while these are read. Hu et al. 2021,
//! arXiv 2106.09685.

mod config;
mod merge;
mod names;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use config::AdapterConfig;
pub use names::Layouts;
use prefixkv_kernels::quant::stored::Stored;

use super::numbers::Element as _;
use super::shards::Folder;
use super::{Numbers, Source, require_finite, tensor};
use crate::error::{Error, Result};
use crate::folder::unusable;

/// Most adapters that a model may have.
pub const MAX_ADAPTERS: usize = 16;
/// Most names that a message lists.
const MAX_LISTED: usize = 3;
const WEIGHTS: &str = "adapter_model.safetensors";
/// The beginning of the names of all tensors.
const OUTER: &str = "base_model.model.";

/// Endings of the tensors of a pair, and whether it changes a table of embeddings.
const PARTS: &[(&str, Part)] = &[
    (".lora_A.weight", Part { second: false, table: false }),
    (".lora_B.weight", Part { second: true, table: false }),
    (".lora_embedding_A", Part { second: false, table: true }),
    (".lora_embedding_B", Part { second: true, table: true }),
];

/// Words in the names of other adapters' tensors.
const FOREIGN: &[(&str, &str)] = &[
    (".lora_magnitude_vector", "DoRA"),
    (".lora_B.bias", "biases of `lora_B`"),
    (".lora_E", "AdaLoRA"),
    (".lokr_", "LoKr"),
    (".hada_", "LoHa"),
    (".oft_", "OFT"),
    (".vera_", "VeRA"),
    (".ia3_", "IA3"),
    (".lora_", "parts that are no pair"),
    ("trainable_tokens_", "single tokens of the embeddings"),
    ("prompt_embeddings", "a trained prompt"),
];

#[derive(Clone, Copy)]
struct Part {
    second: bool,
    table: bool,
}

/// Weights with an adapter in them.
pub(super) struct Merged {
    inner: Box<dyn Source>,
    adapter: Folder,
    /// By the names of the model.
    changes: BTreeMap<String, Change>,
}

/// A tensor that is not as the model's files have it.
struct Change {
    from: Origin,
    shape: Vec<usize>,
    pair: Option<Pair>,
}

/// Where the numbers of a changed tensor come from, before a pair is added.
enum Origin {
    Model(String),
    Adapter(String),
}

/// Names of the two tensors of a pair, and what their product is multiplied by.
struct Pair {
    first: String,
    second: String,
    rank: usize,
    scale: f32,
    /// Whether the product is the transpose of the change.
    table: bool,
}

impl Merged {
    /// `inner` with the adapter of the folder `dir`; `layouts` are those of the model's family.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] for a folder that is no adapter; [`Error::UnsupportedModel`] for one of another kind; [`Error::ModelFile`] for one
    /// whose tensors do not all find theirs in the model.
    pub(super) fn new(inner: Box<dyn Source>, dir: &Path, layouts: &Layouts) -> Result<Merged> {
        let config = AdapterConfig::read(dir)?;
        let adapter = open(dir)?;
        let mut merged = Merged { inner, adapter, changes: BTreeMap::new() };
        merged.plan(config, layouts)?;
        Ok(merged)
    }

    fn plan(&mut self, config: AdapterConfig, layouts: &Layouts) -> Result<()> {
        let mut names: Vec<String> = self.adapter.names().map(str::to_owned).collect();
        names.sort_unstable();
        let mut pairs: BTreeMap<(String, bool), [Option<String>; 2]> = BTreeMap::new();
        let mut whole = Vec::new();
        for name in &names {
            let module = name.strip_prefix(OUTER).unwrap_or(name);
            let part = PARTS.iter().find_map(|(ending, part)| Some((module.strip_suffix(ending)?, part)));
            match part {
                Some((module, part)) => {
                    let pair = pairs.entry((module.to_owned(), part.table)).or_default();
                    pair[usize::from(part.second)] = Some(name.to_owned());
                }
                None => match FOREIGN.iter().find(|(word, _)| module.contains(word)) {
                    Some((_, what)) => return Err(self.foreign(name, what)),
                    None => whole
                        .push((name.to_owned(), module.replace(".base_layer.", ".").replace(".modules_to_save.", "."))),
                },
            }
        }
        if pairs.is_empty() && whole.is_empty() {
            return Err(self.bad("holds no tensor of an adapter"));
        }
        for module in &config.whole {
            if !whole.iter().any(|(_, asked)| is_of(module, asked)) {
                let reason =
                    format!("holds no tensor of `{module}`, which {} names in `modules_to_save`", config::CONFIG);
                return Err(self.bad(reason));
            }
        }
        let embeddings = layouts.embeddings(|name| self.inner.has(name));
        let head = layouts.head(|name| self.inner.has(name));
        let plan = Plan { config, layouts, embeddings, head };
        for (name, asked) in whole {
            self.replace(&name, &asked, &plan)?;
        }
        for ((module, table), [first, second]) in pairs {
            let (Some(first), Some(second)) = (first, second) else {
                return Err(self.bad(format!("holds only one of the two tensors of the pair of `{module}`")));
            };
            self.add_pair(&module, [first, second], table, &plan)?;
        }
        // An output layer that is the embeddings stays what it was when these alone are trained.
        if let (Some(embeddings), None, false) = (&plan.embeddings, &plan.head, plan.config.ties)
            && self.changes.contains_key(embeddings)
            && layouts.head(|name| self.changes.contains_key(name)).is_none()
            && let Some(prefix) = layouts.head.first()
        {
            let Change { from, shape, .. } = &self.changes[embeddings];
            let from = match from {
                // Not a copy to be trained, but the model's own, which is both.
                Origin::Adapter(name) if !plan.config.whole.iter().any(|module| is_of(module, name)) => {
                    Origin::Adapter(name.clone())
                }
                _ => Origin::Model(embeddings.clone()),
            };
            let change = Change { from, shape: shape.clone(), pair: None };
            self.changes.insert(format!("{prefix}.weight"), change);
        }
        Ok(())
    }

    /// The model's name of a tensor, and the tensor whose numbers it has.
    fn target(&self, name: &str, asked: &str, plan: &Plan<'_>) -> Result<(String, String)> {
        if let Some(found) = plan.layouts.find(asked, |name| self.inner.has(name)) {
            return Ok((found.clone(), found));
        }
        match (&plan.embeddings, plan.layouts.head.first()) {
            // Trained apart from the embeddings that it was before.
            (Some(embeddings), Some(prefix)) if plan.head.is_none() && plan.layouts.is_head(asked) => {
                Ok((format!("{prefix}.weight"), embeddings.clone()))
            }
            _ => Err(self.unfound(name, asked, &plan.config)),
        }
    }

    fn replace(&mut self, name: &str, asked: &str, plan: &Plan<'_>) -> Result<()> {
        let (target, of) = self.target(name, asked, plan)?;
        let (shape, found) = (self.shape(&of)?, self.adapter.shape(name).unwrap_or_default().to_vec());
        if shape != found {
            let rows = shape.len() == 2 && found.len() == 2 && shape[1] == found[1];
            let cure = if rows {
                "; a vocabulary that was changed in training is not read: merge the adapter in Python"
            } else {
                ""
            };
            return Err(
                self.bad(format!("tensor `{name}` has shape {found:?}, `{of}` of the model has {shape:?}{cure}"))
            );
        }
        self.changes.insert(target, Change { from: Origin::Adapter(name.to_owned()), shape, pair: None });
        Ok(())
    }

    fn add_pair(&mut self, module: &str, [first, second]: [String; 2], table: bool, plan: &Plan<'_>) -> Result<()> {
        let (target, of) = self.target(&first, &format!("{module}.weight"), plan)?;
        let shape = self.shape(&of)?;
        let shape_of = |name: &str| self.adapter.shape(name).unwrap_or_default();
        let (a, b) = (shape_of(&first), shape_of(&second));
        let rank = a.first().copied().unwrap_or(0);
        let fits = match table {
            true => shape.len() == 2 && *a == [rank, shape[0]] && *b == [shape[1], rank],
            // Of convolutions too, where the second is one of a single pixel.
            false => {
                shape.len() > 1
                    && a.get(1..) == Some(&shape[1..])
                    && b.len() > 1
                    && b[..2] == [shape[0], rank]
                    && b[2..].iter().all(|n| *n == 1)
            }
        };
        if rank == 0 || !fits {
            return Err(self.bad(format!(
                "the pair of `{module}` has the shapes {a:?} and {b:?}, which make no change of `{of}`, {shape:?}: the adapter was made for a \
                 model of other sizes{}",
                made_for(&plan.config)
            )));
        }
        let scale = plan.config.scale(module, rank)?;
        let pair = Pair { first, second, rank, scale, table };
        let change = self.changes.entry(target).or_insert(Change { from: Origin::Model(of), shape, pair: None });
        if change.pair.replace(pair).is_some() {
            return Err(self.bad(format!("holds two pairs of the same tensor, one of them of `{module}`")));
        }
        Ok(())
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let tensors = self.inner.tensors();
        let found = tensors.iter().find(|(held, _)| *held == name).map(|(_, shape)| shape.to_vec());
        found.ok_or_else(|| self.bad(format!("changes `{name}`, which the model holds in a format that is not read")))
    }

    fn bad(&self, reason: impl ToString) -> Error {
        unusable(self.adapter.path(""), reason)
    }

    fn foreign(&self, name: &str, what: &str) -> Error {
        let reason = format!(
            "{} has the tensor `{name}`, of an adapter with {what}, which is not read: merge it in Python (`merge_and_unload`), save the model and \
             load that",
            self.adapter.path("").display()
        );
        Error::UnsupportedModel { reason, known: vec![] }
    }

    /// The error of a tensor that finds none in the model, with names that the model has.
    fn unfound(&self, name: &str, asked: &str, config: &AdapterConfig) -> Error {
        let mut held: Vec<&str> = self.inner.tensors().into_iter().map(|(name, _)| name).collect();
        held.sort_unstable();
        let count = held.len();
        let last = |name: &str| name.rsplit('.').take(2).collect::<Vec<_>>().join(".");
        let (wanted, alike) = (last(asked), |name: &&str| last(name) == last(asked));
        if held.iter().any(alike) {
            held.retain(|name| last(name) == wanted);
        }
        let listed: Vec<String> = held.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
        self.bad(format!(
            "tensor `{name}` is for `{asked}`, which the model does not have; among its {count} tensors are {}{}",
            listed.join(", "),
            made_for(config)
        ))
    }

    fn numbers_of(&self, change: &Change) -> Result<(Numbers, f32)> {
        match &change.from {
            Origin::Model(name) => self.inner.numbers(name, &change.shape),
            Origin::Adapter(name) => self.adapter.numbers(name, &change.shape),
        }
    }

    /// One tensor of a pair in f32, as a matrix of `rows`.
    fn factor(&self, name: &str, rows: usize) -> Result<Tensor> {
        let shape = self.adapter.shape(name).unwrap_or_default().to_vec();
        let columns = shape.iter().product::<usize>() / rows.max(1);
        let numbers = tensor(self.adapter.numbers(name, &shape)?.0, &shape)?;
        Ok(numbers.to_dtype(DType::F32)?.reshape((rows, columns))?)
    }
}

/// All that is known before anything is changed.
struct Plan<'a> {
    config: AdapterConfig,
    layouts: &'a Layouts,
    /// The model's names of its embeddings and of its output layer, which may be the same tensor and then has no name.
    embeddings: Option<String>,
    head: Option<String>,
}

fn open(dir: &Path) -> Result<Folder> {
    let missing = |reason: &str| Error::ModelNotFound { path: dir.to_owned(), reason: reason.into() };
    // As LLaVA's own training saves a projector that it trained beside the adapter.
    if dir.join("non_lora_trainables.bin").exists() {
        let reason = format!(
            "{} holds a part of the adapter in non_lora_trainables.bin, a pickled file, which is not read: merge both in Python (LLaVA's \
             scripts/merge_lora_weights.py), save the model and load that",
            dir.display()
        );
        return Err(Error::UnsupportedModel { reason, known: vec![] });
    }
    match Folder::file(&dir.join(WEIGHTS))? {
        Some(folder) => Ok(folder),
        None if dir.join("adapter_model.bin").exists() => Err(missing(
            "has its weights in adapter_model.bin only, and pickled weights are not read: save the adapter with safetensors \
             (`save_pretrained(..., safe_serialization=True)`)",
        )),
        None => Err(missing("has no adapter_model.safetensors")),
    }
}

/// Whether the path `name` leads through `module`, some names that follow each other.
fn is_of(module: &str, name: &str) -> bool {
    format!(".{name}.").contains(&format!(".{module}."))
}

fn made_for(config: &AdapterConfig) -> String {
    config.base.as_ref().map_or_else(String::new, |base| format!("; the adapter says that it was made for {base:?}"))
}

impl Source for Merged {
    fn has(&self, name: &str) -> bool {
        self.changes.contains_key(name) || self.inner.has(name)
    }

    fn tensors(&self) -> Vec<(&str, &[usize])> {
        let mut tensors = self.inner.tensors();
        let added = self.changes.iter().filter(|(name, _)| !self.inner.has(name));
        tensors.extend(added.map(|(name, change)| (name.as_str(), &change.shape[..])));
        tensors
    }

    fn bytes(&self) -> u64 {
        let added = self.changes.iter().filter(|(name, _)| !self.inner.has(name));
        let elements: usize = added.map(|(_, change)| change.shape.iter().product::<usize>()).sum();
        self.inner.bytes() + (elements * size_of::<f32>()) as u64
    }

    fn path(&self, name: &str) -> &Path {
        match self.changes.get(name).map(|change| &change.from) {
            Some(Origin::Adapter(name)) => self.adapter.path(name),
            Some(Origin::Model(name)) => self.inner.path(name),
            None => self.inner.path(name),
        }
    }

    fn packing(&self) -> Option<&'static str> {
        self.inner.packing()
    }

    fn numbers(&self, name: &str, shape: &[usize]) -> Result<(Numbers, f32)> {
        let Some(change) = self.changes.get(name) else { return self.inner.numbers(name, shape) };
        super::require_shape(self.path(name), name, &change.shape, shape, "the configuration")?;
        let (numbers, most) = self.numbers_of(change)?;
        let Some(pair) = &change.pair else { return Ok((numbers, most)) };
        let mut weights: Vec<f32> = match numbers {
            Numbers::F32(numbers) => numbers,
            other => tensor(other, shape)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
        };
        let first = self.factor(&pair.first, pair.rank)?;
        let rows = if pair.table { shape[1] } else { shape[0] };
        let second = self.factor(&pair.second, rows)?;
        match pair.table {
            true => merge::add(&mut weights, &second.t()?.contiguous()?, &first.t()?.contiguous()?, pair.scale)?,
            false => merge::add(&mut weights, &first, &second, pair.scale)?,
        }
        let most = f32::most(&weights);
        require_finite(self.adapter.path(""), name, shape, (weights, most), Numbers::F32)
    }

    /// Blocks with a pair in them are none any more.
    fn stored(&self, name: &str, shape: &[usize]) -> Result<Option<Stored>> {
        if self.changes.contains_key(name) { Ok(None) } else { self.inner.stored(name, shape) }
    }

    fn format(&self, name: &str) -> String {
        match self.changes.get(name).map(|change| &change.from) {
            Some(Origin::Adapter(name)) => self.adapter.format(name),
            Some(Origin::Model(name)) => self.inner.format(name),
            None => self.inner.format(name),
        }
    }

    fn sample(&self, name: &str, count: usize) -> Result<Vec<u8>> {
        let Some(change) = self.changes.get(name) else { return self.inner.sample(name, count) };
        let mut bytes = match &change.from {
            Origin::Model(name) => self.inner.sample(name, count)?,
            Origin::Adapter(name) => self.adapter.sample(name, count)?,
        };
        if let Some(pair) = &change.pair {
            bytes.extend(pair.scale.to_le_bytes());
            bytes.extend(self.adapter.sample(&pair.first, count)?);
            bytes.extend(self.adapter.sample(&pair.second, count)?);
        }
        Ok(bytes)
    }

    fn require_unchanged(&self) -> Result<()> {
        self.inner.require_unchanged()?;
        self.adapter.require_unchanged()
    }

    fn missing(&self, what: &str) -> Error {
        self.inner.missing(what)
    }
}
