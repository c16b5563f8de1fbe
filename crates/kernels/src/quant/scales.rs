//! The search for the scale and the minimum of 32 weights in 4 bits.
//!
//! Weights x are held as `scale * code - minimum` with codes 0 ..= 15, a scale and a minimum that are not negative. For given codes the
//! weighted squared error is smallest at a linear regression of x on the codes. So candidates of codes are made, by widening and
//! narrowing the range of x at both ends, each is fitted, and the best one is improved by turns of rounding and fitting. Larger weights count for more, because they move a product more: x counts as the root mean square of the block plus
//! its magnitude.

use super::{BLOCK, ROUND, vectorised};

/// The largest code.
pub(super) const MOST: f32 = 15.0;

/// A scale and a minimum, and the weighted squared error that they leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) scale: f32,
    pub(super) minimum: f32,
    pub(super) error: f32,
}

/// Sums are taken in lanes, which become vectors.
const LANES: usize = 8;

#[inline(always)]
fn sum(lanes: [f32; LANES]) -> f32 {
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

/// What each of the numbers counts.
#[inline(always)]
pub(super) fn importance(x: &[f32; BLOCK]) -> [f32; BLOCK] {
    let mut squares = [0.0; LANES];
    for eight in x.as_chunks::<LANES>().0 {
        for (lane, x) in squares.iter_mut().zip(eight) {
            *lane += x * x;
        }
    }
    let size = (sum(squares) / BLOCK as f32).sqrt();
    x.map(|x| size + x.abs())
}

/// The codes nearest to `(x + minimum) * inverse`.
#[inline(always)]
pub(super) fn round(x: &[f32; BLOCK], minimum: f32, inverse: f32) -> [f32; BLOCK] {
    let mut codes = [0.0; BLOCK];
    for (code, x) in codes.iter_mut().zip(x) {
        *code = ((x + minimum) * inverse).clamp(0.0, MOST) + ROUND - ROUND;
    }
    codes
}

/// The weighted squared error.
#[inline(always)]
pub(super) fn error(x: &[f32; BLOCK], counts: &[f32; BLOCK], codes: &[f32; BLOCK], scale: f32, minimum: f32) -> f32 {
    let mut errors = [0.0; LANES];
    for at in (0..BLOCK).step_by(LANES) {
        for lane in 0..LANES {
            let left = scale * codes[at + lane] - minimum - x[at + lane];
            errors[lane] += counts[at + lane] * left * left;
        }
    }
    sum(errors)
}

/// Numbers to fit, as distances from the lowest one, and sums over them that no codes change.
struct Sample {
    low: f32,
    x: [f32; BLOCK],
    counts: [f32; BLOCK],
    /// Sums of the counts, and of those times the first and second powers of the numbers.
    w: f32,
    wx: f32,
    wxx: f32,
}

impl Sample {
    #[inline(always)]
    fn new(x: &[f32; BLOCK], low: f32) -> Sample {
        let counts = importance(x);
        let x = x.map(|x| x - low);
        let [mut w, mut wx, mut wxx] = [[0.0; LANES]; 3];
        for at in (0..BLOCK).step_by(LANES) {
            for lane in 0..LANES {
                let (x, count) = (x[at + lane], counts[at + lane]);
                w[lane] += count;
                wx[lane] += count * x;
                wxx[lane] += count * x * x;
            }
        }
        Sample { low, x, counts, w: sum(w), wx: sum(wx), wxx: sum(wxx) }
    }

    /// The regression on the codes of `scale` and `minimum`.
    #[inline(always)]
    fn fit(&self, scale: f32, minimum: f32) -> Fit {
        let (inverse, shift) = (1.0 / scale, self.low + minimum);
        let [mut wq, mut wqq, mut wqx] = [[0.0; LANES]; 3];
        for at in (0..BLOCK).step_by(LANES) {
            for lane in 0..LANES {
                let (x, count) = (self.x[at + lane], self.counts[at + lane]);
                let code = ((x + shift) * inverse).clamp(0.0, MOST) + ROUND - ROUND;
                wq[lane] += count * code;
                wqq[lane] += count * code * code;
                wqx[lane] += count * code * x;
            }
        }
        let (w, wx, wq, wqq, wqx) = (self.w, self.wx, sum(wq), sum(wqq), sum(wqx));
        let spread = w * wqq - wq * wq;
        let mut scale = if spread > 0.0 { (w * wqx - wq * wx) / spread } else { 0.0 };
        let mut offset = (wx - scale * wq) / w;
        // A minimum below 0 cannot be held.
        if offset > -self.low {
            offset = -self.low;
            scale = if wqq > 0.0 { (wqx - offset * wq) / wqq } else { 0.0 };
        }
        scale = scale.max(0.0);
        let error = self.wxx + scale * (scale * wqq + 2.0 * (offset * wq - wqx)) + offset * (offset * w - 2.0 * wx);
        Fit { scale, minimum: (-self.low - offset).max(0.0), error }
    }
}

vectorised! {
    /// The best scale and minimum that are found for finite numbers.
    pub(super) fn search(x: &[f32; BLOCK]) -> Fit = body
}

#[inline(always)]
fn body(x: &[f32; BLOCK]) -> Fit {
    /// What is tried to be cut off each end of the range, as a share of it. Sixteen pairs leave 1.5 % less error than 21 steps from
    /// one end do, and 25 pairs no more than 0.2 % less than sixteen.
    const CUTS: [f32; 4] = [-0.045, -0.015, 0.015, 0.045];
    /// Turns of rounding and fitting at most.
    const TURNS: usize = 4;
    let low = x.iter().fold(0.0f32, |low, x| low.min(*x));
    let high = x.iter().fold(f32::MIN, |high, x| high.max(*x));
    let range = high - low;
    // All alike and not positive: a minimum says it all. Ranges so small, or so large, have no inverse.
    if !(1e-30..1e30).contains(&range) {
        return Fit { scale: range / MOST, minimum: -low, error: 0.0 };
    }
    let sample = Sample::new(x, low);
    let mut best = Fit { scale: range / MOST, minimum: -low, error: f32::INFINITY };
    for below in CUTS {
        for above in CUTS {
            let minimum = (-low - below * range).max(0.0);
            let tried = sample.fit((high - above * range + minimum) / MOST, minimum);
            if tried.error < best.error {
                best = tried;
            }
        }
    }
    for _ in 0..TURNS {
        if best.scale <= 0.0 {
            break;
        }
        let tried = sample.fit(best.scale, best.minimum);
        if tried.error >= best.error {
            break;
        }
        best = tried;
    }
    best
}
