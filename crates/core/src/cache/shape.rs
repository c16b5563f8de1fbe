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

/// How a layer of a model uses the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerCache {
    /// The layer whose keys and values it reads: itself, or one before it.
    pub source: usize,
    /// Positions that a query sees, its own included; None: all.
    pub window: Option<u32>,
    /// Which of the model's rotary embeddings turns its keys.
    pub rope: usize,
}

/// The kind of content at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Modality {
    /// Text of the prompt.
    Text,
    /// Patches of an image.
    Image {
        /// Which of the prompt's image placeholders they stand for, from 0.
        index: usize,
        /// The piece of the image that they show.
        piece: Piece,
    },
    /// Generated tokens.
    Generated,
}

/// A part of an image that was seen by itself, in cells that each take one position, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// Which part.
    pub kind: PieceKind,
    /// Cells from top to bottom.
    pub rows: usize,
    /// Cells from left to right. Positions beyond rows times columns are no cells: a class token before them, or marks of line ends.
    pub columns: usize,
}

impl Piece {
    /// A whole image.
    pub fn base(rows: usize, columns: usize) -> Self {
        Piece { kind: PieceKind::Base, rows, columns }
    }

    /// A position that shows nothing: the image ends with it.
    pub fn end() -> Self {
        Piece { kind: PieceKind::End, rows: 0, columns: 0 }
    }

    /// How many cells it has.
    pub fn cells(&self) -> usize {
        self.rows * self.columns
    }

    /// The place of a cell, counted row by row, among the `len` positions of the piece.
    pub fn place(&self, cell: usize, len: usize) -> usize {
        match self.kind {
            PieceKind::Tiles { .. } => cell + cell / self.columns,
            // Positions beyond the cells come before them.
            _ => len.saturating_sub(self.cells()) + cell,
        }
    }
}

/// Which part of an image a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum PieceKind {
    /// All of the image.
    Base,
    /// A tile of the image in more detail.
    Tile {
        /// From the top, from 0.
        row: usize,
        /// From the left, from 0.
        column: usize,
    },
    /// All tiles of the image laid side by side and cut to its shape. Behind each row of cells stands one position that shows nothing.
    Tiles {
        /// Tiles from top to bottom.
        down: usize,
        /// Tiles from left to right.
        across: usize,
    },
    /// No part: the position behind all others, which shows nothing.
    End,
    /// A moment of a film.
    Frame {
        /// From 0.
        frame: usize,
    },
}

/// A run of positions of one modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Their kind of content.
    pub modality: Modality,
    /// The first position.
    pub start: usize,
    /// How many positions.
    pub len: usize,
}

/// A run of positions of one modality, and how much of it a cache has left.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KeptSpan {
    /// Their kind of content.
    pub modality: Modality,
    /// The first position.
    pub start: usize,
    /// How many positions.
    pub len: usize,
    /// The share of their entries that is left, of the layers that hold any and all their heads.
    pub kept: f64,
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
