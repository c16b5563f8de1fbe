use prefixkv_kernels::codec::Dtype;

use super::super::options::Options;
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::store::{Uniform, window};
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "bf16",
    title: "bf16",
    summary: "stores what stays in bf16",
    source: "",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), bf16()]`.
Keys and values are stored as the upper half of an f32, rounded to the nearest, of two to the even one: the range of f32 with 8 bits of mantissa, 16 bits a number. It halves a cache in f32. One in f16 it leaves as large as it is and a little less precise; take it there to see what a network in bf16 would have stored.

```
|x^ - x| <= 2^-8 |x|
```

The `window` most recent entries stay in full precision; a prompt is attended in full precision before it is stored. Attention reads the numbers directly. `memory` reports `payload`, `window` and `effectiveBits`; there are no `scales`.

- Entries are encoded 32 at a time while generating, so up to 31 beyond `window` are in full precision.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[window("0")],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Stores(Box::new(Uniform::plain(SPEC.name, Dtype::Bf16, options)?)))
}
