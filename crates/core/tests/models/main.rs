//! Models: their weights, their numbers against transformers, and prompts and steps in every form.

mod abort;
mod batch;
#[path = "../calibrated/mod.rs"]
mod calibrated;
mod families;
mod folder;
mod gemma3;
mod gguf;
mod gguf_pairs;
mod golden;
mod images_beside;
mod internvl;
mod layers;
mod numbers;
mod parity;
mod pieces;
mod positions;
mod qwen_vl;
mod snapshots;
mod videos;
mod weights;
mod weights_in_place;
mod wide;
