//! How the blocks of each type lie, as in `ggml-common.h` and `ggml-quants.c` of ggml.
//!
//! In every type a weight is `scale * (code - bias) - minimum`, where scale and minimum belong to 32 columns, or to 16.

use half::f16;

use super::super::BLOCK;
use super::super::level::{BIAS, Bytes};

/// Most parts of a group that have scales of their own.
pub(super) const PARTS: usize = 16;

/// The properties of codes and scales that a product depends on. Types that have the same ones share its code.
pub(super) trait Layout: Sync + 'static {
    /// Whether codes pass 127; their bias is then [`BIAS`].
    const WIDE: bool = false;
    /// Whether there are minima.
    const MINIMA: bool = false;
    /// Parts of a block of 32 columns that have scales of their own.
    const PARTS: usize = 1;
}

pub(super) struct Plain;
impl Layout for Plain {}

pub(super) struct Wide;
impl Layout for Wide {
    const WIDE: bool = true;
}

pub(super) struct Minima;
impl Layout for Minima {
    const MINIMA: bool = true;
}

pub(super) struct Halves;
impl Layout for Halves {
    const PARTS: usize = 2;
}

pub(super) struct HalvesWithMinima;
impl Layout for HalvesWithMinima {
    const MINIMA: bool = true;
    const PARTS: usize = 2;
}

/// A block of a type, here a *group*: one block of 32 columns, or eight.
pub(super) trait Kind {
    /// Bytes of a group.
    const BYTES: usize;
    /// Blocks of 32 columns in a group.
    const BLOCKS: usize;
    type Layout: Layout;
    /// Taken from each code.
    const BIAS: i32;

    /// The codes of a block of a group.
    fn codes<B: Bytes>(group: &[u8], block: usize) -> B;
    /// The scale of a group and its minimum, 0 where there are none.
    fn scale(group: &[u8]) -> (f16, f16);
    /// Whether parts have small scales that multiply those of the group.
    const SMALL: bool = false;
    /// Of each part of a group the small scale, an i8, and the small minimum.
    fn small(_group: &[u8]) -> ([u8; PARTS], [u8; PARTS]) {
        ([1; PARTS], [1; PARTS])
    }
}

/// Writes the numbers of a group.
pub(super) fn dequantise<K: Kind>(group: &[u8], out: &mut [f32]) {
    let (scale, minimum) = K::scale(group);
    let (scale, minimum) = (scale.to_f32(), minimum.to_f32());
    let (scales, minima) = K::small(group);
    for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let codes: [u8; BLOCK] = K::codes(group, block);
        for (i, (out, code)) in out.iter_mut().zip(codes).enumerate() {
            let part = (block * BLOCK + i) * K::Layout::PARTS / BLOCK;
            let scaled = scale * f32::from(scales[part] as i8) * (i32::from(code) - K::BIAS) as f32;
            *out = if K::Layout::MINIMA { scaled - minimum * f32::from(minima[part]) } else { scaled };
        }
    }
}

/// Some bytes of a group from one on.
#[inline(always)]
fn at<const N: usize>(group: &[u8], from: usize) -> &[u8; N] {
    group[from..].first_chunk().expect("a whole group")
}

#[inline(always)]
fn half(group: &[u8], from: usize) -> f16 {
    f16::from_le_bytes(*at(group, from))
}

/// Scale; 4-bit codes, of column i and i + 16 in a byte.
pub(super) struct Q4_0;

impl Kind for Q4_0 {
    const BYTES: usize = 18;
    const BLOCKS: usize = 1;
    type Layout = Plain;
    const BIAS: i32 = 8;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], _: usize) -> B {
        B::nibbles(at(group, 2))
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), f16::ZERO)
    }
}

/// Scale, least number; codes as [`Q4_0`].
pub(super) struct Q4_1;

impl Kind for Q4_1 {
    const BYTES: usize = 20;
    const BLOCKS: usize = 1;
    type Layout = Minima;
    const BIAS: i32 = 0;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], _: usize) -> B {
        B::nibbles(at(group, 4))
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), -half(group, 2))
    }
}

/// Scale; a fifth bit of each code; the low four as [`Q4_0`].
pub(super) struct Q5_0;

impl Kind for Q5_0 {
    const BYTES: usize = 22;
    const BLOCKS: usize = 1;
    type Layout = Plain;
    const BIAS: i32 = 16;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], _: usize) -> B {
        B::nibbles(at(group, 6)).or(B::bits(at(group, 2), 16))
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), f16::ZERO)
    }
}

/// Scale, least number; codes as [`Q5_0`].
pub(super) struct Q5_1;

impl Kind for Q5_1 {
    const BYTES: usize = 24;
    const BLOCKS: usize = 1;
    type Layout = Minima;
    const BIAS: i32 = 0;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], _: usize) -> B {
        B::nibbles(at(group, 8)).or(B::bits(at(group, 4), 16))
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), -half(group, 2))
    }
}

/// Scale; signed 8-bit codes.
pub(super) struct Q8_0;

impl Kind for Q8_0 {
    const BYTES: usize = 34;
    const BLOCKS: usize = 1;
    type Layout = Wide;
    const BIAS: i32 = BIAS;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], _: usize) -> B {
        B::load(at(group, 2)).xor(BIAS as u8)
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), f16::ZERO)
    }
}

/// The numbers that the codes of iq4_nl and iq4_xs stand for, plus [`BIAS`].
const LEVELS: [u8; 16] = {
    let levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    let mut biased = [0; 16];
    let mut i = 0;
    while i < 16 {
        biased[i] = (levels[i] + BIAS) as u8;
        i += 1;
    }
    biased
};

/// Scale; codes of levels, lying as [`Q4_0`].
pub(super) struct Iq4Nl;

impl Kind for Iq4Nl {
    const BYTES: usize = 18;
    const BLOCKS: usize = 1;
    type Layout = Wide;
    const BIAS: i32 = BIAS;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], _: usize) -> B {
        B::nibbles(at(group, 2)).look_up(&LEVELS)
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), f16::ZERO)
    }
}

/// Scale; two high bits of eight small scales; their low four bits; 4-bit codes of levels, block after block as [`Iq4Nl`].
pub(super) struct Iq4Xs;

impl Kind for Iq4Xs {
    const BYTES: usize = 136;
    const BLOCKS: usize = 8;
    type Layout = Wide;
    const BIAS: i32 = BIAS;
    const SMALL: bool = true;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], block: usize) -> B {
        B::nibbles(at(group, 8 + 16 * block)).look_up(&LEVELS)
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), f16::ZERO)
    }
    #[inline(always)]
    fn small(group: &[u8]) -> ([u8; PARTS], [u8; PARTS]) {
        let (high, low) = (u16::from_le_bytes(*at(group, 2)), at::<4>(group, 4));
        let mut scales = [0; PARTS];
        for (i, scale) in scales[..8].iter_mut().enumerate() {
            let six = low[i / 2] >> (4 * (i % 2)) & 15 | ((high >> (2 * i)) as u8 & 3) << 4;
            *scale = six.wrapping_sub(32);
        }
        (scales, [0; PARTS])
    }
}

/// Two bits of each code, which lie as in q2_k: of each half of the columns 32 bytes, whose pairs of bits are those of four blocks.
#[inline(always)]
fn pairs<B: Bytes>(group: &[u8], from: usize, block: usize, mask: u8) -> B {
    B::load(at(group, from + 32 * (block / 4))).field(2 * (block % 4), mask)
}

/// Of sixteen parts the small scale and the small minimum in a byte; 2-bit codes; scale and minimum.
pub(super) struct Q2K;

impl Kind for Q2K {
    const BYTES: usize = 84;
    const BLOCKS: usize = 8;
    type Layout = HalvesWithMinima;
    const BIAS: i32 = 0;
    const SMALL: bool = true;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], block: usize) -> B {
        pairs(group, 16, block, 3)
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 80), half(group, 82))
    }
    #[inline(always)]
    fn small(group: &[u8]) -> ([u8; PARTS], [u8; PARTS]) {
        let both = at::<PARTS>(group, 0);
        (both.map(|both| both & 15), both.map(|both| both >> 4))
    }
}

/// A third bit of each code, of block b in bit b; 2-bit codes; sixteen small scales of 6 bits; scale.
pub(super) struct Q3K;

impl Kind for Q3K {
    const BYTES: usize = 110;
    const BLOCKS: usize = 8;
    type Layout = Halves;
    const BIAS: i32 = 4;
    const SMALL: bool = true;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], block: usize) -> B {
        // The third bit belongs to bit 2, which is bit 4 less two.
        let third = B::load(at(group, 0)).field(block, 1).raise().field(2, 4);
        pairs::<B>(group, 32, block, 3).or(third)
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 108), f16::ZERO)
    }
    #[inline(always)]
    fn small(group: &[u8]) -> ([u8; PARTS], [u8; PARTS]) {
        let (low, high) = (at::<8>(group, 96), at::<4>(group, 104));
        let six = |i: usize| low[i % 8] >> (4 * (i / 8)) & 15 | (high[i % 4] >> (2 * (i / 4)) & 3) << 4;
        (std::array::from_fn(|i| six(i).wrapping_sub(32)), [0; PARTS])
    }
}

/// Small scales and minima of eight blocks in twelve bytes, as q4_k and q5_k have them: of the first four blocks the low six bits of bytes 0
/// to 3 and 4 to 7; of the others the low and the high half of bytes 8 to 11, and as high bits those above the six of the first.
#[inline(always)]
fn sixes(group: &[u8]) -> ([u8; PARTS], [u8; PARTS]) {
    let four = |from: usize| u32::from_le_bytes(*at(group, from));
    let (a, b, c) = (four(4), four(8), four(12));
    let (low, top) = (0x0f0f_0f0f, 0x3030_3030);
    let both = |first: u32, second: u32| {
        let mut bytes = [0; PARTS];
        bytes[..4].copy_from_slice(&(first & 0x3f3f_3f3f).to_le_bytes());
        bytes[4..8].copy_from_slice(&(second | first >> 2 & top).to_le_bytes());
        bytes
    };
    (both(a, c & low), both(b, c >> 4 & low))
}

/// Scale and minimum; small ones in twelve bytes; 4-bit codes, of two blocks in 32 bytes.
pub(super) struct Q4K;

impl Kind for Q4K {
    const BYTES: usize = 144;
    const BLOCKS: usize = 8;
    type Layout = Minima;
    const BIAS: i32 = 0;
    const SMALL: bool = true;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], block: usize) -> B {
        B::load(at(group, 16 + 32 * (block / 2))).field(4 * (block % 2), 15)
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), half(group, 2))
    }
    #[inline(always)]
    fn small(group: &[u8]) -> ([u8; PARTS], [u8; PARTS]) {
        sixes(group)
    }
}

/// As [`Q4K`], and before the codes a fifth bit of each, of block b in bit b.
pub(super) struct Q5K;

impl Kind for Q5K {
    const BYTES: usize = 176;
    const BLOCKS: usize = 8;
    type Layout = Minima;
    const BIAS: i32 = 0;
    const SMALL: bool = true;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], block: usize) -> B {
        let low = B::load(at(group, 48 + 32 * (block / 2))).field(4 * (block % 2), 15);
        low.or(B::load(at(group, 16)).field(block, 1).raise())
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 0), half(group, 2))
    }
    #[inline(always)]
    fn small(group: &[u8]) -> ([u8; PARTS], [u8; PARTS]) {
        sixes(group)
    }
}

/// Of each half of the columns 64 bytes with the low four bits of codes, of two blocks in 32 bytes; two high bits; sixteen small scales; scale.
pub(super) struct Q6K;

impl Kind for Q6K {
    const BYTES: usize = 210;
    const BLOCKS: usize = 8;
    type Layout = Halves;
    const BIAS: i32 = 32;
    const SMALL: bool = true;

    #[inline(always)]
    fn codes<B: Bytes>(group: &[u8], block: usize) -> B {
        let low = B::load(at(group, 64 * (block / 4) + 32 * (block % 2))).field(block % 4 / 2 * 4, 15);
        low.or(pairs::<B>(group, 128, block, 3).raise())
    }
    #[inline(always)]
    fn scale(group: &[u8]) -> (f16, f16) {
        (half(group, 208), f16::ZERO)
    }
    #[inline(always)]
    fn small(group: &[u8]) -> ([u8; PARTS], [u8; PARTS]) {
        (*at(group, 192), [0; PARTS])
    }
}
