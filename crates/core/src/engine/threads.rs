//! The size of the process's thread pools.
//!
//! It is one number for the whole process, because rayon's global pool and candle's pool for quantised products cannot change
//! their size once they run. The first load sets it.

use std::sync::{Mutex, PoisonError};
use std::thread;

use super::panic::quiet_thread;
use crate::error::{Error, Result};

/// Most threads that a load may ask for.
pub(crate) const MAX: usize = 1024;

static IN_FORCE: Mutex<Option<usize>> = Mutex::new(None);

/// Threads that the pools have, or would start with.
pub(crate) fn count() -> usize {
    IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(default)
}

/// Starts the pools with `wanted` threads, or checks `wanted` against what runs already. Call it from the thread that opens an
/// engine, for the reason given at [`prefixkv_kernels::threads::set_candle_threads`].
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

/// Candle's own default is the number of physical cores even where a container may use fewer of them; its pool for quantised
/// products spins, so threads beyond what the process may use are worse than useless.
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
    let overridden = wanted.is_some() && variable("CANDLE_NUM_THREADS").is_some_and(|other| other != threads);
    if overridden || candle_core::utils::get_num_threads() != threads {
        prefixkv_kernels::threads::set_candle_threads(threads);
    }
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
