//! The layers that models are made of. Linear algebra is candle's; attention is our own ([`attention`]).

pub mod activation;
pub mod attention;
pub mod linear;
pub mod norm;
pub mod slice;

pub use activation::Activation;
pub use linear::{Linear, Loader, WeightFormat};
pub use norm::{LayerNorm, RmsNorm};
