use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::{Chunks, Pooling, Window};
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "chunkkv",
    title: "ChunkKV",
    summary: "keeps whole chunks of neighbouring entries that the last queries look at, per layer",
    source: "Liu et al. 2025, ChunkKV, arXiv 2502.00299",
    page: r#"
Meaning hangs on phrases, not on single tokens: the prompt is cut into chunks of `chunk` entries, and whole chunks stay or go. A chunk's score is the mean attention that its entries have got from the last `window` queries.

```
S_l[j] = mean over the entries k of the chunk of j of sum over the last w queries i of mean_h A[l, h, i, k]
```

All heads of a layer share their entries, and all layers have the same size `keep * N`, met to the entry: of the last chunk that stays, the first entries. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the lowest score goes).

- The window itself is safe, and takes at most half of the size.
- kvpress keeps a whole number of chunks, and at least one.
- The reuse of indices over several layers, which the paper adds to save time, is left out: here ranking costs little.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        positive("chunk", "20", "entries of a chunk"),
        positive("window", "32", "queries that vote, and last entries that are kept; at most half of the size"),
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
    let of = Box::new(Window { queries, kept: true, pool: Pooling::None, size: 1 });
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Chunks { of, size: options.count("chunk")? }),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: queries })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerLayer,
        positions: Positions::True,
    })))
}
