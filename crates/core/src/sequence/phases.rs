//! Where rotary embedding turns the entries of a sequence: one mechanism, three sources.

use prefixkv_kernels::rotary::Phase;

use super::{Sequence, Work};
use crate::cache::{Account, Charge, Get, Lane, Memory, Put};
use crate::error::{Error, Result};
use crate::fields::refuse;

/// The phases of a prompt, counted from where the sequence is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placing {
    /// Each position one behind the last, the same on all axes.
    #[default]
    InOrder,
    /// By the family: a phase per position, and by how much the prompt moves the sequence on.
    Placed { phases: Vec<Phase>, advance: u32 },
}

/// The source of the entries' phases. The position of an entry, which says what it is, is no matter of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The family places prompts; then a counter goes on.
    Family,
    /// The number of entries that the first layer holds, as the published code of PrefixKV has it.
    Held,
    /// The rank among the entries that are left, whenever an entry is read. Xiao et al. 2024, arXiv 2309.17453.
    Rank,
}

/// How one pass turns queries and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phases {
    /// One per new position; keys are stored rotated.
    Stored(Vec<Phase>),
    /// Keys are stored as they are, and rotated to their ranks when they are read; no rank reaches this number.
    Ranks(u32),
    /// Keys are stored as they are, and rotated to the phase of their own position when they are read: `positions`, ascending, are those
    /// held anywhere and those on their way, `phases` one for each.
    OnRead { positions: Vec<u32>, phases: Vec<Phase> },
}

/// The phases of all positions so far, of a sequence whose keys are rotated to them when they are read. Text and the rows of an image are
/// a stretch each, so a prompt of text alone takes one, and an image as many as it has rows.
#[derive(Debug, Default)]
pub(super) struct Track {
    stretches: Vec<Stretch>,
    /// Positions so far.
    len: u32,
    charge: Option<Charge>,
}

/// Positions from `start` up to the next stretch: the first is turned to `first`, each further one by `step` more, which may be negative
/// and wraps.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    start: u32,
    first: Phase,
    step: Phase,
}

impl Stretch {
    fn at(&self, position: u32) -> Phase {
        let times = position - self.start;
        [0, 1, 2].map(|axis| self.first[axis].wrapping_add(self.step[axis].wrapping_mul(times)))
    }
}

impl Track {
    /// The phases of the next positions.
    fn extend<M: Memory>(&mut self, phases: impl Iterator<Item = Phase>, account: &Account<M>) -> Result<()> {
        for phase in phases {
            let position = self.len;
            self.len += 1;
            match self.stretches.last_mut() {
                // Of a stretch of two, any step will do.
                Some(last) if position == last.start + 1 => {
                    last.step = [0, 1, 2].map(|axis| phase[axis].wrapping_sub(last.first[axis]));
                }
                Some(last) if last.at(position) == phase => {}
                _ => self.stretches.push(Stretch { start: position, first: phase, step: [0; 3] }),
            }
        }
        self.count(account)
    }

    /// Counts its bytes on `account`.
    fn count<M: Memory>(&mut self, account: &Account<M>) -> Result<()> {
        self.charge = None;
        self.charge = Some(account.charge(self.bytes())?);
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.stretches.capacity() * size_of::<Stretch>()) as u64
    }

    pub(super) fn fork<M: Memory>(&self, account: &Account<M>) -> Result<Track> {
        let mut fork = Track { stretches: self.stretches.clone(), len: self.len, charge: None };
        fork.count(account)?;
        Ok(fork)
    }

    /// Writes the phases so far.
    pub(super) fn save(&self, to: &mut dyn Put) -> Result<()> {
        to.put_u32(self.stretches.len() as u32)?;
        for Stretch { start, first, step } in &self.stretches {
            to.put_u32(*start)?;
            first.iter().chain(step).try_for_each(|number| to.put_u32(*number))?;
        }
        Ok(())
    }

    /// The phases of `len` positions.
    pub(super) fn restore<M: Memory>(from: &mut dyn Get, len: u32, account: &Account<M>) -> Result<Track> {
        let count = from.get_count(7 * 4, "stretches of phases")?;
        let mut stretches: Vec<Stretch> = Vec::with_capacity(count);
        for _ in 0..count {
            let start = from.get_u32()?;
            let mut numbers = [0; 6];
            for number in &mut numbers {
                *number = from.get_u32()?;
            }
            let [a, b, c, d, e, f] = numbers;
            let least = stretches.last().map_or(0, |last| last.start + 1);
            if start < least || start >= len || (stretches.is_empty() && start > 0) {
                return Err(from.corrupt(format!("phases from position {start} on, of {len}")));
            }
            stretches.push(Stretch { start, first: [a, b, c], step: [d, e, f] });
        }
        let mut track = Track { stretches, len, charge: None };
        track.count(account)?;
        Ok(track)
    }

    /// The phase of a position that was there.
    fn phase(&self, position: u32) -> Phase {
        let stretch = self.stretches.partition_point(|stretch| stretch.start <= position);
        self.stretches[..stretch].last().map_or([position; 3], |stretch| stretch.at(position))
    }
}

impl Phases {
    fn in_order(first: u32, n: usize) -> Phases {
        Phases::Stored((first..first + n as u32).map(|phase| [phase; 3]).collect())
    }
}

impl<M: Memory> Sequence<M> {
    /// The phases of the `n` positions that are on their way, and of all that are read where keys are rotated then.
    pub fn phases(&self, n: usize) -> Phases {
        if let Some(track) = &self.track {
            let positions = self.held_or_on_the_way(n, track.len);
            let phases = positions.iter().map(|position| track.phase(*position)).collect();
            return Phases::OnRead { positions, phases };
        }
        let first = match self.source {
            Source::Rank => return Phases::Ranks((self.longest_lane() + n) as u32),
            Source::Held | Source::Family => self.first_phase(),
        };
        let Work::Prompt(reach) = self.work else { return Phases::in_order(first, n) };
        if let Some(offsets) = self.offsets() {
            let of = |offset: usize| -> Phase {
                match &self.placing {
                    Placing::InOrder => [first + offset as u32; 3],
                    Placing::Placed { phases, .. } => phases[offset].map(|axis| first + axis),
                }
            };
            return Phases::Stored(offsets.map(of).collect());
        }
        match &self.placing {
            _ if self.source == Source::Held => Phases::in_order(first, n),
            Placing::InOrder => Phases::in_order(first + reach.done as u32, n),
            Placing::Placed { phases, advance } => {
                let way = phases.iter().copied().skip(reach.done).take(n);
                let way = way.chain(self.repeated_phases(phases, *advance, reach.tail));
                Phases::Stored(way.map(|phase| phase.map(|axis| first + axis)).collect())
            }
        }
    }

    /// The phase of the next position, if nothing else places it.
    fn first_phase(&self) -> u32 {
        match self.source {
            Source::Held => self.layers.first().and_then(|lanes| lanes.first()).map_or(0, Lane::len) as u32,
            Source::Family | Source::Rank => self.next_phase,
        }
    }

    /// Of `end` positions, those that any lane holds and the `n` that are on their way, ascending.
    fn held_or_on_the_way(&self, n: usize, end: u32) -> Vec<u32> {
        let mut read = vec![false; end as usize];
        self.on_the_way(n).into_iter().for_each(|position| read[position as usize] = true);
        for lane in self.layers.iter().flatten() {
            for part in (0..).map_while(|index| lane.part(index)) {
                part.positions.iter().for_each(|position| read[*position as usize] = true);
            }
        }
        (0..).zip(read).filter_map(|(position, read)| read.then_some(position)).collect()
    }

    /// Remembers the phases of a prompt that begins, where they are needed later.
    pub(super) fn track_prompt(&mut self, n: usize) -> Result<()> {
        let first = self.first_phase();
        let Some(track) = &mut self.track else { return Ok(()) };
        match &self.placing {
            Placing::InOrder => track.extend((first..).take(n).map(|phase| [phase; 3]), &self.account),
            Placing::Placed { phases, .. } => {
                track.extend(phases.iter().map(|phase| phase.map(|axis| first + axis)), &self.account)
            }
        }
    }

    /// As [`Sequence::track_prompt`] of a generated token.
    pub(super) fn track_step(&mut self) -> Result<()> {
        let first = self.first_phase();
        match &mut self.track {
            Some(track) => track.extend(std::iter::once([first; 3]), &self.account),
            None => Ok(()),
        }
    }

    /// The phase of the next token, where the family places it: a counter apart from positions, since an image may take more positions
    /// than phases.
    pub fn next_phase(&self) -> u32 {
        self.next_phase
    }

    /// Refuses phases that are not one per position, or that a method which places entries itself would ignore.
    pub(super) fn require_placeable(&self, placing: &Placing, n: usize) -> Result<()> {
        let Placing::Placed { phases, .. } = placing else { return Ok(()) };
        if self.source != Source::Family {
            return Err(refuse(
                "the positions of this prompt are placed along three axes, which positions \"cache\" and \"official\" do not know: \
                 use positions \"true\"",
            ));
        }
        if phases.len() != n {
            return Err(Error::Internal(format!("{} phases of {n} positions", phases.len())));
        }
        Ok(())
    }

    /// Whether keys are rotated to their ranks whenever they are read.
    pub fn rotates_to_ranks(&self) -> bool {
        self.source == Source::Rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Pool;

    #[test]
    fn phases_of_the_past_take_little() {
        let pool: Pool = Pool::unlimited();
        let account = pool.account();
        // Text, an image of 3 x 40 cells, text, and a phase that stays where it is.
        let grid = (0..120u32).map(|cell| [7, 7 + cell / 40, 7 + cell % 40]);
        let text = |from: u32, n: u32| (from..from + n).map(|phase| [phase; 3]);
        let all: Vec<Phase> = text(0, 7)
            .chain(grid)
            .chain(text(47, 900))
            .chain(std::iter::repeat_n([5; 3], 4))
            .chain([[9, 2, 1]])
            .collect();
        let mut track = Track::default();
        for piece in all.chunks(50) {
            track.extend(piece.iter().copied(), &account).expect("no cap");
        }
        let fork = track.fork(&account).expect("no cap");
        for (position, want) in all.iter().enumerate() {
            assert_eq!((track.phase(position as u32), fork.phase(position as u32)), (*want, *want), "{position}");
        }
        assert!(track.stretches.len() <= 8, "{:?}", track.stretches);
        assert_eq!(pool.used(), track.bytes() + fork.bytes());
        drop((track, fork));
        assert_eq!(pool.used(), 0);
    }
}
