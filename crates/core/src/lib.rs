//! The prefixkv engine: vision-language models whose key-value cache is stored in lanes that methods can shrink.
//!
//! Nothing here knows of the doors (Node-API, C ABI) that lead to it: [`engine`] takes JSON and bytes and gives events.
#![forbid(unsafe_code)]

pub mod backend;
mod base64;
pub mod cache;
pub(crate) mod check;
pub mod device;
pub mod engine;
pub mod error;
pub(crate) mod fields;
pub(crate) mod folder;
pub(crate) mod keep;
pub mod media;
pub mod method;
pub(crate) mod metrics;
pub mod model;
pub mod nn;
pub(crate) mod panics;
pub mod sample;
pub mod sequence;
mod spectrum;
pub mod text;
pub(crate) mod units;
pub mod weights;
pub mod wire;

pub use error::{Error, Result};
