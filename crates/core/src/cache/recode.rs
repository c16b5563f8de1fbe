//! Entries of a lane that change their codec.

use prefixkv_kernels::codec::{Deletion, KvCodec};

use super::lane::{Entry, Lane, no_place};
use super::memory::Memory;
use crate::error::{Error, Result};

/// How entries are stored that are no longer recent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settling {
    pub codec: KvCodec,
    /// The last entries by position, which stay in full precision.
    pub window: usize,
    /// Entries that are encoded at once while generating, at least.
    pub block: usize,
}

impl<M: Memory> Lane<M> {
    /// Stores the entries at `places`, in the order of their positions, in `codec`, whose groups they fill; in whatever codecs they
    /// are. For a moment they are there twice.
    pub fn recode(&mut self, places: &[u32], codec: KvCodec) -> Result<()> {
        let (group, dual) = (codec.group(), self.options.codec.dual);
        if !places.len().is_multiple_of(group) || codec.dual != dual {
            return Err(Error::Internal(format!("{} entries of {dual:?} to be stored in {codec:?}", places.len())));
        }
        let mut gone = vec![false; self.places()];
        let mut rows = Vec::with_capacity(places.len());
        for &place in places {
            let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
            if std::mem::replace(&mut gone[place as usize], true) || self.segments[index].dead().has(slot) {
                return Err(no_place(place));
            }
            rows.push((index, slot as u32));
        }
        let whole = if codec.deletion() == Deletion::Group { group } else { rows.len().max(1) };
        let mut made = Vec::new();
        for rows in rows.chunks(whole) {
            let mut segment = self.segment_in(codec, rows.len())?;
            segment.encode(&self.segments, rows, self.options.scored)?;
            made.push(segment);
        }
        let left = self.sorted().into_iter().map(|entry| entry.place).filter(|place| !gone[*place as usize]);
        self.retain(&left.collect::<Vec<_>>())?;
        // In front, so that new entries follow those in full precision.
        self.segments.reserve_exact(made.len());
        self.segments.splice(0..0, made);
        self.len += places.len() as u32;
        self.note_dead();
        Ok(())
    }

    /// Stores the oldest entries in full precision in `codec`, but for the last ones, as soon as there are enough to
    /// encode.
    pub fn settle(&mut self, store: &Settling) -> Result<()> {
        let Settling { codec, window, block } = *store;
        let settled = self.plain().saturating_sub(window);
        if settled < block.max(codec.group()) {
            return Ok(());
        }
        let mut plain: Vec<Entry> = Vec::with_capacity(settled + window);
        let mut before = 0;
        for segment in &self.segments {
            if segment.codec().is_plain() {
                let of = |(slot, position): (usize, &u32)| Entry { position: *position, place: before + slot as u32 };
                plain.extend(segment.positions().iter().enumerate().map(of));
            }
            before += segment.len() as u32;
        }
        plain.sort_unstable_by_key(|entry| entry.position);
        let settled = settled / codec.group() * codec.group();
        let places: Vec<u32> = plain[..settled].iter().map(|entry| entry.place).collect();
        self.recode(&places, codec)
    }
}
