use super::calibrated::apportion;
use super::{Budget, BudgetRequest, Quota, ScoredLane};
use crate::error::Result;

/// Layers get what their scores claim of the whole, beside a window that each keeps and entries that come before all claims.
///
/// VL-Cache (Tu et al. 2024, arXiv 2410.23317), CAKE (Qin et al. 2025, arXiv 2503.12491) and AirCache (Huang et al. 2025, arXiv 2503.23956). The
/// whole is met to the entry: what a layer cannot take goes evenly to the others.
#[derive(Debug)]
pub struct Claimed {
    /// Last entries that every layer keeps beside its claim; at most half of the mean size.
    pub window: usize,
    pub joined: Joined,
}

/// How the two factors of a claim make one number.
#[derive(Clone, Copy, Debug)]
pub enum Joined {
    /// The product of their powers.
    Product([f64; 2]),
    /// The mean of their shares in what all layers have of each.
    Mean,
}

impl Joined {
    /// The shares of the layers, whose sum is 1.
    fn shares(self, factors: &[[f64; 2]]) -> Vec<f64> {
        let shares = |numbers: Vec<f64>| -> Vec<f64> {
            let sum: f64 = numbers.iter().sum();
            let even = 1.0 / numbers.len() as f64;
            let known = sum.is_finite() && sum > 0.0;
            numbers.into_iter().map(|number| if known { number / sum } else { even }).collect()
        };
        match self {
            Joined::Product([a, b]) => shares(factors.iter().map(|of| of[0].powf(a) * of[1].powf(b)).collect()),
            Joined::Mean => {
                let [first, second] = [0, 1].map(|which| shares(factors.iter().map(|of| of[which]).collect()));
                first.iter().zip(second).map(|(a, b)| (a + b) / 2.0).collect()
            }
        }
    }
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
        let factors = |lanes: &Vec<ScoredLane>| {
            [0, 1].map(|which| lanes.iter().map(|lane| lane.claim.factors[which]).sum::<f64>())
        };
        let claims = self.joined.shares(&scored.iter().map(factors).collect::<Vec<[f64; 2]>>());
        let mean = ask.total as f64 / claims.len() as f64;
        let window = (self.window as f64).min(mean / 2.0);
        let beside = |lanes: &Vec<ScoredLane>| {
            let before: usize = lanes.iter().map(|lane| lane.claim.before).sum();
            window + (before as f64 / lanes.len().max(1) as f64).min(mean - window)
        };
        let beside: Vec<f64> = scored.iter().map(beside).collect();
        let shared = ask.total as f64 - beside.iter().sum::<f64>();
        let wanted: Vec<f64> = beside.iter().zip(&claims).map(|(beside, claim)| beside + shared * claim).collect();
        let kept = apportion(&wanted, ask.least, ask.available, ask.total);
        let of = |(kept, lanes): (usize, &Vec<ScoredLane>)| vec![Quota::exact(kept, ask.positions); lanes.len()];
        Ok(kept.into_iter().zip(scored).map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Claim;
    use super::*;
    use crate::method::keep::{Cost, Keep};

    fn split(claims: &[Claim], total: usize, budget: &Claimed) -> Vec<usize> {
        let lane =
            |claim: &Claim| ScoredLane { scores: vec![0.0; 100], safe: vec![false; 100], claim: *claim, heads: 1 };
        let scored: Vec<Vec<ScoredLane>> = claims.iter().map(|claim| vec![lane(claim)]).collect();
        let layers = claims.len();
        let (available, least) = (vec![100; layers], vec![1; layers]);
        let cost = Cost { layers, entry: 100, fixed: 0, settled: None };
        let (keep, cost) = (Keep::Share(0.5), &cost);
        let ask = BudgetRequest { keep, cost, positions: 100, total, available: &available, least: &least };
        budget.split(&ask, &scored).unwrap().iter().map(|lanes| lanes[0].kept).collect()
    }

    fn sizes(claims: &[f64], total: usize, window: usize) -> Vec<usize> {
        let claims: Vec<Claim> = claims.iter().map(|claim| Claim { factors: [*claim, 1.0], before: 0 }).collect();
        split(&claims, total, &Claimed { window, joined: Joined::Product([1.0; 2]) })
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

    #[test]
    fn factors_join_as_shares_beside_what_comes_before() {
        let mean = Claimed { window: 0, joined: Joined::Mean };
        let claims = |before: usize, factors: &[[f64; 2]]| -> Vec<Claim> {
            factors.iter().map(|factors| Claim { factors: *factors, before }).collect()
        };
        assert_eq!(split(&claims(0, &[[1.0, 9.0], [3.0, 1.0]]), 80, &mean), [46, 34], "1/4 and 9/10, 3/4 and 1/10");
        assert_eq!(split(&claims(10, &[[1.0, 9.0], [3.0, 1.0]]), 80, &mean), [45, 35], "beside ten each");
        assert_eq!(split(&claims(60, &[[1.0, 9.0], [3.0, 1.0]]), 80, &mean), [40, 40], "before all claims");
        assert_eq!(split(&claims(0, &[[1.0, 0.0], [3.0, 0.0]]), 80, &mean), [30, 50], "a factor that no layer has");
    }
}
