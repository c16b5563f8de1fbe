//! State shared by an engine's handle and its threads.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bell::Bell;
use super::runner::Codec;
use super::ticket::{Events, Stop, Stopper};
use crate::error::{Error, WireError};
use crate::model::ModelInfo;
use crate::wire::{Event, ModelRequest, TextRequest};

/// A request on its way.
pub(super) struct Job<R> {
    pub(super) request: R,
    pub(super) images: Vec<Vec<u8>>,
    pub(super) events: Events,
    /// It has been found that it cannot start before one of those that run has ended.
    pub(super) waits: bool,
}

/// How far the engine's thread is.
#[derive(Default)]
pub(super) enum Phase {
    #[default]
    Loading,
    Ready {
        info: Box<ModelInfo>,
        codec: Arc<dyn Codec>,
    },
    /// The load has failed, or a panic has left the model unsound; the error that every request now ends with.
    Failed(WireError),
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
    /// Running work, by the numbers of its start.
    pub(super) running: Vec<(u64, Stopper)>,
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
    /// Rung by whatever may let a running engine go on.
    pub(super) bell: Arc<Bell>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops intake and ends all work; `closer` hears when everything is freed.
    pub(super) fn begin_close(&self, closer: Option<Events>) {
        let mut state = self.lock();
        state.closing = true;
        let queue = mem::take(&mut state.queue);
        let texts = mem::take(&mut state.texts);
        let running = mem::take(&mut state.running);
        let closed = match closer {
            Some(closer) if !state.finished => {
                state.closers.push(closer);
                None
            }
            other => other,
        };
        drop(state);
        self.changed.notify_all();
        self.bell.ring();
        running.iter().for_each(|(_, running)| running.stop(Stop::Disposed));
        let waiting = queue.iter().map(|job| &job.events).chain(texts.iter().map(|job| &job.events));
        waiting.for_each(|events| events.fail(&Error::Disposed));
        if let Some(closed) = closed {
            closed.finish(Event::Closed);
        }
    }

    /// Like [`Shared::begin_close`], for an engine whose readers end with the calling thread: none of them is called any more.
    pub(super) fn abandon(&self) {
        let state = self.lock();
        state.running.iter().for_each(|(_, running)| running.orphan());
        state.queue.iter().for_each(|job| job.events.orphan());
        state.texts.iter().for_each(|job| job.events.orphan());
        state.watchers.iter().for_each(|events| events.orphan());
        state.closers.iter().for_each(Events::orphan);
        drop(state);
        self.begin_close(None);
    }

    /// Tells whoever waits for the end that it has come, when it has not within `patience`.
    pub(super) fn give_up(&self, patience: Duration) {
        let unfinished = |state: &mut State| !state.finished;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, unfinished);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let closers = mem::take(&mut state.closers);
        drop(state);
        closers.iter().for_each(|closer| closer.finish(Event::Closed));
    }

    pub(super) fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed.wait_while(state, condition).unwrap_or_else(PoisonError::into_inner)
    }
}
