//! Methods that are put together of parts: a score, a budget, what is protected and what goes while generating.

use std::sync::Arc;

use super::budget::{Budget, BudgetRequest, Quota, ScoredLane};
use super::caps;
use super::eviction::Search;
use super::guard::{Protected, best};
use super::keep::{Cost, Keep, too_small};
use super::plan::{Evicted, LanePlan, Moment, Plan};
use super::planner::{Moments, Needs, Planner, Profile};
use super::score::{LaneInput, PromptView, Score};
use super::together::Together;
use super::trace::Record;
use super::view::{LastQueries, ReadLane, View};
use super::{Eviction, Lanes, Positions};
use crate::cache::Entry;
use crate::error::{Error, Result};

/// The parts of a method.
#[derive(Debug)]
pub struct Recipe {
    pub score: Box<dyn Score>,
    pub budget: Box<dyn Budget>,
    pub protected: Protected,
    pub eviction: Eviction,
    pub lanes: Lanes,
    pub positions: Positions,
}

/// A recipe at work on one sequence.
#[derive(Debug)]
pub(super) struct RecipePlanner {
    /// The method's name.
    name: String,
    keep: Keep,
    recipe: Arc<Recipe>,
    /// Entries carry scores.
    scores: bool,
    cost: Cost,
    /// Per layer and lane, after the first prompt.
    quotas: Vec<Vec<Quota>>,
    prompt: Option<Box<Prompt>>,
    /// Sizes to profile instead of evicting.
    profile: Option<Vec<f64>>,
    profiled: Profile,
    /// The scores of the next prompt are to be kept; they are, per layer.
    recording: Option<Vec<Vec<ScoredLane>>>,
    record: Option<Record>,
    search: Search,
}

/// State of a prompt while it is read.
#[derive(Debug)]
struct Prompt {
    past: usize,
    n: usize,
    total: usize,
    available: Vec<usize>,
    /// Entries that each layer must keep of them.
    least: Vec<usize>,
    /// Entries that each layer must be able to hold from now on; more than `least` while there are few.
    to_hold: Vec<usize>,
    /// All entries may stay.
    all_stay: bool,
    /// Known before the scores, so that layers are compacted one by one.
    ahead: Option<Vec<Quota>>,
    /// Those of the layers that are done, per lane.
    quotas: Vec<Vec<Quota>>,
    /// Of all layers, where the quotas need them.
    scored: Vec<Vec<ScoredLane>>,
}

impl Prompt {
    fn growth(&self) -> Option<usize> {
        if self.all_stay {
            return Some(self.n * self.available.len());
        }
        let (mut most, mut grown) = (0, 0);
        for (count, available) in self.ahead.as_ref()?.iter().zip(&self.available) {
            let copied = if count.kept < *available { count.kept } else { 0 };
            most = most.max(grown + (self.n + copied) as i64);
            grown += count.kept as i64 - (available - self.n) as i64;
        }
        Some(most.max(grown).max(0) as usize)
    }
}

impl RecipePlanner {
    /// `carry` keeps what a next prompt on the same sequence needs; `cost` of entries with scores or without.
    pub(super) fn new(
        name: String,
        keep: Keep,
        recipe: Arc<Recipe>,
        carry: bool,
        cost: impl FnOnce(Lanes, bool) -> Cost,
    ) -> RecipePlanner {
        let evicts = matches!(recipe.eviction, Eviction::LowestScore | Eviction::Together { .. });
        let carries = evicts || (carry && recipe.score.has_mass());
        let scores = keep != Keep::Share(1.0) && carries;
        let cost = cost(recipe.lanes, scores);
        RecipePlanner {
            name,
            keep,
            recipe,
            scores,
            cost,
            quotas: Vec::new(),
            prompt: None,
            profile: None,
            profiled: Profile::new(),
            recording: None,
            record: None,
            search: Search::default(),
        }
    }

    fn prompt(&self, view: &View<'_>) -> Result<Prompt> {
        let (cache, n, positions) = (view.cache, view.n, view.positions());
        let layers = || 0..cache.layers();
        let available: Vec<usize> =
            layers().map(|layer| cache.of(layer).map(ReadLane::len).max().unwrap_or(0) + n).collect();
        let least = |layer: usize| cache.of(layer).map(|lane| self.least(lane, view)).max().unwrap_or(0);
        let to_hold: Vec<usize> = layers().map(least).collect();
        let budget = &self.recipe.budget;
        if self.keep.is_cap() && self.profile.is_none() {
            let needed = budget.least_whole(&to_hold);
            if self.whole() < needed {
                let why = "what is protected must fit in every layer, while generating too";
                return Err(too_small(self.keep, needed, positions, &self.cost, why));
            }
        }
        let least = to_hold.iter().zip(&available).map(|(least, available)| *least.min(available)).collect();
        let total = self.keep.total(positions, &self.cost);
        let all: usize = available.iter().sum();
        let all_stay = total >= all && self.profile.is_none();
        let (past, ahead, quotas, scored) = (view.past, None, Vec::new(), Vec::new());
        let mut prompt = Prompt { past, n, total, available, least, to_hold, all_stay, ahead, quotas, scored };
        if !all_stay {
            prompt.ahead = budget.ahead(&self.ask(&prompt, total))?;
        }
        if self.profile.is_some() && prompt.ahead.is_some() {
            return Err(crate::fields::refuse(format!(
                "{} has nothing to calibrate: its sizes do not depend on the prompt",
                self.name
            )));
        }
        Ok(prompt)
    }

    /// The least number of entries that holds all that are then protected.
    fn least(&self, lane: &dyn ReadLane, view: &View<'_>) -> usize {
        let mut sorted = lane.sorted();
        sorted.extend((view.past..view.positions()).map(|position| Entry { position: position as u32, place: 0 }));
        self.recipe.protected.least(&sorted, view.spans, self.keep.is_cap())
    }

    /// Entries over all layers of a sequence that has grown without end.
    fn whole(&self) -> usize {
        // More positions than any model has.
        const ENDLESS: usize = 1 << 40;
        self.keep.total(ENDLESS, &self.cost)
    }

    fn ask<'a>(&'a self, prompt: &'a Prompt, total: usize) -> BudgetRequest<'a> {
        BudgetRequest {
            keep: self.keep,
            cost: &self.cost,
            positions: prompt.past + prompt.n,
            total,
            available: &prompt.available,
            least: &prompt.least,
        }
    }

    fn seen<'a>(&self, prompt: &Prompt, layer: usize, view: &View<'a>) -> PromptView<'a> {
        let allowance = match &prompt.ahead {
            Some(quotas) => quotas[layer].kept,
            None => prompt.total / self.cost.layers.max(1),
        };
        PromptView { past: prompt.past, n: prompt.n, spans: view.spans, allowance, blocks: view.blocks }
    }

    /// Whether the prompt's entries are to be ranked.
    fn ranks(&self, prompt: &Prompt) -> bool {
        !prompt.all_stay || self.scores || self.recording.is_some()
    }

    /// A layer's attention is done: scores its entries, and frees them where the size is known.
    fn after_layer(&mut self, prompt: &mut Prompt, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        if !self.ranks(prompt) {
            return Ok(());
        }
        let recipe = &self.recipe;
        let seen = self.seen(prompt, layer, view);
        let kept = prompt.ahead.as_ref().map_or(seen.allowance, |quotas| quotas[layer].kept);
        let (mut sorted, mut scored, mut carried_on) = (Vec::new(), Vec::new(), Vec::new());
        let none = LastQueries::default();
        let queries = view.queries.get(layer).unwrap_or(&none);
        for lane in view.cache.of(layer) {
            let entries = lane.sorted();
            let sums = view.sums(layer);
            let sums = if sums.is_empty() { sums } else { &sums[lane.heads()] };
            let number = view.cache.number(layer);
            let carried = &lane.scores();
            let input = LaneInput { lane, layer: number, sorted: &entries, sums, carried, prompt: &seen, queries };
            let (scores, claim) = recipe.score.score_and_claim(&input)?;
            if scores.len() != entries.len() {
                return Err(Error::Internal(format!("{} scores for {} entries", scores.len(), entries.len())));
            }
            let safe = recipe.protected.protected(&entries, kept, view.spans);
            carried_on.push(recipe.score.carried(&input));
            sorted.push(entries);
            scored.push(ScoredLane { scores, safe, claim, heads: lane.heads().len() });
        }
        if let Some(recording) = &mut self.recording {
            recording.push(scored.clone());
        }
        let ask = self.ask(prompt, prompt.total);
        let quotas = prompt.ahead.as_ref().map(|quotas| recipe.budget.heads(&ask, layer, quotas[layer], &scored));
        for (lane, (entries, scored)) in sorted.iter().zip(&scored).enumerate() {
            let quota = quotas.as_ref().map(|quotas| quotas[lane]);
            let mut change = LanePlan::new(layer, lane);
            if self.scores {
                change.scores = carried_on[lane].take().unwrap_or_else(|| scored.scores.clone());
            }
            if let Some(quota) = quota.filter(|quota| quota.kept < entries.len()) {
                change.keep = Some(chosen(entries, scored, quota.kept));
            }
            plan.push(change);
        }
        match quotas {
            Some(quotas) => prompt.quotas.push(quotas),
            None if prompt.all_stay => {}
            None => prompt.scored.push(scored),
        }
        Ok(())
    }

    /// The prompt is through: frees what a split over all layers leaves out, and what caps do not hold.
    fn after_prompt(&mut self, prompt: &Prompt, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let recipe = self.recipe.clone();
        let (budget, cache) = (&recipe.budget, view.cache);
        if let Some(keeps) = self.profile.take() {
            self.profiled = keeps.iter().map(|keep| self.shares(prompt, *keep)).collect::<Result<Profile>>()?;
            return Ok(());
        }
        let per_lane = |quotas: &[Quota]| -> Vec<Vec<Quota>> {
            quotas.iter().enumerate().map(|(layer, quota)| vec![*quota; cache.lanes(layer)]).collect()
        };
        let by_scores = prompt.ahead.is_none() && !prompt.all_stay;
        let mut quotas = match prompt.ahead {
            _ if prompt.all_stay => per_lane(&self.room(prompt)),
            Some(_) => prompt.quotas.clone(),
            None => budget.split(&self.ask(prompt, prompt.total), &prompt.scored)?,
        };
        // The entries that a split over all layers leaves to a lane; None where all stay.
        let split = |layer: usize, lane: usize, quota: &Quota| -> Option<Vec<Entry>> {
            let scored = prompt.scored.get(layer)?.get(lane)?;
            (quota.kept < scored.scores.len()).then(|| chosen(&cache.lane(layer, lane).sorted(), scored, quota.kept))
        };
        if let Some(recording) = self.recording.take() {
            let left = |(layer, quotas): (usize, &Vec<Quota>)| {
                let lanes = quotas.iter().enumerate();
                let of = |(lane, quota)| split(layer, lane, quota).unwrap_or_else(|| cache.lane(layer, lane).sorted());
                lanes.map(of).collect()
            };
            let left: Vec<Vec<Vec<Entry>>> = quotas.iter().enumerate().map(left).collect();
            let threshold = match by_scores {
                true => budget.threshold(&self.ask(prompt, prompt.total), &recording)?,
                false => None,
            };
            self.record = Some(Record::new(&recipe, &recording, &left, threshold));
        }
        let before = quotas.clone();
        if self.keep.is_cap() {
            self.cap(prompt, view, &mut quotas);
        }
        for (layer, (before, quotas)) in before.iter().zip(&quotas).enumerate() {
            for (lane, (before, quota)) in before.iter().zip(quotas).enumerate() {
                let mut change = LanePlan::new(layer, lane);
                let held = cache.lane(layer, lane);
                let mut kept = split(layer, lane, before);
                if self.keep.is_cap() {
                    change.limit = Some(quota.kept);
                    if kept.as_ref().map_or(held.len(), Vec::len) > quota.kept {
                        let kept = kept.get_or_insert_with(|| held.sorted());
                        caps::down(&recipe, &mut self.search, held, kept, *quota, view.spans, 0)?;
                    }
                }
                change.keep = kept;
                plan.push(change);
            }
        }
        self.quotas = quotas;
        Ok(())
    }

    /// The shares of the layers that a whole of `keep` comes to.
    fn shares(&self, prompt: &Prompt, keep: f64) -> Result<Vec<f64>> {
        let positions = prompt.past + prompt.n;
        let total = Keep::Share(keep).total(positions, &self.cost);
        let ask = BudgetRequest { keep: Keep::Share(keep), ..self.ask(prompt, total) };
        ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
        let quotas = self.recipe.budget.split(&ask, &prompt.scored)?;
        let share = |lanes: &Vec<Quota>| {
            lanes.iter().map(|quota| quota.kept).sum::<usize>() as f64 / (lanes.len() * positions) as f64
        };
        Ok(quotas.iter().map(share).collect())
    }

    /// Quotas per layer while everything stays: the same for all, so that each may still grow.
    fn room(&self, prompt: &Prompt) -> Vec<Quota> {
        let each = prompt.total / prompt.available.len().max(1);
        let of = |available: &usize| {
            let quota = Quota::exact(each.max(*available), prompt.past + prompt.n);
            Quota { kept: *available, ..quota }
        };
        prompt.available.iter().map(of).collect()
    }

    /// Turns quotas into caps.
    fn cap(&self, prompt: &Prompt, view: &View<'_>, quotas: &mut [Vec<Quota>]) {
        let cache = view.cache;
        let heads: Vec<Vec<usize>> =
            (0..cache.layers()).map(|layer| cache.of(layer).map(|lane| lane.heads().len()).collect()).collect();
        let mut kept: Vec<Vec<usize>> =
            quotas.iter().map(|lanes| lanes.iter().map(|quota| quota.kept).collect()).collect();
        caps::share_out(self.whole(), &heads, &prompt.to_hold, &mut kept);
        for (quota, kept) in quotas.iter_mut().flatten().zip(kept.into_iter().flatten()) {
            quota.kept = kept;
        }
    }

    /// Before a generated token: a lane at its cap gives up an entry first, so that the cap holds during the step as well.
    fn make_room(&mut self, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let RecipePlanner { recipe, search, quotas, .. } = self;
        if let Eviction::Together { every, window } = recipe.eviction {
            return Together { recipe, search, every, window }.make_room(quotas, view, plan);
        }
        for (layer, quotas) in quotas.iter().enumerate() {
            for (lane, quota) in quotas.iter().enumerate() {
                let held = view.cache.lane(layer, lane);
                match (held.len() + 1).saturating_sub(quota.kept).min(held.len()) {
                    0 => {}
                    1 => {
                        let entry = caps::forced(recipe, search, held, *quota, view.spans, 1)?;
                        plan.evict.push(Evicted { layer: layer as u32, lane: lane as u32, entry });
                    }
                    _ => {
                        let mut kept = held.sorted();
                        caps::down(recipe, search, held, &mut kept, *quota, view.spans, 1)?;
                        plan.push(LanePlan { keep: Some(kept), ..LanePlan::new(layer, lane) });
                    }
                }
            }
        }
        Ok(())
    }

    /// After a generated token: a lane that has become too long gives up an entry.
    fn after_step(&mut self, step: u64, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let RecipePlanner { recipe, search, quotas, .. } = self;
        if let Eviction::Together { every, window } = recipe.eviction {
            let together = Together { recipe, search, every, window };
            return match (self.scores, self.keep.is_cap()) {
                (false, _) => Ok(()),
                (true, true) => together.before_the_cap(quotas, view, plan),
                (true, false) => together.after_step(step, quotas, view, plan),
            };
        }
        for (layer, quotas) in quotas.iter().enumerate() {
            for (lane, quota) in quotas.iter().enumerate() {
                let held = view.cache.lane(layer, lane);
                if !quota.growth.exceeded(held.len(), view.positions()) {
                    continue;
                }
                if let Some(entry) = caps::victim(recipe, search, held, *quota, view.spans, 0) {
                    plan.evict.push(Evicted { layer: layer as u32, lane: lane as u32, entry });
                }
            }
        }
        Ok(())
    }
}

/// The entries of a lane that are safe or best, `kept` in all.
fn chosen(sorted: &[Entry], scored: &ScoredLane, kept: usize) -> Vec<Entry> {
    best(&scored.scores, &scored.safe, kept).into_iter().map(|rank| sorted[rank]).collect()
}

impl Planner for RecipePlanner {
    fn fork(&self) -> Box<dyn Planner> {
        Box::new(RecipePlanner {
            name: self.name.clone(),
            keep: self.keep,
            recipe: self.recipe.clone(),
            scores: self.scores,
            cost: self.cost,
            quotas: self.quotas.clone(),
            prompt: None,
            profile: None,
            profiled: Profile::new(),
            recording: None,
            record: None,
            search: Search::default(),
        })
    }

    fn needs(&self) -> Needs {
        let Recipe { lanes, positions, eviction, score, .. } = &*self.recipe;
        let (keep, together) = (self.keep, matches!(eviction, Eviction::Together { .. }));
        let moments = Moments {
            layer: true,
            prompt: true,
            token: keep.is_cap(),
            step: u64::from(*eviction != Eviction::Never && (together || !keep.is_cap())),
            ..Moments::default()
        };
        // While every entry stays, its rank is its position: keys are then stored rotated, to the bits of the full cache.
        let positions = match positions {
            Positions::Cache if keep == Keep::Share(1.0) => Positions::True,
            other => *other,
        };
        let accumulates = self.scores && score.accumulates();
        Needs {
            moments,
            lanes: *lanes,
            positions,
            scores: self.scores,
            accumulates,
            left: score.left(),
            external: false,
            queries: score.last_queries(),
            ahead: score.ahead(),
            rows: false,
            // Where all stays, nothing is ranked.
            repeats: score.repeats() && keep != Keep::Share(1.0),
        }
    }

    fn asks_question(&self) -> bool {
        self.recipe.score.asks_question()
    }

    fn begin(&mut self, view: &View<'_>) -> Result<Option<usize>> {
        let prompt = self.prompt(view)?;
        let growth = prompt.growth();
        self.prompt = Some(Box::new(prompt));
        Ok(growth)
    }

    fn growth(&self, view: &View<'_>) -> Result<Option<usize>> {
        Ok(self.prompt(view)?.growth())
    }

    fn queries(&self, layer: usize, view: &View<'_>) -> Option<Vec<f32>> {
        let prompt = self.prompt.as_ref().filter(|prompt| self.ranks(prompt))?;
        self.recipe.score.queries(&self.seen(prompt, layer, view))
    }

    fn plan(&mut self, moment: Moment, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        match moment {
            Moment::Layer(layer) => {
                let Some(mut prompt) = self.prompt.take() else { return Ok(()) };
                self.after_layer(&mut prompt, layer, view, plan)?;
                self.prompt = Some(prompt);
                Ok(())
            }
            Moment::Prompt => match self.prompt.take() {
                Some(prompt) => self.after_prompt(&prompt, view, plan),
                None => Ok(()),
            },
            Moment::Images => Ok(()),
            Moment::Token(_) => self.make_room(view, plan),
            Moment::Step(step) => self.after_step(step, view, plan),
        }
    }

    fn is_settled(&self) -> bool {
        // Entries that are still to be chosen from are read once more.
        self.prompt.as_ref().is_none_or(|prompt| prompt.all_stay || prompt.ahead.is_some())
    }

    fn workspace(&self) -> usize {
        let scored = self.prompt.iter().flat_map(|prompt| prompt.scored.iter().flatten());
        scored.map(|lane| lane.scores.len() * (size_of::<f32>() + 1)).sum()
    }

    fn fresh(&self, layer: usize, lane: &dyn ReadLane, entry: Entry) -> Result<f32> {
        self.recipe.score.fresh(lane, layer, entry)
    }

    fn positions_within(&self, view: &View<'_>, most: usize) -> Result<usize> {
        let prompt = self.prompt(view)?;
        let kept = match &prompt.ahead {
            Some(quotas) => quotas.iter().map(|quota| quota.kept).max().unwrap_or(0),
            None => prompt.available.iter().copied().max().unwrap_or(0),
        };
        let positions = view.positions();
        Ok(match self.keep {
            // A lane that is one entry longer for the length of a step.
            keep if keep.is_cap() && self.whole().div_ceil(prompt.available.len().max(1)) + 1 < most => usize::MAX,
            _ if self.recipe.eviction == Eviction::Never => most + positions.saturating_sub(kept),
            Keep::Share(_) if kept < positions => {
                let between = if let Eviction::Together { every, .. } = self.recipe.eviction { every } else { 1 };
                (most.saturating_sub(1 + between) * positions / kept.max(1)).max(most)
            }
            _ => most,
        })
    }

    fn profile(&mut self, keeps: Vec<f64>) {
        self.profile = Some(keeps);
    }

    fn take_profile(&mut self) -> Profile {
        std::mem::take(&mut self.profiled)
    }

    fn record(&mut self) {
        self.recording = Some(Vec::new());
    }

    fn take_record(&mut self) -> Option<Record> {
        self.record.take()
    }
}
