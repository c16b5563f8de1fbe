use std::sync::Arc;

use prefixkv_kernels::codec::{Based, Codec, Dtype, Dual, KvCodec};

use super::super::Method;
use super::super::budget::ModelKey;
use super::super::keep::Price;
use super::super::latent::{DirectionsSpan, Latent};
use super::super::options::Options;
use super::super::plan::{LanePlan, Plan};
use super::super::spec::common::count;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{BLOCK, Encoder, LaneBases, Store, channels, check_joint, check_positions, width};
use super::super::view::View;
use crate::cache::Shape;
use crate::error::{Error, Result};
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "cskv",
    title: "CSKV",
    summary: "stores keys and values as fewer numbers, along directions that a calibration has found, recent ones whole",
    source: "Wang et al. 2024, CSKV: Training-Efficient Channel Shrinking for KV Cache in Long-Context Scenarios, arXiv 2409.10593",
    page: r#"
A store: it chooses no entries, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), cskv({ calibration: "./directions.json" })]`.
The keys of a head lie mostly in a few directions, its values too. With these in the columns of `U`, the most important ones first, the cache holds the first `r` coordinates:

```
stored: c = U_r^T k,   read: q . R (U_r c),   of values: U_r (sum of p c)
```

Keys are stored before their rotary embedding `R`, brought back and rotated whenever they are read. The `window` most recent entries stay whole: the two branches of the paper. With `bits` the coordinates are stored in codes, of keys 32 entries to a scale, of values up to 32 coordinates.

`model.calibrateCskv({ samples, init, heads, most, file })`, or `prefixkv calibrate --method cskv`, finds the directions and binds them to the model:

```
"covariance":  U S U^T  = sum over the positions of the samples of k k^T
"asvd":        U S V^T  = W diag(m + 1e-6)^alpha,   m[i] = mean over the samples of mean over positions of |x[i]|,   k = W x
```

The first loses the least squares of the samples that so many numbers can lose. The second is where the paper starts, with `alpha` 0.5; `alpha: 0` is a plain SVD. As the published code has it, take `init: "asvd"` and `heads: "joint"`.

On SmolLM2-135M, calibrated on 2,409 positions of texts that it makes up, half of all coordinates, at 0.52 of the bytes, take the perplexity of another text from 30 to 39 with `"covariance"` and to 76 with `"asvd"`; a quarter, at 0.28, to 52 and 127. Directions of all heads together lose less: 34 for half along `"covariance"`. So `"covariance"` is the default; on the embedded model (two scenes calibrated on, another asked) it is the other way round, with a divergence from the full cache of 0.03 for a quarter and 0.002 with `"asvd"`, and next to none for half. In 4 bits half of the coordinates cost no more than whole, at 0.11 of the bytes. But [int4](int4.md) has 30 at 0.19, [turboquant](turboquant.md) in 2 bits 32 at 0.11 ([figures](../../bench/results/2c-amd-epyc-avx2-stores.md)): on so small a model, with heads of 64 channels, directions alone are no bargain. The paper's models are fifty times as large.

- The paper then trains both factors, layer by layer, to give back the keys and values of a subset of the Pile (one epoch, 90 minutes on one A100 for 7 billion parameters), and saves 80 % so on long-context tasks; 95 % with 4 bits that are trained along, where 4 bits without training lost everything. **Nothing is trained here**: expect to keep far more coordinates than the paper for the same answers.
- Training lets the factors differ from each other. Untrained, the first is the transpose of the second, so one matrix is stored of each.
- Each head has directions of its own, so that methods may keep other entries for each. `heads: "joint"` takes those of all heads of a layer together, as the paper does, up to 512 channels; then methods with lanes per head do not go with it.
- The shares are the same for all layers; the number of coordinates is rounded up to a multiple of 8. The published code keeps 0.25 of the keys and 0.75 of the values where one says nothing, its guide 0.5 of both.
- The paper's window slides; here entries leave it 32 at a time, so up to 31 beyond `window` are whole. In codes with scales per coordinate, entries are freed by the group of 32.
- The entries of a prompt are computed whole, attended to, and then stored, so that a prompt loses nothing in its own layers. The paper's prompts are read whole as well.
- Biases of keys and values are part of what lies in the directions of `"covariance"`; `"asvd"` does not see them, and refuses a model that normalises its keys behind the weights.
- A file holds 8 bits of each number, `most` of the directions: 22.4 MB for LLaVA-1.5 7B at the default of 0.5. They are brought to right angles again when they are read, which leaves of the rounding less than 0.0002 of all squares.
- CPU: the CUDA kernels do not read coordinates yet, and refuse.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Directions,
            default: "",
            text: "the directions that model.calibrateCskv has found",
        },
        OptionSpec {
            name: "keys",
            kind: OptionKind::Share,
            default: "0.5",
            text: "the share of the coordinates of keys that is stored",
        },
        OptionSpec {
            name: "values",
            kind: OptionKind::Share,
            default: "0.5",
            text: "the share of the coordinates of values that is stored",
        },
        count("window", "32", "most recent entries that stay whole, per layer and head"),
        OptionSpec {
            name: "bits",
            kind: OptionKind::Choice { values: &["whole", "8", "4"] },
            default: "\"whole\"",
            text: "bits of a code for the coordinates; \"whole\" is the precision of new entries",
        },
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let Some(latent) = options.directions("calibration")? else {
        return Err(refuse("cskv needs `calibration`, which model.calibrateCskv makes"));
    };
    latent.check_span(DirectionsSpan::Layer)?;
    let shares = [options.share("keys")?, options.share("values")?];
    if shares.contains(&0.0) {
        return Err(refuse("`keys` and `values` of cskv must be above 0: entries without coordinates say nothing"));
    }
    let dtype = match options.choice("bits")?.as_str() {
        "8" => Some(Dtype::U8),
        "4" => Some(Dtype::U4),
        _ => None,
    };
    Ok(Stage::Stores(Box::new(Cskv { latent: Arc::new(latent), shares, window: options.count("window")?, dtype })))
}

#[derive(Clone, Debug)]
struct Cskv {
    latent: Arc<Latent>,
    /// Of the coordinates of keys and of values.
    shares: [f64; 2],
    window: usize,
    /// Of codes; None: as new entries are.
    dtype: Option<Dtype>,
}

impl Cskv {
    /// Coordinates of keys and of values, of up to `size`.
    fn widths(&self, size: usize) -> [usize; 2] {
        self.shares.map(|share| width(share, size))
    }

    fn size(&self, kv_heads: usize, dim: usize) -> usize {
        if self.latent.is_joint() { kv_heads * dim } else { dim }
    }
}

impl Store for Cskv {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        check_positions(SPEC.name, method)?;
        if self.latent.is_joint() { check_joint(method) } else { Ok(()) }
    }

    fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.latent.check_model(model)?;
        let Shape { kv_heads, head_dim, .. } = model.shape;
        let (size, rank) = (self.size(kv_heads, head_dim), self.latent.rank());
        match self.widths(size).into_iter().find(|width| *width > rank) {
            Some(width) => Err(Error::Calibration {
                reason: format!(
                    "it has {rank} of {size} directions, and cskv was asked for {width}; take smaller `keys` and `values`, or calibrate \
                     with a larger `most`"
                ),
            }),
            None => Ok(()),
        }
    }

    fn before_rope(&self) -> bool {
        true
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let Shape { kv_heads, head_dim: dim, format, .. } = *shape;
        let widths = self.widths(self.size(kv_heads, dim));
        let codec = match self.dtype {
            None => format.codec(),
            Some(dtype) => {
                let value = Codec::per_entry(dtype, channels(SPEC.name, widths[1], BLOCK)?);
                KvCodec::new(Codec::per_channel(dtype, BLOCK as u16), value, Dual::None)
            }
        };
        let rows = if self.latent.is_joint() { 1 } else { kv_heads };
        let based = Based::of_sizes((rows, widths[0]), (rows, widths[1]))
            .ok_or_else(|| refuse(format!("cskv cannot store {kv_heads} heads of {dim} channels")))?;
        let price = KvCodec { basis: Some(based), ..codec };
        // Orthonormal rows in f32.
        let beside = Price::of_numbers(kv_heads, (widths[0] + widths[1]) * kv_heads * dim);
        let price = Price { codec: price, window: self.window, block: BLOCK, beside };
        Ok(Box::new(Coordinates {
            store: self.clone(),
            shape: *shape,
            widths,
            codec,
            price,
            bases: LaneBases::default(),
        }))
    }
}

/// The store at work on one sequence.
#[derive(Clone, Debug)]
struct Coordinates {
    store: Cskv,
    shape: Shape,
    /// Of keys and of values.
    widths: [usize; 2],
    /// Without its basis.
    codec: KvCodec,
    price: Price,
    bases: LaneBases,
}

impl Encoder for Coordinates {
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
        for (index, lane) in view.cache.of(layer).enumerate() {
            let group = self.codec.group();
            let settled = lane.unencoded().saturating_sub(self.store.window);
            // A prompt is stored at once, as far as it fills groups; in codes a block shares a scale per coordinate.
            if settled < if view.n > 1 { group } else { BLOCK.max(group) } {
                continue;
            }
            let Shape { kv_heads, head_dim, .. } = self.shape;
            let basis = self.bases.of(layer, lane.heads(), |heads| {
                self.store.latent.basis(layer, (heads, kv_heads, head_dim), self.widths)
            })?;
            let oldest = lane.sorted_unencoded().into_iter().take(settled / group * group);
            let positions = oldest.map(|entry| entry.position).collect();
            plan.push(LanePlan::encoding_in(layer, index, self.codec, Some(basis), positions));
        }
        Ok(())
    }
}
