use super::super::budget::Pyramid;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Window;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "pyramidkv",
    title: "PyramidKV",
    summary: "keeps what the last queries look at, in sizes that fall from layer to layer",
    source: "Cai et al. 2024, PyramidKV, arXiv 2406.02069",
    page: r#"
SnapKV's votes, and sizes that fall from the first layer to the last in equal steps: early layers spread their attention, late ones look at little.

```
S_lh[j] as for SnapKV
b        = keep * N - w                          entries beside the window, in the mean of the layers
size(l)  = w + first - l * (first - last) / (L - 1),   first = 2 b - b / beta,   last = b / beta
```

Where `first` would be more than there is, it is all there is, and `last` as much more. The whole is met to the entry. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the lowest score goes).

- The published code rounds the step down, so that it keeps up to a tenth more than asked, and is SnapKV where the prompt is shorter than twice the size; kvpress is SnapKV where the last layer would keep less than the window. Here sizes fall at every size.
- The window takes at most half of what a layer keeps, as in SnapKV here.
- With grouped queries, votes are averaged over the query heads of a KV head.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        positive("window", "8", "queries that vote, and last entries that are kept; at most half of the size"),
        positive("beta", "20", "the mean size over the last layer's, beside the window: how steep the pyramid is"),
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
        budget: Box::new(Pyramid { window: queries, beta: options.count("beta")? }),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: queries })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
