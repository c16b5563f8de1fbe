//! Entries of a lane that change their codec.

use std::sync::Arc;

use prefixkv_kernels::codec::{Basis, Deletion, KvCodec};

use super::lane::{Lane, no_place};
use super::memory::{Form, Memory};
use super::pool::Charge;
use super::segment::Segment;
use super::twin::{Common, TOGETHER};
use crate::error::{Error, Result};

/// Entries of a lane that change their codec.
#[derive(Clone, Debug)]
pub struct Recode {
    pub codec: KvCodec,
    /// The basis that the codec names.
    pub basis: Option<Arc<Basis>>,
    /// In the order of their positions, as many as fill the codec's groups.
    pub places: Vec<u32>,
}

/// Entries of two lanes that are stored once from now on.
#[derive(Clone, Debug)]
pub struct Together {
    /// Of what is stored, which is deleted from by entry.
    pub codec: KvCodec,
    pub common: Common,
    /// In each lane, in the order of their positions.
    pub places: [Vec<u32>; 2],
}

impl Recode {
    /// In the coordinates of the heads.
    pub fn new(codec: KvCodec, places: Vec<u32>) -> Recode {
        Recode { codec, basis: None, places }
    }
}

impl<M: Memory> Lane<M> {
    /// Stores the entries at the places of each part, in the order of their positions, in its codec, whose groups they fill; in whatever
    /// codecs they are. For a moment they are there twice.
    pub fn recode(&mut self, parts: &[Recode]) -> Result<()> {
        let mut gone = vec![false; self.places()];
        let mut made = Vec::new();
        for Recode { codec, basis, places } in parts {
            let (group, dual) = (codec.group(), self.options().codec.dual);
            if !places.len().is_multiple_of(group) || codec.dual != dual {
                return Err(Error::Internal(format!("{} entries of {dual:?} to be stored in {codec:?}", places.len())));
            }
            let mut rows = Vec::with_capacity(places.len());
            self.rows_at(places, &mut gone, &mut rows)?;
            if let Some(basis) = basis.as_ref().filter(|_| !rows.is_empty()) {
                self.count_basis(basis)?;
            }
            let whole = if codec.deletion() == Deletion::Group { group } else { rows.len().max(1) };
            for rows in rows.chunks(whole) {
                let mut segment = self.segment_in(*codec, basis.clone(), rows.len())?;
                segment.encode(&self.segments, rows, self.options().scored)?;
                made.push(segment);
            }
        }
        self.replace(&gone, made)
    }

    /// `made` takes the place of the entries at the places that are gone.
    fn replace(&mut self, gone: &[bool], made: Vec<Segment<M>>) -> Result<()> {
        let left = self.sorted().into_iter().map(|entry| entry.place).filter(|place| !gone[*place as usize]);
        self.keep(&left.collect::<Vec<_>>())?;
        self.len += made.iter().map(|segment| segment.len() as u32).sum::<u32>();
        // In front, so that new entries follow those in full precision.
        self.segments.reserve_exact(made.len());
        self.segments.splice(0..0, made);
        self.forget_bases();
        self.note_dead();
        Ok(())
    }

    /// Stores the entries at the places of two lanes, which are at the same positions, once, from which either lane has its own by what
    /// `common` says. For a moment they are there twice.
    pub fn store_together(lanes: [&mut Lane<M>; 2], Together { codec, common, places }: &Together) -> Result<()> {
        let [first, second] = lanes;
        let ((options, other), heads) = ((first.options(), second.options()), first.heads());
        let alike = (heads.len(), options.head_dim, options.codec.dual, options.rotation)
            == (second.heads().len(), other.head_dim, other.codec.dual, other.rotation);
        if !alike || codec.dual != options.codec.dual || places[0].len() != places[1].len() {
            return Err(Error::Internal("entries of two lanes that differ to be stored once".into()));
        }
        let (mut gone, mut rows) =
            ([vec![false; first.places()], vec![false; second.places()]], [Vec::new(), Vec::new()]);
        for (lane, ((places, gone), rows)) in
            [&*first, &*second].into_iter().zip(places.iter().zip(&mut gone).zip(&mut rows))
        {
            lane.rows_at(places, gone, rows)?;
        }
        if let Common::Coordinates { bases } = common
            && !rows[0].is_empty()
        {
            first.count_basis(&bases[0])?;
            second.count_basis(&bases[1])?;
        }
        let mut made = [Vec::new(), Vec::new()];
        for (one, two) in rows[0].chunks(TOGETHER).zip(rows[1].chunks(TOGETHER)) {
            let (dim, capacity) = (options.head_dim, one.len());
            let form = Form { codec: *codec, heads: heads.len(), dim, capacity, basis: None, gains: None };
            let (account, scored) = (&first.account, [options.scored, other.scored]);
            let from = [&first.segments[..], &second.segments[..]];
            let twins = Segment::twins(account, form, from, [one, two], common, scored)?;
            made.iter_mut().zip(twins).for_each(|(made, twin)| made.push(twin));
        }
        let ([gone, gone_too], [made, made_too]) = (gone, made);
        first.replace(&gone, made)?;
        second.replace(&gone_too, made_too)
    }

    /// The segments and slots of entries that go, each named once.
    fn rows_at(&self, places: &[u32], gone: &mut [bool], rows: &mut Vec<(usize, u32)>) -> Result<()> {
        for &place in places {
            let (index, slot) = self.find(place).ok_or_else(|| no_place(place))?;
            if std::mem::replace(&mut gone[place as usize], true) || self.segments[index].dead().has(slot) {
                return Err(no_place(place));
            }
            rows.push((index, slot as u32));
        }
        Ok(())
    }

    /// Counts a basis that its segments are about to have, unless it is counted already.
    pub(super) fn count_basis(&mut self, basis: &Arc<Basis>) -> Result<()> {
        if self.bases.iter().all(|(known, _)| known != basis) {
            let charge = self.account.charge(basis_bytes(basis))?;
            let mut bases = std::mem::take(&mut self.bases).into_vec();
            bases.reserve_exact(1);
            bases.push((basis.clone(), charge));
            self.bases = bases.into();
        }
        Ok(())
    }

    /// Forgets bases that no segment has any more.
    pub(super) fn forget_bases(&mut self) {
        if !self.bases.is_empty() {
            let segments = &self.segments;
            let mut bases = std::mem::take(&mut self.bases).into_vec();
            bases.retain(|(basis, _)| segments.iter().any(|segment| segment.basis() == Some(basis)));
            self.bases = bases.into();
        }
    }
}

/// Bytes of a basis and of its place in a lane.
pub(super) fn basis_bytes(basis: &Arc<Basis>) -> u64 {
    (basis.bytes() + size_of::<(Arc<Basis>, Charge)>()) as u64
}
