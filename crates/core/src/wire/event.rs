//! Events with which the engine answers.

use serde::Serialize;

use super::check::DeviceCheck;
use super::report::{GenerationResult, LayerDistance, Progress, Score, Timings, TokenLogprobs, Usage};
use super::session_id::SessionId;
use super::trace::Trace;
use crate::cache::MemoryReport;
use crate::device::DeviceMemory;
use crate::error::{Error, WireError};
use crate::method::channels::ChannelsLayer;
use crate::method::codebooks::LayerCodebooks;
use crate::method::external::MethodView;
use crate::method::latent::LayerDirections;
use crate::model::{ImageTokens, ModelInfo};

/// One answer of a request, a load or a close.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename = "WireEvent")]
pub enum Event {
    /// A step of a load or of a check.
    Progress(Progress),
    /// A load has succeeded.
    Loaded { info: Box<ModelInfo> },
    /// A model folder has been read.
    Inspected { info: Box<ModelInfo> },
    /// A device has been checked.
    Checked { report: Box<DeviceCheck> },
    /// The prompt has been read; decoding begins.
    Prompt { usage: Usage },
    /// One generated token.
    Token {
        /// The token's id.
        id: u32,
        /// The text that is certain with it: empty while characters or a possible stop string are held back. All texts joined are a
        /// prefix of the text of `done`.
        text: String,
        /// Its probability; with `logprobs`.
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<TokenLogprobs>,
    },
    /// A method outside the engine is asked for its plan: the request goes on when `{ "op": "plan", "view": ID, "lanes": [...] }` comes.
    View {
        /// The id that the plan names.
        id: SessionId,
        view: Box<MethodView>,
    },
    /// A plan has reached the request that waits for it.
    Planned,
    /// A generation has ended.
    Done(Box<GenerationResult>),
    /// An answer has been scored.
    Scored(Box<Score>),
    /// A prompt has been profiled.
    Profiled {
        /// The retained share of every layer, for each asked size.
        retained: Vec<Vec<f64>>,
        usage: Usage,
        timings: Timings,
    },
    /// Layers have been compared.
    Distances {
        /// All pairs of layers that may share, the farthest apart first.
        pairs: Vec<LayerDistance>,
        usage: Usage,
        timings: Timings,
    },
    /// Codebooks have been found.
    Codebooks {
        /// One for each layer that has keys and values of its own.
        layers: Vec<LayerCodebooks>,
        /// Positions whose keys and values were looked at.
        positions: usize,
        usage: Usage,
        timings: Timings,
    },
    /// Directions have been found.
    Directions {
        /// One for each layer that has keys and values of its own.
        layers: Vec<LayerDirections>,
        /// How many of keys and of values each.
        rank: usize,
        /// Positions of all prompts.
        positions: usize,
        usage: Usage,
        timings: Timings,
    },
    /// A prompt has been read with and without a method.
    Similarity {
        /// The cosine of the last hidden states of all positions, as one long vector each.
        similarity: f64,
        usage: Usage,
        timings: Timings,
    },
    /// A prompt has been read, and its layers tried in few bits.
    Sensitivity {
        /// By layer of the model, for each asked pair of bits, `|O - O^| / |O|` of the results of its attention; empty for a layer that reads
        /// another's keys and values.
        layers: Vec<Vec<f64>>,
        usage: Usage,
        timings: Timings,
    },
    /// Channels have been put in order.
    Channels {
        /// By layer of the model.
        layers: Vec<ChannelsLayer>,
        usage: Usage,
        timings: Timings,
    },
    /// Attention heads have been scored.
    Heads {
        /// For each layer that methods size, the score of every query head.
        scores: Vec<Vec<f64>>,
        /// Prompts of which some position counted.
        samples: usize,
        /// The positions that counted.
        positions: usize,
        usage: Usage,
        timings: Timings,
    },
    /// A traced generation has ended.
    Traced(Box<Trace>),
    /// A prompt has been read, or a snapshot, and questions can be asked about it.
    Prefilled {
        /// The name of the prefix. Whoever knows it may ask about it, save and close it.
        prefix: SessionId,
        usage: Usage,
        timings: Timings,
        memory: Box<MemoryReport>,
        /// Whether its method chooses by the question: it keeps all of the prefix until one comes, and acts for each anew.
        waits: bool,
    },
    /// A prefix has been saved.
    Saved {
        /// Bytes of the file.
        bytes: u64,
    },
    /// A prefix has been closed.
    Forgotten { prefix: SessionId },
    /// A session has been opened or closed.
    Session { session: SessionId },
    /// Memory as the model's device counts it.
    Memory(DeviceMemory),
    /// A text as tokens.
    Tokens { tokens: Vec<u32> },
    /// The positions of a picture.
    Pieces(ImageTokens),
    /// Tokens as a text.
    Text { text: String },
    /// The engine is closed and its memory free.
    Closed,
    /// The work has failed.
    Error { error: WireError },
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
        Event::Error { error: error.to_wire() }
    }
}
