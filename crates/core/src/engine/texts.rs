//! Tokenizing, detokenizing and counting the positions of pictures, on a short-lived thread of its own, so that it never waits for a generation.

use super::runner::Codec;
use super::spawn;
use super::state::{Job, Phase, Shared, State};
use crate::error::{Error, Result};
use crate::panics::{catch, quiet_thread};
use crate::wire::{Event, TextRequest};
use std::sync::{Arc, MutexGuard};

/// Makes sure that a thread works on the waiting text jobs, if there are any and the tokenizer is loaded.
pub(super) fn serve(shared: &Arc<Shared>, mut state: MutexGuard<'_, State>) {
    let Phase::Ready { codec, .. } = &state.phase else { return };
    if state.texts.is_empty() || state.texts_served {
        return;
    }
    let codec = codec.clone();
    state.texts_served = true;
    drop(state);
    let of_thread = shared.clone();
    let spawned = spawn("prefixkv-text", move || {
        quiet_thread();
        work(&of_thread, codec);
    });
    if let Err(error) = spawned {
        let mut state = shared.lock();
        state.texts_served = false;
        let jobs = std::mem::take(&mut state.texts);
        drop(state);
        shared.changed.notify_all();
        jobs.iter().for_each(|job| job.events.fail(&error));
    }
}

fn work(shared: &Shared, codec: Arc<dyn Codec>) {
    loop {
        let mut state = shared.lock();
        let Some(job) = state.texts.pop_front() else {
            // Before `texts_served` falls: a closing engine then counts the tokenizer as free.
            drop(codec);
            state.texts_served = false;
            drop(state);
            shared.changed.notify_all();
            return;
        };
        drop(state);
        let Job { request, events, .. } = job;
        if events.start() {
            match catch(|| answer(codec.as_ref(), &request)).unwrap_or_else(|panic| Err(Error::Internal(panic))) {
                Ok(event) => events.finish(event),
                Err(error) => events.fail(&error),
            }
        }
    }
}

fn answer(codec: &dyn Codec, request: &TextRequest) -> Result<Event> {
    match request {
        TextRequest::Tokenize { text, special } => Ok(Event::Tokens { tokens: codec.encode(text, *special)? }),
        TextRequest::Detokenize { tokens, skip_special } => {
            Ok(Event::Text { text: codec.decode(tokens, *skip_special)? })
        }
        TextRequest::ImageTokens(asked) => Ok(Event::Pieces(codec.image_tokens(asked)?)),
    }
}
