//! The memory of a sequence's cache, by the pool's own count.

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
    /// Bytes of a cache in the same format that keeps every position seen so far, without slack or metadata.
    pub full: u64,
    /// Keys and values of the entries kept, in the format in which each of them is stored.
    pub payload: u64,
    /// Scales of the entries that are stored in few bits; 0 without such a store.
    pub scales: u64,
    /// The part of `payload` that a store keeps in full precision, the most recent entries; 0 without one.
    pub window: u64,
    /// Positions and scores of the entries, and other bookkeeping.
    pub metadata: u64,
    /// Entries that are evicted but still stored, because their format frees them in groups; their scales included.
    pub dead: u64,
    /// Bits that a number of a kept key or value takes on average, scales included; 0 of an empty cache.
    pub effective_bits: f64,
    /// Payload, scales, metadata, dead entries and slack: what the pool holds for this sequence at the end.
    pub resident: u64,
    /// Of `resident`, what other chats that were forked from the same one hold as well: in memory it is there once.
    pub shared: u64,
    /// The highest value of `resident`.
    pub peak: u64,
    /// Entries kept, per layer; the mean over the heads where they keep different numbers.
    pub kept_per_layer: Vec<f64>,
}
