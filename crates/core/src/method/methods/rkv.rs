use super::super::budget::Uniform;
use super::super::guard::Recent;
use super::super::options::Options;
use super::super::score::Redundancy;
use super::super::spec::common::{PROTECT_TEXT, choice, count, positive};
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage, VARIANT, Variant};
use super::super::{Eviction, Lanes, Positions, Recipe};
use super::parts;
use crate::error::Result;

const fn share(name: &'static str, default: &'static str, text: &'static str) -> OptionSpec {
    OptionSpec { name, kind: OptionKind::Share, default, text }
}

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "rkv",
    title: "R-KV",
    summary: "drops what repeats other entries, every few generated tokens, per layer and head",
    source: "Cai et al. 2025, R-KV, arXiv 2505.24133",
    page: r#"
Made for long answers: a model that thinks aloud says the same thing many times. After the prompt, and whenever `every` more tokens are there, each head goes back to its size. It keeps what the last `window` tokens look at and what the other keys do not say already, and these last tokens themselves.

```
I[j] = sum over the last w queries i of A[h, i, j], as a share of the sum over all j < N - w, the highest of poolSize neighbours
c[i, j] = cos(k_i, k_j),  0 for i = j, and for the `spared` newest j of those with c[i, j] > alike
R    = softmax over j of mean_i c[i, j]
S[j] = attention * I[j] - (1 - attention) * R[j]
```

Of many alike the newest stays, because nothing that is like it counts against it. All heads have the same size.

With `keep` as a share a head is at `keep` of all positions after the prompt and whenever `every` more have come; in between it grows by every token. With `keep` as a cap, which is never passed, `every` is the room that is made when it is reached, at most half of it: the paper's budget and buffer together. `variant: "paper"` has its buffer of 128, which is for answers of thousands of tokens.

- The paper ranks by queries that are kept for the purpose. Here the attention of the last `window` tokens is summed as they attend, from `window` tokens before the lane shrinks. That is the same attention, but for two things: it includes what these tokens gave each other, and entries share the votes of the query heads of a KV head by their mean, where the published code takes the highest product.
- `window` tokens that came less than `every` ago count: with `every` below `window` it is those since the lane last shrank.
- In the published code a key that is like none makes the first entry less redundant, since the place of the newest alike one is then 0. Here `sinks` are safe instead.
- It spares the newest alike entry, or the last of a share of them (`retain_ratio`); here `spared` is their number. `alike` is 0.5 there. `attention`, its lambda, is 0.1 as in the paper; the code's class has 0.07.
- The last `window` entries take at most half of the size, so small sizes work.
- `sinks` and `protectText` are additions. Entries carry scores (4 bytes each and head).
- Comparing all keys with all takes `n * n * d` products per head where few are alike; it stops at the newest alike ones, so the more a cache repeats itself, the less it takes.
- Keys are compared as they are held: rotated to their positions, but for a store that keeps them before their rotary embedding.
"#,
    budget: BudgetKind::Exact,
    role: Role::Chooses,
    options: &[
        positive("every", "32", "generated tokens between two times that entries go"),
        positive("window", "8", "last tokens whose attention counts, and that are kept; at most half of the size"),
        share("attention", "0.1", "the weight of attention beside redundancy"),
        share("alike", "0.5", "the cosine above which two keys are alike"),
        count("spared", "1", "the newest of the entries alike to one that it does not make redundant"),
        positive("poolSize", "7", "entries of a neighbourhood, whose highest share of attention counts; odd"),
        count("sinks", "1", "first entries that are never evicted"),
        PROTECT_TEXT,
        choice(VARIANT, &["short", "paper"], "\"short\"", "for answers of hundreds of tokens, or as published"),
    ],
    variants: &[Variant { name: "paper", defaults: &[("every", "128")] }],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    let (every, queries) = (options.count("every")?, options.count("window")?);
    Ok(Stage::Chooses(Box::new(Recipe {
        score: Box::new(Redundancy {
            queries,
            size: parts::pool_size(options)?,
            attention: options.share("attention")?,
            alike: options.share("alike")?,
            spared: options.count("spared")?,
        }),
        budget: Box::new(Uniform),
        protected: parts::protected(options, Recent::Share { share: 0.5, most: queries })?,
        eviction: Eviction::Together { every, window: Some(queries) },
        lanes: Lanes::PerHead,
        positions: Positions::True,
    })))
}
