//! The engine's thread: loads, has jobs run, frees.

use std::mem;

use super::runner::{Loader, Runner};
use super::scheduler::Scheduler;
use super::state::{Phase, Shared};
use super::texts;
use crate::error::{Error, Result};
use crate::metrics;
use crate::model::ModelInfo;
use crate::panics::{catch, quiet_thread};
use crate::wire::Event;

/// The body of the thread.
pub(super) fn run(shared: &std::sync::Arc<Shared>, loader: Loader, live: metrics::One) {
    quiet_thread();
    let loaded = catch(|| load(shared, loader)).unwrap_or_else(|panic| Err(Error::Internal(panic)));
    match loaded {
        Ok(Loaded { runner, info, codec }) => {
            announce(shared, Phase::Ready { info: info.clone(), codec }, &Event::Loaded { info });
            texts::serve(shared, shared.lock());
            serve(shared, runner);
        }
        Err(error) => {
            fail(shared, &error);
        }
    }
    finish(shared, live);
}

struct Loaded {
    runner: Box<dyn Runner>,
    info: Box<ModelInfo>,
    codec: std::sync::Arc<dyn super::runner::Codec>,
}

fn load(shared: &Shared, loader: Loader) -> Result<Loaded> {
    let mut progress = |event: Event| {
        let state = shared.lock();
        let (closing, watchers) = (state.closing, state.watchers.clone());
        drop(state);
        if closing {
            return Err(Error::Disposed);
        }
        if watchers.iter().any(|watcher| watcher.cancelled()) {
            return Err(Error::Aborted);
        }
        watchers.iter().for_each(|watcher| watcher.offer(event.clone()));
        Ok(())
    };
    let runner = loader(&mut progress)?;
    Ok(Loaded { info: Box::new(runner.info()), codec: runner.codec(), runner })
}

fn serve(shared: &Shared, mut runner: Box<dyn Runner>) {
    if let Err(error) = Scheduler::new(shared, runner.as_mut()).run() {
        fail(shared, &error);
    }
    // A model that panics while it is freed is gone all the same.
    let _ = catch(move || drop(runner));
}

/// Sets the phase that follows a load and tells who waits for it.
fn announce(shared: &Shared, phase: Phase, outcome: &Event) {
    let mut state = shared.lock();
    state.phase = phase;
    let watchers = mem::take(&mut state.watchers);
    drop(state);
    watchers.iter().for_each(|watcher| watcher.finish(outcome.clone()));
}

/// Ends what waits, and all that will be asked, with `error`.
fn fail(shared: &Shared, error: &Error) {
    announce(shared, Phase::Failed(error.to_wire()), &Event::from(error));
    let mut state = shared.lock();
    let queue = mem::take(&mut state.queue);
    let texts = mem::take(&mut state.texts);
    drop(state);
    let waiting = queue.iter().map(|job| &job.events).chain(texts.iter().map(|job| &job.events));
    waiting.for_each(|events| events.fail(error));
}

/// Waits until nobody holds the model's parts, then says so to whoever closes.
fn finish(shared: &Shared, live: metrics::One) {
    let mut state = shared.lock();
    if !matches!(state.phase, Phase::Failed(_)) {
        state.phase = Phase::Closed;
    }
    state = shared.wait_while(state, |state| state.texts_served);
    drop(state);
    prefixkv_kernels::os::heap::give_back();
    let mut state = shared.lock();
    state.finished = true;
    drop(live);
    let closers = mem::take(&mut state.closers);
    drop(state);
    shared.changed.notify_all();
    closers.iter().for_each(|closer| closer.finish(Event::Closed));
}
