//! Where a model comes from: a folder in Hugging Face's layout, or a GGUF file. Both come to the same parts.

use std::path::Path;
use std::sync::Arc;

use super::config::ConfigFile;
use super::images::Images;
use super::{gguf, placeholder};
use crate::error::Result;
use crate::text::{ChatTemplate, Tokenizer};
use crate::weights::gguf::{self as file, Gguf};
use crate::weights::{Checkpoint, WeightFormat, quantised};

/// A model that was found, with what it says of itself.
pub(super) struct Source {
    pub(super) config: ConfigFile,
    gguf: Option<Arc<Gguf>>,
}

impl Source {
    /// Reads the configuration of a folder, or the header of a GGUF file: `path` itself or the only one of a folder.
    pub(super) fn open(path: &Path) -> Result<Source> {
        match file::in_folder(path)? {
            None => Ok(Source { config: ConfigFile::read(path)?, gguf: None }),
            Some(path) => {
                let gguf = Arc::new(Gguf::open(&path)?);
                Ok(Source { config: gguf::config(&gguf)?, gguf: Some(gguf) })
            }
        }
    }

    /// The format in which the weights are to be held when `asked` is asked for.
    pub(super) fn weights(&self, asked: WeightFormat) -> WeightFormat {
        match asked {
            WeightFormat::Stored if self.gguf.is_none() => WeightFormat::F32,
            other => other,
        }
    }

    /// The GGUF file, where the model is one.
    pub(super) fn gguf(&self) -> Option<&Arc<Gguf>> {
        self.gguf.as_ref()
    }

    /// The weights; `mapped` as in [`Checkpoint::of_gguf`].
    pub(super) fn checkpoint(&self, mapped: bool) -> Result<Checkpoint> {
        match &self.gguf {
            None => Checkpoint::open(self.config.dir()),
            Some(gguf) => Checkpoint::of_gguf(gguf.clone(), mapped),
        }
    }

    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.gguf {
            None => Tokenizer::from_folder(self.config.dir()),
            Some(gguf) => Tokenizer::from_gguf(gguf.metadata()),
        }
    }

    /// The chat template of a model that sees `images`.
    pub(super) fn template(&self, tokenizer: &Tokenizer, images: Option<&dyn Images>) -> Result<ChatTemplate> {
        match &self.gguf {
            None => placeholder::template(&self.config, tokenizer, images),
            Some(gguf) => ChatTemplate::from_gguf(gguf.metadata(), tokenizer),
        }
    }

    /// Refuses a folder whose configuration names weights that are not read: those of a file of another name, and quantised ones. Dense weights under such a configuration are refused too, since
    /// one of the two is wrong; transformers hands them to the quantiser that the configuration names.
    pub(super) fn require_readable(&self) -> Result<()> {
        let config = &self.config;
        if let Some(name) = config.weights_file().filter(|name| *name != "model.safetensors") {
            return Err(config.unsupported(format!(
                "config.json names `{name}` as its weights (`transformers_weights`), and only model.safetensors or its index are read: \
                 rename the file and remove the key"
            )));
        }
        let Some((key, format)) = config.quantisation() else { return Ok(()) };
        let path = config.dir().join("config.json");
        let reason = match Checkpoint::open(config.dir())?.packing() {
            Some(_) => format!(
                "{} says that the weights are quantised ({format}), which are not read: {}",
                path.display(),
                quantised::CURE
            ),
            None => format!(
                "{} has a `{key}` ({format}), but the weights beside it are dense: if they are the whole model, remove `{key}`; else {}",
                path.display(),
                quantised::CURE
            ),
        };
        Err(config.unsupported(reason))
    }
}
