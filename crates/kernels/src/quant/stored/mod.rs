//! Weights in blocks as they lie in a file of ggml: read where they are, row by row, and nothing is repacked.
//!
//! A product unpacks the codes of sixteen rows and up to 512 columns into lines (see [`quant`](super)), in a buffer that fits the
//! first-level cache, and multiplies these with all rows of activations. So one row of activations reads the file's bytes once, many rows
//! share what was unpacked, and the sums have the bits that weights repacked beforehand would give: exact within a part that has a scale
//! (32 columns, or 16), then scaled and added in f32 in the order of the columns.
//!
//! A scale or minimum of a file that is not finite makes products with its block NaN or infinite, and a row of activations that holds
//! such a number becomes NaN. No garbage is finite.

mod kinds;
mod product;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::Level;
pub use super::activations::Activations;
use crate::shared::Disjoint;
use kinds::{Block, Iq4Nl, Iq4Xs, Kind, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

/// A block format of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
}

/// Calls a function that is generic over the format of a type.
macro_rules! typed {
    (@ $format:ident, $kind:ident, $call:expr) => {{
        type $kind = $format;
        $call
    }};
    ($type:expr, $kind:ident => $call:expr) => {
        match $type {
            BlockType::Q4_0 => typed!(@ Q4_0, $kind, $call),
            BlockType::Q4_1 => typed!(@ Q4_1, $kind, $call),
            BlockType::Q5_0 => typed!(@ Q5_0, $kind, $call),
            BlockType::Q5_1 => typed!(@ Q5_1, $kind, $call),
            BlockType::Q8_0 => typed!(@ Q8_0, $kind, $call),
            BlockType::Q2K => typed!(@ Q2K, $kind, $call),
            BlockType::Q3K => typed!(@ Q3K, $kind, $call),
            BlockType::Q4K => typed!(@ Q4K, $kind, $call),
            BlockType::Q5K => typed!(@ Q5K, $kind, $call),
            BlockType::Q6K => typed!(@ Q6K, $kind, $call),
            BlockType::Iq4Nl => typed!(@ Iq4Nl, $kind, $call),
            BlockType::Iq4Xs => typed!(@ Iq4Xs, $kind, $call),
        }
    };
}

impl BlockType {
    pub const ALL: [BlockType; 12] = [
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q8_0,
        BlockType::Q2K,
        BlockType::Q3K,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
        BlockType::Iq4Nl,
        BlockType::Iq4Xs,
    ];

    /// The type with a number in GGUF files, if it is one of these.
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.ggml() == number)
    }

    /// The number of the type in GGUF files.
    pub fn ggml(self) -> u32 {
        match self {
            BlockType::Q4_0 => 2,
            BlockType::Q4_1 => 3,
            BlockType::Q5_0 => 6,
            BlockType::Q5_1 => 7,
            BlockType::Q8_0 => 8,
            BlockType::Q2K => 10,
            BlockType::Q3K => 11,
            BlockType::Q4K => 12,
            BlockType::Q5K => 13,
            BlockType::Q6K => 14,
            BlockType::Iq4Nl => 20,
            BlockType::Iq4Xs => 23,
        }
    }

    /// As ggml calls it, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            BlockType::Q4_0 => "q4_0",
            BlockType::Q4_1 => "q4_1",
            BlockType::Q5_0 => "q5_0",
            BlockType::Q5_1 => "q5_1",
            BlockType::Q8_0 => "q8_0",
            BlockType::Q2K => "q2_k",
            BlockType::Q3K => "q3_k",
            BlockType::Q4K => "q4_k",
            BlockType::Q5K => "q5_k",
            BlockType::Q6K => "q6_k",
            BlockType::Iq4Nl => "iq4_nl",
            BlockType::Iq4Xs => "iq4_xs",
        }
    }

    /// Weights of a block: 32 or 256. Rows are whole blocks.
    pub fn weights(self) -> usize {
        typed!(self, K => K::BLOCKS * super::BLOCK)
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        typed!(self, K => size_of::<<K as Kind>::Block>())
    }

    /// Writes the numbers of some blocks. `out` has [`BlockType::weights`] for every [`BlockType::bytes`] of `blocks`.
    pub fn dequantise(self, blocks: &[u8], out: &mut [f32]) {
        let n = blocks.len() / self.bytes();
        assert_eq!((blocks.len(), out.len()), (n * self.bytes(), n * self.weights()), "{} blocks", self.name());
        typed!(self, K => {
            let out = out.chunks_exact_mut(K::BLOCKS * super::BLOCK);
            for (block, out) in <K as Kind>::Block::all(blocks).iter().zip(out) {
                kinds::dequantise::<K>(block, out);
            }
        });
    }
}

/// Bytes that somebody else owns, such as a mapped file.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// `[rows, columns]` weights as they lie in a file.
#[derive(Clone)]
pub struct Stored {
    kind: BlockType,
    rows: usize,
    columns: usize,
    bytes: Bytes,
    start: usize,
    order: Option<Arc<[u32]>>,
    /// By which rows are multiplied.
    factors: Option<Arc<[f32]>>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{} {} at byte {}", self.rows, self.columns, self.kind.name(), self.start)
    }
}

impl Stored {
    /// Rows of whole blocks, one behind the other from byte `start`. `order` says for each row which row of the file it is.
    ///
    /// # Errors
    /// If rows are no whole blocks, the bytes end before the rows do, or `order` names no `rows` rows of the file.
    pub fn new(
        kind: BlockType,
        rows: usize,
        columns: usize,
        bytes: Bytes,
        start: usize,
        order: Option<Arc<[u32]>>,
    ) -> Result<Stored, String> {
        let (name, weights) = (kind.name(), kind.weights());
        if columns == 0 || !columns.is_multiple_of(weights) {
            return Err(format!("rows of {columns} weights are no whole blocks of {name}, which have {weights}"));
        }
        let end =
            (columns / weights).checked_mul(kind.bytes()).and_then(|row| row.checked_mul(rows)?.checked_add(start));
        let held = bytes.as_ref().as_ref().len();
        if end.is_none_or(|end| end > held) {
            return Err(format!(
                "{rows} rows of {columns} weights in {name} from byte {start} do not fit into {held} bytes"
            ));
        }
        if let Some(order) = &order {
            if order.len() != rows {
                return Err(format!("an order of {} rows for {rows}", order.len()));
            }
            if let Some(row) = order.iter().find(|row| **row as usize >= rows) {
                return Err(format!("an order with row {row} of {rows}"));
            }
        }
        Ok(Stored { kind, rows, columns, bytes, start, order, factors: None })
    }

    /// The same with each row that one of its rows which `order` says.
    ///
    /// # Errors
    /// If `order` names no `rows` rows.
    pub fn in_order(&self, order: &[u32]) -> Result<Stored, String> {
        if let Some(row) = order.iter().find(|row| **row as usize >= self.rows) {
            return Err(format!("an order with row {row} of {}", self.rows));
        }
        let order = order.iter().map(|row| self.place(*row as usize) as u32).collect();
        Stored::new(self.kind, self.rows, self.columns, self.bytes.clone(), self.start, Some(order))
    }

    /// The same with each row multiplied by a number.
    ///
    /// # Errors
    /// If there are not as many numbers as rows.
    pub fn scaled(&self, factors: &[f32]) -> Result<Stored, String> {
        match factors.len() == self.rows {
            true => Ok(Stored { factors: Some(factors.into()), ..self.clone() }),
            false => Err(format!("{} factors for {} rows", factors.len(), self.rows)),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// Bytes of the file that the rows take.
    pub fn bytes(&self) -> u64 {
        self.rows as u64 * self.row_bytes() as u64
    }

    fn row_bytes(&self) -> usize {
        self.columns / self.kind.weights() * self.kind.bytes()
    }

    /// The bytes of all rows, as the file has them.
    fn data(&self) -> &[u8] {
        &self.bytes.as_ref().as_ref()[self.start..][..self.rows * self.row_bytes()]
    }

    /// The row of the file that a row is.
    fn place(&self, row: usize) -> usize {
        self.order.as_ref().map_or(row, |order| order[row] as usize)
    }

    /// Writes the numbers of a row.
    pub fn dequantise(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns, "row {row} of {}, {} numbers", self.rows, out.len());
        self.kind.dequantise(&self.data()[self.place(row) * self.row_bytes()..][..self.row_bytes()], out);
        if let Some(factors) = &self.factors {
            out.iter_mut().for_each(|number| *number *= factors[row]);
        }
    }

    /// `out[i, at + r] = x[i] . weight[r]` for the first `rows` rows, which are all that is read; `out` is `[n, stride]`. The rest of it
    /// stays as it is.
    pub fn product(&self, rows: usize, x: &Activations, out: &mut [f32], stride: usize, at: usize) {
        self.product_at(Level::best(), rows, x, out, stride, at);
    }

    /// As [`Stored::product`], at a level that the machine has. The result is the same.
    pub fn product_at(&self, level: Level, rows: usize, x: &Activations, out: &mut [f32], stride: usize, at: usize) {
        assert!(level.is_available(), "{level:?} on a machine without it");
        assert!(rows <= self.rows, "{rows} of {} rows", self.rows);
        assert_eq!(x.columns(), self.columns, "columns of the activations");
        assert_eq!(out.len(), x.rows() * stride, "{} rows of {stride}", x.rows());
        assert!(at.checked_add(rows).is_some_and(|end| end <= stride), "columns {at} + {rows} of {stride}");
        if x.rows() == 0 || rows == 0 {
            return;
        }
        let all = product::Out { all: Disjoint::new(&mut *out), stride, at };
        typed!(self.kind, K => product::product::<K>(level, self, rows, x, &all));
        if let Some(factors) = &self.factors {
            for row in out.chunks_exact_mut(stride) {
                row[at..at + rows].iter_mut().zip(factors.iter()).for_each(|(sum, factor)| *sum *= factor);
            }
        }
    }
}
