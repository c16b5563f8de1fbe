use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Observed;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "observedAttention",
    title: "Observed attention",
    summary: "keeps what gets the most attention on average from those that see it, per layer and head",
    source: "ObservedAttentionPress of kvpress, after Zhang et al. 2023, H2O, arXiv 2306.14048",
    page: r#"
H2O's sum favours early entries, which more queries can see. Here it is divided by their number.

```
S_lh[j] = (sum over i >= j of A[l, h, i, j]) / (N - j)
```

All heads have the same size `keep * N`. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

- `N - j` is the number of queries that see the entry: where the positions of an image see each other (Gemma 3), that from the first position of the image on.
- With grouped queries, a KV head's score is the mean over its query heads.
- The last entries have been seen by themselves only, so that their mean is high: most of them stay without `recent`.
- In a chat the entries of earlier turns are ranked by the new turn's queries alone.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        count("sinks", "0", "first entries that are never evicted"),
        count("recent", "0", "last entries that are never evicted"),
        PROTECT_TEXT,
        choice("decode", &["none", "oldest"], "\"none\"", "which entry goes while generating: none, or the oldest"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Observed),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(options.count("recent")?))?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
