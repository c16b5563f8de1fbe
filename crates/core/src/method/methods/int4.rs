use prefixkv_kernels::codec::Dtype;

use super::super::options::Options;
use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};
use super::super::store::{GROUP, ROPE, ROTATE, Uniform, keys, window};
use crate::error::Result;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "int4",
    title: "4 bits (KIVI)",
    summary: "stores what stays in 4 bits",
    source: "Liu et al. 2024, KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, arXiv 2402.02750",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), int4()]`.
Keys are stored in codes of 4 bits with a scale and a zero per channel over `group` entries, values with one per `group` channels of an entry: outliers of keys sit in fixed channels, those of values do not. With `group: 32` a number takes 5 bits.

```
scale = (max - min) / 15,  zero = min,  code = round((x - zero) / scale),  x^ = code * scale + zero
```

Scale and zero are f16, and the codes are chosen for what was kept. The `window` most recent entries stay in full precision; a prompt is attended in full precision before it is stored. Attention reads the codes directly, so nothing is ever expanded. `memory` reports `payload`, `scales`, `window` and `effectiveBits`.

- The window is of both keys and values and never shorter than `window`: entries leave it 32 at a time, or as many as share scales. In the code of KIVI the keys' window shrinks to nothing whenever it is encoded, and the values' is always full.
- Entries of a channel's group are freed together: one that is evicted stays, masked, until its group is empty, and `memory.dead` counts it. Where a method evicts while generating, `keys: "entry"` frees each at once; a `keep` in bytes needs that.
- `rotate` puts a Hadamard transform before the codes, for keys and values, and its dual behind the query and the result. Heads must be a power of two long, and it does not go with keys that are rotated when they are read.
- `rope: "before"` stores keys before their rotary embedding, where the channels with outliers are the same at every position, and rotates them to their own positions whenever attention reads them (KVQuant, Hooper et al. 2024, arXiv 2401.18079; SKVQ has the same choice). A step then brings all keys to f32, so that it is slower; methods and stages that compare keys see them unrotated. Not with `rotate`, nor behind `positions: "cache"`, and on the CPU only.
- Heads must be a multiple of 8 channels long.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[GROUP, window("128"), keys("\"channel\""), ROTATE, ROPE],
    variants: &[],
    build,
};

fn build(options: &mut Options) -> Result<Stage> {
    Ok(Stage::Stores(Box::new(Uniform::of(SPEC.name, Dtype::U4, options)?)))
}
