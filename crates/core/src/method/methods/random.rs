use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Random;
use super::super::spec::common::{PROTECT_TEXT, count};
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::{Eviction, Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "random",
    title: "Random",
    summary: "keeps entries by chance: what every method must beat",
    source: "",
    page: r#"
Every layer keeps its first and last entries and a random choice of the rest, which depends on `seed`, layer and position only. While generating, an entry that became one too many is drawn the same way.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        count("seed", "0", "the same seed keeps the same entries"),
        count("sinks", "1", "first entries that are never evicted"),
        count("recent", "1", "last entries that are never evicted"),
        PROTECT_TEXT,
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Random { seed: options.count("seed")? as u64 }),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Entries(options.count("recent")?))?,
        eviction: Eviction::LowestScore,
        lanes: Lanes::PerLayer,
        positions: Positions::True,
    })))
}
