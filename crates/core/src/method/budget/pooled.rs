use super::{Budget, BudgetRequest, Quota, ScoredLane};
use crate::error::Result;
use crate::fields::refuse;
use crate::method::Lanes;

/// One threshold for the whole model: every head of every layer keeps as many as it has among the best of all.
///
/// KVzip (Kim et al. 2025, arXiv 2505.23416). Needs the scores of all layers, so all of the prompt is held until the last has them.
#[derive(Debug)]
pub struct Pooled;

impl Budget for Pooled {
    fn name(&self) -> &'static str {
        "pooled"
    }

    fn check_lanes(&self, lanes: Lanes) -> Result<()> {
        match lanes {
            Lanes::PerHead => Ok(()),
            Lanes::PerLayer => {
                Err(refuse("the budget \"pooled\" gives every head a size of its own: `lanes: \"head\"`"))
            }
        }
    }

    fn is_ragged(&self) -> bool {
        true
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
        Ok(None)
    }

    fn split(&self, ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> Result<Vec<Vec<Quota>>> {
        let lanes: Vec<&ScoredLane> = scored.iter().flatten().collect();
        let per_layer = scored.first().map_or(1, Vec::len);
        let mut kept: Vec<usize> = lanes.iter().map(|lane| lane.safe.iter().filter(|safe| **safe).count()).collect();
        let mut open: Vec<(f32, u32)> = Vec::new();
        for (number, lane) in lanes.iter().enumerate() {
            let start = open.len();
            let scores = lane.scores.iter().zip(&lane.safe).filter(|(_, safe)| !**safe);
            open.extend(scores.map(|(score, _)| (*score, number as u32)));
            // A head without entries would see nothing but what comes: its best one stays in any case.
            let best = (start..open.len()).max_by(|a, b| open[*a].0.total_cmp(&open[*b].0).then(b.cmp(a)));
            if let Some(best) = best.filter(|_| kept[number] == 0) {
                open.remove(best);
                kept[number] = 1;
            }
        }
        let total = ask.total * per_layer;
        let best = total.saturating_sub(kept.iter().sum()).min(open.len());
        // Of equal scores the first layer and head wins.
        if best > 0 && best < open.len() {
            open.select_nth_unstable_by(best - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        }
        open[..best].iter().for_each(|(_, lane)| kept[*lane as usize] += 1);
        let quotas = |kept: &[usize]| kept.iter().map(|kept| Quota::exact(*kept, ask.positions)).collect();
        Ok(kept.chunks(per_layer.max(1)).map(quotas).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Claim;
    use super::*;
    use crate::method::keep::{Cost, Keep};

    fn kept(lanes: &[&[&[f32]]], safe: usize, total: usize) -> Vec<Vec<usize>> {
        let lane = |scores: &&[f32]| ScoredLane {
            scores: scores.to_vec(),
            safe: (0..scores.len()).map(|rank| rank < safe).collect(),
            claim: Claim::default(),
            heads: 1,
        };
        let scored: Vec<Vec<ScoredLane>> = lanes.iter().map(|lanes| lanes.iter().map(lane).collect()).collect();
        let layers = lanes.len();
        let (available, least) = (vec![4; layers], vec![safe.max(1); layers]);
        let cost = Cost { layers, entry: 100, fixed: 0, settled: None };
        let keep = Keep::Share(0.5);
        let ask = BudgetRequest { keep, cost: &cost, positions: 4, total, available: &available, least: &least };
        let quotas = Pooled.split(&ask, &scored).expect("splits");
        quotas.iter().map(|lanes| lanes.iter().map(|quota| quota.kept).collect()).collect()
    }

    #[test]
    fn heads_get_what_they_have_among_the_best_of_the_model() {
        let model: [&[&[f32]]; 2] =
            [&[&[0.9, 0.8, 0.1, 0.1], &[0.7, 0.1, 0.1, 0.1]], &[&[0.6, 0.6, 0.6, 0.6], &[0.2, 0.1, 0.1, 0.1]]];
        assert_eq!(kept(&model, 0, 4), [[2, 1], [4, 1]], "eight in all");
        assert_eq!(kept(&model, 0, 2), [[1, 1], [1, 1]], "no head is left without");
        assert_eq!(kept(&model, 1, 4), [[2, 1], [4, 1]]);
        assert_eq!(kept(&model, 2, 4), [[2, 2], [2, 2]], "what is safe stays");
        assert_eq!(kept(&model, 0, 8), [[4, 4], [4, 4]]);
    }

    #[test]
    fn of_equal_scores_the_first_head_wins() {
        let model: [&[&[f32]]; 2] = [&[&[0.5; 4], &[0.5; 4]], &[&[0.5; 4], &[0.5; 4]]];
        assert_eq!(kept(&model, 0, 4), [[4, 2], [1, 1]]);
    }
}
