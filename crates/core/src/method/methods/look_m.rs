use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::{Columns, TextFirst};
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::merge::{Merging, Rule};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "lookM",
    title: "LOOK-M",
    summary: "drops image entries before text, and merges them into the most similar that stay",
    source: "Wan et al. 2024, LOOK-M, arXiv 2406.18139",
    page: r#"
H2O's heavy hitters after the prompt, with every entry of an image behind all text; what goes is not lost but merged into the entry that stays whose key is most like its own.

```
S_lh[j] = sum over all queries i of the prompt of A[l, h, i, j],   images behind all text
k'[i]   = mean of k[i] and of (k[j] + k[i]) / 2 over the dropped j nearest to i by the cosine of keys; values alike
```

All heads have the same size `keep * N`; the last `recentShare` of it are safe. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

- `merge: "pivot"` is the merging above, the paper's best; `"mean"` averages what is merged with the entry itself ([merge](merge.md)); `"none"` drops it.
- In the published code all text stays even where it is more than the size. Here the size is met: where there is more text than that, the text with the least attention goes too.
- Keys are merged as they are stored, rotated to different positions, as in the paper.
- Each head merges by itself. A merging that takes an entry for kept if any head keeps it, as later ports have it, is not the paper's.
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
        choice(
            "merge",
            &["pivot", "mean", "none"],
            "\"pivot\"",
            "how entries that go are merged into those that stay, or not at all",
        ),
        count("sinks", "0", "first entries that are never evicted"),
        PROTECT_TEXT,
        choice("decode", &["none", "oldest"], "\"none\"", "which entry goes while generating: none, or the oldest"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let recent = Recent::Share { share: options.share("recentShare")?, most: usize::MAX };
    let recipe = Box::new(Recipe {
        score: Box::new(TextFirst(Box::new(Columns))),
        budget: Box::new(Uniform),
        protected: parts::protected(options, recent)?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    });
    let merging = match options.choice("merge")?.as_str() {
        "none" => return Ok(Stage::Chooses(recipe)),
        "mean" => Merging { rule: Rule::Mean { weight: 1.0 }, ..Merging::default() },
        _ => Merging { rule: Rule::Pivot, ..Merging::default() },
    };
    Ok(Stage::ChoosesAndRefines(recipe, Box::new(merging)))
}
