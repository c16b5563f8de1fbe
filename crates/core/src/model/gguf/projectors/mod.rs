//! The projectors of mmproj files: one file for each family, and a line here.

mod idefics3;
mod mlp;
mod qwen_vl;

use serde_json::{Map, Value};

use super::tower::{Place, Tower};
use crate::error::Result;

/// A family as llama.cpp writes its tower.
pub(super) struct Projector {
    /// `clip.projector_type`.
    pub(super) name: &'static str,
    /// `architectures[0]` of the model in Hugging Face's configuration.
    pub(super) architecture: &'static str,
    /// The name that people know it by.
    pub(super) family: &'static str,
    /// The architectures of the files of its language models.
    pub(super) texts: &'static [&'static str],
    /// The names of the language model's tensors begin so.
    pub(super) prefix: &'static str,
    /// The token that stands for an image, and whether one is made where the tokenizer has none.
    pub(super) image: (&'static str, bool),
    /// The key of its id.
    pub(super) image_key: &'static str,
    /// The tensor whose rows are as many as the language model is wide.
    pub(super) out: &'static str,
    /// Where a tensor of the file belongs; None for one that such a tower does not have.
    pub(super) place: fn(&Tower<'_>, &str) -> Option<Place>,
    /// The configuration without the language model's.
    pub(super) config: fn(&Tower<'_>) -> Result<Value>,
    /// The settings of the image processor, where no file says them.
    pub(super) settings: fn(&Tower<'_>) -> Result<Map<String, Value>>,
}

/// Every projector that is read.
pub(super) const ALL: [&Projector; 5] =
    [&mlp::MLP, &idefics3::IDEFICS3, &qwen_vl::QWEN2, &qwen_vl::QWEN2_5, &qwen_vl::QWEN3];

/// An object of these values.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
