//! Layers that are stored two by two: when both of a pair are ready, and which entries both have.

use std::collections::HashMap;

use prefixkv_kernels::codec::KvCodec;

use super::super::plan::{LanePlan, Plan};
use super::super::view::View;
use super::{BLOCK, LaneNumber};
use crate::cache::Entry;
use crate::error::{Error, Result};

/// The pairs of a sequence, as far as their layers are settled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs {
    /// Layers whose neighbour is not yet ready.
    ready: Vec<usize>,
    /// For the lower layer of a pair, the first position that was not looked at yet.
    seen: HashMap<LaneNumber, u32>,
}

/// Entries of two lanes that are no longer recent, and were not looked at before.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Those that both have.
    pub(crate) both: Vec<[Entry; 2]>,
    /// Of either, what is stored as new entries are up to the same position.
    whole: [Vec<u32>; 2],
}

impl Settled {
    /// Of either lane the positions of entries that are not among `together`, which is ascending.
    pub(crate) fn left(self, together: &[u32]) -> [Vec<u32>; 2] {
        self.whole.map(|mut of| {
            of.retain(|position| together.binary_search(position).is_err());
            of
        })
    }
}

impl Pairs {
    /// Whether both layers of a pair are ready, now that `layer` is.
    pub(crate) fn are_ready(&mut self, layer: usize, pair: [usize; 2], view: &View<'_>) -> Result<bool> {
        let other = if pair[0] == layer { pair[1] } else { pair[0] };
        if !self.ready.contains(&other) {
            if !self.ready.contains(&layer) {
                self.ready.push(layer);
            }
            return Ok(false);
        }
        self.ready.retain(|ready| !pair.contains(ready));
        match view.cache.lanes(pair[0]) == view.cache.lanes(pair[1]) {
            true => Ok(true),
            false => Err(Error::Internal(format!("layers {pair:?} with lanes of other numbers"))),
        }
    }

    /// The entries to store of a lane of a pair, but for the `window` most recent entries of either; None: too little.
    pub(crate) fn settled(&mut self, pair: [usize; 2], lane: usize, window: usize, view: &View<'_>) -> Option<Settled> {
        let number = LaneNumber { layer: pair[0], lane };
        let since = self.seen.get(&number).copied().unwrap_or(0);
        let all = pair.map(|layer| view.cache.lane(layer, lane).sorted_unencoded());
        let settled = [0, 1].map(|side| {
            let fresh = &all[side][all[side].partition_point(|entry| entry.position < since)..];
            &fresh[..fresh.len().saturating_sub(window)]
        });
        let [first, second] = [settled[0].last()?, settled[1].last()?];
        if settled.iter().any(|of| of.len() < least(view)) {
            return None;
        }
        let end = first.position.min(second.position) + 1;
        self.seen.insert(number, end);
        let both = common(settled, end);
        let whole = [0, 1]
            .map(|side| all[side].iter().map(|entry| entry.position).take_while(|position| *position < end).collect());
        Some(Settled { both, whole })
    }
}

/// How many entries are stored at once, at least: a prompt's all.
pub(crate) fn least(view: &View<'_>) -> usize {
    if view.n > 1 { 1 } else { BLOCK }
}

/// Stores entries of a layer without a neighbour in `codec`, which is deleted from by entry.
pub(crate) fn alone(codec: KvCodec, window: usize, layer: usize, view: &View<'_>, plan: &mut Plan) {
    for (index, lane) in view.cache.of(layer).enumerate() {
        let settled = lane.unencoded().saturating_sub(window);
        if settled < least(view) {
            continue;
        }
        let oldest = lane.sorted_unencoded().into_iter().take(settled);
        let positions = oldest.map(|entry| entry.position).collect();
        plan.push(LanePlan::encoding(layer, index, [(codec, positions)]));
    }
}

/// Entries of two lanes at the same positions, before `end`.
fn common(lanes: [&[Entry]; 2], end: u32) -> Vec<[Entry; 2]> {
    let [first, second] = lanes.map(|of| &of[..of.partition_point(|entry| entry.position < end)]);
    let with = |entry: &Entry| {
        let found = second.binary_search_by_key(&entry.position, |entry| entry.position);
        found.ok().map(|at| [*entry, second[at]])
    };
    first.iter().filter_map(with).collect()
}
