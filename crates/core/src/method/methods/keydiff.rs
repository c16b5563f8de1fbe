use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::KeyDiff;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "keydiff",
    title: "KeyDiff",
    summary: "keeps the keys that resemble the others least, per layer and head",
    source: "Park et al. 2025, KeyDiff, arXiv 2504.15364",
    page: r#"
Keys that point where most others do are taken to be redundant. Each head of each layer keeps the entries whose keys differ most from the mean direction of its keys; no attention has to be looked at.

```
S_lh[j] = -cos(k[l, h, j], m[l, h]),   m[l, h] = mean over j of k[l, h, j] / |k[l, h, j]|
```

All heads have the same size `keep * N`. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, or with `decode: "lowest-score"`, the lowest score goes).

- Keys are compared as they are held: rotated to their positions, as in kvpress, but for a store that keeps them before their rotary embedding.
- The paper evicts while blocks of a long prompt are read, against the mean key of what is left. Here the prompt is ranked once, when all of it is there, as kvpress does.
- Where entries go while generating, the score of every new token needs a look at all keys of its lane: as much as attention reads, and on a GPU a transfer of them. Scores of earlier entries stay what they were.
- No window and no sinks by itself; see `recent` and `sinks`.
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
            "which entry goes while generating: none, or the one that resembles the others most",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(KeyDiff),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(options.count("recent")?))?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
