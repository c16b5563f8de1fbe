//! The layers that models are made of, over any [`Backend`].

mod linear;
mod loader;
mod norm;

pub use linear::Linear;
pub use loader::{Loader, Tally};
pub use norm::{HeadNorms, LayerNorm, Norm, NormKind, RmsNorm};

use crate::backend::Backend;
use crate::device::Cpu;

/// Rows of activations in f32.
pub type Matrix<B = Cpu> = <B as Backend>::Matrix;

/// Rows of activations as a product takes them.
pub type Input<B = Cpu> = <B as Backend>::Input;
