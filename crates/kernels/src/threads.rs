//! How many threads candle may use.

/// Makes candle's matrix products use `threads` threads, by setting `RAYON_NUM_THREADS` and `CANDLE_NUM_THREADS`.
///
/// Candle 0.11 has no call for this: its dense products split by `RAYON_NUM_THREADS`, read at every product, and its spinning
/// pool for quantised products takes its size from `CANDLE_NUM_THREADS` when it is first used. Child processes inherit both.
///
/// Call it at most once, before candle's first product, only if candle would choose another number by itself, and on the
/// thread on which the host runtime keeps its own environment (in Node, Bun and Deno the JavaScript thread).
pub fn set_candle_threads(threads: usize) {
    let value = threads.to_string();
    for variable in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        // SAFETY: Rust code reads the environment under std's lock, which `set_var` takes. What is left is a read by C code on
        // another thread at this very moment; the conditions above keep that to what `process.env.NAME = value` does in Node.
        unsafe { std::env::set_var(variable, &value) };
    }
}
