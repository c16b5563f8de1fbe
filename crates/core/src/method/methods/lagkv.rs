use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Lag;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "lagkv",
    title: "LagKV",
    summary: "keeps keys and values that stand out from the part behind them, per layer and head",
    source: "Liang et al. 2025, LagKV, arXiv 2504.04704",
    page: r#"
Behind the sinks the prompt is cut into parts of `lag` entries. An entry matters as far as the channels of its key and of its value spread, once each is scaled to the range that it has in the next part; no attention has to be looked at.

```
z[j, c] = (x[j, c] - min over part p+1 of x[., c]) / (max - min)        for j of part p; x are keys, then values
u[j]    = softmax over part p of std over c of z[j, c]
S[j]    = rank of (u_keys[j] + u_values[j]) / 2 within part p, over lag
```

Ranks, not numbers, are compared, so every part keeps the same share. The last whole part and what is behind it have nothing to be compared with and are kept first, as are the sinks; when `keep * N` has no room for all of them, the earlier ones win. All heads have the same size. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

- A prompt shorter than the sinks and two parts keeps its sinks and its last entries, as in kvpress.
- A channel that does not change in the next part counts nothing; the formula divides by 0 there.
- The paper goes on while generating, a part at a time; here, as in kvpress, the prompt is ranked once.
- Keys are compared as they are held: rotated to their positions, but for a store that keeps them before their rotary embedding.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        OptionSpec {
            name: "lag",
            kind: OptionKind::Count { least: 2, most: 1_000_000 },
            default: "128",
            text: "entries of a part",
        },
        count("sinks", "4", "first entries, which belong to no part and are never evicted"),
        PROTECT_TEXT,
        choice("decode", &["none", "oldest"], "\"none\"", "which entry goes while generating: none, or the oldest"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Lag { size: options.count("lag")?, sinks: options.count("sinks")? }),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(0))?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
