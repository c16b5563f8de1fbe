//! A method at work on one sequence: what it asks of attention, and when it frees entries.

use std::sync::Arc;

use super::eviction::{EvictionQuery, Search};
use crate::cache::{Account, Bookkeeping, Charge, Entry, Lane, Memory, Shape, Span};
use crate::error::{Error, Result};
use crate::method::budget::{BudgetRequest, Quota, ScoredLane};
use crate::method::guard::best;
use crate::method::keep::{Cost, Keep, too_small};
use crate::method::score::{LaneInput, PromptView};
use crate::method::{Eviction, Lanes, Method, Record};

/// The retained shares per layer that a prompt asks for, one row per size.
pub type Profile = Vec<Vec<f64>>;

/// The method of a sequence and what it has decided so far.
#[derive(Debug)]
pub(crate) struct Policy {
    method: Arc<Method>,
    marked: bool,
    cost: Cost,
    /// Per owning layer and lane, after the first prompt.
    counts: Vec<Vec<Quota>>,
    plan: Option<Plan>,
    /// Sizes to profile instead of evicting.
    profile: Option<Vec<f64>>,
    profiled: Profile,
    /// The scores of the next prompt are to be kept; they are, per owning layer.
    recording: Option<Vec<Vec<ScoredLane>>>,
    record: Option<Record>,
    search: Search,
}

/// What is known while a prompt is on its way.
#[derive(Debug)]
struct Plan {
    past: usize,
    n: usize,
    total: usize,
    available: Vec<usize>,
    /// What each layer must keep of them.
    least: Vec<usize>,
    /// What each layer must be able to hold from now on; more than `least` while there are few entries.
    to_hold: Vec<usize>,
    /// All entries may stay.
    all_stay: bool,
    /// Known before the scores.
    ahead: Option<Vec<Quota>>,
    scored: Vec<Vec<ScoredLane>>,
    /// For `scored`, which lives until the last layer is done.
    workspace: Vec<Charge>,
}

impl Plan {
    /// The most entries, beside those that are held before the prompt, that all layers hold together while one after the other gets the
    /// prompt and is compacted, which copies what stays; None when all is held until the prompt ends.
    fn growth(&self) -> Option<usize> {
        let (mut most, mut grown) = (0, 0);
        for (count, available) in self.ahead.as_ref()?.iter().zip(&self.available) {
            let copied = if count.kept < *available { count.kept } else { 0 };
            most = most.max(grown + (self.n + copied) as i64);
            grown += count.kept as i64 - (available - self.n) as i64;
        }
        Some(most.max(grown).max(0) as usize)
    }
}

impl Policy {
    /// `carry` keeps what a next prompt on the same sequence needs.
    pub(crate) fn new<M: Memory>(method: Arc<Method>, shape: &Shape, carry: bool) -> Policy {
        let marked = method.keep != Keep::Share(1.0) && method.marked(carry);
        let lanes = match method.recipe.lanes {
            Lanes::PerLayer => 1,
            Lanes::PerHead => shape.kv_heads,
        };
        let cost = Cost::new(shape, lanes, marked, Bookkeeping::of::<M>());
        Policy {
            method,
            marked,
            cost,
            counts: Vec::new(),
            plan: None,
            profile: None,
            profiled: Profile::new(),
            recording: None,
            record: None,
            search: Search::default(),
        }
    }

    /// Finds the sizes for each of `keeps` at the next prompt and evicts nothing.
    pub(crate) fn profile(&mut self, keeps: Vec<f64>) {
        self.profile = Some(keeps);
    }

    pub(crate) fn take_profile(&mut self) -> Profile {
        std::mem::take(&mut self.profiled)
    }

    /// Keeps what the next prompt's entries are ranked by, for [`Policy::take_record`].
    pub(crate) fn record(&mut self) {
        self.recording = Some(Vec::new());
    }

    pub(crate) fn take_record(&mut self) -> Option<Record> {
        self.record.take()
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn marked(&self) -> bool {
        self.marked
    }

    /// A prompt of `n` positions after `past`; `spans` says what all of them are. Refuses a size that does not hold what is
    /// protected, now and while generating, before any work.
    pub(crate) fn begin_prompt<M: Memory>(
        &mut self,
        layers: &[Vec<Lane<M>>],
        owners: &[usize],
        spans: &[Span],
        past: usize,
        n: usize,
    ) -> Result<()> {
        self.plan = Some(self.plan(layers, owners, spans, past, n)?);
        Ok(())
    }

    /// The most entries that such a prompt adds to those that are held, where layers are compacted one by one; None when all is held
    /// until it ends.
    pub(crate) fn growth<M: Memory>(
        &self,
        layers: &[Vec<Lane<M>>],
        owners: &[usize],
        spans: &[Span],
        past: usize,
        n: usize,
    ) -> Result<Option<usize>> {
        Ok(self.plan(layers, owners, spans, past, n)?.growth())
    }

    fn plan<M: Memory>(
        &self,
        layers: &[Vec<Lane<M>>],
        owners: &[usize],
        spans: &[Span],
        past: usize,
        n: usize,
    ) -> Result<Plan> {
        let positions = past + n;
        let available: Vec<usize> =
            owners.iter().map(|layer| layers[*layer].iter().map(Lane::len).max().unwrap_or(0) + n).collect();
        let to_hold: Vec<usize> = owners
            .iter()
            .map(|layer| {
                let lanes = layers[*layer].iter();
                lanes.map(|lane| self.least(lane, spans, past, n)).max().unwrap_or(0)
            })
            .collect();
        let budget = &self.method.recipe.budget;
        if self.method.keep.is_cap() && self.profile.is_none() {
            let needed = budget.least_whole(&to_hold);
            if self.whole() < needed {
                let why = "what is protected must fit in every layer, while generating too";
                return Err(too_small(self.method.keep, needed, positions, &self.cost, why));
            }
        }
        let least = to_hold.iter().zip(&available).map(|(least, available)| *least.min(available)).collect();
        let total = self.method.keep.total(positions, &self.cost);
        let all: usize = available.iter().sum();
        let all_stay = total >= all && self.profile.is_none();
        let mut plan = Plan {
            past,
            n,
            total,
            available,
            least,
            to_hold,
            all_stay,
            ahead: None,
            scored: Vec::new(),
            workspace: Vec::new(),
        };
        if !all_stay {
            plan.ahead = budget.ahead(&self.ask(&plan, total))?;
        }
        if self.profile.is_some() && plan.ahead.is_some() {
            return Err(crate::fields::refuse(format!(
                "{} has nothing to calibrate: its sizes do not depend on the prompt",
                self.method.name
            )));
        }
        Ok(plan)
    }

    /// [`Policy::growth`] of the prompt that has begun.
    pub(crate) fn planned_growth(&self) -> Option<usize> {
        self.plan.as_ref()?.growth()
    }

    /// Entries over all layers of a sequence that has grown without end.
    fn whole(&self) -> usize {
        // More positions than any model has.
        const ENDLESS: usize = 1 << 40;
        self.method.keep.total(ENDLESS, &self.cost)
    }

    /// For layers of one size, how many positions there may be until a lane holds `most` entries, when such a prompt comes next; the
    /// prompt itself is held whole for a moment.
    pub(crate) fn positions_within<M: Memory>(
        &self,
        layers: &[Vec<Lane<M>>],
        owners: &[usize],
        spans: &[Span],
        past: usize,
        n: usize,
        most: usize,
    ) -> Result<usize> {
        let plan = self.plan(layers, owners, spans, past, n)?;
        let kept = match &plan.ahead {
            Some(counts) => counts.iter().map(|count| count.kept).max().unwrap_or(0),
            None => plan.available.iter().copied().max().unwrap_or(0),
        };
        let positions = past + n;
        Ok(match self.method.keep {
            // A lane that is one entry longer for the length of a step.
            keep if keep.is_cap() && self.whole().div_ceil(owners.len().max(1)) + 1 < most => usize::MAX,
            _ if self.method.recipe.eviction == Eviction::Never => most + positions.saturating_sub(kept),
            Keep::Share(_) if kept < positions => (most.saturating_sub(2) * positions / kept.max(1)).max(most),
            _ => most,
        })
    }

    fn ask<'a>(&'a self, plan: &'a Plan, total: usize) -> BudgetRequest<'a> {
        BudgetRequest {
            keep: self.method.keep,
            cost: &self.cost,
            positions: plan.past + plan.n,
            total,
            available: &plan.available,
            least: &plan.least,
        }
    }

    /// `index` counts owning layers.
    fn view<'a>(&self, plan: &Plan, index: usize, spans: &'a [Span]) -> PromptView<'a> {
        let allowance = match &plan.ahead {
            Some(counts) => counts[index].kept,
            None => plan.total / self.cost.layers.max(1),
        };
        PromptView { past: plan.past, n: plan.n, spans, allowance }
    }

    /// The least number of entries that holds all that are then protected.
    fn least<M: Memory>(&self, lane: &Lane<M>, spans: &[Span], past: usize, n: usize) -> usize {
        let mut sorted = lane.sorted();
        sorted.extend((past..past + n).map(|position| Entry { position: position as u32, place: 0 }));
        self.method.recipe.protected.least(&sorted, spans, self.method.keep.is_cap())
    }

    /// The weights of the prompt's queries in the sums that the attention of a layer is to gather. `index` counts owning layers.
    pub(crate) fn weights(&self, index: usize, spans: &[Span]) -> Option<Vec<f32>> {
        let plan = self.plan.as_ref().filter(|plan| !plan.all_stay || self.marked || self.recording.is_some())?;
        self.method.recipe.score.queries(&self.view(plan, index, spans))
    }

    /// A layer's attention is done: scores its entries, and frees them where the size is known. `index` counts owning layers.
    pub(crate) fn attended<M: Memory>(
        &mut self,
        index: usize,
        layer: usize,
        lanes: &mut [Lane<M>],
        sums: &[Vec<f32>],
        spans: &[Span],
        account: &Account<M>,
    ) -> Result<()> {
        let Some(mut plan) = self.plan.take() else { return Ok(()) };
        let done = self.score_layer(&mut plan, index, layer, lanes, sums, spans, account);
        self.plan = Some(plan);
        done
    }

    #[allow(clippy::too_many_arguments)]
    fn score_layer<M: Memory>(
        &mut self,
        plan: &mut Plan,
        index: usize,
        layer: usize,
        lanes: &mut [Lane<M>],
        sums: &[Vec<f32>],
        spans: &[Span],
        account: &Account<M>,
    ) -> Result<()> {
        if plan.all_stay && !self.marked && self.recording.is_none() {
            return Ok(());
        }
        let mut recorded = Vec::new();
        let recipe = &self.method.recipe;
        let view = self.view(plan, index, spans);
        let ahead = plan.ahead.as_ref().map(|counts| counts[index]);
        let mut scored = Vec::new();
        for lane in lanes {
            let sorted = lane.sorted();
            let marks = lane.marks();
            let sums = if sums.is_empty() { &[] } else { &sums[lane.heads()] };
            let input = LaneInput { lane, layer, sorted: &sorted, sums, marks: &marks, prompt: &view };
            let scores = recipe.score.score(&input)?;
            if self.marked {
                let mut marks = vec![0.0; lane.places()];
                for (entry, score) in sorted.iter().zip(&scores) {
                    marks[entry.place as usize] = *score;
                }
                lane.update_marks(|place, mark| *mark = marks[place]);
            }
            let kept = ahead.map_or(view.allowance, |count| count.kept);
            let safe = recipe.protected.protected(&sorted, kept, spans);
            if self.recording.is_some() {
                recorded.push(ScoredLane { scores: scores.clone(), safe: safe.clone(), heads: lane.heads().len() });
            }
            if plan.all_stay {
                continue;
            }
            match ahead {
                Some(count) => retain(lane, &sorted, &scores, &safe, count.kept)?,
                None => scored.push(ScoredLane { scores, safe, heads: lane.heads().len() }),
            }
        }
        if !scored.is_empty() {
            let bytes = scored.iter().map(|lane| lane.scores.len() * (size_of::<f32>() + 1)).sum::<usize>();
            plan.workspace.push(account.charge(bytes as u64)?);
            plan.scored.push(scored);
        }
        if let Some(recording) = &mut self.recording {
            recording.push(recorded);
        }
        Ok(())
    }

    /// The prompt is through: frees what a split over all layers leaves out, layer by layer.
    pub(crate) fn finish_prompt<M: Memory>(
        &mut self,
        layers: &mut [Vec<Lane<M>>],
        owners: &[usize],
        spans: &[Span],
    ) -> Result<()> {
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let budget = &self.method.recipe.budget;
        let positions = plan.past + plan.n;
        if let Some(keeps) = self.profile.take() {
            let rows = keeps.iter().map(|keep| {
                let total = Keep::Share(*keep).total(positions, &self.cost);
                let ask = BudgetRequest { keep: Keep::Share(*keep), ..self.ask(&plan, total) };
                ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
                let counts = budget.split(&ask, &plan.scored)?;
                let share = |lanes: &Vec<Quota>| {
                    lanes.iter().map(|count| count.kept).sum::<usize>() as f64 / (lanes.len() * positions) as f64
                };
                Ok(counts.iter().map(share).collect())
            });
            self.profiled = rows.collect::<Result<Profile>>()?;
            return Ok(());
        }
        let per_lane = |counts: &[Quota]| -> Vec<Vec<Quota>> {
            owners.iter().zip(counts).map(|(layer, count)| vec![*count; layers[*layer].len()]).collect()
        };
        let mut counts = match &plan.ahead {
            _ if plan.all_stay => {
                let each = plan.total / owners.len().max(1);
                let of = |available: &usize| {
                    let mut count = Quota::exact(each.max(*available), positions);
                    count.kept = *available;
                    count
                };
                per_lane(&plan.available.iter().map(of).collect::<Vec<_>>())
            }
            Some(counts) => per_lane(counts),
            None => budget.split(&self.ask(&plan, plan.total), &plan.scored)?,
        };
        if plan.ahead.is_none() && !plan.all_stay {
            for ((layer, counts), scored) in owners.iter().zip(&counts).zip(&plan.scored) {
                for ((lane, count), scored) in layers[*layer].iter_mut().zip(counts).zip(scored) {
                    let sorted = lane.sorted();
                    retain(lane, &sorted, &scored.scores, &scored.safe, count.kept)?;
                }
            }
        }
        if let Some(recording) = self.recording.take() {
            let left: Vec<Vec<Vec<u32>>> =
                owners.iter().map(|layer| layers[*layer].iter().map(Lane::positions).collect()).collect();
            let threshold = match plan.ahead.is_none() && !plan.all_stay {
                true => budget.threshold(&self.ask(&plan, plan.total), &recording)?,
                false => None,
            };
            self.record = Some(Record::new(&self.method.recipe, &recording, &left, threshold));
        }
        if self.method.keep.is_cap() {
            self.cap(layers, owners, &plan.to_hold, &mut counts);
            for (layer, counts) in owners.iter().zip(&counts) {
                for (lane, count) in layers[*layer].iter_mut().zip(counts) {
                    evict_down(&self.method, &mut self.search, lane, *count, spans, 0)?;
                }
            }
        }
        self.counts = counts;
        Ok(())
    }

    /// Turns counts into caps: each layer gets what it must be able to hold, and what is left of the whole is shared evenly. A
    /// layer's entry, over all its heads, counts one, so what heads have that keep less than others is left as well.
    fn cap<M: Memory>(
        &self,
        layers: &mut [Vec<Lane<M>>],
        owners: &[usize],
        to_hold: &[usize],
        counts: &mut [Vec<Quota>],
    ) {
        let heads: Vec<Vec<usize>> =
            owners.iter().map(|layer| layers[*layer].iter().map(|lane| lane.heads().len()).collect()).collect();
        let mut kept: Vec<Vec<usize>> =
            counts.iter().map(|lanes| lanes.iter().map(|count| count.kept).collect()).collect();
        share_out(self.whole(), &heads, to_hold, &mut kept);
        for ((layer, counts), kept) in owners.iter().zip(counts).zip(kept) {
            for ((lane, count), kept) in layers[*layer].iter_mut().zip(counts).zip(kept) {
                count.kept = kept;
                lane.set_limit(kept);
            }
        }
    }

    /// Before a generated token: a lane at its cap gives up an entry first, so that the cap holds during the step as well.
    pub(crate) fn make_room<M: Memory>(&mut self, index: usize, lanes: &mut [Lane<M>], spans: &[Span]) -> Result<()> {
        let Some(counts) = self.counts.get(index).filter(|_| self.method.keep.is_cap()) else { return Ok(()) };
        for (lane, count) in lanes.iter_mut().zip(counts) {
            evict_down(&self.method, &mut self.search, lane, *count, spans, 1)?;
        }
        Ok(())
    }

    /// The mark of a generated entry.
    pub(crate) fn appended<M: Memory>(&self, layer: usize, lane: &mut Lane<M>, entry: Entry) -> Result<()> {
        if self.marked {
            let fresh = self.method.recipe.score.fresh(lane, layer, entry)?;
            lane.update_marks(|place, mark| {
                if place == entry.place as usize {
                    *mark = fresh;
                }
            });
        }
        Ok(())
    }

    /// Whether generated tokens' attention is to be gathered.
    pub(crate) fn accumulates(&self) -> bool {
        self.marked && self.method.recipe.score.accumulates()
    }

    /// A generated token's attention in a layer is done: adds it to the marks.
    pub(crate) fn add_sums<M: Memory>(lane: &mut Lane<M>, sums: &[f32]) {
        lane.update_marks(|place, mark| *mark += sums[place]);
    }

    /// After a generated token, the last of `positions`: a lane that has become too long gives up an entry.
    pub(crate) fn stepped<M: Memory>(
        &mut self,
        index: usize,
        lanes: &mut [Lane<M>],
        spans: &[Span],
        positions: usize,
    ) -> Result<()> {
        let Some(counts) = self.counts.get(index).filter(|_| !self.method.keep.is_cap()) else { return Ok(()) };
        for (lane, count) in lanes.iter_mut().zip(counts) {
            if count.growth.exceeded(lane.len(), positions) {
                evict(&self.method, &mut self.search, lane, *count, spans, 0)?;
            }
        }
        Ok(())
    }
}

/// Raises the counts of lanes, `[layer][lane]`, to caps whose whole is `whole` entries of a layer's heads together: at least `to_hold` in
/// each layer, taken from those that have most to spare where nothing is left; then the same more for all.
fn share_out(whole: usize, heads: &[Vec<usize>], to_hold: &[usize], kept: &mut [Vec<usize>]) {
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

/// Frees entries of a lane that is about to get `coming` more until its cap holds. Where all that are left are protected, the oldest of
/// the recent ones and of the text go as well: the cap is what was promised.
fn evict_down<M: Memory>(
    method: &Method,
    search: &mut Search,
    lane: &mut Lane<M>,
    count: Quota,
    spans: &[Span],
    coming: usize,
) -> Result<()> {
    while lane.len() + coming > count.kept && !lane.is_empty() {
        if evict(method, search, lane, count, spans, coming)? {
            continue;
        }
        let candidates = EvictionQuery {
            eviction: Eviction::Oldest,
            kept: count.kept,
            sinks: method.recipe.protected.sinks.min(count.kept.saturating_sub(coming)),
            recent: 0,
            text: None,
        };
        match search.victim(lane, &candidates) {
            Some(place) => lane.delete(place)?,
            None => return Err(Error::Internal(format!("a lane of {} entries gives none up", lane.len()))),
        }
    }
    Ok(())
}

/// Frees one entry of a lane that is about to get `coming` more. False when all are protected.
fn evict<M: Memory>(
    method: &Method,
    search: &mut Search,
    lane: &mut Lane<M>,
    count: Quota,
    spans: &[Span],
    coming: usize,
) -> Result<bool> {
    let recipe = &method.recipe;
    if recipe.eviction == Eviction::Never || lane.is_empty() {
        return Ok(false);
    }
    let candidates = EvictionQuery {
        eviction: recipe.eviction,
        kept: count.kept,
        sinks: recipe.protected.sinks,
        recent: recipe.protected.recent.of(lane.len() - 1 + coming).saturating_sub(coming),
        text: recipe.protected.text.then_some(spans),
    };
    match search.victim(lane, &candidates) {
        Some(place) => lane.delete(place).map(|()| true),
        None => Ok(false),
    }
}

fn retain<M: Memory>(lane: &mut Lane<M>, sorted: &[Entry], scores: &[f32], safe: &[bool], kept: usize) -> Result<()> {
    if kept >= sorted.len() {
        return Ok(());
    }
    if scores.len() != sorted.len() {
        return Err(Error::Internal(format!("{} scores for {} entries", scores.len(), sorted.len())));
    }
    let places: Vec<u32> = best(scores, safe, kept).into_iter().map(|rank| sorted[rank].place).collect();
    lane.retain(&places)
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
