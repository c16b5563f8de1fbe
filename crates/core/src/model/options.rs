//! The choices of a load, and how far it is.

use std::path::PathBuf;

use crate::weights::WeightFormat;

/// The vision tower of a language model in a GGUF file, which llama.cpp keeps in a file of its own (mmproj).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Vision {
    /// The only one of the language model's folder, where that holds no other language model.
    #[default]
    Beside,
    /// None: the model answers without images.
    None,
    File(PathBuf),
}

/// The model to load, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// A folder in the Hugging Face layout, a GGUF file, or a folder with one.
    pub source: PathBuf,
    /// The vision tower of a GGUF file.
    pub vision: Vision,
    pub weights: WeightFormat,
    /// Folders of LoRA adapters, merged into the weights one after the other.
    pub adapters: Vec<PathBuf>,
    /// Most bytes that the caches of all sequences may take together.
    pub cache_limit: Option<u64>,
    /// Whether the Hadamard transform of values is folded into the weights.
    pub rotate_values: bool,
    /// Whether the blocks of a GGUF file are used where the file has them; else they are read into memory.
    pub map: bool,
}

impl LoadOptions {
    /// Everything by default: in f32, those of a GGUF file as it has them, without a limit.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        LoadOptions {
            source: source.into(),
            vision: Vision::Beside,
            weights: WeightFormat::Stored,
            adapters: Vec::new(),
            cache_limit: None,
            rotate_values: false,
            map: true,
        }
    }
}

/// How far loading is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub stage: &'static str,
    /// Bytes in memory.
    pub done: u64,
    /// Bytes that will be in memory.
    pub total: u64,
}
