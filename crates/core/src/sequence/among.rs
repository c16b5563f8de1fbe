//! Prompts of which only some positions take part in the attention of a layer: those that a store finds from a few queries of them.

use super::Sequence;
use crate::cache::{Charge, Lane, Memory};
use crate::error::{Error, Result};
use crate::method::store::LaneNumber;

/// The queries of a prompt, or of its piece on the way, that say who takes part.
#[derive(Clone, Debug, PartialEq)]
pub struct Probes {
    /// Their rows, ascending.
    pub rows: Vec<usize>,
    /// Their weights in the sums, as [`Sequence::query_weights`] has them.
    pub weights: Vec<f32>,
}

impl<M: Memory> Sequence<M> {
    /// Whether a store chooses who takes part in a prompt's attention.
    pub(super) fn attends_among(&self) -> bool {
        self.method.as_ref().is_some_and(|method| method.attends_among())
    }

    /// The queries that say who takes part in the attention of `layer`; None: all do.
    pub fn probes(&self, layer: usize) -> Option<Probes> {
        if !self.attends_among() || self.source(layer) != layer {
            return None;
        }
        let all = self.query_weights(layer)?;
        let (rows, weights) = all.into_iter().enumerate().filter(|(_, weight)| *weight != 0.0).unzip();
        Some(Probes { rows, weights })
    }

    /// Of each lane of `layer`, the places of the entries that take part in the attention of the prompt on its way, ascending, by the sums
    /// that its probes have gathered: per KV head, all places. The last one always does, since what follows comes from it.
    pub fn among(&mut self, layer: usize, sums: &[Vec<f32>]) -> Result<Vec<Vec<usize>>> {
        self.show_sums(layer, sums);
        let method = self.method.as_mut().and_then(|method| method.encoder());
        let missing = || Error::Internal(format!("no store says who takes part in the attention of layer {layer}"));
        let encoder = method.ok_or_else(missing)?;
        let of = |(lane, of): (usize, &Lane<M>)| {
            let out = encoder.left_out(LaneNumber { layer, lane });
            let entries = of.sorted();
            let last = entries.last().map(|entry| entry.position);
            let part = |position: u32| Some(position) == last || out.binary_search(&position).is_err();
            let mut places: Vec<usize> =
                entries.iter().filter(|entry| part(entry.position)).map(|entry| entry.place as usize).collect();
            places.sort_unstable();
            places
        };
        Ok(self.layers[layer].iter().enumerate().map(of).collect())
    }

    /// Counts the keys and values of so many entries of a lane of `heads` that are copied, until the charge is dropped.
    pub(crate) fn charge_copies(&self, entries: usize, heads: usize) -> Result<Charge> {
        self.account.charge(self.copies(entries, heads))
    }

    fn copies(&self, entries: usize, heads: usize) -> u64 {
        (prefixkv_kernels::attention::copied(entries, heads, self.shape.head_dim) * size_of::<f32>()) as u64
    }

    /// The most bytes that a prompt of `n` positions takes beside its entries because some of a layer's are copied.
    pub(super) fn among_bytes(&self, n: usize) -> u64 {
        match self.attends_among() {
            true => self.copies(self.longest_lane() + n, self.shape.kv_heads),
            false => 0,
        }
    }
}
