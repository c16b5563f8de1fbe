//! How many threads candle may use.

/// Makes candle's matrix products use `threads` threads (`RAYON_NUM_THREADS`) and its sums of large tensors the thread that calls
/// them (`CANDLE_NUM_THREADS=1`, unless it is set already): the threads of the pool that it has for these spin while they wait.
///
/// Candle 0.11 has no call for this: it reads the first variable at every product, and the second when that pool is first used.
/// Child processes inherit both.
///
/// Call it at most once, before candle's first product, and on the thread on which the host runtime keeps its own environment
/// (in Node, Bun and Deno the JavaScript thread).
pub fn set_candle_threads(threads: usize) {
    const SPINNING: &str = "CANDLE_NUM_THREADS";
    let spinning = std::env::var_os(SPINNING).is_none().then(|| (SPINNING, "1".to_owned()));
    for (variable, value) in [Some(("RAYON_NUM_THREADS", threads.to_string())), spinning].into_iter().flatten() {
        // SAFETY: Rust code reads the environment under std's lock, which `set_var` takes. The risk left is a read by C code on
        // another thread at this very moment; the conditions above keep that to what `process.env.NAME = value` does in Node.
        unsafe { std::env::set_var(variable, value) };
    }
}
