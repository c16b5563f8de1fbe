use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Columns;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "h2o",
    title: "H2O",
    summary: "keeps heavy hitters and recent entries, per layer and head",
    source: "Zhang et al. 2023, H2O: Heavy-Hitter Oracle, arXiv 2306.14048",
    page: r#"
Each head of each layer keeps the entries that have got the most attention so far (heavy hitters) and the last ones.

```
S_lh[j] = sum over all queries i so far, of prompt and answer, of A[l, h, i, j]
```

All heads have the same size `k = keep * N`; the last `recentShare * k` entries are safe, the rest are the best by `S`. Every generated token adds its attention to the scores; when a head has one entry too many, the lowest score outside the recent entries goes.

- With grouped queries, a KV head's score is the mean over its query heads.
- The sum is not divided by the number of queries that could see an entry, so early entries are favoured, as in the paper (kvpress' ObservedAttention divides, and is another method).
- Entries keep their true positions.
- The paper's default is 10 % heavy and 10 % recent; here `keep` gives the sum and `recentShare` the split, half and half.
- The "H2O" of the PrefixKV and Elastic Cache repositories is something else: one index set for all layers and heads, chosen by a faulty sort.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        OptionSpec {
            name: "recentShare",
            kind: OptionKind::Share,
            default: "0.5",
            text: "share of what a head keeps that is its last entries",
        },
        count("sinks", "0", "first entries that are never evicted"),
        PROTECT_TEXT,
        choice(
            "decode",
            &["lowest-score", "none"],
            "\"lowest-score\"",
            "which entry goes while generating: the one with the lowest score, or none",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Columns),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Share { share: options.share("recentShare")?, most: usize::MAX })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
