//! 4-bit codes with a 6-bit scale and a 6-bit minimum for 32 weights, and an f16 step of each for 256.

use half::f16;

use super::level::{Line, Operations, ROWS, STEP};
use super::product::{Format, Steps};
use super::scales::{self, Fit};
use super::{BLOCK, SUPER, each_tile, largest};
#[cfg(target_arch = "x86_64")]
use crate::simd::level::Avx2;
use crate::simd::level::{Level, Portable};

/// Lines of a block of sixteen rows: a line has two halves of four columns.
const LINES: usize = BLOCK / STEP / 2;

/// Blocks of a group.
const BLOCKS: usize = SUPER / BLOCK;

/// The largest 6-bit scale or minimum.
const MOST: f32 = 63.0;

/// Tiles of sixteen rows, group after group.
pub(super) struct Blocks {
    /// Groups of a row.
    groups: usize,
    /// Of each group the lines of its blocks.
    lines: Vec<[Line; LINES]>,
    scales: Vec<Scales>,
}

/// The scales and minima of a group of sixteen rows.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    /// Steps of the scales and of the minima.
    scale: [f16; ROWS],
    minimum: [f16; ROWS],
    /// Of each block the scale, and above it the two low bits of the minimum.
    low: [[u8; ROWS]; BLOCKS],
    /// Of two blocks each the four high bits of the minima.
    high: [[u8; ROWS]; BLOCKS / 2],
}

impl Scales {
    const NONE: Scales = Scales {
        scale: [f16::ZERO; ROWS],
        minimum: [f16::ZERO; ROWS],
        low: [[0; ROWS]; BLOCKS],
        high: [[0; ROWS]; BLOCKS / 2],
    };

    fn set(&mut self, row: usize, group: &Group) {
        self.scale[row] = group.scale;
        self.minimum[row] = group.minimum;
        for (block, (scale, minimum)) in group.small.iter().enumerate() {
            self.low[block][row] = scale | minimum << 6;
            self.high[block / 2][row] |= minimum >> 2 << (4 * (block % 2));
        }
    }

    /// The 6-bit scales and minima of a block.
    #[inline(always)]
    fn small(&self, block: usize) -> ([u8; ROWS], [u8; ROWS]) {
        let (low, high) = (&self.low[block], &self.high[block / 2]);
        let mut minima = [0; ROWS];
        for row in 0..ROWS {
            minima[row] = low[row] >> 6 | (high[row] >> (4 * (block % 2)) & 15) << 2;
        }
        (low.map(|low| low & 63), minima)
    }
}

/// 256 weights of one row.
struct Group {
    scale: f16,
    minimum: f16,
    /// The 6-bit scale and minimum of each block.
    small: [(u8, u8); BLOCKS],
    codes: [[u8; BLOCK]; BLOCKS],
}

impl Blocks {
    pub(super) fn quantise(
        tiles: usize,
        columns: usize,
        read: impl Fn(usize, &mut Vec<f32>) -> usize + Sync,
    ) -> Blocks {
        let groups = columns / SUPER;
        let mut lines = vec![[Line([0; ROWS * STEP]); LINES]; tiles * groups * BLOCKS];
        let mut scales = vec![Scales::NONE; tiles * groups];
        each_tile(&mut lines, &mut scales, tiles, |tile, numbers, lines, scales| {
            read(tile, numbers);
            for (row, numbers) in numbers.chunks_exact(columns).enumerate() {
                for (at, numbers) in numbers.as_chunks::<SUPER>().0.iter().enumerate() {
                    let group = quantise(numbers);
                    scales[at].set(row, &group);
                    for (lines, codes) in lines[at * BLOCKS..][..BLOCKS].iter_mut().zip(&group.codes) {
                        for (line, codes) in lines.iter_mut().zip(codes.as_chunks::<{ 2 * STEP }>().0) {
                            for column in 0..STEP {
                                line.0[row * STEP + column] = codes[column] | codes[STEP + column] << 4;
                            }
                        }
                    }
                }
            }
        });
        Blocks { groups, lines, scales }
    }

    pub(super) fn bytes(&self) -> u64 {
        (size_of_val(self.lines.as_slice()) + size_of_val(self.scales.as_slice())) as u64
    }

    pub(super) fn dequantise(&self, row: usize, to: &mut [f32]) {
        let (first, row) = (row / ROWS * self.groups, row % ROWS);
        for (block, to) in to.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let scales = &self.scales[first + block / BLOCKS];
            let (small_scales, minima) = scales.small(block % BLOCKS);
            let scale = scales.scale[row].to_f32() * f32::from(small_scales[row]);
            let minimum = scales.minimum[row].to_f32() * f32::from(minima[row]);
            let lines = &self.lines[first * BLOCKS + block];
            for (line, to) in lines.iter().zip(to.as_chunks_mut::<{ 2 * STEP }>().0) {
                for (column, to) in to.iter_mut().enumerate() {
                    let both = line.0[row * STEP + column % STEP];
                    *to = scale * f32::from(both >> (column / STEP * 4) & 15) - minimum;
                }
            }
        }
    }
}

fn quantise(x: &[f32; SUPER]) -> Group {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn fast(x: &[f32; SUPER]) -> Group {
            body::<Avx2>(x)
        }
        if crate::simd::has_avx2() {
            // SAFETY: the required features were just detected.
            return unsafe { fast(x) };
        }
    }
    body::<Portable>(x)
}

#[inline(always)]
fn body<S: Level>(x: &[f32; SUPER]) -> Group {
    let mut group = Group { scale: f16::NAN, minimum: f16::NAN, small: [(0, 0); BLOCKS], codes: [[0; BLOCK]; BLOCKS] };
    if largest(x).is_nan() {
        return group;
    }
    let blocks = x.as_chunks::<BLOCK>().0;
    let mut fits = [Fit { scale: 0.0, minimum: 0.0, error: 0.0 }; BLOCKS];
    for (fit, x) in fits.iter_mut().zip(blocks) {
        *fit = scales::search::<S>(&scales::load::<S>(x));
    }
    let step = |of: fn(&Fit) -> f32| f16::from_f32(fits.iter().map(of).fold(0.0, f32::max) / MOST);
    let (scale, minimum) = (step(|fit| fit.scale), step(|fit| fit.minimum));
    if !scale.is_finite() || !minimum.is_finite() {
        return group;
    }
    (group.scale, group.minimum) = (scale, minimum);
    for (block, (x, fit)) in blocks.iter().zip(&fits).enumerate() {
        let (small, codes) = settle::<S>(x, fit, scale.to_f32(), minimum.to_f32());
        (group.small[block], group.codes[block]) = (small, codes);
    }
    group
}

/// The 6-bit scale and minimum of a block and its codes, given their steps: the best of the neighbours of what was found.
#[inline(always)]
fn settle<S: Level>(x: &[f32; BLOCK], fit: &Fit, scale_step: f32, minimum_step: f32) -> ((u8, u8), [u8; BLOCK]) {
    let x = scales::load::<S>(x);
    let counts = scales::importance::<S>(&x);
    let nearest = |of: f32, step: f32| if step > 0.0 { (of / step).round_ties_even().clamp(0.0, MOST) } else { 0.0 };
    let (scale, minimum) = (nearest(fit.scale, scale_step), nearest(fit.minimum, minimum_step));
    let mut best = ((0, 0), x, f32::INFINITY);
    for by_scale in [0.0, -1.0, 1.0] {
        for by_minimum in [0.0, -1.0, 1.0] {
            let tried = ((scale + by_scale).clamp(0.0, MOST), (minimum + by_minimum).clamp(0.0, MOST));
            let (scale, minimum) = (scale_step * tried.0, minimum_step * tried.1);
            let codes = scales::round::<S>(&x, minimum, if scale > 0.0 { 1.0 / scale } else { 0.0 });
            let error = scales::error::<S>(&x, &counts, &codes, scale, minimum);
            if error < best.2 {
                best = ((tried.0 as u8, tried.1 as u8), codes, error);
            }
        }
    }
    (best.0, scales::store::<S>(&best.1).map(|code| code as u8))
}

impl Format for Blocks {
    const BLOCKS: usize = BLOCKS;
    const PARTS: usize = 1;
    const MINIMA: bool = true;
    type Lines = [Line; LINES];
    type Group<'a, S: Operations> = (S::Floats, S::Floats, &'a Scales);

    fn groups(&self) -> usize {
        self.groups
    }
    fn lines(&self) -> &[Self::Lines] {
        &self.lines
    }
    #[inline(always)]
    fn group<S: Operations>(&self, at: usize) -> Self::Group<'_, S> {
        let scales = &self.scales[at];
        (S::from_f16(&scales.scale), S::from_f16(&scales.minimum), scales)
    }
    #[inline(always)]
    fn scale<S: Operations>(group: &Self::Group<'_, S>, block: usize, _: usize) -> (S::Floats, S::Floats) {
        let (scale, minimum, scales) = *group;
        let (small, minima) = scales.small(block);
        (S::mul(scale, S::from_u8(&small)), S::mul(minimum, S::from_u8(&minima)))
    }
    #[inline(always)]
    fn start<S: Operations>(&self, _: i32) -> S::Ints {
        S::ints(0)
    }
    #[inline(always)]
    fn steps<S: Operations>(lines: &Self::Lines, index: usize) -> Steps<S> {
        S::halves(S::line(&lines[index]))
    }
    #[inline(always)]
    fn dot<S: Operations>(sums: S::Ints, codes: S::Codes, x: i32) -> S::Ints {
        S::dot_unsigned(sums, codes, x)
    }
}
