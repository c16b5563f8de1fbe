//! Sizes that hold however long a sequence grows.

use super::budget::Quota;
use super::eviction::{EvictionQuery, Search};
use super::view::{Part, ReadLane};
use super::{Eviction, Recipe};
use crate::cache::{Dead, Entry, Span};
use crate::error::{Error, Result};

/// Raises the counts of lanes, `[layer][lane]`, to caps whose whole is `whole` entries of a layer's heads together: at least `to_hold` in
/// each layer, taken from those that have most to spare where nothing is left; then the same more for all. A layer's entry, over all its
/// heads, counts one, so what heads have that keep less than others is left as well.
pub(super) fn share_out(whole: usize, heads: &[Vec<usize>], to_hold: &[usize], kept: &mut [Vec<usize>]) {
    let all_heads = heads.first().map_or(1, |lanes| lanes.iter().sum::<usize>().max(1));
    let whole = whole.saturating_mul(all_heads);
    let mut used = 0usize;
    for ((kept, heads), to_hold) in kept.iter_mut().zip(heads).zip(to_hold) {
        for (kept, heads) in kept.iter_mut().zip(heads) {
            *kept = (*kept).max(*to_hold);
            used += *kept * heads;
        }
    }
    while used > whole {
        let lanes = kept.iter().enumerate().flat_map(|(layer, lanes)| {
            lanes.iter().enumerate().map(move |(lane, kept)| (kept.saturating_sub(to_hold[layer]), layer, lane))
        });
        let Some((_, layer, lane)) = lanes.filter(|(spare, ..)| *spare > 0).max_by_key(|(spare, ..)| *spare) else {
            break;
        };
        kept[layer][lane] -= 1;
        used -= heads[layer][lane];
    }
    let left = whole.saturating_sub(used) / all_heads;
    let layers = kept.len().max(1);
    for (layer, lanes) in kept.iter_mut().enumerate() {
        let more = left / layers + usize::from(layer < left % layers);
        lanes.iter_mut().for_each(|kept| *kept += more);
    }
}

/// The entry that a lane gives up which is about to get `coming` more. None when all are protected, or nothing ever goes.
pub(super) fn victim(
    recipe: &Recipe,
    search: &mut Search,
    lane: &dyn ReadLane,
    quota: Quota,
    spans: &[Span],
    coming: usize,
) -> Option<Entry> {
    if recipe.eviction == Eviction::Never || lane.is_empty() {
        return None;
    }
    let ask = EvictionQuery {
        eviction: recipe.eviction,
        kept: quota.kept,
        sinks: recipe.protected.sinks,
        recent: recipe.protected.recent.of(lane.len() - 1 + coming).saturating_sub(coming),
        text: recipe.protected.text.then_some(spans),
    };
    search.victim(lane, &ask)
}

/// As [`victim`], for a lane whose cap must hold: where all that are left are protected, the oldest of the recent ones and of the text
/// goes as well.
pub(super) fn forced(
    recipe: &Recipe,
    search: &mut Search,
    lane: &dyn ReadLane,
    quota: Quota,
    spans: &[Span],
    coming: usize,
) -> Result<Entry> {
    if let Some(entry) = victim(recipe, search, lane, quota, spans, coming) {
        return Ok(entry);
    }
    let ask = EvictionQuery {
        eviction: Eviction::Oldest,
        kept: quota.kept,
        sinks: recipe.protected.sinks.min(quota.kept.saturating_sub(coming)),
        recent: 0,
        text: None,
    };
    let found = search.victim(lane, &ask);
    found.ok_or_else(|| Error::Internal(format!("a lane of {} entries gives none up", lane.len())))
}

/// Takes entries out of `kept` until a lane with these, which is about to get `coming` more, keeps its cap.
pub(super) fn down(
    recipe: &Recipe,
    search: &mut Search,
    lane: &dyn ReadLane,
    kept: &mut Vec<Entry>,
    quota: Quota,
    spans: &[Span],
    coming: usize,
) -> Result<()> {
    if kept.len() + coming <= quota.kept {
        return Ok(());
    }
    let scores = lane.scores();
    let mut left = Left {
        positions: kept.iter().map(|entry| entry.position).collect(),
        scores: if scores.is_empty() { scores } else { kept.iter().map(|e| scores[e.place as usize]).collect() },
    };
    while left.len() + coming > quota.kept && !left.is_empty() {
        let gone = forced(recipe, search, &left, quota, spans, coming)?.place as usize;
        left.positions.remove(gone);
        if !left.scores.is_empty() {
            left.scores.remove(gone);
        }
        kept.remove(gone);
    }
    Ok(())
}

/// A lane as it will be once a plan is carried out.
struct Left {
    positions: Vec<u32>,
    scores: Vec<f32>,
}

fn not_there<T>() -> Result<T> {
    Err(Error::Internal("keys and values of a lane that is not there yet".into()))
}

impl ReadLane for Left {
    fn heads(&self) -> std::ops::Range<usize> {
        0..0
    }

    fn len(&self) -> usize {
        self.positions.len()
    }

    fn unencoded(&self) -> usize {
        self.len()
    }

    fn part(&self, index: usize) -> Option<Part<'_>> {
        let (positions, scores) = (&self.positions, &self.scores);
        (index == 0).then_some(Part { positions, scores, dead: Dead::default(), fresh: true })
    }

    fn key_norm(&self, _: u32) -> Result<f32> {
        not_there()
    }

    fn key_norms(&self) -> Result<Vec<f32>> {
        not_there()
    }

    fn at_once(&self) -> usize {
        1
    }

    fn keys(&self, _: &[Entry]) -> Result<Vec<f32>> {
        not_there()
    }

    fn values(&self, _: &[Entry]) -> Result<Vec<f32>> {
        not_there()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn caps_hold_what_they_must_and_fill_the_whole(
            layers in prop::collection::vec((prop::collection::vec((1usize..4, 0usize..30), 1..4), 0usize..6), 1..6), more in 0usize..90,
        ) {
            // Heads of all layers are as many: the last lane takes those that are missing.
            let all = layers.iter().map(|(lanes, _)| lanes.iter().map(|lane| lane.0).sum::<usize>()).max().unwrap_or(1);
            let (mut heads, mut kept, mut to_hold) = (Vec::new(), Vec::new(), Vec::new());
            for (lanes, least) in layers {
                let mut own: Vec<usize> = lanes.iter().map(|lane| lane.0).collect();
                let missing = all - own.iter().sum::<usize>();
                *own.last_mut().expect("a lane") += missing;
                heads.push(own);
                kept.push(lanes.iter().map(|lane| lane.1).collect::<Vec<_>>());
                to_hold.push(least);
            }
            let whole = to_hold.iter().sum::<usize>() + more;
            share_out(whole, &heads, &to_hold, &mut kept);
            let of = |(kept, heads): (&Vec<usize>, &Vec<usize>)| -> usize {
                kept.iter().zip(heads).map(|(kept, heads)| kept * heads).sum()
            };
            let used: usize = kept.iter().zip(&heads).map(of).sum();
            prop_assert!(used <= whole * all, "{used} of {}", whole * all);
            prop_assert!(used + all > whole * all, "less than an entry of a layer is left: {used} of {}", whole * all);
            for (kept, least) in kept.iter().zip(&to_hold) {
                prop_assert!(kept.iter().all(|kept| kept >= least));
            }
        }
    }

    #[test]
    fn what_ragged_heads_leave_is_shared() {
        // Heads with 10 and 2 entries take 6 on average, so 4 of 10 are left.
        let mut kept = vec![vec![10, 2], vec![6, 6]];
        share_out(20, &[vec![1, 1], vec![1, 1]], &[1, 1], &mut kept);
        assert_eq!(kept, [[14, 6], [10, 10]]);
    }
}
