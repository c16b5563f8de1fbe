//! Random input for everything that reads what comes from outside. docs/design/fuzzing.md says how, and what it has found.
#![allow(clippy::expect_used)]

pub mod folder;
pub mod json;
pub mod memory;
pub mod mutate;
pub mod random;
pub mod supervisor;
pub mod target;
pub mod targets;
pub mod worker;

pub use target::Target;

/// Every target.
pub const TARGETS: &[Target] = &[
    targets::image::TARGET,
    targets::preprocessor::TARGET,
    targets::request::TARGET,
    targets::load::TARGET,
    targets::method::TARGET,
    targets::keep::TARGET,
    targets::calibration::TARGET,
    targets::template::TARGET,
    targets::tokenizer::TARGET,
    targets::text::TARGET,
    targets::config::TARGET,
    targets::safetensors::TARGET,
    targets::gguf::TARGET,
    targets::adapter::TARGET,
    targets::engine::TARGET,
    targets::abi::TARGET,
];

const DEFECTS: &Target = &targets::defects::TARGET;

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().chain([DEFECTS]).find(|target| target.name == name)
}
