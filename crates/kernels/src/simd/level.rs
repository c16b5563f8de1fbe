//! Instruction sets that a loop may use.

use half::{bf16, f16};

use super::float8;
use crate::codec::Table;

/// Elements of a vector.
pub(crate) const LANES: usize = 8;

/// Operations on vectors of eight f32. Slices given to `load`, `load_half` and `store` have at least eight elements.
pub(crate) trait Level: Copy {
    type Vector: Copy;
    fn splat(value: f32) -> Self::Vector;
    fn load(from: &[f32]) -> Self::Vector;
    fn load_half(from: &[f16]) -> Self::Vector;
    /// Eight bf16 from sixteen bytes.
    fn load_brain(from: &[u8]) -> Self::Vector;
    /// Eight numbers of E4M3FN.
    fn load_float8(from: &[u8]) -> Self::Vector;
    /// Eight integers 0..16 from four bytes, low nibble first.
    fn load_nibbles(from: [u8; LANES / 2]) -> Self::Vector;
    /// Eight integers 0..256.
    fn load_bytes(from: [u8; LANES]) -> Self::Vector;
    /// Eight integers 0..4 from two bytes, low pair of bits first.
    fn load_pairs(from: [u8; LANES / 4]) -> Self::Vector;
    /// The numbers of a table that eight codes of four bits stand for.
    fn look_up_nibbles(table: &Table, codes: [u8; LANES / 2]) -> Self::Vector;
    /// Like [`Level::look_up_nibbles`], of two bits.
    fn look_up_pairs(table: &Table, codes: [u8; LANES / 4]) -> Self::Vector;
    fn store(vector: Self::Vector, to: &mut [f32]);
    /// Asks for a cache line that may be read soon. Any address will do.
    fn prefetch(address: *const u8);
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, fused where the machine can.
    fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// To the nearest integer, halves to even.
    fn round(a: Self::Vector) -> Self::Vector;
    /// `a * 2^n` for integers -126 <= n <= 127.
    fn times_power_of_two(a: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// The sum of the lanes.
    fn sum(a: Self::Vector) -> f32;
    /// The sum of the lanes of each of eight vectors.
    fn sums(of: &[Self::Vector; LANES]) -> Self::Vector;
}

/// Any machine.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

impl Level for Portable {
    type Vector = [f32; LANES];

    #[inline(always)]
    fn splat(value: f32) -> Self::Vector {
        [value; LANES]
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self::Vector {
        std::array::from_fn(|lane| from[lane])
    }
    #[inline(always)]
    fn load_half(from: &[f16]) -> Self::Vector {
        std::array::from_fn(|lane| from[lane].to_f32())
    }
    #[inline(always)]
    fn load_brain(from: &[u8]) -> Self::Vector {
        std::array::from_fn(|lane| bf16::from_le_bytes([from[2 * lane], from[2 * lane + 1]]).to_f32())
    }
    #[inline(always)]
    fn load_float8(from: &[u8]) -> Self::Vector {
        std::array::from_fn(|lane| float8(from[lane]))
    }
    #[inline(always)]
    fn load_nibbles(from: [u8; LANES / 2]) -> Self::Vector {
        std::array::from_fn(|lane| f32::from(from[lane / 2] >> (lane % 2 * 4) & 15))
    }
    #[inline(always)]
    fn load_bytes(from: [u8; LANES]) -> Self::Vector {
        from.map(f32::from)
    }
    #[inline(always)]
    fn load_pairs(from: [u8; LANES / 4]) -> Self::Vector {
        std::array::from_fn(|lane| f32::from(from[lane / 4] >> (lane % 4 * 2) & 3))
    }
    #[inline(always)]
    fn look_up_nibbles(table: &Table, codes: [u8; LANES / 2]) -> Self::Vector {
        std::array::from_fn(|lane| table[usize::from(codes[lane / 2] >> (lane % 2 * 4) & 15)])
    }
    #[inline(always)]
    fn look_up_pairs(table: &Table, codes: [u8; LANES / 4]) -> Self::Vector {
        std::array::from_fn(|lane| table[usize::from(codes[lane / 4] >> (lane % 4 * 2) & 3)])
    }
    #[inline(always)]
    fn store(vector: Self::Vector, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&vector);
    }
    #[inline(always)]
    fn prefetch(_: *const u8) {}
    #[inline(always)]
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
    #[inline(always)]
    fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, f32::max)
    }
    #[inline(always)]
    fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, f32::min)
    }
    #[inline(always)]
    fn round(a: Self::Vector) -> Self::Vector {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn times_power_of_two(a: Self::Vector, n: Self::Vector) -> Self::Vector {
        zip(a, n, |a, n| a * f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn sum(a: Self::Vector) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn sums(of: &[Self::Vector; LANES]) -> Self::Vector {
        of.map(Self::sum)
    }
}

/// AVX2 with fused multiply-add and f16 conversion. Only entered after all three were detected.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_and_si128, _mm_andnot_si128,
        _mm_cmpeq_epi16, _mm_cvtepu8_epi16, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_loadl_epi64, _mm_loadu_si128,
        _mm_or_si128, _mm_prefetch, _mm_set1_epi16, _mm_slli_epi16, _mm_unpacklo_epi8, _mm256_add_epi32, _mm256_add_ps,
        _mm256_and_si256, _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
        _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_hadd_ps,
        _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_permute2f128_ps, _mm256_permutevar8x32_ps,
        _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_slli_epi32, _mm256_srlv_epi32,
        _mm256_storeu_ps, _mm256_sub_ps,
    };

    use half::f16;

    use super::{Avx2, LANES, Level, Table};

    /// An intrinsic of a feature that was detected before this level was entered.
    macro_rules! intrinsic {
        ($call:expr) => {
            // SAFETY: see the macro's description; pointers given to it cover eight elements, as asserted before.
            unsafe { $call }
        };
    }

    impl Level for Avx2 {
        type Vector = __m256;

        #[inline(always)]
        fn splat(value: f32) -> __m256 {
            intrinsic!(_mm256_set1_ps(value))
        }
        #[inline(always)]
        fn load(from: &[f32]) -> __m256 {
            assert!(from.len() >= LANES);
            intrinsic!(_mm256_loadu_ps(from.as_ptr()))
        }
        #[inline(always)]
        fn load_half(from: &[f16]) -> __m256 {
            assert!(from.len() >= LANES);
            intrinsic!(_mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())))
        }
        #[inline(always)]
        fn load_brain(from: &[u8]) -> __m256 {
            assert!(from.len() >= 2 * LANES);
            let upper = intrinsic!(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast())));
            intrinsic!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(upper)))
        }
        #[inline(always)]
        fn load_float8(from: &[u8]) -> __m256 {
            assert!(from.len() >= LANES);
            let bits = intrinsic!(_mm_cvtepu8_epi16(_mm_loadl_epi64(from.as_ptr().cast())));
            let none = intrinsic!(_mm_set1_epi16(0x7f));
            let sign = intrinsic!(_mm_slli_epi16::<8>(_mm_andnot_si128(none, bits)));
            let size = intrinsic!(_mm_and_si128(none, bits));
            // All bits set are no number in f16 either.
            let size = intrinsic!(_mm_or_si128(_mm_slli_epi16::<7>(size), _mm_cmpeq_epi16(size, none)));
            let halves = intrinsic!(_mm256_cvtph_ps(_mm_or_si128(sign, size)));
            intrinsic!(_mm256_mul_ps(halves, _mm256_set1_ps(256.0)))
        }
        #[inline(always)]
        fn load_nibbles(from: [u8; LANES / 2]) -> __m256 {
            let bytes = u32::from_le_bytes(from);
            let (low, high) = ((bytes & 0x0f0f_0f0f) as i32, (bytes >> 4 & 0x0f0f_0f0f) as i32);
            let codes = intrinsic!(_mm_unpacklo_epi8(_mm_cvtsi32_si128(low), _mm_cvtsi32_si128(high)));
            intrinsic!(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)))
        }
        #[inline(always)]
        fn load_bytes(from: [u8; LANES]) -> __m256 {
            let codes = intrinsic!(_mm_cvtsi64_si128(i64::from_le_bytes(from)));
            intrinsic!(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)))
        }
        #[inline(always)]
        fn load_pairs(from: [u8; LANES / 4]) -> __m256 {
            let all = intrinsic!(_mm256_set1_epi32(i32::from(u16::from_le_bytes(from))));
            let shifts = intrinsic!(_mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
            let codes = intrinsic!(_mm256_and_si256(_mm256_srlv_epi32(all, shifts), _mm256_set1_epi32(3)));
            intrinsic!(_mm256_cvtepi32_ps(codes))
        }
        #[inline(always)]
        fn look_up_nibbles(table: &Table, codes: [u8; LANES / 2]) -> __m256 {
            let all = intrinsic!(_mm256_set1_epi32(i32::from_le_bytes(codes)));
            let codes = intrinsic!(_mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)));
            let low = intrinsic!(_mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), codes));
            let high = intrinsic!(_mm256_permutevar8x32_ps(_mm256_loadu_ps(table[LANES..].as_ptr()), codes));
            // The fourth bit, which a permutation does not see, becomes the sign, which alone chooses.
            let fourth = intrinsic!(_mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes)));
            intrinsic!(_mm256_blendv_ps(low, high, fourth))
        }
        #[inline(always)]
        fn look_up_pairs(table: &Table, codes: [u8; LANES / 4]) -> __m256 {
            let all = intrinsic!(_mm256_set1_epi32(i32::from(u16::from_le_bytes(codes))));
            let shifts = intrinsic!(_mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
            let codes = intrinsic!(_mm256_and_si256(_mm256_srlv_epi32(all, shifts), _mm256_set1_epi32(3)));
            intrinsic!(_mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), codes))
        }
        #[inline(always)]
        fn store(vector: __m256, to: &mut [f32]) {
            assert!(to.len() >= LANES);
            intrinsic!(_mm256_storeu_ps(to.as_mut_ptr(), vector));
        }
        #[inline(always)]
        fn prefetch(address: *const u8) {
            // Touches no memory that the program could see, whatever the address.
            intrinsic!(_mm_prefetch::<_MM_HINT_T0>(address.cast()));
        }
        #[inline(always)]
        fn add(a: __m256, b: __m256) -> __m256 {
            intrinsic!(_mm256_add_ps(a, b))
        }
        #[inline(always)]
        fn sub(a: __m256, b: __m256) -> __m256 {
            intrinsic!(_mm256_sub_ps(a, b))
        }
        #[inline(always)]
        fn mul(a: __m256, b: __m256) -> __m256 {
            intrinsic!(_mm256_mul_ps(a, b))
        }
        #[inline(always)]
        fn div(a: __m256, b: __m256) -> __m256 {
            intrinsic!(_mm256_div_ps(a, b))
        }
        #[inline(always)]
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            intrinsic!(_mm256_fmadd_ps(a, b, c))
        }
        #[inline(always)]
        fn max(a: __m256, b: __m256) -> __m256 {
            intrinsic!(_mm256_max_ps(a, b))
        }
        #[inline(always)]
        fn min(a: __m256, b: __m256) -> __m256 {
            intrinsic!(_mm256_min_ps(a, b))
        }
        #[inline(always)]
        fn round(a: __m256) -> __m256 {
            intrinsic!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
        }
        #[inline(always)]
        fn times_power_of_two(a: __m256, n: __m256) -> __m256 {
            let exponent = intrinsic!(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
            intrinsic!(_mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))))
        }
        #[inline(always)]
        fn sum(a: __m256) -> f32 {
            let mut lanes = [0.0; LANES];
            Self::store(a, &mut lanes);
            super::Portable::sum(lanes)
        }
        #[inline(always)]
        fn sums(v: &[__m256; LANES]) -> __m256 {
            // Three rounds of pairwise sums transpose while they add.
            let low = intrinsic!(_mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3])));
            let high = intrinsic!(_mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7])));
            let left = intrinsic!(_mm256_permute2f128_ps::<0x20>(low, high));
            let right = intrinsic!(_mm256_permute2f128_ps::<0x31>(low, high));
            Self::add(left, right)
        }
    }
}
