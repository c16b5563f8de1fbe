//! The process around the kernels: the allocator, files as memory, and the threads of candle.

pub mod heap;
pub mod map;
pub mod threads;
