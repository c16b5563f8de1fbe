//! Carrying out what a method decides.

use std::sync::Arc;

use prefixkv_kernels::attention::AttentionParams;

use super::ahead::Turns;
use super::repeat::Repeated;
use crate::cache::{Account, Charge, Entry, Lane, Memory, Recode, Shape, Together};
use crate::error::{Error, Result};
use crate::method::external::PlanReply;
use crate::method::keep::Price;
use crate::method::store::Encoder;
use crate::method::view::{LastQueries, View};
use crate::method::{Encode, Evicted, Join, LanePlan, Merge, Method, Moment, Needs, Plan, Planner};

/// The method of a sequence, and what it has to do with the sequence's bytes.
#[derive(Debug)]
pub(super) struct Working {
    pub(super) planner: Box<dyn Planner>,
    pub(super) needs: Needs,
    /// The store for entries that stay; None: they are in full precision.
    encoder: Option<Box<dyn Encoder>>,
    /// The newest plan; kept so that a step allocates nothing.
    plan: Plan,
    /// For what the planner holds of a prompt.
    workspace: Vec<Charge>,
    charged: usize,
    /// Generated tokens since the last prompt.
    pub(super) steps: u64,
    /// For a method outside: what the layers have gathered in the prompt, per KV head and place.
    pub(super) sums: Vec<Vec<Vec<f32>>>,
    /// The last queries of the prompt, per layer: for a method outside until it has answered, for others until the layer is done.
    pub(super) queries: Vec<LastQueries>,
    query_charges: Vec<Vec<Charge>>,
    /// Those of a repetition, in the layer that attends.
    pub(super) repeated: Option<Repeated>,
    /// By each of a model's rotary embeddings, for a method that looks ahead.
    turns: Vec<Turns>,
    /// All plans so far, if they are to be kept.
    log: Option<Vec<Planned>>,
}

/// The answer of a method, or of its store, to a moment, with the numbers that layers have in the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub moment: Moment,
    pub plan: Plan,
}

impl Working {
    pub(super) fn new<M: Memory>(
        method: Arc<Method>,
        shape: &Shape,
        carry: bool,
        encoder: Option<Box<dyn Encoder>>,
    ) -> Working {
        let price = encoder.as_ref().and_then(|encoder| encoder.price());
        let planner = method.planner::<M>(shape, carry, price);
        let needs = planner.needs();
        let (plan, workspace) = (Plan::default(), Vec::new());
        let (sums, queries) = (Vec::new(), Vec::new());
        let (query_charges, turns) = (Vec::new(), Vec::new());
        Working {
            planner,
            needs,
            encoder,
            plan,
            workspace,
            charged: 0,
            steps: 0,
            sums,
            queries,
            query_charges,
            repeated: None,
            turns,
            log: None,
        }
    }

    /// The same method with what it knows between two pieces of work, for a sequence that goes on from the same entries.
    pub(super) fn fork(&self) -> Working {
        let planner = self.planner.fork();
        let encoder = self.encoder.as_ref().map(|encoder| encoder.fork());
        let (plan, workspace) = (Plan::default(), Vec::new());
        let (sums, queries) = (Vec::new(), Vec::new());
        let Working { needs, steps, .. } = *self;
        let (query_charges, turns) = (Vec::new(), Vec::new());
        let (charged, log) = (0, None);
        Working {
            planner,
            needs,
            encoder,
            plan,
            workspace,
            charged,
            steps,
            sums,
            queries,
            query_charges,
            repeated: None,
            turns,
            log,
        }
    }

    /// Keeps all plans from now on, for [`Working::take_plans`].
    pub(super) fn keep_plans(&mut self) {
        self.log = Some(Vec::new());
    }

    pub(super) fn take_plans(&mut self) -> Vec<Planned> {
        self.log.take().unwrap_or_default()
    }

    /// Whether entries that stay are stored in fewer bits.
    pub(super) fn encodes(&self) -> bool {
        self.encoder.is_some()
    }

    pub(super) fn encoder(&mut self) -> Option<&mut dyn Encoder> {
        self.encoder.as_deref_mut().map(|encoder| encoder as &mut dyn Encoder)
    }

    /// The weights of the queries of a prompt in the sums of a layer: the method's, or those of its store.
    pub(super) fn queries(&self, number: usize, view: &View<'_>) -> Option<Vec<f32>> {
        let own = self.planner.queries(number, view);
        own.or_else(|| self.encoder.as_ref()?.queries(view.past, view.n))
    }

    /// See [`Sequence::asks_question`](super::Sequence::asks_question).
    pub(super) fn asks_question(&self) -> bool {
        // More positions than the store looks at.
        const LONG: usize = 4096;
        let encoder = self.encoder.as_deref();
        let looks = |encoder: &dyn Encoder| encoder.last_queries() > 0 || encoder.queries(0, LONG).is_some();
        self.planner.asks_question() || encoder.is_some_and(looks)
    }

    /// How many of a prompt's last queries the store wants to see.
    pub(super) fn last_queries(&self) -> usize {
        self.encoder.as_ref().map_or(0, |encoder| encoder.last_queries())
    }

    /// Whether the store chooses who takes part in a prompt's attention.
    pub(super) fn attends_among(&self) -> bool {
        self.encoder.as_ref().is_some_and(|encoder| encoder.attends_among())
    }

    /// The layer whose rows the store watches.
    pub(super) fn watches(&self) -> Option<usize> {
        self.encoder.as_ref()?.watches()
    }

    /// Whether the store wants to know what keys and values are made from.
    pub(super) fn sees_inputs(&self) -> bool {
        self.encoder.as_ref().is_some_and(|encoder| encoder.sees_inputs())
    }

    /// The price of entries that the store has encoded, where they have one.
    pub(super) fn price(&self) -> Option<Price> {
        self.encoder.as_ref()?.price()
    }

    /// Has the method answer a moment, in [`Working::plan`]. False when it has nothing to say to it. `owners` are the numbers that the
    /// view's layers have in the model.
    pub(super) fn ask<M: Memory>(
        &mut self,
        moment: Moment,
        view: &View<'_>,
        owners: &[usize],
        account: &Account<M>,
    ) -> Result<bool> {
        if !self.needs.moments.has(moment) {
            return Ok(false);
        }
        self.plan.clear();
        self.planner.plan(moment, view, &mut self.plan)?;
        self.charge(account)?;
        self.note(moment, owners);
        Ok(true)
    }

    /// Forgets the newest answer.
    pub(super) fn drop_plan(&mut self) {
        self.plan.clear();
    }

    /// Forgets the queries of all layers, and the lists that held them.
    pub(super) fn drop_queries(&mut self) {
        (self.queries, self.query_charges, self.turns) = (Vec::new(), Vec::new(), Vec::new());
    }

    /// The newest answer.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// As [`Working::ask`], with the answer from outside.
    pub(super) fn answer(
        &mut self,
        moment: Moment,
        view: &View<'_>,
        owners: &[usize],
        reply: &PlanReply,
    ) -> Result<&Plan> {
        self.plan.clear();
        self.planner.answer(moment, view, reply, &mut self.plan)?;
        self.note(moment, owners);
        Ok(&self.plan)
    }

    /// Has the store say which entries of `layer` are encoded now; the view's layers are those of the model.
    pub(super) fn encode(&mut self, moment: Moment, layer: usize, view: &View<'_>, all: &[usize]) -> Result<&Plan> {
        self.plan.clear();
        if let Some(encoder) = &mut self.encoder {
            encoder.encode(layer, view, &mut self.plan)?;
        }
        self.note(moment, all);
        Ok(&self.plan)
    }

    /// Keeps what a layer has gathered for a method outside.
    pub(super) fn keep_sums<M: Memory>(&mut self, layer: usize, sums: &[Vec<f32>], account: &Account<M>) -> Result<()> {
        let bytes = sums.iter().map(|sums| size_of_val(&sums[..])).sum::<usize>();
        self.workspace.push(account.charge(bytes as u64)?);
        self.sums.resize(self.sums.len().max(layer + 1), Vec::new());
        self.sums[layer] = sums.to_vec();
        Ok(())
    }

    /// Keeps queries of a layer, from position `first` on, for the method, behind those of earlier pieces of the prompt.
    pub(super) fn keep_queries<M: Memory>(
        &mut self,
        layer: usize,
        rope: usize,
        first: usize,
        params: &AttentionParams,
        queries: &[f32],
        account: &Account<M>,
    ) -> Result<()> {
        let layers = self.queries.len().max(layer + 1);
        self.queries.resize_with(layers, LastQueries::default);
        self.query_charges.resize_with(layers, Vec::new);
        let (kept, charges) = (&mut self.queries[layer], &mut self.query_charges[layer]);
        if let Some(ahead) = self.needs.ahead {
            if kept.to_come.is_none() {
                charges.push(account.charge(ahead.bytes(params.query_heads, params.dim) as u64)?);
            }
            let missing = || Error::Internal(format!("no rotations of rotary embedding {rope} were prepared"));
            self.turns.get(rope).ok_or_else(missing)?.add(ahead, first, params, queries, &mut kept.to_come)?;
        } else {
            charges.push(account.charge(size_of_val(queries) as u64)?);
            // To the byte, as they are counted.
            kept.rows.reserve_exact(queries.len());
            kept.rows.extend_from_slice(queries);
        }
        kept.params = Some(*params);
        Ok(())
    }

    /// The rotations of the rows before, which a next piece may have use for.
    pub(super) fn take_turns(&mut self) -> Vec<Turns> {
        std::mem::take(&mut self.turns)
    }

    pub(super) fn set_turns(&mut self, turns: Vec<Turns>) {
        self.turns = turns;
    }

    /// Forgets the queries of a layer that the method has seen.
    pub(super) fn forget_queries(&mut self, layer: usize) {
        if let (Some(queries), Some(charges)) = (self.queries.get_mut(layer), self.query_charges.get_mut(layer)) {
            *queries = LastQueries::default();
            charges.clear();
        }
    }

    /// Forgets what was kept for a method outside.
    pub(super) fn forget(&mut self) {
        self.sums.clear();
        self.drop_queries();
        self.workspace.clear();
    }

    fn charge<M: Memory>(&mut self, account: &Account<M>) -> Result<()> {
        match self.planner.workspace() {
            0 => {
                self.workspace.clear();
                self.charged = 0;
            }
            held if held > self.charged => {
                self.workspace.push(account.charge((held - self.charged) as u64)?);
                self.charged = held;
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&mut self, moment: Moment, owners: &[usize]) {
        if let Some(log) = self.log.as_mut().filter(|_| !self.plan.is_empty()) {
            let mut plan = self.plan.clone();
            for lane in &mut plan.lanes {
                (lane.layer, lane.scores) = (owners[lane.layer], Vec::new());
            }
            plan.join.iter_mut().for_each(|join| join.layers = join.layers.map(|layer| owners[layer]));
            plan.evict.iter_mut().for_each(|gone| gone.layer = owners[gone.layer as usize] as u32);
            let moment = match moment {
                Moment::Layer(layer) => Moment::Layer(owners[layer]),
                other => other,
            };
            log.push(Planned { moment, plan });
        }
    }

    /// The new entries of a layer start with the method's scores.
    pub(super) fn appended<M: Memory>(&self, layer: usize, lanes: &mut [Lane<M>], entries: &[Entry]) -> Result<()> {
        if self.needs.scores {
            for (lane, entry) in lanes.iter_mut().zip(entries) {
                let fresh = self.planner.fresh(layer, lane, *entry)?;
                lane.set_score(entry.place, fresh);
            }
        }
        Ok(())
    }
}

/// Carries out a plan, lane by lane, so that no more than one of them is there twice.
pub(super) fn carry_out<M: Memory>(plan: &Plan, layers: &mut [Vec<Lane<M>>], owners: &[usize]) -> Result<()> {
    for LanePlan { layer, lane, keep, merge, encode, scores, limit } in &plan.lanes {
        let lane = lane_of(layers, owners, *layer, *lane)?;
        if !scores.is_empty() {
            set_scores(lane, scores)?;
        }
        if !merge.is_empty() {
            merge_entries(lane, merge)?;
        }
        if let Some(entries) = keep {
            let places: Vec<u32> = entries.iter().map(|entry| entry.place).collect();
            lane.retain(&places)?;
        }
        if !encode.is_empty() {
            encode_entries(lane, encode)?;
        }
        if let Some(limit) = limit {
            lane.set_limit(*limit);
        }
    }
    plan.join.iter().try_for_each(|join| store_together(join, layers, owners))?;
    for Evicted { layer, lane, entry } in &plan.evict {
        lane_of(layers, owners, *layer as usize, *lane as usize)?.delete(entry.place)?;
    }
    Ok(())
}

fn lane_of<'a, M: Memory>(
    layers: &'a mut [Vec<Lane<M>>],
    owners: &[usize],
    layer: usize,
    lane: usize,
) -> Result<&'a mut Lane<M>> {
    let lanes = owners.get(layer).and_then(|layer| layers.get_mut(*layer));
    lanes
        .and_then(|lanes| lanes.get_mut(lane))
        .ok_or_else(|| Error::Internal(format!("a plan for lane {lane} of layer {layer}, which is not there")))
}

/// Takes the weighted means in f32; each target is stored in its codec once. Memory is read and written once, whatever the number of
/// merges.
fn merge_entries<M: Memory>(lane: &mut Lane<M>, merges: &[Merge]) -> Result<()> {
    let mut order: Vec<&Merge> = merges.iter().collect();
    order.sort_by_key(|merge| merge.into.position);
    let from: Vec<Entry> = order.iter().map(|merge| merge.from).collect();
    let groups: Vec<&[&Merge]> = order.chunk_by(|a, b| a.into == b.into).collect();
    let into: Vec<Entry> = groups.iter().map(|group| group[0].into).collect();
    let means = |mut own: Vec<f32>, others: Vec<f32>| {
        let width = own.len() / into.len().max(1);
        let mut others = others.chunks_exact(width.max(1));
        for (own, group) in own.chunks_exact_mut(width.max(1)).zip(&groups) {
            for (merge, row) in group.iter().zip(&mut others) {
                own.iter_mut().zip(row).for_each(|(own, other)| *own += merge.weight * other);
            }
            let whole = 1.0 + group.iter().map(|merge| merge.weight).sum::<f32>();
            own.iter_mut().for_each(|own| *own /= whole);
        }
        own
    };
    let keys = means(lane.keys(&into)?, lane.keys(&from)?);
    let values = means(lane.values(&into)?, lane.values(&from)?);
    lane.overwrite(&into, &keys, &values)
}

fn encode_entries<M: Memory>(lane: &mut Lane<M>, parts: &[Encode]) -> Result<()> {
    let held = lane.sorted();
    let places = |part: &Encode| -> Result<Recode> {
        let places = places_of(&held, &part.positions)?;
        Ok(Recode { codec: lane.through(part.codec), basis: part.basis.clone(), places })
    };
    lane.recode(&parts.iter().map(places).collect::<Result<Vec<_>>>()?)
}

/// The places of positions among the entries of a lane, which are in the order of theirs.
fn places_of(held: &[Entry], positions: &[u32]) -> Result<Vec<u32>> {
    let place = |position: &u32| {
        let found = held.binary_search_by_key(position, |entry| entry.position);
        let found =
            found.map_err(|_| Error::Internal(format!("no entry of position {position} is there to be encoded")));
        Ok(held[found?].place)
    };
    positions.iter().map(place).collect()
}

fn store_together<M: Memory>(join: &Join, layers: &mut [Vec<Lane<M>>], owners: &[usize]) -> Result<()> {
    let Join { layers: numbers, lane, codec, common, positions } = join;
    let [Some(first), Some(second)] = numbers.map(|layer| owners.get(layer).copied()) else {
        return Err(Error::Internal(format!("layers {numbers:?} to be stored together, which are not there")));
    };
    let pair = layers.get_disjoint_mut([first, second]).map(|pair| pair.map(|lanes| lanes.get_mut(*lane)));
    let Ok([Some(first), Some(second)]) = pair else {
        return Err(Error::Internal(format!(
            "lane {lane} of layers {numbers:?} to be stored together, which is not there"
        )));
    };
    let places = [places_of(&first.sorted(), positions)?, places_of(&second.sorted(), positions)?];
    let codec = first.through(*codec);
    Lane::store_together([first, second], &Together { codec, common: common.clone(), places })
}

/// `scores` is in the order of positions.
fn set_scores<M: Memory>(lane: &mut Lane<M>, scores: &[f32]) -> Result<()> {
    let sorted = lane.sorted();
    if sorted.len() != scores.len() {
        return Err(Error::Internal(format!("{} scores for {} entries", scores.len(), sorted.len())));
    }
    let mut by_place = vec![0.0; lane.places()];
    for (entry, score) in sorted.iter().zip(scores) {
        by_place[entry.place as usize] = *score;
    }
    lane.update_scores(|place, score| *score = by_place[place]);
    Ok(())
}

/// A generated token's attention in a layer is done: what its entries have got, per lane and place, adds to what is `left` of their
/// scores.
pub(super) fn add_sums<M: Memory>(lanes: &mut [Lane<M>], sums: &[Vec<f32>], left: f32) {
    for (lane, sums) in lanes.iter_mut().zip(sums) {
        lane.update_scores(|place, score| *score = left * *score + sums[place]);
    }
}
