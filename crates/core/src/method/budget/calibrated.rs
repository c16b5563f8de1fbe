use super::{Budget, BudgetRequest, Growth, ModelKey, Quota};
use crate::error::Result;
use crate::method::calibration::Calibration;

/// A prefix configuration found before ("offline"): known before the prompt, so each layer is compacted right after its
/// attention.
#[derive(Debug)]
pub struct Calibrated(pub Calibration);

impl Budget for Calibrated {
    fn name(&self) -> &'static str {
        "calibrated"
    }

    fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.0.check_model(model)
    }

    fn is_of_layers(&self) -> bool {
        true
    }

    fn default_keep(&self) -> Option<super::Keep> {
        match &self.0.rows[..] {
            [only] => Some(super::Keep::Share(only.keep)),
            _ => None,
        }
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
        let layers = ask.available.len();
        let keep = match ask.keep {
            super::Keep::Share(share) => share,
            _ => ask.total as f64 / (layers * ask.positions) as f64,
        };
        let counts = if let Some(row) = self.0.row(keep).filter(|_| self.0.published) {
            published(&row.evicted(), ask)
        } else {
            let retained = self.0.read_off(keep)?;
            let wanted: Vec<f64> = retained.iter().map(|share| share * ask.positions as f64).collect();
            let kept = apportion(&wanted, ask.least, ask.available, ask.total);
            kept.into_iter().map(|kept| Quota::exact(kept, ask.positions)).collect()
        };
        Ok(Some(counts))
    }
}

/// `round(evicted share x n)` entries go, halves to even, as in the published code.
fn published(evicted: &[f64], ask: &BudgetRequest<'_>) -> Vec<Quota> {
    let n = ask.positions;
    let count = |(layer, share): (usize, &f64)| {
        let evicted = (share * n as f64).round_ties_even() as usize;
        let kept = n.saturating_sub(evicted).max(ask.least[layer]).min(ask.available[layer]);
        Quota { kept, growth: Growth::Evicted(*share) }
    };
    evicted.iter().enumerate().map(count).collect()
}

/// Whole numbers near `wanted`, within `least` and `most`, whose sum is `total` (or as near as the bounds allow): rounded
/// down, then the largest remainders up.
pub(super) fn apportion(wanted: &[f64], least: &[usize], most: &[usize], total: usize) -> Vec<usize> {
    let bound = |layer: usize, count: usize| count.clamp(least[layer].min(most[layer]), most[layer]);
    let mut kept: Vec<usize> =
        wanted.iter().enumerate().map(|(layer, wanted)| bound(layer, (wanted + 1e-9).floor() as usize)).collect();
    let mut sum: usize = kept.iter().sum();
    // How far a layer is from what it wants decides who gives and who gets.
    while sum < total {
        let open = (0..kept.len()).filter(|layer| kept[*layer] < most[*layer]);
        let missing = |layer: usize| wanted[layer] - kept[layer] as f64;
        let Some(layer) = open.max_by(|a, b| missing(*a).total_cmp(&missing(*b)).then(b.cmp(a))) else { break };
        kept[layer] += 1;
        sum += 1;
    }
    while sum > total {
        let open = (0..kept.len()).filter(|layer| kept[*layer] > least[*layer]);
        let surplus = |layer: usize| kept[layer] as f64 - wanted[layer];
        let Some(layer) = open.max_by(|a, b| surplus(*a).total_cmp(&surplus(*b)).then(a.cmp(b))) else { break };
        kept[layer] -= 1;
        sum -= 1;
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_whole_is_met(
            wanted in prop::collection::vec(0.0f64..100.0, 1..20), least in 0usize..4, share in 0.0f64..1.2,
        ) {
            let layers = wanted.len();
            let (least, most) = (vec![least; layers], vec![100; layers]);
            let total = (wanted.iter().sum::<f64>() * share) as usize;
            let kept = apportion(&wanted, &least, &most, total);
            let feasible = total.clamp(least.iter().sum(), most.iter().sum());
            prop_assert_eq!(kept.iter().sum::<usize>(), feasible);
            prop_assert!(kept.iter().zip(&least).all(|(kept, least)| kept >= least));
        }
    }

    #[test]
    fn rounding_goes_to_the_largest_remainders() {
        assert_eq!(apportion(&[1.6, 2.3, 3.1], &[0; 3], &[9; 3], 7), [2, 2, 3]);
        assert_eq!(apportion(&[0.2, 0.3, 9.5], &[2; 3], &[9; 3], 10), [2, 2, 6]);
    }
}
