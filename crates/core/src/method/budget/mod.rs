//! How many entries each lane keeps: one file per way to split the whole.

mod ada;
mod calibrated;
mod claimed;
mod heads;
mod pooled;
pub mod prefix;
mod pyramid;
mod uniform;

use std::fmt::Debug;

pub use ada::Ada;
pub use calibrated::Calibrated;
pub use claimed::{Claimed, Joined};
pub use heads::HeadScores;
pub use pooled::Pooled;
pub use prefix::{Objective, OfficialPrefix, Prefix};
pub use pyramid::Pyramid;
pub use uniform::Uniform;

use super::Lanes;
use super::keep::{Cost, Keep, too_small};
use crate::cache::Shape;
use crate::error::{Error, Result};

/// A request to split entries over layers. An entry of a layer, over all its lanes, counts as one.
#[derive(Debug)]
pub struct BudgetRequest<'a> {
    pub keep: Keep,
    pub cost: &'a Cost,
    /// Positions seen, the prompt's included.
    pub positions: usize,
    /// Entries that may be kept over all layers.
    pub total: usize,
    /// Entries that each layer has.
    pub available: &'a [usize],
    /// Entries that each layer must keep at least.
    pub least: &'a [usize],
}

impl BudgetRequest<'_> {
    /// Refuses a whole that does not hold `least` in every layer.
    pub fn check(&self, needed: usize, why: &str) -> Result<()> {
        if self.total >= needed {
            return Ok(());
        }
        Err(too_small(self.keep, needed, self.positions, self.cost, why))
    }

    /// Entries over all layers that must be kept.
    pub fn all_least(&self) -> usize {
        self.least.iter().sum()
    }
}

/// The scores of one lane in the order of positions, and which entries are safe.
#[derive(Clone, Debug)]
pub struct ScoredLane {
    pub scores: Vec<f32>,
    pub safe: Vec<bool>,
    pub claim: Claim,
    /// KV heads.
    pub heads: usize,
}

/// A lane's claim on the whole beside those of others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Each summed over the lanes of a layer; not negative, and only as large as they are to those of other layers.
    pub factors: [f64; 2],
    /// Entries that come before all that is claimed.
    pub before: usize,
}

impl Default for Claim {
    fn default() -> Claim {
        Claim { factors: [1.0; 2], before: 0 }
    }
}

/// How the size of a lane follows the number of positions seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Growth {
    /// `kept` of `positions`.
    Exact { kept: usize, positions: usize },
    /// All but this share: a number of a published configuration.
    Evicted(f64),
}

impl Growth {
    /// Whether `len` entries are at least one too many for `positions`.
    pub fn exceeded(self, len: usize, positions: usize) -> bool {
        match self {
            Growth::Exact { kept, positions: of } => {
                (len as u128) * (of as u128) >= positions as u128 * kept as u128 + of as u128
            }
            // As the published code has it.
            Growth::Evicted(share) => (len as f64 - positions as f64 * (1.0 - share)) as i64 >= 1,
        }
    }
}

/// The outcome for one lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    pub kept: usize,
    pub growth: Growth,
}

impl Quota {
    pub fn exact(kept: usize, positions: usize) -> Quota {
        Quota { kept, growth: Growth::Exact { kept, positions } }
    }
}

/// Says how many entries each lane keeps. Asked once before the prompt ([`Budget::ahead`]); where that knows the sizes of the layers,
/// once in each layer ([`Budget::heads`]), which is compacted at once; and else after the prompt ([`Budget::split`]).
pub trait Budget: Send + Sync + Debug {
    /// As options and reports name it.
    fn name(&self) -> &'static str;

    /// Whether scores must be shares of a mass.
    fn needs_mass(&self) -> bool {
        false
    }

    /// Refuses lanes that the budget does not split over.
    fn check_lanes(&self, lanes: Lanes) -> Result<()> {
        let _ = lanes;
        Ok(())
    }

    /// Whether lanes of one layer may differ in size.
    fn is_ragged(&self) -> bool {
        false
    }

    /// Refuses a size that the budget cannot hold.
    fn check_keep(&self, keep: Keep) -> Result<()> {
        let _ = keep;
        Ok(())
    }

    /// Refuses a model that the budget is not made for.
    fn check_model(&self, model: &ModelKey) -> Result<()> {
        let _ = model;
        Ok(())
    }

    /// Whether it has a size for every layer of one model.
    fn is_of_layers(&self) -> bool {
        false
    }

    /// Whether a method that has this one from a calibration finds another without.
    fn has_another(&self) -> bool {
        true
    }

    /// The size for which the budget was made, when none is asked for.
    fn default_keep(&self) -> Option<Keep> {
        None
    }

    /// Quotas per layer that need no scores, so that each layer can be compacted right after its attention. None: they need
    /// the scores of all layers.
    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>>;

    /// The quotas of a layer's lanes: together, weighted by heads, its `quota`.
    fn heads(&self, ask: &BudgetRequest<'_>, layer: usize, quota: Quota, lanes: &[ScoredLane]) -> Vec<Quota> {
        let _ = (ask, layer);
        vec![quota; lanes.len()]
    }

    /// The least whole whose layers hold `least` entries each.
    fn least_whole(&self, least: &[usize]) -> usize {
        least.iter().sum()
    }

    /// First entries whose scores count nothing when layers are compared.
    fn excluded(&self) -> usize {
        0
    }

    /// The share of importance that every layer was to retain at least, where a split looks for one.
    fn threshold(&self, ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> Result<Option<f64>> {
        let _ = (ask, scored);
        Ok(None)
    }

    /// Quotas per layer and lane from the scores of all layers. Only asked when [`Budget::ahead`] says None.
    fn split(&self, ask: &BudgetRequest<'_>, scored: &[Vec<ScoredLane>]) -> Result<Vec<Vec<Quota>>> {
        let _ = (ask, scored);
        Err(Error::Internal("a budget that needs scores must split by them".into()))
    }
}

/// The model to which a calibration is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelKey {
    /// With the layers that methods size.
    pub shape: Shape,
    /// A hash of the configuration and of samples of the weights.
    pub fingerprint: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_slopes_say_the_same_away_from_rounding() {
        for (kept, of) in [(13, 100), (1, 3), (100, 100), (57, 187)] {
            let evicted = Growth::Evicted(1.0 - kept as f64 / of as f64);
            let exact = Growth::Exact { kept, positions: of };
            for positions in of..of + 90 {
                let allowed = positions as f64 * kept as f64 / of as f64;
                if (allowed - allowed.round()).abs() < 1e-6 {
                    continue;
                }
                for len in 0..positions {
                    assert_eq!(exact.exceeded(len, positions), evicted.exceeded(len, positions), "{len} {positions}");
                }
            }
            assert!(!exact.exceeded(kept, of));
            assert!(exact.exceeded(kept + 1, of));
        }
    }
}
