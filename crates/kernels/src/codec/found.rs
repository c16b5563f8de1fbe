//! Codes whose levels a calibration has found, and with them the scale and the zero of every channel or none; some numbers of each row lie
//! apart, whole. Hooper et al. 2024, KVQuant, arXiv 2401.18079.

use half::f16;

use super::encode::{inverse, stored};
use super::{Codec, Dtype, Scales, Table};
use crate::element::Element;
use crate::simd;

/// The findings of a calibration about keys, or values, of some heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    dtype: Dtype,
    levels: Table,
    channels: Option<Channels>,
}

/// Scales and zeros of channels, `[heads, dim]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Channels {
    pub scales: Vec<f32>,
    pub zeros: Vec<f32>,
}

impl Found {
    /// `levels`, rising, 4 of two bits or 16 of four; with `channels` every channel has its scale, above 0, and its zero, else each row has
    /// them of its own.
    pub fn new(levels: &[f32], channels: Option<Channels>) -> Result<Found, String> {
        let dtype = match levels.len() {
            4 => Dtype::U2,
            16 => Dtype::U4,
            n => return Err(format!("{n} levels, which are neither 4 nor 16")),
        };
        if !levels.is_sorted_by(|a, b| a < b) || levels.iter().any(|level| !level.is_finite()) {
            return Err("levels that do not rise".into());
        }
        if let Some(Channels { scales, zeros }) = &channels {
            let sound = scales.len() == zeros.len()
                && zeros.iter().all(|zero| zero.is_finite())
                && scales.iter().all(|scale| scale.is_normal() && *scale > 0.0 && (1.0 / scale).is_finite());
            if !sound {
                return Err("scales of channels that are not above 0, or a zero that is no number".into());
            }
        }
        let mut table = [0.0; 16];
        table[..levels.len()].copy_from_slice(levels);
        Ok(Found { dtype, levels: table, channels })
    }

    /// How rows are stored of which so many numbers lie apart.
    pub const fn codec(&self, apart: u8) -> Codec {
        Codec::apart(self.dtype, apart, self.channels.is_some())
    }

    /// The numbers that codes stand for, before scale and zero.
    pub fn levels(&self) -> &[f32] {
        &self.levels[..=usize::from(self.dtype.most())]
    }

    /// Scales and zeros of channels, `[heads, dim]`; None: each row has its own.
    pub fn channels(&self) -> Option<&Channels> {
        self.channels.as_ref()
    }

    pub(super) fn bytes(&self) -> usize {
        let of = |channels: &Channels| size_of_val(&channels.scales[..]) + size_of_val(&channels.zeros[..]);
        size_of::<Found>() + self.channels.as_ref().map_or(0, of)
    }

    /// Scales and zeros of the channels of a head.
    fn of_head(&self, head: usize, dim: usize) -> Option<(&[f32], &[f32])> {
        let Channels { scales, zeros } = self.channels.as_ref()?;
        Some((&scales[head * dim..(head + 1) * dim], &zeros[head * dim..(head + 1) * dim]))
    }

    /// Rows of a head, `[n, dim]`, to their codes, and to what lies beside them: scale and zero where rows have their own, then each number
    /// that lies apart behind its channel, whose number is the bits of an f16.
    fn write(&self, codec: Codec, head: usize, rows: &[f32], dim: usize, numbers: &mut [u8], beside: &mut [f16]) {
        let Scales::Apart { count, .. } = codec.scales else { return };
        let (pairs, mut even) = (codec.scales_row(dim) / size_of::<f16>(), vec![0.0; dim]);
        let mut apart = Vec::with_capacity(count.into());
        let rows = rows.chunks_exact(dim).zip(numbers.chunks_exact_mut(codec.row(dim)));
        for (index, (row, numbers)) in rows.enumerate() {
            let mut beside = &mut beside[index * pairs..(index + 1) * pairs];
            match self.of_head(head, dim) {
                Some((scales, zeros)) => {
                    for ((even, x), (scale, zero)) in even.iter_mut().zip(row).zip(scales.iter().zip(zeros)) {
                        *even = (x - zero) * (1.0 / scale);
                    }
                    farthest(&even, 0.0, count, &mut apart);
                }
                None => {
                    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / dim as f64;
                    farthest(row, mean as f32, count, &mut apart);
                    let left = row.iter().enumerate().filter(|(channel, _)| !apart.contains(channel));
                    let (min, max) =
                        left.fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), (_, x)| (min.min(*x), max.max(*x)));
                    let (scale, zero) = (stored((max - min) * 0.5), stored((max + min) * 0.5));
                    beside[..2].copy_from_slice(&[scale, zero]);
                    beside = &mut beside[2..];
                    let (inverse, zero) = (inverse(scale), zero.to_f32());
                    even.iter_mut().zip(row).for_each(|(even, x)| *even = (x - zero) * inverse);
                }
            }
            simd::encode_levels(codec.dtype, &self.levels, &even, 1.0, numbers);
            for (channel, beside) in apart.iter().zip(beside.chunks_exact_mut(2)) {
                beside.copy_from_slice(&[f16::from_bits(*channel as u16), stored(row[*channel])]);
            }
        }
    }

    /// Rows of a head as they were, but for the rounding of the codes.
    pub(super) fn read(&self, codec: Codec, head: usize, numbers: &[u8], beside: &[f16], dim: usize, to: &mut [f32]) {
        simd::decode_levels(codec.dtype, &self.levels, numbers, &vec![f16::ONE; to.len() / dim], dim, to);
        let pairs = codec.scales_row(dim) / size_of::<f16>();
        for (index, row) in to.chunks_exact_mut(dim).enumerate() {
            let mut beside = &beside[index * pairs..(index + 1) * pairs];
            match self.of_head(head, dim) {
                Some((scales, zeros)) => {
                    for (x, (scale, zero)) in row.iter_mut().zip(scales.iter().zip(zeros)) {
                        *x = *x * scale + zero;
                    }
                }
                None => {
                    let (scale, zero) = (beside[0].to_f32(), beside[1].to_f32());
                    row.iter_mut().for_each(|x| *x = *x * scale + zero);
                    beside = &beside[2..];
                }
            }
            for pair in beside.chunks_exact(2) {
                if let Some(x) = row.get_mut(usize::from(pair[0].to_bits())) {
                    *x = pair[1].to_f32();
                }
            }
        }
    }
}

/// The channels of the numbers that are farthest from `middle`, ascending; of two that are as far the lower one.
fn farthest(row: &[f32], middle: f32, count: u8, to: &mut Vec<usize>) {
    to.clear();
    for _ in 0..count {
        let (mut best, mut most) = (None, f32::NEG_INFINITY);
        for (channel, x) in row.iter().enumerate() {
            let away = (x - middle).abs();
            if away > most && !to.contains(&channel) {
                (best, most) = (Some(channel), away);
            }
        }
        to.extend(best);
    }
    to.sort_unstable();
}

/// As [`decode_rows`](super::decode_rows), of entries that may have such levels.
#[allow(clippy::too_many_arguments)]
pub(super) fn decode_in(
    codec: Codec,
    found: Option<&Found>,
    numbers: &[u8],
    scales: &[u8],
    (head, capacity): (usize, usize),
    from: usize,
    dim: usize,
    to: &mut [f32],
) {
    let (Scales::Apart { .. }, Some(found)) = (codec.scales, found) else {
        return super::decode_rows(codec, numbers, scales, (head, capacity), from, dim, to);
    };
    let (row, pairs, n) = (codec.row(dim), codec.scales_row(dim), to.len() / dim);
    assert!(to.len() == n * dim && from + n <= capacity, "entries {from}+{n} of {capacity}");
    let first = head * capacity + from;
    let (numbers, beside) = (&numbers[first * row..(first + n) * row], &scales[first * pairs..(first + n) * pairs]);
    found.read(codec, head, numbers, f16::of_bytes(beside), dim, to);
}

/// As [`encode`](super::encode()), of entries that may have such levels.
#[allow(clippy::too_many_arguments)]
pub fn encode_in(
    codec: Codec,
    found: Option<&Found>,
    rows: &[f32],
    heads: usize,
    dim: usize,
    numbers: &mut [u8],
    scales: &mut [u8],
    capacity: usize,
    at: usize,
) {
    let (Scales::Apart { .. }, Some(found)) = (codec.scales, found) else {
        return super::encode(codec, rows, heads, dim, numbers, scales, capacity, at);
    };
    let (row, pairs, n) = (codec.row(dim), codec.scales_row(dim), rows.len() / (heads * dim).max(1));
    assert!(rows.len() == heads * n * dim && at + n <= capacity, "{n} entries at {at} of {capacity}");
    for (head, rows) in rows.chunks_exact((n * dim).max(1)).enumerate() {
        let first = head * capacity + at;
        let (numbers, beside) =
            (&mut numbers[first * row..(first + n) * row], &mut scales[first * pairs..(first + n) * pairs]);
        found.write(codec, head, rows, dim, numbers, f16::of_bytes_mut(beside));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Basis, OwnedRun};
    use super::*;
    use crate::codec::{Dual, KvCodec};

    fn noise(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// A row by the formula, in f64.
    fn twin(row: &[f32], levels: &[f32], channels: Option<(&[f32], &[f32])>, count: usize) -> Vec<f64> {
        let wide: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        let mean = wide.iter().sum::<f64>() / wide.len() as f64;
        let away = |c: usize| match channels {
            Some((scales, zeros)) => ((wide[c] - f64::from(zeros[c])) / f64::from(scales[c])).abs(),
            None => (wide[c] - mean).abs(),
        };
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| away(*b).total_cmp(&away(*a)));
        let (apart, left) = order.split_at(count);
        let (low, high) = left.iter().fold((f32::MAX, f32::MIN), |(a, b), c| (a.min(row[*c]), b.max(row[*c])));
        let half = |x: f32| f16::from_f32(x).to_f64();
        let of = |c: usize| match channels {
            Some((scales, zeros)) => (f64::from(scales[c]), f64::from(zeros[c])),
            None => (half((high - low) / 2.0), half((high + low) / 2.0)),
        };
        let mut out: Vec<f64> = (0..row.len())
            .map(|c| {
                let (scale, zero) = of(c);
                let levels = levels.iter().map(|level| f64::from(*level) * scale + zero);
                levels.min_by(|a, b| (a - wide[c]).abs().total_cmp(&(b - wide[c]).abs())).expect("levels")
            })
            .collect();
        apart.iter().for_each(|c| out[*c] = half(row[*c]));
        out
    }

    #[test]
    fn rows_come_back_as_the_formula_says() {
        let four: Vec<f32> = (0..16).map(|i| ((i as f32 - 7.4) / 8.0).powi(3) * 1.1 + 0.01 * i as f32).collect();
        let two = vec![-0.8, -0.2, 0.25, 0.9];
        for (dim, heads, n, count) in [(64, 2, 5, 1), (80, 1, 0, 2), (96, 3, 1, 0), (128, 2, 33, 2), (8, 1, 3, 8)] {
            for levels in [&two, &four] {
                let positive = |seed: u64| noise(seed, heads * dim).iter().map(|x| x.abs() + 0.3).collect::<Vec<_>>();
                let channels = Channels { scales: positive(3), zeros: noise(4, heads * dim) };
                let keys = Found::new(levels, Some(channels.clone())).expect("keys");
                let values = Found::new(levels, None).expect("values");
                let codec = KvCodec::new(keys.codec(count), values.codec(count), Dual::None);
                codec.check(dim).expect("a codec");
                let basis = Basis::calibrated(heads, dim, keys, values).expect("a basis");
                let mut run = OwnedRun::based(codec, basis, n + 2);
                let (k, v) = (noise(1, heads * n * dim), noise(2, heads * n * dim));
                run.push(&k, &v);
                let run = run.run();
                for head in 0..heads {
                    for entry in 0..n {
                        let (mut key, mut value) = (vec![f32::NAN; dim], vec![f32::NAN; dim]);
                        run.read_keys(head, entry, dim, &mut key);
                        run.read_values(head, entry, dim, &mut value);
                        let row = |rows: &'_ [f32]| rows[(head * n + entry) * dim..][..dim].to_vec();
                        let of_head = (&channels.scales[head * dim..][..dim], &channels.zeros[head * dim..][..dim]);
                        let want = [
                            (&key, twin(&row(&k), levels, Some(of_head), count.into())),
                            (&value, twin(&row(&v), levels, None, count.into())),
                        ];
                        let read = crate::reference::codec::entry(&run, head, entry, dim);
                        for ((got, want), read) in want.iter().zip([read.0, read.1]) {
                            for ((got, want), read) in got.iter().zip(want).zip(read) {
                                assert!((f64::from(*got) - want).abs() < 1e-5, "{dim} {count}: {got} for {want}");
                                assert!((f64::from(*got) - read).abs() < 1e-5, "{dim} {count}: {got} for {read}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn equal_numbers_and_impossible_levels() {
        let values = Found::new(&[-1.0, -0.3, 0.3, 1.0], None).expect("values");
        let codec = values.codec(1);
        let (mut numbers, mut beside) = (vec![0; codec.row(16)], vec![0; codec.scales_row(16)]);
        encode_in(codec, Some(&values), &[2.5; 16], 1, 16, &mut numbers, &mut beside, 1, 0);
        let mut back = vec![f32::NAN; 16];
        values.read(codec, 0, &numbers, f16::of_bytes(&beside), 16, &mut back);
        assert_eq!(back, [2.5; 16]);
        let refuse = |levels: &[f32], scales: &[f32]| {
            let channels = Channels { scales: scales.to_vec(), zeros: vec![0.0; 2] };
            Found::new(levels, Some(channels)).expect_err("impossible")
        };
        assert!(refuse(&[0.0; 3], &[1.0; 2]).contains("neither 4 nor 16"));
        assert!(refuse(&[0.0; 4], &[1.0; 2]).contains("rise"));
        assert!(refuse(&[0.0, 1.0, 2.0, f32::NAN], &[1.0; 2]).contains("rise"));
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
            assert!(refuse(&[0.0, 1.0, 2.0, 3.0], &[1.0, scale]).contains("above 0"));
        }
        let other = Found::new(&[0.0, 1.0, 2.0, 3.0], Some(Channels { scales: vec![1.0; 8], zeros: vec![0.0; 8] }));
        let refused = Basis::calibrated(2, 8, other.expect("of one head"), values).expect_err("of two");
        assert!(refused.contains("8 channels"), "{refused}");
    }
}
