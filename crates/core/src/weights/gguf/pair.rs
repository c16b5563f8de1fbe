//! The tensors of two GGUF files, a language model's and a vision tower's, as those of one model.

use std::path::Path;

use prefixkv_kernels::quant::stored::Stored;

use super::Named;
use crate::error::{Error, Result};
use crate::folder::unusable;
use crate::weights::{Numbers, Source};

/// A tensor that Hugging Face has, made of one or more of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// Hugging Face's name.
    pub(crate) name: String,
    /// Those of the file, in order.
    pub(crate) parts: Vec<String>,
    pub(crate) join: Join,
}

/// How tensors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// One below the other.
    Rows,
    /// Kernels `[outputs, channels, height, width]`, one for each frame, as `[outputs, channels, frames, height, width]`.
    Frames,
}

/// A language model and its tower.
pub(in crate::weights) struct Pair {
    pub(in crate::weights) text: Named,
    pub(in crate::weights) tower: Named,
}

impl Pair {
    /// The file that has a tensor; the language model's for one that neither has.
    fn of(&self, name: &str) -> &Named {
        if self.tower.has(name) { &self.tower } else { &self.text }
    }

    fn known(&self, name: &str) -> Result<&Named> {
        if self.has(name) { Ok(self.of(name)) } else { Err(self.missing(&format!("`{name}`"))) }
    }
}

impl Source for Pair {
    fn has(&self, name: &str) -> bool {
        self.text.has(name) || self.tower.has(name)
    }

    fn tensors(&self) -> Vec<(&str, &[usize])> {
        [self.text.tensors(), self.tower.tensors()].concat()
    }

    fn bytes(&self) -> u64 {
        self.text.bytes() + self.tower.bytes()
    }

    fn path(&self, name: &str) -> &Path {
        self.of(name).path(name)
    }

    fn numbers(&self, name: &str, shape: &[usize]) -> Result<(Numbers, f32)> {
        self.known(name)?.numbers(name, shape)
    }

    fn stored(&self, name: &str, shape: &[usize]) -> Result<Option<Stored>> {
        self.known(name)?.stored(name, shape)
    }

    fn format(&self, name: &str) -> String {
        self.of(name).format(name)
    }

    fn sample(&self, name: &str, count: usize) -> Result<Vec<u8>> {
        self.of(name).sample(name, count)
    }

    fn require_unchanged(&self) -> Result<()> {
        self.text.require_unchanged()?;
        self.tower.require_unchanged()
    }

    fn missing(&self, what: &str) -> Error {
        let tower = self.tower.path("").display();
        unusable(self.text.path(""), format!("has no tensor {what} under llama.cpp's name of it, nor has {tower}"))
    }
}
