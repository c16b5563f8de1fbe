//! Attention over lanes: the one implementation that every model and every cache method uses.
//!
//! A lane holds the keys and values of a range of KV heads that share their entries. It is read run by run, whatever the
//! length of each, so ragged layers and ragged heads are the ordinary case. No buffer grows with the square of the length:
//! [`prefill`] holds one block of query rows against the visible keys per thread, [`decode`] one row per head.

mod decode;
mod params;
mod prefill;
mod read;

pub use decode::{DecodeItem, decode};
pub use params::{AttentionParams, Mask};
pub use prefill::{Gather, prefill, prefill_unless};

use half::f16;

use crate::int4::{self, Int4Run};
use crate::rotary::Angles;
pub use crate::rows::Rows;

/// Entries of a lane that lie one after another in one format: head `h`, entry `e` is at `(h * capacity + e) * head_dim`.
#[derive(Clone, Copy)]
pub struct Run<'a, T> {
    pub keys: &'a [T],
    pub values: &'a [T],
    /// Entries in use.
    pub len: usize,
    /// Entries that there is room for, per head.
    pub capacity: usize,
}

impl<'a, T> Run<'a, T> {
    fn head(&self, head: usize, from: usize, to: usize, dim: usize) -> (&'a [T], &'a [T]) {
        let start = (head * self.capacity + from) * dim;
        let end = (head * self.capacity + to) * dim;
        (&self.keys[start..end], &self.values[start..end])
    }
}

/// A run in one of the storage formats.
#[derive(Clone, Copy)]
pub enum AnyRun<'a> {
    F32(Run<'a, f32>),
    F16(Run<'a, f16>),
    /// [`int4::GROUP`] entries.
    Int4(Int4Run<'a>),
}

impl AnyRun<'_> {
    pub fn len(&self) -> usize {
        match self {
            AnyRun::F32(run) => run.len,
            AnyRun::F16(run) => run.len,
            AnyRun::Int4(_) => int4::GROUP,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What attention sees of a lane: its runs in order of position.
#[derive(Clone)]
pub struct LaneView<'a> {
    /// KV heads of the lane.
    pub heads: usize,
    pub runs: Vec<AnyRun<'a>>,
    /// Keys are stored unrotated: entry `e` of the view (over all runs, in order) is rotated by angle `e` when it is read. None:
    /// stored rotated.
    pub phases: Option<&'a Angles>,
    /// Entries of the view that no longer count (deleted from a format that frees by group); the same for all heads. None: all
    /// count.
    pub dead: Option<&'a [bool]>,
    /// The position of every entry of the view, in any order; the same for all heads. Read where a window is, and needed there.
    pub positions: Option<&'a [u32]>,
}

impl<'a> LaneView<'a> {
    /// A lane of rotated keys whose entries all count.
    pub fn new(heads: usize, runs: Vec<AnyRun<'a>>) -> Self {
        LaneView { heads, runs, phases: None, dead: None, positions: None }
    }

    /// Entries per head.
    pub fn len(&self) -> usize {
        self.runs.iter().map(AnyRun::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(AnyRun::is_empty)
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

    fn check(&self) {
        let len = self.len();
        assert!(self.positions.is_none_or(|positions| positions.len() == len), "{len} entries, as many positions");
        assert!(self.dead.is_none_or(|dead| dead.len() == len), "{len} entries, as many marks of the dead");
        assert!(self.phases.is_none_or(|angles| angles.positions() >= len), "{len} entries need an angle each");
    }
}

#[cfg(test)]
mod tests;
