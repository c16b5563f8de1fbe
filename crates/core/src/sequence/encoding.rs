//! Entries that stay go into the codecs of the store.

use super::view::Held;
use super::{Sequence, compaction};
use crate::cache::Memory;
use crate::error::Result;
use crate::method::Moment;
use crate::method::store::LaneNumber;
use crate::method::view::{Sums, View};

impl<M: Memory> Sequence<M> {
    /// Whether the size of a prompt's rows is to be known behind `layer`.
    pub fn watches(&self, layer: usize) -> bool {
        self.in_prompt() && self.method.as_ref().is_some_and(|method| method.watches() == Some(layer))
    }

    /// The largest magnitude in each row of the prompt, or of its piece on the way, behind the layer that is watched.
    pub fn see_peaks(&mut self, peaks: &[f32]) {
        // Rows that repeat the prompt are no rows of it.
        let peaks = &peaks[..peaks.len() - self.tail().min(peaks.len())];
        let (past, positions) = (self.next_position, self.on_the_way(peaks.len()));
        if let Some(encoder) = self.method.as_mut().and_then(|method| method.encoder()) {
            encoder.see_peaks(past as usize, &positions, peaks);
        }
    }

    /// Whether it is to be known what the keys and values of a prompt's layers are made from.
    pub fn sees_inputs(&self) -> bool {
        self.in_prompt() && self.method.as_ref().is_some_and(|method| method.sees_inputs())
    }

    /// The mean magnitudes of the channels from which `layer` makes keys and values of the prompt, or of its piece on the way.
    pub fn see_inputs(&mut self, layer: usize, rows: usize, magnitudes: &[f64]) {
        if let Some(encoder) = self.method.as_mut().and_then(|method| method.encoder()) {
            encoder.see_inputs(layer, rows, magnitudes);
        }
    }

    /// Shows the store what the entries of a layer have got from the prompt's queries, if that is gathered for it.
    pub(super) fn show_sums(&mut self, layer: usize, sums: &[Vec<f32>]) {
        let (past, n) = (self.next_position as usize, self.positions_on_the_way());
        let Some(encoder) = self.method.as_mut().and_then(|method| method.encoder()) else { return };
        if sums.is_empty() || encoder.queries(past, n).is_none() {
            return;
        }
        let held = Held { layers: &self.layers, owners: self.layout.all() };
        let blocks = self.layout.has_blocks();
        let view =
            View { cache: &held, past, n, spans: &self.spans, sums: Sums::None, queries: &[], shown: None, blocks };
        for (lane, of) in self.layers[layer].iter().enumerate() {
            let heads = &sums[of.heads()];
            let mean = |place: u32| heads.iter().map(|sums| sums[place as usize]).sum::<f32>() / heads.len() as f32;
            let got: Vec<(u32, f32)> = of.sorted().iter().map(|entry| (entry.position, mean(entry.place))).collect();
            encoder.see_sums(LaneNumber { layer, lane }, &view, &got);
        }
    }

    /// Stores what stays of a layer of the prompt on its way in few bits, where the cache does so.
    pub(super) fn encode_layer(&mut self, layer: usize) -> Result<()> {
        let (past, n) = (self.next_position as usize, self.positions_on_the_way());
        self.encode(Moment::Layer(layer), layer, past, n)
    }

    /// As [`Sequence::encode_layer`] of all layers, unless a method outside still chooses from them.
    pub(super) fn encode_all(&mut self, moment: Moment, past: usize, n: usize) -> Result<()> {
        if self.asked.is_some() {
            return Ok(());
        }
        (0..self.layers.len()).try_for_each(|layer| self.encode(moment, layer, past, n))
    }

    fn encode(&mut self, moment: Moment, layer: usize, past: usize, n: usize) -> Result<()> {
        let Some(method) = self.method.as_mut().filter(|method| method.encodes()) else { return Ok(()) };
        let held = Held { layers: &self.layers, owners: self.layout.all() };
        let blocks = self.layout.has_blocks();
        let view =
            View { cache: &held, past, n, spans: &self.spans, sums: Sums::None, queries: &[], shown: None, blocks };
        let plan = method.encode(moment, layer, &view, self.layout.all())?;
        compaction::carry_out(plan, &mut self.layers, self.layout.all())
    }
}
