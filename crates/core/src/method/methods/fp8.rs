use prefixkv_kernels::codec::Dtype;

use super::super::options::Options;
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::store::{Uniform, window};
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "fp8",
    title: "8 bits of floating point",
    summary: "stores what stays in 8 bits of floating point",
    source: "Micikevicius et al. 2022, FP8 Formats for Deep Learning, arXiv 2209.05433",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), fp8()]`.
Keys and values are stored as E4M3: a sign, 4 bits of exponent and 3 of mantissa, without any scale, so a number takes 8 bits and an entry half of what it takes in f16. Every number is within 1/16 of itself, whatever its neighbours are; `int8` is closer where the numbers of an entry are of one size.

```
|x| >= 2^-6: 8 steps from each power of two to the next;  smaller: steps of 2^-9;  |x| > 448: 448
```

Numbers are rounded to the nearest, of two to the even one. The `window` most recent entries stay in full precision; a prompt is attended in full precision before it is stored. Attention reads the eight bits directly, so nothing is ever expanded. `memory` reports `payload`, `window` and `effectiveBits`; there are no `scales`.

- Entries are encoded 32 at a time while generating, so up to 31 beyond `window` are in full precision.
- Servers that store a cache in this format multiply by a scale per tensor; here the scale is 1, which suits keys and values within 448.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[window("0")],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Stores(Box::new(Uniform::plain(SPEC.name, Dtype::F8, options)?)))
}
