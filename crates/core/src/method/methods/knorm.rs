use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::KeyNorm;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "knorm",
    title: "L2 norm",
    summary: "keeps the keys with the lowest L2 norm, per layer and head",
    source: "Devoto et al. 2024, A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression, arXiv 2406.11430",
    page: r#"
Keys with a low L2 norm tend to get high attention. Each head of each layer keeps the entries whose keys have the lowest norms; no attention has to be looked at.

```
S_lh[j] = -|| K[l, h, j] ||
```

All heads have the same size `keep * N`. Once, after the prompt, as in kvpress; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, or with `decode: "lowest-score"`, the highest norm goes).

- Rotation keeps norms, so it does not matter whether keys are taken before or after it.
- The paper is said to leave the first two layers alone; that could not be checked in its text, and the code of kvpress does not. Here all layers are treated alike.
- No window and no sinks by itself; see `recent` and `sinks`. Evicting while generating without `recent` does great harm on the embedded model: the keys of new tokens have high norms, and they go at once.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        count("sinks", "0", "first entries that are never evicted"),
        count("recent", "0", "last entries that are never evicted"),
        PROTECT_TEXT,
        choice(
            "decode",
            &["none", "lowest-score"],
            "\"none\"",
            "which entry goes while generating: none, or the one with the highest norm",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(KeyNorm),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(options.count("recent")?))?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
