use super::super::budget::{Claimed, Joined};
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::TextWeighted;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "tgvKv",
    title: "TGV-KV",
    summary: "keeps text first, and of images what the text that matters looks at",
    source: "TGV-KV, arXiv 2606.03075",
    page: r#"
Text guides vision, in three ways: layers whose text looks at the image get more; a query counts as much as later text looks at it; and no text goes before all of the image has.

```
B_l  ~ sum over text queries i and image entries v of A_l[i, v]                    A_l is the mean over the heads
w[i] = mean over text queries k >= i of A_l[k, i]
S[v] = sum over text queries i of w[i] * A_l[i, v]     for entries of images
S[t] = sum over text queries i of A_l[i, t]            for text, which comes before all images
```

All heads of a layer share their entries. The sizes of all layers together are `keep * N` each on average, met to the entry. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

- Text that stands before an image cannot look at it. Of the text behind the last image, the last `queries` positions count for `w` and for the sizes.
- A layer's size is at most all of its entries, and what it cannot take goes to the others; the paper does not say.
- A prompt without an image, or with one at its end, keeps what all text looks at, the same in every layer.
- The sizes need all layers' attention, so for the time of the prompt all of it is held.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        positive("queries", "128", "last positions behind the image that count"),
        count("sinks", "0", "first entries that are never evicted"),
        count("recent", "1", "last entries that are never evicted"),
        PROTECT_TEXT,
        choice("decode", &["none", "oldest"], "\"none\"", "which entry goes while generating: none, or the oldest"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let recent = Recent::Entries(options.count("recent")?);
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(TextWeighted { queries: options.count("queries")? }),
        budget: Box::new(Claimed { window: 0, joined: Joined::Product([1.0; 2]) }),
        protected: parts::protected(options, recent)?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerLayer,
        positions: Positions::True,
    })))
}
