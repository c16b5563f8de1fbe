use super::super::options::Options;
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::store::{Uniform, bits, window};
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "turboquant",
    title: "TurboQuant",
    summary: "stores what stays in levels of the normal distribution, after a random rotation",
    source: "Zandieh et al. 2025, TurboQuant: Online Vector Quantization with Near-optimal Distortion Rate, arXiv 2504.19874",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), turboquant()]`.
It is the variant for the mean squared error (Algorithm 1). Keys and values are rotated at random, after which the channels of any entry, outliers or not, are close to independent and normal; so one table of levels serves all of them, without a zero and without any data to calibrate on. With heads of 128 a number takes 4.125 bits, or 2.125.

```
y = R x,  scale = |y| / sqrt(d),  code = the level nearest to y / scale,  x^ = R^T (level[code] * scale)
```

The levels are those of least mean squared error for the standard normal distribution (Max 1960; Lloyd 1982), the limit of the paper's distribution of a coordinate on the sphere for many channels. The scale is f16, one for each key and each value of a head, and the codes are chosen for what was kept. `R` turns the signs of channels at random, from a fixed seed, and takes their orthonormal Hadamard transform. Attention reads the codes directly: the query goes through `R` too, once per layer and step, and the result through `R^T`. `memory` reports `payload`, `scales`, `window` and `effectiveBits`.

- The paper's `R` is the orthogonal factor of a matrix of normal numbers, which takes d^2 multiplications where this takes d log d additions; heads must be a power of two long.
- The paper's second stage, one bit per channel of the error (QJL), which makes inner products unbiased, is left out: `bits` are all for the levels.
- The paper spends more bits on channels that are outliers before the rotation, to reach 2.5 and 3.5 bits; here all channels have the same.
- `window`: 0, as in the paper, which has none. Entries are encoded 32 at a time while generating, so up to 31 beyond `window` are in full precision.
- It does not go with keys that are rotated when they are read, `positions: "cache"`.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[bits("4"), window("0")],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Stores(Box::new(Uniform::normal(SPEC.name, options)?)))
}
