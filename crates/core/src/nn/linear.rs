//! Linear layers.

use crate::backend::{Backend, Held};
use crate::device::Cpu;
use crate::error::Result;

/// `x W^T + b`.
pub struct Linear<B: Backend = Cpu> {
    pub(super) backend: B,
    pub(super) weights: B::Weights,
    pub(super) bias: Option<B::Vector>,
}

impl<B: Backend> Linear<B> {
    /// `x` is `[n, columns]`; the result is `[n, rows]` in f32.
    pub fn forward(&self, x: &B::Input) -> Result<B::Matrix> {
        self.first(x, self.weights.rows())
    }

    /// As [`Linear::forward`], with the first `rows` rows of the weights alone; the result is `[n, rows]`.
    pub fn first(&self, x: &B::Input, rows: usize) -> Result<B::Matrix> {
        self.backend.linear(x, &self.weights, self.bias.as_ref(), rows)
    }
}
