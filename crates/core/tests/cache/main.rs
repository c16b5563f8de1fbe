//! The cache of a sequence: lanes, segments, codecs, and the stores on them.

mod bases;
#[path = "../calibrated/mod.rs"]
mod calibrated;
mod codebooks;
mod codecs;
mod fork;
mod given_back;
mod minicache;
mod probes;
mod stores;
