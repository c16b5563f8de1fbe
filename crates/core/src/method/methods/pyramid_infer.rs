use std::f64::consts::PI;
use std::sync::Arc;

use super::super::options::Options;
use super::super::plan::{LanePlan, Moment, Plan};
use super::super::planner::{Moments, Needs, Planner, Plans};
use super::super::spec::common::{choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage, VARIANT, Variant};
use super::super::trace::{LayerRecord, Record};
use super::super::view::{ReadLane, View};
use super::super::{Lanes, Positions};
use crate::cache::Entry;
use crate::error::Result;

const fn share(name: &'static str, default: &'static str, text: &'static str) -> OptionSpec {
    OptionSpec { name, kind: OptionKind::Share, default, text }
}

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "pyramidInfer",
    title: "PyramidInfer",
    summary: "reads fewer positions of the prompt from layer to layer, those that its last ones look at",
    source: "Yang et al. 2024, PyramidInfer, arXiv 2405.12532 (Findings of ACL 2024)",
    page: r#"
From layer to layer fewer positions of the prompt go on. The last share `recent` of the prompt always does; of the positions before it, the context, those go on that these last ones look at most. Nothing more is computed for the others, and later layers hold no entries of them, so the prompt is read faster and the cache is a pyramid: every layer holds what it has seen.

```
w      = 1 + floor(recent * n)                        the last w of n positions, which look at the context
S[j]   = mean over them of u_i * mean_h A_l[h, i, j]   u_i rises evenly from 1 to `distance`
d_l    = (1 - share) * (cos(pi * l / L) + 1) / 2 + share
kept   = floor(d_l * context)                         of layer l, for the layers behind it
```

`d_0` is 1, so two layers read everything; then each layer takes a little more away, the last ones nearly `1 - share` of the context that has come to them. The first `sinks` positions always go on, the earlier ones where there is room for fewer. Where `kept` would be `least` or less, nobody goes.

While generating, the prompt's entries stay. Generated ones go in blocks: when `block` of them have left the last share `recent` of all positions, a layer keeps the best of the block, by the attention from the tokens behind it, and at least one:

```
kept = floor(blockShare * block * ((1 - blockLast) * (cos(pi * l / L) + 1) / 2 + blockLast))
```

The options' defaults are what the authors set for models of 7 and 8 billion parameters. `variant: "medium"`, for 13 billion, prunes behind every second layer, by a share of 0.8, and `"large"`, for 70 billion, behind every third.

- The published code takes `schedule: "constant"`, `d_l = share`, for every schedule but the cosine: an `else` overwrites its linear one.
- That code compares the number of tokens seen with the length of a layer's cache, which is shorter in all but the first layers. There, blocks of the prompt itself go while generating, one a token. Here, as its text says, only generated tokens go.
- While generating all tokens behind a block count alike, those of the prompt's last share not at all: sums of attention are kept, not rows.
- The formulas are those of single prompts. Of a chat's later prompts, their own positions go or stay; earlier entries stay, blocks that are not full included.
- Text and images are ranked alike; positions stay true, as in the published code.
- How many go follows from the length alone, so `memory` is what comes out. Prompts are not read in pieces: later layers would have seen the rows of earlier pieces.
- With `block: 0` nothing goes while generating, and entries carry no scores (4 bytes each).
"#,
    budget: BudgetKind::Outcome,
    role: Role::Chooses,
    options: &[
        share("share", "0.9", "the share of the context that the last layers pass on, each of what has come to it"),
        choice(
            "schedule",
            &["cosine", "constant"],
            "\"cosine\"",
            "how that share is reached: along a cosine from 1 in the first layer, or at once",
        ),
        positive("interval", "1", "layers of which one passes less on"),
        share("recent", "0.2", "the share of the prompt, its last positions, that always goes on and ranks the others"),
        OptionSpec {
            name: "distance",
            kind: OptionKind::Number { least: 0.0, most: 1e6 },
            default: "1.2",
            text: "the weight of the prompt's last position beside the first of these",
        },
        count("sinks", "4", "first positions, which always go on"),
        count("least", "64", "positions before the last ones that are never made fewer"),
        count("block", "16", "generated tokens of which some go together; 0 to keep all"),
        share("blockShare", "0.9", "the share of a block that the first layer keeps"),
        share("blockLast", "0.1", "how much of that share the last layers keep"),
        choice(
            VARIANT,
            &["small", "medium", "large"],
            "\"small\"",
            "the models that the defaults were chosen for: of 7 or 8, 13, or 70 billion parameters",
        ),
    ],
    variants: &[
        Variant { name: "medium", defaults: &[("share", "0.8"), ("interval", "2")] },
        Variant { name: "large", defaults: &[("interval", "3")] },
    ],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Plans(Arc::new(PyramidInfer {
        share: options.share("share")?,
        falls: options.choice("schedule")? == "cosine",
        interval: options.count("interval")?,
        recent: options.share("recent")?,
        distance: options.number("distance")?,
        sinks: options.count("sinks")?,
        least: options.count("least")?,
        block: options.count("block")?,
        block_share: options.share("blockShare")?,
        block_last: options.share("blockLast")?,
    })))
}

#[derive(Debug)]
struct PyramidInfer {
    share: f64,
    /// Whether `share` is come to along a cosine.
    falls: bool,
    interval: usize,
    recent: f64,
    distance: f64,
    sinks: usize,
    least: usize,
    block: usize,
    block_share: f64,
    block_last: f64,
}

/// From 1 in the first layer towards `last` behind the last one.
fn cosine(last: f64, layer: usize, layers: usize) -> f64 {
    (1.0 - last) * ((PI * layer as f64 / layers as f64).cos() + 1.0) / 2.0 + last
}

impl PyramidInfer {
    /// The last of `positions` that rank those before them.
    fn window(&self, positions: usize) -> usize {
        (1 + (self.recent * positions as f64) as usize).min(positions)
    }

    /// How many of the `context` positions that a layer has seen before the last ones go on.
    fn passed(&self, layer: usize, layers: usize, context: usize) -> usize {
        let share = if self.falls { cosine(self.share, layer, layers) } else { self.share };
        let passed = (share * context as f64) as usize;
        // Behind the last layer there is none to see less.
        match layer.is_multiple_of(self.interval) && layer + 1 < layers && passed > self.least {
            true => passed,
            false => context,
        }
    }

    /// How many positions before its last ones each layer sees of a prompt of `n`.
    fn contexts(&self, n: usize, layers: usize) -> Vec<usize> {
        let first = n - self.window(n);
        let next = |context: &mut usize, layer: usize| {
            let seen = *context;
            *context = self.passed(layer, layers, seen);
            Some(seen)
        };
        (0..layers).scan(first, next).collect()
    }

    /// How many entries of a block a layer keeps.
    fn block_kept(&self, layer: usize, layers: usize) -> usize {
        let share = self.block_share * cosine(self.block_last, layer, layers);
        ((share * self.block as f64) as usize).clamp(1, self.block)
    }
}

impl Plans for PyramidInfer {
    fn check_layers(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn planner(self: Arc<Self>) -> Box<dyn Planner> {
        Box::new(PyramidInferPlanner { method: self, start: 0, next: 0, record: None })
    }
}

/// PyramidInfer at work on one sequence.
#[derive(Debug)]
struct PyramidInferPlanner {
    method: Arc<PyramidInfer>,
    /// Where the blocks of the last prompt start, behind it, and where the first starts that is still whole.
    start: usize,
    next: usize,
    /// The importance per layer, if it is to be kept.
    record: Option<Vec<LayerRecord>>,
}

impl PyramidInferPlanner {
    /// The attention that each position of the prompt gets from its last ones.
    fn importance(layer: usize, view: &View<'_>) -> Vec<f32> {
        let sums = view.sums(layer);
        let mut importance = vec![0.0; view.positions()];
        for entry in view.cache.of(layer).flat_map(<dyn ReadLane>::sorted) {
            let all = sums.iter().map(|sums| sums.get(entry.place as usize).copied().unwrap_or(0.0));
            importance[entry.position as usize] = all.sum::<f32>() / sums.len().max(1) as f32;
        }
        importance
    }

    /// The positions of the prompt that go on behind a layer; None where all do.
    fn rows(&self, layer: usize, view: &View<'_>, importance: &[f32]) -> Option<Vec<u32>> {
        let (method, layers) = (&self.method, view.cache.layers());
        let context = method.contexts(view.n, layers)[layer];
        let passed = method.passed(layer, layers, context);
        if passed == context {
            return None;
        }
        let last = view.positions() - method.window(view.n);
        let seen = view.cache.of(layer).flat_map(<dyn ReadLane>::sorted).map(|entry| entry.position as usize);
        let mut ranked: Vec<usize> = seen.filter(|position| (view.past..last).contains(position)).collect();
        // Where there are more sinks than places, the earlier ones go on.
        let value = |position: usize| if position < method.sinks { f32::INFINITY } else { importance[position] };
        ranked.sort_by(|a, b| value(*b).total_cmp(&value(*a)).then(a.cmp(b)));
        ranked.truncate(passed);
        ranked.sort_unstable();
        Some(ranked.into_iter().chain(last..view.positions()).map(|position| position as u32).collect())
    }

    /// The plan for a lane when the newest token ends the block `ended`, and when the block `gone` has left the last positions.
    fn step(&self, layer: usize, number: usize, view: &View<'_>, ended: bool, gone: bool) -> LanePlan {
        let (block, lane) = (self.method.block, view.cache.lane(layer, number));
        let (sorted, carried) = (lane.sorted(), lane.scores());
        let score = |entry: &Entry| carried.get(entry.place as usize).copied().unwrap_or(0.0);
        let mut plan = LanePlan::new(layer, number);
        let of = |start: usize| {
            let rank = |position: usize| sorted.partition_point(|entry| (entry.position as usize) < position);
            rank(start)..rank(start + block)
        };
        if ended {
            // From now on the block collects what those behind it give.
            plan.scores = sorted.iter().map(score).collect();
            plan.scores[of(view.positions() - block)].fill(0.0);
        }
        if gone {
            let at = of(self.next);
            let mut ranked: Vec<usize> = at.clone().collect();
            ranked.sort_by(|a, b| score(&sorted[*b]).total_cmp(&score(&sorted[*a])).then(a.cmp(b)));
            ranked.truncate(self.method.block_kept(layer, view.cache.layers()));
            ranked.sort_unstable();
            let ranks = (0..at.start).chain(ranked).chain(at.end..sorted.len());
            plan.keep = Some(ranks.map(|rank| sorted[rank]).collect());
        }
        plan
    }
}

impl Planner for PyramidInferPlanner {
    fn needs(&self) -> Needs {
        let generates = self.method.block > 0;
        Needs {
            moments: Moments { layer: true, step: u64::from(generates), ..Moments::default() },
            lanes: Lanes::PerLayer,
            positions: Positions::True,
            scores: generates,
            accumulates: generates,
            left: 1.0,
            external: false,
            queries: 0,
            ahead: None,
            rows: true,
            repeats: false,
        }
    }

    fn fork(&self) -> Box<dyn Planner> {
        let PyramidInferPlanner { start, next, .. } = *self;
        Box::new(PyramidInferPlanner { method: self.method.clone(), start, next, record: None })
    }

    fn begin(&mut self, view: &View<'_>) -> Result<Option<usize>> {
        (self.start, self.next) = (view.positions(), view.positions());
        self.growth(view)
    }

    fn growth(&self, view: &View<'_>) -> Result<Option<usize>> {
        let layers = view.cache.layers();
        let contexts: usize = self.method.contexts(view.n, layers).iter().sum();
        Ok(Some(contexts + self.method.window(view.n) * layers))
    }

    fn asks_question(&self) -> bool {
        true
    }

    fn queries(&self, layer: usize, view: &View<'_>) -> Option<Vec<f32>> {
        let (method, layers) = (&self.method, view.cache.layers());
        let context = method.contexts(view.n, layers)[layer];
        if method.passed(layer, layers, context) == context && self.record.is_none() {
            return None;
        }
        let window = method.window(view.n);
        let mut weights = vec![0.0; view.n];
        for (rank, weight) in weights[view.n - window..].iter_mut().enumerate() {
            let rise = (method.distance - 1.0) * rank as f64 / (window - 1).max(1) as f64;
            *weight = ((1.0 + rise) / window as f64) as f32;
        }
        Some(weights)
    }

    fn plan(&mut self, moment: Moment, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        match moment {
            Moment::Layer(layer) => {
                let importance = Self::importance(layer, view);
                plan.rows = self.rows(layer, view, &importance);
                if let Some(record) = &mut self.record {
                    record.push(LayerRecord { importance, cumulative: None, retained: None });
                }
            }
            Moment::Step(_) => {
                let (block, positions) = (self.method.block, view.positions());
                let ended = (positions - self.start).is_multiple_of(block);
                let gone = self.next + block + self.method.window(positions) <= positions;
                if ended || gone {
                    for layer in 0..view.cache.layers() {
                        for lane in 0..view.cache.lanes(layer) {
                            plan.push(self.step(layer, lane, view, ended, gone));
                        }
                    }
                }
                self.next += if gone { block } else { 0 };
            }
            Moment::Images | Moment::Prompt | Moment::Token(_) => {}
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        // Nothing of the prompt is freed: later layers never get the rows.
        true
    }

    fn record(&mut self) {
        self.record = Some(Vec::new());
    }

    fn take_record(&mut self) -> Option<Record> {
        let layers = self.record.take()?;
        let ranking = "attention from the last positions of the prompt, of which later ones count more";
        Some(Record { score: "window", ranking, mass: false, threshold: None, layers })
    }
}
