//! Activations in 8 bits, scaled by blocks of 32.

use rayon::prelude::*;

use super::{BLOCK, ROUND, largest, vectorised};

/// Codes that are multiplied at a time.
const STEP: usize = 4;

/// Below so many numbers one thread is faster.
const TASK: usize = 64 * 1024;

/// Rows of activations.
pub(super) struct Activations {
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
    pub(super) sum: i32,
    /// The sum of the codes in steps.
    pub(super) total: f32,
}

impl Activations {
    /// Of rows of `columns` numbers, a multiple of [`BLOCK`]. A block that holds a number that is not finite becomes NaN.
    pub(super) fn quantise(x: &[f32], columns: usize) -> Activations {
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
        Activations { blocks: columns / BLOCK, codes, scales }
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
        for (four, rounded) in codes.iter_mut().zip(rounded.as_chunks::<STEP>().0) {
            *four = i32::from_ne_bytes(rounded.map(|code| code as u8));
        }
        *scale = Scale { step, sum, total: step * sum as f32 };
    }
}
