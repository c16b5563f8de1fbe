//! The C ABI: flat functions, `u32` handles, JSON in and out, buffers of the caller, a status and its text in the same call.
//!
//! No logic is here. [`FUNCTIONS`] and [`STATUSES`] describe what is exported; `cargo xtask gen` writes the C header and the
//! symbol table of the TypeScript doors from them, and `docs/c-abi.md` explains the rules.

#[macro_use]
mod describe;
mod abi;
mod call;
mod handles;
mod memory;
mod status;

pub use abi::*;
pub use describe::{Function, Parameter};
pub use status::{STATUSES, Status};

/// The version of this ABI; it changes whenever a caller would have to.
pub const ABI_VERSION: u32 = 2;

#[cfg(test)]
mod tests;
