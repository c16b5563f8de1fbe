//! Activations in 8 bits, scaled by blocks of 32.

use rayon::prelude::*;

use super::product::Format;
use super::{BLOCK, ROUND, largest, vectorised};

/// Codes that are multiplied at a time.
const STEP: usize = 4;

/// Below so many numbers one thread is faster.
const TASK: usize = 64 * 1024;

/// Rows of activations in 8 bits, for products with weights in blocks.
pub struct Activations {
    rows: usize,
    /// Blocks of a row.
    pub(super) blocks: usize,
    /// Four codes of -127 ..= 127 in each integer, in the order of memory.
    pub(super) codes: Vec<[i32; BLOCK / STEP]>,
    pub(super) scales: Vec<Scale>,
}

/// Numbers of a block that a product needs beside its codes.
#[derive(Clone, Copy, Default)]
pub(super) struct Scale {
    /// The value of one step of the codes.
    pub(super) step: f32,
    /// The sum of the codes.
    sum: i32,
    /// The sum of the first sixteen codes.
    first: i32,
    /// The sum of the codes in steps.
    total: f32,
}

impl Scale {
    /// The sum of the codes of a part.
    #[inline(always)]
    pub(super) fn sum<F: Format>(&self, part: usize) -> i32 {
        match (F::PARTS, part) {
            (1, _) => self.sum,
            (_, 0) => self.first,
            _ => self.sum - self.first,
        }
    }

    /// The sum of the codes of a part in steps.
    #[inline(always)]
    pub(super) fn total<F: Format>(&self, part: usize) -> f32 {
        if F::PARTS == 1 { self.total } else { self.step * self.sum::<F>(part) as f32 }
    }
}

impl Activations {
    /// Of rows of `columns` numbers, a multiple of [`BLOCK`]. A block that holds a number that is not finite becomes NaN.
    pub fn quantise(x: &[f32], columns: usize) -> Activations {
        assert!(columns.is_multiple_of(BLOCK), "{columns} columns in blocks of {BLOCK}");
        let rows = x.len().checked_div(columns).unwrap_or(0);
        assert_eq!(x.len(), rows * columns, "rows of {columns}");
        let blocks = x.as_chunks::<BLOCK>().0;
        let mut codes = vec![[0; BLOCK / STEP]; blocks.len()];
        let mut scales = vec![Scale::default(); blocks.len()];
        if x.len() < 2 * TASK {
            quantise(blocks, &mut codes, &mut scales);
        } else {
            let parts = blocks.par_chunks(TASK / BLOCK).zip(codes.par_chunks_mut(TASK / BLOCK));
            let parts = parts.zip(scales.par_chunks_mut(TASK / BLOCK));
            parts.for_each(|((blocks, codes), scales)| quantise(blocks, codes, scales));
        }
        Activations { rows, blocks: columns / BLOCK, codes, scales }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.blocks * BLOCK
    }
}

vectorised! {
    fn quantise(blocks: &[[f32; BLOCK]], codes: &mut [[i32; BLOCK / STEP]], scales: &mut [Scale]) = body
}

#[inline(always)]
fn body(blocks: &[[f32; BLOCK]], codes: &mut [[i32; BLOCK / STEP]], scales: &mut [Scale]) {
    /// Blocks of less are 0: their codes could not be found in f32.
    const LEAST: f32 = 1e-35;
    for ((x, codes), scale) in blocks.iter().zip(codes).zip(scales) {
        let largest = largest(x);
        let step = largest / 127.0;
        let inverse = if largest > LEAST { 127.0 / largest } else { 0.0 };
        let mut rounded = [0i8; BLOCK];
        let mut sum = 0;
        for (code, x) in rounded.iter_mut().zip(x) {
            let whole = (x * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            *code = whole as i8;
            sum += i32::from(*code);
        }
        let first = rounded[..BLOCK / 2].iter().map(|code| i32::from(*code)).sum();
        for (four, rounded) in codes.iter_mut().zip(rounded.as_chunks::<STEP>().0) {
            *four = i32::from_ne_bytes(rounded.map(|code| code as u8));
        }
        *scale = Scale { step, sum, first, total: step * sum as f32 };
    }
}
