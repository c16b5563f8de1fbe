//! What a sequence's cache takes, by the pool's own count.

use serde::Serialize;

/// Bytes of the key-value cache of one sequence.
///
/// ```ts
/// import { load, type Memory } from "prefixkv";
///
/// await using model = await load();
/// const { memory }: { memory: Memory } = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2 });
/// console.log(memory.resident / memory.full);
/// ```
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase", rename = "Memory")]
pub struct MemoryReport {
    /// What a cache that keeps every position seen so far takes in the same format, without slack or metadata.
    pub full: u64,
    /// Entries kept x entry bytes.
    pub payload: u64,
    /// Positions and scores of the entries, and other bookkeeping.
    pub metadata: u64,
    /// Entries that are evicted but still stored, because their format frees them in groups.
    pub dead: u64,
    /// Payload, metadata, dead entries and slack: what the pool holds for this sequence at the end.
    pub resident: u64,
    /// Of `resident`, what other chats that were forked from the same one hold as well: in memory it is there once.
    pub shared: u64,
    /// The highest value of `resident`.
    pub peak: u64,
    /// Entries kept, per layer; the mean over the heads where they keep different numbers.
    pub kept_per_layer: Vec<f64>,
}
