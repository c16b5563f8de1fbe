//! Lanes that several layers read, and windows: when entries may go.

use std::borrow::Cow;

use super::Sequence;
use crate::cache::{Lane, Memory};
use crate::error::Result;

impl<M: Memory> Sequence<M> {
    /// The layer whose lanes `layer` was the last to read, with what that layer gathered; None while others are still to read them.
    pub(super) fn read_by_all<'s>(
        &mut self,
        layer: usize,
        sums: &'s [Vec<f32>],
    ) -> Option<(usize, Cow<'s, [Vec<f32>]>)> {
        let owner = self.layout.source(layer);
        if self.layout.is_last_reader(layer) {
            let waiting = self.waiting.iter().position(|(waiting, _)| *waiting == owner);
            return Some((owner, waiting.map_or(Cow::Borrowed(sums), |at| Cow::Owned(self.waiting.swap_remove(at).1))));
        }
        if owner == layer {
            self.waiting.push((owner, sums.to_vec()));
        }
        None
    }

    /// Frees the entries of all layers with windows that no query from the next position on sees.
    pub(super) fn leave_behind(&mut self) -> Result<()> {
        if !self.layout.has_windows() {
            return Ok(());
        }
        (0..self.layers.len()).try_for_each(|layer| self.leave_layer_behind(layer, self.next_position))
    }

    /// Frees the entries of a layer with a window that no query from position `next` on sees.
    pub(super) fn leave_layer_behind(&mut self, layer: usize, next: u32) -> Result<()> {
        let Some(window) = self.layout.reach(layer) else { return Ok(()) };
        let since = (next + 1).saturating_sub(window);
        for lane in &mut self.layers[layer] {
            let gone = lane.entries().filter(|entry| entry.position < since).count();
            match gone {
                0 => {}
                1 => {
                    let place = lane.entries().find(|entry| entry.position < since).map(|entry| entry.place);
                    place.map_or(Ok(()), |place| lane.delete(place))?;
                }
                _ => {
                    let left = lane.sorted().into_iter().filter(|entry| entry.position >= since);
                    let places: Vec<u32> = left.map(|entry| entry.place).collect();
                    lane.retain(&places)?;
                }
            }
        }
        Ok(())
    }

    /// The most entries that a prompt of `n` positions adds to the layers whose window alone bounds them, while one after the other gets
    /// it and leaves behind what is out of sight, which copies what stays.
    pub(super) fn windowed_growth(&self, n: usize) -> usize {
        let (mut most, mut grown, mut whole, mut copies) = (0, 0, 0, 0);
        for &layer in self.layout.owners().iter().filter(|layer| self.layout.managed_index(**layer).is_none()) {
            let held = self.layers[layer].iter().map(Lane::len).max().unwrap_or(0);
            let left = self.layout.reach(layer).map_or(usize::MAX, |window| window as usize - 1).min(held + n);
            let copied = if left < held + n { left } else { 0 };
            most = most.max(grown + n + copied + n * self.layout.waiting());
            grown += left.saturating_sub(held);
            whole += n;
            copies = copies.max(copied);
        }
        most.min(whole + copies)
    }
}
