//! `libprefixkv` whose `cuda:0` is the shim: for `tests/gpu`.

mod card;

// Links the functions of the C ABI in.
pub use prefixkv::*;
