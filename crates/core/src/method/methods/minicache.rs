use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec, Levels};

use super::super::keep::Price;
use super::super::options::Options;
use super::super::plan::{Join, LanePlan, Plan};
use super::super::spec::common::count;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{Encoder, Pairs, Store, alone, channels, least};
use super::super::view::{ReadLane, View};
use super::super::{Keep, Method, Positions};
use crate::cache::{Common, Entry, Shape};
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "minicache",
    title: "MiniCache",
    summary: "stores the directions of keys and values of two neighbouring layers once, with a size for each layer",
    source: "Liu et al. 2024, MiniCache: KV Cache Compression in Depth Dimension for Large Language Models, arXiv 2405.14366",
    page: r#"
A store: it chooses no entries, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), minicache()]`.
Neighbouring layers in the deeper part of a model point their keys and values in much the same directions. From the layer `from` of the way on, layers are taken two by two. Of each pair a head's keys at a position are split into their sizes, which each layer keeps, and one direction between the two, which both read; values likewise:

```
theta = arccos(k_a . k_b / (|k_a| |k_b|))
e = sin((1 - t) theta) / sin theta  k_a / |k_a|  +  sin(t theta) / sin theta  k_b / |k_b|        SLERP, t from the lower to the upper layer
stored once: e;   of each layer: |k|;   read: k_a ~ |k_a| e,  k_b ~ |k_b| e
```

A query meets `e`, and its score is multiplied by the size; weights are multiplied by the sizes of values. The share `retain` of the entries whose angles, the mean over keys, values and heads, are the largest stays unmerged in both layers, and so do the `window` most recent ones. With `bits` directions, and entries that are not merged, of these and of the layers before, are stored in codes: 8 bits with a scale per 32 channels, or 4 and 2 bits as [turboquant](turboquant.md) stores them, for which directions are made.

- Layers are merged as soon as both have attended to the prompt and their method has settled what stays of them; while generating, 32 entries at a time as they leave the window.
- The paper retains entries whose distance is within `gamma` of the range from the least to the largest. Here it is a share of the entries, so that bytes are known.
- Where two directions are within 1e-4 of one line, the mean takes the place of the arc, and `e` is given length 1 again. A row of nothing has the size 0.
- Sizes are kept as f32, 8 bytes per head and entry for keys and values; `memory.scales` counts them. The row that two layers share counts once.
- Entries that only one of two layers has are not merged. If a method frees a merged entry in one layer, the other keeps it, and its bytes with it; they are given back when both layers have freed all of up to 64 entries that lie together, until then they are in `memory.dead`. So a `keep` in bytes is refused.
- A layer that reads another's entries ([kvsharer](kvsharer.md)) is left out, and its neighbours are paired with each other.
- The paper's factor of up to 5.02 is of 4 bits and merging together, of which the bits alone are 4. Here the two are 4.9 times smaller than f16 for heads of 128, but for the window.
- It asks for layers that are alike. On SmolLM2-135M, of 30 layers, the defaults take the perplexity of a text from 30 to 87 at 0.79 of the bytes, with `bits: "4"` to 90 at 0.15, and with `from: 0.7` to 45 at 0.88 ([figures](../../bench/results/2c-amd-epyc-avx2-stores.md)): far more than [turboquant](turboquant.md) costs, which is at 32 with 2 bits and 0.11 of the bytes. The paper's models are fifty times as large.
- CPU: the CUDA kernels do not read sizes of rows yet, and refuse.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "from",
            kind: OptionKind::Share,
            default: "0.5",
            text: "the share of the layers before the first pair",
        },
        OptionSpec {
            name: "t",
            kind: OptionKind::Share,
            default: "0.6",
            text: "how far the direction is on the way from the lower layer's to the upper layer's",
        },
        OptionSpec {
            name: "retain",
            kind: OptionKind::Share,
            default: "0.05",
            text: "the share of the entries that stays unmerged, whose angles are the largest",
        },
        count("window", "32", "most recent entries that stay whole, per layer and head"),
        OptionSpec {
            name: "bits",
            kind: OptionKind::Choice { values: &["whole", "8", "4", "2"] },
            default: "\"whole\"",
            text: "bits of a code for directions and for entries that stay unmerged; \"whole\" is as new entries are",
        },
    ],
    variants: &[],
    build,
};

/// Channels that share a scale in 8 bits, at most.
const GROUP: usize = 32;

fn build(options: &mut Options) -> Result<Stage> {
    let (from, t, retain) = (options.share("from")?, options.share("t")?, options.share("retain")?);
    let dtype = match options.choice("bits")?.as_str() {
        "8" => Some(Dtype::U8),
        "4" => Some(Dtype::U4),
        "2" => Some(Dtype::U2),
        _ => None,
    };
    Ok(Stage::Stores(Box::new(MiniCache { from, t, retain, window: options.count("window")?, dtype })))
}

#[derive(Clone, Copy, Debug)]
struct MiniCache {
    from: f64,
    t: f64,
    retain: f64,
    window: usize,
    /// Of codes; None: as new entries are.
    dtype: Option<Dtype>,
}

impl MiniCache {
    /// Whether codes have a scale per head alone, which a random rotation asks for.
    fn rotates(&self) -> bool {
        matches!(self.dtype, Some(Dtype::U4 | Dtype::U2))
    }
}

impl Store for MiniCache {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        if matches!(method.keep(), Some(Keep::Bytes(_))) {
            return Err(refuse(
                "minicache frees a merged entry's bytes when both layers have freed it, so a `keep` in bytes cannot be held; take a `keep` in \
                 tokens, or another store",
            ));
        }
        if self.rotates() && method.recipe().is_some_and(|recipe| recipe.positions == Positions::Cache) {
            return Err(refuse(format!(
                "minicache in 4 and 2 bits transforms keys that are rotated already, and {} with positions \"cache\" rotates them when they \
                 are read; take `bits: \"8\"` or \"whole\"",
                method.name
            )));
        }
        Ok(())
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let dim = shape.head_dim;
        let codec = match self.dtype {
            None => shape.format.codec(),
            Some(dtype @ Dtype::U8) => {
                let codec = Codec::per_entry(dtype, channels(SPEC.name, dim, GROUP)?);
                KvCodec::new(codec, codec, Dual::None)
            }
            Some(dtype) => {
                let all = u16::try_from(dim)
                    .map_err(|_| refuse(format!("minicache cannot store heads of {dim} channels")))?;
                let codec = Codec::of_levels(dtype, Levels::Normal, all);
                KvCodec::new(codec, codec, Dual::Random)
            }
        };
        codec.check(dim).map_err(|reason| refuse(format!("minicache cannot store {reason}")))?;
        Ok(Box::new(MiniCacheEncoder { store: *self, codec, pairs: Pairs::default() }))
    }
}

/// MiniCache at work on one sequence.
#[derive(Clone, Debug)]
struct MiniCacheEncoder {
    store: MiniCache,
    codec: KvCodec,
    pairs: Pairs,
}

impl MiniCacheEncoder {
    /// The two neighbours that `layer` is one of, among the layers with entries of their own.
    fn pair(&self, layer: usize, view: &View<'_>) -> Option<[usize; 2]> {
        let owners: Vec<usize> = (0..view.cache.layers()).filter(|layer| view.cache.lanes(*layer) > 0).collect();
        let first = (self.store.from * owners.len() as f64 + 1e-9).floor() as usize;
        let behind = owners.iter().position(|owner| *owner == layer)?.checked_sub(first)?;
        let lower = first + behind / 2 * 2;
        Some([owners[lower], *owners.get(lower + 1)?])
    }

    /// The positions of entries of two lanes without the share whose angles are the largest.
    fn near(&self, lanes: [&dyn ReadLane; 2], both: &[[Entry; 2]]) -> Result<Vec<u32>> {
        let heads = lanes[0].heads().len();
        let mut angles = Vec::with_capacity(both.len());
        // Few at a time, since they are read as f32.
        for some in both.chunks(ROWS) {
            let read = |side: usize| -> Result<_> {
                let entries: Vec<Entry> = some.iter().map(|entries| entries[side]).collect();
                Ok((lanes[side].keys(&entries)?, lanes[side].values(&entries)?))
            };
            let (first, second) = (read(0)?, read(1)?);
            let width = first.0.len() / some.len().max(1);
            for at in (0..some.len()).map(|at| at * width..(at + 1) * width) {
                let keys = angle(&first.0[at.clone()], &second.0[at.clone()], heads);
                angles.push(keys + angle(&first.1[at.clone()], &second.1[at], heads));
            }
        }
        let retained = (self.store.retain * both.len() as f64 + 0.5).floor() as usize;
        let mut ranked: Vec<usize> = (0..both.len()).collect();
        ranked.sort_by(|a, b| angles[*b].total_cmp(&angles[*a]).then(a.cmp(b)));
        let mut near: Vec<u32> = ranked.iter().skip(retained).map(|index| both[*index][0].position).collect();
        near.sort_unstable();
        Ok(near)
    }
}

/// Entries that are read at a time.
const ROWS: usize = 64;

/// The sum over the heads of the angle between two rows; a right one where a row is nothing.
fn angle(first: &[f32], second: &[f32], heads: usize) -> f64 {
    let dim = first.len() / heads.max(1);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let of = |(a, b): (&[f32], &[f32])| {
        let sizes = (dot(a, a) * dot(b, b)).sqrt();
        let cosine = if sizes > 0.0 { dot(a, b) / sizes } else { 0.0 };
        cosine.clamp(-1.0, 1.0).acos()
    };
    first.chunks_exact(dim.max(1)).zip(second.chunks_exact(dim.max(1))).map(of).sum()
}

impl Encoder for MiniCacheEncoder {
    fn dual(&self) -> Dual {
        self.codec.dual
    }

    /// A pair's lower layer waits whole for the upper one, so what a prompt takes at its peak is not what it takes in the end.
    fn price(&self) -> Option<Price> {
        None
    }

    fn joins(&self) -> bool {
        true
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let MiniCache { window, dtype, t, .. } = self.store;
        let Some(pair) = self.pair(layer, view) else {
            if dtype.is_some() {
                alone(self.codec, window, layer, view, plan);
            }
            return Ok(());
        };
        if !self.pairs.are_ready(layer, pair, view)? {
            return Ok(());
        }
        for lane in 0..view.cache.lanes(layer) {
            let Some(settled) = self.pairs.settled(pair, lane, window, view) else { continue };
            let merged = self.near(pair.map(|layer| view.cache.lane(layer, lane)), &settled.both)?;
            for (layer, left) in pair.into_iter().zip(settled.left(&merged)) {
                // A block leaves few, which wait for others.
                if dtype.is_some() && left.len() >= least(view) {
                    plan.push(LanePlan::encoding(layer, lane, [(self.codec, left)]));
                }
            }
            if !merged.is_empty() {
                let common = Common::Direction { t };
                plan.join.push(Join { layers: pair, lane, codec: self.codec, common, positions: merged });
            }
        }
        Ok(())
    }
}
