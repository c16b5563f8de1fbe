//! Entries of a lane that change their codec.

use prefixkv_kernels::codec::{Deletion, KvCodec};

use super::lane::{Lane, no_place};
use super::memory::Memory;
use crate::error::{Error, Result};

impl<M: Memory> Lane<M> {
    /// Stores the entries at the places of each part, in the order of their positions, in its codec, whose groups they fill; in whatever
    /// codecs they are. For a moment they are there twice.
    pub fn recode(&mut self, parts: &[(KvCodec, Vec<u32>)]) -> Result<()> {
        let mut gone = vec![false; self.places()];
        let mut made = Vec::new();
        for (codec, places) in parts {
            let (group, dual) = (codec.group(), self.options.codec.dual);
            if !places.len().is_multiple_of(group) || codec.dual != dual {
                return Err(Error::Internal(format!("{} entries of {dual:?} to be stored in {codec:?}", places.len())));
            }
            let mut rows = Vec::with_capacity(places.len());
            for &place in places {
                let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
                if std::mem::replace(&mut gone[place as usize], true) || self.segments[index].dead().has(slot) {
                    return Err(no_place(place));
                }
                rows.push((index, slot as u32));
            }
            let whole = if codec.deletion() == Deletion::Group { group } else { rows.len().max(1) };
            for rows in rows.chunks(whole) {
                let mut segment = self.segment_in(*codec, rows.len())?;
                segment.encode(&self.segments, rows, self.options.scored)?;
                made.push(segment);
            }
        }
        let left = self.sorted().into_iter().map(|entry| entry.place).filter(|place| !gone[*place as usize]);
        self.retain(&left.collect::<Vec<_>>())?;
        self.len += made.iter().map(|segment| segment.len() as u32).sum::<u32>();
        // In front, so that new entries follow those in full precision.
        self.segments.reserve_exact(made.len());
        self.segments.splice(0..0, made);
        self.note_dead();
        Ok(())
    }
}
