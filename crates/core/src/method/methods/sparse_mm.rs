use super::super::budget::HeadScores;
use super::super::guard::Recent;
use super::super::heads;
use super::super::options::Options;
use super::super::score::Window;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "sparseMm",
    title: "SparseMM",
    summary: "gives every head of the model as much as it looks at images",
    source: "Wang et al. 2025, SparseMM: Head Sparsity Emerges from Visual Concept Responses in MLLMs, arXiv 2506.05344 (ICCV 2025)",
    page: r#"
Few heads of a model look at images, and those need their entries. So heads are scored once per model by how much they do, and each size follows from the score of its head among those of all layers; within a head SnapKV's votes say which entries stay.

```
s_lh  = score of head h of layer l, from a calibration
w     = min(window, keep * N / 2)
B_lh  = w + ratio * (keep * N - w) + s_lh / sum(s) * (1 - ratio) * (keep * N - w) * heads of all layers
S_lh[j] as for SnapKV
```

The model keeps `keep * N` in the mean of all its heads, to the entry. `model.calibrateHeads({ samples, file })`, or `prefixkv calibrate --method sparseMm`, finds the scores: [cache.md](../cache.md#scores-of-heads).

```
"image-hits":  share of positions at which the head, the first position left out, looks at a position of an image most
"image-mass":  mean attention of the head to positions of images
over the text behind an image among the last `queries` positions of each sample, and then over samples
```

- The paper scores a head while the model reads out words of synthetic documents: a head has a hit when the position that it looks at most lies in the box of the word in the image, and hits count by how small the box is. Samples here have no boxes, so a hit is any position of any image. A head that always looks at the same corner of an image has hits here and few in the paper.
- `"image-hits"` is the default because it counts what the paper counts but for the box; `"image-mass"` tells heads apart that look at images often but never most, and needs fewer samples.
- The first position is left out of a hit, since most heads put most of their attention there when they look for nothing.
- Where a sample has an `answer`, its last positions are of the answer, as the paper scores heads while the model answers.
- Layers are rounded to whole entries first, an entry of a layer being one in each of its heads, and then the heads of each layer, both by largest remainders: the whole is met. The published code rounds each head by itself. No head keeps more than there is: what it cannot take goes to the others by their scores, where the published code keeps less than asked.
- The window takes at most half of the mean size, and of its layer's; each head keeps it in any case.
- With grouped queries, the scores of the query heads of a KV head are summed as in the published code, and votes are averaged.
- Heads really have different lengths: what they do not keep is freed, layer by layer while the prompt is read. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the lowest score goes).
- The file is bound to the model. Layers that read the entries of others, or that have a window beside layers without one, have no scores.
- A file with another measure is taken as well.

On the embedded model, over 30 scenes with their reference descriptions, with scores that were found on the other half of the scenes (`crossFit: 2`), the divergence from the full cache in nats per token; all with `window: 32`, and as many entries:

| `keep` | SnapKV | AdaKV | `sparseMm`, `"image-hits"` | `"image-mass"` | `"copies"` |
| --- | --- | --- | --- | --- | --- |
| 0.5 | 0.143 | 0.197 | 0.062 | 0.096 | 0.293 |
| 0.3 | 0.358 | 0.400 | 0.267 | 0.303 | 0.483 |
| 0.15 | 0.605 | 0.620 | 0.569 | 0.576 | 0.774 |
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Heads,
            default: "",
            text: "the scores of heads that model.calibrateHeads has found",
        },
        OptionSpec {
            name: "ratio",
            kind: OptionKind::Share,
            default: "0.1",
            text: "the part of what is beside the window that all heads get alike",
        },
        positive("window", "32", "queries that vote, and last entries that are kept; at most half of the size"),
        choice("pool", &["max", "mean", "none"], "\"max\"", "how neighbouring votes are joined"),
        positive("poolSize", "7", "entries of a neighbourhood; odd"),
        count("sinks", "0", "first entries that are never evicted"),
        PROTECT_TEXT,
        choice(
            "decode",
            &["none", "lowest-score"],
            "\"none\"",
            "which entry goes while generating: none, or the one with the lowest score",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let queries = options.count("window")?;
    let (pool, size) = parts::pooling(options)?;
    let calibration = options.heads("calibration")?.ok_or_else(|| heads::needed(SPEC.name, "image-hits"))?;
    let even = options.share("ratio")?;
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Window { queries, kept: true, pool, size }),
        budget: Box::new(HeadScores::new(calibration, queries, even)),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: queries })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
