use std::sync::Arc;

use super::super::options::Options;
use super::super::pictures::{Chosen, Notes, Pictures};
use super::super::plan::{Moment, Plan};
use super::super::planner::{Moments, Needs, Planner, Plans};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::trace::{LayerRecord, Record};
use super::super::view::View;
use super::super::{Lanes, Positions};
use crate::cache::Modality;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "visionZip",
    title: "VisionZip",
    summary: "merges each image into fewer positions before the language model, by what its vision tower looks at",
    source: "Yang et al. 2024, VisionZip, arXiv 2412.04467 (CVPR 2025)",
    page: r#"
The vision tower has looked at an image before the language model sees it. Of the `n` positions of an image, `K` go on; no layer of the language model computes anything for the others or holds entries of them. In the layer of the tower whose output the model takes, with the class token `cls` and `P` patches:

```
K    = max(1, floor(images * n + 1/2))
C    = floor(contextual * K + 1/2)               of these, the contextual ones
S[p] = mean_h A[h, cls, p]                       attention from the class token
k[p] = mean_h K[h, p], divided by its length     mean key
```

- *Dominant* are the `K - C` patches with the largest `S`.
- Of the other `M = n - K + C` patches, in order, those numbered `0, t, 2t, ...` are the `C` *contextual* ones, `t = max(1, floor(M / C))`. Each of the rest is assigned to the contextual one whose key is most similar, the largest `k[p] . k[c]`, and the mean of the features assigned to a contextual patch is added to its own:

```
f[c] = f[c] + mean of f[p] over the patches p assigned to c
```

- Features `f` are those before the projector, so the projector runs for the `K` alone as well.
- The defaults are a size of the paper: 192 of 576 positions, 30 of them contextual. Its others are `images: 0.2222` (128) and `0.1111` (64), with the same share of contextual ones. `contextual: 0` drops the rest and merges nothing.
- Each image is chosen from by itself, whatever is asked about it. A prompt without images is read whole.
- Entries and generated tokens are never evicted, so `memory` is what comes out.

Deviations from the paper and the published code:

- Positions stay true: the patches that go on are rotated to their places in the prompt, contextual ones among the others. The code puts the contextual ones last and numbers positions without gaps.
- The code keeps the class token as one of the dominant positions. Here it has a position only in models that take it into the prompt (`vision_feature_select_strategy: "full"`); there it always goes on and is one of the dominant ones.
- A tower that takes features of several layers notes attention and keys in the last of them.
- A key without length is similar to none, which puts such a patch to the first contextual one; the code divides by 0.
- Fine-tuning of the projector, the paper's second variant, is a matter of the model's weights.

A tower without a class token, one with a class token for each tile, or one whose embeddings are taken as they are, has no such attention, and images are refused with an `OptionError`. Layers of the language model may share entries (`kvsharer`), since all of them see the same positions. Such prompts are not read in pieces. `score({ kl: true })` has the images seen a second time for the full cache. The `imageTokens` of an answer are those of the whole images.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Chooses,
    options: &[
        OptionSpec {
            name: "images",
            kind: OptionKind::Share,
            default: "0.3333",
            text: "the share of each image's positions that go on, contextual ones included",
        },
        OptionSpec {
            name: "contextual",
            kind: OptionKind::Share,
            default: "0.15625",
            text: "the share of these that others are merged into",
        },
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let (images, contextual) = (options.share("images")?, options.share("contextual")?);
    Ok(Stage::Plans(Arc::new(VisionZip { images, contextual })))
}

#[derive(Debug)]
struct VisionZip {
    images: f64,
    contextual: f64,
}

fn rounded(share: f64, of: usize) -> usize {
    ((share * of as f64 + 0.5).floor() as usize).min(of)
}

impl Pictures for VisionZip {
    fn kept(&self, positions: usize) -> usize {
        rounded(self.images, positions).max(1)
    }

    fn choose(&self, notes: &Notes) -> Chosen {
        let (lead, patches) = (notes.lead, notes.attention.len());
        let kept = self.kept(notes.positions());
        let contextual = rounded(self.contextual, kept).min(kept.saturating_sub(lead));
        let dominant = kept.saturating_sub(contextual + lead);
        let mut ranked: Vec<usize> = (0..patches).collect();
        ranked.sort_by(|a, b| notes.attention[*b].total_cmp(&notes.attention[*a]).then(a.cmp(b)));
        let mut rest = ranked.split_off(dominant);
        rest.sort_unstable();
        let step = rest.len().checked_div(contextual).unwrap_or(0).max(1);
        let is_target = |index: usize| index.is_multiple_of(step) && index / step < contextual;
        let targets: Vec<usize> = (0..rest.len()).filter(|index| is_target(*index)).map(|index| rest[index]).collect();
        let keys = unit_rows(&notes.keys, patches);
        let dim = keys.len() / patches.max(1);
        let key = |patch: usize| &keys[patch * dim..(patch + 1) * dim];
        let similarity = |a: usize, b: usize| key(a).iter().zip(key(b)).map(|(a, b)| a * b).sum::<f64>();
        let nearest = |patch: usize| {
            let mut best: Option<(usize, f64)> = None;
            for &target in &targets {
                let near = similarity(patch, target);
                if best.is_none_or(|(_, most)| near > most) {
                    best = Some((target, near));
                }
            }
            best.map(|(target, _)| target)
        };
        let others = rest.iter().enumerate().filter(|(index, _)| !is_target(*index)).map(|(_, patch)| *patch);
        let place = |patch: usize| (lead + patch) as u32;
        let merged = others.filter_map(|patch| Some((place(patch), place(nearest(patch)?)))).collect();
        let mut going: Vec<u32> = ranked.into_iter().chain(targets.iter().copied()).map(place).collect();
        going.extend(0..lead as u32);
        going.sort_unstable();
        let attention = std::iter::repeat_n(0.0, lead).chain(notes.attention.iter().copied()).collect();
        Chosen { rows: going, merged, attention }
    }
}

/// Rows divided by their lengths; of one without length zeros.
fn unit_rows(rows: &[f32], n: usize) -> Vec<f64> {
    let unit = |row: &[f32]| {
        let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        row.iter().map(|x| if length > 0.0 { f64::from(*x) / length } else { 0.0 }).collect::<Vec<f64>>()
    };
    rows.chunks_exact((rows.len() / n.max(1)).max(1)).flat_map(unit).collect()
}

impl Plans for VisionZip {
    fn check_layers(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn planner(self: Arc<Self>) -> Box<dyn Planner> {
        Box::new(VisionZipPlanner { method: self, record: None })
    }
}

/// VisionZip at work on one sequence.
#[derive(Debug)]
struct VisionZipPlanner {
    method: Arc<VisionZip>,
    /// The importance per layer, if it is to be kept.
    record: Option<Vec<LayerRecord>>,
}

/// Positions of each image of the prompt.
fn images(view: &View<'_>) -> Vec<usize> {
    let mut images = Vec::new();
    for span in view.spans {
        let new = (span.start + span.len).saturating_sub(span.start.max(view.past));
        if let Modality::Image { index, .. } = span.modality
            && new > 0
        {
            images.resize(images.len().max(index + 1), 0);
            images[index] += new;
        }
    }
    images
}

impl Planner for VisionZipPlanner {
    fn needs(&self) -> Needs {
        Needs {
            moments: Moments { images: true, ..Moments::default() },
            lanes: Lanes::PerLayer,
            positions: Positions::True,
            scores: false,
            accumulates: false,
            left: 1.0,
            external: false,
            queries: 0,
            ahead: None,
            rows: false,
            repeats: false,
        }
    }

    fn fork(&self) -> Box<dyn Planner> {
        Box::new(VisionZipPlanner { method: self.method.clone(), record: None })
    }

    fn begin(&mut self, view: &View<'_>) -> Result<Option<usize>> {
        self.growth(view)
    }

    fn growth(&self, view: &View<'_>) -> Result<Option<usize>> {
        let gone: usize = images(view).into_iter().filter(|n| *n > 0).map(|n| n - self.method.kept(n)).sum();
        Ok(Some((view.n - gone) * view.cache.layers()))
    }

    fn queries(&self, _: usize, _: &View<'_>) -> Option<Vec<f32>> {
        None
    }

    fn pictures(&self) -> Option<&dyn Pictures> {
        Some(self.method.as_ref())
    }

    fn plan(&mut self, moment: Moment, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let Moment::Images = moment else { return Ok(()) };
        if let Some(shown) = view.shown.filter(|shown| shown.rows.len() < view.n) {
            plan.rows = Some(shown.rows.iter().map(|row| view.past as u32 + row).collect());
        }
        if let Some(record) = &mut self.record {
            let mut importance = vec![0.0; view.positions()];
            let attention = view.shown.map_or(&[][..], |shown| &shown.attention);
            importance[view.past..].iter_mut().zip(attention).for_each(|(to, of)| *to = *of);
            let layer = LayerRecord { importance, cumulative: None, retained: None };
            *record = vec![layer; view.cache.layers()];
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        // Nothing is freed: no layer gets the others.
        true
    }

    fn record(&mut self) {
        self.record = Some(Vec::new());
    }

    fn take_record(&mut self) -> Option<Record> {
        let layers = self.record.take()?;
        let ranking = "attention from the class token of the vision tower, in the layer whose output is taken";
        Some(Record { score: "class", ranking, mass: false, threshold: None, layers })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Patches with two-dimensional keys at the angles, in degrees.
    fn notes(lead: usize, attention: &[f32], angles: &[f32]) -> Notes {
        // Lengths do not matter.
        let key = |(index, angle): (usize, &f32)| {
            let length = 1.0 + index as f32;
            [length * angle.to_radians().cos(), length * angle.to_radians().sin()]
        };
        Notes { lead, attention: attention.to_vec(), keys: angles.iter().enumerate().flat_map(key).collect() }
    }

    #[test]
    fn the_looked_at_go_on_and_the_rest_is_merged_by_keys() {
        let attention = [0.1, 0.3, 0.05, 0.2, 0.01, 0.02, 0.03, 0.04];
        let angles = [0.0, 0.0, 80.0, 0.0, 10.0, 90.0, 200.0, 45.1];
        let zip = VisionZip { images: 0.5, contextual: 0.5 };
        // Dominant are 1 and 3; of 0, 2, 4, 5, 6, 7 every third takes others: 0 and 5.
        let chosen = zip.choose(&notes(0, &attention, &angles));
        assert_eq!(chosen.rows, [0, 1, 3, 5]);
        assert_eq!(chosen.merged, [(2, 5), (4, 0), (6, 5), (7, 5)]);
        assert_eq!(chosen.attention, attention);
        // A class token is one of the dominant: of 9 positions 5 go on, 3 of them contextual, and one patch.
        let chosen = zip.choose(&notes(1, &attention, &angles));
        assert_eq!(chosen.rows, [0, 1, 2, 4, 6]);
        assert_eq!(chosen.attention[..3], [0.0, 0.1, 0.3]);
        let none = VisionZip { images: 0.5, contextual: 0.0 }.choose(&notes(0, &attention, &angles));
        assert_eq!((none.rows, none.merged), (vec![0, 1, 2, 3], Vec::new()));
    }

    #[test]
    fn the_sizes_are_those_of_the_paper() {
        for (images, kept, contextual) in [(0.3333, 192, 30), (0.2222, 128, 20), (0.1111, 64, 10)] {
            let zip = VisionZip { images, contextual: 0.15625 };
            let attention: Vec<f32> = (0..576).map(|patch| (patch * 7919 % 576) as f32).collect();
            let angles: Vec<f32> = (0..576).map(|patch| (patch * 31 % 360) as f32).collect();
            let chosen = zip.choose(&notes(0, &attention, &angles));
            assert_eq!((zip.kept(576), chosen.rows.len()), (kept, kept));
            assert_eq!(chosen.merged.len(), 576 - kept);
            let mut targets: Vec<u32> = chosen.merged.iter().map(|(_, into)| *into).collect();
            targets.sort_unstable();
            targets.dedup();
            assert!(targets.len() <= contextual);
            assert_eq!(rounded(zip.contextual, kept), contextual);
        }
    }

    proptest! {
        #[test]
        fn every_position_goes_on_or_is_merged_or_dropped(
            patches in prop::collection::vec((0f32..1.0, 0f32..360.0), 1..40), lead in 0usize..2, images in 0f64..=1.0,
            contextual in 0f64..=1.0,
        ) {
            let (attention, angles): (Vec<f32>, Vec<f32>) = patches.into_iter().unzip();
            let zip = VisionZip { images, contextual };
            let notes = notes(lead, &attention, &angles);
            let (chosen, all) = (zip.choose(&notes), notes.positions());
            prop_assert_eq!(chosen.rows.len(), zip.kept(all));
            prop_assert!(chosen.rows.is_sorted_by(|a, b| a < b) && (chosen.rows[chosen.rows.len() - 1] as usize) < all);
            prop_assert!(chosen.merged.is_sorted_by(|a, b| a.0 < b.0));
            for (from, into) in &chosen.merged {
                prop_assert!(!chosen.rows.contains(from) && chosen.rows.contains(into));
            }
            prop_assert!(lead == 0 || chosen.rows[0] == 0);
            let merges = rounded(contextual, zip.kept(all)).min(zip.kept(all) - lead) > 0;
            prop_assert_eq!(chosen.merged.len(), if merges { all - chosen.rows.len() } else { 0 });
        }
    }
}
