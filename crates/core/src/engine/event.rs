//! What the engine answers with: the `WireEvent` of `ts/native/contract.ts`.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::session_id::SessionId;
use super::trace::Traced;
use crate::cache::{Kept, MemoryReport};
use crate::device::DeviceMemory;
use crate::error::Error;

/// One answer of a request, a load or a close.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// A step of a load.
    Progress { stage: &'static str, done: u64, total: u64 },
    /// A load has succeeded; `info` is a `ModelInfo`.
    Loaded { info: Value },
    /// A model folder has been read; `info` is a `ModelInfo`.
    Inspected { info: Value },
    /// A device has been checked; `report` is a `DeviceCheck`.
    Checked { report: Value },
    /// The prompt has been read; decoding begins.
    Prompt { usage: Usage },
    /// One generated token. `text` is empty while characters or a possible stop string are held back; all texts joined are a
    /// prefix of the text of [`Event::Done`].
    Token { id: u32, text: String },
    /// A generation has ended.
    Done { text: String, tokens: Vec<u32>, finish: Finish, usage: Usage, timings: Timings, memory: MemoryReport },
    /// An answer has been scored.
    Scored {
        tokens: Vec<u32>,
        logprobs: Vec<f32>,
        ppl: f64,
        usage: Usage,
        timings: Timings,
        memory: MemoryReport,
        /// Which positions were left after the prompt, per layer and range of heads, if asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        kept: Option<Vec<Vec<Kept>>>,
        /// The Kullback-Leibler divergence of each token's distribution from that of the full cache, if asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        kl: Option<Vec<f64>>,
    },
    /// The retained share of every layer for each asked size.
    Profiled { retained: Vec<Vec<f64>>, usage: Usage, timings: Timings },
    /// A traced generation has ended.
    Traced(Box<Traced>),
    /// A session has been opened or closed.
    Session { session: SessionId },
    /// What the device of the model counts.
    Memory(DeviceMemory),
    /// A text as tokens.
    Tokens { tokens: Vec<u32> },
    /// Tokens as a text.
    Text { text: String },
    /// The engine is closed and its memory free.
    Closed,
    /// The work has failed; `error` is a `WireError`.
    Error { error: Value },
}

impl Event {
    /// Events as one JSON array, the form in which they cross a door.
    pub fn array(events: &[Event]) -> String {
        serde_json::to_string(events).unwrap_or_else(|error| {
            let error = Event::from(&Error::Internal(error.to_string()));
            serde_json::json!([error]).to_string()
        })
    }
}

impl From<&Error> for Event {
    fn from(error: &Error) -> Event {
        Event::Error { error: error.to_json() }
    }
}

/// Why a generation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model has said so.
    Eos,
    /// A stop string has appeared.
    Stop,
    /// `maxTokens` are there.
    Length,
    /// The caller has cancelled, or the engine has been closed.
    Aborted,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Positions of the prompt, image tokens included; in a session of the whole conversation up to the answer.
    pub prompt_tokens: usize,
    /// Positions of the prompt that were in the session's cache already.
    pub cached_tokens: usize,
    /// Positions that images of this request take.
    pub image_tokens: usize,
    /// Generated or scored tokens, without the final end-of-sequence token.
    pub completion_tokens: usize,
}

/// Where the time of a request went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// Waiting in the engine's queue.
    pub queued: f64,
    /// Decoding and resizing images.
    pub images: f64,
    /// Vision tower and projector.
    pub vision: f64,
    /// The prompt through the language model.
    pub prefill: f64,
    /// All steps after the first token, and what other requests did in between.
    pub decode: f64,
    /// From submit to the first token.
    pub first_token: f64,
    /// From submit to the end.
    pub total: f64,
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
