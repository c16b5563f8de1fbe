//! Products with entries as they are stored, sixteen numbers at a time: no row is ever written in f32.
//!
//! For AVX-512 with VBMI, and heads and groups of a multiple of 16 channels; `None` elsewhere, and the caller goes through f32 as
//! [`decode_rows`](crate::codec::decode_rows) has it, which is the twin.
//!
//! Codes of four and of two bits are looked up, evenly spaced ones too: a byte shift brings sixteen codes of eight or four bytes into
//! sixteen words, and a permutation takes the numbers out of a register, of whose index it sees four bits. Of two bits those are the code
//! and its neighbour, so the table is there four times.
//!
//! Scales are taken out of the loops: a scale per channel belongs to the query, `q . (c s + m) = (q s) . c + q . m`, once for a group of
//! entries; one per entry to the sums of its group of channels, or to the weight of a value.
//!
//! Evenly spaced codes count from the middle of their range, `c s + m = (c - d) s + (m + d s)`: codes from 0 on and zeros below 0 would make two
//! large sums that cancel, and with them a hundred times the error.
//!
//! With VNNI, many keys with evenly spaced codes and scales per entry are multiplied in integers (`keys`).

// Elsewhere nothing of it is used.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))]

use half::f16;

use crate::codec::{Codec, Dtype, Levels, Scales, Table};

/// Numbers of a vector.
const LANES: usize = 16;
/// Channels of a head at most.
const DIM: usize = 256;
/// Rows whose scales are widened at once.
const ROWS: usize = 32;
/// Scales and zeros of a row at most.
const HALVES: usize = 2 * DIM / LANES;
/// Queries that share a pass over the numbers at most.
const QUERIES: usize = 4;

/// Room for what is worked out once for some rows. It is worth keeping for others: clearing it takes as long as some of them.
pub struct Scratch {
    /// The queries as the rows meet them: times the scales of the channels.
    queries: [f32; QUERIES * DIM],
    /// By how much the zeros of the channels raise every score of a query.
    added: [f32; QUERIES],
    /// By the scales and zeros of a row, 0 and the sum of the query over the group of channels.
    zeros: [f32; QUERIES * HALVES],
    /// Scales and zeros.
    wide: [f32; ROWS * HALVES],
    /// Weights of values, times scales and zeros.
    factors: [[f32; ROWS * HALVES]; QUERIES],
    /// The queries in digits.
    #[cfg(target_arch = "x86_64")]
    digits: keys::Queries,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            queries: [0.0; QUERIES * DIM],
            added: [0.0; QUERIES],
            zeros: [0.0; QUERIES * HALVES],
            wide: [0.0; ROWS * HALVES],
            factors: [[0.0; ROWS * HALVES]; QUERIES],
            #[cfg(target_arch = "x86_64")]
            digits: keys::Queries::default(),
        }
    }
}

/// Some rows of keys, or values, of a head as they are stored; of one group where entries share scales.
#[derive(Clone, Copy)]
pub struct Coded<'a> {
    codec: Codec,
    dim: usize,
    rows: usize,
    /// Channels that share a scale.
    group: usize,
    /// Scales and zeros of a row of its own.
    halves: usize,
    /// `[rows, dim]`.
    numbers: &'a [u8],
    /// Per channel `[2, dim]`, per entry `[rows, groups, 2]`, or without the zeros `[rows, groups]`.
    scales: &'a [f16],
    /// Whether products are in integers, where there are such loops.
    integers: bool,
}

impl<'a> Coded<'a> {
    /// None: this machine has no such loops, or there are none for this codec.
    pub fn new(codec: Codec, dim: usize, numbers: &'a [u8], scales: &'a [f16]) -> Option<Self> {
        let group = match codec.scales {
            Scales::PerEntry { group, .. } => group.into(),
            Scales::Apart { .. } => return None,
            _ => dim,
        };
        let fits = dim > 0 && dim <= DIM && group.is_multiple_of(LANES) && dim.is_multiple_of(group);
        if !fits || codec.dtype.is_plain() || !available() {
            return None;
        }
        let rows = numbers.len() / codec.row(dim);
        assert_eq!(numbers.len(), rows * codec.row(dim));
        let halves = codec.scales_row(dim) / size_of::<f16>();
        let shared = codec.entries() > 1;
        assert_eq!(scales.len(), if shared { halves } else { rows * halves });
        let halves = if shared { 0 } else { halves };
        Some(Coded { codec, dim, rows, group, halves, numbers, scales, integers: counts() })
    }

    /// From the scale of a group of channels to the next one.
    #[cfg(target_arch = "x86_64")]
    fn step(&self) -> usize {
        if self.codec.levels == Levels::Even { 2 } else { 1 }
    }

    /// The middle of evenly spaced codes, which they are counted from.
    #[cfg(target_arch = "x86_64")]
    fn middle(&self) -> f32 {
        match (self.codec.levels, self.codec.dtype) {
            (Levels::Even, Dtype::U8) => 128.0,
            (Levels::Even, Dtype::U4) => 7.5,
            (Levels::Even, Dtype::U2) => 1.5,
            _ => 0.0,
        }
    }

    /// The numbers of sixteen indices, of which two-bit codes fill a quarter.
    #[cfg(target_arch = "x86_64")]
    fn table(&self) -> Table {
        let levels = self.codec.levels.table(self.codec.dtype);
        std::array::from_fn(|i| {
            let code = if self.codec.dtype == Dtype::U2 { i % 4 } else { i };
            levels.map_or(code as f32 - self.middle(), |levels| levels[code])
        })
    }

    /// As [`scores`](super::scores), of these rows.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub fn scores(&self, queries: &[f32], scale: f32, scores: &mut [f32], step: usize, scratch: &mut Scratch) {
        let (group, rows) = (queries.len() / self.dim, self.rows);
        assert!(queries.len() == group * self.dim && (group == 0 || scores.len() >= (group - 1) * step + rows));
        #[cfg(target_arch = "x86_64")]
        if rows > 0 {
            // SAFETY: a value exists only where the features were detected.
            unsafe { x86::scores(self, queries, scale, scores, step, scratch) };
        }
    }

    /// As [`weighted_sums`](super::weighted_sums), of these rows. None have scales per channel.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub fn weighted_sums(&self, weights: &[f32], step: usize, sums: &mut [f32], scratch: &mut Scratch) {
        let (group, rows) = (sums.len() / self.dim, self.rows);
        assert!(sums.len() == group * self.dim && (group == 0 || weights.len() >= (group - 1) * step + rows));
        assert!(self.codec.entries() == 1, "values with scales per channel");
        #[cfg(target_arch = "x86_64")]
        if rows > 0 {
            // SAFETY: as above.
            unsafe { x86::weighted_sums(self, weights, step, sums, scratch) };
        }
    }
}

/// Whether this machine has the loops.
fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        super::has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether this machine also has products of bytes that are summed up in words.
fn counts() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        available() && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

#[cfg(target_arch = "x86_64")]
mod digits;
#[cfg(target_arch = "x86_64")]
mod keys;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode_rows, encode};
    use crate::simd;

    fn noise(seed: usize, n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 104_729 % 9973) as f32 / 4986.5 - 1.0).collect()
    }

    fn codecs(dim: usize) -> Vec<Codec> {
        let group = if dim.is_multiple_of(32) { 32 } else { 16 };
        let mut all = vec![Codec::plain(Dtype::Bf16), Codec::plain(Dtype::F8)];
        for dtype in [Dtype::U8, Dtype::U4, Dtype::U2] {
            all.extend([Codec::per_entry(dtype, group), Codec::per_entry(dtype, 16), Codec::per_channel(dtype, 32)]);
        }
        for dtype in [Dtype::U4, Dtype::U2] {
            all.extend([dim as u16, 16].map(|group| Codec::of_levels(dtype, Levels::Normal, group)));
        }
        all
    }

    #[test]
    fn products_are_those_of_the_decoded_rows() {
        if !available() {
            return;
        }
        // One for all, with whatever is left in it.
        let (mut checked, mut scratch) = (0, Scratch::default());
        scratch.zeros.fill(f32::NAN);
        scratch.wide.fill(f32::NAN);
        for dim in [16, 48, 64, 80, 96, 128, 256] {
            for codec in codecs(dim) {
                for n in [0, 1, 2, 7, 8, 9, 31, 32, 33, 70, 512] {
                    let n = if codec.entries() > 1 { n.min(codec.entries()) } else { n };
                    // Of a group the first rows are read.
                    let stored = n.next_multiple_of(codec.entries()).max(codec.entries());
                    let rows = noise(n + dim, stored * dim);
                    let mut numbers = vec![0; stored * codec.row(dim)];
                    let mut scales = vec![f16::ZERO; stored / codec.entries() * codec.scales_row(dim) / 2];
                    let bytes = <f16 as crate::element::Element>::bytes_mut(&mut scales);
                    encode(codec, &rows, 1, dim, &mut numbers, bytes, stored, 0);
                    let mut wide = vec![0.0; n * dim];
                    let all = <f16 as crate::element::Element>::bytes(&scales);
                    decode_rows(codec, &numbers, all, (0, stored), 0, dim, &mut wide);
                    let shared = if codec.entries() > 1 { scales.len() } else { n * codec.scales_row(dim) / 2 };
                    let numbers = &numbers[..n * codec.row(dim)];
                    let Some(coded) = Coded::new(codec, dim, numbers, &scales[..shared]) else {
                        panic!("{codec:?} of {dim}");
                    };
                    for (group, integers) in [1, 2, 3, 4, 5, 8].into_iter().flat_map(|n| [(n, false), (n, counts())]) {
                        let coded = Coded { integers, ..coded };
                        let (step, queries) = (n + 3, noise(group, group * dim));
                        let (mut got, mut twin) = (vec![7.0; group * step], vec![7.0; group * step]);
                        coded.scores(&queries, 0.37, &mut got, step, &mut scratch);
                        simd::scores(&queries, dim, &wide, 0.37, &mut twin, step);
                        let exact = |q: usize, i: usize| -> f64 {
                            let products = queries[q * dim..(q + 1) * dim].iter().zip(&wide[i * dim..(i + 1) * dim]);
                            0.37f32 as f64 * products.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                        };
                        let scores = (0..group).flat_map(|q| (0..n).map(move |i| (q * step + i, q, i)));
                        let name = format!("scores of {codec:?}, {group} x {n} x {dim}, integers: {integers}");
                        close(&got, &twin, scores.map(|(at, q, i)| (at, exact(q, i))), &name);
                        assert!(
                            (0..group).all(|q| got[q * step + n..(q + 1) * step].iter().all(|x| *x == 7.0)),
                            "{name}"
                        );
                        // As of a softmax: all of one sign.
                        let weights: Vec<f32> = noise(3, group * step).iter().map(|x| x.abs()).collect();
                        let (mut got, mut twin) = (vec![0.25; group * dim], vec![0.25; group * dim]);
                        if codec.entries() == 1 {
                            coded.weighted_sums(&weights, step, &mut got, &mut scratch);
                            simd::weighted_sums(&weights, step, &wide, dim, &mut twin);
                            let exact = |q: usize, c: usize| -> f64 {
                                let of = |i: usize| f64::from(weights[q * step + i]) * f64::from(wide[i * dim + c]);
                                0.25 + (0..n).map(of).sum::<f64>()
                            };
                            let sums = (0..group).flat_map(|q| (0..dim).map(move |c| (q * dim + c, q, c)));
                            let name = format!("sums of {codec:?}, {group} x {n} x {dim}, integers: {integers}");
                            close(&got, &twin, sums.map(|(at, q, c)| (at, exact(q, c))), &name);
                        }
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked > 5000);
        assert!(Coded::new(Codec::per_entry(Dtype::U4, 8), 64, &[], &[]).is_none());
        assert!(Coded::new(Codec::F16, 64, &[], &[]).is_none());
        assert!(Coded::new(Codec::plain(Dtype::F8), 72, &[], &[]).is_none());
    }

    /// No farther from the exact numbers than a few times the twin, whose sums are in f32 too.
    fn close(got: &[f32], twin: &[f32], exact: impl Iterator<Item = (usize, f64)>, name: &str) {
        let (mut off, mut twin_off, mut largest) = (0.0f64, 0.0f64, 0.0f64);
        for (at, exact) in exact {
            assert!(got[at].is_finite(), "{name}: {} at {at}", got[at]);
            off = off.max((f64::from(got[at]) - exact).abs());
            twin_off = twin_off.max((f64::from(twin[at]) - exact).abs());
            largest = largest.max(exact.abs());
        }
        assert!(off <= 4.0 * twin_off + 3e-7 * largest, "{name}: {off:e} off, the twin {twin_off:e}, of {largest}");
    }

    /// Rows, queries and weights at the ends of their ranges: products in integers are as close as those in f32, and no number where
    /// those are none.
    #[test]
    fn integers_and_floats_agree_at_the_edges() {
        if !counts() {
            return;
        }
        let mut scratch = Scratch::default();
        for dim in [64, 80, 96, 128, 256] {
            for codec in codecs(dim).into_iter().filter(|codec| codec.levels == Levels::Even && codec.dtype.is_code()) {
                for size in [0.0, 1e-7, 1.0, 3e4, f32::INFINITY] {
                    let n = 32;
                    // A group of equal numbers too, whose scale is 0.
                    let mut rows: Vec<f32> = noise(dim, n * dim).iter().map(|x| 7.0 + x).collect();
                    rows[..dim / 2].fill(0.25);
                    rows.iter_mut().for_each(|x| *x *= if size == 0.0 { 0.0 } else { size.min(1e3) });
                    if size.is_infinite() {
                        rows[3 * dim + 1] = 1e30;
                    }
                    let mut numbers = vec![0; n * codec.row(dim)];
                    let mut scales = vec![f16::ZERO; n / codec.entries() * codec.scales_row(dim) / 2];
                    let bytes = <f16 as crate::element::Element>::bytes_mut(&mut scales);
                    encode(codec, &rows, 1, dim, &mut numbers, bytes, n, 0);
                    let coded = Coded::new(codec, dim, &numbers, &scales).expect("loops");
                    let plain = Coded { integers: false, ..coded };
                    for ask in [0.0, 1e-37, 1e-20, 1.0, 1e20, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        let mut queries = noise(5, 2 * dim);
                        match ask.is_finite() {
                            true => queries.iter_mut().for_each(|x| *x *= ask),
                            false => queries[dim + 7] = ask,
                        }
                        let (mut got, mut want) = ([vec![0.0; 2 * n], vec![0.0; 2 * n]], 0.0f32);
                        coded.scores(&queries, 1.0, &mut got[0], n, &mut scratch);
                        plain.scores(&queries, 1.0, &mut got[1], n, &mut scratch);
                        got[1].iter().filter(|x| x.is_finite()).for_each(|x| want = want.max(x.abs()));
                        let name = format!("scores of {codec:?} x {dim}, rows {size}, queries {ask}");
                        alike(&got[0], &got[1], 4e-6 * want, &name);
                    }
                    for weigh in [0.0, 1e-38, 1e-26, 1.0, -1.0, 1e27, f32::NAN, f32::INFINITY] {
                        let mut weights = noise(6, n);
                        match weigh.is_finite() {
                            true => weights.iter_mut().for_each(|x| *x = x.abs() * weigh),
                            false => weights[9] = weigh,
                        }
                        if codec.entries() == 1 {
                            let (mut got, mut want) =
                                ([vec![0.5 * weigh.min(1.0); dim], vec![0.5 * weigh.min(1.0); dim]], 0.0f32);
                            coded.weighted_sums(&weights, n, &mut got[0], &mut scratch);
                            plain.weighted_sums(&weights, n, &mut got[1], &mut scratch);
                            got[1].iter().filter(|x| x.is_finite()).for_each(|x| want = want.max(x.abs()));
                            let name = format!("sums of {codec:?} x {dim}, rows {size}, weights {weigh}");
                            alike(&got[0], &got[1], 4e-6 * want, &name);
                        }
                    }
                }
            }
        }
    }

    fn alike(got: &[f32], want: &[f32], tolerance: f32, name: &str) {
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let same = if want.is_finite() { (got - want).abs() <= tolerance } else { !got.is_finite() };
            assert!(same, "{name}: {got} for {want} at {i}");
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let numbers: Vec<u8> = [0x7f; 16].into();
        if let Some(coded) = Coded::new(Codec::plain(Dtype::F8), 16, &numbers, &[]) {
            let mut scores = [0.0];
            coded.scores(&[1.0; 16], 1.0, &mut scores, 1, &mut Scratch::default());
            assert!(scores[0].is_nan());
        }
    }
}
