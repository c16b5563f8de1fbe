//! Linear layers.

use std::ops::Range;

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

    /// `onto` and the result of [`Linear::forward`], added up in the memory of `onto` if nothing else shares it.
    pub fn onto(&self, x: &B::Input, onto: B::Matrix) -> Result<B::Matrix> {
        self.backend.linear_onto(x, &self.weights, self.bias.as_ref(), onto)
    }

    /// The numbers of some rows of the weights, `[rows, columns]`.
    pub fn read(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        self.weights.read(rows)
    }

    /// As [`Linear::forward`], with the first `rows` rows of the weights alone; the result is `[n, rows]`.
    pub fn first(&self, x: &B::Input, rows: usize) -> Result<B::Matrix> {
        self.backend.linear(x, &self.weights, self.bias.as_ref(), rows)
    }
}
