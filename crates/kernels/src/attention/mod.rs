//! Attention over lanes: the one implementation that every model and every cache method uses.
//!
//! A lane holds the keys and values of a range of KV heads that share their entries. It is read run by run, whatever the
//! length of each, so ragged layers and ragged heads are the ordinary case. No buffer grows with the square of the length:
//! [`prefill`] holds one block of query rows against the visible keys per thread, [`decode`] one row per head.

mod among;
mod decode;
mod params;
mod prefill;
mod read;

pub use among::{copied, prefill_among};
pub use decode::{DecodeItem, decode};
pub use params::{AttentionParams, Mask};
pub use prefill::{Gather, prefill, prefill_unless, received};

pub use crate::codec::Run;
use crate::codec::{Basis, Dual};
use crate::rotary::Turns;
pub use crate::rows::Rows;

/// A lane as attention sees it: its runs in order of position.
#[derive(Clone)]
pub struct LaneView<'a> {
    /// KV heads of the lane.
    pub heads: usize,
    /// Of any codecs, all with one transform.
    pub runs: Vec<Run<'a, &'a [u8]>>,
    /// Keys are stored unrotated: the entries of the view (over all runs, in order) are rotated so when they are read. None: stored
    /// rotated.
    pub turns: Option<Turns<'a>>,
    /// Entries of the view that no longer count (deleted from a format that frees by group); the same for all heads. None: all
    /// count.
    pub dead: Option<&'a [bool]>,
    /// The position of every entry of the view, in any order; the same for all heads. Read where a window is, and needed there.
    pub positions: Option<&'a [u32]>,
    /// For each query of [`prefill`], whose own entries are the last ones of the view, how many of these it may see: those up to its own and,
    /// where positions see each other, the ones behind it of the same block. Never falls from query to query. None: up to its own.
    /// Only with [`Mask::Causal`].
    pub ends: Option<&'a [u32]>,
}

impl<'a> LaneView<'a> {
    /// A lane of rotated keys whose entries all count.
    pub fn new(heads: usize, runs: Vec<Run<'a, &'a [u8]>>) -> Self {
        LaneView { heads, runs, turns: None, dead: None, positions: None, ends: None }
    }

    /// Entries per head.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.len == 0)
    }

    /// Which of the entries `from .. to` are dead, counted from `from`.
    fn dead_of(&self, from: usize, to: usize) -> impl Iterator<Item = usize> {
        self.dead
            .iter()
            .flat_map(move |dead| dead[from..to].iter().enumerate().filter(|(_, dead)| **dead).map(|(at, _)| at))
    }

    /// The positions of the entries, when `params` have a window.
    fn windowed(&self, params: &AttentionParams) -> Option<&'a [u32]> {
        params.window.map(|_| self.positions.expect("a window needs the positions of the entries"))
    }

    /// How many of the last `last` entries, which are the queries' own, the query of the entry `own` of these sees.
    pub(crate) fn end_of(&self, own: usize) -> usize {
        self.ends.map_or(own + 1, |ends| ends[own] as usize)
    }

    /// The transforms that the keys and values were stored through. Attention takes its dual of the queries and of the results, once
    /// per call.
    pub fn dual(&self) -> Dual {
        self.runs.first().map_or(Dual::None, |run| run.codec.dual)
    }

    fn check(&self, dim: usize) {
        let (len, dual) = (self.len(), self.dual());
        for run in &self.runs {
            run.codec.check(dim).unwrap_or_else(|reason| panic!("{reason}"));
            assert!(run.len <= run.capacity, "{} entries of {}", run.len, run.capacity);
            assert!(run.codec.dual == dual, "entries of {:?} beside {dual:?}", run.codec.dual);
            let factors = run.gains.map_or([self.heads * run.capacity; 2], |of| [of.keys.len(), of.values.len()]);
            assert!(factors == [self.heads * run.capacity; 2], "{factors:?} factors of {} rows", run.capacity);
            let shape = run.basis.map_or((self.heads, dim), Basis::shape);
            assert!(shape == (self.heads, dim), "a basis of {shape:?} for {} heads of {dim}", self.heads);
            assert!(
                run.basis.map(Basis::based) == run.codec.basis,
                "entries in another basis than {:?}",
                run.codec.basis
            );
        }
        assert!(
            dual.keys().is_none() || self.turns.is_none(),
            "keys that are transformed cannot be rotated when they are read"
        );
        assert!(self.positions.is_none_or(|positions| positions.len() == len), "{len} entries, as many positions");
        assert!(self.dead.is_none_or(|dead| dead.len() == len), "{len} entries, as many marks of the dead");
        assert!(self.turns.is_none_or(|turns| turns.of.len() >= len), "{len} entries need an angle each");
    }
}

#[cfg(test)]
mod tests;
