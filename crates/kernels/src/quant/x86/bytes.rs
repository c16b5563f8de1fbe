//! Codes of rows in registers: of one row, of two and of four.

use std::arch::x86_64::{
    __m256i, __m512i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_set1_epi32, _mm_srli_epi16, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_or_si256, _mm256_set_m128i,
    _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setr_epi64x, _mm256_shuffle_epi8,
    _mm256_slli_epi16, _mm256_srl_epi16, _mm256_srli_epi16, _mm256_xor_si256, _mm512_and_si512, _mm512_broadcast_i32x4,
    _mm512_castsi256_si512, _mm512_inserti64x4, _mm512_maskz_set1_epi8, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_shuffle_epi8, _mm512_slli_epi16, _mm512_srl_epi16, _mm512_srli_epi16, _mm512_xor_si512,
};

use super::super::BLOCK;
use super::super::level::Bytes;

impl Bytes for __m256i {
    #[inline(always)]
    fn load([from]: [&[u8; BLOCK]; 1]) -> Self {
        intrinsic!(_mm256_loadu_si256(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn nibbles([from]: [&[u8; BLOCK / 2]; 1]) -> Self {
        intrinsic!({
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes), _mm256_set1_epi8(15))
        })
    }
    #[inline(always)]
    fn bits([from]: [&[u8; BLOCK / 8]; 1], value: u8) -> Self {
        const EIGHT: i64 = 0x0101_0101_0101_0101;
        intrinsic!({
            let of = _mm256_setr_epi64x(0, EIGHT, 2 * EIGHT, 3 * EIGHT);
            set_bits(_mm256_set1_epi32(i32::from_le_bytes(*from)), of, value)
        })
    }
    #[inline(always)]
    fn field(self, shift: usize, mask: u8) -> Self {
        intrinsic!({
            let shifted = _mm256_srl_epi16(self, _mm_cvtsi32_si128(shift as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
        })
    }
    #[inline(always)]
    fn raise(self) -> Self {
        intrinsic!(_mm256_slli_epi16::<4>(self))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        intrinsic!(_mm256_or_si256(self, other))
    }
    #[inline(always)]
    fn xor(self, with: u8) -> Self {
        intrinsic!(_mm256_xor_si256(self, _mm256_set1_epi8(with as i8)))
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        intrinsic!({
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, self)
        })
    }
}

/// Two rows in the halves.
impl Bytes<2> for __m512i {
    #[inline(always)]
    fn load(from: [&[u8; BLOCK]; 2]) -> Self {
        both(Bytes::load([from[0]]), Bytes::load([from[1]]))
    }
    #[inline(always)]
    fn nibbles(from: [&[u8; BLOCK / 2]; 2]) -> Self {
        both(Bytes::nibbles([from[0]]), Bytes::nibbles([from[1]]))
    }
    #[inline(always)]
    fn bits(from: [&[u8; BLOCK / 8]; 2], value: u8) -> Self {
        let [low, high] = from.map(|bits| u64::from(u32::from_le_bytes(*bits)));
        intrinsic!(_mm512_maskz_set1_epi8(low | high << 32, value as i8))
    }
    #[inline(always)]
    fn field(self, shift: usize, mask: u8) -> Self {
        intrinsic!({
            let shifted = _mm512_srl_epi16(self, _mm_cvtsi32_si128(shift as i32));
            _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
        })
    }
    #[inline(always)]
    fn raise(self) -> Self {
        intrinsic!(_mm512_slli_epi16::<4>(self))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        intrinsic!(_mm512_or_si512(self, other))
    }
    #[inline(always)]
    fn xor(self, with: u8) -> Self {
        intrinsic!(_mm512_xor_si512(self, _mm512_set1_epi8(with as i8)))
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        intrinsic!(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), self))
    }
}

/// Four rows in the quarters: their first sixteen bytes, and their last.
impl Bytes<4> for [__m512i; 2] {
    #[inline(always)]
    fn load(from: [&[u8; BLOCK]; 4]) -> Self {
        let halves = from.map(|bytes| bytes.as_chunks::<{ BLOCK / 2 }>().0);
        [
            all_four([&halves[0][0], &halves[1][0], &halves[2][0], &halves[3][0]]),
            all_four([&halves[0][1], &halves[1][1], &halves[2][1], &halves[3][1]]),
        ]
    }
    #[inline(always)]
    fn nibbles(from: [&[u8; BLOCK / 2]; 4]) -> Self {
        let bytes = all_four(from);
        intrinsic!({
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(bytes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low)]
        })
    }
    #[inline(always)]
    fn bits(from: [&[u8; BLOCK / 8]; 4], value: u8) -> Self {
        let of = |at: usize| {
            let half = |row: usize| u64::from(u16::from_le_bytes([from[row][at], from[row][at + 1]]));
            half(0) | half(1) << 16 | half(2) << 32 | half(3) << 48
        };
        let (first, last) = (of(0), of(2));
        intrinsic!([_mm512_maskz_set1_epi8(first, value as i8), _mm512_maskz_set1_epi8(last, value as i8)])
    }
    #[inline(always)]
    fn field(self, shift: usize, mask: u8) -> Self {
        [Bytes::<2>::field(self[0], shift, mask), Bytes::<2>::field(self[1], shift, mask)]
    }
    #[inline(always)]
    fn raise(self) -> Self {
        [Bytes::<2>::raise(self[0]), Bytes::<2>::raise(self[1])]
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        [Bytes::<2>::or(self[0], other[0]), Bytes::<2>::or(self[1], other[1])]
    }
    #[inline(always)]
    fn xor(self, with: u8) -> Self {
        [Bytes::<2>::xor(self[0], with), Bytes::<2>::xor(self[1], with)]
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        [Bytes::<2>::look_up(self[0], table), Bytes::<2>::look_up(self[1], table)]
    }
}

/// Four rows in 256 bits: the first sixteen bytes of two of them, of the two others, and the last sixteen bytes of both pairs.
#[derive(Clone, Copy)]
pub(in crate::quant) struct Quarters(pub(super) [[__m256i; 2]; 2]);

impl Bytes<4> for Quarters {
    #[inline(always)]
    fn load(from: [&[u8; BLOCK]; 4]) -> Self {
        let halves = from.map(|bytes| bytes.as_chunks::<{ BLOCK / 2 }>().0);
        let of = |half: usize| [pair(&halves[0][half], &halves[1][half]), pair(&halves[2][half], &halves[3][half])];
        Quarters([of(0), of(1)])
    }
    #[inline(always)]
    fn nibbles(from: [&[u8; BLOCK / 2]; 4]) -> Self {
        let bytes = [pair(from[0], from[1]), pair(from[2], from[3])];
        intrinsic!({
            let low = _mm256_set1_epi8(15);
            let high = [_mm256_srli_epi16::<4>(bytes[0]), _mm256_srli_epi16::<4>(bytes[1])];
            Quarters([
                [_mm256_and_si256(bytes[0], low), _mm256_and_si256(bytes[1], low)],
                [_mm256_and_si256(high[0], low), _mm256_and_si256(high[1], low)],
            ])
        })
    }
    #[inline(always)]
    fn bits(from: [&[u8; BLOCK / 8]; 4], value: u8) -> Self {
        const EIGHT: i64 = 0x0101_0101_0101_0101;
        intrinsic!({
            let rows = from.map(|bits| i32::from_le_bytes(*bits));
            let pairs = [
                _mm256_set_m128i(_mm_set1_epi32(rows[1]), _mm_set1_epi32(rows[0])),
                _mm256_set_m128i(_mm_set1_epi32(rows[3]), _mm_set1_epi32(rows[2])),
            ];
            let first = _mm256_setr_epi64x(0, EIGHT, 0, EIGHT);
            let last = _mm256_setr_epi64x(2 * EIGHT, 3 * EIGHT, 2 * EIGHT, 3 * EIGHT);
            Quarters([
                [set_bits(pairs[0], first, value), set_bits(pairs[1], first, value)],
                [set_bits(pairs[0], last, value), set_bits(pairs[1], last, value)],
            ])
        })
    }
    #[inline(always)]
    fn field(self, shift: usize, mask: u8) -> Self {
        let Quarters([[a, b], [c, d]]) = self;
        Quarters([[a.field(shift, mask), b.field(shift, mask)], [c.field(shift, mask), d.field(shift, mask)]])
    }
    #[inline(always)]
    fn raise(self) -> Self {
        let Quarters([[a, b], [c, d]]) = self;
        Quarters([[a.raise(), b.raise()], [c.raise(), d.raise()]])
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        let (Quarters([a, b]), Quarters([c, d])) = (self, other);
        Quarters([[a[0].or(c[0]), a[1].or(c[1])], [b[0].or(d[0]), b[1].or(d[1])]])
    }
    #[inline(always)]
    fn xor(self, with: u8) -> Self {
        let Quarters([[a, b], [c, d]]) = self;
        Quarters([[a.xor(with), b.xor(with)], [c.xor(with), d.xor(with)]])
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        let Quarters([[a, b], [c, d]]) = self;
        Quarters([[a.look_up(table), b.look_up(table)], [c.look_up(table), d.look_up(table)]])
    }
}

/// `value` where a bit is set in the byte that `of` names, of eight bytes bit after bit.
#[inline(always)]
fn set_bits(bytes: __m256i, of: __m256i, value: u8) -> __m256i {
    intrinsic!({
        let each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let bits = _mm256_and_si256(_mm256_shuffle_epi8(bytes, of), each);
        _mm256_and_si256(_mm256_cmpeq_epi8(bits, each), _mm256_set1_epi8(value as i8))
    })
}

#[inline(always)]
fn pair(low: &[u8; BLOCK / 2], high: &[u8; BLOCK / 2]) -> __m256i {
    intrinsic!(_mm256_set_m128i(_mm_loadu_si128(high.as_ptr().cast()), _mm_loadu_si128(low.as_ptr().cast())))
}

#[inline(always)]
fn both(low: __m256i, high: __m256i) -> __m512i {
    intrinsic!(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
}

#[inline(always)]
fn all_four(from: [&[u8; BLOCK / 2]; 4]) -> __m512i {
    intrinsic!({
        let [a, b, c, d] = from.map(|bytes| _mm_loadu_si128(bytes.as_ptr().cast()));
        both(_mm256_set_m128i(b, a), _mm256_set_m128i(d, c))
    })
}
