use super::super::budget::{Claimed, Joined};
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::PostVision;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "vlCache",
    title: "VL-Cache",
    summary: "keeps what the text behind the image looks at, more in layers whose attention is spread",
    source: "Tu et al. 2024, VL-Cache, arXiv 2410.23317",
    page: r#"
Only the queries behind the last image count (post-vision attention). They rank the entries of each head, and they say how much a layer gets: the more entries its attention is spread over, the more.

```
S_lh[j] = sum over the queries i behind the last image of A[l, h, i, j]
B_l     ~ 1 - gamma_l,   gamma_l = share of A[l, h, i, j], j <= i, below threshold * max_j A[l, h, i, j]
```

The sizes of all layers together are `keep * N` each on average, met to the entry; all heads of a layer have its size. The last entries are safe, `recentShare` of the mean size. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the lowest score goes).

- With grouped queries, a KV head's score is the mean over its query heads (the paper's sum ranks alike).
- A layer's size is at most all of its entries, and what it cannot take goes to the others; the paper cuts off without giving it to anybody, and so misses the whole.
- How spread attention is, is measured on the last `queries` of those behind the image.
- A prompt without an image, or with one at its end, is ranked by its last `queries`.
- The sizes need all layers' attention, so for the time of the prompt all of it is held, as in the paper.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        OptionSpec {
            name: "threshold",
            kind: OptionKind::Share,
            default: "0.01",
            text: "the share of a row's largest probability from which on one counts as attention",
        },
        OptionSpec {
            name: "recentShare",
            kind: OptionKind::Share,
            default: "0.1",
            text: "last entries that are kept, as a share of the mean size",
        },
        positive("queries", "64", "last queries whose attention is looked at for the sizes"),
        count("sinks", "0", "first entries that are never evicted"),
        PROTECT_TEXT,
        choice(
            "decode",
            &["none", "lowest-score"],
            "\"none\"",
            "which entry goes while generating: none, or the one with the lowest score",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let threshold = options.share("threshold")? as f32;
    let recent = Recent::Share { share: options.share("recentShare")?, most: usize::MAX };
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(PostVision { queries: options.count("queries")?, threshold }),
        budget: Box::new(Claimed { window: 0, joined: Joined::Product([1.0; 2]) }),
        protected: parts::protected(options, recent)?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
