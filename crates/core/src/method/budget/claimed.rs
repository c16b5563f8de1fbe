use super::calibrated::apportion;
use super::{Budget, BudgetRequest, Quota, ScoredLane};
use crate::error::Result;

/// Layers get what their scores claim of the whole, beside a window that each keeps.
///
/// VL-Cache (Tu et al. 2024, arXiv 2410.23317) and CAKE (Qin et al. 2025, arXiv 2503.12491). The whole is met to the entry: what a layer cannot
/// take goes evenly to the others.
#[derive(Debug)]
pub struct Claimed {
    /// Last entries that every layer keeps beside its claim; at most half of the mean size.
    pub window: usize,
    /// Of the two factors of a claim.
    pub powers: [f64; 2],
}

impl Budget for Claimed {
    fn name(&self) -> &'static str {
        "claimed"
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
        Ok(None)
    }

    fn split(&self, ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> Result<Vec<Vec<Quota>>> {
        let factor = |lanes: &[ScoredLane], which: usize| lanes.iter().map(|lane| lane.claim[which]).sum::<f64>();
        let powers = self.powers;
        let claim = |lanes: &Vec<ScoredLane>| factor(lanes, 0).powf(powers[0]) * factor(lanes, 1).powf(powers[1]);
        let mut claims: Vec<f64> = scored.iter().map(claim).collect();
        let sum: f64 = claims.iter().sum();
        if !(sum.is_finite() && sum > 0.0) {
            claims.fill(1.0);
        }
        let sum: f64 = claims.iter().sum();
        let mean = ask.total as f64 / claims.len() as f64;
        let window = (self.window as f64).min(mean / 2.0);
        let shared = ask.total as f64 - window * claims.len() as f64;
        let wanted: Vec<f64> = claims.iter().map(|claim| window + shared * claim / sum).collect();
        let kept = apportion(&wanted, ask.least, ask.available, ask.total);
        let of = |(kept, lanes): (usize, &Vec<ScoredLane>)| vec![Quota::exact(kept, ask.positions); lanes.len()];
        Ok(kept.into_iter().zip(scored).map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::keep::{Cost, Keep};

    fn sizes(claims: &[f64], total: usize, window: usize) -> Vec<usize> {
        let lane =
            |claim: &f64| ScoredLane { scores: vec![0.0; 100], safe: vec![false; 100], claim: [*claim, 1.0], heads: 1 };
        let scored: Vec<Vec<ScoredLane>> = claims.iter().map(|claim| vec![lane(claim)]).collect();
        let layers = claims.len();
        let (available, least) = (vec![100; layers], vec![1; layers]);
        let cost = Cost { layers, entry: 100, fixed: 0, settled: None };
        let (keep, cost) = (Keep::Share(0.5), &cost);
        let ask = BudgetRequest { keep, cost, positions: 100, total, available: &available, least: &least };
        Claimed { window, powers: [1.0; 2] }.split(&ask, &scored).unwrap().iter().map(|lanes| lanes[0].kept).collect()
    }

    #[test]
    fn layers_get_what_they_claim() {
        assert_eq!(sizes(&[1.0, 3.0], 40, 0), [10, 30]);
        assert_eq!(sizes(&[1.0, 3.0], 40, 4), [12, 28]);
        assert_eq!(sizes(&[1.0, 1.0, 8.0], 200, 0), [50, 50, 100], "what a layer cannot take goes to the others");
        assert_eq!(sizes(&[0.0, 0.0], 40, 0), [20, 20], "no claims at all are equal ones");
        assert_eq!(sizes(&[f64::NAN, 1.0], 40, 0), [20, 20]);
        assert_eq!(sizes(&[0.0, 1.0], 40, 0), [1, 39]);
    }
}
