//! The cache of a sequence: lanes, segments, codecs, and the stores on them.

mod attention;
mod bases;
#[path = "../calibrated/mod.rs"]
mod calibrated;
mod clla;
mod codebooks;
mod codecs;
mod fork;
mod given_back;
mod minicache;
mod pairs;
mod probes;
mod stores;
