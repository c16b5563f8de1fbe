//! The operations of quantised products, for each instruction set.
//!
//! All work on sixteen rows of weights at once. The dot products are of integers, so they are exact, and the operations on f32 are
//! single ones (nothing is fused), so every level gives the same bits.

use half::f16;

/// Rows of weights that lie together.
pub(super) const ROWS: usize = 16;

/// Columns of a [`Line`].
pub(super) const STEP: usize = 4;

/// One cache line of codes: four columns of sixteen rows, row by row; in 4-bit formats eight columns, of which the first four
/// are in the low halves of the bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; ROWS * STEP]);

/// Offset of signed codes, which are stored as unsigned bytes.
pub(super) const BIAS: i32 = 128;

pub(super) trait Operations: Copy {
    /// Vector registers, which bound how much is at work at once.
    const REGISTERS: usize;
    /// A line, or half of the bits of one.
    type Codes: Copy;
    /// Sixteen i32, one a row.
    type Ints: Copy;
    /// Sixteen f32, one a row.
    type Floats: Copy;

    fn line(line: &Line) -> Self::Codes;
    /// The low and the high four bits of each byte.
    fn halves(codes: Self::Codes) -> [Self::Codes; 2];
    /// Where [`Operations::dot_biased`] starts from: `sum` is over all activations that will be multiplied.
    fn start_biased(sum: i32) -> Self::Ints;
    /// `sums + codes . x`, codes less [`BIAS`]; `x` is four i8.
    fn dot_biased(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints;
    fn zero() -> Self::Ints;
    /// `sums + codes . x` for codes 0..16; `x` is four i8.
    fn dot_nibbles(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints;

    fn floats(ints: Self::Ints) -> Self::Floats;
    fn splat(value: f32) -> Self::Floats;
    fn from_f16(from: &[f16; ROWS]) -> Self::Floats;
    fn from_u8(from: &[u8; ROWS]) -> Self::Floats;
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

/// Any machine.
#[derive(Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn zip(a: [f32; ROWS], b: [f32; ROWS], f: impl Fn(f32, f32) -> f32) -> [f32; ROWS] {
    std::array::from_fn(|row| f(a[row], b[row]))
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
    type Codes = [u8; ROWS * STEP];
    type Ints = [i32; ROWS];
    type Floats = [f32; ROWS];

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
    fn zero() -> Self::Ints {
        [0; ROWS]
    }
    #[inline(always)]
    fn dot_nibbles(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        dot(sums, codes, 0, x)
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
    fn from_u8(from: &[u8; ROWS]) -> Self::Floats {
        from.map(f32::from)
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
