use super::super::budget::Ada;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Window;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "adakv",
    title: "AdaKV",
    summary: "splits each layer over its heads by what the last queries look at",
    source: "Feng et al. 2024, AdaKV, arXiv 2407.11550",
    page: r#"
SnapKV's votes, and sizes per head: the best entries of all heads of a layer together say how many each head keeps. Heads whose attention is spread out get more, heads that look at a few entries less.

```
S_lh[j] as for SnapKV
B_h   = entries of head h among the best of all heads of the layer, as many as keep * N for each head together
B'_h  = (1 - floor) * B_h + floor * keep * N
```

A layer keeps `keep * N` in the mean of its heads, to the entry. Heads really have different lengths: what is freed is memory, where kvpress and the published demonstration mask. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the lowest score goes).

- `B'_h` is rounded by largest remainders, so that the layer is met; the published code rounds each head by itself.
- The window counts as kept entries of each head, and takes at most half of the mean size, as in SnapKV here.
- With grouped queries, votes are averaged over the query heads of a KV head.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        positive("window", "32", "queries that vote, and last entries that are kept; at most half of the size"),
        OptionSpec {
            name: "floor",
            kind: OptionKind::Share,
            default: "0.2",
            text: "the share of an even split that every head gets in any case",
        },
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
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Window { queries, kept: true, pool, size }),
        budget: Box::new(Ada { floor: options.share("floor")? }),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: queries })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
