//! The seam between the engine, which knows of queues, threads and streams, and what it runs.

use std::sync::Arc;

use super::ticket::Events;
use crate::error::{Error, Result};
use crate::model::{Asked, ImageTokens, ModelInfo};
use crate::wire::{Event, ModelRequest};

/// The work of an engine's thread: a model, or a fake one in the tests. It is made, used and dropped on that thread.
pub trait Runner {
    /// The facts of the `loaded` event.
    fn info(&self) -> ModelInfo;

    /// The part that works without the thread.
    fn codec(&self) -> Arc<dyn Codec>;

    /// Most requests that run at the same time.
    fn batch(&self) -> usize {
        1
    }

    /// Starts a request under a number of its own, beside those that run. An error ends the request's stream. Asks
    /// [`Events::check`] often.
    fn start(&mut self, number: u64, request: &ModelRequest, images: &[Vec<u8>], events: &Events) -> Result<Started>;

    /// Goes on with a request that is [`Started::Reading`], by one piece of its prompt. As [`Runner::start`], but never
    /// [`Started::Waits`].
    fn read(&mut self, _number: u64, _events: &Events) -> Result<Started> {
        Err(Error::Internal("this runner reads no prompts in pieces".into()))
    }

    /// Takes running requests one step further, together; gives what has become of each, in their order. A request with an error is
    /// forgotten. Sends at most one event to each before its last one: there is room for one, so that no reader is waited for.
    fn step(&mut self, requests: &[(u64, &Events)]) -> Vec<Result<Stepped>> {
        let none = |_: &_| Err(Error::Internal("this runner takes no steps".into()));
        requests.iter().map(none).collect()
    }

    /// Lets go of a running request, after a panic in its step.
    fn forget(&mut self, _number: u64) {}

    /// Whether the next request can be run after one has panicked.
    fn is_sound(&self) -> bool;
}

/// The outcome for a request that was to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It has been answered: [`Events::finish`] was called.
    Finished,
    /// It goes on with [`Runner::step`].
    Running,
    /// Its prompt is read in pieces: it goes on with [`Runner::read`], between which others take steps.
    Reading,
    /// It cannot start beside those that run, and nothing has been sent: to be started again when one of them has ended.
    Waits,
}

/// The outcome of a step for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// It has been answered: [`Events::finish`] was called.
    Finished,
    Running,
}

/// Text to tokens and back, and pictures to positions, safe to share with other threads.
pub trait Codec: Send + Sync {
    /// `text` as tokens, with the model's leading token when `special`.
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>>;
    /// `tokens` as text, without special tokens when `skip_special`.
    fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String>;
    /// The positions of a picture or of a video.
    fn image_tokens(&self, asked: &Asked) -> Result<ImageTokens> {
        let _ = asked;
        Err(Error::Prompt { reason: "this model reads no images".into() })
    }
}

/// Called by a load with each of its steps, which are [`Event::Progress`]; an error stops the load.
pub type OnProgress<'a> = dyn FnMut(Event) -> Result<()> + 'a;

/// Makes a runner on the engine's thread.
pub type Loader = Box<dyn FnOnce(&mut OnProgress) -> Result<Box<dyn Runner>> + Send>;
