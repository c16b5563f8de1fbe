//! Weights in blocks of 8 and 4 bits, and their products with activations in 8 bits.
//!
//! One row of activations reads every weight once, 34 bytes of 32 weights in q8_0 and 144 bytes of 256 in q4_k, so memory bandwidth
//! is the floor of a decode step. Many rows are bound by the integer dot products: a core with 512-bit ones makes 64
//! multiply-adds a cycle, four times as many as in f32.
//!
//! The codes of sixteen rows lie together, four columns of each in turn, so that a vector instruction multiplies the same four
//! activations with sixteen rows and leaves sixteen sums in place. That is all the repacking there is: a block has the bytes and
//! the precision that ggml gives it. Rows are filled up to a multiple of sixteen.
//!
//! A sum is exact within a block of 32 and then scaled and added in f32, block after block, with single operations. So the bits of
//! a result depend neither on the instruction set nor on the number of threads, nor on the rows that are multiplied together.
//!
//! Numbers that are not finite: a block of weights that holds one, or one that the block's scale cannot hold, becomes NaN, and so
//! does every product with it. A row of activations that holds one gives NaN in every place. No garbage is finite.

mod activations;
mod level;
mod product;
mod q4_k;
mod q8_0;
mod scales;
pub mod stored;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use rayon::prelude::*;

pub use activations::Activations;
pub use level::Level;
use level::ROWS;

/// Weights that share a scale in q8_0, and a scale and a minimum in q4_k. Activations are scaled by as many.
pub const BLOCK: usize = 32;

/// Weights that are held together in q4_k.
pub const SUPER: usize = 256;

/// Compiles a loop over f32 for AVX2 too. Only single operations are used, so the results are the same to the bit.
macro_rules! vectorised {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        $visibility fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn fast($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                if crate::simd::has_avx2() {
                    // SAFETY: the required features were just detected.
                    return unsafe { fast($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}
use vectorised;

/// A format of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 8-bit codes with one f16 scale for 32.
    Q8_0,
    /// 4-bit codes with a 6-bit scale and a 6-bit minimum for 32, and an f16 scale of each for 256.
    Q4K,
}

impl Format {
    /// The weights that rows must be a multiple of.
    pub fn granule(self) -> usize {
        match self {
            Format::Q8_0 => BLOCK,
            Format::Q4K => SUPER,
        }
    }
}

/// `[rows, columns]` weights in blocks.
pub struct Weights {
    rows: usize,
    columns: usize,
    blocks: Blocks,
}

enum Blocks {
    Q8_0(q8_0::Blocks),
    Q4K(q4_k::Blocks),
}

impl Weights {
    /// Quantises rows that `read` writes, each `columns` numbers, which must be a multiple of [`Format::granule`]. `read` is called
    /// once a row, on several threads.
    pub fn quantise(format: Format, rows: usize, columns: usize, read: impl Fn(usize, &mut [f32]) + Sync) -> Weights {
        assert!(columns.is_multiple_of(format.granule()), "{columns} columns in {format:?}");
        let tiles = rows.div_ceil(ROWS);
        let read = |tile: usize, numbers: &mut Vec<f32>| -> usize {
            let some = ROWS.min(rows - tile * ROWS);
            numbers.resize(some * columns, 0.0);
            for (row, numbers) in numbers.chunks_exact_mut(columns.max(1)).enumerate() {
                read(tile * ROWS + row, numbers);
            }
            some
        };
        let blocks = match format {
            Format::Q8_0 => Blocks::Q8_0(q8_0::Blocks::quantise(tiles, columns, read)),
            Format::Q4K => Blocks::Q4K(q4_k::Blocks::quantise(tiles, columns, read)),
        };
        Weights { rows, columns, blocks }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn format(&self) -> Format {
        match &self.blocks {
            Blocks::Q8_0(_) => Format::Q8_0,
            Blocks::Q4K(_) => Format::Q4K,
        }
    }

    /// Bytes that the blocks take.
    pub fn bytes(&self) -> u64 {
        match &self.blocks {
            Blocks::Q8_0(blocks) => blocks.bytes(),
            Blocks::Q4K(blocks) => blocks.bytes(),
        }
    }

    /// Writes the numbers of a row that its codes stand for.
    pub fn dequantise(&self, row: usize, to: &mut [f32]) {
        assert!(row < self.rows && to.len() == self.columns, "row {row} of {}, {} numbers", self.rows, to.len());
        match &self.blocks {
            Blocks::Q8_0(blocks) => blocks.dequantise(row, to),
            Blocks::Q4K(blocks) => blocks.dequantise(row, to),
        }
    }

    /// `out[i, r] = x[i] . weight[r]`: rows of as many activations as there are columns; `out` is `[n, rows]`.
    pub fn product(&self, x: &[f32], out: &mut [f32]) {
        self.product_at(Level::best(), x, out);
    }

    /// As [`Weights::product`], at a level that the machine has. The result is the same.
    pub fn product_at(&self, level: Level, x: &[f32], out: &mut [f32]) {
        self.first_product_at(level, self.rows, x, out);
    }

    /// As [`Weights::product`], with the first `rows` rows of the weights alone, which are all that is read; `out` is `[n, rows]`. The
    /// bits are those of the whole product.
    pub fn first_product(&self, rows: usize, x: &[f32], out: &mut [f32]) {
        self.first_product_at(Level::best(), rows, x, out);
    }

    fn first_product_at(&self, level: Level, rows: usize, x: &[f32], out: &mut [f32]) {
        assert!(level.is_available(), "{level:?} on a machine without it");
        assert!(rows <= self.rows, "{rows} of {} rows", self.rows);
        let n = x.len().checked_div(self.columns).unwrap_or(0);
        assert_eq!((x.len(), out.len()), (n * self.columns, n * rows));
        if n == 0 || rows == 0 {
            return;
        }
        let x = Activations::quantise(x, self.columns);
        match &self.blocks {
            Blocks::Q8_0(blocks) => product::product(level, blocks, &x, out, rows),
            Blocks::Q4K(blocks) => product::product(level, blocks, &x, out, rows),
        }
    }
}

/// The largest magnitude in a block; NaN if one is NaN or infinite.
#[inline(always)]
fn largest<const N: usize>(x: &[f32; N]) -> f32 {
    // As integers, magnitudes are ordered like the numbers, and infinity and NaN come last.
    let bits = x.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(bits);
    if largest.is_finite() { largest } else { f32::NAN }
}

/// Rounds to the nearest integer, halves to even, for magnitudes up to 2^21: in this sum the last bit counts ones. Unlike
/// conversions it becomes vector code on any machine.
const ROUND: f32 = 12_582_912.0;

/// Runs `task` for each tile and its part of two lists, with a buffer of its own for each thread.
fn each_tile<A: Send, B: Send>(
    a: &mut [A],
    b: &mut [B],
    tiles: usize,
    task: impl Fn(usize, &mut Vec<f32>, &mut [A], &mut [B]) + Sync,
) {
    if tiles == 0 || a.is_empty() {
        return;
    }
    let (of_a, of_b) = (a.len() / tiles, b.len() / tiles);
    let parts = a.par_chunks_mut(of_a).zip(b.par_chunks_mut(of_b)).enumerate();
    parts.for_each_init(Vec::new, |numbers, (tile, (a, b))| task(tile, numbers, a, b));
}
