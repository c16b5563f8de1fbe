//! Sizes of a cache, and what its positions hold.

use std::ops::Range;

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
    /// A moment of a video: one frame, or those that the vision tower sees as one.
    Frame {
        /// From 0.
        frame: usize,
        /// By how much its phase in time is behind the phase of the first one, where the frames of a video follow each other without text.
        #[serde(skip)]
        phase: u32,
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

/// The block of `position` in a model that has the positions of an image see each other: its image, with those that stand next to it; of
/// anything else that position alone. Images before position `past` were seen before.
pub fn block_at(spans: &[Span], past: usize, position: usize) -> Range<usize> {
    let shows = |span: &&Span| matches!(span.modality, Modality::Image { .. });
    let behind = spans.partition_point(|span| span.start + span.len <= position);
    let first = spans[..behind].iter().rev().take_while(|span| shows(span) && span.start >= past).last();
    let last = spans[behind..].iter().take_while(shows).last();
    match (spans.get(behind), last) {
        (Some(own), Some(last)) if position >= past => first.unwrap_or(own).start..last.start + last.len,
        _ => position..position + 1,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_blocks_and_those_side_by_side_are_one() {
        let image = |index| Modality::Image { index, piece: Piece::base(1, 2) };
        let mut start = 0;
        let spans =
            [(Modality::Text, 2), (image(0), 3), (Modality::Text, 1), (image(1), 2), (image(2), 2), (image(3), 2)].map(
                |(modality, len)| {
                    start += len;
                    Span { modality, start: start - len, len }
                },
            );
        let all = |past| (0..12).map(|at| block_at(&spans, past, at)).collect::<Vec<_>>();
        let together = [0..1, 1..2, 2..5, 2..5, 2..5, 5..6, 6..12, 6..12, 6..12, 6..12, 6..12, 6..12];
        assert_eq!(all(0), together);
        // Images of an earlier prompt are no part of a block.
        let later = all(8);
        assert!(later[..8].iter().enumerate().all(|(at, block)| *block == (at..at + 1)));
        assert_eq!(later[8..], [8..12, 8..12, 8..12, 8..12]);
        assert_eq!((block_at(&spans, 0, 12), block_at(&[], 0, 3)), (12..13, 3..4));
    }
}
