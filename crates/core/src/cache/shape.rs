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
    /// Text of the prompt.
    Text,
    /// Patches of an image.
    Image {
        /// Which of the prompt's image placeholders they stand for, from 0.
        index: usize,
    },
    /// Generated tokens.
    Generated,
}

/// A run of positions of one modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// What they hold.
    pub modality: Modality,
    /// The first position.
    pub start: usize,
    /// How many positions.
    pub len: usize,
}

/// The positions that a range of heads of one layer keeps.
///
/// ```ts
/// import { type Kept, load, snapkv } from "prefixkv";
///
/// await using model = await load();
/// const prompt = "USER: Which colors are there, and which shapes? ASSISTANT:";
/// const { kept } = await model.score({ prompt, answer: " Red.", cache: snapkv({ keep: 0.5 }), kept: true });
/// const [first]: Kept[] = kept[0] ?? [];
/// console.log(first?.heads, first?.positions);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The first KV head and the one behind the last.
    pub heads: [usize; 2],
    /// Positions in the sequence, rising.
    pub positions: Vec<u32>,
}
