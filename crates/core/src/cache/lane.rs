//! One lane: entries in exactly sized extents, then a tail that grows in small blocks.

use std::ops::Range;

use prefixkv_kernels::attention::{AnyRun, LaneView, Rows, Run};
use prefixkv_kernels::rotary::{self, Angles};

use super::pool::{Account, Buffer, Charge, Data, Format};
use crate::error::Result;

/// Entries per block of the tail. The slack of a lane is at most one block less one entry.
pub const TAIL_BLOCK: usize = 16;

/// Keys and values of consecutive entries, `[heads, capacity, head_dim]` each.
#[derive(Debug)]
struct Stretch {
    keys: Buffer,
    values: Buffer,
    len: usize,
    capacity: usize,
    /// The entries' positions, four bytes each.
    _metadata: Charge,
}

impl Stretch {
    fn view(&self) -> AnyRun<'_> {
        match (&self.keys.data, &self.values.data) {
            (Data::F32(keys), Data::F32(values)) => {
                AnyRun::F32(Run { keys, values, len: self.len, capacity: self.capacity })
            }
            (Data::F16(keys), Data::F16(values)) => {
                AnyRun::F16(Run { keys, values, len: self.len, capacity: self.capacity })
            }
            _ => unreachable!("keys and values of a stretch share one format"),
        }
    }
}

/// The entries of one sequence, one layer and the KV heads `heads`, which share their positions.
#[derive(Debug)]
pub struct Lane {
    heads: Range<usize>,
    head_dim: usize,
    format: Format,
    positions: Vec<u32>,
    stretches: Vec<Stretch>,
    account: Account,
}

impl Lane {
    pub fn new(heads: Range<usize>, head_dim: usize, format: Format, account: Account) -> Self {
        Lane { heads, head_dim, format, positions: Vec::new(), stretches: Vec::new(), account }
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The KV heads whose entries these are.
    pub fn heads(&self) -> Range<usize> {
        self.heads.clone()
    }

    /// The place of every entry in the original sequence, ascending.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Bytes of the entries themselves.
    pub fn payload(&self) -> u64 {
        (self.len() * 2 * self.heads.len() * self.head_dim * self.format.bytes()) as u64
    }

    /// Bytes of the entries' positions.
    pub fn metadata(&self) -> u64 {
        (self.positions.len() * size_of::<u32>()) as u64
    }

    /// What attention reads.
    pub fn view(&self) -> LaneView<'_> {
        LaneView::new(self.heads.len(), self.stretches.iter().map(Stretch::view).collect())
    }

    /// Adds `n` entries at consecutive positions from `first`, rotating the keys by `angles`.
    ///
    /// A run of more than one tail block becomes an extent of exactly its size; fewer entries go to the tail. `keys` and
    /// `values` hold all KV heads of the layer.
    pub fn append(&mut self, keys: Rows<'_>, values: Rows<'_>, n: usize, first: u32, angles: &Angles) -> Result<()> {
        if n > TAIL_BLOCK {
            self.grow(n)?;
            self.write(keys, values, n, angles);
        } else {
            // At most two blocks are touched; single decode steps touch one.
            let room = self.stretches.last().map_or(0, |last| last.capacity - last.len);
            if room < n {
                if room > 0 {
                    return self.append_across(keys, values, n, first, angles, room);
                }
                self.grow(TAIL_BLOCK)?;
            }
            self.write(keys, values, n, angles);
        }
        self.positions.extend(first..first + n as u32);
        Ok(())
    }

    fn append_across(
        &mut self,
        keys: Rows<'_>,
        values: Rows<'_>,
        n: usize,
        first: u32,
        angles: &Angles,
        room: usize,
    ) -> Result<()> {
        // Both blocks exist before anything is written, so that a refusal leaves the lane as it was.
        self.grow(TAIL_BLOCK)?;
        let fresh = self.stretches.pop();
        self.write_part(keys, values, 0, room, angles);
        self.stretches.extend(fresh);
        self.write_part(keys, values, room, n - room, angles);
        self.positions.extend(first..first + n as u32);
        Ok(())
    }

    fn grow(&mut self, capacity: usize) -> Result<()> {
        let elements = self.heads.len() * capacity * self.head_dim;
        let stretch = Stretch {
            keys: self.account.allocate(self.format, elements)?,
            values: self.account.allocate(self.format, elements)?,
            len: 0,
            capacity,
            _metadata: self.account.charge((capacity * size_of::<u32>()) as u64)?,
        };
        self.positions.reserve_exact(capacity);
        self.stretches.push(stretch);
        Ok(())
    }

    fn write(&mut self, keys: Rows<'_>, values: Rows<'_>, n: usize, angles: &Angles) {
        self.write_part(keys, values, 0, n, angles);
    }

    /// Writes the rows `skip .. skip + n` behind the entries of the last stretch.
    fn write_part(&mut self, keys: Rows<'_>, values: Rows<'_>, skip: usize, n: usize, angles: &Angles) {
        let (heads, dim) = (self.heads.clone(), self.head_dim);
        let Some(last) = self.stretches.last_mut() else { return };
        let rows = rotary::New { keys, values, skip, n, angles: Some(angles) };
        match (&mut last.keys.data, &mut last.values.data) {
            (Data::F32(to_keys), Data::F32(to_values)) => {
                rotary::append(rows, heads, dim, to_keys, to_values, last.len);
            }
            (Data::F16(to_keys), Data::F16(to_values)) => {
                rotary::append(rows, heads, dim, to_keys, to_values, last.len);
            }
            _ => unreachable!("keys and values of a stretch share one format"),
        }
        last.len += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Pool;

    /// Appends `counts` in turn and checks that the lane reads like one long append.
    fn check(counts: &[usize], format: Format) {
        let (heads, dim) = (2, 4);
        let total: usize = counts.iter().sum();
        let data: Vec<f32> = (0..total * heads * dim).map(|i| (i % 251) as f32).collect();
        let frequencies = [1.0, 0.01];
        let pool = Pool::unlimited();
        let account = pool.account();
        let mut lane = Lane::new(0..heads, dim, format, account.clone());
        let mut at = 0;
        for &n in counts {
            let rows = Rows::strided(&data, at * heads * dim, heads * dim);
            let angles = Angles::new(at as u32..(at + n) as u32, &frequencies, 1.0);
            lane.append(rows, rows, n, at as u32, &angles).expect("no cap");
            at += n;
        }
        assert_eq!(lane.positions(), (0..total as u32).collect::<Vec<_>>());
        assert_eq!(lane.payload(), (total * 2 * heads * dim * format.bytes()) as u64);
        let slack = account.used() - lane.payload() - lane.metadata();
        let entry = (2 * heads * dim * format.bytes() + 4) as u64;
        assert!(slack < TAIL_BLOCK as u64 * entry * counts.len() as u64);

        let mut whole = Lane::new(0..heads, dim, format, pool.account());
        let angles = Angles::new(0..total as u32, &frequencies, 1.0);
        let rows = Rows::dense(&data, heads * dim);
        // One extent, whatever the length.
        whole.grow(total).expect("no cap");
        whole.write(rows, rows, total, &angles);
        let flat = |lane: &Lane, head: usize| {
            let mut out = Vec::new();
            for run in &lane.view().runs {
                match run {
                    AnyRun::F32(run) => {
                        let at = head * run.capacity * dim;
                        out.extend_from_slice(&run.keys[at..at + run.len * dim]);
                        out.extend_from_slice(&run.values[at..at + run.len * dim]);
                    }
                    AnyRun::F16(run) => {
                        let at = head * run.capacity * dim;
                        out.extend(run.keys[at..at + run.len * dim].iter().map(|x| x.to_f32()));
                        out.extend(run.values[at..at + run.len * dim].iter().map(|x| x.to_f32()));
                    }
                    AnyRun::Int4(_) => unreachable!("lanes hold f32 or f16"),
                }
            }
            out.sort_by(f32::total_cmp);
            out
        };
        for head in 0..heads {
            assert_eq!(flat(&lane, head), flat(&whole, head));
        }
        drop((lane, whole));
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn appends_of_any_size_read_like_one() {
        for format in [Format::F32, Format::F16] {
            check(&[1; 40], format);
            check(&[17, 1, 1], format);
            check(&[100, 5, 14, 16, 2, 31, 1], format);
            check(&[3, 15, 15, 15], format);
        }
    }

    #[test]
    fn a_refused_append_leaves_the_lane_whole() {
        let data = vec![1.0; 64 * 4];
        let pool = Pool::with_cap(20 * (2 * 4 * 4 + 4));
        let mut lane = Lane::new(0..1, 4, Format::F32, pool.account());
        let rows = Rows::dense(&data, 4);
        let angles = |n: u32| Angles::new(0..n, &[1.0, 0.5], 1.0);
        lane.append(rows, rows, 10, 0, &angles(10)).expect("one block fits");
        assert!(lane.append(rows, rows, 10, 10, &angles(10)).is_err());
        assert_eq!(lane.len(), 10);
        lane.append(rows, rows, 6, 10, &angles(6)).expect("the block has room for six more");
        assert_eq!((lane.len(), lane.view().len()), (16, 16));
    }
}
