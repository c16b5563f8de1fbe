//! Sizes of a cache, and what its positions hold.

use serde::Serialize;

use super::pool::Format;

/// The dimensions of a model's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub format: Format,
}

impl Shape {
    /// Bytes of the keys and values of one position over all layers.
    pub fn bytes_per_position(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * self.format.bytes()
    }
}

/// What a position holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Modality {
    Text,
    /// A patch of the request's image number `index`.
    Image {
        index: usize,
    },
    Generated,
}

/// A run of positions of one modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    pub modality: Modality,
    pub start: usize,
    pub len: usize,
}

/// The entries of a range of KV heads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// First KV head and the one behind the last.
    pub heads: [usize; 2],
    /// Ascending.
    pub positions: Vec<u32>,
}
