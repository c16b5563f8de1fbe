use super::super::options::Options;
use super::super::plan::{Merge, Moment, Plan};
use super::super::spec::common::choice;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::stage::Refine;
use super::super::view::{ReadLane, View};
use crate::cache::Entry;
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "merge",
    title: "Merging",
    summary: "a stage: adds what the method before it drops to the most similar entries that stay",
    source: "Wan et al. 2024, LOOK-M, arXiv 2406.18139 (its averaged merging)",
    page: r#"
A stage behind a method, as in `cache: [snapkv({ keep: 0.4 }), merge()]`: of the entries that the method frees after the prompt, each is merged into the one that stays whose key is most like its own, by the cosine over all heads of the lane. Keys and values of the two become their weighted mean.

```
k'[i] = (k[i] + weight * sum of k[j]) / (1 + weight * number of j)     over the dropped j nearest to i; values alike
```

- `rule: "pivot"` halves the way first: what is merged is the mean of the dropped entry and of the one that stays. It is LOOK-M's best; `weight` is for `"mean"`.
- `nearest: "position"` merges into the entry that stays at the nearest position, as in Elastic Cache (arXiv 2407.18121).
- The sizes, and so the bytes, are those of the method before it.
- Entries that go while generating are dropped, not merged.
- Keys are merged as they are stored, rotated to different positions, as in LOOK-M.
- `least` leaves dropped entries alone that resemble nothing: those whose nearest key has a lower cosine.
- On a GPU the lane is read, merged on the host and written back, once after the prompt.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Refines,
    options: &[
        OptionSpec {
            name: "weight",
            kind: OptionKind::Share,
            default: "1",
            text: "how much a merged entry counts beside the one that stays, with `rule: \"mean\"`",
        },
        choice("rule", &["mean", "pivot"], "\"mean\"", "how what is merged is averaged"),
        choice("nearest", &["key", "position"], "\"key\"", "by what the nearest of the entries that stay is found"),
        OptionSpec {
            name: "least",
            kind: OptionKind::Share,
            default: "0",
            text: "the least cosine at which an entry is merged, with `nearest: \"key\"`",
        },
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let (weight, least) = (options.share("weight")? as f32, options.share("least")? as f32);
    if weight <= 0.0 {
        return Err(refuse("`weight` of merge must be above 0; to merge nothing, leave the stage out"));
    }
    let rule = match options.choice("rule")?.as_str() {
        "pivot" => Rule::Pivot,
        _ => Rule::Mean { weight },
    };
    let nearest = match options.choice("nearest")?.as_str() {
        "position" => Nearest::Position,
        _ => Nearest::Key { least },
    };
    Ok(Stage::Refines(Box::new(Merging { nearest, rule })))
}

/// Merges what is dropped into the nearest that stays.
#[derive(Debug)]
pub(super) struct Merging {
    pub nearest: Nearest,
    pub rule: Rule,
}

impl Default for Merging {
    fn default() -> Self {
        Merging { nearest: Nearest::Key { least: f32::NEG_INFINITY }, rule: Rule::Pivot }
    }
}

/// By what the nearest is found.
#[derive(Debug)]
pub(super) enum Nearest {
    /// The cosine of keys, from `least` on.
    Key {
        least: f32,
    },
    Position,
}

/// How what is merged into an entry is averaged with it.
#[derive(Debug)]
pub(super) enum Rule {
    /// Each counts `weight` beside the entry itself.
    Mean { weight: f32 },
    /// Each is first averaged with the entry; then all count alike.
    Pivot,
}

impl Refine for Merging {
    fn refine(&self, moment: Moment, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        if !matches!(moment, Moment::Layer(_) | Moment::Prompt) {
            return Ok(());
        }
        for planned in &mut plan.lanes {
            let Some(kept) = &planned.keep else { continue };
            let lane = view.cache.lane(planned.layer, planned.lane);
            let mut dropped = lane.sorted();
            let mut stay = kept.iter().peekable();
            dropped.retain(|entry| stay.next_if(|kept| kept.position == entry.position).is_none());
            let found = match self.nearest {
                Nearest::Key { least } => nearest_keys(lane, &dropped, kept, least)?,
                Nearest::Position => nearest_positions(&dropped, kept),
            };
            let mut merged = vec![0usize; kept.len()];
            found.iter().for_each(|(_, into)| merged[*into] += 1);
            let weight = |into: usize| match self.rule {
                Rule::Mean { weight } => weight,
                // The mean of one and of m halves, in which the one has the other half: the weight that comes to the same.
                Rule::Pivot => 1.0 / (2 + merged[into]) as f32,
            };
            let merge = |(from, into): (Entry, usize)| Merge { from, into: kept[into], weight: weight(into) };
            planned.merge = found.into_iter().map(merge).collect();
        }
        Ok(())
    }
}

/// For entries that are dropped the number of the one that stays whose key is most like theirs; left out where none is.
fn nearest_keys(lane: &dyn ReadLane, dropped: &[Entry], kept: &[Entry], least: f32) -> Result<Vec<(Entry, usize)>> {
    let (from, to) = (unit(lane.keys(dropped)?, dropped.len()), unit(lane.keys(kept)?, kept.len()));
    let of = |(entry, key): (&Entry, &Vec<f32>)| {
        let cosine = |to: &Vec<f32>| key.iter().zip(to).map(|(a, b)| a * b).sum::<f32>();
        // Of equal ones the first.
        let nearest = to.iter().map(cosine).enumerate().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        nearest.filter(|(_, cosine)| *cosine >= least).map(|(index, _)| (*entry, index))
    };
    Ok(dropped.iter().zip(&from).filter_map(of).collect())
}

/// For entries that are dropped the number of the one that stays at the nearest position; of two equally near ones the earlier.
fn nearest_positions(dropped: &[Entry], kept: &[Entry]) -> Vec<(Entry, usize)> {
    let of = |entry: &Entry| {
        let after = kept.partition_point(|kept| kept.position < entry.position);
        let away = |at: &usize| kept[*at].position.abs_diff(entry.position);
        let either = after.saturating_sub(1)..(after + 1).min(kept.len());
        either.min_by_key(away).map(|into| (*entry, into))
    };
    dropped.iter().filter_map(of).collect()
}

/// Keys, a row per entry, each scaled to length 1.
fn unit(mut keys: Vec<f32>, n: usize) -> Vec<Vec<f32>> {
    let width = keys.len() / n.max(1);
    let scaled = |row: &mut [f32]| {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        row.iter_mut().for_each(|x| *x /= length);
        row.to_vec()
    };
    keys.chunks_mut(width.max(1)).map(scaled).collect()
}
