//! Rotary position embedding in the half-split form of Hugging Face's Llama, and the append of rotated keys to a lane.
//!
//! Su et al. 2021, arXiv 2104.09864. Element `i` of the first half is paired with element `i` of the second half.

use rayon::prelude::*;

use crate::codec::Dual;
use crate::element::Element;
use crate::rows::Rows;
use crate::shared::Disjoint;

/// Phases whose angles one thread computes before others are woken.
const PHASES: usize = 256;

/// Cosines and sines of a run of positions, `[positions, head_dim / 2]` each.
#[derive(Debug)]
pub struct Angles {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    half: usize,
}

impl Angles {
    /// `inverse_frequencies` has `head_dim / 2` elements; angles are computed in f32 as the reference implementation does.
    /// `scale` multiplies cosines and sines (1 except for scaled variants).
    pub fn new(positions: impl IntoIterator<Item = u32>, inverse_frequencies: &[f32], scale: f32) -> Self {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in positions {
            for frequency in inverse_frequencies {
                let angle = position as f32 * frequency;
                cos.push(angle.cos() * scale);
                sin.push(angle.sin() * scale);
            }
        }
        Angles { cos, sin, half: inverse_frequencies.len() }
    }

    /// The angles with the numbers `rows`.
    pub fn select(&self, rows: &[u32]) -> Angles {
        let pick = |from: &[f32]| {
            let row = |row: &u32| &from[*row as usize * self.half..(*row as usize + 1) * self.half];
            rows.iter().flat_map(row).copied().collect()
        };
        Angles { cos: pick(&self.cos), sin: pick(&self.sin), half: self.half }
    }

    /// Those that turn back what these turn.
    pub fn back(mut self) -> Angles {
        self.sin.iter_mut().for_each(|sin| *sin = -*sin);
        self
    }

    /// Turns vectors where they are: row `i` of `[n, head_dim]` by the angle with the number `first + i`. The same bits as [`rotate`].
    pub fn turn(&self, first: usize, rows: &mut [f32]) {
        let n = rows.len() / (2 * self.half).max(1);
        let angles = first * self.half..(first + n) * self.half;
        crate::simd::rotate_rows(rows, 2 * self.half, &self.cos[angles.clone()], &self.sin[angles]);
    }

    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Cosines and sines with the number `index`.
    pub(crate) fn of(&self, index: u32) -> (&[f32], &[f32]) {
        let at = index as usize * self.half..(index as usize + 1) * self.half;
        (&self.cos[at.clone()], &self.sin[at])
    }
}

/// The rotations of entries that lie in the cache as they are: entry `e` is turned by the angle with the number `of[e]`. Lanes that hold
/// different entries, and layers, share the angles.
#[derive(Clone, Copy)]
pub struct Turns<'a> {
    pub angles: &'a Angles,
    pub of: &'a [u32],
}

impl Turns<'_> {
    /// Rotates rows of `dim` elements where they are, those of the entries from `first` on. The same bits as [`rotate`].
    pub(crate) fn rotate_rows(&self, first: usize, dim: usize, rows: &mut [f32]) {
        let Turns { angles: Angles { cos, sin, half }, of } = *self;
        assert_eq!(half * 2, dim);
        let n = rows.len() / dim;
        let mut at = 0;
        while at < n {
            // Entries that follow each other mostly have angles that do.
            let start = of[first + at];
            let together = of[first + at..first + n].iter().zip(start..).take_while(|(a, b)| **a == *b).count();
            let angles = start as usize * half..(start as usize + together) * half;
            let rows = &mut rows[at * dim..(at + together) * dim];
            crate::simd::rotate_rows(rows, dim, &cos[angles.clone()], &sin[angles]);
            at += together;
        }
    }
}

/// Where rotary embedding turns a position: along time, rows and columns. All three are the same for text.
pub type Phase = [u32; 3];

/// How the frequencies of a head are dealt out to the three axes of a [`Phase`]. Wang et al. 2024, arXiv 2409.12191.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections {
    /// Frequencies of each axis; together half of a head.
    pub sizes: [usize; 3],
    /// Rows and columns take every third frequency, as in Qwen3-VL, instead of a run each.
    pub interleaved: bool,
}

impl Sections {
    fn axis(&self, frequency: usize) -> u8 {
        let [time, rows, columns] = self.sizes;
        if self.interleaved {
            return match frequency % 3 {
                1 if frequency < 3 * rows => 1,
                2 if frequency < 3 * columns => 2,
                _ => 0,
            };
        }
        u8::from(frequency >= time) + u8::from(frequency >= time + rows)
    }
}

/// The frequencies of a head, each of which turns along one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    inverse: Vec<f32>,
    axes: Vec<u8>,
}

impl Frequencies {
    /// `inverse` has `head_dim / 2` elements, which without sections all turn along the first axis.
    pub fn new(inverse: Vec<f32>, sections: Option<Sections>) -> Self {
        let axis = |frequency| sections.map_or(0, |sections| sections.axis(frequency));
        Frequencies { axes: (0..inverse.len()).map(axis).collect(), inverse }
    }

    /// The inverse frequencies, half as many as a head has channels.
    pub fn inverse(&self) -> &[f32] {
        &self.inverse
    }

    /// Computed in f32, as the reference implementation does.
    pub fn angles(&self, phases: impl IntoIterator<Item = Phase>) -> Angles {
        let (phases, half): (Vec<Phase>, usize) = (phases.into_iter().collect(), self.inverse.len());
        let (mut cos, mut sin) = (vec![0.0; phases.len() * half], vec![0.0; phases.len() * half]);
        let rows = cos.par_chunks_exact_mut(half.max(1)).zip(sin.par_chunks_exact_mut(half.max(1)));
        rows.zip(&phases).with_min_len(PHASES).for_each(|((cos, sin), phase)| {
            let turning = self.inverse.iter().zip(&self.axes);
            for ((frequency, axis), (cos, sin)) in turning.zip(cos.iter_mut().zip(sin)) {
                let angle = phase[usize::from(*axis)] as f32 * frequency;
                (*cos, *sin) = (angle.cos(), angle.sin());
            }
        });
        Angles { cos, sin, half }
    }

    /// One angle, the mean of the rotations by `phases`: it turns a vector to the mean of what they turn it to, which is shorter. Holds no
    /// more than that one. Of no phases it is 0, which turns everything to nothing.
    pub fn mean(&self, phases: impl Iterator<Item = Phase> + Clone + Sync) -> Angles {
        let n = phases.clone().count().max(1) as f64;
        let one = |(frequency, axis): (&f32, &u8)| {
            let mut sums = [0.0f64; 2];
            for phase in phases.clone() {
                let angle = phase[usize::from(*axis)] as f32 * frequency;
                sums[0] += f64::from(angle.cos());
                sums[1] += f64::from(angle.sin());
            }
            ((sums[0] / n) as f32, (sums[1] / n) as f32)
        };
        let (cos, sin) = self.inverse.par_iter().zip(&self.axes).map(one).unzip();
        Angles { cos, sin, half: self.inverse.len() }
    }
}

#[inline]
fn rotate_one(row: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]) {
    let half = cos.len();
    let (low, high) = row.split_at(half);
    let (out_low, out_high) = out.split_at_mut(half);
    for i in 0..half {
        out_low[i] = low[i] * cos[i] - high[i] * sin[i];
        out_high[i] = high[i] * cos[i] + low[i] * sin[i];
    }
}

/// Rotates the vectors of `rows` (`heads` of them per row, `dim` long) into `out`, `[n, heads, dim]`.
pub fn rotate(rows: Rows<'_>, heads: usize, dim: usize, angles: &Angles, out: &mut [f32]) {
    let n = angles.positions();
    assert_eq!(angles.half * 2, dim);
    assert_eq!(out.len(), n * heads * dim);
    let one = |(i, out): (usize, &mut [f32])| {
        let (cos, sin) = (&angles.cos[i * dim / 2..(i + 1) * dim / 2], &angles.sin[i * dim / 2..(i + 1) * dim / 2]);
        let row = rows.part(i, 0, heads * dim);
        for (row, out) in row.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
            rotate_one(row, cos, sin, out);
        }
    };
    if n < 16 {
        out.chunks_exact_mut(heads * dim).enumerate().for_each(one);
    } else {
        out.par_chunks_exact_mut(heads * dim).enumerate().for_each(one);
    }
}

/// The keys and values of new positions, all KV heads of the layer per row.
#[derive(Clone, Copy)]
pub struct New<'a> {
    pub keys: Rows<'a>,
    pub values: Rows<'a>,
    /// The rows `skip .. skip + n` are meant.
    pub skip: usize,
    pub n: usize,
    /// Rotates the keys; row `i` by angle `i`. None stores them as they are.
    pub angles: Option<&'a Angles>,
}

/// Writes new positions into a segment of a lane that owns the KV heads `heads`.
///
/// `to_keys` and `to_values` are `[heads.len(), capacity, dim]`; the first new row goes to entry `at`. Both are stored through `dual`,
/// the keys after their rotation.
pub fn append<K: Element, V: Element>(
    new: New<'_>,
    dual: Dual,
    heads: std::ops::Range<usize>,
    dim: usize,
    to_keys: &mut [K],
    to_values: &mut [V],
    at: usize,
) {
    let (n, half) = (new.n, dim / 2);
    let capacity = to_keys.len() / (heads.len() * dim).max(1);
    assert!(at + n <= capacity, "{n} entries at {at} of {capacity}");
    assert_eq!(to_keys.len(), to_values.len());
    let (to_keys, to_values) = (Disjoint::new(to_keys), Disjoint::new(to_values));
    let one = |task: usize| {
        let (lane_head, i) = (task / n, task % n);
        let (source, row) = ((heads.start + lane_head) * dim, new.skip + i);
        let offset = (lane_head * capacity + at + i) * dim;
        // SAFETY: (lane_head, i) is unique to the task, so the parts do not overlap.
        let (to_key, to_value) = unsafe { (to_keys.part(offset, dim), to_values.part(offset, dim)) };
        let (key, value) = (new.keys.part(row, source, dim), new.values.part(row, source, dim));
        if !dual.is_none() {
            let (mut turned, mut value) = (key.to_vec(), value.to_vec());
            if let Some(angles) = new.angles {
                let (cos, sin) = (&angles.cos[row * half..][..half], &angles.sin[row * half..][..half]);
                rotate_one(key, cos, sin, &mut turned);
            }
            dual.keys().apply(&mut turned, dim);
            dual.values().apply(&mut value, dim);
            crate::simd::narrow(&turned, to_key);
            crate::simd::narrow(&value, to_value);
            return;
        }
        match new.angles {
            Some(angles) => {
                let (cos, sin) = (&angles.cos[row * half..][..half], &angles.sin[row * half..][..half]);
                let (low, high) = key.split_at(half);
                let (to_low, to_high) = to_key.split_at_mut(half);
                for j in 0..half {
                    to_low[j] = K::narrow(low[j] * cos[j] - high[j] * sin[j]);
                    to_high[j] = K::narrow(high[j] * cos[j] + low[j] * sin[j]);
                }
            }
            None => crate::simd::narrow(key, to_key),
        }
        crate::simd::narrow(value, to_value);
    };
    if n < 16 {
        (0..heads.len() * n).for_each(one);
    } else {
        (0..heads.len() * n).into_par_iter().with_min_len(64).for_each(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn rotation_keeps_lengths_and_depends_on_distance_only() {
        let dim = 8;
        let frequencies: Vec<f32> = (0..4).map(|i| 10_000f32.powf(-(i as f32) / 4.0)).collect();
        let q: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.7).sin()).collect();
        let k: Vec<f32> = (0..dim).map(|i| (i as f32 * 1.3).cos()).collect();
        let at = |v: &[f32], position: u32| {
            let mut out = vec![0.0; dim];
            rotate(Rows::dense(v, dim), 1, dim, &Angles::new([position], &frequencies, 1.0), &mut out);
            out
        };
        let score = |p: u32, s: u32| at(&q, p).iter().zip(at(&k, s)).map(|(a, b)| a * b).sum::<f32>();
        assert!((score(17, 9) - score(108, 100)).abs() < 1e-4);
        assert!((score(17, 9) - score(18, 9)).abs() > 1e-3);
    }

    #[test]
    fn each_frequency_turns_along_its_axis() {
        let axes = |sizes: [usize; 3], interleaved: bool| {
            let all = sizes.iter().sum();
            Frequencies::new(vec![1.0; all], Some(Sections { sizes, interleaved })).axes
        };
        assert_eq!(axes([2, 3, 3], false), [0, 0, 1, 1, 1, 2, 2, 2]);
        // Qwen3-VL gives rows and columns every third frequency as long as they have some left.
        assert_eq!(axes([4, 2, 2], true), [0, 1, 2, 0, 1, 2, 0, 0]);
        let inverse: Vec<f32> = (0..4).map(|i| 100f32.powf(-(i as f32) / 4.0)).collect();
        let phases = [[3, 3, 3], [4, 9, 7], [0, 70_000, 1]];
        let sections = Sections { sizes: [1, 2, 1], interleaved: false };
        let angles = Frequencies::new(inverse.clone(), Some(sections)).angles(phases);
        for (i, phase) in phases.iter().enumerate() {
            for (j, axis) in [0, 1, 1, 2].into_iter().enumerate() {
                let angle = f64::from(phase[axis] as f32 * inverse[j]);
                assert!((f64::from(angles.cos[4 * i + j]) - angle.cos()).abs() < 1e-6);
                assert!((f64::from(angles.sin[4 * i + j]) - angle.sin()).abs() < 1e-6);
            }
        }
        // Without sections, and with one number for all axes, it is the ordinary embedding to the bit.
        let plain = Angles::new([5, 6], &inverse, 1.0);
        for sections in [None, Some(sections)] {
            let same = Frequencies::new(inverse.clone(), sections).angles([[5; 3], [6; 3]]);
            assert!(same.cos == plain.cos && same.sin == plain.sin);
        }
    }

    /// Over the three axes and heads of all sizes.
    #[test]
    fn turning_back_undoes_and_a_mean_turns_to_the_mean() {
        for half in [1, 3, 8, 20, 64] {
            let dim = 2 * half;
            let inverse: Vec<f32> = (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect();
            let sections = Sections { sizes: [half / 2, half / 4, half - half / 2 - half / 4], interleaved: false };
            let frequencies = Frequencies::new(inverse, Some(sections));
            let phases = (5..42u32).map(|i| [i, 3 * i % 17, i / 4]);
            let angles = frequencies.angles(phases.clone());
            let rows: Vec<f32> = (0..37 * dim).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect();
            let mut turned = vec![0.0; rows.len()];
            rotate(Rows::dense(&rows, dim), 1, dim, &angles, &mut turned);
            let (mut here, mut later) = (rows.clone(), rows[10 * dim..].to_vec());
            angles.turn(0, &mut here);
            angles.turn(10, &mut later);
            assert!(here == turned && later == turned[10 * dim..], "{dim}");
            angles.back().turn(0, &mut here);
            assert!(here.iter().zip(&rows).all(|(got, want)| (got - want).abs() < 1e-6), "{dim}");

            let vector: Vec<f32> = rows[..dim].to_vec();
            let mut means = vec![0.0f64; dim];
            for phase in phases.clone() {
                let mut turned = vector.clone();
                frequencies.angles([phase]).turn(0, &mut turned);
                means.iter_mut().zip(&turned).for_each(|(mean, x)| *mean += f64::from(*x) / 37.0);
            }
            let mean = frequencies.mean(phases);
            assert_eq!(mean.positions(), 1);
            let mut turned = vector;
            mean.turn(0, &mut turned);
            assert!(turned.iter().zip(&means).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-6), "{dim}");
        }
    }

    #[test]
    fn append_places_rotated_keys_of_the_lanes_heads() {
        let (n, all_heads, dim, capacity) = (20, 3, 4, 25);
        let keys: Vec<f32> = (0..n * all_heads * dim).map(|i| i as f32 / 100.0).collect();
        let values: Vec<f32> = keys.iter().map(|x| -x).collect();
        let angles = Angles::new(5..5 + n as u32, &[1.0, 0.1], 1.0);
        let mut rotated = vec![0.0; keys.len()];
        rotate(Rows::dense(&keys, all_heads * dim), all_heads, dim, &angles, &mut rotated);
        let (mut k, mut v) = (vec![f16::ZERO; 2 * capacity * dim], vec![f16::ZERO; 2 * capacity * dim]);
        let rows = |data| Rows::dense(data, all_heads * dim);
        let new = New { keys: rows(&keys), values: rows(&values), skip: 0, n, angles: Some(&angles) };
        append(new, Dual::None, 1..3, dim, &mut k, &mut v, 3);
        for head in 0..2 {
            for i in 0..n {
                for j in 0..dim {
                    let from = (i * all_heads + head + 1) * dim + j;
                    let to = (head * capacity + 3 + i) * dim + j;
                    assert_eq!(k[to], f16::from_f32(rotated[from]));
                    assert_eq!(v[to], f16::from_f32(values[from]));
                }
            }
            assert_eq!(k[head * capacity * dim], f16::ZERO);
        }
    }
}
