//! Plain functions of logits.

/// The index of the greatest logit; the lowest index wins ties, NaN never wins. 0 when there is nothing to choose.
pub fn argmax(logits: &[f32]) -> usize {
    /// Logits that are compared side by side, which a processor does in vectors.
    const LANES: usize = 16;
    let mut most = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (most, logit) in most.iter_mut().zip(chunk) {
            *most = if *logit > *most { *logit } else { *most };
        }
    }
    let greatest =
        most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &logit| if logit > most { logit } else { most });
    match greatest {
        f32::NEG_INFINITY => 0,
        _ => logits.iter().position(|&logit| logit == greatest).unwrap_or(0),
    }
}

/// The natural logarithm of the probability of one token, summed in f64. Minus infinity when `index` is past the end,
/// NaN when any logit is NaN.
pub fn log_softmax_at(logits: &[f32], index: usize) -> f32 {
    let Some(&logit) = logits.get(index) else { return f32::NEG_INFINITY };
    let max = f64::from(logits[argmax(logits)]);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    (f64::from(logit) - max - sum.ln()) as f32
}

/// The Kullback-Leibler divergence of `other`'s distribution from `reference`'s, in nats: the sum over all tokens of
/// p (ln p - ln q). Exactly 0 for equal logits.
pub fn divergence(reference: &[f32], other: &[f32]) -> f64 {
    let (shift, other_shift) = (log_sum(reference), log_sum(other));
    let each = reference.iter().zip(other).map(|(&logit, &other)| {
        let (p, q) = (f64::from(logit) - shift, f64::from(other) - other_shift);
        // Tokens that cannot occur add nothing.
        if p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) }
    });
    // Rounding may leave a little below 0. A NaN stays one.
    let sum: f64 = each.sum();
    if sum < 0.0 { 0.0 } else { sum }
}

/// The logarithm of the sum of the exponentials.
pub(super) fn log_sum(logits: &[f32]) -> f64 {
    let max = logits.get(argmax(logits)).copied().map_or(0.0, f64::from);
    max + logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_index_wins_ties() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -1.0, f32::NAN]), 1);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), 0);
        assert_eq!(argmax(&[]), 0);
        // In every lane, behind them and across them.
        for n in 1..50 {
            for best in 0..n {
                let mut logits = [f32::NAN, -3.0, f32::NEG_INFINITY].repeat(17);
                logits.truncate(n);
                logits[best..].fill(1.5);
                assert_eq!(argmax(&logits), best, "{n} logits");
            }
        }
        assert_eq!(argmax(&[-0.0, 0.0]), 0);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 0);
    }

    #[test]
    fn log_softmax_as_torch() {
        let logits = [1.5, -0.5, 3.25, 0.0, 2.0, -2.0, 3.0, 2.0, 0.75, -1.25];
        for (index, expected) in [(0, -2.738_171_4), (2, -0.988_171_4), (5, -6.238_171_4), (9, -5.488_171_4)] {
            assert!((log_softmax_at(&logits, index) - expected).abs() < 1e-6);
        }
        assert_eq!(log_softmax_at(&logits, 10), f32::NEG_INFINITY);
        assert_eq!(log_softmax_at(&[0.0, f32::NEG_INFINITY], 1), f32::NEG_INFINITY);
        assert_eq!(log_softmax_at(&[1e30, 0.0], 0), 0.0);
        assert!(log_softmax_at(&[f32::NAN, 0.0], 1).is_nan());
        // A million equal terms would lose digits in f32.
        let flat = vec![0.1f32; 1 << 20];
        assert!((log_softmax_at(&flat, 3) + (20.0 * std::f32::consts::LN_2)).abs() < 1e-6);
    }

    #[test]
    fn divergences_of_small_distributions() {
        let logits = |shares: &[f64]| shares.iter().map(|share| share.ln() as f32 + 3.0).collect::<Vec<_>>();
        let (p, q) = (logits(&[0.5, 0.25, 0.25]), logits(&[0.25, 0.25, 0.5]));
        // 0.5 ln 2 - 0.25 ln 2
        assert!((divergence(&p, &q) - 0.25 * std::f64::consts::LN_2).abs() < 1e-6);
        assert_eq!(divergence(&p, &p), 0.0);
        // It has a direction: 0.9 ln 9 + ..., whichever way round.
        let (a, b) = (logits(&[0.9, 0.1]), logits(&[0.5, 0.5]));
        let forth = 0.9 * (0.9f64 / 0.5).ln() + 0.1 * (0.1f64 / 0.5).ln();
        let back = 0.5 * (0.5f64 / 0.9).ln() + 0.5 * (0.5f64 / 0.1).ln();
        assert!((divergence(&a, &b) - forth).abs() < 1e-6 && (divergence(&b, &a) - back).abs() < 1e-6);
        // A shift of all logits is no change, and what cannot occur adds nothing.
        let shifted: Vec<f32> = q.iter().map(|logit| logit + 2.0).collect();
        assert!((divergence(&p, &shifted) - divergence(&p, &q)).abs() < 1e-6);
        assert_eq!(divergence(&[f32::NEG_INFINITY, 0.0], &[0.0, 700.0]), 0.0);
        assert!(divergence(&[f32::NAN, 0.0], &[0.0, 0.0]).is_nan());
    }
}
