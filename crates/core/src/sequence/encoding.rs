//! Entries that stay go into the codecs of the store.

use super::view::Held;
use super::{Sequence, compaction};
use crate::cache::Memory;
use crate::error::Result;
use crate::method::Moment;
use crate::method::view::{Sums, View};

impl<M: Memory> Sequence<M> {
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
        let view = View { cache: &held, past, n, spans: &self.spans, sums: Sums::None, queries: &[] };
        let plan = method.encode(moment, layer, &view, self.layout.all())?;
        compaction::carry_out(plan, &mut self.layers, self.layout.all())
    }
}
