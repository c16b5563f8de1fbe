use super::super::options::Options;
use super::super::sharing::Sharing;
use super::super::spec::common::count;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "kvsharer",
    title: "KVSharer",
    summary: "lets layers read the keys and values of layers before them",
    source: "Yang et al. 2024, KVSharer: Efficient Inference via Layer-Wise Dissimilar KV Cache Sharing, arXiv 2410.18517",
    page: r#"
Some layers hold no entries: each attends with its own queries to the keys and values of a layer before it, while reading the prompt and while generating. It goes before a method, which then sizes the other layers, or stands alone: `cache: [kvsharer({ calibration: "./map.json", layers: 2 }), prefixkv({ keep: 0.4 }), int4()]`.

Which layers, `model.calibrateSharing` finds once per model: [cache.md](../cache.md#layers-that-share). Keys (rotated) and values of every layer are averaged over samples; all pairs of layers are ranked by their distance, the most *dissimilar* first; and a pair is taken where the last hidden states of the samples stay alike:

```
d(a, b) = (|K_a - K_b| + |V_a - V_b|) / 2         K, V: averages over the samples, each one long vector
for a > b in the order of falling d, unless a is shared already:
    take a -> b  if  mean over the samples of cos(hidden, hidden with all pairs so far and this one) > threshold
until so many layers are shared
```

A layer may read one that reads another's: the chain is followed to the one that has entries. `sources: { "6": 2 }` gives a map by hand.

- Of a layer that shares, keys and values are not computed at all: its product has the rows of the queries only, in prompts and steps. The published code computes and drops them. `about().live.rowsShared` counts the positions for which that happens. In a step of several requests with different maps, they are computed if one of the requests needs them.
- The cache class of the published code loses the history of the last layers while generating: it takes a layer for new when its number is not below the number of layers stored. Here generating gives what one pass over the whole text gives.
- `keep` of a method behind it is the share of the entries of layers that hold some; `memory.full` is the cache of the model as it is. Readers no longer see the entries that their source frees.
- The two layers must be of one kind: the same window and the same rotary embedding. Layer 0 always has entries of its own.
- In the published code samples that are shorter than the first are left out of the sums and still counted. Here each position is averaged over the samples that have it.
- On the embedded model of 10 layers the search takes 8 -> 7, then 7 -> 6: the perplexity of the reference descriptions of 52 other scenes is 1.117 with the first and 1.162 with both, for 1.082 without, every object is still described right, and the cache takes 0.91 and 0.81 of its bytes. 2 -> 1, nearly the last in the ranking, costs as much perplexity (1.122) and a tenth of the objects.
- It saves bytes, hardly time: keys and values are 16 % of the weights of a layer with as many KV heads as heads, less with fewer, and a reader reads the entries of its source all the same. Figures are in bench/results.
- `variant: "official"` of the search takes the distance of that code: the L2 norm over the channels of a head, averaged over heads and positions.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Shares,
    options: &[
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Sharing,
            default: "",
            text: "the map that model.calibrateSharing has found",
        },
        count(
            "layers",
            "",
            "how many layers share: the first so many of the calibration, all of them where it is left out",
        ),
        OptionSpec {
            name: "sources",
            kind: OptionKind::Layers,
            default: "",
            text: "a map by hand instead: by the number of a layer that shares, the layer that it reads",
        },
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let name = SPEC.name;
    Ok(Stage::Shares(match (options.sharing("calibration")?, options.layers("sources")) {
        (Some(_), Some(_)) => {
            return Err(refuse(format!("{name} takes `calibration` or `sources`, found both")));
        }
        (None, None) => {
            return Err(refuse(format!(
                "{name} needs `calibration`, which model.calibrateSharing makes, or `sources`, such as {{ \"6\": 2 }}"
            )));
        }
        (None, Some(_)) if options.given("layers") => {
            return Err(refuse(format!("`layers` of {name} takes the first of a `calibration`, and there is none")));
        }
        (None, Some(sources)) => Sharing::by_hand(name, sources)?,
        (Some(found), None) => {
            let layers = if options.given("layers") { Some(options.count("layers")?) } else { None };
            Sharing::found(name, found, layers)?
        }
    }))
}
