use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Columns;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::merge::{Merging, Nearest, Rule};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "elastic",
    title: "Elastic Cache",
    summary: "keeps the anchors of each layer, and merges what goes into the nearest of them",
    source: "Liu et al. 2024, Elastic Cache, arXiv 2407.18121",
    page: r#"
The entries of a layer that have got the most attention are anchors; each of the others is averaged into the anchor nearest to it.

```
S_l[j] = sum over all queries i of the prompt of mean_h A[l, h, i, j]
k'[a]  = mean of k[a] and of k[j] over the dropped j whose nearest anchor is a; values alike
```

All layers have the same size `keep * N`; the first and the last entry are safe. While generating, the entry `distance` places before the end of what the prompt has left goes, as in the paper.

- Of two anchors equally near, the earlier one gets the entry.
- The published code sorts wrongly, so that it does not keep what its formula says, and shifts the entries that it merges. Here the paper's formulas count.
- Keys are merged as they are stored, rotated to different positions, as in the paper.
- `merge: "none"` drops what goes.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        choice(
            "merge",
            &["position", "none"],
            "\"position\"",
            "where entries go that do not stay after the prompt: into the anchor at the nearest position, or nowhere",
        ),
        count("sinks", "1", "first entries that are never evicted"),
        count("recent", "1", "last entries that are never evicted"),
        PROTECT_TEXT,
        choice(
            "decode",
            &["distance", "lowest-score", "none"],
            "\"distance\"",
            "which entry goes while generating: the one at a fixed distance, the one with the lowest score, or none",
        ),
        count("distance", "25", "places before the end of what the prompt has left, for `decode: \"distance\"`"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let recipe = Box::new(Recipe {
        score: Box::new(Columns),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(options.count("recent")?))?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerLayer,
        positions: Positions::True,
    });
    if options.choice("merge")? == "none" {
        return Ok(Stage::Chooses(recipe));
    }
    let merging = Merging { nearest: Nearest::Position, rule: Rule::Mean { weight: 1.0 } };
    Ok(Stage::ChoosesAndRefines(recipe, Box::new(merging)))
}
