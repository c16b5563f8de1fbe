//! The addon, both doors included, whose `cuda:0` is the shim: for `tests/contract`.

mod card;

// Links the addon's functions in.
pub use prefixkv_node::*;
