//! Where a model comes from: a folder in Hugging Face's layout, or GGUF files. All come to the same parts.

use std::path::Path;
use std::sync::Arc;

use super::config::ConfigFile;
use super::gguf::Pair;
use super::images::Images;
use super::options::Vision;
use super::videos::VideoMark;
use super::{gguf, placeholder};
use crate::error::Result;
use crate::fields::refuse;
use crate::media::SettingsOf;
use crate::text::{ChatTemplate, Tokenizer};
use crate::weights::gguf::{self as file, Gguf};
use crate::weights::{Checkpoint, WeightFormat, quantised};

/// A model that was found, with what it says of itself.
pub(super) struct Source {
    pub(super) config: ConfigFile,
    gguf: Option<Files>,
}

/// The GGUF files of a model.
struct Files {
    text: Arc<Gguf>,
    /// The vision tower, with what the two come to.
    tower: Option<(Arc<Gguf>, Pair)>,
}

impl Source {
    /// Reads the configuration of a folder, or the headers of GGUF files: `path` itself or the only one of a folder, and the vision tower
    /// that `vision` means.
    pub(super) fn open(path: &Path, vision: &Vision) -> Result<Source> {
        let Some(path) = file::in_folder(path)? else {
            if let Vision::File(tower) = vision {
                return Err(refuse(format!(
                    "`vision` is the tower of a language model in a GGUF file, and {} is a folder in Hugging Face's layout, which says itself \
                     how it sees: load it without `vision` (found {})",
                    path.display(),
                    tower.display()
                )));
            }
            return Ok(Source { config: ConfigFile::read(path)?, gguf: None });
        };
        let text = Arc::new(Gguf::open(&path)?);
        let tower = match vision {
            Vision::Beside => file::tower_beside(&path)?,
            Vision::None => None,
            Vision::File(tower) => Some(tower.clone()),
        };
        let Some(tower) = tower else {
            return Ok(Source { config: gguf::config(&text)?, gguf: Some(Files { text, tower: None }) });
        };
        // The error of a tower in place of a model says more than the one of two towers.
        file::Architecture::of(&text)?;
        let tower = Arc::new(Gguf::open(&tower)?);
        let (config, pair) = gguf::pair(&text, &tower)?;
        Ok(Source { config, gguf: Some(Files { text, tower: Some((tower, pair)) }) })
    }

    /// Where the settings of its image processor are.
    pub(super) fn settings(&self) -> SettingsOf {
        match self.pair() {
            Some(pair) => pair.settings.clone(),
            None => SettingsOf::Folder(self.config.dir().to_owned()),
        }
    }

    fn pair(&self) -> Option<&Pair> {
        Some(&self.gguf.as_ref()?.tower.as_ref()?.1)
    }

    /// The format in which the weights are to be held when `asked` is asked for.
    pub(super) fn weights(&self, asked: WeightFormat) -> WeightFormat {
        match asked {
            WeightFormat::Stored if self.gguf.is_none() => WeightFormat::F32,
            other => other,
        }
    }

    /// The GGUF files of the model.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<Gguf>> {
        let files = self.gguf.iter();
        files.flat_map(|files| std::iter::once(&files.text).chain(files.tower.iter().map(|(tower, _)| tower)))
    }

    /// The weights; `mapped` as in [`Checkpoint::of_gguf`].
    pub(super) fn checkpoint(&self, mapped: bool) -> Result<Checkpoint> {
        match &self.gguf {
            None => Checkpoint::open(self.config.dir()),
            Some(Files { text, tower: None }) => Checkpoint::of_gguf(text.clone(), mapped),
            Some(Files { text, tower: Some((tower, Pair { prefix, made, .. })) }) => {
                Checkpoint::of_pair(text.clone(), prefix, tower.clone(), made, mapped)
            }
        }
    }

    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.gguf {
            None => Tokenizer::from_folder(self.config.dir()),
            Some(files) => Tokenizer::from_gguf(files.text.metadata(), self.pair().map(|pair| pair.image)),
        }
    }

    /// The chat template of a model that sees `images`.
    pub(super) fn template(&self, tokenizer: &Tokenizer, images: Option<&dyn Images>) -> Result<ChatTemplate> {
        let read = |placeholder: Option<&str>| match &self.gguf {
            None => ChatTemplate::from_folder(self.config.dir(), tokenizer, placeholder),
            Some(files) => ChatTemplate::from_gguf(files.text.metadata(), tokenizer, placeholder),
        };
        let template = placeholder::template(&self.config, tokenizer, images, read)?;
        match images.and_then(Images::video_mark) {
            None => Ok(template),
            Some(VideoMark::Text { word, template: source }) => template.with_videos(word.to_owned(), Some(source)),
            // A tokenizer without the token is one of a model that takes no videos.
            Some(VideoMark::Token(id)) => match tokenizer.token(id) {
                Some(word) => template.with_videos(word, None),
                None => Ok(template),
            },
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
        if config.dir().join("projector/config.json").exists() {
            return Err(config.unsupported(format!(
                "{} holds a LLaVA in the layout of XTuner, with its projector and perhaps its vision tower in folders of their own, which are not \
                 read: load the repository whose name ends in -transformers or -hf, or convert it with XTuner's convert_xtuner_weights_to_hf.py",
                config.dir().display()
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
