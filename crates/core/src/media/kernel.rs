//! Resampling filters and their fixed-point weights, as Pillow computes them for 8-bit images.

use std::f64::consts::PI;
use std::ops::Range;

/// Fractional bits of a weight: 32, less 8 of the sample, less 2 for sign and overshoot.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// The resampling filters, with Pillow's numbers (`PIL.Image.Resampling`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 0: the source pixel under the centre of the output pixel; no antialiasing.
    Nearest,
    /// 1: windowed sinc, support 3.
    Lanczos,
    /// 2: triangle, support 1.
    Bilinear,
    /// 3: cubic convolution with a = -0.5, support 2. CLIP's filter.
    Bicubic,
    /// 4: mean of the covered pixels, support 0.5.
    Box,
}

impl Filter {
    /// The filter that Pillow and `preprocessor_config.json` call `number`; `None` for Hamming (5) and unknown ones.
    pub fn from_pillow(number: i64) -> Option<Self> {
        [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic, Filter::Box]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// Half the width of the filter at scale 1, in source pixels.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.0,
            Filter::Lanczos => 3.0,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Box => 0.5,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let distance = x.abs();
        match self {
            Filter::Nearest => 1.0,
            // The asymmetric bounds give each source pixel to exactly one output pixel.
            Filter::Box if x > -0.5 && x <= 0.5 => 1.0,
            Filter::Bilinear if distance < 1.0 => 1.0 - distance,
            Filter::Bicubic if distance < 1.0 => ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0,
            Filter::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A,
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// For each of some consecutive output positions along one axis: where its source pixels begin, and their weights.
pub(super) struct Kernel {
    starts: Vec<usize>,
    ends: Vec<usize>,
    weights: Vec<i32>,
}

impl Kernel {
    /// Weights to resize an axis of `input` pixels to `output` pixels, for the output positions in `window` only.
    pub(super) fn new(filter: Filter, input: usize, output: usize, window: Range<usize>) -> Self {
        // Pillow skips the pass of an axis that keeps its size; a weight of 1 on each pixel does the same.
        if filter == Filter::Nearest || input == output {
            return Self::nearest(input, output, window);
        }
        let scale = input as f64 / output as f64;
        // When shrinking, the filter is stretched over all source pixels that it must represent.
        let segment = scale.max(1.0);
        let support = filter.support() * segment;
        let mut kernel = Self { starts: Vec::new(), ends: Vec::new(), weights: Vec::new() };
        let mut exact = Vec::new();
        for position in window {
            let centre = (position as f64 + 0.5) * scale;
            // Truncation, not floor: what C's cast does; negative values clamp to 0 either way.
            let start = ((centre - support + 0.5) as i64).max(0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            exact.clear();
            exact.extend((start..end).map(|x| filter.at((x as f64 - centre + 0.5) * (1.0 / segment))));
            let sum: f64 = exact.iter().sum();
            let norm = if sum == 0.0 { 1.0 } else { sum };
            kernel.push(start, exact.iter().map(|weight| fixed(weight / norm)));
        }
        kernel
    }

    fn nearest(input: usize, output: usize, window: Range<usize>) -> Self {
        let step = input as f64 / output as f64;
        let mut kernel = Self { starts: Vec::new(), ends: Vec::new(), weights: Vec::new() };
        // Pillow adds the step up instead of multiplying; the rounding differs, so positions before the window count.
        let mut at = step * 0.5;
        for position in 0..window.end {
            if position >= window.start {
                kernel.push((at as usize).min(input - 1), std::iter::once(1 << PRECISION_BITS));
            }
            at += step;
        }
        kernel
    }

    fn push(&mut self, start: usize, weights: impl Iterator<Item = i32>) {
        self.starts.push(start);
        self.weights.extend(weights);
        self.ends.push(self.weights.len());
    }

    /// The first source pixel and the weights for output position `index` of the window.
    pub(super) fn taps(&self, index: usize) -> (usize, &[i32]) {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        (self.starts[index], &self.weights[begin..self.ends[index]])
    }

    /// The number of output positions.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Weights of a typical output position: multiply-adds per sample.
    pub(super) fn cost(&self) -> usize {
        self.weights.len().div_ceil(self.len().max(1))
    }

    /// The source pixels that any output position reads.
    pub(super) fn reach(&self) -> Range<usize> {
        // Starts and ends never decrease from one position to the next.
        match self.len() {
            0 => 0..0,
            n => self.starts[0]..self.starts[n - 1] + self.taps(n - 1).1.len(),
        }
    }
}

fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// A fixed-point sum (which started at half a unit, for rounding) as a sample.
pub(super) fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
