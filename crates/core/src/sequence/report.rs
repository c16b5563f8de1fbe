//! The contents of a sequence, counted, and all that its method has seen and decided.

use super::compaction::Working;
use super::phases::Track;
use super::{Planned, Sequence};
use crate::cache::{Kept, KeptSpan, Lane, Memory, MemoryReport, Span};
use crate::method::Record;

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

    /// How much of each span is left. Layers that read another's keys and values hold none and do not count.
    pub fn kept_spans(&self) -> Vec<KeptSpan> {
        let mut held = vec![0; self.spans.len()];
        let mut heads = 0;
        for lane in self.layers.iter().filter(|lanes| lanes.iter().any(|lane| !lane.is_empty())).flatten() {
            let (positions, count) = (lane.positions(), lane.heads().len());
            heads += count;
            for (held, span) in held.iter_mut().zip(&self.spans) {
                let before = |end: usize| positions.partition_point(|position| (*position as usize) < end);
                *held += (before(span.start + span.len) - before(span.start)) * count;
            }
        }
        let shares = held.iter().zip(&self.spans).map(|(held, Span { modality, start, len })| KeptSpan {
            modality: *modality,
            start: *start,
            len: *len,
            kept: *held as f64 / (len * heads).max(1) as f64,
        });
        shares.collect()
    }

    /// Bytes by the pool's count.
    pub fn memory(&self) -> MemoryReport {
        let lanes = || self.layers.iter().flatten();
        let sum = |of: fn(&Lane<M>) -> u64| lanes().map(of).sum::<u64>();
        let (payload, scales, numbers) = (sum(Lane::payload), sum(Lane::scales), sum(Lane::numbers));
        MemoryReport {
            full: (self.next_position as usize * self.entry_bytes() * self.layout.of_model()) as u64,
            payload,
            scales,
            window: if self.method.as_ref().is_some_and(Working::encodes) { sum(Lane::unencoded_payload) } else { 0 },
            effective_bits: if numbers > 0 { (8 * (payload + scales)) as f64 / numbers as f64 } else { 0.0 },
            metadata: sum(Lane::metadata) + self.track.as_ref().map_or(0, Track::bytes),
            dead: sum(Lane::dead_bytes),
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

    /// Keeps how the next prompt's entries are ranked, for [`Sequence::take_record`]; only before the first prompt.
    pub fn record(&mut self) {
        if let Some(method) = self.method.as_mut().filter(|_| self.spans.is_empty()) {
            method.planner.record();
        }
    }

    /// How the entries of the recorded prompt were ranked, by the layers of the model.
    pub fn take_record(&mut self) -> Option<Record> {
        let record = self.method.as_mut()?.planner.take_record()?;
        let number = |layer| self.layout.managed_index(self.layout.source(layer));
        Some(record.for_layers((0..self.shape.layers).map(number)))
    }

    /// Keeps all plans of the method from now on, for [`Sequence::take_plans`].
    pub fn keep_plans(&mut self) {
        if let Some(method) = &mut self.method {
            method.keep_plans();
        }
    }

    /// The plans since [`Sequence::keep_plans`], those that change nothing left out.
    pub fn take_plans(&mut self) -> Vec<Planned> {
        self.method.as_mut().map(Working::take_plans).unwrap_or_default()
    }
}
