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
    name: "headKv",
    title: "HeadKV",
    summary: "gives every head of the model as much as it fetches from earlier text",
    source: "Fu et al. 2024, Not All Heads Matter: A Head-Level KV Cache Compression Method with Integrated Retrieval and Reasoning, arXiv 2410.19258 (ICLR 2025)",
    page: r#"
Heads that fetch what stood earlier, retrieval heads, need their entries more than others. So heads are scored once per model by how much they do, and each size follows from the score of its head among those of all layers; within a head SnapKV's votes say which entries stay.

```
s_lh  = score of head h of layer l, from a calibration
w     = min(window, keep * N / 2)
B_lh  = w + (1 - 1 / beta) * (keep * N - w) + s_lh / sum(s) * (keep * N - w) / beta * heads of all layers
S_lh[j] as for SnapKV
```

So each head gives `1 / beta` of what it has beside the window to a pool of the model. The model keeps `keep * N` in the mean of all its heads, to the entry. `model.calibrateHeads({ samples, measure: "copies", file })`, or `prefixkv calibrate --method headKv`, finds the scores: [cache.md](../cache.md#scores-of-heads).

```
"copies":  attention of the head, as far as it is among its 20 most attended positions, to earlier text with the token that comes next
over the last `queries` positions of each sample whose next token is in its text before, and then over samples
```

- The paper puts a needle (a made-up fact, with what is to be inferred from it) into long texts, and scores a head, token by token of the answer, by its attention to the needle as far as that is among its most attended positions, as many as the needle has tokens. Samples here are any prompts and there is no needle: what a position copies is any earlier text that holds its next token. The inference of the paper's needles, where the attended text is not what is said next, is not measured.
- The needles of the published code have about 20 tokens, hence 20 positions. Its plain retrieval heads are scored by the most attended position alone.
- A sample should end with text that repeats some of its beginning, or have such an `answer`: positions whose next token is new say nothing. Positions of images hold no token.
- The scripts of the authors try eight values of `beta` from 1.005 to 10 and take the best; 1.5 is the default of their program. The pool is smaller for a larger `beta`, where their README says larger.
- The published code rounds `(keep * N - w) / beta` down, and has a `temp`, the power of the scores, which is 1 in all its scripts and left out here.
- Layers are rounded to whole entries first, an entry of a layer being one in each of its heads, and then the heads of each layer, both by largest remainders: the whole is met. The published code rounds each head by itself. No head keeps more than there is: what it cannot take goes to the others by their scores, where the published code keeps less than asked.
- The window takes at most half of the mean size, and of its layer's; each head keeps it in any case.
- With grouped queries, the scores of the query heads of a KV head are summed, while the published code repeats keys and values for each query head, and votes are averaged.
- Heads really have different lengths: what they do not keep is freed, layer by layer while the prompt is read. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the lowest score goes).
- The file is bound to the model. Layers that read the entries of others, or that have a window beside layers without one, have no scores.
- A file with another measure is taken as well.

On the embedded model, over 30 scenes with their reference descriptions, with scores that were found on the other half of the scenes (`crossFit: 2`), the divergence from the full cache in nats per token; all with `window: 8`, and as many entries:

| `keep` | SnapKV | AdaKV | `headKv` |
| --- | --- | --- | --- |
| 0.5 | 0.038 | 0.053 | 0.062 |
| 0.3 | 0.129 | 0.162 | 0.208 |
| 0.15 | 0.472 | 0.538 | 0.679 |

So here an even split does better: descriptions of scenes come from the image, and heads that copy text are not those that they need.
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
            name: "beta",
            kind: OptionKind::Number { least: 1.0, most: 1000.0 },
            default: "1.5",
            text: "every head gives 1 / beta of what is beside the window to the pool that scores share out",
        },
        positive("window", "8", "queries that vote, and last entries that are kept; at most half of the size"),
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
    let calibration = options.heads("calibration")?.ok_or_else(|| heads::needed(SPEC.name, "copies"))?;
    let even = 1.0 - 1.0 / options.number("beta")?;
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Window { queries, kept: true, pool, size }),
        budget: Box::new(HeadScores::new(calibration, queries, even)),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: queries })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
