//! Methods whose plans come from outside the engine: what they are shown, and the reading of what they answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keep::{Cost, Keep};
use super::plan::{LanePlan, Merge, Moment, Plan};
use super::planner::{Moments, Needs, Planner};
use super::score::{Columns, Pooling, PromptView, Question, Score, Text, Window};
use super::trace::{LayerRecord, Record};
use super::view::{ReadLane, View};
use super::{Lanes, Positions};
use crate::base64::{floats, whole};
use crate::cache::{Entry, Span};
use crate::error::{Error, Result};
use crate::fields::{Fields, Whole, refuse};

/// The method of a request that has `needs`.
pub(super) const NAME: &str = "custom";

/// Needs of a method outside the engine.
#[derive(Debug)]
pub struct External {
    /// The size that its plans must not pass, where it has one.
    keep: Option<Keep>,
    lanes: Lanes,
    moments: Moments,
    /// The queries of the prompt whose attention is summed.
    sums: Option<Box<dyn Score>>,
    keys: bool,
    values: bool,
    queries: usize,
}

/// Most queries of a window, and most tokens between two plans.
const MOST: usize = 1_000_000;
/// Most of the last queries that a method may ask for.
const MOST_QUERIES: usize = 1024;

impl External {
    /// Reads `{ "method": "custom", "needs": ..., "keep": ... }`; None for anything else.
    pub(super) fn parse(value: &Value) -> Result<Option<External>> {
        if value.get("method").and_then(Value::as_str) != Some(NAME) || value.get("needs").is_none() {
            return Ok(None);
        }
        let mut fields =
            Fields::new(value.clone(), "the options of custom with `needs`", &["method", "keep", "needs"])?;
        let keep = fields.take::<Value>("keep")?.map(Keep::parse).transpose()?;
        let known = ["moments", "every", "lanes", "sums", "window", "keys", "values", "queries"];
        let mut needs = Fields::new(fields.need("needs")?, "`needs` of custom", &known)?;
        let moments: Vec<String> = needs.take("moments")?.unwrap_or_else(|| vec!["prompt".into()]);
        let has = |name: &str| moments.iter().any(|moment| moment == name);
        if let Some(other) = moments.iter().find(|moment| !["prompt", "step"].contains(&moment.as_str())) {
            return Err(refuse(format!(
                "`moments` of custom are \"prompt\" and \"step\", found {other:?}: a plan from outside comes between two passes through \
                 the layers, not inside one"
            )));
        }
        let every = needs.take::<Whole<1, MOST>>("every")?.map(|every| every.0);
        if moments.is_empty() || (every.is_some() && !has("step")) {
            return Err(refuse(
                "`needs` of custom names no moment at which it would be asked: `moments: [\"prompt\", \"step\"]`",
            ));
        }
        let step = if has("step") { every.unwrap_or(1) as u64 } else { 0 };
        let queries = needs.take::<Whole<1, MOST>>("window")?.map_or(32, |window| window.0);
        let (pool, size) = (Pooling::None, 1);
        let sums: Option<Box<dyn Score>> = match needs.take::<String>("sums")?.as_deref() {
            None => None,
            Some("columns") => Some(Box::new(Columns)),
            Some("text") => Some(Box::new(Text)),
            Some("window") => Some(Box::new(Window { queries, kept: false, pool, size })),
            Some("question") => Some(Box::new(Question { queries, pool, size, sinks: 0 })),
            Some(other) => {
                return Err(refuse(format!(
                    "`sums` of custom must be one of question, window, text, columns, found {other:?}"
                )));
            }
        };
        let lanes = match needs.take::<String>("lanes")?.as_deref() {
            None | Some("layer") => Lanes::PerLayer,
            Some("head") => Lanes::PerHead,
            Some(other) => return Err(refuse(format!("`lanes` of custom must be layer or head, found {other:?}"))),
        };
        Ok(Some(External {
            keep,
            lanes,
            moments: Moments { prompt: has("prompt"), step, ..Moments::default() },
            sums,
            keys: needs.take("keys")?.unwrap_or(false),
            values: needs.take("values")?.unwrap_or(false),
            queries: needs.take::<Whole<0, MOST_QUERIES>>("queries")?.map_or(0, |queries| queries.0),
        }))
    }
}

impl External {
    /// The size that its plans must not pass, where it has one.
    pub(super) fn keep(&self) -> Option<Keep> {
        self.keep
    }
}

/// A sequence as a method outside the engine is shown it, between two passes through the layers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodView {
    /// After the prompt, or after a generated token.
    pub moment: ViewMoment,
    /// Generated tokens since the prompt.
    pub step: u64,
    /// Positions seen, all of them.
    pub positions: usize,
    /// Entries that may stay over all lanes together, each counting its heads; null where the method has no size.
    pub most: Option<u64>,
    /// Spans that cover all positions, in order and without gaps.
    pub spans: Vec<Span>,
    /// The lanes of all layers, in order.
    pub lanes: Vec<LaneView>,
}

/// When a method outside is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewMoment {
    Prompt,
    Step,
}

/// Entries of some heads of a layer, in the order of their positions. Numbers are base64 of little-endian 32-bit values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneView {
    /// The layer.
    pub layer: usize,
    /// First KV head and the one behind the last.
    pub heads: [usize; 2],
    /// The positions of the entries, whole numbers.
    pub positions: String,
    /// The attention that each entry has got, the mean over the heads: at the prompt from the queries that `needs.sums` names, at a
    /// step from the tokens since the last plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sums: Option<String>,
    /// With `needs.keys`: `[entries, heads, head size]`, as attention reads them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// With `needs.values`, as `keys`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// With `needs.queries`, at the prompt: its last queries, `[queries, query heads, head size]`, as they have attended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<String>,
}

/// A plan for the lanes of a view, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanReply {
    pub lanes: Vec<LaneReply>,
}

/// A plan for one lane.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneReply {
    /// The entries that stay, by their numbers in the view, ascending; without it all stay.
    pub keep: Option<Vec<u32>>,
    /// Entries that go and are added to one that stays.
    #[serde(default)]
    pub merge: Vec<MergeReply>,
}

/// An entry that is merged into another.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeReply {
    /// The entry that goes, by its number in the view.
    pub from: u32,
    /// The one that it is added to, by its number in the view.
    pub into: u32,
    /// Its weight beside the one that stays, which counts 1.
    pub weight: f32,
}

/// A method outside at work on one sequence.
#[derive(Debug)]
pub(super) struct ExternalPlanner {
    external: Arc<External>,
    cost: Cost,
    /// KV heads, and query heads of each.
    heads: usize,
    recording: bool,
    record: Option<Record>,
}

impl ExternalPlanner {
    pub(super) fn new(
        external: Arc<External>,
        heads: usize,
        cost: impl FnOnce(Lanes, bool) -> Cost,
    ) -> ExternalPlanner {
        let scores = external.sums.is_some() && external.moments.step > 0;
        let cost = cost(external.lanes, scores);
        ExternalPlanner { external, cost, heads, recording: false, record: None }
    }

    /// Attention that a lane's entries received in the prompt, the mean over its heads, in the order of positions; None where none
    /// was gathered.
    fn sums(lane: &dyn ReadLane, sums: &[Vec<f32>]) -> Option<Vec<f32>> {
        let own = sums.get(lane.heads())?;
        let of = |entry: &Entry| {
            own.iter().map(|sums| sums.get(entry.place as usize).copied().unwrap_or(0.0)).sum::<f32>()
                / own.len() as f32
        };
        Some(lane.sorted().iter().map(of).collect())
    }

    /// The prompt's record, for a trace.
    fn recorded(view: &View<'_>) -> Record {
        let layer = |layer: usize| {
            let mut importance = vec![0.0; view.positions()];
            let lanes = view.cache.lanes(layer).max(1) as f32;
            for lane in view.cache.of(layer) {
                for (mean, sum) in importance.iter_mut().zip(Self::sums(lane, view.sums(layer)).unwrap_or_default()) {
                    *mean += sum / lanes;
                }
            }
            LayerRecord { importance, cumulative: None, retained: None }
        };
        let layers = (0..view.cache.layers()).map(layer).collect();
        Record { score: NAME, ranking: "a function of its own", mass: false, threshold: None, layers }
    }

    /// Entries over all lanes, each counting its heads.
    fn most(&self, positions: usize) -> Option<u64> {
        let keep = self.external.keep?;
        Some(keep.total(positions, &self.cost) as u64 * self.heads as u64)
    }

    fn lane(&self, moment: ViewMoment, layer: usize, lane: &dyn ReadLane, view: &View<'_>) -> Result<LaneView> {
        let External { keys, values, .. } = *self.external;
        let sorted = lane.sorted();
        let heads = lane.heads();
        let sums = match moment {
            ViewMoment::Prompt => Self::sums(lane, view.sums(layer)),
            ViewMoment::Step => {
                let scores = lane.scores();
                (!scores.is_empty()).then(|| sorted.iter().map(|entry| scores[entry.place as usize]).collect())
            }
        };
        let queries = view.queries.get(layer).map(|queries| &queries.rows).filter(|queries| !queries.is_empty());
        let queries = queries.map(|queries| {
            let rows = self.external.queries.min(view.n);
            let (width, whole) = (queries.len() / rows.max(1), self.heads.max(1));
            let own = heads.start * width / whole..heads.end * width / whole;
            floats(queries.chunks(width.max(1)).flat_map(|row| &row[own.clone()]).copied())
        });
        Ok(LaneView {
            layer: view.cache.number(layer),
            heads: [heads.start, heads.end],
            positions: whole(sorted.iter().map(|entry| entry.position)),
            sums: sums.map(|sums: Vec<f32>| floats(sums.into_iter())),
            keys: if keys { Some(floats(lane.keys(&sorted)?.into_iter())) } else { None },
            values: if values { Some(floats(lane.values(&sorted)?.into_iter())) } else { None },
            queries,
        })
    }
}

impl Planner for ExternalPlanner {
    fn fork(&self) -> Box<dyn Planner> {
        let ExternalPlanner { cost, heads, .. } = *self;
        Box::new(ExternalPlanner { external: self.external.clone(), cost, heads, recording: false, record: None })
    }

    fn needs(&self) -> Needs {
        let External { moments, lanes, queries, .. } = *self.external;
        let accumulates = self.external.sums.is_some() && moments.step > 0;
        Needs {
            moments,
            lanes,
            positions: Positions::True,
            scores: accumulates,
            accumulates,
            left: 1.0,
            external: true,
            queries,
            ahead: None,
            rows: false,
            repeats: false,
        }
    }

    fn begin(&mut self, view: &View<'_>) -> Result<Option<usize>> {
        self.growth(view)
    }

    /// Everything is held until the plan comes.
    fn growth(&self, _: &View<'_>) -> Result<Option<usize>> {
        Ok(None)
    }

    fn queries(&self, _: usize, view: &View<'_>) -> Option<Vec<f32>> {
        let allowance = view.positions();
        let View { past, n, spans, blocks, .. } = *view;
        self.external.sums.as_ref()?.queries(&PromptView { past, n, spans, allowance, blocks })
    }

    fn plan(&mut self, _: Moment, _: &View<'_>, _: &mut Plan) -> Result<()> {
        Err(Error::Internal("a plan from outside was not waited for".into()))
    }

    fn shown(&self, moment: Moment, view: &View<'_>) -> Result<MethodView> {
        let (moment, step) = match moment {
            Moment::Step(step) => (ViewMoment::Step, step + 1),
            _ => (ViewMoment::Prompt, 0),
        };
        let mut lanes = Vec::new();
        for layer in 0..view.cache.layers() {
            for lane in view.cache.of(layer) {
                lanes.push(self.lane(moment, layer, lane, view)?);
            }
        }
        let positions = view.positions();
        Ok(MethodView { moment, step, positions, most: self.most(positions), spans: view.spans.to_vec(), lanes })
    }

    fn is_settled(&self) -> bool {
        !self.external.moments.prompt
    }

    fn record(&mut self) {
        self.recording = true;
    }

    fn take_record(&mut self) -> Option<Record> {
        self.record.take()
    }

    fn answer(&mut self, moment: Moment, view: &View<'_>, reply: &PlanReply, plan: &mut Plan) -> Result<()> {
        if moment == Moment::Prompt && std::mem::take(&mut self.recording) {
            self.record = Some(Self::recorded(view));
        }
        let lanes: usize = (0..view.cache.layers()).map(|layer| view.cache.lanes(layer)).sum();
        if reply.lanes.len() != lanes {
            return wrong(format!("it is for {} lanes, and the view has {lanes}", reply.lanes.len()));
        }
        let (mut answers, mut kept) = (reply.lanes.iter().enumerate(), 0);
        for layer in 0..view.cache.layers() {
            for (number, lane) in view.cache.of(layer).enumerate() {
                let Some((at, answer)) = answers.next() else { break };
                let mut planned = read(answer, lane, layer, number).map_err(|reason| Error::Plan {
                    reason: format!("lane {at} (layer {}): {reason}", view.cache.number(layer)),
                })?;
                let stays = planned.keep.as_ref().map_or(lane.len(), Vec::len);
                kept += (stays * lane.heads().len()) as u64;
                // The next view has what entries have got since this one.
                planned.scores = lane.scores();
                planned.scores.truncate(lane.len());
                planned.scores.fill(0.0);
                plan.push(planned);
            }
        }
        match self.most(view.positions()) {
            Some(most) if kept > most => wrong(format!(
                "it keeps {kept} entries over all lanes, each counting its heads, and `keep` allows {most}"
            )),
            _ => Ok(()),
        }
    }
}

fn wrong<T>(reason: String) -> Result<T> {
    Err(Error::Plan { reason })
}

fn read(answer: &LaneReply, lane: &dyn ReadLane, layer: usize, number: usize) -> Result<LanePlan, String> {
    let sorted = lane.sorted();
    let mut planned = LanePlan::new(layer, number);
    let Some(keep) = &answer.keep else {
        return match answer.merge.is_empty() {
            true => Ok(planned),
            false => Err("it merges entries and says not which stay: `keep`".into()),
        };
    };
    if keep.is_empty() && !sorted.is_empty() {
        return Err("nothing stays, and a lane needs at least one entry".into());
    }
    if let Some(pair) = keep.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(format!("`keep` must rise, found {} before {}", pair[0], pair[1]));
    }
    let entry = |index: u32| {
        let found = sorted.get(index as usize).copied();
        found.ok_or_else(|| format!("there is no entry {index}: the lane has {}", sorted.len()))
    };
    let kept = keep.iter().map(|index| entry(*index)).collect::<Result<Vec<Entry>, String>>()?;
    let mut merged = std::collections::HashSet::new();
    for MergeReply { from, into, weight } in &answer.merge {
        if keep.binary_search(from).is_ok() || keep.binary_search(into).is_err() {
            return Err(format!("entry {from} is merged into {into}: the first must go and the second stay"));
        }
        if !merged.insert(from) {
            return Err(format!("entry {from} is merged twice"));
        }
        if !(weight.is_finite() && *weight > 0.0) {
            return Err(format!("the weight of entry {from} must be above 0, found {weight}"));
        }
        planned.merge.push(Merge { from: entry(*from)?, into: entry(*into)?, weight: *weight });
    }
    if kept.len() < sorted.len() {
        planned.keep = Some(kept);
    }
    Ok(planned)
}
