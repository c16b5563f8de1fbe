//! The seam between the engine, which knows of queues, threads and streams, and what it runs.

use std::sync::Arc;

use serde_json::Value;

use super::event::Event;
use super::request::ModelRequest;
use super::ticket::Events;
use crate::error::Result;

/// What an engine's thread runs: a model, or a fake one in the tests. It is made, used and dropped on that thread.
pub trait Runner {
    /// The `ModelInfo` of the `loaded` event.
    fn info(&self) -> Result<Value>;

    /// The part that works without the thread.
    fn codec(&self) -> Arc<dyn Codec>;

    /// Runs one request to its end: calls [`Events::finish`], or returns the error that the stream then ends with. Asks
    /// [`Events::check`] often.
    fn run(&mut self, request: ModelRequest, images: Vec<Vec<u8>>, events: &Events) -> Result<()>;

    /// Whether the next request can be run after one has panicked.
    fn is_sound(&self) -> bool;
}

/// Text to tokens and back, safe to share with other threads.
pub trait Codec: Send + Sync {
    /// `text` as tokens, with the model's leading token when `special`.
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>>;
    /// `tokens` as text, without special tokens when `skip_special`.
    fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String>;
}

/// Called by a load with each of its steps, which are [`Event::Progress`]; an error stops the load.
pub type OnProgress<'a> = dyn FnMut(Event) -> Result<()> + 'a;

/// Makes a runner on the engine's thread.
pub type Loader = Box<dyn FnOnce(&mut OnProgress) -> Result<Box<dyn Runner>> + Send>;
