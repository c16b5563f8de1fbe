//! A record of what a method has seen in a prompt and made of it, for people to look at.

use serde::Serialize;

use super::Recipe;
use super::budget::ScoredLane;
use super::budget::prefix::Curve;
use crate::cache::Entry;

/// How the entries of a prompt were ranked.
#[derive(Clone, Debug)]
pub struct Record {
    /// The name of the score.
    pub score: &'static str,
    /// The score in words.
    pub ranking: &'static str,
    /// Whether scores are shares of attention, so that sums of them mean something.
    pub mass: bool,
    /// The share of importance that every layer was to retain at least; None where the budget looks for none.
    pub threshold: Option<f64>,
    pub layers: Vec<LayerRecord>,
}

/// How the entries of a layer were ranked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LayerRecord {
    /// The score of each position of the prompt; the mean over the heads where they have their own. Empty for a layer that methods leave
    /// to its window.
    pub importance: Vec<f32>,
    /// How much of the importance the best entries hold; null for a score without mass.
    pub cumulative: Option<Cumulative>,
    /// The share of the importance that the kept entries hold; null for a score without mass.
    pub retained: Option<f64>,
}

/// The share of a layer's importance that the best `from`, `from` + 1, ... entries hold.
#[derive(Clone, Debug, Serialize)]
pub struct Cumulative {
    /// Entries that the first share is of: those that are kept in any case.
    pub from: usize,
    /// Rising to 1.
    pub shares: Vec<f64>,
}

impl Record {
    /// `left` has the entries that are left, per layer and lane. All entries must be those of one prompt from position 0.
    pub(crate) fn new(
        recipe: &Recipe,
        scored: &[Vec<ScoredLane>],
        left: &[Vec<Vec<Entry>>],
        threshold: Option<f64>,
    ) -> Record {
        let mass = recipe.score.has_mass();
        let excluded = recipe.budget.excluded();
        let layers = scored.iter().zip(left).map(|(lanes, left)| {
            let importance = mean(lanes);
            let none = vec![false; importance.len()];
            // Only a budget over shares counts what is kept in any case first.
            let safe = match lanes.as_slice() {
                [lane] if recipe.budget.needs_mass() => &lane.safe,
                _ => &none,
            };
            let cumulative = mass.then(|| {
                let curve = Curve::new(&importance, safe, excluded);
                Cumulative { from: curve.least(), shares: curve.shares().to_vec() }
            });
            let retained = mass.then(|| retained(lanes, left, excluded));
            LayerRecord { importance, cumulative, retained }
        });
        Record { score: recipe.score.name(), ranking: recipe.score.words(), mass, threshold, layers: layers.collect() }
    }

    /// With a layer for each of `numbers`, which say which of the ranked ones it is, if it is one.
    pub(crate) fn for_layers(self, numbers: impl Iterator<Item = Option<usize>>) -> Record {
        let of = |number: Option<usize>| number.and_then(|number| self.layers.get(number).cloned()).unwrap_or_default();
        Record { layers: numbers.map(of).collect(), ..self }
    }
}

fn mean(lanes: &[ScoredLane]) -> Vec<f32> {
    let heads: usize = lanes.iter().map(|lane| lane.heads).sum();
    let mut mean = vec![0.0; lanes.first().map_or(0, |lane| lane.scores.len())];
    for lane in lanes {
        let weight = lane.heads as f32 / heads as f32;
        mean.iter_mut().zip(&lane.scores).for_each(|(mean, score)| *mean += weight * score);
    }
    mean
}

fn retained(lanes: &[ScoredLane], left: &[Vec<Entry>], excluded: usize) -> f64 {
    let (mut held, mut total) = (0.0, 0.0);
    for (lane, left) in lanes.iter().zip(left) {
        let value = |position: usize| match position < excluded {
            true => 0.0,
            false => f64::from(lane.scores.get(position).map_or(0.0, |score| score.max(0.0))) * lane.heads as f64,
        };
        held += left.iter().map(|entry| value(entry.position as usize)).sum::<f64>();
        total += (0..lane.scores.len()).map(value).sum::<f64>();
    }
    if total > 0.0 { held / total } else { 1.0 }
}
