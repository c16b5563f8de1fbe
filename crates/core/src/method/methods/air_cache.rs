use super::super::budget::{Claimed, Joined};
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Elite;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "airCache",
    title: "AirCache",
    summary: "evicts of images only, by the few words that the end of the prompt looks at",
    source: "Huang et al. 2025, AirCache, arXiv 2503.23956",
    page: r#"
An elite of the text ranks the images: the positions that the last one looks at nearly as much as at the one it looks at most. Layers get more where images get much attention (strength), and where few of them get most of it (skewness).

```
E    = text positions j with A[n-1, j] >= threshold * max_j A[n-1, j]
S[v] = mean over i in E of A'[i, v]       A' is attention over the images and E alone
s_l  = sum_v S[v]                         strength
k_l  = N / ((N-1)(N-2)) * sum_v ((S[v] - mean) / deviation)^3, at least 0      skewness over the N image entries
B_l  = text + images' share of the whole * (s_l / mean of s + k_l / mean of k) / 2
```

Text goes only when all of the images have: with less room than the text takes, the text that the end looks at most stays. The sizes of all layers together are `keep * n` each on average, met to the entry; all heads of a layer have its size, and each keeps its own entries. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

No code is public. Choices where descriptions of the paper leave one:

- `keep` counts all positions here, as for every method; the paper's ratio counts those of images.
- Text before an image has not seen it, and the first position draws attention from everywhere: `E` is chosen from the last `queries` positions behind the last image.
- Attention is each head's own. With grouped queries, a KV head's score is the mean over its query heads. Strength and skewness are summed over a layer's KV heads.
- Both are shares of what all layers have together; a negative skewness counts 0, and a factor that no layer has counts the same for all.
- A layer's size is at most all of its entries, and what it cannot take goes to the others.
- A prompt without an image, or with one at its end, keeps what its last `queries` look at, the same number in every layer.
- The sizes need all layers' attention, so for the time of the prompt all of it is held, as in the paper.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        OptionSpec {
            name: "threshold",
            kind: OptionKind::Share,
            default: "0.9",
            text: "the share of the largest attention from which on text is of the elite",
        },
        positive("queries", "128", "last positions behind the image of which the elite is chosen"),
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
    let (queries, threshold) = (options.count("queries")?, options.share("threshold")? as f32);
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Elite { queries, threshold }),
        budget: Box::new(Claimed { window: 0, joined: Joined::Mean }),
        protected: parts::protected(options, recent)?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
