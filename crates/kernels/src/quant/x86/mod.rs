//! The operations on x86-64.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_setzero_si128, _mm_srli_si128,
    _mm_storeu_si128, _mm_unpackhi_epi8, _mm_unpacklo_epi8, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_add_ps, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_dpbusd_avx_epi32, _mm256_extracti128_si256,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_packus_epi32,
    _mm256_permute2x128_si256, _mm256_permute4x64_epi64, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_srli_epi16, _mm256_srli_epi32,
    _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_broadcast_i32x4, _mm512_broadcast_i64x4, _mm512_castsi256_si512, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_inserti64x4, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_srli_epi16,
    _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use half::f16;

use bytes::Quarters;

use super::BLOCK;
use super::level::{BIAS, Line, Operations, ROWS, STEP, of_twos};

/// An intrinsic of a feature that was detected before this level was entered.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: see the macro's description; pointers given to it cover as much as is read or written, by their types.
        unsafe { $call }
    };
}

// Behind the macro that it uses.
mod bytes;

/// `[4 i + row]` is the sum of the four integers of quarter i of a row.
#[inline(always)]
fn sums_across(rows: [__m512i; 4]) -> __m512i {
    intrinsic!({
        let first = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]));
        let last = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(first, last), _mm512_unpackhi_epi64(first, last))
    })
}

/// Asks for the cache lines of some bytes.
#[inline(always)]
fn prefetch_lines(from: *const u8, bytes: usize) {
    const LINE: usize = 64;
    for line in (0..bytes + LINE).step_by(LINE) {
        // Touches no memory that the program could see, whatever the address.
        intrinsic!(_mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line).cast()));
    }
}

/// Of four rows the four integers of each half: `[i]` has integer i of the rows, and integer 4 + i in the high half.
#[inline(always)]
fn fours_across(rows: [__m256i; 4]) -> [__m256i; 4] {
    intrinsic!({
        let first = [_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[0], rows[1])];
        let last = [_mm256_unpacklo_epi32(rows[2], rows[3]), _mm256_unpackhi_epi32(rows[2], rows[3])];
        [
            _mm256_unpacklo_epi64(first[0], last[0]),
            _mm256_unpackhi_epi64(first[0], last[0]),
            _mm256_unpacklo_epi64(first[1], last[1]),
            _mm256_unpackhi_epi64(first[1], last[1]),
        ]
    })
}

/// Of four rows the sums of the four integers of each half.
#[inline(always)]
fn sums_of_fours(rows: [__m256i; 4]) -> __m256i {
    intrinsic!({
        let first = _mm256_add_epi32(_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[0], rows[1]));
        let last = _mm256_add_epi32(_mm256_unpacklo_epi32(rows[2], rows[3]), _mm256_unpackhi_epi32(rows[2], rows[3]));
        _mm256_add_epi32(_mm256_unpacklo_epi64(first, last), _mm256_unpackhi_epi64(first, last))
    })
}

/// As [`fours_across`], of four rows and four others.
#[inline(always)]
fn eights_across(low: [__m256i; 4], high: [__m256i; 4]) -> [__m512i; 4] {
    intrinsic!({
        let mut rows = [_mm512_castsi256_si512(low[0]); 4];
        for row in 0..4 {
            rows[row] = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low[row]), high[row]);
        }
        let first = [_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1])];
        let last = [_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3])];
        [
            _mm512_unpacklo_epi64(first[0], last[0]),
            _mm512_unpackhi_epi64(first[0], last[0]),
            _mm512_unpacklo_epi64(first[1], last[1]),
            _mm512_unpackhi_epi64(first[1], last[1]),
        ]
    })
}

/// `to[i][row] = rows[row][i]`, by four rounds that interleave rows with those eight below.
#[inline(always)]
fn transposed(rows: &[[u8; 16]; ROWS]) -> [[u8; ROWS]; 16] {
    intrinsic!({
        let mut at = [_mm_setzero_si128(); ROWS];
        for row in 0..ROWS {
            at[row] = _mm_loadu_si128(rows[row].as_ptr().cast());
        }
        for _ in 0..4 {
            let from = at;
            for row in 0..ROWS / 2 {
                at[2 * row] = _mm_unpacklo_epi8(from[row], from[row + ROWS / 2]);
                at[2 * row + 1] = _mm_unpackhi_epi8(from[row], from[row + ROWS / 2]);
            }
        }
        let mut to = [[0; ROWS]; 16];
        for row in 0..ROWS {
            _mm_storeu_si128(to[row].as_mut_ptr().cast(), at[row]);
        }
        to
    })
}

/// The low halves and the high ones of eight integers.
#[inline(always)]
fn f16_pairs(of: [i32; 8]) -> [__m256; 2] {
    intrinsic!({
        let pairs = _mm256_setr_epi32(of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[7]);
        let low = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff));
        let both = _mm256_packus_epi32(low, _mm256_srli_epi32::<16>(pairs));
        let both = _mm256_permute4x64_epi64::<0xd8>(both);
        [_mm256_cvtph_ps(_mm256_castsi256_si128(both)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both))]
    })
}

/// The products of a block of sixteen rows, summed over its halves, by a level's products of a row.
macro_rules! across_in_256_bits {
    () => {
        #[inline(always)]
        fn across<const WIDE: bool>(rows: &[__m256i; ROWS], x: &[i32; BLOCK / STEP]) -> [[__m256i; 2]; 2] {
            intrinsic!({
                let x = _mm256_loadu_si256(x.as_ptr().cast());
                let mut sums = [[_mm256_setzero_si256(); 2]; 2];
                for half in 0..2 {
                    let mut fours = [_mm256_setzero_si256(); 2];
                    for four in 0..2 {
                        let mut dots = [_mm256_setzero_si256(); 4];
                        for row in 0..4 {
                            dots[row] = Self::dots::<WIDE>(rows[8 * half + 4 * four + row], x);
                        }
                        fours[four] = sums_of_fours(dots);
                    }
                    sums[0][half] = _mm256_permute2x128_si256::<0x20>(fours[0], fours[1]);
                    sums[1][half] = _mm256_permute2x128_si256::<0x31>(fours[0], fours[1]);
                }
                sums
            })
        }
    };
}

/// The operations on f32 in two halves of 256 bits.
macro_rules! halves_of_256_bits {
    () => {
        const REGISTERS: usize = 16;
        type Bytes = __m256i;
        type Twos = [__m256i; 2];
        type Fours = Quarters;
        type Codes = [__m256i; 2];
        type Ints = [__m256i; 2];
        type Floats = [__m256; 2];

        #[inline(always)]
        fn prefetch(from: *const u8, bytes: usize) {
            prefetch_lines(from, bytes);
        }
        #[inline(always)]
        fn lines(rows: &[__m256i; ROWS], to: &mut [Line; BLOCK / STEP]) {
            intrinsic!({
                for half in 0..2 {
                    let rows = &rows[8 * half..];
                    let low = fours_across([rows[0], rows[1], rows[2], rows[3]]);
                    let high = fours_across([rows[4], rows[5], rows[6], rows[7]]);
                    for i in 0..4 {
                        let first = to[i].0.as_mut_ptr().cast::<__m256i>().add(half);
                        let second = to[4 + i].0.as_mut_ptr().cast::<__m256i>().add(half);
                        _mm256_storeu_si256(first, _mm256_permute2x128_si256::<0x20>(low[i], high[i]));
                        _mm256_storeu_si256(second, _mm256_permute2x128_si256::<0x31>(low[i], high[i]));
                    }
                }
            })
        }
        #[inline(always)]
        fn transpose(rows: &[[u8; 16]; ROWS]) -> [[u8; ROWS]; 16] {
            transposed(rows)
        }
        #[inline(always)]
        fn line(line: &Line) -> Self::Codes {
            let at = line.0.as_ptr().cast::<__m256i>();
            intrinsic!([_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))])
        }
        #[inline(always)]
        fn halves(codes: Self::Codes) -> [Self::Codes; 2] {
            let low = intrinsic!(_mm256_set1_epi8(15));
            let half = intrinsic!([_mm256_srli_epi16::<4>(codes[0]), _mm256_srli_epi16::<4>(codes[1])]);
            intrinsic!([
                [_mm256_and_si256(codes[0], low), _mm256_and_si256(codes[1], low)],
                [_mm256_and_si256(half[0], low), _mm256_and_si256(half[1], low)],
            ])
        }
        #[inline(always)]
        fn ints(value: i32) -> Self::Ints {
            intrinsic!([_mm256_set1_epi32(value); 2])
        }
        #[inline(always)]
        fn across_fours<const WIDE: bool>(fours: &[Quarters; ROWS / 4], x: &[i32; BLOCK / STEP]) -> Self::Ints {
            intrinsic!({
                let at = x.as_ptr().cast();
                let first = _mm256_broadcastsi128_si256(_mm_loadu_si128(at));
                let last = _mm256_broadcastsi128_si256(_mm_loadu_si128(at.add(1)));
                let mut sums = [_mm256_setzero_si256(); 2];
                for half in 0..2 {
                    let mut dots = [_mm256_setzero_si256(); 4];
                    for row in 0..4 {
                        let Quarters(codes) = fours[row];
                        dots[row] = Self::dots_of_pairs::<WIDE>([codes[0][half], codes[1][half]], [first, last]);
                    }
                    sums[half] = sums_of_fours(dots);
                }
                sums
            })
        }
        #[inline(always)]
        fn across_twos<const WIDE: bool>(twos: &[Self::Twos; ROWS / 2], x: &[i32; BLOCK / STEP]) -> [Self::Ints; 2] {
            Self::across::<WIDE>(&of_twos(twos), x)
        }
        #[inline(always)]
        fn add_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints {
            intrinsic!([_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])])
        }
        #[inline(always)]
        fn floats(ints: Self::Ints) -> Self::Floats {
            intrinsic!([_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])])
        }
        #[inline(always)]
        fn splat(value: f32) -> Self::Floats {
            intrinsic!([_mm256_set1_ps(value); 2])
        }
        #[inline(always)]
        fn from_f16(from: &[f16; ROWS]) -> Self::Floats {
            let at = from.as_ptr().cast();
            intrinsic!([_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))])
        }
        #[inline(always)]
        fn from_f16_pairs(from: [u32; ROWS]) -> [Self::Floats; 2] {
            let of = from.map(|pair| pair as i32);
            let first = f16_pairs([of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[7]]);
            let last = f16_pairs([of[8], of[9], of[10], of[11], of[12], of[13], of[14], of[15]]);
            [[first[0], last[0]], [first[1], last[1]]]
        }
        #[inline(always)]
        fn from_u8(from: &[u8; ROWS]) -> Self::Floats {
            intrinsic!({
                let bytes = _mm_loadu_si128(from.as_ptr().cast());
                let (low, high) = (_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes)));
                [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
            })
        }
        #[inline(always)]
        fn from_i8(from: &[u8; ROWS]) -> Self::Floats {
            intrinsic!({
                let bytes = _mm_loadu_si128(from.as_ptr().cast());
                let (low, high) = (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
                [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
            })
        }
        #[inline(always)]
        fn load(from: &[f32; ROWS]) -> Self::Floats {
            intrinsic!([_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(ROWS / 2))])
        }
        #[inline(always)]
        fn store(floats: Self::Floats, to: &mut [f32; ROWS]) {
            intrinsic!({
                _mm256_storeu_ps(to.as_mut_ptr(), floats[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(ROWS / 2), floats[1]);
            })
        }
        #[inline(always)]
        fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
            intrinsic!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats {
            intrinsic!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
        }
        #[inline(always)]
        fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
            intrinsic!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
        }
    };
}

/// AVX2 with fused multiply-add and f16 conversion.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

/// Products of unsigned and signed bytes, added up in fours. Pairs are added in 16 bits, so no unsigned byte may pass 128.
#[inline(always)]
fn fours(sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    intrinsic!({
        let pairs = _mm256_maddubs_epi16(unsigned, signed);
        _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    })
}

/// Products of biased codes and activations, added up in fours: the magnitudes of the codes times activations with the signs of the codes.
#[inline(always)]
fn signed_fours(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    intrinsic!({
        let codes = _mm256_xor_si256(codes, _mm256_set1_epi8(BIAS as i8));
        fours(sums, _mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
    })
}

impl Avx2 {
    across_in_256_bits!();

    /// The products of a block of a row, added up in fours.
    #[inline(always)]
    fn dots<const WIDE: bool>(codes: __m256i, x: __m256i) -> __m256i {
        let none = intrinsic!(_mm256_setzero_si256());
        if WIDE { signed_fours(none, codes, x) } else { fours(none, codes, x) }
    }

    /// The products of the halves of blocks of two rows, added up in fours.
    #[inline(always)]
    fn dots_of_pairs<const WIDE: bool>(codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        if WIDE {
            return signed_fours(Self::dots::<true>(codes[0], x[0]), codes[1], x[1]);
        }
        intrinsic!({
            // Four products with codes below 64 fit 16 bits.
            let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(codes[0], x[0]), _mm256_maddubs_epi16(codes[1], x[1]));
            _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
        })
    }
}

impl Operations for Avx2 {
    halves_of_256_bits!();

    #[inline(always)]
    fn start_biased(_: i32) -> Self::Ints {
        Self::ints(0)
    }
    #[inline(always)]
    fn dot_biased(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        let x = intrinsic!(_mm256_set1_epi32(x));
        [signed_fours(sums[0], codes[0], x), signed_fours(sums[1], codes[1], x)]
    }
    #[inline(always)]
    fn dot_unsigned(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        let x = intrinsic!(_mm256_set1_epi32(x));
        [fours(sums[0], codes[0], x), fours(sums[1], codes[1], x)]
    }
}

/// AVX2 and 8-bit dot products.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni;

impl AvxVnni {
    across_in_256_bits!();

    /// The products of a block of a row, added up in fours.
    #[inline(always)]
    fn dots<const WIDE: bool>(codes: __m256i, x: __m256i) -> __m256i {
        intrinsic!(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), codes, x))
    }

    /// The products of the halves of blocks of two rows, added up in fours.
    #[inline(always)]
    fn dots_of_pairs<const WIDE: bool>(codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        intrinsic!(_mm256_dpbusd_avx_epi32(Self::dots::<WIDE>(codes[0], x[0]), codes[1], x[1]))
    }
}

impl Operations for AvxVnni {
    halves_of_256_bits!();

    #[inline(always)]
    fn start_biased(sum: i32) -> Self::Ints {
        Self::ints(-BIAS * sum)
    }
    #[inline(always)]
    fn dot_biased(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        Self::dot_unsigned(sums, codes, x)
    }
    #[inline(always)]
    fn dot_unsigned(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        intrinsic!({
            let x = _mm256_set1_epi32(x);
            [_mm256_dpbusd_avx_epi32(sums[0], codes[0], x), _mm256_dpbusd_avx_epi32(sums[1], codes[1], x)]
        })
    }
}

/// AVX-512 and 8-bit dot products.
#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni;

impl Operations for Avx512Vnni {
    const REGISTERS: usize = 32;
    type Bytes = __m256i;
    type Twos = __m512i;
    type Fours = [__m512i; 2];
    type Codes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;

    #[inline(always)]
    fn prefetch(from: *const u8, bytes: usize) {
        prefetch_lines(from, bytes);
    }
    #[inline(always)]
    fn lines(rows: &[__m256i; ROWS], to: &mut [Line; BLOCK / STEP]) {
        intrinsic!({
            let low = eights_across([rows[0], rows[1], rows[2], rows[3]], [rows[4], rows[5], rows[6], rows[7]]);
            let high = eights_across([rows[8], rows[9], rows[10], rows[11]], [rows[12], rows[13], rows[14], rows[15]]);
            for i in 0..4 {
                let lines =
                    [_mm512_shuffle_i32x4::<0x88>(low[i], high[i]), _mm512_shuffle_i32x4::<0xdd>(low[i], high[i])];
                _mm512_storeu_si512(to[i].0.as_mut_ptr().cast(), lines[0]);
                _mm512_storeu_si512(to[4 + i].0.as_mut_ptr().cast(), lines[1]);
            }
        })
    }
    #[inline(always)]
    fn transpose(rows: &[[u8; 16]; ROWS]) -> [[u8; ROWS]; 16] {
        transposed(rows)
    }
    #[inline(always)]
    fn line(line: &Line) -> __m512i {
        intrinsic!(_mm512_loadu_si512(line.0.as_ptr().cast()))
    }
    #[inline(always)]
    fn halves(codes: __m512i) -> [__m512i; 2] {
        intrinsic!({
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(codes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low)]
        })
    }
    #[inline(always)]
    fn start_biased(sum: i32) -> __m512i {
        Self::ints(-BIAS * sum)
    }
    #[inline(always)]
    fn dot_biased(sums: __m512i, codes: __m512i, x: i32) -> __m512i {
        intrinsic!(_mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(x)))
    }
    #[inline(always)]
    fn ints(value: i32) -> __m512i {
        intrinsic!(_mm512_set1_epi32(value))
    }
    #[inline(always)]
    fn dot_unsigned(sums: __m512i, codes: __m512i, x: i32) -> __m512i {
        Self::dot_biased(sums, codes, x)
    }
    #[inline(always)]
    fn across_twos<const WIDE: bool>(twos: &[__m512i; ROWS / 2], x: &[i32; BLOCK / STEP]) -> [__m512i; 2] {
        intrinsic!({
            let x = _mm512_broadcast_i64x4(_mm256_loadu_si256(x.as_ptr().cast()));
            let mut eights = [_mm512_setzero_si512(); 2];
            for half in 0..2 {
                let mut dots = [_mm512_setzero_si512(); 4];
                for row in 0..4 {
                    dots[row] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), twos[4 * half + row], x);
                }
                eights[half] = sums_across(dots);
            }
            [_mm512_shuffle_i32x4::<0x88>(eights[0], eights[1]), _mm512_shuffle_i32x4::<0xdd>(eights[0], eights[1])]
        })
    }
    #[inline(always)]
    fn across_fours<const WIDE: bool>(fours: &[[__m512i; 2]; ROWS / 4], x: &[i32; BLOCK / STEP]) -> __m512i {
        intrinsic!({
            let at = x.as_ptr().cast();
            let x = [_mm512_broadcast_i32x4(_mm_loadu_si128(at)), _mm512_broadcast_i32x4(_mm_loadu_si128(at.add(1)))];
            let mut dots = [_mm512_setzero_si512(); 4];
            for row in 0..4 {
                let first = _mm512_dpbusd_epi32(_mm512_setzero_si512(), fours[row][0], x[0]);
                dots[row] = _mm512_dpbusd_epi32(first, fours[row][1], x[1]);
            }
            sums_across(dots)
        })
    }
    #[inline(always)]
    fn add_ints(a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn floats(ints: __m512i) -> __m512 {
        intrinsic!(_mm512_cvtepi32_ps(ints))
    }
    #[inline(always)]
    fn splat(value: f32) -> __m512 {
        intrinsic!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    fn from_f16(from: &[f16; ROWS]) -> __m512 {
        intrinsic!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn from_f16_pairs(from: [u32; ROWS]) -> [__m512; 2] {
        let of = from.map(|pair| pair as i32);
        intrinsic!({
            let pairs = _mm512_setr_epi32(
                of[0], of[1], of[2], of[3], of[4], of[5], of[6], of[7], of[8], of[9], of[10], of[11], of[12], of[13],
                of[14], of[15],
            );
            let high = _mm512_srli_epi32::<16>(pairs);
            [_mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs)), _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high))]
        })
    }
    #[inline(always)]
    fn from_u8(from: &[u8; ROWS]) -> __m512 {
        intrinsic!(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn from_i8(from: &[u8; ROWS]) -> __m512 {
        intrinsic!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn load(from: &[f32; ROWS]) -> __m512 {
        intrinsic!(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    fn store(floats: __m512, to: &mut [f32; ROWS]) {
        intrinsic!(_mm512_storeu_ps(to.as_mut_ptr(), floats));
    }
    #[inline(always)]
    fn add(a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_mul_ps(a, b))
    }
}
