//! PrefixKV's split: one threshold of retained importance for all layers, found by binary search.
//!
//! Wang et al. 2024, arXiv 2412.03409. Each layer's entries in falling order of importance give a curve, the share of the
//! layer's importance that its first `o` entries hold. One threshold for all layers gives each the least `o` that reaches it;
//! the threshold is the highest whose sum of `o` fits the whole. So the least retained share over the layers is as high as it
//! can be.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::calibrated::apportion;
use super::{Budget, BudgetRequest, Growth, Quota, ScoredLane};
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::Lanes;

/// Halvings of the threshold's interval: enough for the last bit of a double.
const HALVINGS: usize = 64;

/// The share of a layer's importance that is retained, by the number of entries kept.
#[derive(Clone, Debug)]
pub struct Curve {
    /// For `least`, `least + 1`, ... entries; rising.
    retained: Vec<f64>,
    least: usize,
}

impl Curve {
    /// The curve of a layer whose `safe` entries are kept before all others. The first `excluded` entries count nothing (a
    /// variant: attention sinks hold most of some layers' mass).
    pub fn new(scores: &[f32], safe: &[bool], excluded: usize) -> Curve {
        let value = |rank: usize| if rank < excluded { 0.0 } else { f64::from(scores[rank].max(0.0)) };
        let mut held: f64 = (0..scores.len()).filter(|rank| safe[*rank]).map(value).sum();
        let mut others: Vec<f32> =
            (0..scores.len()).filter(|rank| !safe[*rank]).map(|rank| value(rank) as f32).collect();
        others.sort_unstable_by(|a, b| b.total_cmp(a));
        let total = held + others.iter().copied().map(f64::from).sum::<f64>();
        // A layer without any importance is as good with its safe entries as with all.
        let share = |held: f64| if total > 0.0 { held / total } else { 1.0 };
        let mut retained = Vec::with_capacity(others.len() + 1);
        retained.push(share(held));
        for other in &others {
            held += f64::from(*other);
            retained.push(share(held));
        }
        Curve { retained, least: scores.len() - others.len() }
    }

    /// The curve from at least `entries` on.
    pub fn at_least(mut self, entries: usize) -> Curve {
        let skip = entries.clamp(self.least, self.most()) - self.least;
        self.retained.drain(..skip);
        self.least += skip;
        self
    }

    /// Entries that are kept in any case.
    pub fn least(&self) -> usize {
        self.least
    }

    /// All entries.
    pub fn most(&self) -> usize {
        self.least + self.retained.len() - 1
    }

    /// The retained share with `kept` entries.
    pub fn retained(&self, kept: usize) -> f64 {
        self.retained[kept.clamp(self.least, self.most()) - self.least]
    }

    /// The retained shares with [`Curve::least`], one more, ... and all entries.
    pub fn shares(&self) -> &[f64] {
        &self.retained
    }

    /// The least number of entries whose level reaches `threshold`, or all.
    fn reach(&self, objective: Objective, threshold: f64) -> usize {
        let (mut low, mut high) = (self.least, self.most());
        while low < high {
            let middle = low + (high - low) / 2;
            if objective.level(self, middle) < threshold { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// Which split of a whole over lanes is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// The one with the highest least retained share: PrefixKV's.
    Least,
    /// The one with the highest sum of retained shares, as AdaKV has it inside a layer.
    Sum,
    /// The one with the least sum of squares of lost shares.
    Squares,
}

impl Objective {
    /// How well off a lane is with `kept` entries, rising with them: the next entry goes to the lane with the lowest level.
    fn level(self, curve: &Curve, kept: usize) -> f64 {
        let (now, next) = (curve.retained(kept), curve.retained(kept + 1));
        match self {
            Objective::Least => now,
            Objective::Sum => now - next,
            Objective::Squares => (1.0 - next).powi(2) - (1.0 - now).powi(2),
        }
    }

    /// Below and above all levels.
    fn bounds(self) -> (f64, f64) {
        match self {
            Objective::Least => (0.0, 1.0),
            Objective::Sum | Objective::Squares => (-1.0, 0.0),
        }
    }
}

/// How many entries each lane keeps of `total`, so that the split is the best there is. `total` is met exactly, unless it is less than
/// all lanes' least or more than all.
///
/// O(halvings x lanes x log entries); what is left after the last threshold goes, entry by entry, to the lane with the lowest level
/// (on a tie the first).
pub fn search(curves: &[Curve], total: usize, objective: Objective) -> Vec<usize> {
    let mut kept = counts(curves, objective, threshold(curves, total, objective));
    let mut left = total.saturating_sub(kept.iter().sum());
    let level = |lane: usize, kept: usize| Reverse((Level(objective.level(&curves[lane], kept)), lane));
    let open = (0..curves.len()).filter(|lane| kept[*lane] < curves[*lane].most());
    let mut lowest: BinaryHeap<_> =
        if left > 0 { open.map(|lane| level(lane, kept[lane])).collect() } else { BinaryHeap::new() };
    while left > 0 {
        let Some(Reverse((_, lane))) = lowest.pop() else { break };
        kept[lane] += 1;
        left -= 1;
        if kept[lane] < curves[lane].most() {
            lowest.push(level(lane, kept[lane]));
        }
    }
    kept
}

/// The highest level that every lane can reach with `total` entries in all.
pub fn threshold(curves: &[Curve], total: usize, objective: Objective) -> f64 {
    let (mut low, mut high) = objective.bounds();
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if counts(curves, objective, middle).iter().sum::<usize>() <= total { low = middle } else { high = middle }
    }
    low
}

fn counts(curves: &[Curve], objective: Objective, threshold: f64) -> Vec<usize> {
    curves.iter().map(|curve| curve.reach(objective, threshold)).collect()
}

/// In the order of numbers.
#[derive(Clone, Copy, Debug)]
struct Level(f64);

impl Ord for Level {
    fn cmp(&self, other: &Level) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Level) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Level {
    fn eq(&self, other: &Level) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Level {}

/// The search per prompt ("online"): the scores of all layers are needed, so the whole prompt is cached before any layer is
/// compacted.
#[derive(Debug)]
pub struct Prefix {
    /// Entries at the start whose importance does not count.
    pub excluded: usize,
    /// Which split is the best.
    pub objective: Objective,
    /// The share of an even split that every lane gets in any case.
    pub floor: f64,
}

impl Prefix {
    /// Of all lanes, layer by layer.
    fn curves(&self, ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> Vec<Curve> {
        let of = |(lanes, least): (&Vec<ScoredLane>, &usize)| -> Vec<Curve> {
            let curve = |lane: &ScoredLane| Curve::new(&lane.scores, &lane.safe, self.excluded).at_least(*least);
            lanes.iter().map(curve).collect()
        };
        scored.iter().zip(ask.least).flat_map(of).collect()
    }
}

/// Entries over all lanes, where an entry of a layer counts as one.
fn over_lanes(ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> usize {
    ask.total * scored.first().map_or(1, Vec::len)
}

impl Budget for Prefix {
    fn name(&self) -> &'static str {
        "prefix"
    }

    fn needs_mass(&self) -> bool {
        true
    }

    fn is_ragged(&self) -> bool {
        true
    }

    fn excluded(&self) -> usize {
        self.excluded
    }

    fn threshold(&self, ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> Result<Option<f64>> {
        let shared = self.objective == Objective::Least && self.floor == 0.0;
        Ok(shared.then(|| threshold(&self.curves(ask, scored), over_lanes(ask, scored), self.objective)))
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
        Ok(None)
    }

    fn split(&self, ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> Result<Vec<Vec<Quota>>> {
        let (curves, total) = (self.curves(ask, scored), over_lanes(ask, scored));
        let mut kept = search(&curves, total, self.objective);
        if self.floor > 0.0 {
            let even = total as f64 / curves.len().max(1) as f64;
            let wanted: Vec<f64> =
                kept.iter().map(|kept| self.floor * even + (1.0 - self.floor) * *kept as f64).collect();
            let least: Vec<usize> = curves.iter().map(Curve::least).collect();
            let most: Vec<usize> = curves.iter().map(Curve::most).collect();
            kept = apportion(&wanted, &least, &most, total);
        }
        let mut kept = kept.into_iter().map(|kept| Quota::exact(kept, ask.positions));
        Ok(scored.iter().map(|lanes| kept.by_ref().take(lanes.len()).collect()).collect())
    }
}

/// The search as the published code does it when it writes configurations, for reproduction: its tolerance, its clipping, and
/// its rescaling, which together miss the asked whole by a little.
#[derive(Debug)]
pub struct OfficialPrefix;

impl Budget for OfficialPrefix {
    fn name(&self) -> &'static str {
        "prefix"
    }

    fn check_lanes(&self, lanes: Lanes) -> Result<()> {
        whole_layers(lanes)
    }

    fn needs_mass(&self) -> bool {
        true
    }

    fn check_keep(&self, keep: super::Keep) -> Result<()> {
        if keep.is_cap() {
            return Err(refuse("`variant: \"official\"` of prefixkv takes a share, because its search misses caps"));
        }
        Ok(())
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
        Ok(None)
    }

    fn split(&self, ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> Result<Vec<Vec<Quota>>> {
        let curves: Vec<Curve> =
            whole(scored)?.map(|lane| Curve::new(&lane.scores, &vec![false; lane.scores.len()], 0)).collect();
        let n = ask.positions;
        let all = (n * curves.len()) as f64;
        let super::Keep::Share(share) = ask.keep else {
            return Err(Error::Internal("the published search takes a share".into()));
        };
        let target = (1.0 - share) * all;
        let evicted = official_search(&curves, target);
        let count = |evicted: usize| {
            let share = evicted as f64 / n as f64;
            vec![Quota { kept: n - evicted, growth: Growth::Evicted(share) }]
        };
        Ok(evicted.into_iter().map(count).collect())
    }
}

/// Entries that the published code evicts per layer. Its loop has no cap and its tolerance of five positions can be out of
/// reach; here it ends after 100 halvings.
fn official_search(curves: &[Curve], target: f64) -> Vec<usize> {
    let (mut low, mut high) = (0.0, 1.0);
    let mut evicted = Vec::new();
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        // The first entry always counts, and one entry at either end is kept in any case.
        evicted = curves
            .iter()
            .map(|curve| {
                let reached = curve.reach(Objective::Least, middle).max(1);
                curve.most().saturating_sub(reached + 2)
            })
            .collect();
        let sum = evicted.iter().sum::<usize>() as f64;
        if (sum - target).abs() < 5.0 {
            break;
        }
        if sum > target { low = middle } else { high = middle }
    }
    let sum = evicted.iter().sum::<usize>() as f64;
    let rescale = |(evicted, curve): (&usize, &Curve)| {
        if sum == 0.0 { 0 } else { ((*evicted as f64 * target / sum) as usize).min(curve.most().saturating_sub(2)) }
    };
    evicted.iter().zip(curves).map(rescale).collect()
}

fn whole_layers(lanes: Lanes) -> Result<()> {
    match lanes {
        Lanes::PerLayer => Ok(()),
        Lanes::PerHead => Err(refuse(
            "a prefix budget splits the whole over layers whose heads share their entries: `lanes: \"layer\"`",
        )),
    }
}

/// The single lane of every layer.
fn whole(scored: &[Vec<ScoredLane>]) -> Result<impl Iterator<Item = &ScoredLane>> {
    if scored.iter().any(|lanes| lanes.len() != 1) {
        return Err(Error::Internal("a prefix budget splits over layers whose heads share their entries".into()));
    }
    Ok(scored.iter().flatten())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Claim;
    use super::*;

    fn curve(scores: &[f32], safe: usize) -> Curve {
        let safe: Vec<bool> = (0..scores.len()).map(|rank| rank < safe).collect();
        Curve::new(scores, &safe, 0)
    }

    /// Curves of scores to a power, of which the first so many are safe, and a whole between their least and their most.
    fn peaked(lanes: &[(Vec<f32>, usize, i32)], share: f64) -> (Vec<Curve>, usize) {
        let of = |(scores, safe, power): &(Vec<f32>, usize, i32)| {
            let peaked: Vec<f32> = scores.iter().map(|score| score.powi(*power)).collect();
            curve(&peaked, (*safe).min(scores.len()))
        };
        let curves: Vec<Curve> = lanes.iter().map(of).collect();
        let least: usize = curves.iter().map(Curve::least).sum();
        let most: usize = curves.iter().map(Curve::most).sum();
        (curves, least + ((most - least) as f64 * share) as usize)
    }

    /// The highest least retained share over all ways to split `total`.
    fn brute_force(curves: &[Curve], total: usize) -> f64 {
        let Some((first, rest)) = curves.split_first() else { return if total == 0 { 1.0 } else { -1.0 } };
        (first.least()..=first.most().min(total))
            .map(|kept| {
                let others = brute_force(rest, total - kept);
                if others < 0.0 { -1.0 } else { first.retained(kept).min(others) }
            })
            .fold(-1.0, f64::max)
    }

    fn least_retained(curves: &[Curve], kept: &[usize]) -> f64 {
        curves.iter().zip(kept).map(|(curve, kept)| curve.retained(*kept)).fold(1.0, f64::min)
    }

    proptest! {
        #[test]
        fn no_split_of_the_same_total_retains_more(
            layers in prop::collection::vec((prop::collection::vec(0.0f32..1.0, 1..9), 0usize..3, 1i32..12), 1..5), share in 0.0f64..1.0,
        ) {
            let (curves, total) = peaked(&layers, share);
            let kept = search(&curves, total, Objective::Least);
            prop_assert_eq!(kept.iter().sum::<usize>(), total);
            prop_assert!(curves.iter().zip(&kept).all(|(curve, kept)| (curve.least()..=curve.most()).contains(kept)));
            prop_assert_eq!(least_retained(&curves, &kept), brute_force(&curves, total));
        }

        #[test]
        fn the_search_equals_giving_entry_by_entry(
            layers in prop::collection::vec(prop::collection::vec(0.0f32..1.0, 50..90), 2..8), share in 0.05f64..1.0,
        ) {
            let curves: Vec<Curve> = layers
                .iter()
                .enumerate()
                .map(|(i, scores)| curve(&scores.iter().map(|s| s.powi(1 + 4 * i as i32)).collect::<Vec<_>>(), 2))
                .collect();
            let most: usize = curves.iter().map(Curve::most).sum();
            let total = (most as f64 * share) as usize;
            let mut kept: Vec<usize> = curves.iter().map(Curve::least).collect();
            while kept.iter().sum::<usize>() < total {
                let open = (0..curves.len()).filter(|l| kept[*l] < curves[*l].most());
                let worst = open.min_by(|a, b| curves[*a].retained(kept[*a]).total_cmp(&curves[*b].retained(kept[*b])));
                kept[worst.expect("some layer is not full")] += 1;
            }
            prop_assert_eq!(search(&curves, total, Objective::Least), kept);
        }
    }

    /// How bad a split is, by an objective that adds lost shares up.
    fn lost(curves: &[Curve], kept: &[usize], power: i32) -> f64 {
        curves.iter().zip(kept).map(|(curve, kept)| (1.0 - curve.retained(*kept)).powi(power)).sum()
    }

    /// The least of [`lost`] over all ways to split `total`.
    fn least_lost(curves: &[Curve], total: usize, power: i32) -> f64 {
        let Some((first, rest)) = curves.split_first() else { return if total == 0 { 0.0 } else { f64::INFINITY } };
        let of = |kept| lost(std::slice::from_ref(first), &[kept], power) + least_lost(rest, total - kept, power);
        (first.least()..=first.most().min(total)).map(of).fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn sums_of_lost_shares_are_the_least(
            lanes in prop::collection::vec((prop::collection::vec(0.0f32..1.0, 1..9), 0usize..3, 1i32..12), 1..5), share in 0.0f64..1.0,
        ) {
            let (curves, total) = peaked(&lanes, share);
            for (objective, power) in [(Objective::Sum, 1), (Objective::Squares, 2)] {
                let kept = search(&curves, total, objective);
                prop_assert_eq!(kept.iter().sum::<usize>(), total);
                prop_assert!((lost(&curves, &kept, power) - least_lost(&curves, total, power)).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_floor_and_heads_of_their_own() {
        let lane = |scores: &[f32]| ScoredLane {
            scores: scores.to_vec(),
            safe: vec![false; 4],
            claim: Claim::default(),
            heads: 1,
        };
        let peaked = [0.97, 0.01, 0.01, 0.01];
        let scored = [vec![lane(&[0.25; 4]), lane(&peaked)], vec![lane(&peaked), lane(&peaked)]];
        let cost = crate::method::keep::Cost { layers: 2, entry: 100, fixed: 0, settled: None };
        let keep = super::super::Keep::Share(0.5);
        let ask = BudgetRequest { keep, cost: &cost, positions: 4, total: 4, available: &[4; 2], least: &[1; 2] };
        let of = |objective, floor| -> Vec<Vec<usize>> {
            let split = Prefix { excluded: 0, objective, floor }.split(&ask, &scored).unwrap();
            split.iter().map(|lanes| lanes.iter().map(|quota| quota.kept).collect()).collect()
        };
        for objective in [Objective::Least, Objective::Sum, Objective::Squares] {
            assert_eq!(of(objective, 0.0), [[4, 2], [1, 1]], "{objective:?}");
            assert_eq!(of(objective, 1.0), [[2, 2], [2, 2]]);
        }
    }

    #[test]
    fn layers_without_importance_end_the_search() {
        let curves = [curve(&[0.0; 8], 1), curve(&[1.0; 8], 1), curve(&[1.0, 0.0, 0.0], 1)];
        for total in 3..=19 {
            assert_eq!(search(&curves, total, Objective::Least).iter().sum::<usize>(), total);
        }
        assert_eq!(search(&curves, 25, Objective::Least), [8, 8, 3]);
    }

    #[test]
    fn the_sink_can_be_left_out_of_the_curve() {
        let scores = [80.0, 10.0, 6.0, 4.0];
        let safe = [true, false, false, false];
        assert!((Curve::new(&scores, &safe, 0).retained(1) - 0.8).abs() < 1e-6);
        assert!((Curve::new(&scores, &safe, 1).retained(2) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn the_published_search_ends_and_comes_near() {
        let layers: Vec<Curve> = (1..8)
            .map(|p| curve(&(0..300).map(|i| ((i * 37 % 101) as f32 / 101.0).powi(p)).collect::<Vec<_>>(), 0))
            .collect();
        for share in [0.1, 0.5, 0.9] {
            let target = share * 7.0 * 300.0;
            let sum = official_search(&layers, target).iter().sum::<usize>() as f64;
            assert!((sum - target).abs() <= 8.0, "{sum} for {target}");
        }
        let tiny: Vec<Curve> = (0..3).map(|_| curve(&[1.0; 4], 0)).collect();
        assert_eq!(official_search(&tiny, 0.5).len(), 3);
    }
}
