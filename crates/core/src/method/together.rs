//! Lanes that give up several entries together, every so many generated tokens, and may rank them anew for that.

use super::Recipe;
use super::budget::Quota;
use super::caps;
use super::eviction::Search;
use super::guard::best;
use super::plan::{LanePlan, Plan};
use super::score::{LaneInput, PromptView};
use super::view::{LastQueries, ReadLane, View};
use crate::cache::Entry;
use crate::error::Result;

/// [`Eviction::Together`](super::Eviction) of a recipe at work.
pub(super) struct Together<'a> {
    pub recipe: &'a Recipe,
    pub search: &'a mut Search,
    pub every: usize,
    pub window: Option<usize>,
}

/// The lanes of all layers with their quotas.
fn lanes<'a>(
    quotas: &'a [Vec<Quota>],
    view: &'a View<'_>,
) -> impl Iterator<Item = (usize, usize, Quota, &'a dyn ReadLane)> {
    let of = move |(layer, quotas): (usize, &'a Vec<Quota>)| {
        quotas.iter().enumerate().map(move |(lane, quota)| (layer, lane, *quota, view.cache.lane(layer, lane)))
    };
    quotas.iter().enumerate().flat_map(of)
}

/// From now on entries collect what the next tokens give.
fn forgotten(lane: &dyn ReadLane) -> Vec<f32> {
    vec![0.0; lane.len()]
}

impl Together<'_> {
    /// Before a generated token: a lane at its cap makes room for several, of which this is one.
    pub(super) fn make_room(self, quotas: &[Vec<Quota>], view: &View<'_>, plan: &mut Plan) -> Result<()> {
        for (layer, lane, quota, held) in lanes(quotas, view) {
            if held.len() < quota.kept {
                continue;
            }
            let room = self.every.min(quota.kept / 2).max(1);
            let mut kept = self.best_of(held, layer, quota.kept - room.min(quota.kept), view)?;
            // Protected entries may leave less room, or none.
            caps::down(self.recipe, self.search, held, &mut kept, quota, view.spans, 1)?;
            let mut change = LanePlan::new(layer, lane);
            if self.window.is_some_and(|window| quota.kept - kept.len() <= window) {
                change.scores = forgotten(held);
            }
            change.keep = Some(kept);
            plan.push(change);
        }
        Ok(())
    }

    /// After a generated token, with caps: entries begin to collect when `window` more fit.
    pub(super) fn before_the_cap(self, quotas: &[Vec<Quota>], view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let Some(window) = self.window else { return Ok(()) };
        for (layer, lane, _, held) in lanes(quotas, view).filter(|(.., quota, held)| held.len() + window == quota.kept)
        {
            plan.push(LanePlan { scores: forgotten(held), ..LanePlan::new(layer, lane) });
        }
        Ok(())
    }

    /// After a generated token, with a share: when `every` more have come, lanes go back to it.
    pub(super) fn after_step(self, step: u64, quotas: &[Vec<Quota>], view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let passed = ((step + 1) % self.every as u64) as usize;
        let (due, collects) =
            (passed == 0, self.window.is_some_and(|window| self.every - passed == window.min(self.every)));
        if !due && !collects {
            return Ok(());
        }
        for (layer, lane, quota, held) in lanes(quotas, view) {
            let mut change = LanePlan::new(layer, lane);
            let too_long = |len: &usize| quota.growth.exceeded(*len, view.positions());
            let count = (0..=held.len()).rev().find(|len| !too_long(len)).unwrap_or(0);
            if due && count < held.len() {
                change.keep = Some(self.best_of(held, layer, count, view)?);
            }
            if collects {
                change.scores = forgotten(held);
            }
            plan.push(change);
        }
        Ok(())
    }

    /// The best entries of a lane, so many in all, and all that are safe.
    fn best_of(&self, lane: &dyn ReadLane, layer: usize, count: usize, view: &View<'_>) -> Result<Vec<Entry>> {
        let (sorted, carried) = (lane.sorted(), lane.scores());
        let View { past, n, spans, blocks, .. } = *view;
        let prompt = &PromptView { past, n, spans, allowance: count, blocks };
        let (layer, sorted, carried, queries) = (view.cache.number(layer), &sorted, &carried, &LastQueries::default());
        let scores = match self.window {
            Some(_) => {
                self.recipe.score.score(&LaneInput { lane, layer, sorted, sums: &[], carried, prompt, queries })?
            }
            None => sorted.iter().map(|entry| carried.get(entry.place as usize).copied().unwrap_or(0.0)).collect(),
        };
        let safe = self.recipe.protected.protected(sorted, count, view.spans);
        Ok(best(&scores, &safe, count).into_iter().map(|rank| sorted[rank]).collect())
    }
}
