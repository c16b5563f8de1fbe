use std::ops::Range;
use std::sync::Arc;

use prefixkv_kernels::codec::Codec;
use prefixkv_kernels::codec::{Basis, Dtype, Dual, KvCodec};

use super::super::budget::ModelKey;
use super::super::codebooks::CodebookCalibration;
use super::super::keep::Price;
use super::super::options::Options;
use super::super::plan::{LanePlan, Plan};
use super::super::spec::common::count;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{BLOCK, Encoder, LaneBases, Store, window};
use super::super::view::View;
use super::super::{Method, Positions};
use crate::cache::Shape;
use crate::error::{Error, Result};
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "kvquant",
    title: "KVQuant",
    summary: "stores what stays in levels that a calibration has found, keys before their rotary embedding, outliers apart",
    source: "Hooper et al. 2024, KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization, arXiv 2401.18079",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), kvquant({ calibration: "./codebooks.json" })]`.
Outliers of keys sit in fixed channels, the more so before the rotary embedding mixes pairs of channels. So keys are stored before it, each channel with a range that `model.calibrateKvquant` has found offline, and rotated to their own positions when attention reads them; values have a range per entry. The levels of the codes are not evenly spaced: they are k-means centres, one table for the keys and one for the values of each layer, found offline as well. And of each key and each value of a head the few numbers farthest out lie apart in f16, so that they do not stretch the range.

```
keys:    x' = (x - zero[channel]) / scale[channel]     scale, zero: half of and the middle of the calibrated range
values:  x' = (x - zero) / scale                       of the entry, without the numbers apart, in f16
code = the level nearest to x',   x^ = level[code] * scale + zero,   or the number itself where it lies apart
```

With the paper's share of 1 % a number takes 4.5 bits in keys and 4.75 in values of heads of 128 channels (2.5 and 2.75 with 2 bits). The tables take 8 bytes per channel of the keys and layer, in `memory.metadata`.

`model.calibrateKvquant({ samples, bits, outliers, file })`, or `prefixkv calibrate --method kvquant`, makes the calibration: it reads samples once and is bound to the model. `bits` and `outliers` belong to it.

Choices of this reconstruction, where the paper is silent or where it differs:

- Numbers apart: the paper keeps those beyond calibrated thresholds (keys) or the ends of a vector (values) in a sparse matrix of any shape, 1 % on the whole. Here every key and every value of a head has the same number of them, 1 % of its channels rounded up (2 of 128, 1 of 64), each stored as its channel and its number, 4 bytes: a row has a fixed size, so that entries are freed one by one. Of keys these are the ones farthest from the middle of their channel's range, measured in that range; of values those farthest from their mean.
- The range of a channel covers the numbers that are left when of every calibrated row the ones farthest out, measured in these ranges, lie apart: from the range of all on, up to 8 rounds. The paper takes percentiles per channel; here those would clip rows that have more numbers far out than may lie apart, such as the few positions of text beside an image. A number beyond the range that is not among those apart takes the last level.
- The paper weighs the k-means by Fisher information, squared gradients of the loss. This engine computes no gradients. In their place a position counts as much as the attention that it gets from all queries of its sample, the mean over the heads: an error of a value reaches the result of a query by the weight that the query gives it, one of a key by that weight too. Numbers of one position all count the same, where Fisher information tells channels and numbers apart, so 2 bits can be expected to lose more than the paper's (see below).
- The clusters are Lloyd's, from equal parts of the numbers, over a histogram of 65,536 cells from -1 to 1, so that a calibration needs no more room with more samples.
- Codes of 3 bits are left out: there is no packed dtype of 3 bits here, and in 4 they would save nothing.
- Q-Norm, which shifts 2-bit levels so that mean and deviation stay what they were, is left out.
- On the embedded model (heads of 32; 16 scenes calibrated on, 3 others asked) the mean divergence from the full cache is 8e-6 with 4 bits and 3e-6 with `outliers: 0.05`, where `int4` has 1e-7 in 5 bits; with 2 bits it is 0.05, where `kivi` with 2 has 1e-5. Ranges that hold for all positions are wider than those of 32 neighbours, and the centres leave the ends of a range, where the largest keys are, far from any level: there Fisher information would count. Measure before you take 2 bits.
- `sinks`: 1, the paper's first token in full precision. `window`: 0, as in the paper. Entries are encoded 32 at a time while generating, so up to 31 beyond `window` are in full precision.
- A prompt is attended in full precision before it is stored, the paper's as well.
- On the CPU only, and not behind `positions: "cache"`. A step brings keys and values to f32, so it is slower than in f16 ([figures](../design/codecs.md#keys-before-their-rotary-embedding)). Methods and stages that compare keys see them before their rotary embedding.
- Heads must be a multiple of 8 channels long.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Codebooks,
            default: "",
            text: "the codebooks that model.calibrateKvquant has found",
        },
        count("sinks", "1", "first positions that stay in full precision"),
        window("0"),
    ],
    variants: &[],
    build,
};

/// Bytes of a basis and its place in a lane, beside scales and zeros.
const BASIS: usize = 768;

fn build(options: &mut Options) -> Result<Stage> {
    let Some(calibration) = options.codebooks("calibration")? else {
        return Err(refuse("kvquant needs `calibration`, which model.calibrateKvquant makes"));
    };
    let (sinks, window) = (options.count("sinks")?, options.count("window")?);
    let calibration = Arc::new(calibration);
    Ok(Stage::Stores(Box::new(Kvquant { calibration, sinks, window })))
}

#[derive(Clone, Debug)]
struct Kvquant {
    calibration: Arc<CodebookCalibration>,
    sinks: usize,
    window: usize,
}

impl Store for Kvquant {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        if method.recipe().is_some_and(|recipe| recipe.positions == Positions::Cache) {
            return Err(refuse(format!(
                "kvquant rotates keys to their own positions when they are read, and {} with positions \"cache\" to their ranks; use \
                 positions \"true\"",
                method.name
            )));
        }
        Ok(())
    }

    fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.calibration.check_model(model)
    }

    fn before_rope(&self) -> bool {
        true
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let (dim, calibration) = (shape.head_dim, &self.calibration);
        let (dtype, apart) = (if calibration.bits == 2 { Dtype::U2 } else { Dtype::U4 }, calibration.apart(dim));
        let codec = KvCodec::new(Codec::apart(dtype, apart, true), Codec::apart(dtype, apart, false), Dual::None);
        codec.check(dim).map_err(|reason| refuse(format!("kvquant cannot store {reason}")))?;
        // Scale and zero of every channel, and a basis of each lane.
        let beside = (shape.kv_heads * (dim * 2 * size_of::<f32>() + BASIS)) as u64;
        let price = Price { codec, window: self.window + self.sinks, block: BLOCK, beside };
        Ok(Box::new(Coding { store: self.clone(), price, dim, bases: LaneBases::default() }))
    }
}

/// The store at work on one sequence.
#[derive(Clone, Debug)]
struct Coding {
    store: Kvquant,
    price: Price,
    dim: usize,
    /// The tables.
    bases: LaneBases,
}

impl Coding {
    fn basis(&self, layer: usize, heads: Range<usize>) -> Result<Arc<Basis>> {
        self.bases.of(layer, heads, |heads| {
            let found = self.store.calibration.basis(layer, heads, self.dim)?;
            found.ok_or_else(|| Error::Calibration {
                reason: format!("it has no codebooks of layer {layer}; calibrate this model"),
            })
        })
    }
}

impl Encoder for Coding {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn has_bases(&self) -> bool {
        true
    }

    fn price(&self) -> Option<Price> {
        Some(self.price)
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let Kvquant { sinks, window, .. } = self.store;
        for (index, lane) in view.cache.of(layer).enumerate() {
            if lane.unencoded() < window + BLOCK {
                continue;
            }
            let entries = lane.sorted_unencoded();
            let settled = entries[..entries.len() - window].iter().map(|entry| entry.position);
            let positions: Vec<u32> = settled.filter(|position| *position as usize >= sinks).collect();
            if positions.len() < BLOCK {
                continue;
            }
            let basis = self.basis(layer, lane.heads())?;
            plan.push(LanePlan::encoding_in(layer, index, self.price.codec, Some(basis), positions));
        }
        Ok(())
    }
}
