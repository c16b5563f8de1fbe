use super::super::budget::{Budget, Pooled, Uniform};
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Reconstruction;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "kvzip",
    title: "KVzip",
    summary: "keeps what the model needs to repeat its prompt, whatever is asked later",
    source: "Kim et al. 2025, KVzip, arXiv 2505.23416",
    page: r#"
The prompt is read a second time behind itself, after the words "Repeat the previous context exactly.". An entry that a query of the repetition looks at much is needed to reconstruct the prompt, and so for any question about it; the rest goes. The rows of the repetition leave no entries.

```
S_lh[j] = max over the queries i of the repetition, and the query heads of h, of A[l, h, i, j]
kept    = the best of all entries of all heads and layers together: one threshold for the model
```

The whole over all layers and heads is met to the entry; with `budget: "uniform"` every head of every layer keeps the same number. Once, after the prompt; while generating nothing is evicted, so the cache grows by every token (with `keep` as a cap, the oldest goes).

- Reading takes twice the products of the prompt and about four times those of attention, as published; scores are computed from queries and keys once more. On a small random model, where attention is most of the work, a prompt of 2048 tokens takes 5.2 times as long as with the full cache.
- The whole prompt is repeated but for its first position, images by their features. The published code leaves the system prompt out, never evicts it, and ends the instruction with the model's template; here `sinks` and `protectText` say what is safe.
- The published code repeats a long prompt in pieces of 2000 tokens, each of which sees its own piece alone; here every query sees all. Up to 2000 tokens this is the same.
- Such prompts are not read in pieces, and prompt and repetition must fit the model's positions: ContextOverflowError says how many are needed.
- With the budget over the whole model all of the prompt is held until its last layer; with `"uniform"` layers are freed one by one.
- In a chat, later prompts are repeated alone: earlier entries are ranked anew, by what that repetition looks at.
- No head is left without an entry.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        choice(
            "budget",
            &["pooled", "uniform"],
            "\"pooled\"",
            "how the whole is split: by one threshold for all heads and layers, or evenly",
        ),
        count("sinks", "4", "first entries that are never evicted"),
        count("recent", "1", "last entries that are never evicted"),
        PROTECT_TEXT,
        choice("decode", &["none", "oldest"], "\"none\"", "which entry goes while generating: none, or the oldest"),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let recent = Recent::Entries(options.count("recent")?);
    let budget: Box<dyn Budget> = match options.choice("budget")?.as_str() {
        "uniform" => Box::new(Uniform),
        _ => Box::new(Pooled),
    };
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Reconstruction),
        budget,
        protected: parts::protected(options, recent)?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
