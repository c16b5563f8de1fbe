//! Transforms of keys and values whose duals, of queries and outputs, leave attention as it is.

use crate::simd;

/// The transforms of the keys and of the values of a lane. Keys `T k` are read by queries `T^-t q`, since `(T^-t q) . (T k) = q . k`; values
/// `U v` give outputs `U o`, which `U^-1` brings back. Both happen once per layer and step, whatever the number of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dual {
    #[default]
    None,
    /// [`Transform::Hadamard`] of keys (after the rotary embedding) and of values.
    Hadamard,
    /// [`Transform::Random`] of both.
    Random,
    /// [`Transform::Hadamard`] of keys alone: values that come transformed already, from weights that have the transform in them, are
    /// stored as they come.
    HadamardKeys,
    /// [`Transform::Hadamard`] of values alone: the inverse of the one that such values have come through.
    HadamardValues,
}

/// A linear map of each head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    None,
    /// The orthonormal Walsh-Hadamard transform: it spreads an outlier over all channels. It is its own inverse and its own dual. The
    /// number of channels is a power of two.
    Hadamard,
    /// The Hadamard transform of channels whose signs were turned at random, the same for all heads, layers and models: a random rotation,
    /// after which the channels of any entry look like those of a normal distribution (Ailon and Chazelle 2006, Approximate Nearest
    /// Neighbors and the Fast Johnson-Lindenstrauss Transform). Orthonormal, so it is its own dual; the signs are turned back last.
    Random,
}

/// Whether channel `i` changes its sign in [`Dual::Random`]: the last bit of MurmurHash3's finaliser.
pub(crate) const fn turns(channel: u32) -> bool {
    let mut bits = channel.wrapping_add(SEED);
    bits = (bits ^ bits >> 16).wrapping_mul(0x85eb_ca6b);
    bits = (bits ^ bits >> 13).wrapping_mul(0xc2b2_ae35);
    (bits ^ bits >> 16) & 1 == 1
}

/// Fixed for good: entries that were stored with another could not be read.
const SEED: u32 = 0x2504_1987;

fn turn(rows: &mut [f32], dim: usize) {
    let signs: Vec<f32> = (0..dim as u32).map(|channel| if turns(channel) { -1.0 } else { 1.0 }).collect();
    for row in rows.chunks_exact_mut(dim) {
        row.iter_mut().zip(&signs).for_each(|(x, sign)| *x *= sign);
    }
}

impl Dual {
    /// Whether there is nothing to do.
    pub const fn is_none(self) -> bool {
        matches!(self, Dual::None)
    }

    /// The transform of keys, and of the queries that read them.
    pub const fn keys(self) -> Transform {
        match self {
            Dual::None | Dual::HadamardValues => Transform::None,
            Dual::Hadamard | Dual::HadamardKeys => Transform::Hadamard,
            Dual::Random => Transform::Random,
        }
    }

    /// The transform of values, which outputs are brought back from.
    pub const fn values(self) -> Transform {
        match self {
            Dual::None | Dual::HadamardKeys => Transform::None,
            Dual::Hadamard | Dual::HadamardValues => Transform::Hadamard,
            Dual::Random => Transform::Random,
        }
    }

    /// The transforms that store entries as these do, where values come through a Hadamard transform already; after a random rotation they
    /// are others of that kind.
    pub const fn of_folded(self) -> Dual {
        match self {
            Dual::None => Dual::HadamardValues,
            Dual::Hadamard => Dual::HadamardKeys,
            Dual::Random => Dual::Random,
            Dual::HadamardKeys => Dual::Hadamard,
            Dual::HadamardValues => Dual::None,
        }
    }

    /// Why heads of `dim` elements cannot be transformed so.
    pub fn check(self, dim: usize) -> Result<(), String> {
        self.keys().check(dim).and_then(|()| self.values().check(dim))
    }
}

impl Transform {
    /// Whether there is nothing to do.
    pub const fn is_none(self) -> bool {
        matches!(self, Transform::None)
    }

    /// Why heads of `dim` elements cannot be transformed so.
    pub fn check(self, dim: usize) -> Result<(), String> {
        match self {
            Transform::Hadamard | Transform::Random if !dim.is_power_of_two() => {
                Err(format!("heads of {dim} channels, which are no power of two, for a Hadamard transform"))
            }
            _ => Ok(()),
        }
    }

    /// Transforms rows of `dim` elements: keys or values before they are stored, queries before they are used.
    pub fn apply(self, rows: &mut [f32], dim: usize) {
        match self {
            Transform::None => {}
            Transform::Hadamard => simd::hadamard(rows, dim),
            Transform::Random => {
                turn(rows, dim);
                simd::hadamard(rows, dim);
            }
        }
    }

    /// Brings outputs back, rows of `dim` elements.
    pub fn undo(self, rows: &mut [f32], dim: usize) {
        match self {
            Transform::None => {}
            Transform::Hadamard => simd::hadamard(rows, dim),
            Transform::Random => {
                simd::hadamard(rows, dim);
                turn(rows, dim);
            }
        }
    }
}
