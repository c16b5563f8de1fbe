//! The operations on x86-64.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm_loadu_si128, _mm_srli_si128, _mm256_abs_epi8, _mm256_add_epi32,
    _mm256_add_ps, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps,
    _mm256_dpbusd_avx_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
    _mm256_sign_epi8, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_ps, _mm256_xor_si256, _mm512_add_ps,
    _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_srli_epi16, _mm512_storeu_ps, _mm512_sub_ps,
};

use half::f16;

use super::level::{BIAS, Line, Operations, ROWS};

/// An intrinsic of a feature that was detected before this level was entered.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: see the macro's description; pointers given to it cover as much as is read or written, by their types.
        unsafe { $call }
    };
}

/// The operations on f32 in two halves of 256 bits.
macro_rules! halves_of_256_bits {
    () => {
        const REGISTERS: usize = 16;
        type Codes = [__m256i; 2];
        type Ints = [__m256i; 2];
        type Floats = [__m256; 2];

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
        fn zero() -> Self::Ints {
            intrinsic!([_mm256_setzero_si256(); 2])
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
        fn from_u8(from: &[u8; ROWS]) -> Self::Floats {
            intrinsic!({
                let bytes = _mm_loadu_si128(from.as_ptr().cast());
                let (low, high) = (_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes)));
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

/// Products of biased codes and four activations: the magnitudes of the codes times activations with the signs of the codes.
#[inline(always)]
fn signed_fours(sums: __m256i, codes: __m256i, x: i32) -> __m256i {
    intrinsic!({
        let codes = _mm256_xor_si256(codes, _mm256_set1_epi8(BIAS as i8));
        fours(sums, _mm256_abs_epi8(codes), _mm256_sign_epi8(_mm256_set1_epi32(x), codes))
    })
}

impl Operations for Avx2 {
    halves_of_256_bits!();

    #[inline(always)]
    fn start_biased(_: i32) -> Self::Ints {
        Self::zero()
    }
    #[inline(always)]
    fn dot_biased(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        [signed_fours(sums[0], codes[0], x), signed_fours(sums[1], codes[1], x)]
    }
    #[inline(always)]
    fn dot_nibbles(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        let x = intrinsic!(_mm256_set1_epi32(x));
        [fours(sums[0], codes[0], x), fours(sums[1], codes[1], x)]
    }
}

/// AVX2 and 8-bit dot products.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni;

impl Operations for AvxVnni {
    halves_of_256_bits!();

    #[inline(always)]
    fn start_biased(sum: i32) -> Self::Ints {
        intrinsic!([_mm256_set1_epi32(-BIAS * sum); 2])
    }
    #[inline(always)]
    fn dot_biased(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
        Self::dot_nibbles(sums, codes, x)
    }
    #[inline(always)]
    fn dot_nibbles(sums: Self::Ints, codes: Self::Codes, x: i32) -> Self::Ints {
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
    type Codes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;

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
        intrinsic!(_mm512_set1_epi32(-BIAS * sum))
    }
    #[inline(always)]
    fn dot_biased(sums: __m512i, codes: __m512i, x: i32) -> __m512i {
        intrinsic!(_mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(x)))
    }
    #[inline(always)]
    fn zero() -> __m512i {
        intrinsic!(_mm512_setzero_si512())
    }
    #[inline(always)]
    fn dot_nibbles(sums: __m512i, codes: __m512i, x: i32) -> __m512i {
        Self::dot_biased(sums, codes, x)
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
    fn from_u8(from: &[u8; ROWS]) -> __m512 {
        intrinsic!(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
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
