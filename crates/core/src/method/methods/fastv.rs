use std::sync::Arc;

use super::super::options::Options;
use super::super::plan::{Moment, Plan};
use super::super::planner::{Moments, Needs, Planner, Plans};
use super::super::spec::common::positive;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::trace::{LayerRecord, Record};
use super::super::view::{ReadLane, View};
use super::super::{Lanes, Positions};
use crate::cache::Modality;
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "fastv",
    title: "FastV",
    summary: "ends the way of image positions that get little attention after the first layers",
    source: "Chen et al. 2024, An Image is Worth 1/2 Tokens After Layer 2, arXiv 2403.06764",
    page: r#"
The first `layer` layers read the whole prompt. In the last of them, the positions of images are ranked by the attention that they get from the last position of the prompt, the mean over the heads, and the best go on, a share `images` of them, with all text. Later layers compute nothing for the others and hold no entries of them: the prompt is read faster, and the cache is smaller.

```
S[j] = mean_h A[h, n - 1, j]     in layer `layer`, for j that show an image
```

- The defaults are those of the paper: half of the image positions after two layers.
- Positions stay true: those that go on are rotated to their places in the prompt, as in the published code.
- Entries of the first layers and generated tokens are never evicted, so `memory` is what comes out.
- A prompt without images is read whole. Of a chat's later prompts, their own images are ranked.
- Such prompts are not read in pieces: later layers would have seen the rows of earlier pieces.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Chooses,
    options: &[
        positive("layer", "2", "layers that read the whole prompt"),
        OptionSpec {
            name: "images",
            kind: OptionKind::Share,
            default: "0.5",
            text: "the share of image positions that later layers see",
        },
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let (layer, images) = (options.count("layer")?, options.share("images")?);
    Ok(Stage::Plans(Arc::new(FastV { layer, images })))
}

#[derive(Debug)]
struct FastV {
    /// Layers that see the whole prompt.
    layer: usize,
    images: f64,
}

impl Plans for FastV {
    fn check_layers(&self, layers: usize) -> Result<()> {
        if self.layer >= layers {
            return Err(refuse(format!(
                "`layer` of fastv leaves no layer to save: it is {}, and the model has {layers} layers",
                self.layer
            )));
        }
        Ok(())
    }

    fn planner(self: Arc<Self>) -> Box<dyn Planner> {
        Box::new(FastVPlanner { method: self, record: None })
    }
}

/// FastV at work on one sequence.
#[derive(Debug)]
struct FastVPlanner {
    method: Arc<FastV>,
    /// The importance per layer, if it is to be kept.
    record: Option<Vec<LayerRecord>>,
}

impl FastV {
    /// How many of the prompt's positions show an image, and how many of them go on.
    fn images(&self, view: &View<'_>) -> (usize, usize) {
        let all = image_positions(view).count();
        (all, ((self.images * all as f64 + 0.5).floor() as usize).min(all))
    }
}

/// The positions of the prompt that show an image, but for its last one: what follows comes from that.
fn image_positions<'a>(view: &View<'a>) -> impl Iterator<Item = usize> + 'a {
    let (past, last) = (view.past, view.positions() - 1);
    let images = view.spans.iter().filter(|span| matches!(span.modality, Modality::Image { .. }));
    images.flat_map(|span| span.start..span.start + span.len).filter(move |position| (past..last).contains(position))
}

impl Planner for FastVPlanner {
    fn needs(&self) -> Needs {
        Needs {
            moments: Moments { layer: true, ..Moments::default() },
            lanes: Lanes::PerLayer,
            positions: Positions::True,
            scores: false,
            accumulates: false,
            left: 1.0,
            external: false,
            queries: 0,
            ahead: None,
            rows: true,
            repeats: false,
        }
    }

    fn fork(&self) -> Box<dyn Planner> {
        Box::new(FastVPlanner { method: self.method.clone(), record: None })
    }

    fn begin(&mut self, view: &View<'_>) -> Result<Option<usize>> {
        self.growth(view)
    }

    fn growth(&self, view: &View<'_>) -> Result<Option<usize>> {
        let (images, kept) = self.method.images(view);
        let later = view.cache.layers().saturating_sub(self.method.layer);
        Ok(Some(view.n * view.cache.layers() - (images - kept) * later))
    }

    fn asks_question(&self) -> bool {
        true
    }

    fn queries(&self, layer: usize, view: &View<'_>) -> Option<Vec<f32>> {
        (layer + 1 == self.method.layer).then(|| {
            let mut weights = vec![0.0; view.n];
            weights[view.n - 1] = 1.0;
            weights
        })
    }

    fn plan(&mut self, moment: Moment, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let Moment::Layer(layer) = moment else { return Ok(()) };
        let sums = view.sums(layer);
        let mut importance = vec![0.0; view.positions()];
        for entry in view.cache.of(layer).flat_map(<dyn ReadLane>::sorted) {
            let all = sums.iter().map(|sums| sums.get(entry.place as usize).copied().unwrap_or(0.0));
            importance[entry.position as usize] = all.sum::<f32>() / sums.len().max(1) as f32;
        }
        if layer + 1 == self.method.layer {
            let (images, kept) = self.method.images(view);
            let mut ranked: Vec<usize> = image_positions(view).collect();
            ranked.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]).then(a.cmp(b)));
            let mut gone = ranked.split_off(kept);
            gone.sort_unstable();
            if kept < images {
                let all = view.past..view.positions();
                let rows = all.filter(|position| gone.binary_search(position).is_err());
                plan.rows = Some(rows.map(|position| position as u32).collect());
            }
        }
        if let Some(record) = &mut self.record {
            record.push(LayerRecord { importance, cumulative: None, retained: None });
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        // Nothing is freed: later layers never get the rows.
        true
    }

    fn record(&mut self) {
        self.record = Some(Vec::new());
    }

    fn take_record(&mut self) -> Option<Record> {
        let layers = self.record.take()?;
        let ranking = "attention from the last position of the prompt, in the last layer that reads all of it";
        Some(Record { score: "last", ranking, mass: false, threshold: None, layers })
    }
}
