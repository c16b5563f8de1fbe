use serde_json::json;

use super::super::bits::{BitsCalibration, Pair};
use super::super::options::Options;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{GROUP, Layered, Quantiser, keys, window};
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "kvtuner",
    title: "KVTuner",
    summary: "stores what stays in bits that every layer has of its own, for keys and for values",
    source: "Li et al. 2025, KVTuner: Sensitivity-Aware Layer-Wise Mixed-Precision KV Cache Quantization, arXiv 2502.04420 (ICML 2025)",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), kvtuner({ calibration: "./bits.json", bits: 4 })]`.
Layers differ in how much they lose to few bits, and keys mostly lose more than values. So each layer has bits of its own for keys and for values, from 8, 4 and 2; 16 leaves them as they are. `pairs` says them by hand, keys first; one pair stands for all layers. Or `model.calibrateBits` finds them, once per model: [cache.md](../cache.md#bits-of-each-layer).

```
sensitivity of a layer in (k, v) bits:  e = |O - O^| / |O|         O: results of its attention, O^: with keys in k and values in v bits
leave to each layer the pairs that no other pair beats in bits and in e
group layers that have the same pairs left and alike e
search the groups' pairs for the front of (mean bits, loss of the whole model on the samples)
```

Codes, groups and the `window` most recent entries are as in [KIVI](kivi.md) with `keys: "channel"`, and as in [int4](int4.md) with `keys: "entry"`. Mean bits count the codes, as in the paper, and not their scales; `memory.effectiveBits` counts everything.

- The sensitivity is measured in one pass per sample: the last 64 queries of a prompt attend to what the cache would hold then, in f32 and, in turn, in each pair of bits. `O` are the results of all heads, `e` is the mean over the samples. Errors do not add up from layer to layer, as in the paper's offline measure.
- The paper clusters layers by DBSCAN. Here the two nearest groups join while the logarithms of the sensitivities of all their layers are within 0.25, and further until there are at most `groups`. The published code has the groups written into it for each model.
- The paper searches with Optuna, seeded by chance. Here every choice is measured where there are at most `trials`; otherwise the search starts from every pair for all layers alike, and from the front that the sensitivities alone would give, and goes on to the neighbours of the front that it has found, until nothing new is there or `trials` are spent. The same samples give the same file.
- Every pair for all layers alike is measured as well, so a point of the table is never worse on the samples than the same bits everywhere.
- The loss is the divergence from the full cache or the likelihood of given answers, over whole answers and through the whole model; the paper takes the accuracy of answers.
- A `keep` in bytes is kept for the layer with the most bits: which layers a method fills is not known before, so no mean would be a bound.
- The authors keep nearly all quality at 3.25 bits for Llama-3.1-8B and at 4.0 bits for Qwen2.5-7B.

On the embedded model (`window: 16`, six scenes with their reference descriptions, 120 trials, 12 minutes on two busy cores) the first layer alone takes most of the loss: with its keys and values in 4 bits and all others in 2, which are 2.2 bits, the divergence on the samples is 0.00013 nats per token for 0.00084 with 2 bits everywhere. On eight scenes that the search has not seen:

| mean bits | divergence | the same bits everywhere, keys/values |
| --- | --- | --- |
| 2 | 0.00082 | 2/2: 0.00082 |
| 2.5 | 0.00039 | |
| 2.8 | 0.00020 | |
| 3 | | 4/2: 0.00017, 2/4: 0.00019 |
| 3.1 | 0.00012 | |
| 4 | 0.000011 | 4/4: 0.000011 |
| 5.6 | 0.0000032 | |
| 6 | | 8/4: 0.0000032, 4/8: 0.0000044 |
| 8 | 0.000000017 | 8/8: 0.000000017 |

So half a bit more halves the loss of 2 bits; at 4 bits and above the layers of this model want the same. With keys per channel its values lose as much as its keys, so what is left to each layer is (2, 4) and (4, 8) and not (4, 2) and (8, 4). Six samples are few: on them the choices look better than on others (2.8 bits: 0.000022), so measure on prompts that the search has not seen.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Bits,
            default: "",
            text: "the bits that model.calibrateBits has found",
        },
        OptionSpec {
            name: "bits",
            kind: OptionKind::Number { least: 2.0, most: 16.0 },
            default: "",
            text: "the most bits of a number, the mean over layers, keys and values: the best of the calibration within them; its last point where it is left out",
        },
        OptionSpec {
            name: "pairs",
            kind: OptionKind::Pairs,
            default: "",
            text: "bits by hand instead: of keys and of values, for each layer or once for all; 8 and 4 for all without a calibration",
        },
        GROUP,
        window("32"),
        keys("\"channel\""),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let name = SPEC.name;
    let (pairs, model) = match options.bits("calibration")? {
        Some(_) if options.given("pairs") => {
            return Err(refuse(format!("{name} takes `calibration` or `pairs`, found both")));
        }
        None if options.given("bits") => {
            return Err(refuse(format!("`bits` of {name} takes from a `calibration`, and there is none")));
        }
        None => (options.pairs("pairs").unwrap_or_else(|| vec![Pair { key: 8, value: 4 }]), None),
        Some(found) => {
            fall_back(options, &found)?;
            found.quantiser.check(name, options.count("group")?, &options.choice("keys")?)?;
            let most = if options.given("bits") { options.number("bits")? } else { f64::INFINITY };
            (found.within(name, most)?, Some(found.model))
        }
    };
    let (quantiser, window) = (Quantiser::of(options)?, options.count("window")?);
    Ok(Stage::Stores(Box::new(Layered { name, quantiser, window, pairs, model })))
}

/// The quantiser of a file, where the request has none of its own.
fn fall_back(options: &mut Options, found: &BitsCalibration) -> Result<()> {
    options.fall_back("group", json!(found.quantiser.group))?;
    options.fall_back("window", json!(found.quantiser.window))?;
    options.fall_back("keys", json!(found.quantiser.keys))
}
