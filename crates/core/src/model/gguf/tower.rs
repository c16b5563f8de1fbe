//! A vision tower in a GGUF file: what its metadata and the shapes of its tensors say.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::folder::unusable;
use crate::weights::gguf::{Gguf, Join, Made, Tensor};

/// Where a tensor of a tower belongs in Hugging Face's layout.
pub(super) enum Place {
    /// It is that tensor.
    Whole(String),
    /// Some rows of that tensor: which of its parts.
    Rows(String, usize),
    /// A frame of that kernel.
    Frame(String, usize),
    /// Nothing reads it.
    Unused,
}

/// The names of an encoder's layer, between `v.blk.N.` and `.weight` or `.bias`.
pub(super) const ENCODER: &[(&str, &str)] = &[
    ("ln1", "layer_norm1"),
    ("ln2", "layer_norm2"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_out", "self_attn.out_proj"),
    ("ffn_up", "mlp.fc1"),
    ("ffn_down", "mlp.fc2"),
];

/// The file of a tower, and the width of the language model that it is to go with.
pub(super) struct Tower<'a> {
    pub(super) file: &'a Gguf,
    pub(super) text_width: usize,
}

impl Tower<'_> {
    fn key(name: &str) -> String {
        format!("clip.vision.{name}")
    }

    pub(super) fn size(&self, name: &str) -> Result<Option<usize>> {
        self.file.metadata().size(&Self::key(name))
    }

    pub(super) fn need(&self, name: &str) -> Result<usize> {
        self.size(name)?.ok_or_else(|| self.file.metadata().missing(&Self::key(name)))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        self.file.metadata().text(&Self::key(name))
    }

    pub(super) fn integers(&self, name: &str) -> Result<Option<&[i64]>> {
        self.file.metadata().integers(&Self::key(name))
    }

    pub(super) fn flags(&self, name: &str) -> Result<Option<&[bool]>> {
        self.file.metadata().flags(&Self::key(name))
    }

    pub(super) fn epsilon(&self) -> Result<Option<f64>> {
        self.file.metadata().number(&Self::key("attention.layer_norm_epsilon"))
    }

    /// The function between the layers of an MLP, by Hugging Face's name; `gelu` is what the file's `use_gelu` means for this tower.
    pub(super) fn activation(&self, gelu: &'static str) -> Result<&'static str> {
        let said = |name: &str| Ok::<_, Error>(self.file.metadata().flag(&format!("clip.{name}"))?.unwrap_or(false));
        match (said("use_gelu")?, said("use_silu")?) {
            (true, true) => Err(self.bad("its metadata ask for `clip.use_gelu` and for `clip.use_silu`")),
            (true, false) => Ok(gelu),
            (false, true) => Ok("silu"),
            (false, false) => Ok("quick_gelu"),
        }
    }

    /// A tensor that must be there.
    pub(super) fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.file.tensor(name).ok_or_else(|| self.bad(&format!("has no tensor `{name}`")))
    }

    /// `name`'s size along an axis.
    pub(super) fn side(&self, name: &str, axis: usize) -> Result<usize> {
        let shape = &self.tensor(name)?.shape;
        shape.get(axis).copied().ok_or_else(|| self.bad(&format!("tensor `{name}` has the shape {shape:?}")))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    /// Whether the two layers of MLPs have each other's names, as in files of old converters: the tower's width is known, whatever they are
    /// called. Where both are square, new converters are known by the type that they give a file.
    fn is_swapped(&self) -> Result<bool> {
        let (rows, columns) = (self.side("v.blk.0.ffn_down.weight", 0)?, self.side("v.blk.0.ffn_down.weight", 1)?);
        let is_old = self.file.metadata().get("general.type").is_none();
        Ok(columns == self.need("embedding_length")? && (rows != columns || is_old))
    }

    /// The width between the two layers of MLPs, from their shapes: files of Qwen2-VL say another, and some say 0.
    pub(super) fn inner(&self) -> Result<usize> {
        self.side(if self.is_swapped()? { "v.blk.0.ffn_down.weight" } else { "v.blk.0.ffn_up.weight" }, 0)
    }

    /// The layer, the part and the kind of `v.blk.N.PART.KIND`; MLPs have the names that belong to their shapes.
    pub(super) fn layer<'n>(&self, name: &'n str) -> Option<(&'n str, &'n str, &'n str)> {
        let (layer, rest) = name.strip_prefix("v.blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        if !matches!(kind, "weight" | "bias") || layer.parse::<u16>().ok()?.to_string() != layer {
            return None;
        }
        let part = match part {
            "ffn_up" if self.is_swapped().ok()? => "ffn_down",
            "ffn_down" if self.is_swapped().ok()? => "ffn_up",
            other => other,
        };
        Some((layer, part, kind))
    }

    /// The place of a tensor of an encoder's layer, whose layers Hugging Face has under `prefix`.
    pub(super) fn encoder(&self, prefix: &str, name: &str) -> Option<Place> {
        let (layer, part, kind) = self.layer(name)?;
        let (_, theirs) = ENCODER.iter().find(|(ours, _)| *ours == part)?;
        Some(Place::Whole(format!("{prefix}{layer}.{theirs}.{kind}")))
    }

    /// The tensors that Hugging Face has, by where those of the file belong.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for a tensor that belongs nowhere; [`Error::ModelFile`] for two in one place.
    pub(super) fn made(&self, projector: &str, place: impl Fn(&str) -> Option<Place>) -> Result<Vec<Made>> {
        let mut found: BTreeMap<String, Vec<(usize, String, Join)>> = BTreeMap::new();
        let mut names: Vec<&str> = self.file.tensors().map(|(name, _)| name).collect();
        // Of several that belong nowhere it is then always the same one that is named.
        names.sort_unstable();
        for name in names {
            let (theirs, at, join) = match place(name) {
                Some(Place::Whole(theirs)) => (theirs, 0, Join::Rows),
                Some(Place::Rows(theirs, at)) => (theirs, at, Join::Rows),
                Some(Place::Frame(theirs, at)) => (theirs, at, Join::Frames),
                Some(Place::Unused) => continue,
                None => {
                    let reason = format!(
                        "{} has the tensor `{name}`, which a tower with the projector `{projector}` does not have as far as this reader knows: \
                         without it the model would not be the one that was trained",
                        self.file.path().display()
                    );
                    return Err(Error::UnsupportedModel { reason, known: vec![] });
                }
            };
            found.entry(theirs).or_default().push((at, name.to_owned(), join));
        }
        let made = found.into_iter().map(|(name, mut parts)| {
            parts.sort_unstable_by_key(|(at, ..)| *at);
            let join = parts[0].2;
            if parts.iter().enumerate().any(|(index, (at, ..))| index != *at) {
                let names: Vec<&str> = parts.iter().map(|(_, name, _)| name.as_str()).collect();
                return Err(self.bad(&format!("the tensors `{}` do not make up one, `{name}`", names.join("`, `"))));
            }
            Ok(Made { name, parts: parts.into_iter().map(|(_, name, _)| name).collect(), join })
        });
        made.collect()
    }

    /// The mean and the deviation of pictures, where the file says them.
    pub(super) fn normalisation(&self) -> Result<Map<String, Value>> {
        let mut said = Map::new();
        for name in ["image_mean", "image_std"] {
            let numbers = self.file.metadata().numbers(&Self::key(name))?;
            said.extend(numbers.map(|numbers| (name.to_owned(), json!(numbers))));
        }
        Ok(said)
    }

    pub(super) fn bad(&self, reason: &str) -> Error {
        unusable(self.file.path(), reason)
    }
}
