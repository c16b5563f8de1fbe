//! Plain functions of logits.

/// The index of the greatest logit; the lowest index wins ties, NaN never wins. 0 when there is nothing to choose.
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    let mut greatest = f32::NEG_INFINITY;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > greatest {
            (best, greatest) = (index, logit);
        }
    }
    best
}

/// The natural logarithm of the probability of one token, summed in f64. Minus infinity when `index` is past the end,
/// NaN when any logit is NaN.
pub fn log_softmax_at(logits: &[f32], index: usize) -> f32 {
    let Some(&logit) = logits.get(index) else { return f32::NEG_INFINITY };
    let max = f64::from(logits[argmax(logits)]);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    (f64::from(logit) - max - sum.ln()) as f32
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
}
