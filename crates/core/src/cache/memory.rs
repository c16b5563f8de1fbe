//! What a sequence's cache takes, by the pool's own count.

use serde::Serialize;

/// Bytes of the cache of one sequence.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryReport {
    /// What a cache that keeps every position seen so far would take in the same format, without slack or metadata.
    pub full: u64,
    /// Entries held x bytes of an entry.
    pub payload: u64,
    /// Positions and marks of the entries, and bookkeeping.
    pub metadata: u64,
    /// Entries that are deleted but still stored, because their format frees them by group.
    pub dead: u64,
    /// Payload, metadata, dead entries and slack: all that the pool holds for the sequence.
    pub resident: u64,
    /// The highest value of `resident` so far.
    pub peak: u64,
    /// Entries held per layer; the mean over its lanes, weighted by heads, where they differ.
    pub kept_per_layer: Vec<f64>,
}
