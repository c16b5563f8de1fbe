//! Process-wide gauges: live models, sessions, requests and cache bytes over all engines, and their work. Counted where things begin
//! and end, so that leaks and work that nobody wants can be seen from outside.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A number of the whole process.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

/// Engines whose thread has not freed everything it held.
pub(crate) static MODELS: Counter = Counter::new();
/// Open sessions of all models.
pub(crate) static SESSIONS: Counter = Counter::new();
/// Streams whose work has not ended: loads, inspections, requests and closes.
pub(crate) static REQUESTS: Counter = Counter::new();
/// Bytes that all pools hold.
pub(crate) static CACHE_BYTES: Counter = Counter::new();
/// Layers of language models that have been run, each for one prompt or one step.
pub(crate) static LAYERS_RUN: Counter = Counter::new();
/// Rows that these layers were run for.
pub(crate) static ROWS_RUN: Counter = Counter::new();
/// Of these, rows for which a layer computed queries alone.
pub(crate) static ROWS_SHARED: Counter = Counter::new();
/// Pairs of a query head's query and an entry that attention of prompts has multiplied.
pub(crate) static PAIRS_RUN: Counter = Counter::new();

/// One of what a counter counts; no longer counted once dropped.
#[derive(Debug)]
pub(crate) struct One(&'static Counter);

impl Counter {
    const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    pub(crate) fn one(&'static self) -> One {
        self.add(1);
        One(self)
    }

    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, number: u64) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.remove(1);
    }
}

/// Counts of everything alive in this process, over all models, workers and bindings.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Models that are loading, loaded, or being freed.
    pub models: u64,
    /// Chats that have not been disposed.
    pub sessions: u64,
    /// Loads, inspections, requests and disposals that have not ended.
    pub requests: u64,
    /// Bytes that all key-value caches hold, metadata included.
    pub cache_bytes: u64,
    /// Layers of language models run so far, one for each prompt or token that has passed one; it only grows.
    pub layers_run: u64,
    /// Positions that these layers were run for, summed over the layers; it only grows.
    pub rows_run: u64,
    /// Of these, positions whose keys and values were not computed, since the layer reads those of another; it only grows.
    pub rows_shared: u64,
    /// Pairs of a query and an entry, of every query head, for which attention of prompts has multiplied key and value, summed over the
    /// layers of language models; one whose key alone was multiplied counts half. It only grows.
    pub pairs_run: u64,
}

/// The counts of this moment.
pub(crate) fn report() -> Live {
    Live {
        models: MODELS.value(),
        sessions: SESSIONS.value(),
        requests: REQUESTS.value(),
        cache_bytes: CACHE_BYTES.value(),
        layers_run: LAYERS_RUN.value(),
        rows_run: ROWS_RUN.value(),
        rows_shared: ROWS_SHARED.value(),
        pairs_run: PAIRS_RUN.value(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_no_longer_counted() {
        static THINGS: Counter = Counter::new();
        let (first, second) = (THINGS.one(), THINGS.one());
        THINGS.add(5);
        assert_eq!(THINGS.value(), 7);
        drop(first);
        THINGS.remove(5);
        assert_eq!(THINGS.value(), 1);
        drop(second);
        assert_eq!(THINGS.value(), 0);
    }
}
