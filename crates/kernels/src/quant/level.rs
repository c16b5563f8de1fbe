//! The operations of quantised products, for each instruction set.
//!
//! All work on sixteen rows of weights at once. The dot products are of integers, so they are exact, and the operations on f32 are
//! single ones (nothing is fused), so every level gives the same bits.

use half::f16;

use super::BLOCK;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512Vnni, AvxVnni};

/// Rows of weights that lie together.
pub(super) const ROWS: usize = 16;

/// Tiles that are at work together at most.
pub(super) const MOST_TILES: usize = 2;

/// Columns of a [`Line`].
pub(super) const STEP: usize = 4;

/// One cache line of codes: four columns of sixteen rows, row by row; in 4-bit formats eight columns, of which the first four
/// are in the low halves of the bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; ROWS * STEP]);

/// Offset of signed 8-bit codes, which are stored as unsigned bytes.
pub(super) const BIAS: i32 = 128;

/// 32 bytes of each of some rows of weights.
pub(super) trait Bytes<const ROWS: usize = 1>: Copy {
    fn load(from: [&[u8; BLOCK]; ROWS]) -> Self;
    /// The low four bits of sixteen bytes, then the high ones.
    fn nibbles(from: [&[u8; BLOCK / 2]; ROWS]) -> Self;
    /// `value` for each bit that is set, 0 for the others, the lowest bit first.
    fn bits(from: [&[u8; BLOCK / 8]; ROWS], value: u8) -> Self;
    /// `(byte >> shift) & mask` of each, where the mask has no more than `8 - shift` bits.
    fn field(self, shift: usize, mask: u8) -> Self;
    /// Each times 16, which must stay below 256.
    fn raise(self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, with: u8) -> Self;
    /// The entries of a table for bytes below 16.
    fn look_up(self, table: &[u8; 16]) -> Self;
}

/// Rows beside each other, where no register holds more than one.
impl<const N: usize, B: Bytes> Bytes<N> for [B; N] {
    #[inline(always)]
    fn load(from: [&[u8; BLOCK]; N]) -> Self {
        std::array::from_fn(|row| B::load([from[row]]))
    }
    #[inline(always)]
    fn nibbles(from: [&[u8; BLOCK / 2]; N]) -> Self {
        std::array::from_fn(|row| B::nibbles([from[row]]))
    }
    #[inline(always)]
    fn bits(from: [&[u8; BLOCK / 8]; N], value: u8) -> Self {
        std::array::from_fn(|row| B::bits([from[row]], value))
    }
    #[inline(always)]
    fn field(self, shift: usize, mask: u8) -> Self {
        std::array::from_fn(|row| self[row].field(shift, mask))
    }
    #[inline(always)]
    fn raise(self) -> Self {
        std::array::from_fn(|row| self[row].raise())
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        std::array::from_fn(|row| self[row].or(other[row]))
    }
    #[inline(always)]
    fn xor(self, with: u8) -> Self {
        std::array::from_fn(|row| self[row].xor(with))
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        std::array::from_fn(|row| self[row].look_up(table))
    }
}

pub(super) trait Operations: Copy {
    /// Vector registers, which bound how much is at work at once.
    const REGISTERS: usize;
    /// Tiles of sixteen rows that the registers have room for.
    const TILES: usize = if Self::REGISTERS >= 32 { MOST_TILES } else { 1 };
    type Bytes: Bytes;
    /// Of two rows, and of four.
    type Twos: Bytes<2>;
    type Fours: Bytes<4>;
    /// A line, or half of the bits of one.
    type Codes: Copy;
    /// Sixteen i32, one a row.
    type Ints: Copy;
    /// Sixteen f32, one a row.
    type Floats: Copy;

    /// Asks for some bytes that will be read soon, wherever they are.
    fn prefetch(from: *const u8, bytes: usize);
    /// A block of sixteen rows, row by row, as the lines of a tile.
    fn lines(rows: &[Self::Bytes; ROWS], to: &mut [Line; BLOCK / STEP]);
    /// `to[i][row] = rows[row][i]`.
    fn transpose(rows: &[[u8; 16]; ROWS]) -> [[u8; ROWS]; 16];
    fn line(line: &Line) -> Self::Codes;
    /// The low and the high four bits of each byte.
    fn halves(codes: Self::Codes) -> [Self::Codes; 2];
    /// Where [`Operations::dot_biased`] starts from: `sum` is over all activations that will be multiplied.
    fn start_biased(sum: i32) -> Self::Ints;
    /// `sums + codes . x`, codes less [`BIAS`]; `x` is four i8.
    fn dot_biased(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints;
    fn ints(value: i32) -> Self::Ints;
    /// `sums + codes . x` for codes 0..128; `x` is four i8.
    fn dot_unsigned(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints;

    /// The products of a block of sixteen rows with the same 32 activations, summed over the first sixteen columns and over the last.
    /// `WIDE` codes are as those of [`Operations::dot_biased`], and want [`Operations::start_biased`] added; others are below 128.
    /// Pair `4 i + j` has the rows `8 i + j` and `8 i + j + 4`.
    fn across_twos<const WIDE: bool>(rows: &[Self::Twos; ROWS / 2], x: &[i32; BLOCK / STEP]) -> [Self::Ints; 2];
    /// The sums of both for rows in fours, whose codes are below 64 where they are not `WIDE`: group `j` has the rows `j`, `4 + j`,
    /// `8 + j` and `12 + j`.
    fn across_fours<const WIDE: bool>(rows: &[Self::Fours; ROWS / 4], x: &[i32; BLOCK / STEP]) -> Self::Ints;
    fn add_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints;

    fn floats(ints: Self::Ints) -> Self::Floats;
    fn splat(value: f32) -> Self::Floats;
    fn from_f16(from: &[f16; ROWS]) -> Self::Floats;
    /// Of integers that have an f16 in their low halves and another one in their high halves.
    fn from_f16_pairs(from: [u32; ROWS]) -> [Self::Floats; 2];
    fn from_u8(from: &[u8; ROWS]) -> Self::Floats;
    /// Of bytes that hold i8.
    fn from_i8(from: &[u8; ROWS]) -> Self::Floats;
    fn load(from: &[f32; ROWS]) -> Self::Floats;
    fn store(floats: Self::Floats, to: &mut [f32; ROWS]);
    fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
}

/// An instruction set that quantised products are compiled for. The results are the same to the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Any machine.
    Portable,
    Avx2,
    /// 8-bit dot products in 256 bits.
    AvxVnni,
    /// 8-bit dot products in 512 bits.
    Avx512Vnni,
}

impl Level {
    /// The levels that this machine has, the best one last.
    pub fn available() -> Vec<Level> {
        let all = [Level::Portable, Level::Avx2, Level::AvxVnni, Level::Avx512Vnni];
        all.into_iter().filter(|level| level.is_available()).collect()
    }

    pub fn best() -> Level {
        let best = [Level::Avx512Vnni, Level::AvxVnni, Level::Avx2].into_iter().find(|level| level.is_available());
        best.unwrap_or(Level::Portable)
    }

    /// The 8-bit dot product that the level has, as Linux calls it.
    pub fn dot_product(self) -> Option<&'static str> {
        match self {
            Level::Portable | Level::Avx2 => None,
            Level::AvxVnni => Some("avx_vnni"),
            Level::Avx512Vnni => Some("avx512_vnni"),
        }
    }

    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = crate::simd::has_avx2();
            match self {
                Level::Portable => true,
                Level::Avx2 => avx2,
                Level::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
                Level::Avx512Vnni => {
                    avx2 && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512vnni")
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Level::Portable
        }
    }
}

/// A loop that is compiled for every level.
pub(super) trait Work {
    /// Must be inlined, as all that it calls, so that it is compiled with the instructions of the level.
    fn run<S: Operations>(self);
}

impl Level {
    /// [`Operations::TILES`] of the level.
    pub(super) fn tiles(self) -> usize {
        match self {
            Level::Avx512Vnni => MOST_TILES,
            Level::Portable | Level::Avx2 | Level::AvxVnni => 1,
        }
    }

    /// Runs a loop at a level that the machine has.
    pub(super) fn run<W: Work>(self, work: W) {
        macro_rules! at {
            ($name:ident, $features:literal, $level:ident) => {{
                #[target_feature(enable = $features)]
                fn $name<W: Work>(work: W) {
                    work.run::<$level>();
                }
                assert!(self.is_available(), "{self:?} on a machine without it");
                // SAFETY: the machine has the level, as was just made sure.
                unsafe { $name(work) }
            }};
        }
        match self {
            Level::Portable => work.run::<Portable>(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => at!(avx2, "avx2,fma,f16c", Avx2),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => at!(avx_vnni, "avx2,fma,f16c,avxvnni", AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => at!(avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni", Avx512Vnni),
            #[cfg(not(target_arch = "x86_64"))]
            _ => work.run::<Portable>(),
        }
    }
}

/// Any machine.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Bytes for [u8; BLOCK] {
    #[inline(always)]
    fn load([from]: [&[u8; BLOCK]; 1]) -> Self {
        *from
    }
    #[inline(always)]
    fn nibbles([from]: [&[u8; BLOCK / 2]; 1]) -> Self {
        std::array::from_fn(|i| from[i % (BLOCK / 2)] >> (i / (BLOCK / 2) * 4) & 15)
    }
    #[inline(always)]
    fn bits([from]: [&[u8; BLOCK / 8]; 1], value: u8) -> Self {
        std::array::from_fn(|i| (from[i / 8] >> (i % 8) & 1) * value)
    }
    #[inline(always)]
    fn field(self, shift: usize, mask: u8) -> Self {
        self.map(|byte| byte >> shift & mask)
    }
    #[inline(always)]
    fn raise(self) -> Self {
        self.map(|byte| byte << 4)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] | other[i])
    }
    #[inline(always)]
    fn xor(self, with: u8) -> Self {
        self.map(|byte| byte ^ with)
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        self.map(|byte| table[usize::from(byte)])
    }
}

#[inline(always)]
fn zip(a: [f32; ROWS], b: [f32; ROWS], f: impl Fn(f32, f32) -> f32) -> [f32; ROWS] {
    std::array::from_fn(|row| f(a[row], b[row]))
}

/// Row by row, from the order of [`Operations::across_twos`].
#[inline(always)]
pub(super) fn of_twos<B: Copy>(twos: &[[B; 2]; ROWS / 2]) -> [B; ROWS] {
    std::array::from_fn(|row| twos[row / 8 * 4 + row % 4][row % 8 / 4])
}

/// Row by row, from the order of [`Operations::across_fours`].
#[inline(always)]
fn of_fours<B: Copy>(fours: &[[B; 4]; ROWS / 4]) -> [B; ROWS] {
    std::array::from_fn(|row| fours[row % 4][row / 4])
}

/// The low halves and the high ones.
#[inline(always)]
fn halves_of_pairs(pairs: [u32; ROWS]) -> [[f16; ROWS]; 2] {
    [pairs.map(|pair| f16::from_bits(pair as u16)), pairs.map(|pair| f16::from_bits((pair >> 16) as u16))]
}

#[inline(always)]
fn across<const WIDE: bool>(rows: &[[u8; BLOCK]; ROWS], x: &[i32; BLOCK / STEP]) -> [[i32; ROWS]; 2] {
    let bias = if WIDE { BIAS } else { 0 };
    let mut sums = [[0; ROWS]; 2];
    for (row, codes) in rows.iter().enumerate() {
        for (column, code) in codes.iter().enumerate() {
            let x = x[column / STEP].to_ne_bytes()[column % STEP] as i8;
            sums[column / (BLOCK / 2)][row] += (i32::from(*code) - bias) * i32::from(x);
        }
    }
    sums
}

#[inline(always)]
fn dot(mut sums: [i32; ROWS], codes: [u8; ROWS * STEP], bias: i32, x: i32) -> [i32; ROWS] {
    let x = x.to_ne_bytes().map(|x| i32::from(x as i8));
    for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<STEP>().0) {
        for (code, x) in codes.iter().zip(x) {
            *sum += (i32::from(*code) - bias) * x;
        }
    }
    sums
}

impl Operations for Portable {
    const REGISTERS: usize = 16;
    type Bytes = [u8; BLOCK];
    type Twos = [[u8; BLOCK]; 2];
    type Fours = [[u8; BLOCK]; 4];
    type Codes = [u8; ROWS * STEP];
    type Ints = [i32; ROWS];
    type Floats = [f32; ROWS];

    #[inline(always)]
    fn prefetch(_: *const u8, _: usize) {}
    #[inline(always)]
    fn lines(rows: &[Self::Bytes; ROWS], to: &mut [Line; BLOCK / STEP]) {
        for (line, column) in to.iter_mut().zip((0..BLOCK).step_by(STEP)) {
            for (to, row) in line.0.as_chunks_mut::<STEP>().0.iter_mut().zip(rows) {
                to.copy_from_slice(&row[column..column + STEP]);
            }
        }
    }
    #[inline(always)]
    fn transpose(rows: &[[u8; 16]; ROWS]) -> [[u8; ROWS]; 16] {
        std::array::from_fn(|i| rows.map(|row| row[i]))
    }
    #[inline(always)]
    fn line(line: &Line) -> Self::Codes {
        line.0
    }
    #[inline(always)]
    fn halves(codes: Self::Codes) -> [Self::Codes; 2] {
        [codes.map(|code| code & 15), codes.map(|code| code >> 4)]
    }
    #[inline(always)]
    fn start_biased(_: i32) -> Self::Ints {
        [0; ROWS]
    }
    #[inline(always)]
    fn dot_biased(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        dot(sums, codes, BIAS, x)
    }
    #[inline(always)]
    fn ints(value: i32) -> Self::Ints {
        [value; ROWS]
    }
    #[inline(always)]
    fn dot_unsigned(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        dot(sums, codes, 0, x)
    }
    #[inline(always)]
    fn across_twos<const WIDE: bool>(rows: &[Self::Twos; ROWS / 2], x: &[i32; BLOCK / STEP]) -> [Self::Ints; 2] {
        across::<WIDE>(&of_twos(rows), x)
    }
    #[inline(always)]
    fn across_fours<const WIDE: bool>(rows: &[Self::Fours; ROWS / 4], x: &[i32; BLOCK / STEP]) -> Self::Ints {
        let [first, last] = across::<WIDE>(&of_fours(rows), x);
        Self::add_ints(first, last)
    }
    #[inline(always)]
    fn add_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        std::array::from_fn(|row| a[row] + b[row])
    }
    #[inline(always)]
    fn floats(ints: Self::Ints) -> Self::Floats {
        ints.map(|x| x as f32)
    }
    #[inline(always)]
    fn splat(value: f32) -> Self::Floats {
        [value; ROWS]
    }
    #[inline(always)]
    fn from_f16(from: &[f16; ROWS]) -> Self::Floats {
        from.map(f16::to_f32)
    }
    #[inline(always)]
    fn from_f16_pairs(from: [u32; ROWS]) -> [Self::Floats; 2] {
        halves_of_pairs(from).map(|of| Self::from_f16(&of))
    }
    #[inline(always)]
    fn from_u8(from: &[u8; ROWS]) -> Self::Floats {
        from.map(f32::from)
    }
    #[inline(always)]
    fn from_i8(from: &[u8; ROWS]) -> Self::Floats {
        from.map(|x| f32::from(x as i8))
    }
    #[inline(always)]
    fn load(from: &[f32; ROWS]) -> Self::Floats {
        *from
    }
    #[inline(always)]
    fn store(floats: Self::Floats, to: &mut [f32; ROWS]) {
        *to = floats;
    }
    #[inline(always)]
    fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| a * b)
    }
}
