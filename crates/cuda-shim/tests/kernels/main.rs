//! The CUDA sources against their twins on the CPU, and the shim against what it must find.

mod common;
mod decode;
mod gather;
mod network;
mod prefill;
mod rotary;
mod shim;
mod step;
mod traffic;
