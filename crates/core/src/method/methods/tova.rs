use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Last;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "tova",
    title: "TOVA",
    summary: "keeps what the newest token looks at, per layer, at every step",
    source: "Oren et al. 2024, Transformers are Multi-State RNNs, arXiv 2401.06104",
    page: r#"
The cache is taken for a state of fixed size: whenever it is full, the entry goes that the newest token looks at least. All heads of a layer share their entries.

```
S_l[j] = mean over h of A[l, h, i, j],   i the newest query
```

All layers have the same size `keep * N`. After the prompt the entries stay that its last position looks at most; while generating, every token's attention replaces the scores, and the lowest goes once a layer has an entry too many.

- The newest entry is safe (`recent: 1`), as in kvpress; in the paper it may go at once, which its attention to itself makes rare.
- With `decode: "none"` it is kvpress' press: once, after the prompt.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        count("sinks", "0", "first entries that are never evicted"),
        count("recent", "1", "last entries that are never evicted"),
        PROTECT_TEXT,
        choice(
            "decode",
            &["lowest-score", "none"],
            "\"lowest-score\"",
            "which entry goes while generating: the one that the newest token looks at least, or none",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Last),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(options.count("recent")?))?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerLayer,
        positions: Positions::True,
    })))
}
