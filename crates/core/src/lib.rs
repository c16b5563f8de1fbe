//! The prefixkv engine: vision-language models whose key-value cache is stored in lanes that methods can shrink.
//!
//! Nothing here knows of the doors (Node-API, C ABI) that lead to it: [`engine`] takes JSON and bytes and gives events.
#![forbid(unsafe_code)]

pub mod cache;
pub mod device;
pub mod engine;
pub mod error;
pub(crate) mod fields;
pub(crate) mod folder;
pub(crate) mod live;
pub mod media;
pub mod method;
pub mod model;
pub mod nn;
pub mod sample;
pub mod text;
pub mod weights;

pub use error::{Error, Result};
