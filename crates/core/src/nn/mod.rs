//! The layers that models are made of, on the CPU and on a GPU. On the CPU linear algebra is candle's, on a GPU that of the
//! device's own library; attention is our own ([`attention`]).

pub mod activation;
pub mod attention;
pub mod linear;
mod loader;
pub mod matrix;
pub mod norm;
pub mod slice;
pub mod table;
pub mod vector;

pub use activation::{Activation, swiglu};
pub use linear::Linear;
pub use loader::{Loader, Tally};
pub use matrix::Matrix;
pub use norm::{LayerNorm, RmsNorm};
pub use table::Table;
pub use vector::Vector;
