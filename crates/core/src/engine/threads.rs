//! The size of the process's thread pools.
//!
//! It is one number for the whole process, because rayon's global pool cannot change its size once it runs. The first load sets
//! it.

use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::panics::quiet_thread;

static IN_FORCE: Mutex<Option<usize>> = Mutex::new(None);

/// Threads that the pools have, or would start with.
pub(crate) fn count() -> usize {
    IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(default)
}

/// Starts the pools with `wanted` threads, or checks `wanted` against what runs already. Call it from the thread that opens an
/// engine, for the reason given at [`prefixkv_kernels::os::threads::set_candle_threads`].
pub(crate) fn configure(wanted: Option<usize>) -> Result<usize> {
    let mut in_force = IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner);
    let running = match *in_force {
        Some(running) => running,
        None => *in_force.insert(start(wanted)),
    };
    match wanted {
        Some(wanted) if wanted != running => Err(Error::Option {
            reason: format!(
                "`threads` is process-wide and {running} is in force since the first load; asked for {wanted}; leave it out, \
                 or set it at the first load"
            ),
            suggestion: None,
        }),
        _ => Ok(running),
    }
}

/// The physical cores, or fewer where a container may use fewer of them: hyper-threads share the units that products keep busy.
fn default() -> usize {
    let candle = candle_core::utils::get_num_threads();
    match variable("RAYON_NUM_THREADS") {
        Some(asked) => asked,
        None => thread::available_parallelism().map_or(candle, |usable| candle.min(usable.get())),
    }
}

fn start(wanted: Option<usize>) -> usize {
    let asked = wanted.unwrap_or_else(default);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(asked)
        .thread_name(|index| format!("prefixkv-{index}"))
        .start_handler(|_| quiet_thread());
    // Where the process has a pool already, its size is what is in force.
    let threads = if pool.build_global().is_ok() { asked } else { rayon::current_num_threads() };
    prefixkv_kernels::os::threads::set_candle_threads(threads);
    threads
}

fn variable(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok().filter(|&threads| threads > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_stays_in_force() {
        let running = configure(None).unwrap();
        assert!(running >= 1 && count() == running);
        assert_eq!(configure(Some(running)).unwrap(), running);
        assert_eq!(candle_core::utils::get_num_threads(), running);
        let error = configure(Some(running + 1)).unwrap_err().to_string();
        assert!(error.contains("process-wide") && error.contains(&running.to_string()), "{error}");
    }
}
