//! The Hadamard transform of values of one generated token: each new value through it and each result back, as a store takes it online and
//! a model with folded weights does not. `cargo bench -p prefixkv-kernels --bench transforms`.
//!
//! One thread, since that is how little it is; medians and quartiles of many tokens.

use std::time::Instant;

use prefixkv_kernels::codec::Transform;

const TOKENS: usize = 201;

/// Name, layers, query heads, KV heads, channels of a head.
const SHAPES: [(&str, usize, usize, usize, usize); 3] =
    [("SmolLM2-135M", 30, 9, 3, 64), ("LLaVA-1.5-7B", 32, 32, 32, 128), ("LLaVA-NeXT on Llama-3-8B", 32, 32, 8, 128)];

fn main() {
    for (name, layers, query_heads, kv_heads, dim) in SHAPES {
        let number = |i: usize| ((i * 7919) % 101) as f32 / 50.0 - 1.0;
        let mut values: Vec<f32> = (0..kv_heads * dim).map(number).collect();
        let mut results: Vec<f32> = (0..query_heads * dim).map(number).collect();
        let mut times: Vec<f64> = (0..TOKENS)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..layers {
                    Transform::Hadamard.apply(std::hint::black_box(&mut values), dim);
                    Transform::Hadamard.undo(std::hint::black_box(&mut results), dim);
                }
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let [low, median, high] = [TOKENS / 4, TOKENS / 2, 3 * TOKENS / 4].map(|at| times[at]);
        eprintln!(
            "{name}: {median:.1} us a token [{low:.1} {high:.1}], {layers} layers of {} rows of {dim}",
            query_heads + kv_heads
        );
    }
}
