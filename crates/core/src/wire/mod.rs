//! The types that cross a door as JSON: requests in, events out, and the reports in them.
//!
//! `cargo xtask gen` reads these types as they stand in the sources, serde attributes and doc comments included, and writes the
//! TypeScript types, the JSON schema and the option tables from them. Types of a room below (`MemoryReport` of the cache, `ModelInfo`)
//! stay there and are read the same way. docs/design/wire.md says how to add to them.

mod about;
mod check;
mod distinct;
mod event;
mod media;
mod report;
mod request;
mod session_id;
mod trace;

pub use about::About;
pub use check::{CheckedMemory, DeviceCheck, KernelCheck};
pub use event::Event;
pub use media::{Medium, Video};
pub use report::{
    Finish, GenerationResult, LayerDistance, Progress, Score, Timings, TokenLogprob, TokenLogprobs, Usage,
};
pub use request::{
    AskRequest, Batching, ChannelsRequest, CheckRequest, CodebooksRequest, DOORS, DirectionsRequest, DistanceVariant,
    DistancesRequest, Door, GenerateRequest, HeadsRequest, HeadsSource, LoadRequest, MAX_BATCH, MAX_FRAMES, MAX_IMAGES,
    MAX_JSON, MAX_KEEPS, MAX_PICTURES, MAX_TOKENS, ModelRequest, OPS, Op, PrefillRequest, ProfileRequest, Request,
    ScoreRequest, SensitivityRequest, SimilarityRequest, Source, SourceText, TextRequest,
};
pub(crate) use request::{InspectRequest, parse_inspect};
pub use session_id::SessionId;
pub use trace::{
    Trace, TraceEviction, TraceImage, TraceLanePlan, TraceLayer, TraceMerge, TraceMoment, TracePlan, TraceStep,
};
