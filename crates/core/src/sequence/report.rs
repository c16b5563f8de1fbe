//! What a sequence holds, counted.

use super::Sequence;
use crate::cache::{Kept, Lane, Memory, MemoryReport};

impl<M: Memory> Sequence<M> {
    /// Bytes of the keys and values of one position in one layer.
    pub(super) fn entry_bytes(&self) -> usize {
        self.shape.bytes_per_position() / self.shape.layers
    }

    /// Bytes that are in the pool for other sequences too.
    pub(super) fn shared_bytes(&self) -> u64 {
        self.layers.iter().flatten().map(Lane::shared_bytes).sum()
    }

    /// The positions that are kept, per layer and range of heads.
    pub fn kept(&self) -> Vec<Vec<Kept>> {
        let kept = |lane: &Lane<M>| Kept { heads: [lane.heads().start, lane.heads().end], positions: lane.positions() };
        (0..self.shape.layers).map(|layer| self.lanes(layer).iter().map(kept).collect()).collect()
    }

    /// Bytes by the pool's count.
    pub fn memory(&self) -> MemoryReport {
        let lanes = || self.layers.iter().flatten();
        MemoryReport {
            full: (self.next_position as usize * self.entry_bytes() * self.layout.owners().len()) as u64,
            payload: lanes().map(Lane::payload).sum(),
            metadata: lanes().map(Lane::metadata).sum(),
            dead: lanes().map(Lane::dead_bytes).sum(),
            resident: self.account.used(),
            shared: self.shared_bytes(),
            peak: self.account.peak(),
            kept_per_layer: self
                .layers
                .iter()
                .map(|lanes| {
                    let entries: usize = lanes.iter().map(|lane| lane.len() * lane.heads().len()).sum();
                    entries as f64 / self.shape.kv_heads as f64
                })
                .collect(),
        }
    }
}
