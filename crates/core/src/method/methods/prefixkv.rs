use super::super::budget::{Budget, Calibrated, OfficialPrefix, Prefix};
use super::super::options::Options;
use super::super::score::{Columns, Pool, Score, Text, Window};
use super::super::select::{Guard, Recent};
use super::super::spec::common::{PROTECT_TEXT, choice, count, flag, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec};
use super::super::{Eviction, Lanes, Positions, Recipe};
use crate::error::Result;
use crate::fields::refuse;

const SCORES: &[&str] = &["columns", "window", "text"];

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

What is left below the asked size goes, entry by entry, to the layer with the least `C_l(k_l)`, so the size is met to the entry and no split of the same size has a higher least retained share. In a layer all heads keep the same entries: the first `sinks`, the last `recent`, and the best of the rest. The first answer token is predicted from the full prompt; then the entries are freed.

While generating, layer `l` keeps the share `R_l = k_l / N` of all positions. When a layer has at least one entry too many, one goes: with `decode: "distance"` the one `distance` places before the end of what the prompt has left, as published.

**Online and offline.** Without a calibration the search runs per prompt; it needs the scores of all layers, so for the time of the prompt the whole cache is held (`memory.peak`). With a calibration the sizes are known before, every layer is compacted right after its attention, and the peak is what is kept plus one layer.

**Several turns.** The scores of what is left are carried on: later queries add to them. `keep` refers to all positions seen.

Deviations from the published code, which `variant: "official"` and `positions: "official"` replay:

- Its configurations miss the asked size by a little (a tolerance of five positions, clipping, rescaling, truncation; each layer rounded by itself). Here the size is met.
- It derives positions while generating from the length of the first layer's cache, so new tokens stand at wrong places. Here every entry keeps its true position.
- `sinks` and `recent` are 1 and 1 there and here; the paper's `recent_size` is not used by the code.
- The fixed distance is not kind to what matters: on the embedded model `decode: "none"` has a far better perplexity at the same size after the prompt, because the entries before the end of the prompt are the last image patches and the question. With `decode: "lowest-score"` give `recent` some room: new entries start with a mark of 0 beside sums over the whole prompt.
- `excludeSink`, `protectText`, and the scores `window` and `text` are additions. On the embedded model the column sums are the weak half of the method: the same budgets over last-window scores give a better perplexity (see the results).
"#,
    budget: BudgetKind::Exact,
    options: &[
        choice(
            "score",
            SCORES,
            "\"columns\"",
            "attention from all queries, from the last `window`, or from the prompt's text only",
        ),
        positive("window", "32", "queries that count with `score: \"window\"`"),
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Calibration,
            default: "",
            text: "sizes found before instead of a search per prompt: see model.calibrate",
        },
        choice(
            "decode",
            &["distance", "lowest-score", "none"],
            "\"distance\"",
            "which entry goes while generating: the one at a fixed distance, the one with the lowest score, or none",
        ),
        count("distance", "25", "places before the end of what the prompt has left, for `decode: \"distance\"`"),
        count("sinks", "1", "first entries that are never evicted"),
        count("recent", "1", "last entries that are never evicted"),
        PROTECT_TEXT,
        flag("excludeSink", "leave the sinks out of the cumulative importance"),
        choice(
            "positions",
            &["true", "official"],
            "\"true\"",
            "`official` replays the published code's positions while generating",
        ),
        choice(
            "variant",
            &["paper", "official"],
            "\"paper\"",
            "`official` replays the published code's search, which misses the asked size by a little",
        ),
    ],
    build,
};

fn build(options: &mut Options) -> Result<Option<Recipe>> {
    let sinks = options.count("sinks")?;
    let ranking = options.choice("score")?;
    let score: Box<dyn Score> = match ranking.as_str() {
        "window" => Box::new(Window { queries: options.count("window")?, kept: false, pool: Pool::None, size: 1 }),
        "text" => Box::new(Text),
        _ => Box::new(Columns),
    };
    let official = options.choice("variant")? == "official";
    let exclude = options.flag("excludeSink")?;
    let budget: Box<dyn Budget> = match options.calibration("calibration")? {
        Some(calibration) if official && !calibration.published => {
            return Err(refuse(
                "`variant: \"official\"` of prefixkv takes a configuration of the published code, and this calibration is \
                 none; leave one of the two out",
            ));
        }
        Some(calibration) => {
            calibration.check_score(&ranking, SCORES)?;
            Box::new(Calibrated(calibration))
        }
        None if official => Box::new(OfficialPrefix),
        None => Box::new(Prefix { excluded: if exclude { sinks } else { 0 } }),
    };
    if official && (exclude || options.flag("protectText")?) {
        return Err(refuse("`variant: \"official\"` of prefixkv knows neither `excludeSink` nor `protectText`"));
    }
    if official && (sinks != 1 || options.count("recent")? != 1) {
        return Err(refuse("`variant: \"official\"` of prefixkv has `sinks` 1 and `recent` 1"));
    }
    Ok(Some(Recipe {
        score,
        budget,
        guard: Guard { sinks, recent: Recent::Entries(options.count("recent")?), text: options.flag("protectText")? },
        eviction: match options.choice("decode")?.as_str() {
            "none" => Eviction::Never,
            "lowest-score" => Eviction::LowestScore,
            _ => Eviction::Distance(options.count("distance")?),
        },
        lanes: Lanes::PerLayer,
        positions: match options.choice("positions")?.as_str() {
            "official" => Positions::Official,
            _ => Positions::True,
        },
    }))
}
