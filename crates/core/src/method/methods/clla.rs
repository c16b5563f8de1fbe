use std::sync::Arc;

use prefixkv_kernels::codec::{Basis, Codec, Dtype, Dual, KvCodec};

use super::super::budget::ModelKey;
use super::super::keep::Price;
use super::super::latent::{DirectionsSpan, Latent, PARTS};
use super::super::options::Options;
use super::super::plan::{Join, LanePlan, Plan};
use super::super::spec::common::count;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{Encoder, LaneBases, Pairs, Store, alone, channels, check_joint, check_positions, least};
use super::super::view::View;
use super::super::{Keep, Method};
use crate::cache::{Common, Shape};
use crate::error::{Error, Result};
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "clla",
    title: "CLLA",
    summary: "stores the keys and values of two neighbouring layers as one latent, which a calibration has found, recent ones whole",
    source: "Yang et al. 2024, Lossless KV Cache Compression to 2%, arXiv 2410.15252",
    page: r#"
A store: it chooses no entries, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), clla({ calibration: "./latents.json" })]`.
Layers are taken two by two. At a position the keys and values of a head in both layers are one long vector, which lies mostly in a few directions. With these in the columns of `U`, the most important ones first, the cache holds the first `r` coordinates, once for both layers, and each of them reads its keys and values by its own rows of `U`:

```
x = [k_a / s_1, v_a / s_2, k_b / s_3, v_b / s_4]      a, b: the two layers; s: root mean squares over the samples
stored once: c = U_r^T x
read:  k_a = s_1 U_r[1] c,  v_a = s_2 U_r[2] c,  k_b = s_3 U_r[3] c,  v_b = s_4 U_r[4] c
```

Keys are those before their rotary embedding, brought back and rotated whenever they are read. The `window` most recent entries stay whole. With `bits` the latent is stored in codes, up to 32 coordinates to a scale.

`model.calibrateClla({ samples, heads, most, file })`, or `prefixkv calibrate --method clla`, finds the directions, the eigenvectors of the sum over the samples of `x x^T`, and binds them to the model. So any model of the Llama kind runs without being trained.

On SmolLM2-135M, calibrated on 2,409 positions of texts that it makes up, half of all numbers, at 0.52 of the bytes of keys and values, take the perplexity of another text from 30.3 to 35.3; a quarter, at 0.28, to 42.7; half in 4 bits, at 0.115, to 35.3 ([figures](../../bench/results/2c-amd-epyc-avx2-stores.md)). With as many numbers [cskv](cskv.md), whose directions are those of one layer, is at 39 and 52, so two layers do have something in common. But [turboquant](turboquant.md) in 2 bits is at 32 with 0.11 of the bytes, and here the directions come on top, a tenth of the full cache at this length. For so small a model it is no bargain, and nothing is known here of larger ones.

- **The paper trains a model with such layers from the start**: the latent comes from a layer's input through weights of its own, a part of each key that is rotated stays beside it, and the codes of 4 bits are trained along. That is how it keeps 2 % of the cache. Nothing is trained here; this is the form that the cache has at inference, for models that know nothing of it. The latent is made from what the two layers would have stored, so it exists when the upper layer has attended, and until then both layers' entries are whole.
- Each part is divided by its size, so that values, which are small beside keys, count as much.
- Each head has a latent of its own, so that methods may keep other entries for each. `heads: "joint"` takes all heads of both layers together, as in the paper; `calibrateClla` finds it for up to 512 channels of keys and values of both in all and refuses more, since taking a matrix apart takes minutes from 768 on: so for a small model, or one with a single KV head. Methods with lanes per head do not go with it.
- `latent` is a share of the numbers of both layers, so 0.5 is half of the bytes; the number of coordinates is rounded up to a multiple of 32.
- Layers are joined as soon as both have attended to the prompt and their method has settled what stays of them; while generating, 32 entries at a time as they leave the window. Of an odd number of layers the last stays by itself, and so do entries that only one of two layers has: whole, or with `bits` in as many bits, up to 32 channels to a scale.
- A layer that reads another's entries ([kvsharer](kvsharer.md)) leaves its neighbour alone.
- If a method frees an entry in one layer, the other keeps it, and its bytes with it; they are given back when both layers have freed all of up to 64 entries that lie together, until then they are in `memory.dead`. So a `keep` in bytes is refused. [merge](merge.md) is refused too, and with it [elastic](elastic.md) and [lookM](lookM.md) unless with `merge: "none"`: one layer alone cannot change what both read.
- A file holds 8 bits of each number, `most` of the directions, and may have 23 MiB: with 32 heads of 128 channels in 32 layers `most` is at most 0.12. They are brought to right angles again when they are read.
- `memory.resident` is more than `effectiveBits` says by the directions and by positions and marks: without the directions less than 2 % at 8 heads of 128 channels, 5 % at 4 heads of 64 in 4 bits, whose rows are short.
- A calibration that is stopped starts anew the next time: its file is written in the end.
- CPU: the CUDA kernels do not read coordinates yet, and refuse.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Latents,
            default: "",
            text: "the directions that model.calibrateClla has found",
        },
        OptionSpec {
            name: "latent",
            kind: OptionKind::Share,
            default: "0.5",
            text: "the numbers that are stored of the keys and values of two layers, as a share of all",
        },
        count("window", "32", "most recent entries that stay whole, per layer and head"),
        OptionSpec {
            name: "bits",
            kind: OptionKind::Choice { values: &["whole", "8", "4"] },
            default: "\"whole\"",
            text: "bits of a code for the latent and for entries that are not joined; \"whole\" is as new entries are",
        },
    ],
    variants: &[],
    build,
};

/// Numbers that share a scale, at most; a latent has as many or a multiple, where there are as many.
const GROUP: usize = 32;

fn build(options: &mut Options) -> Result<Stage> {
    let Some(latent) = options.directions("calibration")? else {
        return Err(refuse("clla needs `calibration`, which model.calibrateClla makes"));
    };
    latent.check_span(DirectionsSpan::Pair)?;
    let share = options.share("latent")?;
    if share == 0.0 {
        return Err(refuse("`latent` of clla must be above 0: entries without coordinates say nothing"));
    }
    let dtype = match options.choice("bits")?.as_str() {
        "8" => Some(Dtype::U8),
        "4" => Some(Dtype::U4),
        _ => None,
    };
    Ok(Stage::Stores(Box::new(Clla { latent: Arc::new(latent), share, window: options.count("window")?, dtype })))
}

#[derive(Clone, Debug)]
struct Clla {
    latent: Arc<Latent>,
    /// Of the numbers of two layers.
    share: f64,
    window: usize,
    /// Of codes; None: as new entries are.
    dtype: Option<Dtype>,
}

impl Clla {
    /// Numbers of two layers' keys and values that one latent is of.
    fn size(&self, kv_heads: usize, dim: usize) -> usize {
        PARTS * if self.latent.is_joint() { kv_heads * dim } else { dim }
    }

    /// Coordinates of a latent, of up to `size`.
    fn width(&self, size: usize) -> usize {
        let whole = (self.share * size as f64 - 1e-9).ceil().max(1.0) as usize;
        whole.next_multiple_of(GROUP).min(size)
    }
}

impl Store for Clla {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        check_positions(SPEC.name, method)?;
        if matches!(method.keep(), Some(Keep::Bytes(_))) {
            return Err(refuse(
                "clla frees an entry's bytes when both layers have freed it, so a `keep` in bytes cannot be held; take a `keep` in tokens, or \
                 another store",
            ));
        }
        if !method.stages.is_empty() {
            return Err(refuse(
                "clla stores entries of two layers as one latent, into which those of one layer cannot be merged; leave merge out, set \
                 `merge: \"none\"` of a method that merges by itself, or take another store",
            ));
        }
        if self.latent.is_joint() { check_joint(method) } else { Ok(()) }
    }

    fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.latent.check_model(model)?;
        let Shape { kv_heads, head_dim, .. } = model.shape;
        let (size, rank) = (self.size(kv_heads, head_dim), self.latent.rank());
        match self.width(size) {
            width if width > rank => Err(Error::Calibration {
                reason: format!(
                    "it has {rank} of {size} directions, and clla was asked for {width}; take a smaller `latent`, or calibrate with a larger \
                     `most`"
                ),
            }),
            _ => Ok(()),
        }
    }

    fn before_rope(&self) -> bool {
        true
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let Shape { kv_heads, head_dim: dim, format, .. } = *shape;
        let width = self.width(self.size(kv_heads, dim));
        let of = |numbers: usize| -> Result<KvCodec> {
            let Some(dtype) = self.dtype else { return Ok(format.codec()) };
            let codec = Codec::per_entry(dtype, channels(SPEC.name, numbers, GROUP)?);
            Ok(KvCodec::new(codec, codec, Dual::None))
        };
        Ok(Box::new(Latents {
            store: self.clone(),
            shape: *shape,
            width,
            codec: of(width)?,
            alone: of(dim)?,
            pairs: Pairs::default(),
            bases: LaneBases::default(),
        }))
    }
}

/// The store at work on one sequence.
#[derive(Clone, Debug)]
struct Latents {
    store: Clla,
    shape: Shape,
    /// Coordinates of a latent.
    width: usize,
    /// Of latents, without their bases.
    codec: KvCodec,
    /// Of entries that are not joined.
    alone: KvCodec,
    pairs: Pairs,
    bases: LaneBases<[Arc<Basis>; 2]>,
}

impl Encoder for Latents {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn has_bases(&self) -> bool {
        true
    }

    fn joins(&self) -> bool {
        true
    }

    /// A pair's lower layer waits whole for the upper one, and an entry that one layer lacks stays by itself.
    fn price(&self) -> Option<Price> {
        None
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let Clla { ref latent, window, dtype, .. } = self.store;
        let there = |pair: &[usize; 2]| pair.iter().all(|layer| view.cache.lanes(*layer) > 0);
        let Some(pair) = latent.pair(layer).filter(there) else {
            if dtype.is_some() {
                alone(self.alone, window, layer, view, plan);
            }
            return Ok(());
        };
        if !self.pairs.are_ready(layer, pair, view)? {
            return Ok(());
        }
        let Shape { kv_heads, head_dim, .. } = self.shape;
        for lane in 0..view.cache.lanes(layer) {
            let Some(settled) = self.pairs.settled(pair, lane, window, view) else { continue };
            let positions: Vec<u32> = settled.both.iter().map(|[entry, _]| entry.position).collect();
            for (layer, left) in pair.into_iter().zip(settled.left(&positions)) {
                // A block leaves few, which wait for others.
                if dtype.is_some() && left.len() >= least(view) {
                    plan.push(LanePlan::encoding(layer, lane, [(self.alone, left)]));
                }
            }
            if positions.is_empty() {
                continue;
            }
            let bases = self.bases.of(pair[0], view.cache.lane(layer, lane).heads(), |heads| {
                latent.bases(pair, (heads, kv_heads, head_dim), self.width)
            })?;
            let codec = KvCodec { basis: Some(bases[0].based()), ..self.codec };
            plan.join.push(Join { layers: pair, lane, codec, common: Common::Coordinates { bases }, positions });
        }
        Ok(())
    }
}
