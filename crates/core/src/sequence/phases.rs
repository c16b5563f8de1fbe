//! Where rotary embedding turns the entries of a sequence: one mechanism, three sources.

use prefixkv_kernels::rotary::Phase;

use super::{Sequence, Work};
use crate::cache::{Lane, Memory};
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
}

impl Phases {
    fn in_order(first: u32, n: usize) -> Phases {
        Phases::Stored((first..first + n as u32).map(|phase| [phase; 3]).collect())
    }
}

impl<M: Memory> Sequence<M> {
    /// The phases of the `n` positions that are on their way.
    pub fn phases(&self, n: usize) -> Phases {
        let first = match self.source {
            Source::Rank => return Phases::Ranks((self.longest_lane() + n) as u32),
            Source::Held => self.layers.first().and_then(|lanes| lanes.first()).map_or(0, Lane::len) as u32,
            Source::Family => self.next_phase,
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
            Placing::Placed { phases, .. } => {
                let way = phases.iter().skip(reach.done).take(n);
                Phases::Stored(way.map(|phase| phase.map(|axis| first + axis)).collect())
            }
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
    pub fn rotates_on_read(&self) -> bool {
        self.source == Source::Rank
    }
}
