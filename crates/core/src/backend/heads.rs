//! The parts of attention layers that are the same on every device.

use prefixkv_kernels::attention::{AttentionParams, Mask};

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub query: usize,
    pub kv: usize,
    pub dim: usize,
}

impl Heads {
    /// Columns of a fused projection: queries, then keys, then values.
    pub fn fused(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// Columns of the queries, and of the result.
    pub fn width(&self) -> usize {
        self.query * self.dim
    }

    /// Causal attention over these heads.
    pub(crate) fn params(&self) -> AttentionParams {
        AttentionParams::new(self.query, self.kv, self.dim)
    }

    /// Attention of every row to every row.
    pub(crate) fn every(&self) -> AttentionParams {
        AttentionParams { mask: Mask::None, ..self.params() }
    }
}
