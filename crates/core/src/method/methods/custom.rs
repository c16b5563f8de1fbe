use super::super::budget::{Ada, Budget, Calibrated, Prefix, Pyramid, Uniform};
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::spec::common::{PROTECT_TEXT, choice, count, flag, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::{Eviction, Lanes, Recipe};
use super::parts;
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "custom",
    title: "Custom recipe",
    summary: "any score with any budget, put together from options",
    source: "",
    page: r#"
A method of your own from the parts of the others: what ranks entries (`score`), how the whole is split (`budget`), whether the heads of a layer share their entries (`lanes`), what is never evicted (`sinks`, `recent`, `protectText`) and what goes while generating (`decode`). The other methods are such recipes with the defaults of their papers; `custom({ keep, score: "window", lanes: "head", decode: "none", recent: 32 })` is SnapKV to the entry.

| `score` | what ranks an entry |
| --- | --- |
| `question` | attention from the text among the last `window` queries |
| `window` | attention from the last `window` queries |
| `mix` | attention from the last `window` queries, with the size of the value and the difference of the key from the others (MixKV) |
| `last` | attention from the newest query |
| `text` | attention from all text of the prompt |
| `columns` | attention from all queries |
| `observed` | attention from all queries, over the number of those that could see the entry |
| `key-norm` | the lower the L2 norm of its key, the better |
| `key-diff` | the less its key resembles the mean key, the better |
| `lag` | the more key and value stand out from the next `lag` entries, the better |
| `recency` | the later the better |
| `random` | chance, by `seed` |

| `budget` | how the whole is split |
| --- | --- |
| `uniform` | the same for every layer and head |
| `prefix` | each layer, or each head, retains the same share of its importance (PrefixKV), or what another `objective` says; with `calibration` by sizes found before. Needs a score that is attention |
| `pyramid` | sizes fall from the first layer to the last in equal steps (PyramidKV, arXiv 2406.02069), by `beta` |
| `ada` | layers alike; inside a layer each head gets what it has among the best entries of all heads (AdaKV, arXiv 2407.11550), and at least `floor` of an even split. Needs a score that is attention, and `lanes: "head"` |

While generating, entries go one by one; with `every: 16` a layer grows by 16 tokens and then goes back to its size at once, by the scores that its entries have by then. With a `keep` in entries or bytes it makes room for as many before, for at most half of the size.

`mix`, `key-diff`, `key-norm` and `lag` look at keys as they are held: before their rotary embedding where a store keeps them so, or with `positions: "cache"`; else as attention reads them.

Combinations that make no sense are refused with the reason: see [all of them](combinations.md). A method whose decision is code of your own: see [the guide](../custom.md).
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        choice(
            "score",
            &[
                "question", "window", "mix", "last", "text", "columns", "observed", "key-norm", "key-diff", "lag",
                "recency", "random",
            ],
            "\"question\"",
            "the score that ranks entries",
        ),
        choice(
            "budget",
            &["uniform", "prefix", "pyramid", "ada"],
            "\"uniform\"",
            "how the whole is split over layers and heads",
        ),
        choice(
            "lanes",
            &["layer", "head"],
            "\"layer\"",
            "whether the heads of a layer share their entries or have their own; `\"head\"` by default with `budget: \"ada\"`",
        ),
        choice(
            "decode",
            &["lowest-score", "distance", "oldest", "none"],
            "\"lowest-score\"",
            "which entry goes while generating: the one with the lowest score, the one at a fixed distance, the oldest, or none",
        ),
        positive("every", "1", "generated tokens between two times that entries go, with `decode: \"lowest-score\"`"),
        positive("window", "32", "queries that count with `score: \"question\"`, `\"window\"` and `\"mix\"`"),
        choice(
            "pool",
            &["max", "mean", "none"],
            "\"max\"",
            "how neighbouring scores are joined, with `score: \"question\"` and `\"window\"`",
        ),
        positive("poolSize", "7", "entries of a neighbourhood; odd"),
        OptionSpec {
            name: "lag",
            kind: OptionKind::Count { least: 2, most: 1_000_000 },
            default: "128",
            text: "for `score: \"lag\"`: entries of a part of the prompt",
        },
        count("seed", "0", "for `score: \"random\"`"),
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Calibration,
            default: "",
            text: "for `budget: \"prefix\"`: sizes found before instead of a search per prompt. It brings its score along",
        },
        OptionSpec {
            name: "floor",
            kind: OptionKind::Share,
            default: "0.2",
            text: "for `budget: \"ada\"`, and for `\"prefix\"` where it is given: the share of an even split that every head or layer gets in any case",
        },
        choice(
            "objective",
            parts::OBJECTIVES,
            "\"least\"",
            "for `budget: \"prefix\"`: the split with the highest least retained share, the highest sum of them, or the least sum of squares of the lost shares",
        ),
        positive(
            "beta",
            "20",
            "for `budget: \"pyramid\"`: the mean size over the last layer's, beside the `recent` entries",
        ),
        count("distance", "25", "places before the end of what the prompt has left, for `decode: \"distance\"`"),
        count("sinks", "1", "first entries that are never evicted"),
        count("recent", "8", "last entries that are never evicted, as far as `recentShare` lets them"),
        OptionSpec {
            name: "recentShare",
            kind: OptionKind::Share,
            default: "0.5",
            text: "the most that `recent` takes of what a lane keeps",
        },
        PROTECT_TEXT,
        flag("excludeSink", "for `budget: \"prefix\"`: leave the sinks out of the cumulative importance"),
        choice(
            "positions",
            &["true", "cache"],
            "\"true\"",
            "`cache` rotates keys to their rank among the entries that are left",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let calibration = options.calibration("calibration")?;
    if let Some(calibration) = &calibration {
        parts::rank_as(calibration, options)?;
    }
    let recent = options.count("recent")?;
    let excluded = if options.flag("excludeSink")? { options.count("sinks")? } else { 0 };
    let budget: Box<dyn Budget> = match (options.choice("budget")?.as_str(), calibration) {
        ("prefix", None) => Box::new(Prefix {
            excluded,
            objective: parts::objective(options)?,
            floor: if options.given("floor") { options.share("floor")? } else { 0.0 },
        }),
        ("pyramid", None) => Box::new(Pyramid { window: recent, beta: options.count("beta")? }),
        ("ada", None) => Box::new(Ada { floor: options.share("floor")? }),
        (_, None) => Box::new(Uniform),
        (budget, Some(calibration)) if budget == "prefix" || !options.given("budget") => {
            Box::new(Calibrated(calibration))
        }
        (budget, Some(_)) => {
            return Err(refuse(format!("`calibration` of custom is for the budget \"prefix\", found \"{budget}\"")));
        }
    };
    let lanes = match options.choice("lanes")?.as_str() {
        "head" => Lanes::PerHead,
        _ if budget.name() == "ada" && !options.given("lanes") => Lanes::PerHead,
        _ => Lanes::PerLayer,
    };
    // A window whose own entries all stay takes at most half of what a layer keeps.
    let score = parts::score(options, recent >= options.count("window")?)?;
    Ok(Stage::Chooses(Box::new(Recipe {
        score,
        budget,
        protected: parts::protected(options, Recent::Share { share: options.share("recentShare")?, most: recent })?,
        eviction: match (parts::eviction(options)?, options.count("every")?) {
            (eviction, 1) => eviction,
            (Eviction::LowestScore, every) => Eviction::Together { every, window: None },
            (_, every) => {
                return Err(refuse(format!(
                    "`every` of custom goes with `decode: \"lowest-score\"`, found `every` {every} with another"
                )));
            }
        },
        lanes,
        positions: parts::positions(options)?,
    })))
}
