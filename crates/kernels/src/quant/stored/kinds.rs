//! How the blocks of each type lie, as in `ggml-common.h` and `ggml-quants.c` of ggml.
//!
//! In every type a weight is `scale * (code - bias) - minimum`, where scale and minimum belong to 32 columns, or to 16.

use half::f16;

use super::super::BLOCK;
use super::super::level::{BIAS, Bytes};

/// Bytes that hold the small scales of a group.
pub(super) const SMALL: usize = 16;

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

/// Bytes of a length that the compiler knows.
pub(super) trait Block: Copy + Sync + 'static {
    /// As many as there are in some bytes.
    fn all(bytes: &[u8]) -> &[Self];
    fn bytes(&self) -> &[u8];
}

impl<const N: usize> Block for [u8; N] {
    fn all(bytes: &[u8]) -> &[Self] {
        bytes.as_chunks().0
    }
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A block of a type, here a *group*: one block of 32 columns, or eight.
pub(super) trait Kind {
    /// The bytes of a group.
    type Block: Block;
    /// Blocks of 32 columns in a group.
    const BLOCKS: usize;
    type Layout: Layout;
    /// Taken from each code.
    const BIAS: i32;

    /// Whether the codes of a block lie in sixteen bytes.
    const NIBBLES: bool = false;

    /// The codes of a block of a group of each of some rows.
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], block: usize) -> B;
    /// Where the scale of a group lies, and behind it the minimum if there is one.
    const SCALE: usize = 0;
    /// Whether the minimum is stored as a number to add.
    const ADDED: bool = false;
    /// The scale of a group and its minimum, 0 where there are none.
    #[inline(always)]
    fn scale(group: &Self::Block) -> (f16, f16) {
        let group = group.bytes();
        let minimum = if Self::Layout::MINIMA { half(group, Self::SCALE + 2) } else { f16::ZERO };
        (half(group, Self::SCALE), if Self::ADDED { -minimum } else { minimum })
    }
    /// The scale of a group, as stored, in the low half, and the minimum in the high one where there are some.
    #[inline(always)]
    fn steps(group: &Self::Block) -> u32 {
        let group = group.bytes();
        match Self::SCALE + 4 <= group.len() {
            true => u32::from_le_bytes(*at(group, Self::SCALE)),
            false => u32::from_le_bytes(*at(group, Self::SCALE - 2)) >> 16,
        }
    }
    /// Where sixteen bytes begin that have the small scales and minima of all parts, which multiply those of the group.
    const SMALL: Option<usize> = None;
    /// The small scales, each an i8, and the small minima of a part of `N` groups; `bytes[i]` has byte i from [`Kind::SMALL`] on of each.
    fn small<const N: usize>(_bytes: &[[u8; N]; SMALL], _part: usize) -> ([u8; N], [u8; N]) {
        ([1; N], [1; N])
    }
}

/// Writes the numbers of a group.
pub(super) fn dequantise<K: Kind>(group: &K::Block, out: &mut [f32]) {
    let (scale, minimum) = K::scale(group);
    let (scale, minimum) = (scale.to_f32(), minimum.to_f32());
    let bytes = K::SMALL.map_or([[0]; SMALL], |from| at::<SMALL>(group.bytes(), from).map(|byte| [byte]));
    for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let codes: [u8; BLOCK] = K::codes([group], block);
        for (i, (out, code)) in out.iter_mut().zip(codes).enumerate() {
            let ([small], [small_minimum]) = K::small(&bytes, (block * BLOCK + i) * K::Layout::PARTS / BLOCK);
            let scaled = scale * f32::from(small as i8) * (i32::from(code) - K::BIAS) as f32;
            *out = if K::Layout::MINIMA { scaled - minimum * f32::from(small_minimum) } else { scaled };
        }
    }
}

/// Some bytes of a group from one on.
#[inline(always)]
fn at<const N: usize>(group: &[u8], from: usize) -> &[u8; N] {
    group[from..].first_chunk().expect("a whole group")
}

/// As [`at`], of each of some groups.
#[inline(always)]
fn each<'a, const N: usize, const BYTES: usize>(groups: &[&'a impl Block; N], from: usize) -> [&'a [u8; BYTES]; N] {
    std::array::from_fn(|row| at(groups[row].bytes(), from))
}

#[inline(always)]
fn half(group: &[u8], from: usize) -> f16 {
    f16::from_le_bytes(*at(group, from))
}

/// Scale; 4-bit codes, of column i and i + 16 in a byte.
pub(super) struct Q4_0;

impl Kind for Q4_0 {
    type Block = [u8; 18];
    const BLOCKS: usize = 1;
    type Layout = Plain;
    const BIAS: i32 = 8;
    const NIBBLES: bool = true;

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], _: usize) -> B {
        B::nibbles(each(&groups, 2))
    }
}

/// Scale, least number; codes as [`Q4_0`].
pub(super) struct Q4_1;

impl Kind for Q4_1 {
    type Block = [u8; 20];
    const BLOCKS: usize = 1;
    type Layout = Minima;
    const BIAS: i32 = 0;
    const ADDED: bool = true;
    const NIBBLES: bool = true;

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], _: usize) -> B {
        B::nibbles(each(&groups, 4))
    }
}

/// Scale; a fifth bit of each code; the low four as [`Q4_0`].
pub(super) struct Q5_0;

impl Kind for Q5_0 {
    type Block = [u8; 22];
    const BLOCKS: usize = 1;
    type Layout = Plain;
    const BIAS: i32 = 16;
    const NIBBLES: bool = true;

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], _: usize) -> B {
        B::nibbles(each(&groups, 6)).or(B::bits(each(&groups, 2), 16))
    }
}

/// Scale, least number; codes as [`Q5_0`].
pub(super) struct Q5_1;

impl Kind for Q5_1 {
    type Block = [u8; 24];
    const BLOCKS: usize = 1;
    type Layout = Minima;
    const BIAS: i32 = 0;
    const ADDED: bool = true;
    const NIBBLES: bool = true;

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], _: usize) -> B {
        B::nibbles(each(&groups, 8)).or(B::bits(each(&groups, 4), 16))
    }
}

/// Scale; signed 8-bit codes.
pub(super) struct Q8_0;

impl Kind for Q8_0 {
    type Block = [u8; 34];
    const BLOCKS: usize = 1;
    type Layout = Wide;
    const BIAS: i32 = BIAS;

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], _: usize) -> B {
        B::load(each(&groups, 2)).xor(BIAS as u8)
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
    type Block = [u8; 18];
    const BLOCKS: usize = 1;
    type Layout = Wide;
    const BIAS: i32 = BIAS;
    const NIBBLES: bool = true;

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], _: usize) -> B {
        B::nibbles(each(&groups, 2)).look_up(&LEVELS)
    }
}

/// Scale; two high bits of eight small scales; their low four bits; 4-bit codes of levels, block after block as [`Iq4Nl`].
pub(super) struct Iq4Xs;

impl Kind for Iq4Xs {
    type Block = [u8; 136];
    const BLOCKS: usize = 8;
    type Layout = Wide;
    const BIAS: i32 = BIAS;
    const SMALL: Option<usize> = Some(0);
    const NIBBLES: bool = true;

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], block: usize) -> B {
        B::nibbles(each(&groups, 8 + 16 * block)).look_up(&LEVELS)
    }
    #[inline(always)]
    fn small<const N: usize>(bytes: &[[u8; N]; SMALL], part: usize) -> ([u8; N], [u8; N]) {
        let (low, high) = (&bytes[4 + part / 2], &bytes[2 + part / 4]);
        let (of_low, of_high) = (part % 2 * 4, part % 4 * 2);
        let scales = std::array::from_fn(|i| (low[i] >> of_low & 15 | (high[i] >> of_high & 3) << 4).wrapping_sub(32));
        (scales, scales)
    }
}

/// Two bits of each code, which lie as in q2_k: of each half of the columns 32 bytes, whose pairs of bits are those of four blocks.
#[inline(always)]
fn pairs<const N: usize, K: Block, B: Bytes<N>>(groups: &[&K; N], from: usize, block: usize, mask: u8) -> B {
    B::load(each(groups, from + 32 * (block / 4))).field(2 * (block % 4), mask)
}

/// Of sixteen parts the small scale and the small minimum in a byte; 2-bit codes; scale and minimum.
pub(super) struct Q2K;

impl Kind for Q2K {
    type Block = [u8; 84];
    const BLOCKS: usize = 8;
    type Layout = HalvesWithMinima;
    const BIAS: i32 = 0;
    const SCALE: usize = 80;
    const SMALL: Option<usize> = Some(0);

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], block: usize) -> B {
        pairs(&groups, 16, block, 3)
    }
    #[inline(always)]
    fn small<const N: usize>(bytes: &[[u8; N]; SMALL], part: usize) -> ([u8; N], [u8; N]) {
        (bytes[part].map(|both| both & 15), bytes[part].map(|both| both >> 4))
    }
}

/// A third bit of each code, of block b in bit b; 2-bit codes; sixteen small scales of 6 bits; scale.
pub(super) struct Q3K;

impl Kind for Q3K {
    type Block = [u8; 110];
    const BLOCKS: usize = 8;
    type Layout = Halves;
    const BIAS: i32 = 4;
    const SCALE: usize = 108;
    const SMALL: Option<usize> = Some(94);

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], block: usize) -> B {
        // The third bit belongs to bit 2, which is bit 4 less two.
        let third = B::load(each(&groups, 0)).field(block, 1).raise().field(2, 4);
        pairs::<N, _, B>(&groups, 32, block, 3).or(third)
    }
    #[inline(always)]
    fn small<const N: usize>(bytes: &[[u8; N]; SMALL], part: usize) -> ([u8; N], [u8; N]) {
        let (low, high) = (&bytes[2 + part % 8], &bytes[10 + part % 4]);
        let (of_low, of_high) = (part / 8 * 4, part / 4 * 2);
        let scales = std::array::from_fn(|i| (low[i] >> of_low & 15 | (high[i] >> of_high & 3) << 4).wrapping_sub(32));
        (scales, scales)
    }
}

/// A small scale and minimum of eight, as q4_k and q5_k have them in twelve bytes from the fifth on: of the first four parts the low six bits
/// of bytes 0 to 3 and 4 to 7; of the others the low and the high half of bytes 8 to 11, and as high bits those above the six of the first.
#[inline(always)]
fn sixes<const N: usize>(bytes: &[[u8; N]; SMALL], part: usize) -> ([u8; N], [u8; N]) {
    if part < 4 {
        return (bytes[4 + part].map(|scale| scale & 63), bytes[8 + part].map(|minimum| minimum & 63));
    }
    let (low, scale, minimum) = (&bytes[8 + part], &bytes[part], &bytes[4 + part]);
    let scales = std::array::from_fn(|i| low[i] & 15 | scale[i] >> 6 << 4);
    let minima = std::array::from_fn(|i| low[i] >> 4 | minimum[i] >> 6 << 4);
    (scales, minima)
}

/// Scale and minimum; small ones in twelve bytes; 4-bit codes, of two blocks in 32 bytes.
pub(super) struct Q4K;

impl Kind for Q4K {
    type Block = [u8; 144];
    const BLOCKS: usize = 8;
    type Layout = Minima;
    const BIAS: i32 = 0;
    const SMALL: Option<usize> = Some(0);

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], block: usize) -> B {
        B::load(each(&groups, 16 + 32 * (block / 2))).field(4 * (block % 2), 15)
    }
    #[inline(always)]
    fn small<const N: usize>(bytes: &[[u8; N]; SMALL], part: usize) -> ([u8; N], [u8; N]) {
        sixes(bytes, part)
    }
}

/// As [`Q4K`], and before the codes a fifth bit of each, of block b in bit b.
pub(super) struct Q5K;

impl Kind for Q5K {
    type Block = [u8; 176];
    const BLOCKS: usize = 8;
    type Layout = Minima;
    const BIAS: i32 = 0;
    const SMALL: Option<usize> = Some(0);

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], block: usize) -> B {
        let low = B::load(each(&groups, 48 + 32 * (block / 2))).field(4 * (block % 2), 15);
        low.or(B::load(each(&groups, 16)).field(block, 1).raise())
    }
    #[inline(always)]
    fn small<const N: usize>(bytes: &[[u8; N]; SMALL], part: usize) -> ([u8; N], [u8; N]) {
        sixes(bytes, part)
    }
}

/// Of each half of the columns 64 bytes with the low four bits of codes, of two blocks in 32 bytes; two high bits; sixteen small scales; scale.
pub(super) struct Q6K;

impl Kind for Q6K {
    type Block = [u8; 210];
    const BLOCKS: usize = 8;
    type Layout = Halves;
    const BIAS: i32 = 32;
    const SCALE: usize = 208;
    const SMALL: Option<usize> = Some(192);

    #[inline(always)]
    fn codes<const N: usize, B: Bytes<N>>(groups: [&Self::Block; N], block: usize) -> B {
        let low = B::load(each(&groups, 64 * (block / 4) + 32 * (block % 2))).field(block % 4 / 2 * 4, 15);
        low.or(pairs::<N, _, B>(&groups, 128, block, 3).raise())
    }
    #[inline(always)]
    fn small<const N: usize>(bytes: &[[u8; N]; SMALL], part: usize) -> ([u8; N], [u8; N]) {
        (bytes[part], bytes[part])
    }
}
