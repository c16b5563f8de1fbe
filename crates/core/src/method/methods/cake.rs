use super::super::budget::{Claimed, Joined};
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Preference;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "cake",
    title: "CAKE",
    summary: "gives layers what their attention prefers, and keeps what the last queries look at or quarrel about",
    source: "Qin et al. 2025, CAKE, arXiv 2503.12491",
    page: r#"
A layer whose attention is dispersed, or shifts from query to query, needs more entries. An entry matters if the last `window` queries look at it, and also if some of them do and others do not.

```
H_l     = - sum over h, the last w queries i and j < N - w of A[l, h, i, j] log A[l, h, i, j]
V_l     = sum over h and j of Var_i A[l, h, i, j]
P_l     = H_l^(1 / tau1) * V_l^(1 / tau2)
B_l     = w + (keep * N - w) * L * P_l / sum over layers of P
S_lh[j] = Mean_i A[l, h, i, j] + gamma * Var_i A[l, h, i, j],   averaged over poolSize neighbours
```

The sizes are met to the entry over all layers; all heads of a layer have its size. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

- The window takes at most half of the mean size, so small sizes work; the published code refuses them.
- With grouped queries, scores are averaged over the query heads of a KV head after pooling, as published (here before it, which is the same).
- The paper frees entries of earlier layers while later ones are still read. Here sizes are settled when the prompt is through, so until then all of it is held.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        OptionSpec {
            name: "window",
            kind: OptionKind::Count { least: 2, most: 4096 },
            default: "32",
            text: "queries that vote, and last entries that are kept; at most half of the mean size",
        },
        OptionSpec {
            name: "gamma",
            kind: OptionKind::Number { least: 0.0, most: 1e6 },
            default: "200",
            text: "how much the variance of an entry's attention counts beside its mean",
        },
        OptionSpec {
            name: "tau1",
            kind: OptionKind::Number { least: 0.05, most: 100.0 },
            default: "1",
            text: "the entropy of a layer counts by the power of 1 over this",
        },
        OptionSpec {
            name: "tau2",
            kind: OptionKind::Number { least: 0.05, most: 100.0 },
            default: "1",
            text: "the variance of a layer counts by the power of 1 over this",
        },
        positive("poolSize", "5", "entries of a neighbourhood; odd"),
        count("sinks", "0", "first entries that are never evicted"),
        PROTECT_TEXT,
        choice("decode", &["none", "oldest"], "\"none\"", "which entry goes while generating: none, or the oldest"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let (window, size) = (options.count("window")?, options.count("poolSize")?);
    if size.is_multiple_of(2) {
        return Err(refuse(format!("`poolSize` of cake must be odd, found {size}")));
    }
    let powers = [1.0 / options.number("tau1")?, 1.0 / options.number("tau2")?];
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Preference { queries: window, gamma: options.number("gamma")?, size }),
        budget: Box::new(Claimed { window, joined: Joined::Product(powers) }),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: window })?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
