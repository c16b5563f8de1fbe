//! The cache of one sequence: its layers, its position counter and what each position is.

use serde::Serialize;

use super::lane::Lane;
use super::memory::MemoryReport;
use super::pool::{Account, Format, Pool};

/// The dimensions of a model's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub format: Format,
}

impl Shape {
    /// Bytes of the keys and values of one position over all layers.
    pub fn bytes_per_position(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * self.format.bytes()
    }
}

/// What a position holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Modality {
    Text,
    /// A patch of the request's image number `index`.
    Image {
        index: usize,
    },
    Generated,
}

/// A run of positions of one modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    pub modality: Modality,
    pub start: usize,
    pub len: usize,
}

/// The cache of one sequence.
#[derive(Debug)]
pub struct Sequence {
    shape: Shape,
    /// The lanes of each layer, together covering its KV heads in order.
    pub(crate) layers: Vec<Vec<Lane>>,
    spans: Vec<Span>,
    next_position: u32,
    account: Account,
}

impl Sequence {
    /// An empty sequence with one lane per layer.
    pub fn new(shape: Shape, pool: &Pool) -> Self {
        Sequence::with_lanes(shape, pool, |_| std::iter::once(0..shape.kv_heads).collect())
    }

    /// An empty sequence whose layer `l` has the lanes `split(l)`; the ranges must cover the KV heads in order.
    pub fn with_lanes(shape: Shape, pool: &Pool, split: impl Fn(usize) -> Vec<std::ops::Range<usize>>) -> Self {
        let account = pool.account();
        let layers = (0..shape.layers)
            .map(|layer| {
                let ranges = split(layer);
                let mut next = 0;
                for range in &ranges {
                    assert_eq!(range.start, next, "lanes of layer {layer} must cover its heads in order");
                    next = range.end;
                }
                assert_eq!(next, shape.kv_heads, "lanes of layer {layer} must cover its heads");
                ranges
                    .into_iter()
                    .map(|heads| Lane::new(heads, shape.head_dim, shape.format, account.clone()))
                    .collect()
            })
            .collect();
        Sequence { shape, layers, spans: Vec::new(), next_position: 0, account }
    }

    /// The position that the next token gets, which is the number of positions seen so far; independent of what is kept.
    pub fn next_position(&self) -> u32 {
        self.next_position
    }

    /// Counts `n` positions of `modality` as seen. Called once all layers hold them.
    pub fn advance(&mut self, modality: Modality, n: usize) {
        match self.spans.last_mut() {
            Some(last) if last.modality == modality => last.len += n,
            _ => self.spans.push(Span { modality, start: self.next_position as usize, len: n }),
        }
        self.next_position += n as u32;
    }

    /// What each position is, in order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The lanes of a layer.
    pub fn lanes(&self, layer: usize) -> &[Lane] {
        &self.layers[layer]
    }

    /// Bytes by the pool's count.
    pub fn memory(&self) -> MemoryReport {
        let lanes = || self.layers.iter().flatten();
        MemoryReport {
            full: (self.next_position as usize * self.shape.bytes_per_position()) as u64,
            payload: lanes().map(Lane::payload).sum(),
            metadata: lanes().map(Lane::metadata).sum(),
            resident: self.account.used(),
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
