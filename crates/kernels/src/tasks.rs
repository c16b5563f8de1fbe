//! Tasks of uneven size over the thread pool.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

/// Runs `task` for 0 .. n, started in that order, with one `scratch` per thread. Which thread runs what is not fixed.
///
/// Rayon's own splitting hands each thread a range of the tasks, so that "largest first" would become "largest to one thread".
pub(crate) fn in_order<S: Default>(n: usize, task: impl Fn(&mut S, usize) + Sync) {
    let next = AtomicUsize::new(0);
    (0..rayon::current_num_threads().min(n)).into_par_iter().with_max_len(1).for_each(|_| {
        let mut scratch = S::default();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                return;
            }
            task(&mut scratch, index);
        }
    });
}
