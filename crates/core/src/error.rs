//! The one error type of the engine. Every variant has a stable code, says what was found and what to do.

mod facts;

use std::path::PathBuf;

use prefixkv_kernels::cuda;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::keep::Keep;
pub use facts::{FACTS, Facts};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, by phase. `Display` is the message a user reads; [`Error::code`] is what a program tests.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model folder or a file that it must contain is not there.
    #[error("model not found: {} {reason}", path.display())]
    ModelNotFound { path: PathBuf, reason: String },

    /// A file of the model is there but cannot be used: broken JSON, truncated or wrong-shaped weights.
    #[error("cannot use {}: {reason}", path.display())]
    ModelFile { path: PathBuf, reason: String },

    /// The architecture, or a feature that its configuration asks for, is not implemented.
    #[error("unsupported model: {reason}")]
    UnsupportedModel { reason: String, known: Vec<&'static str> },

    /// Numbers that the asked format cannot hold, or a result that is NaN or infinite.
    #[error("{reason}")]
    Numbers { reason: String, fits: Vec<&'static str> },

    /// Image bytes that cannot be decoded, or that go past a limit.
    #[error("cannot use image {index}: {reason}")]
    Image { index: usize, reason: String },

    /// A request option that is unknown, of the wrong type or out of range.
    #[error("invalid option: {reason}{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    Option { reason: String, suggestion: Option<String> },

    /// The prompt itself cannot be built: template failure, images and placeholders that do not match.
    #[error("invalid prompt: {reason}")]
    Prompt { reason: String },

    /// The prompt and the asked tokens do not fit the model's positions. Raised before any work.
    #[error(
        "the request needs {needed} positions ({image_tokens} of them image tokens) but the model has {available}; \
         shorten the prompt, use fewer images or lower maxTokens"
    )]
    ContextOverflow { needed: usize, available: usize, image_tokens: usize },

    /// The cache pool's cap, or the machine's memory, would be exceeded, raised before allocating; or a GPU is full.
    #[error("out of memory: {needed} bytes needed, {available} available; {advice}")]
    OutOfMemory { needed: u64, available: u64, advice: String },

    /// The asked size of the cache does not hold the entries that are protected.
    #[error("cannot keep {asked} of the cache: {reason}; the least possible here is {least}")]
    Budget { asked: Keep, least: Keep, reason: String },

    /// A calibration that cannot be read, that belongs to another model, or that does not hold the asked size.
    #[error("cannot use the calibration: {reason}")]
    Calibration { reason: String },

    /// A plan from outside the engine that cannot be carried out.
    #[error("cannot carry out the plan of the custom method: {reason}")]
    Plan { reason: String },

    /// A snapshot that cannot be written or read; `problem` says why: `missing`, `io`, `no-snapshot`, `version`, `truncated`, `corrupt`, `too-large`
    /// or `other-model`.
    #[error("cannot use the snapshot {}: {reason}", path.display())]
    Snapshot { path: PathBuf, problem: &'static str, reason: String },

    /// The asked device does not exist in this build or on this machine, or a call of it failed.
    #[error("device `{device}` cannot be used: {reason}")]
    Device { device: String, reason: String },

    /// The caller cancelled the request.
    #[error("the request was aborted")]
    Aborted,

    /// The model was closed before or during the request.
    #[error("the model is disposed; load it again")]
    Disposed,

    /// A defect of this library.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

/// An error as it crosses a door.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WireError {
    /// The stable name of its kind; docs/errors.md has all.
    pub code: &'static str,
    /// The message for people: what was found and what to do.
    pub message: String,
    /// The facts of the case by name, for programs.
    pub details: Map<String, Value>,
}

impl Error {
    /// The fields of the variant, for programs.
    pub fn details(&self) -> Map<String, Value> {
        let details = match self {
            Error::ModelNotFound { path, .. } | Error::ModelFile { path, .. } => json!({ "path": path }),
            Error::UnsupportedModel { known, .. } => json!({ "known": known }),
            Error::Numbers { fits, .. } => json!({ "fits": fits }),
            Error::Image { index, .. } => json!({ "index": index }),
            Error::Option { suggestion, .. } => json!({ "suggestion": suggestion }),
            Error::ContextOverflow { needed, available, image_tokens } => {
                json!({ "needed": needed, "available": available, "imageTokens": image_tokens })
            }
            Error::OutOfMemory { needed, available, .. } => json!({ "needed": needed, "available": available }),
            Error::Budget { asked, least, .. } => json!({ "asked": asked, "least": least }),
            Error::Snapshot { path, problem, .. } => json!({ "path": path, "problem": problem }),
            Error::Device { device, .. } => json!({ "device": device }),
            Error::Prompt { .. }
            | Error::Calibration { .. }
            | Error::Plan { .. }
            | Error::Aborted
            | Error::Disposed
            | Error::Internal(_) => json!({}),
        };
        match details {
            Value::Object(details) => details,
            _ => Map::new(),
        }
    }

    /// The error as it crosses a door.
    pub fn to_wire(&self) -> WireError {
        WireError { code: self.code(), message: self.to_string(), details: self.details() }
    }

    /// [`Error::to_wire`] as JSON.
    pub fn to_json(&self) -> Value {
        let WireError { code, message, details } = self.to_wire();
        json!({ "code": code, "message": message, "details": details })
    }
}

impl From<cuda::Error> for Error {
    fn from(error: cuda::Error) -> Self {
        match error {
            cuda::Error::Argument(reason) => Error::Internal(reason),
            cuda::Error::OutOfMemory { needed, free } => Error::OutOfMemory {
                needed,
                available: free,
                advice: "the GPU is full; shorten the prompt, lower `batch` or `keep`, or close what else runs on it"
                    .into(),
            },
            cuda::Error::Unavailable(reason) | cuda::Error::Driver(reason) => {
                Error::Device { device: "cuda".into(), reason }
            }
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Error::Internal(error.to_string())
    }
}
