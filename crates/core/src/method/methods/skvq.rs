use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use prefixkv_kernels::codec::{Basis, Codec, Dtype, Dual, KvCodec, Map};
use serde_json::json;

use super::super::Method;
use super::super::budget::ModelKey;
use super::super::channels::{ChannelsCalibration, ChannelsLayer, ChannelsSide, percent};
use super::super::keep::Price;
use super::super::options::Options;
use super::super::plan::{LanePlan, Plan};
use super::super::spec::common::count;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{BLOCK, Encoder, Store, bits, channels, window};
use super::super::view::View;
use crate::cache::Shape;
use crate::error::{Error, Result};
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "skvq",
    title: "SKVQ",
    summary: "stores what stays in 2 or 4 bits, with alike channels in a group, clipped ranges, and the first and last entries whole",
    source: "Duanmu et al. 2024, SKVQ: Sliding-window Key and Value Cache Quantization for Large Language Models, arXiv 2405.06219",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), skvq({ calibration: "./channels.json" })]`.
Channels of a head differ in their ranges, and a group that has a wide one among narrow ones wastes its codes. So the channels are put in an order in which alike ones share a group, and codes cover a part of the group's range only. Both are found once per model, by `model.calibrateChannels`: [cache.md](../cache.md#orders-of-channels). The `window` most recent entries and the first `sinks` stay whole.

```
order: channels by k-means on (least, largest number) over the samples, group by group
low = clip * min,  high = clip * max,  scale = (high - low) / (2^bits - 1),  x^ = clamp(round((x - low) / scale)) * scale + low
clip: the one with the least squared error over the samples, of keys and of values of each layer
```

Without a calibration the order is the model's, and all layers have the `clip` of the published code.

Choices of this reconstruction, and differences:

- Groups lie within a head, as queries and results go through the order head by head; `group` is at most the length of a head, and in heads that it does not divide the largest part that does. The published code takes groups of 128 over all heads of a layer. With a group as long as the head there is nothing to order, which is why 64 is the default and not 128.
- Clusters have one size, the group's, so that codes lie in rows. In the published code k-means gives clusters of any size.
- Queries and results go through the order once per layer and step; the paper folds it into the weights of the projections, which gives the same numbers, for every request and every store at once. The CUDA kernels do not read such orders: on a GPU it runs without a calibration, or with one that leaves all in order.
- The paper searches a clip for every group. Here there is one for the keys and one for the values of each layer, in hundredths from 0.6 to 1, each for 2 and for 4 bits; the published code has one for all, 0.92.
- The first `sinks` positions are left out when ranges and errors are taken, since they are not stored in few bits.
- Keys are taken after their rotary embedding, as the published code does by default; the paper also has them before it.
- Scale and zero are f16, and the codes are chosen for what was kept. The paper also has them in 8 bits, and codes of 1.5 bits (three levels): both are left out.
- Smoothing (a factor per channel, off in the published code) is left out.
- Published results are from quantisation that is only played: numbers are rounded, and stored in full. Here the cache is really that small.
- Entries leave the window 32 at a time.

On the embedded model (heads of 32, so groups of 8 and 16), in 2 bits with a window of 16, calibrated on six scenes; the divergence from the full cache over the reference descriptions of eight others, in nats per token:

| | groups of 8 | groups of 16 |
| --- | --- | --- |
| order of the model, no clip | 0.00079 | 0.00060 |
| order of the model, clips searched | 0.00063 | 0.00048 |
| channels ordered, no clip | 0.00046 | 0.00105 |
| channels ordered, clips searched | 0.00026 | 0.00044 |
| channels ordered, clip 0.92 | 0.00013 | 0.00019 |

The one clip of the published code is better here than the searched ones, which make the mean error smallest and cut off large numbers. Perplexity (1.08) shows no difference. `clip` overrides what the calibration says.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "calibration",
            kind: OptionKind::Channels,
            default: "",
            text: "the orders and clips that model.calibrateChannels has found",
        },
        bits("2"),
        OptionSpec {
            name: "group",
            kind: OptionKind::Count { least: 8, most: 128 },
            default: "64",
            text: "channels of an entry that share a scale and a zero, a multiple of 8, as far as they divide a head; a calibration says its own",
        },
        window("128"),
        count("sinks", "5", "first positions of the sequence that stay whole"),
        OptionSpec {
            name: "clip",
            kind: OptionKind::Share,
            default: "0.92",
            text: "the part of a group's range that codes cover, in whole hundredths; a calibration says its own for each layer",
        },
    ],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let name = SPEC.name;
    let dtype = match options.count("bits")? {
        4 => Dtype::U4,
        2 => Dtype::U2,
        bits => return Err(refuse(format!("`bits` of {name} must be 2 or 4, found {bits}"))),
    };
    let found = options.channels("calibration")?;
    if let Some(found) = &found {
        options.fall_back("group", json!(found.group))?;
        let group = options.count("group")?;
        if group as u64 != found.group {
            return Err(refuse(format!(
                "the calibration of {name} is for `group: {}`, asked is `group: {group}`; leave `group` out, or calibrate with it",
                found.group
            )));
        }
    }
    let group = options.count("group")?;
    if !group.is_multiple_of(8) {
        return Err(refuse(format!("`group` of {name} must be a multiple of 8, found {group}")));
    }
    let clip = options.share("clip")?;
    let Some(clip) = percent(clip) else {
        return Err(refuse(format!("`clip` of {name} must be 0.01 to 1 in hundredths, found {clip}")));
    };
    Ok(Stage::Stores(Box::new(Skvq {
        dtype,
        group,
        window: options.count("window")?,
        sinks: options.count("sinks")?,
        clip: (options.given("clip") || found.is_none()).then_some(clip),
        found: found.map(Arc::new),
    })))
}

#[derive(Clone, Debug)]
struct Skvq {
    dtype: Dtype,
    group: usize,
    window: usize,
    sinks: usize,
    /// In hundredths, of all layers; None: the calibration says it for each.
    clip: Option<u8>,
    found: Option<Arc<ChannelsCalibration>>,
}

impl Skvq {
    /// Keys and values of a layer in groups of `group` channels.
    fn codec(&self, layer: Option<&ChannelsLayer>, group: u16) -> KvCodec {
        let clip = |side: &ChannelsSide| percent(if self.dtype == Dtype::U2 { side.clip2 } else { side.clip4 });
        let of = |side: Option<&ChannelsSide>| {
            let clip = self.clip.or_else(|| side.and_then(clip)).unwrap_or(100);
            Codec::per_entry(self.dtype, group).clipped(clip)
        };
        KvCodec::new(of(layer.map(|layer| &layer.keys)), of(layer.map(|layer| &layer.values)), Dual::None)
    }
}

impl Store for Skvq {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, _: &Method) -> Result<()> {
        Ok(())
    }

    fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.found.as_ref().map_or(Ok(()), |found| found.check_model(model))
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let group = channels(SPEC.name, shape.head_dim, self.group)?;
        self.codec(None, group)
            .check(shape.head_dim)
            .map_err(|reason| refuse(format!("skvq cannot store {reason}")))?;
        let ordered = |layer: &ChannelsLayer| layer.keys.is_ordered() || layer.values.is_ordered();
        let has_bases = self.found.as_ref().is_some_and(|found| found.layers.iter().any(ordered));
        Ok(Box::new(SkvqEncoder { store: self.clone(), group, shape: *shape, has_bases, bases: BTreeMap::new() }))
    }
}

/// SKVQ at work on one sequence.
#[derive(Clone, Debug)]
struct SkvqEncoder {
    store: Skvq,
    /// Channels that share a scale.
    group: u16,
    shape: Shape,
    has_bases: bool,
    /// The orders that lanes have, by layer and first head; None where they are the model's.
    bases: BTreeMap<(usize, usize), Option<Arc<Basis>>>,
}

impl SkvqEncoder {
    fn basis(&mut self, layer: usize, heads: Range<usize>) -> Result<Option<Arc<Basis>>> {
        if let Some(known) = self.bases.get(&(layer, heads.start)) {
            return Ok(known.clone());
        }
        let dim = self.shape.head_dim;
        let of = self.store.found.as_ref().and_then(|found| found.layers.get(layer));
        let map = |side: &ChannelsSide| -> Result<Option<Map>> {
            let Some(order) = side.order.get(heads.clone()).filter(|_| side.is_ordered()) else { return Ok(None) };
            Map::channels(heads.len(), dim, order.concat()).map(Some).map_err(unfit)
        };
        let basis = match of {
            Some(layer) => match (map(&layer.keys)?, map(&layer.values)?) {
                (None, None) => None,
                (keys, values) => Some(Basis::new(heads.len(), dim, keys, values).map_err(unfit)?),
            },
            None => None,
        };
        self.bases.insert((layer, heads.start), basis.clone());
        Ok(basis)
    }
}

fn unfit(reason: String) -> Error {
    Error::Calibration { reason: format!("it does not fit the model: {reason}") }
}

impl Encoder for SkvqEncoder {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn has_bases(&self) -> bool {
        self.has_bases
    }

    fn price(&self) -> Option<Price> {
        let Shape { kv_heads, head_dim, .. } = self.shape;
        // Of keys and of values.
        let beside = if self.has_bases { Price::of_channels(kv_heads, 2 * head_dim) } else { 0 };
        let codec = self.store.codec(None, self.group);
        Some(Price { codec, window: self.store.window + self.store.sinks, block: BLOCK, beside })
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let of = self.store.found.as_ref().and_then(|found| found.layers.get(layer));
        let codec = self.store.codec(of, self.group);
        for (index, lane) in view.cache.of(layer).enumerate() {
            let mut oldest = lane.sorted_unencoded();
            oldest.truncate(oldest.len().saturating_sub(self.store.window));
            oldest.retain(|entry| entry.position as usize >= self.store.sinks);
            if oldest.len() < BLOCK {
                continue;
            }
            let basis = self.basis(layer, lane.heads())?;
            let positions = oldest.iter().map(|entry| entry.position).collect();
            plan.push(LanePlan::encoding_in(layer, index, codec, basis, positions));
        }
        Ok(())
    }
}
