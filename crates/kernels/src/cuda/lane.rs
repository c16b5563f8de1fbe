//! What attention sees of a lane on a device.

use super::args;
use super::{Element, Result, Slice, count, require};
use crate::attention::AttentionParams;

/// Entries of a lane that lie one after another: head `h`, entry `e` is at `(h * capacity + e) * head_dim`.
#[derive(Clone, Copy)]
pub struct Run<'a, T> {
    pub keys: Slice<'a, T>,
    pub values: Slice<'a, T>,
    /// Entries in use.
    pub len: usize,
    /// Entries that there is room for, per head.
    pub capacity: usize,
}

/// A lane: its runs in order of position, all in one format, keys stored rotated.
#[derive(Clone)]
pub struct Lane<'a, T> {
    /// KV heads of the lane.
    pub heads: usize,
    pub runs: Vec<Run<'a, T>>,
    /// One byte per entry (over all runs, in order), not 0 for those that no longer count; the same for all heads. None: all
    /// count.
    pub dead: Option<Slice<'a, u8>>,
    /// The position of every entry, in any order; the same for all heads. On the host: sent where a window needs it.
    pub positions: Option<&'a [u32]>,
}

impl<'a, T: Element> Lane<'a, T> {
    /// A lane whose entries all count.
    pub fn new(heads: usize, runs: Vec<Run<'a, T>>) -> Self {
        Lane { heads, runs, dead: None, positions: None }
    }

    /// The positions of the entries, when `params` have a window.
    pub(super) fn windowed(&self, params: &AttentionParams) -> Result<Option<&'a [u32]>> {
        if params.window.is_none() {
            return Ok(None);
        }
        let positions = self.positions.unwrap_or(&[]);
        require(positions.len() == self.len(), || {
            format!("{} positions of {} entries under a window", positions.len(), self.len())
        })?;
        Ok(Some(positions))
    }

    /// Entries per head.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.len == 0)
    }

    /// Checks the lane and adds its runs to those of a launch.
    pub(super) fn describe(&self, dim: usize, runs: &mut Vec<args::Run>) -> Result<()> {
        let mut start = 0;
        for run in &self.runs {
            let want = self.heads * run.capacity * dim;
            require(run.len <= run.capacity && run.keys.len() == want && run.values.len() == want, || {
                format!(
                    "{} keys and {} values for {} heads of {} entries of {}, {dim} elements each",
                    run.keys.len(),
                    run.values.len(),
                    self.heads,
                    run.len,
                    run.capacity
                )
            })?;
            require(run.keys.aligned(16) && run.values.aligned(16), || {
                "keys or values that are not aligned to 16 bytes".into()
            })?;
            runs.push(args::Run {
                keys: run.keys.address(),
                values: run.values.address(),
                start: count(start, "entries")?,
                len: count(run.len, "entries")?,
                capacity: count(run.capacity, "entries")?,
                unused: 0,
            });
            start += run.len;
        }
        count(start, "entries")?;
        require(self.dead.as_ref().is_none_or(|dead| dead.len() == start), || {
            format!("{start} entries, as many marks of the dead")
        })
    }
}
