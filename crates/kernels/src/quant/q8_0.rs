//! 8-bit codes with one f16 scale for 32 weights.

use half::f16;

use super::level::{BIAS, Line, Operations, ROWS, STEP};
use super::product::{Format, Steps};
use super::{BLOCK, ROUND, each_tile, largest, vectorised};

/// Lines of a block of sixteen rows.
const LINES: usize = BLOCK / STEP;

/// Tiles of sixteen rows, block after block.
pub(super) struct Blocks {
    /// Blocks of a row.
    blocks: usize,
    lines: Vec<[Line; LINES]>,
    scales: Vec<[f16; ROWS]>,
}

impl Blocks {
    pub(super) fn quantise(
        tiles: usize,
        columns: usize,
        read: impl Fn(usize, &mut Vec<f32>) -> usize + Sync,
    ) -> Blocks {
        let blocks = columns / BLOCK;
        let mut lines = vec![[Line([BIAS as u8; ROWS * STEP]); LINES]; tiles * blocks];
        let mut scales = vec![[f16::ZERO; ROWS]; tiles * blocks];
        each_tile(&mut lines, &mut scales, tiles, |tile, numbers, lines, scales| {
            read(tile, numbers);
            for (row, numbers) in numbers.chunks_exact(columns).enumerate() {
                for (block, numbers) in numbers.as_chunks::<BLOCK>().0.iter().enumerate() {
                    let mut codes = [0; BLOCK];
                    scales[block][row] = quantise(numbers, &mut codes);
                    for (line, codes) in lines[block].iter_mut().zip(codes.as_chunks::<STEP>().0) {
                        line.0[row * STEP..][..STEP].copy_from_slice(codes);
                    }
                }
            }
        });
        Blocks { blocks, lines, scales }
    }

    pub(super) fn bytes(&self) -> u64 {
        (size_of_val(self.lines.as_slice()) + size_of_val(self.scales.as_slice())) as u64
    }

    pub(super) fn dequantise(&self, row: usize, to: &mut [f32]) {
        let (first, row) = (row / ROWS * self.blocks, row % ROWS);
        for (block, to) in to.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let scale = self.scales[first + block][row].to_f32();
            for (line, to) in self.lines[first + block].iter().zip(to.as_chunks_mut::<STEP>().0) {
                for (code, to) in line.0[row * STEP..].iter().zip(to) {
                    *to = (i32::from(*code) - BIAS) as f32 * scale;
                }
            }
        }
    }
}

vectorised! {
    /// The scale of a block, and its codes plus [`BIAS`].
    fn quantise(x: &[f32; BLOCK], codes: &mut [u8; BLOCK]) -> f16 = body
}

#[inline(always)]
fn body(x: &[f32; BLOCK], codes: &mut [u8; BLOCK]) -> f16 {
    let scale = f16::from_f32(largest(x) / 127.0);
    if !scale.is_finite() {
        return f16::NAN;
    }
    // In steps of the scale as it is stored.
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    for (code, x) in codes.iter_mut().zip(x) {
        let rounded = (x * inverse).clamp(-127.0, 127.0) + ROUND;
        *code = (rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32 + BIAS) as u8;
    }
    scale
}

impl Format for Blocks {
    const BLOCKS: usize = 1;
    const PARTS: usize = 1;
    const MINIMA: bool = false;
    type Lines = [Line; LINES];
    type Group<'a, S: Operations> = S::Floats;

    fn groups(&self) -> usize {
        self.blocks
    }
    fn lines(&self) -> &[Self::Lines] {
        &self.lines
    }
    #[inline(always)]
    fn group<S: Operations>(&self, at: usize) -> S::Floats {
        S::from_f16(&self.scales[at])
    }
    #[inline(always)]
    fn scale<S: Operations>(group: &S::Floats, _: usize, _: usize) -> (S::Floats, S::Floats) {
        (*group, *group)
    }
    #[inline(always)]
    fn start<S: Operations>(&self, sum: i32) -> S::Ints {
        S::start_biased(sum)
    }
    #[inline(always)]
    fn steps<S: Operations>(lines: &Self::Lines, index: usize) -> Steps<S> {
        [S::line(&lines[2 * index]), S::line(&lines[2 * index + 1])]
    }
    #[inline(always)]
    fn dot<S: Operations>(sums: S::Ints, codes: S::Codes, x: i32) -> S::Ints {
        S::dot_biased(sums, codes, x)
    }
}
