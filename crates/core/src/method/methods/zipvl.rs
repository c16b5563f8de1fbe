use std::collections::HashMap;

use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec};

use super::super::Method;
use super::super::keep::Price;
use super::super::options::Options;
use super::super::plan::{LanePlan, Plan};
use super::super::score::draw;
use super::super::spec::common::{choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{Encoder, LaneNumber, Store, channels};
use super::super::view::View;
use crate::cache::Shape;
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "zipvl",
    title: "ZipVL",
    summary: "stores the entries that hold most of a layer's attention in 4 bits, the others in 2; can have these alone attend while a prompt is read",
    source: "He et al. 2024, ZipVL: Efficient Large Vision-Language Models with Dynamic Token Sparsification, arXiv 2410.08584",
    page: r#"
A store that can save attention while a prompt is read. It frees nothing, and stands alone or behind a method that ranks by something else than attention, `cache: [streaming({ keep: 0.4 }), zipvl()]`.
Every layer has two classes of entries, and finds for itself how many are in the first: the fewest that hold the share `mass` of the attention from some probe queries of the prompt, each entry's sum divided by the number of probes that see it. A layer whose attention is spread has many, one with few peaks has few.

```
a[j] = mean over heads and over the probes i >= j of A[h, i, j]
first = the fewest entries j with  sum a[first] >= mass * sum a
```

The first class is stored in 4 bits, the other in 2, keys and values alike, with a scale and a zero per entry and 32 channels.

With `prefill: "sparse"` the first class alone takes part in the attention of that layer while the prompt is read. The others come out of it as zeros: nothing is added to them there, and they go on through the rest of the layer. The next layer finds its own first class, of all positions.

```
T    = first + the last position
O[T] = softmax(Q[T] K[T]^T / sqrt(d)) V[T], causal;   O[i] = 0 for all other i
```

Attention of a prompt of n positions then costs about `(|T| / n)^2` of what it would, and beside it the scores of the probes, at most `2 * probes` queries, over all keys. Products with the weights are those of all positions. `about().live.pairsRun` counts the pairs.

In the paper prompts are always read so. Here `prefill: "whole"` is the default, with which the classes say only how entries are stored, for what it does to a small model of text: SmolLM2-135M, 1,211 tokens read and 151 that follow, all entries in full precision, goes from perplexity 30.3 to 51.0 (divergence 0.51 nats) with 0.74 of the pairs at the paper's `mass` of 0.975, and to 33.2 (0.07) with 0.99 of them at 0.999. The pictures of the embedded model lose nothing, and with 157 positions save nothing either. Besides, a copy of a layer's first class in full precision is held for a moment, such prompts are not read in pieces beside other requests, because the probes are their last positions, and the CUDA kernels do not read them.

The abstract, algorithm 1 and the authors' page could be read; there is no published code. Choices of this reconstruction, where they are silent or where it differs:

- Positions that take no part come out of attention as zeros: algorithm 1 computes the output of `T` alone.
- The last position of the prompt always takes part, since the answer comes from it.
- How many are in the first class is counted by the same numbers that rank them. In algorithm 1 it is counted before sums are divided by the probes that see them.
- The classes are those of all query heads together.
- A chat's later prompts ask about everything so far: an entry of an earlier prompt that is not in their first class takes no part while they are read. Generated tokens attend to all entries.
- Layers with a window of their own and layers that read another's entries attend with all positions.
- The probes are the last `probes` queries and as many at random of the others; the seed is fixed.
- Generated tokens are encoded 100 at a time, all in 4 bits. In the paper they are split as well, by the attention of later tokens.
- The paper's codes are per channel for keys, after a scaling of channels. Here both are per entry, so that every evicted entry is freed at once.
- On few positions the classes say little, and nothing is saved: probes that see nearly all of a short prompt are the prompt.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        OptionSpec {
            name: "mass",
            kind: OptionKind::Share,
            default: "0.975",
            text: "the share of the attention that the entries in 4 bits hold",
        },
        positive("probes", "64", "last queries that are asked, and as many of the others"),
        choice(
            "prefill",
            &["whole", "sparse"],
            "\"whole\"",
            "who takes part in a layer's attention while a prompt is read: every position, or the first class alone",
        ),
        count("window", "0", "most recent entries that stay in full precision, per layer and head"),
    ],
    variants: &[],
    build,
};

/// Channels that share a scale and a zero, at most.
const GROUP: usize = 32;
/// Generated tokens that are encoded at once (section 3.3 of the paper).
const BLOCK: usize = 100;

fn build(options: &mut Options) -> Result<Stage> {
    let (mass, probes, window) = (options.share("mass")?, options.count("probes")?, options.count("window")?);
    let sparse = options.choice("prefill")? == "sparse";
    Ok(Stage::Stores(Box::new(Zip { mass, probes, sparse, window })))
}

#[derive(Clone, Copy, Debug)]
struct Zip {
    mass: f64,
    probes: usize,
    /// Whether the first class alone takes part in the attention of prompts.
    sparse: bool,
    window: usize,
}

impl Zip {
    /// Which of `n` queries are probes.
    fn probes(&self, n: usize) -> Vec<bool> {
        let last = self.probes.min(n);
        let mut chosen = vec![false; n];
        chosen[n - last..].fill(true);
        // The others in an order by lot.
        let mut others: Vec<usize> = (0..n - last).collect();
        others.sort_by_key(|query| draw(*query as u64));
        others.iter().take(self.probes).for_each(|query| chosen[*query] = true);
        chosen
    }
}

impl Store for Zip {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        if method.recipe().is_none_or(|recipe| recipe.score.gathers() || recipe.score.repeats()) {
            return Err(refuse(format!(
                "zipvl gathers the attention of its own queries of a prompt, and {} gathers it from others or has none to \
                 share; take a method that ranks by something else, or another store",
                method.name
            )));
        }
        Ok(())
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let dim = shape.head_dim;
        let channels = channels(SPEC.name, dim, GROUP)?;
        let of = |dtype: Dtype| {
            let codec = Codec::per_entry(dtype, channels);
            KvCodec::new(codec, codec, Dual::None)
        };
        let (first, other) = (of(Dtype::U4), of(Dtype::U2));
        first.check(dim).map_err(|reason| refuse(format!("zipvl cannot store {reason}")))?;
        Ok(Box::new(ZipEncoder { store: *self, first, other, others: HashMap::new() }))
    }
}

/// ZipVL at work on one sequence.
#[derive(Clone, Debug)]
struct ZipEncoder {
    store: Zip,
    first: KvCodec,
    other: KvCodec,
    /// Positions that are not in the first class, ascending, until they are encoded.
    others: HashMap<LaneNumber, Vec<u32>>,
}

impl Encoder for ZipEncoder {
    fn dual(&self) -> Dual {
        Dual::None
    }

    fn price(&self) -> Option<Price> {
        Some(Price { codec: self.first, window: self.store.window, block: BLOCK, beside: 0 })
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn queries(&self, _: usize, n: usize) -> Option<Vec<f32>> {
        Some(self.store.probes(n).into_iter().map(|probe| f32::from(u8::from(probe))).collect())
    }

    fn see_sums(&mut self, lane: LaneNumber, view: &View<'_>, sums: &[(u32, f32)]) {
        let probes = self.store.probes(view.n);
        // Of each query, how many probes come from it on.
        let mut seen = vec![0usize; view.n + 1];
        for query in (0..view.n).rev() {
            seen[query] = seen[query + 1] + usize::from(probes[query]);
        }
        let importance = |(position, sum): (u32, f32)| {
            let query = (position as usize).saturating_sub(view.past);
            (f64::from(sum) / seen[query].max(1) as f64, position)
        };
        let mut ranked: Vec<(f64, u32)> = sums.iter().copied().map(importance).collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let wanted = self.store.mass * ranked.iter().map(|(share, _)| share).sum::<f64>();
        let (mut held, mut first) = (0.0, 0);
        // All of it are all entries, however their sum is rounded.
        while first < ranked.len() && (held < wanted || self.store.mass >= 1.0) {
            held += ranked[first].0;
            first += 1;
        }
        let mut others: Vec<u32> = ranked[first..].iter().map(|(_, position)| *position).collect();
        others.sort_unstable();
        self.others.insert(lane, others);
    }

    fn attends_among(&self) -> bool {
        self.store.sparse
    }

    fn left_out(&self, lane: LaneNumber) -> &[u32] {
        self.others.get(&lane).map_or(&[], Vec::as_slice)
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        for (lane, of) in view.cache.of(layer).enumerate() {
            let settled = of.unencoded().saturating_sub(self.store.window);
            let number = LaneNumber { layer, lane };
            // A prompt is encoded at once, whatever its length.
            if settled == 0 || (settled < BLOCK && view.n == 1) {
                continue;
            }
            let others = self.others.get(&number).map_or(&[][..], Vec::as_slice);
            let oldest = of.sorted_unencoded().into_iter().take(settled).map(|entry| entry.position);
            let (coarse, fine): (Vec<u32>, Vec<u32>) = oldest.partition(|at| others.binary_search(at).is_ok());
            let newest = fine.last().max(coarse.last()).copied();
            if let Some(others) = self.others.get_mut(&number) {
                others.retain(|position| Some(*position) > newest);
            }
            plan.push(LanePlan::encoding(layer, lane, [(self.first, fine), (self.other, coarse)]));
        }
        Ok(())
    }
}
