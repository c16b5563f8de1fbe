use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::normal::Ahead;
use super::super::options::Options;
use super::super::score::Expected;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "expectedAttention",
    title: "Expected Attention",
    summary: "keeps what tokens to come are expected to look at, per layer and head",
    source: "Devoto et al. 2025, Expected Attention, arXiv 2510.00636",
    page: r#"
No attention of the prompt is looked at. The queries of tokens to come are taken to be distributed as those of the prompt, normally, and for such queries `q` the mean of `exp(q k)` has a formula.

```
mu, C = mean and covariance of the prompt's queries before their rotary embedding, without those of the sinks
R     = mean of the rotations of the `ahead` positions behind the prompt
z[j]  = (R mu) . k[j] / sqrt(d) + k[j] . (R C R^T) k[j] / (2 d)
S[j]  = (mean over the query heads of the group of softmax over j of z[j] + epsilon) * |v[j]|
```

Sinks stand outside the softmax and are never evicted. All heads have the same size. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

- Formula and defaults are those of kvpress, whose authors are the paper's own.
- In a conversation the queries are those of the newest message, and all entries that are left are ranked anew.
- Of the queries only their mean and the sums of their products are kept, `query heads * head size * (head size + 1)` numbers in f32 for a layer: one layer at a time, or all of them where a prompt is read in pieces.
- A model that caps its attention scores is ranked as if it did not: the mean has no formula then.
- Stores with keys before their rotary embedding are refused: the score needs keys as attention reads them.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        OptionSpec {
            name: "ahead",
            kind: OptionKind::Count { least: 1, most: 65_536 },
            default: "512",
            text: "positions behind the prompt over which rotations are averaged",
        },
        OptionSpec {
            name: "covariance",
            kind: OptionKind::Flag,
            default: "true",
            text: "whether the covariance of the queries counts, or their mean alone",
        },
        OptionSpec {
            name: "values",
            kind: OptionKind::Flag,
            default: "true",
            text: "whether the norm of the value counts",
        },
        OptionSpec {
            name: "epsilon",
            kind: OptionKind::Number { least: 0.0, most: 1.0 },
            default: "0",
            text: "added to the expected attention before the norm of the value counts",
        },
        count("sinks", "4", "first entries, which are never evicted and whose queries do not count"),
        PROTECT_TEXT,
        choice("decode", &["none", "oldest"], "\"none\"", "which entry goes while generating: none, or the oldest"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let ahead = Ahead {
        positions: options.count("ahead")?,
        sinks: options.count("sinks")?,
        covariance: options.flag("covariance")?,
    };
    let score = Expected { ahead, values: options.flag("values")?, epsilon: options.number("epsilon")? as f32 };
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(score),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(0))?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
