use super::calibrated::apportion;
use super::{Budget, BudgetRequest, Quota, ScoredLane, Uniform};
use crate::error::Result;
use crate::fields::refuse;
use crate::method::Lanes;

/// The same for every layer, and inside a layer more for heads whose entries matter more: each gets as many as it has among the best
/// of all heads together.
///
/// Feng et al. 2024, AdaKV, arXiv 2407.11550. A layer is split right after its attention, so the peak is what is kept and one layer.
#[derive(Debug)]
pub struct Ada {
    /// The share of an even split that every head gets in any case.
    pub floor: f64,
}

impl Budget for Ada {
    fn name(&self) -> &'static str {
        "ada"
    }

    fn needs_mass(&self) -> bool {
        true
    }

    fn check_lanes(&self, lanes: Lanes) -> Result<()> {
        match lanes {
            Lanes::PerHead => Ok(()),
            Lanes::PerLayer => Err(refuse("the budget \"ada\" gives every head a size of its own: `lanes: \"head\"`")),
        }
    }

    fn is_ragged(&self) -> bool {
        true
    }

    fn least_whole(&self, least: &[usize]) -> usize {
        Uniform.least_whole(least)
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        Uniform.ahead(ask)
    }

    fn heads(&self, ask: &BudgetRequest<'_>, _: usize, quota: Quota, lanes: &[ScoredLane]) -> Vec<Quota> {
        let mut safe: Vec<usize> = lanes.iter().map(|lane| lane.safe.iter().filter(|safe| **safe).count()).collect();
        let most: Vec<usize> = lanes.iter().map(|lane| lane.scores.len()).collect();
        let total = quota.kept * lanes.len();
        let mut open: Vec<(f32, usize)> = Vec::new();
        for (head, lane) in lanes.iter().enumerate() {
            let scores = lane.scores.iter().zip(&lane.safe).filter(|(_, safe)| !**safe);
            let start = open.len();
            open.extend(scores.map(|(score, _)| (*score, head)));
            // A head without entries would see nothing but what comes: its best one stays in any case.
            let best = (start..open.len()).max_by(|a, b| open[*a].0.total_cmp(&open[*b].0).then(b.cmp(a)));
            if let Some(best) = best.filter(|_| safe[head] == 0) {
                open.remove(best);
                safe[head] = 1;
            }
        }
        let best = total.saturating_sub(safe.iter().sum()).min(open.len());
        // Of equal scores the first head and position wins, as the order here is theirs.
        let mut order: Vec<usize> = (0..open.len()).collect();
        if best > 0 && best < open.len() {
            order.select_nth_unstable_by(best - 1, |a, b| open[*b].0.total_cmp(&open[*a].0).then(a.cmp(b)));
        }
        let mut wanted: Vec<f64> = safe.iter().map(|safe| *safe as f64).collect();
        order[..best].iter().for_each(|index| wanted[open[*index].1] += 1.0);
        wanted.iter_mut().for_each(|wanted| *wanted = self.floor * quota.kept as f64 + (1.0 - self.floor) * *wanted);
        let kept = apportion(&wanted, &safe, &most, total);
        kept.into_iter().map(|kept| Quota::exact(kept, ask.positions)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Claim;
    use super::*;
    use crate::method::keep::{Cost, Keep};

    fn lane(scores: &[f32], safe: usize) -> ScoredLane {
        let safe = (0..scores.len()).map(|rank| rank < safe).collect();
        ScoredLane { scores: scores.to_vec(), safe, claim: Claim::default(), heads: 1 }
    }

    fn kept(floor: f64, lanes: &[ScoredLane], each: usize) -> Vec<usize> {
        let cost = Cost { layers: 1, entry: 100, fixed: 0, settled: None };
        let (keep, cost, available, least) = (Keep::Share(0.5), &cost, &[100][..], &[1][..]);
        let ask = BudgetRequest { keep, cost, positions: 100, total: each, available, least };
        let quotas = Ada { floor }.heads(&ask, 0, Quota::exact(each, 100), lanes);
        quotas.iter().map(|quota| quota.kept).collect()
    }

    #[test]
    fn heads_get_what_they_have_among_the_best() {
        let lanes = [lane(&[0.9, 0.8, 0.7, 0.6], 0), lane(&[0.5, 0.1, 0.1, 0.1], 0)];
        assert_eq!(kept(0.0, &lanes, 2), [3, 1], "no head is left without entries");
        let lanes = [lane(&[0.9, 0.8, 0.7, 0.6, 0.6], 0), lane(&[0.5, 0.1, 0.1, 0.1, 0.1], 0)];
        assert_eq!(kept(0.0, &lanes, 3), [5, 1]);
        assert_eq!(kept(0.5, &lanes, 3), [4, 2]);
        let lanes = [lane(&[0.9, 0.8, 0.7, 0.6], 0), lane(&[0.5, 0.1, 0.1, 0.1], 0)];
        assert_eq!(kept(1.0, &lanes, 2), [2, 2]);
        assert_eq!(kept(0.0, &[lane(&[0.9; 4], 0), lane(&[0.1; 4], 2)], 2), [2, 2], "what is safe stays");
    }

    proptest! {
        #[test]
        fn a_layer_is_met_and_no_other_split_without_a_floor_holds_more(
            heads in prop::collection::vec(prop::collection::vec(0.0f32..1.0, 6), 1..4), each in 1usize..6, floor in 0.0f64..1.0,
        ) {
            let lanes: Vec<ScoredLane> = heads.iter().map(|scores| lane(scores, 0)).collect();
            let total = each * lanes.len();
            prop_assert_eq!(kept(floor, &lanes, each).iter().sum::<usize>(), total);
            let held = |kept: &[usize]| -> f64 {
                let of = |(lane, kept): (&ScoredLane, &usize)| {
                    let mut scores = lane.scores.clone();
                    scores.sort_by(|a, b| b.total_cmp(a));
                    scores[..*kept].iter().copied().map(f64::from).sum::<f64>()
                };
                lanes.iter().zip(kept).map(of).sum()
            };
            // The best of every head, and then the best of all.
            let (mut firsts, mut others) = (Vec::new(), Vec::new());
            for mut scores in heads {
                scores.sort_by(|a, b| b.total_cmp(a));
                firsts.push(scores.remove(0));
                others.extend(scores);
            }
            others.sort_by(|a, b| b.total_cmp(a));
            let taken = firsts.iter().chain(&others[..total - lanes.len()]);
            let best: f64 = taken.copied().map(f64::from).sum();
            prop_assert!((held(&kept(0.0, &lanes, each)) - best).abs() < 1e-5);
        }
    }
}
