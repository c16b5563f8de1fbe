use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::{Mix, Window};
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "mixkv",
    title: "MixKV",
    summary: "mixes importance with diversity, by how alike the keys of a head are",
    source: "Liu et al. 2025, MixKV, arXiv 2510.20707",
    page: r#"
In some heads nearly all keys of an image point the same way: what is important there is there many times. The more alike the keys of a head are, the more it counts that an entry differs from the others.

```
a[j]    = SnapKV's score of j, for j < N - w
v[j]    = |v_j|, scaled to the range 0 to 1 and then to the mean of a
d[j]    = -cos(k_j, m), scaled alike,   m = mean over all k_i / |k_i|
r       = (N |m|^2 - 1) / (N - 1), the mean cosine of two keys
S_lh[j] = (1 - r) * (a[j] + v[j]) + r * d[j]
```

All heads have the same size `keep * N`, the window included. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

- `r` is measured on the prompt itself. The published code reads it from a table per model and head, made from other samples.
- `r` is taken for 0 where it is below: there two keys point apart more often than not.
- With grouped queries, `a` is averaged over the query heads of a KV head.
- Keys are compared as they are held: rotated to their positions, but for a store that keeps them before their rotary embedding.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        positive("window", "32", "queries that vote, and last entries that are kept; at most half of the size"),
        choice("pool", &["max", "mean", "none"], "\"mean\"", "how neighbouring votes are joined"),
        positive("poolSize", "5", "entries of a neighbourhood; odd"),
        count("sinks", "0", "first entries that are never evicted"),
        PROTECT_TEXT,
        choice("decode", &["none", "oldest"], "\"none\"", "which entry goes while generating: none, or the oldest"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let queries = options.count("window")?;
    let (pool, size) = parts::pooling(options)?;
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Mix(Window { queries, kept: true, pool, size })),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: queries })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
