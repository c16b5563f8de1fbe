use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Window;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "snapkv",
    title: "SnapKV",
    summary: "keeps what the last queries of the prompt look at, per layer and head",
    source: "Li et al. 2024, SnapKV, arXiv 2404.14469",
    page: r#"
The last `window` queries of the prompt vote for the entries before them; neighbouring votes are pooled, so that what is kept hangs together. Each head keeps its best entries and the window itself.

```
S_lh[j] = sum over the last w queries i of A[l, h, i, j],  pooled over poolSize neighbours, for j < N - w
```

All heads have the same size `keep * N`, the window included. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the lowest score goes).

- The published code refuses a size below its window. Here the window takes at most half of the size, so small sizes work.
- With grouped queries, votes are averaged over the query heads of a KV head before pooling; the published code keeps entries per query head.
- The window is the end of the prompt: where the question does not come last, it holds little of it.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
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
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Window { queries, kept: true, pool, size }),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: queries })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
