//! The hot loops of prefixkv, and the only place with SIMD and `unsafe`: attention over cache lanes, rotary embedding with
//! append, activations and the allocator. Works on slices with shapes and strides; knows nothing of tensors or models.
//!
//! Every kernel has a slow readable twin in [`reference`](mod@reference), which is the truth the tests compare with.

pub mod activation;
pub mod attention;
pub mod codec;
pub mod cuda;
pub mod element;
pub mod fold;
pub mod gather;
pub mod linear;
pub mod os;
pub mod quant;
pub mod reference;
pub mod rotary;
pub mod rows;
mod shared;
pub mod simd;
mod tasks;
