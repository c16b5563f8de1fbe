//! The formats in which weights are held in memory.

use serde::{Deserialize, Serialize};

use crate::cache::Format;

/// How the weights of linear layers are held in memory, whatever the file holds. Activations are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// 4 bytes a weight.
    #[default]
    F32,
    /// 2 bytes a weight; products are computed in f32.
    F16,
    /// 8-bit blocks of 32 with one scale: 8.5 bits a weight.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// 4-bit super-blocks of 256: 4.5 bits a weight. Rows that are no multiple of 256 long are held as q8_0.
    #[serde(rename = "q4_k")]
    Q4K,
    /// Whatever a GGUF file has, tensor by tensor. Nobody asks for it by name: it is what a load without `weights` gets.
    #[serde(skip)]
    Stored,
}

impl WeightFormat {
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
            WeightFormat::Q8_0 => "q8_0",
            WeightFormat::Q4K => "q4_k",
            WeightFormat::Stored => "stored",
        }
    }

    /// The format of cache entries beside such weights: f32 for f32, else f16.
    pub fn cache_format(self) -> Format {
        match self {
            WeightFormat::F32 => Format::F32,
            _ => Format::F16,
        }
    }

    /// Bytes that `elements` weights take; of those that are held as a file has them, the most.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            WeightFormat::F32 | WeightFormat::Stored => elements * 4,
            WeightFormat::F16 => elements * 2,
            WeightFormat::Q8_0 => elements / 32 * 34,
            WeightFormat::Q4K => elements / 256 * 144,
        }
    }

    /// Whether weights are in blocks with scales of their own, so that products round the activations too.
    pub fn in_blocks(self) -> bool {
        matches!(self, WeightFormat::Q8_0 | WeightFormat::Q4K | WeightFormat::Stored)
    }

    /// The format that rows of `columns` weights can be held in: blocks must fill a row.
    pub(crate) fn fitting(self, columns: usize) -> WeightFormat {
        match self {
            WeightFormat::Q4K if !columns.is_multiple_of(256) => WeightFormat::Q8_0.fitting(columns),
            WeightFormat::Q8_0 if !columns.is_multiple_of(32) => WeightFormat::F16,
            other => other,
        }
    }
}
