use super::super::options::Options;
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::store::{GROUP, ROPE, Uniform, bits, window};
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "kivi",
    title: "KIVI",
    summary: "stores what stays in 2 or 4 bits, keys per channel and values per entry",
    source: "Liu et al. 2024, KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, arXiv 2402.02750",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), kivi()]`.
Outliers of keys sit in fixed channels, those of values do not. So the keys of `group` entries share a scale and a zero per channel, and of values `group` channels of an entry do. The `window` most recent entries stay whole.

```
scale = (max - min) / (2^bits - 1),  zero = min,  code = round((x - zero) / scale),  x^ = code * scale + zero
```

[int2](int2.md) and [int4](int4.md) with `keys: "channel"` are this method; it has its own name so that it can be found. Scale and zero are f16, and the codes are chosen for what was kept, so that with `group: 32` a number takes 3 or 5 bits. `memory.effectiveBits` counts the window as well.

- In the paper's code the window of keys shrinks to nothing whenever `window` keys are encoded at once, and the values' is always full. Here entries leave the window of keys and values 32 at a time, and it is never shorter than asked.
- Equal numbers of a group have the scale 0; the paper's code divides by it.
- Entries of a group are freed together: one that is evicted stays, masked, until its group is empty, and `memory.dead` counts it.
- The paper stores keys after their rotary embedding. `rope: "before"` stores them before it, as [int2](int2.md) says.
- The authors advise 4 bits for grouped-query models.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[bits("2"), GROUP, window("128"), ROPE],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Stores(Box::new(Uniform::kivi(SPEC.name, options)?)))
}
