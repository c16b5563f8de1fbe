//! The process around the kernels: the allocator, and the threads of candle.

pub mod heap;
pub mod threads;
