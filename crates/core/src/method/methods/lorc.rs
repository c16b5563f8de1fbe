use std::sync::{Arc, OnceLock};

use prefixkv_kernels::codec::{Based, Dual, KvCodec};

use super::super::directions::{Aspect, Directions, Projections};
use super::super::keep::Price;
use super::super::options::Options;
use super::super::plan::{LanePlan, Plan};
use super::super::spec::common::{choice, count};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{BLOCK, Encoder, LaneBases, Store, check_positions, width};
use super::super::view::View;
use super::super::{Lanes, Method};
use crate::cache::Shape;
use crate::error::{Error, Result};
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "lorc",
    title: "LoRC",
    summary: "stores keys and values as fewer numbers, along the directions in which the model's weights put most of them",
    source: "Zhang et al. 2024, LoRC: Low-Rank Compression for LLMs KV Cache with a Progressive Compression Strategy, arXiv 2410.03111",
    page: r#"
A store: it chooses no entries, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), lorc()]`. It needs no calibration.
A key is `k = W x`, and where `W` is nearly of low rank, so are keys. With the singular vectors of the weights in the columns of `U`, the largest first, the cache holds the first `r` coordinates of each head, of values likewise:

```
W = U S V^T,   stored: c = U_r^T k,   read: q . k ~ (U_r^T q) . c,   results: U_r (sum of p c)
```

Queries and results go through `U_r` once per layer and step, whatever the number of entries. The `window` most recent entries stay whole.

Layers keep different shares, from `least` to `most`, since what an early layer loses goes through all that follow: with the condition numbers of the weights, the largest singular value over the smallest,

```
K_l = sum over layers j >= l of (ln cond W_k^j + ln cond W_v^j)
share_l = most (1 - (max K - K_l) / (max K - min K) (1 - least / most))
```

- The paper factors the weights when the model is loaded and computes the coordinates alone. Here the entries of a prompt are computed whole, attended to, and then stored, so that a prompt loses nothing in its own layers, and a product with `U_r^T` is paid for each entry once.
- Each head has directions of its own. `heads: "joint"` takes those of all heads of a layer together, as the paper does, up to 512 channels; then methods with lanes per head do not go with it.
- Keys are stored before their rotary embedding, brought back and rotated whenever they are read, which costs as many products per entry as a head has directions. With `rope: "after"` their directions are those of the weights turned to 4,096 positions, on average, and queries meet the coordinates as they are: faster, and much less exact.
- Weights say where keys could lie, not where those of a text do. On SmolLM2-135M the defaults take the perplexity of a text from 30 to 98 at 0.70 of the bytes, after the rotary embedding to 1,120 ([figures](../../bench/results/2c-amd-epyc-avx2-stores.md)): far more than [int8](int8.md) or [think](think.md) cost for less. The paper's models are fifty times as large.
- The number of coordinates is rounded up to a multiple of 8.
- Weights in blocks count as what their codes stand for. A model that normalises its keys behind the weights is refused.
- The directions are found when the first request asks for them, which waits for it, and are kept: the time grows with the number of weights, and with the third power of the size of a head, or of all heads together. `memory.metadata` counts the ones in use.
- CPU: the CUDA kernels do not read coordinates yet, and refuse.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "most",
            kind: OptionKind::Share,
            default: "0.75",
            text: "the share of a head's coordinates that is stored in the layer that keeps most",
        },
        OptionSpec {
            name: "least",
            kind: OptionKind::Share,
            default: "0.5",
            text: "the share of a head's coordinates that is stored in the layer that keeps least",
        },
        count("window", "32", "most recent entries that stay whole, per layer and head"),
        choice(
            "heads",
            &["each", "joint"],
            "\"each\"",
            "whether each head has directions of its own, or all of a layer have some together",
        ),
        choice(
            "rope",
            &["after", "before"],
            "\"before\"",
            "whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are read",
        ),
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let (most, least) = (options.share("most")?, options.share("least")?);
    if least == 0.0 || least > most {
        return Err(refuse(format!("lorc needs `least` above 0 and at most `most`, found {least} and {most}")));
    }
    let aspect =
        Aspect { joint: options.choice("heads")? == "joint", before_rope: options.choice("rope")? == "before" };
    let window = options.count("window")?;
    Ok(Stage::Stores(Box::new(Lorc { most, least, window, aspect, directions: OnceLock::new() })))
}

#[derive(Debug)]
struct Lorc {
    most: f64,
    least: f64,
    window: usize,
    aspect: Aspect,
    /// Of the model that it is used with.
    directions: OnceLock<Arc<Directions>>,
}

impl Store for Lorc {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        check_positions(SPEC.name, method)?;
        if self.aspect.joint && method.recipe().is_none_or(|recipe| recipe.lanes == Lanes::PerHead) {
            return Err(refuse(format!(
                "`heads: \"joint\"` of lorc stores all heads of an entry together, and {} may keep others for each head; take \
                 `heads: \"each\"`",
                method.name
            )));
        }
        Ok(())
    }

    fn before_rope(&self) -> bool {
        self.aspect.before_rope
    }

    fn prepare(&self, model: &dyn Projections) -> Result<()> {
        if self.directions.get().is_none() {
            // Whoever is first: both are the model's.
            let _ = self.directions.set(model.directions(self.aspect)?);
        }
        Ok(())
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let Some(directions) = self.directions.get().cloned() else {
            return Err(refuse("lorc reads the weights of a model, and there is none here"));
        };
        let Shape { kv_heads, head_dim: dim, format, .. } = *shape;
        let (rows, channels) = if self.aspect.joint { (1, kv_heads * dim) } else { (kv_heads, dim) };
        let shares = directions.shares(self.least, self.most);
        let widths: Vec<usize> = shares.into_iter().map(|share| width(share, channels)).collect();
        let widest = widths.iter().copied().max().unwrap_or(channels);
        let based = Based::of_sizes((rows, widest), (rows, widest))
            .ok_or_else(|| refuse(format!("lorc cannot store {kv_heads} heads of {dim} channels")))?;
        // Orthonormal rows in f32, for keys and for values.
        let beside = Price::of_numbers(kv_heads, 2 * widest * kv_heads * dim);
        let codec = format.codec();
        let price = KvCodec { basis: Some(based), ..codec };
        let encoder = LorcEncoder {
            directions,
            widths: widths.into(),
            window: self.window,
            codec,
            price,
            beside,
            bases: LaneBases::default(),
        };
        Ok(Box::new(encoder))
    }
}

/// LoRC at work on one sequence.
#[derive(Clone, Debug)]
struct LorcEncoder {
    directions: Arc<Directions>,
    /// Coordinates that each layer of the model keeps.
    widths: Arc<[usize]>,
    window: usize,
    /// Without its basis.
    codec: KvCodec,
    /// With the sizes of the widest one.
    price: KvCodec,
    /// Bytes of the bases of a layer, at most.
    beside: u64,
    bases: LaneBases,
}

impl Encoder for LorcEncoder {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn has_bases(&self) -> bool {
        true
    }

    fn price(&self) -> Option<Price> {
        Some(Price { codec: self.price, window: self.window, block: BLOCK, beside: self.beside })
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        for (index, lane) in view.cache.of(layer).enumerate() {
            let settled = lane.unencoded().saturating_sub(self.window);
            // A prompt is stored at once.
            if settled < if view.n > 1 { 1 } else { BLOCK } {
                continue;
            }
            let width = self
                .widths
                .get(layer)
                .copied()
                .ok_or_else(|| Error::Internal(format!("layer {layer} of {} has no width", self.widths.len())))?;
            let basis = self.bases.of(layer, lane.heads(), |heads| self.directions.basis(layer, heads, width))?;
            let oldest = lane.sorted_unencoded().into_iter().take(settled);
            let positions = oldest.map(|entry| entry.position).collect();
            plan.push(LanePlan::encoding_in(layer, index, self.codec, Some(basis), positions));
        }
        Ok(())
    }
}
