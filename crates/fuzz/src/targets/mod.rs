//! One file per target.

pub mod abi;
pub mod adapter;
pub mod calibration;
pub mod config;
pub mod defects;
pub mod engine;
pub mod gguf;
pub mod image;
pub mod keep;
pub mod load;
pub mod method;
pub mod preprocessor;
pub mod request;
pub mod safetensors;
pub mod template;
pub mod text;
pub mod tokenizer;
