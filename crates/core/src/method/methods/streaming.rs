use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Recency;
use super::super::spec::common::{PROTECT_TEXT, choice, count};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Lanes, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "streaming",
    title: "StreamingLLM",
    summary: "keeps the first entries and the last ones",
    source: "Xiao et al. 2023, StreamingLLM, arXiv 2309.17453",
    page: r#"
Every layer keeps its first `sinks` entries, which soak up attention whatever they hold, and the last ones; in between everything goes, at every step the oldest.

- `positions: "cache"` is the paper's form: keys are stored unrotated and rotated, whenever they are read, to their rank among the entries that are left; the query stands right behind them. So distances never exceed the size of the cache.
- `positions: "true"` (the default, and what most baselines called StreamingLLM do) leaves every entry at its place in the original sequence.
- `decode: "none"` keeps every generated token: the cache is made small once, after the prompt, and grows by each token. That is how kvpress' StreamingLLM works.
- `keep` as a share grows the window with the sequence; `{ tokens: N }` is the paper's constant window.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        count("sinks", "4", "first entries that are never evicted"),
        choice(
            "positions",
            &["true", "cache"],
            "\"true\"",
            "`cache` rotates keys to their rank among the entries that are left",
        ),
        PROTECT_TEXT,
        choice(
            "decode",
            &["oldest", "none"],
            "\"oldest\"",
            "which entry goes while generating: the oldest that is not protected, or none",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Recency),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(1))?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerLayer,
        positions: parts::positions(options)?,
    })))
}
