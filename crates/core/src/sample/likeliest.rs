//! The probabilities that a model gives at a position, before any sampling option acts.

use super::logits::log_sum;

/// Logarithms of probabilities, of one position.
#[derive(Debug, Default)]
pub struct Likelihoods {
    logits: Vec<f32>,
    shift: f64,
}

impl Likelihoods {
    /// Of logits as the model gives them.
    pub fn of(logits: &[f32]) -> Likelihoods {
        Likelihoods { logits: logits.to_vec(), shift: log_sum(logits) }
    }

    /// The natural logarithm of a token's probability; the least number for one that cannot come.
    pub fn logprob(&self, token: u32) -> f32 {
        let logit = self.logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        ((f64::from(logit) - self.shift) as f32).max(f32::MIN)
    }

    /// The likeliest tokens, the likeliest first; of equals, the lower id comes first.
    pub fn likeliest(&self, most: usize) -> Vec<u32> {
        let mut found: Vec<u32> = Vec::with_capacity(most + 1);
        let logit = |token: u32| self.logits[token as usize];
        for (token, value) in (0u32..).zip(&self.logits) {
            if found.len() == most && found.last().is_none_or(|last| *value <= logit(*last)) {
                continue;
            }
            let place = found.partition_point(|other| logit(*other) >= *value);
            found.insert(place, token);
            found.truncate(most);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::log_softmax_at;

    #[test]
    fn the_same_as_softmax_and_a_sort() {
        let logits = [1.5, -0.5, 3.25, 0.0, 2.0, f32::NEG_INFINITY, 3.0, 2.0, 0.75, -1.25];
        let likelihoods = Likelihoods::of(&logits);
        for token in 0..10u32 {
            let expected = log_softmax_at(&logits, token as usize).max(f32::MIN);
            assert!((likelihoods.logprob(token) - expected).abs() <= 1e-6, "{token}");
        }
        assert_eq!(likelihoods.logprob(10), f32::MIN);
        let sorted = [2, 6, 4, 7, 0, 8, 3, 1, 9, 5];
        for most in 0..=12 {
            assert_eq!(likelihoods.likeliest(most), sorted[..most.min(10)], "{most}");
        }
    }
}
