use super::super::options::Options;
use super::super::plan::{Merge, Moment, Plan};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::stage::Refine;
use super::super::view::View;
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
            text: "how much a merged entry counts beside the one that stays",
        },
        OptionSpec {
            name: "least",
            kind: OptionKind::Share,
            default: "0",
            text: "the least cosine at which an entry is merged",
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
    Ok(Stage::Refines(Box::new(Nearest { weight, least })))
}

/// Merges what is dropped into the nearest that stays.
#[derive(Debug)]
struct Nearest {
    weight: f32,
    least: f32,
}

impl Refine for Nearest {
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
            let (from, to) = (unit(lane.keys(&dropped)?, dropped.len()), unit(lane.keys(kept)?, kept.len()));
            for (entry, key) in dropped.iter().zip(&from) {
                let cosine = |to: &Vec<f32>| key.iter().zip(to).map(|(a, b)| a * b).sum::<f32>();
                // Of equal ones the first.
                let nearest = to.iter().map(cosine).enumerate().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
                if let Some((index, cosine)) = nearest
                    && cosine >= self.least
                {
                    planned.merge.push(Merge { from: *entry, into: kept[index], weight: self.weight });
                }
            }
        }
        Ok(())
    }
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
