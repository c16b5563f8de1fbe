//! Transforms of keys and values whose duals, of queries and outputs, leave attention as it is.

use crate::simd;

/// Keys `T k` are read by queries `T^-t q`, since `(T^-t q) . (T k) = q . k`; values `U v` give outputs `U o`, which `U^-1` brings back.
/// Both happen once per layer and step, whatever the number of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dual {
    #[default]
    None,
    /// The orthonormal Walsh-Hadamard transform of each head, for keys (after the rotary embedding) and for values: it spreads an
    /// outlier over all channels. It is its own inverse. The number of channels is a power of two.
    Hadamard,
}

impl Dual {
    /// Whether there is nothing to do.
    pub const fn is_none(self) -> bool {
        matches!(self, Dual::None)
    }

    /// Why heads of `dim` elements cannot be transformed so.
    pub fn check(self, dim: usize) -> Result<(), String> {
        match self {
            Dual::Hadamard if !dim.is_power_of_two() => {
                Err(format!("heads of {dim} channels, which are no power of two, for a Hadamard transform"))
            }
            _ => Ok(()),
        }
    }

    /// Transforms rows of `dim` elements: keys or values before they are stored, queries before they are used.
    pub fn apply(self, rows: &mut [f32], dim: usize) {
        match self {
            Dual::None => {}
            Dual::Hadamard => simd::hadamard(rows, dim),
        }
    }

    /// Brings outputs back, rows of `dim` elements.
    pub fn undo(self, rows: &mut [f32], dim: usize) {
        self.apply(rows, dim);
    }
}
