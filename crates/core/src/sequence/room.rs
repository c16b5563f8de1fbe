//! Room that a prompt needs before it is read.

use super::Sequence;
use crate::cache::{Memory, Span};
use crate::error::Result;
use crate::method::keep::Price;

impl<M: Memory> Sequence<M> {
    /// Refuses a prompt that [`Sequence::begin_prompt`] would refuse now, on top of what is held; changes nothing.
    pub fn admit(&self, spans: &[Span]) -> Result<()> {
        let (all, n) = self.with(spans);
        let growth = match &self.method {
            Some(method) => method.planner.growth(&self.view(&self.held(), &all, n))?,
            None => None,
        };
        self.account.admit(self.prompt_bytes(n, growth))
    }

    /// Bytes that a prompt of `n` positions takes at its peak beside what is held: all of it, unless its layers are settled one by one
    /// and never add more than `growth` entries, of which a store keeps all but the recent ones and those of one layer in fewer bits. Where a method may drop entries that are those of others too, what stays of
    /// them is copied and nothing is freed.
    pub(super) fn prompt_bytes(&self, n: usize, growth: Option<usize>) -> u64 {
        self.bytes_once(n, growth) + self.repeat_bytes(n) + self.among_bytes(n)
    }

    /// As [`Sequence::prompt_bytes`], of a prompt that is read once.
    fn bytes_once(&self, n: usize, growth: Option<usize>) -> u64 {
        let (whole, windowed) = (n * self.layout.managed().len(), self.windowed_growth(n));
        let waiting = n * self.layout.waiting();
        let settled = growth.and_then(|_| self.method.as_ref()?.price());
        let growth = growth.map_or(whole, |growth| (growth + waiting).min(whole));
        let Some(Price { codec, window, block, beside }) = settled else {
            return (self.entry_bytes() * (growth + windowed)) as u64 + self.copied_bytes();
        };
        let recent = self.layout.managed().len() * (window + block.max(codec.group()));
        let plain = (n + waiting + recent).min(growth);
        // The last layer is there in both for a moment.
        let encoded = (growth - plain + n).next_multiple_of(codec.group());
        let encoded = codec.bytes(self.shape.kv_heads, self.shape.head_dim, encoded);
        let beside = beside * self.shape.layers as u64;
        (self.entry_bytes() * (plain + windowed) + encoded) as u64 + beside + self.copied_bytes()
    }

    /// Bytes of copies of entries that are those of other sequences too.
    pub(super) fn copied_bytes(&self) -> u64 {
        if self.frees() { self.shared_bytes() } else { 0 }
    }

    /// Whether entries may go.
    pub(super) fn frees(&self) -> bool {
        self.method.is_some() || self.layout.has_windows()
    }
}
