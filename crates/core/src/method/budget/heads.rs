use super::calibrated::apportion;
use super::{Budget, BudgetRequest, ModelKey, Quota, ScoredLane};
use crate::error::Result;
use crate::fields::refuse;
use crate::method::Lanes;
use crate::method::heads::HeadsCalibration;

/// Every head of every layer gets a window, an equal share of some of the rest, and of what is left as much as its score has in those of all
/// heads of the model. The scores were found before, so that each layer is compacted right after its attention.
///
/// SparseMM (Wang et al. 2025, arXiv 2506.05344) and HeadKV (Fu et al. 2024, arXiv 2410.19258). The whole is met to the entry: what a head cannot
/// take goes to the others by their scores.
#[derive(Debug)]
pub struct HeadScores {
    calibration: HeadsCalibration,
    /// Of each KV head in the scores of the model, `[layer][head]`.
    shares: Vec<Vec<f64>>,
    /// Last entries that every head keeps beside its share; at most half of the mean size.
    window: usize,
    /// The part of what is beside the window that all heads get alike.
    even: f64,
}

/// The bounds and the share of a head.
struct Room {
    share: f64,
    least: f64,
    most: f64,
}

impl HeadScores {
    pub fn new(calibration: HeadsCalibration, window: usize, even: f64) -> HeadScores {
        HeadScores { shares: calibration.shares(), calibration, window, even }
    }

    /// The sizes of the heads of all layers before they are whole numbers, one layer behind the other, and how many heads a layer has.
    fn wanted(&self, ask: &BudgetRequest<'_>) -> (Vec<f64>, usize) {
        let heads = self.shares.first().map_or(1, Vec::len);
        let layers = self.shares.iter().zip(ask.least.iter().zip(ask.available));
        let rooms: Vec<Room> = layers
            .flat_map(|(shares, (least, most))| {
                let (least, most) = ((*least).max(1).min(*most) as f64, *most as f64);
                shares.iter().map(move |share| Room { share: *share, least, most })
            })
            .collect();
        let mean = ask.total as f64 / self.shares.len().max(1) as f64;
        let window = (self.window as f64).min(mean / 2.0);
        let base = window + self.even * (mean - window);
        (filled(&rooms, base, mean * rooms.len() as f64), heads)
    }
}

/// Sizes from `base` on that grow by their shares until all together are `whole`, each within its bounds.
fn filled(rooms: &[Room], base: f64, whole: f64) -> Vec<f64> {
    let shared = whole - base * rooms.len() as f64;
    let plain: Vec<f64> = rooms.iter().map(|room| base + shared * room.share).collect();
    if plain.iter().zip(rooms).all(|(size, room)| (room.least..=room.most).contains(size)) {
        return plain;
    }
    let at = |size: &dyn Fn(&Room) -> f64| -> Vec<f64> {
        rooms.iter().map(|room| size(room).max(room.least).min(room.most)).collect()
    };
    let fits = |sizes: &[f64]| sizes.iter().sum::<f64>() >= whole;
    let by_share = |room: &Room, by: f64| if room.share > 0.0 { base + by * room.share } else { base };
    // Beyond the least sizes come the base, then the shares, and then, where all heads with a share are full, the rest evenly.
    if fits(&at(&|_| base)) {
        let part = risen(1.0, |part| fits(&at(&|_| part * base)));
        return at(&|_| part * base);
    }
    if fits(&at(&|room| by_share(room, f64::INFINITY))) {
        let full = |room: &Room| if room.share > 0.0 { room.most / room.share } else { 0.0 };
        let most = rooms.iter().map(full).fold(0.0, f64::max).min(f64::MAX);
        let by = risen(most, |by| fits(&at(&|room| by_share(room, by))));
        return at(&|room| by_share(room, by));
    }
    let most = rooms.iter().map(|room| room.most).fold(0.0, f64::max);
    let even = |room: &Room, more: f64| if room.share > 0.0 { room.most } else { base + more };
    let more = risen(most, |more| fits(&at(&|room| even(room, more))));
    at(&|room| even(room, more))
}

/// The least number from 0 to `most` from which on `enough` holds.
fn risen(most: f64, enough: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, most);
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if enough(middle) { high = middle } else { low = middle }
    }
}

impl Budget for HeadScores {
    fn name(&self) -> &'static str {
        "heads"
    }

    fn check_lanes(&self, lanes: Lanes) -> Result<()> {
        match lanes {
            Lanes::PerHead => Ok(()),
            Lanes::PerLayer => {
                Err(refuse("the budget \"heads\" gives every head a size of its own: `lanes: \"head\"`"))
            }
        }
    }

    fn is_ragged(&self) -> bool {
        true
    }

    fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.calibration.check_model(model)
    }

    fn is_of_layers(&self) -> bool {
        true
    }

    fn has_another(&self) -> bool {
        false
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
        let (wanted, heads) = self.wanted(ask);
        let means: Vec<f64> = wanted.chunks(heads).map(|sizes| sizes.iter().sum::<f64>() / heads as f64).collect();
        let kept = apportion(&means, ask.least, ask.available, ask.total);
        Ok(Some(kept.into_iter().map(|kept| Quota::exact(kept, ask.positions)).collect()))
    }

    fn heads(&self, ask: &BudgetRequest<'_>, layer: usize, quota: Quota, lanes: &[ScoredLane]) -> Vec<Quota> {
        let (wanted, heads) = self.wanted(ask);
        let Some(wanted) = wanted.chunks(heads).nth(layer).filter(|wanted| wanted.len() == lanes.len()) else {
            return vec![quota; lanes.len()];
        };
        let safe = |lane: &ScoredLane| lane.safe.iter().filter(|safe| **safe).count().max(1);
        let least: Vec<usize> = lanes.iter().map(safe).collect();
        let most: Vec<usize> = lanes.iter().map(|lane| lane.scores.len()).collect();
        let kept = apportion(wanted, &least, &most, quota.kept * lanes.len());
        kept.into_iter().map(|kept| Quota::exact(kept, ask.positions)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::method::budget::Claim;
    use crate::method::keep::{Cost, Keep};

    /// The sizes of all heads for a whole of `total` entries over the layers of `n` entries, of which the last `safe` are.
    fn sizes(
        scores: &[Vec<f64>],
        (window, even): (usize, f64),
        n: usize,
        total: usize,
        safe: usize,
    ) -> Vec<Vec<usize>> {
        let (layers, heads) = (scores.len(), scores[0].len());
        let calibration = json!({
            "format": "prefixkv-heads", "version": 1, "model": { "layers": layers, "kvHeads": heads }, "measure": "copies",
            "scores": scores,
        });
        let budget = HeadScores::new(HeadsCalibration::parse(&calibration).unwrap(), window, even);
        let (available, least) = (vec![n; layers], vec![safe.max(1); layers]);
        let cost = Cost { layers, entry: 100, fixed: 0, settled: None };
        let (keep, cost) = (Keep::Share(0.5), &cost);
        let ask = BudgetRequest { keep, cost, positions: n, total, available: &available, least: &least };
        let quotas = budget.ahead(&ask).unwrap().unwrap();
        let lane = ScoredLane {
            scores: vec![0.0; n],
            safe: (0..n).map(|rank| rank + safe >= n).collect(),
            claim: Claim::default(),
            heads: 1,
        };
        let lanes = vec![lane; heads];
        let of = |(layer, quota): (usize, &Quota)| -> Vec<usize> {
            budget.heads(&ask, layer, *quota, &lanes).iter().map(|quota| quota.kept).collect()
        };
        quotas.iter().enumerate().map(of).collect()
    }

    #[test]
    fn heads_get_their_share_of_the_whole_model() {
        // Of 10 entries each, 4 are the window and 0.5 of 6 the even part: 3 of each of four heads are left, by 1 to 3 to 0 to 2.
        assert_eq!(sizes(&[vec![1.0, 3.0], vec![0.0, 2.0]], (4, 0.5), 100, 20, 0), [[9, 13], [7, 11]]);
        assert_eq!(sizes(&[vec![1.0, 3.0], vec![0.0, 2.0]], (4, 1.0), 100, 20, 0), [[10, 10], [10, 10]]);
        // One takes all it has; the others share what it cannot take, as 1 to 1.
        assert_eq!(sizes(&[vec![1.0, 8.0], vec![0.0, 1.0]], (0, 0.0), 10, 9, 0), [[4, 10], [1, 3]]);
        // All that have a score are full.
        assert_eq!(sizes(&[vec![1.0, 8.0], vec![0.0, 0.0]], (0, 0.0), 10, 16, 0), [[10, 10], [6, 6]]);
        // Protected entries come first.
        assert_eq!(sizes(&[vec![1.0, 1.0], vec![0.0, 0.0]], (0, 0.0), 20, 11, 3), [[8, 8], [3, 3]]);
    }

    proptest! {
        #[test]
        fn the_whole_is_met_to_the_entry(
            scores in prop::collection::vec(prop::collection::vec(0.0f64..1.0, 3), 1..6), n in 1usize..300, keep in 0.01f64..1.0,
            window in 0usize..40, even in 0.0f64..=1.0,
        ) {
            let total = ((keep * (n * scores.len()) as f64) as usize).max(scores.len());
            prop_assume!(scores.iter().flatten().sum::<f64>() > 0.0);
            let found = sizes(&scores, (window, even), n, total, 0);
            prop_assert_eq!(found.iter().flatten().sum::<usize>(), 3 * total);
            prop_assert!(found.iter().flatten().all(|size| (1..=n).contains(size)), "{:?}", found);
            // More for a higher score, but for rounding.
            let all: Vec<(f64, usize)> = scores.iter().flatten().copied().zip(found.iter().flatten().copied()).collect();
            for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
                prop_assert!(a.0 > b.0 || a.1 <= b.1 + 4, "{:?} and {:?}", a, b);
            }
        }
    }
}
