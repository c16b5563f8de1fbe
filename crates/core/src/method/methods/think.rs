use std::collections::HashMap;
use std::sync::Arc;

use prefixkv_kernels::codec::{Based, Basis, Codec, Dtype, Dual, KvCodec, Map};

use super::super::keep::Price;
use super::super::options::Options;
use super::super::plan::{LanePlan, Plan};
use super::super::spec::common::{count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{BLOCK, Encoder, LaneNumber, Store, channels};
use super::super::view::{ReadLane, View};
use super::super::{Method, Positions};
use crate::cache::{Entry, Format, Shape};
use crate::error::{Error, Result};
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "think",
    title: "ThinK",
    summary: "stores the channels of keys that the prompt's last queries use, and leaves out the others",
    source: "Xu et al. 2024, ThinK: Thinner Key Cache by Query-Driven Pruning, arXiv 2407.21018",
    page: r#"
A store: it chooses no entries, and stands alone or behind a method that does, `cache: [snapkv({ keep: 0.4 }), think()]`.
Few channels of a head carry most of what its queries and keys say to each other. Every head finds its own, from the last `queries` of the prompt and the keys that are about to be stored, and keeps the share `channels` of them that loses least:

```
score[c] = sum over queries q of q[c]^2 * sum over keys k of k[c]^2   = || Q[:, c] K[:, c]^T ||_F ^ 2
stored: the floor(channels * head_dim) channels with the largest scores, in their order
```

Keys are stored as these channels alone, after their rotation, and queries meet them in the same channels; values stay whole. So with `channels: 0.6` an entry takes 0.8 of its bytes. The `window` most recent entries keep all channels. With `bits` the channels and the values are stored in codes as [kivi](kivi.md) does it, 32 to a scale.

- A head that several query heads read takes the sum over all of them.
- Entries that leave the window while generating, 32 at a time, are stored in the channels that the last prompt has chosen. In the paper's code generated entries stay whole.
- A further prompt of a chat chooses anew for its own entries; those of earlier ones have theirs.
- The published code masks channels with zeros in a press that frees nothing; here they are not stored, and `memory.effectiveBits` and `live.cache` say so.
- In codes the number of channels is rounded up to a multiple of 8.
- The pruning of value channels that the paper tries beside it is left out.
- CPU: the CUDA kernels do not read channels by choice yet, and refuse.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "channels",
            kind: OptionKind::Share,
            default: "0.6",
            text: "the share of a head's key channels that is stored",
        },
        positive("queries", "32", "last queries of a prompt that choose the channels"),
        count("window", "32", "most recent entries that keep all channels, per layer and head"),
        OptionSpec {
            name: "bits",
            kind: OptionKind::Choice { values: &["whole", "8", "4", "2"] },
            default: "\"whole\"",
            text: "bits of a code for the channels and the values; \"whole\" is the precision of new entries",
        },
    ],
    variants: &[],
    build,
};

/// Channels of a value that share a scale, at most.
const GROUP: usize = 32;

fn build(options: &mut Options) -> Result<Stage> {
    let dtype = match options.choice("bits")?.as_str() {
        "8" => Some(Dtype::U8),
        "4" => Some(Dtype::U4),
        "2" => Some(Dtype::U2),
        _ => None,
    };
    let (channels, queries) = (options.share("channels")?, options.count("queries")?);
    if channels == 0.0 {
        return Err(refuse("`channels` of think must be above 0: keys without channels say nothing"));
    }
    Ok(Stage::Stores(Box::new(Think { channels, queries, window: options.count("window")?, dtype })))
}

#[derive(Clone, Copy, Debug)]
struct Think {
    channels: f64,
    queries: usize,
    window: usize,
    /// Of codes; None: as new entries are.
    dtype: Option<Dtype>,
}

impl Store for Think {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        if method.recipe().is_some_and(|recipe| recipe.positions == Positions::Cache) {
            return Err(refuse(format!(
                "think stores channels of keys that are rotated to their places, and {} with positions \"cache\" rotates them when they are \
                 read",
                method.name
            )));
        }
        Ok(())
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let Shape { kv_heads, head_dim: dim, format, .. } = *shape;
        let width = ((self.channels * dim as f64 + 1e-9).floor() as usize).max(1);
        let (codec, width) = match self.dtype {
            None => {
                let plain = match format {
                    Format::F16 => Codec::F16,
                    Format::F32 => Codec::F32,
                };
                (KvCodec::new(plain, plain, Dual::None), width)
            }
            Some(dtype) => {
                let value = Codec::per_entry(dtype, channels(SPEC.name, dim, GROUP)?);
                let codec = KvCodec::new(Codec::per_channel(dtype, BLOCK as u16), value, Dual::None);
                (codec, width.next_multiple_of(8).min(dim))
            }
        };
        let based = Based::of_sizes((kv_heads, width), (kv_heads, dim))
            .ok_or_else(|| refuse(format!("think cannot store {kv_heads} heads of {dim} channels")))?;
        let price = KvCodec { basis: Some(based), ..codec };
        let (chosen, queries) = (HashMap::new(), HashMap::new());
        Ok(Box::new(ThinkEncoder { store: *self, dim, kv_heads, width, codec, price, queries, chosen }))
    }
}

/// ThinK at work on one sequence.
#[derive(Clone, Debug)]
struct ThinkEncoder {
    store: Think,
    dim: usize,
    kv_heads: usize,
    /// Channels that are stored.
    width: usize,
    /// Without its basis.
    codec: KvCodec,
    /// With the sizes of the basis.
    price: KvCodec,
    /// Per layer, the squares of the last prompt's queries, `[kv_heads, dim]`, until they have chosen for all lanes.
    queries: HashMap<usize, Queries>,
    /// The channels that the last prompt has chosen.
    chosen: HashMap<LaneNumber, Arc<Basis>>,
}

#[derive(Clone, Debug)]
struct Queries {
    /// Positions before their prompt.
    past: usize,
    /// Sums over the queries.
    squares: Vec<f32>,
}

impl ThinkEncoder {
    /// The channels of each head of a lane that lose least when the others are left out.
    fn choose(&self, layer: usize, lane: &dyn ReadLane, entries: &[Entry]) -> Result<Option<Arc<Basis>>> {
        let Some(Queries { squares, .. }) = self.queries.get(&layer) else { return Ok(None) };
        let (heads, dim) = (lane.heads(), self.dim);
        let mut scores = squares[heads.start * dim..heads.end * dim].to_vec();
        let mut keys = vec![0f32; scores.len()];
        for row in lane.keys(entries)?.chunks_exact(heads.len() * dim) {
            keys.iter_mut().zip(row).for_each(|(sum, key)| *sum += key * key);
        }
        scores.iter_mut().zip(keys).for_each(|(score, keys)| *score *= keys);
        let chosen = scores.chunks_exact(dim).flat_map(|scores| {
            let mut ranked: Vec<u16> = (0..dim as u16).collect();
            let score = |channel: &u16| scores[usize::from(*channel)];
            ranked.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
            ranked.truncate(self.width);
            ranked.sort_unstable();
            ranked
        });
        let basis = Map::channels(heads.len(), dim, chosen.collect())
            .and_then(|keys| Basis::new(heads.len(), dim, Some(keys), None))
            .map_err(Error::Internal)?;
        Ok(Some(basis))
    }
}

impl Encoder for ThinkEncoder {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn has_bases(&self) -> bool {
        true
    }

    fn price(&self) -> Option<Price> {
        let beside = Price::of_channels(self.kv_heads, self.width);
        Some(Price { codec: self.price, window: self.store.window, block: BLOCK, beside })
    }

    fn last_queries(&self) -> usize {
        self.store.queries
    }

    fn see_queries(&mut self, layer: usize, past: usize, n: usize, queries: &[f32]) {
        let (heads, dim) = (self.kv_heads, self.dim);
        let fresh = || Queries { past, squares: vec![0.0; heads * dim] };
        let of = self.queries.entry(layer).or_insert_with(fresh);
        if of.past != past {
            *of = fresh();
        }
        let group = queries.len() / n.max(1) / (heads * dim);
        for (index, query) in queries.chunks_exact(dim).enumerate() {
            let head = index / group.max(1) % heads;
            let squares = &mut of.squares[head * dim..(head + 1) * dim];
            squares.iter_mut().zip(query).for_each(|(sum, x)| *sum += x * x);
        }
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let mut all_chosen = true;
        for (index, lane) in view.cache.of(layer).enumerate() {
            let (group, number) = (self.codec.group(), LaneNumber { layer, lane: index });
            let settled = lane.unencoded().saturating_sub(self.store.window);
            // A prompt is stored at once, as far as it fills groups; in codes a block shares a scale per channel.
            let least = if view.n > 1 { group } else { BLOCK.max(group) };
            if settled < least {
                all_chosen = false;
                continue;
            }
            let mut oldest = lane.sorted_unencoded();
            oldest.truncate(settled / group * group);
            if let Some(basis) = self.choose(layer, lane, &oldest)? {
                self.chosen.insert(number, basis);
            }
            let Some(basis) = self.chosen.get(&number) else { continue };
            let positions = oldest.iter().map(|entry| entry.position).collect();
            plan.push(LanePlan::encoding_in(layer, index, self.codec, Some(basis.clone()), positions));
        }
        if all_chosen {
            self.queries.remove(&layer);
        }
        Ok(())
    }
}
