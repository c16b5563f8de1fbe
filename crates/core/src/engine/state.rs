//! What an engine's handle and its threads share.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::request::{ModelRequest, TextRequest};
use super::runner::Codec;
use super::ticket::{Events, Stopper};

/// A request on its way.
pub(super) struct Job<R> {
    pub(super) request: R,
    pub(super) images: Vec<Vec<u8>>,
    pub(super) events: Events,
}

/// How far the engine's thread is.
#[derive(Default)]
pub(super) enum Phase {
    #[default]
    Loading,
    Ready {
        info: Value,
        codec: Arc<dyn Codec>,
    },
    /// The load has failed, or a panic has left the model unsound; the `WireError` that every request now ends with.
    Failed(Value),
    Closed,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// No more intake; the thread is to end.
    pub(super) closing: bool,
    /// The thread has freed everything it held.
    pub(super) finished: bool,
    pub(super) queue: VecDeque<Job<ModelRequest>>,
    pub(super) texts: VecDeque<Job<TextRequest>>,
    /// A thread is working on `texts`.
    pub(super) texts_served: bool,
    pub(super) running: Option<Stopper>,
    /// Who wants to know how the load goes.
    pub(super) watchers: Vec<Arc<Events>>,
    /// Who wants to know when the engine is closed.
    pub(super) closers: Vec<Events>,
}

/// The state under its lock. Streams are ended without the lock, since that calls their readers.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) changed: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed.wait_while(state, condition).unwrap_or_else(PoisonError::into_inner)
    }
}
