use super::super::budget::{Budget, Calibrated, OfficialPrefix, Prefix};
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::spec::common::{PROTECT_TEXT, choice, count, flag, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage, VARIANT, Variant};
use super::super::{Lanes, Recipe};
use super::parts;
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "prefixkv",
    title: "PrefixKV",
    summary: "gives each layer its own size by one binary search over cumulative importance",
    source: "Wang et al. 2024, PrefixKV, arXiv 2412.03409 (NeurIPS 2025)",
    page: r#"
Each layer has its own distribution of importance: in some a handful of entries holds nearly all attention, in others it is spread over hundreds. PrefixKV keeps in every layer the shortest *prefix* of the entries, sorted by importance, that holds the same share `t` of the layer's importance, and chooses `t` so that the whole has the asked size.

With `A[l, h, i, j]` the attention of query `i` to entry `j`, `N` prompt positions and `L` layers:

```
S_l[j] = sum over queries i of mean over heads h of A[l, h, i, j]
C_l(o) = share of sum(S_l) that the protected entries and the best others, o in all, hold
k_l(t) = least o with C_l(o) >= t
t      = the highest with  sum over l of k_l(t) <= keep * L * N
```

The rest of the asked size goes, entry by entry, to the layer with the least `C_l(k_l)`, so the size is met to the entry and no split of the same size has a higher least retained share. That is the published method; the default splits half of the size evenly, see below. In a layer all heads keep the same entries: the first `sinks`, the last `recent`, and the best of the rest. The first answer token is predicted from the full prompt; then the entries are freed. While generating, layer `l` keeps the share `R_l = k_l / N` of all positions: when a layer has at least one entry too many, one goes, as `decode` says.

**Three variants.** `variant` chooses the defaults of the other options; what you give wins over them.

- `"paper"` is the published method: `S_l` over all queries, and while generating the entry `distance` places before the end of what the prompt has left goes. On the embedded model it does worse than `random` at most sizes (see the results): sums over all queries favour what early positions look at, and the fixed distance frees the last image patches and the question.
- `"official"` is the published code's search, see below.
- `"tuned"`, the default, has a milder split and other parts around it. Half of the whole is split evenly (`floor`), and half by the search, which maximises the sum of what the layers retain (`objective`) instead of the least: where the least decides, a few layers with spread attention take what the others need. `score: "mix"` takes the attention from the last `window` queries, so that what is kept is what the question looks at (as in SnapKV), and adds the size of the value and how little the key is like the others, by MixKV's formula: attention misses what nobody has asked for yet; `pool: "max"` gives every entry before them the highest attention of the `poolSize` around it, so that neighbouring patches stay together (as in SnapKV). While generating, the entry with the lowest score goes; a generated token starts with 0 and collects the attention of those after it, and the last `recent` are safe, though never more than half of what a layer keeps. These were chosen on odd scenes and training pictures of the embedded model by [two searches written down before](../design/prefixkv.md), and are shown on others (see the results); on a model of your own, measure.

**Online and offline.** Without a calibration the search runs per prompt; it needs the scores of all layers, so for the time of the prompt the whole cache is held (`memory.peak`). With a calibration the sizes are known before, every layer is compacted right after its attention, and the peak is what is kept plus one layer. The entries are ranked as when the calibration was made: those published for LLaVA-1.5 come from all queries.

**Several turns.** With `score: "columns"` the scores of what is left are carried on: later queries add to them. With the others each turn ranks all that is left anew, by its own question. `keep` refers to all positions seen.

Deviations from the published code, which `variant: "official"` and `positions: "official"` replay:

- Its configurations miss the asked size by a little (a tolerance of five positions, clipping, rescaling, truncation; each layer rounded by itself). Here the size is met.
- It derives positions while generating from the length of the first layer's cache, so new tokens stand at wrong places. Here every entry keeps its true position.
- With `variant: "paper"`, `sinks` and `recent` are 1 and 1 as there; the paper's `recent_size` is not used by the code.
- `excludeSink`, `protectText`, `pool`, and the scores `mix`, `question`, `window`, `last` and `text` are additions. With `decode: "lowest-score"` and `variant: "paper"` give `recent` some room: new entries start with a score of 0 beside sums over the whole prompt.
- With `score: "mix"` keys are compared as they are held: before their rotary embedding where a store keeps them so, or with `positions` other than `"true"`; else as attention reads them.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        choice(
            "score",
            parts::ATTENTION,
            "\"mix\"",
            "attention from the last `window` queries with the size of the value and the difference of the key (MixKV), from the text among these queries, from all of them, from the last one, from all text of the prompt, or from all queries",
        ),
        positive("window", "32", "queries that count with `score: \"mix\"`, `\"question\"` and `\"window\"`"),
        choice(
            "pool",
            &["max", "mean", "none"],
            "\"max\"",
            "how neighbouring scores are joined, with `score: \"mix\"`, `\"question\"` and `\"window\"`",
        ),
        positive("poolSize", "7", "entries of a neighbourhood; odd"),
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Calibration,
            default: "",
            text: "sizes found before instead of a search per prompt: see model.calibrate. It brings its score along",
        },
        choice(
            "objective",
            parts::OBJECTIVES,
            "\"sum\"",
            "which split is the best: the one with the highest least retained share, the highest sum of them, or the least sum of squares of the lost shares",
        ),
        OptionSpec {
            name: "floor",
            kind: OptionKind::Share,
            default: "0.5",
            text: "the share of an even split that every layer gets in any case",
        },
        choice(
            "decode",
            &["lowest-score", "distance", "none"],
            "\"lowest-score\"",
            "which entry goes while generating: the one with the lowest score, the one at a fixed distance, or none",
        ),
        count("distance", "25", "places before the end of what the prompt has left, for `decode: \"distance\"`"),
        count("sinks", "1", "first entries that are never evicted"),
        count("recent", "8", "last entries that are never evicted; with `variant: \"tuned\"` at most half of the size"),
        PROTECT_TEXT,
        flag("excludeSink", "leave the sinks out of the cumulative importance"),
        choice(
            "positions",
            &["true", "official"],
            "\"true\"",
            "`official` replays the published code's positions while generating",
        ),
        choice(
            VARIANT,
            &["tuned", "paper", "official"],
            "\"tuned\"",
            "other defaults: `paper` is the published method, `official` also replays the published code's search, which misses the asked size by a little",
        ),
    ],
    variants: &[Variant { name: "paper", defaults: PUBLISHED }, Variant { name: "official", defaults: PUBLISHED }],
    build,
};

/// The method as published.
const PUBLISHED: &[(&str, &str)] = &[
    ("score", "\"columns\""),
    ("pool", "\"none\""),
    ("objective", "\"least\""),
    ("floor", "0"),
    ("decode", "\"distance\""),
    ("recent", "1"),
];

fn build(options: &mut Options) -> Result<Stage> {
    let variant = options.choice(VARIANT)?;
    let official = variant == "official";
    let sinks = options.count("sinks")?;
    let recent = options.count("recent")?;
    let exclude = options.flag("excludeSink")?;
    if official && (exclude || options.flag("protectText")?) {
        return Err(refuse("`variant: \"official\"` of prefixkv knows neither `excludeSink` nor `protectText`"));
    }
    if official && (sinks != 1 || recent != 1) {
        return Err(refuse("`variant: \"official\"` of prefixkv has `sinks` 1 and `recent` 1"));
    }
    if official && (options.choice("objective")? != "least" || options.share("floor")? != 0.0) {
        return Err(refuse("`variant: \"official\"` of prefixkv has `objective` \"least\" and `floor` 0"));
    }
    let calibration = options.calibration("calibration")?;
    if let Some(calibration) = &calibration {
        parts::rank_as(calibration, options)?;
    }
    let score = parts::score(options, false)?;
    let budget: Box<dyn Budget> = match calibration {
        Some(calibration) if official && !calibration.published => {
            return Err(refuse(
                "`variant: \"official\"` of prefixkv takes a configuration of the published code, and this calibration is \
                 none; leave one of the two out",
            ));
        }
        Some(calibration) => Box::new(Calibrated(calibration)),
        None if official => Box::new(OfficialPrefix),
        None => Box::new(Prefix {
            excluded: if exclude { sinks } else { 0 },
            objective: parts::objective(options)?,
            floor: options.share("floor")?,
        }),
    };
    let recent = match variant.as_str() {
        "tuned" => Recent::Share { share: 0.5, most: recent },
        _ => Recent::Entries(recent),
    };
    Ok(Stage::Chooses(Box::new(Recipe {
        score,
        budget,
        protected: parts::protected(options, recent)?,
        eviction: parts::eviction(options)?,
        lanes: Lanes::PerLayer,
        positions: parts::positions(options)?,
    })))
}
