//! One thread per model, a queue in, events out.
//!
//! [`Engine::open`] starts a thread that loads a model and then runs requests, one after the other or several together. Each
//! request is answered through a [`Ticket`]. The engine takes JSON and bytes and knows nothing of the doors that lead to it; what it runs is behind
//! [`Runner`].

mod answer;
mod bell;
mod channels;
mod check;
mod clock;
mod codebooks;
mod directions;
mod generate;
mod grids;
mod heads;
mod moments;
mod owned;
mod pictures;
mod positions;
mod prefix;
mod profile;
mod prompt;
mod reuse;
mod runner;
mod scheduler;
mod score;
mod sensitivity;
mod serve;
mod session;
mod sharing;
mod snapshot;
mod state;
mod texts;
mod threads;
mod ticket;
mod trace;
mod worker;

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use prefixkv_kernels::cuda::Gpu;
use prefixkv_kernels::cuda::check::{Cases, Sizes};

use crate::error::{Error, Result};
use crate::metrics;
use crate::model::{Device, Model, Place, architectures};
use crate::panics;
use crate::wire::{self, About, Event, LoadRequest, Request};

pub use crate::panics::catch;
pub use runner::{Codec, Loader, OnProgress, Runner, Started, Stepped};
pub use ticket::{CAPACITY, Events, Ticket, stream};

use state::{Job, Phase, Shared};

/// How long a close waits for a load that does not stop.
const PATIENCE: Duration = Duration::from_secs(2);

static STAND_IN: OnceLock<fn() -> Loader> = OnceLock::new();

/// Makes [`Engine::open`] start engines over something else than models, for the tests of the doors. No door leads here.
#[doc(hidden)]
pub fn stand_in(loader: fn() -> Loader) {
    STAND_IN.get_or_init(|| loader);
}

/// A model on its own thread. Dropping it closes it, without waiting.
pub struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts to load the model of a `LoadRequest` and returns at once; [`Engine::loading`] tells how it goes.
    pub fn open(json: &str) -> Result<Engine> {
        let LoadRequest { options, device, batching, threads, close_with_thread } = LoadRequest::parse(json)?;
        threads::configure(threads)?;
        let engine = match STAND_IN.get() {
            Some(loader) => Engine::start(loader()),
            None => Engine::start(Box::new(move |progress| serve::load(device.open()?, &options, batching, progress))),
        }?;
        if close_with_thread {
            owned::close_with_thread(&engine.shared);
        }
        Ok(engine)
    }

    /// [`Engine::open`] on a device that is there already, for the tests. No door leads here.
    #[doc(hidden)]
    pub fn open_on(place: Place, json: &str) -> Result<Engine> {
        let LoadRequest { options, batching, .. } = LoadRequest::parse(json)?;
        Engine::start(Box::new(move |progress| serve::load(place, &options, batching, progress)))
    }

    /// Starts an engine over anything that is a [`Runner`].
    pub fn start(loader: Loader) -> Result<Engine> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let live = metrics::MODELS.one();
        spawn("prefixkv-engine", move || worker::run(&of_thread, loader, live))?;
        Ok(Engine { shared })
    }

    /// The progress of the load: `progress` events, then `loaded` or `error`. Each call gives a stream of its own; cancelling
    /// any of them stops the load, and ends that stream at once: the thread may be busy with something that cannot be stopped.
    pub fn loading(&self) -> Ticket {
        let (events, ticket) = ticket::queued(None);
        let events = Arc::new(events);
        let mut state = self.shared.lock();
        let outcome = match &state.phase {
            Phase::Loading => {
                state.watchers.push(events);
                return ticket;
            }
            Phase::Ready { info, .. } => Event::Loaded { info: info.clone() },
            Phase::Failed(error) => Event::Error { error: error.clone() },
            Phase::Closed => Event::from(&Error::Disposed),
        };
        drop(state);
        events.finish(outcome);
        ticket
    }

    /// Queues an `EngineRequest`. An error means that the request itself is refused; all else comes through the ticket.
    pub fn submit(&self, json: &str, images: Vec<Vec<u8>>) -> Result<Ticket> {
        let request = Request::parse(json, images.len())?;
        let (events, ticket) = ticket::queued(Some(self.shared.bell.clone()));
        let mut state = self.shared.lock();
        let refusal = match &state.phase {
            _ if state.closing => Some(Event::from(&Error::Disposed)),
            Phase::Failed(error) => Some(Event::Error { error: error.clone() }),
            _ => None,
        };
        if let Some(refusal) = refusal {
            drop(state);
            events.finish(refusal);
            return Ok(ticket);
        }
        // Work that was cancelled in the queue holds on to its images.
        state.queue.retain(|job| !job.events.is_dead());
        match request {
            Request::Model(request) => {
                state.queue.push_back(Job { request: *request, images, events, waits: false });
                drop(state);
                self.shared.changed.notify_all();
                self.shared.bell.ring();
            }
            Request::Plan { view, plan } => {
                let answered =
                    state.running.iter().try_fold(plan, |plan, (_, running)| match running.answer(view, plan) {
                        Ok(()) => Err(()),
                        Err(plan) => Ok(plan),
                    });
                drop(state);
                match answered {
                    Err(()) => events.finish(Event::Planned),
                    Ok(_) => events.fail(&Error::Plan { reason: "no request waits for the plan of this view".into() }),
                }
            }
            Request::Text(request) => {
                state.texts.push_back(Job { request, images, events, waits: false });
                texts::serve(&self.shared, state);
            }
        }
        Ok(ticket)
    }

    /// Stops intake, ends running and queued work with [`Error::Disposed`] and frees the model; then the ticket says `closed`. A load
    /// that does not stop is given up after two seconds: its thread goes on by itself until it looks up, and frees what it has.
    /// Every call gives a ticket of its own.
    pub fn close(&self) -> Ticket {
        let (events, ticket) = stream();
        let loading = matches!(self.shared.lock().phase, Phase::Loading);
        self.shared.begin_close(Some(events));
        if loading {
            let shared = self.shared.clone();
            // Without a thread for it, the ticket waits for the load.
            let _ = spawn("prefixkv-close", move || shared.give_up(PATIENCE));
        }
        ticket
    }

    /// Reads a model's configuration, named by `{ "source": PATH }`, on a thread of its own; ends with `inspected`.
    pub fn inspect(json: &str) -> Result<Ticket> {
        let wire::InspectRequest { source, vision, picture } = wire::parse_inspect(json)?;
        let (events, ticket) = stream();
        spawn("prefixkv-inspect", move || {
            panics::quiet_thread();
            let inspected = panics::catch(|| Model::inspect(&source, &vision, picture.as_ref()));
            match inspected.unwrap_or_else(|panic| Err(Error::Internal(panic))) {
                Ok(info) => events.finish(Event::Inspected { info: Box::new(info) }),
                Err(error) => events.fail(&error),
            }
        })?;
        Ok(ticket)
    }

    /// Compares the kernels of a GPU, named by `{ "device": "cuda:0", "ceilings": true }`, with those of the CPU, and perhaps measures
    /// what the device can do, on a thread of its own; ends with `checked`.
    pub fn check_device(json: &str) -> Result<Ticket> {
        check::check_device(json)
    }

    /// [`Engine::check_device`] of a device that is there already, for the tests. No door leads here.
    #[doc(hidden)]
    pub fn check_gpu(
        open: impl FnOnce() -> Result<(Gpu, String)> + Send + 'static,
        sizes: Option<Sizes>,
    ) -> Result<Ticket> {
        check::check_gpu(open, Cases::All, sizes)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.begin_close(None);
    }
}

/// The abilities of this build on this machine.
pub fn about() -> About {
    let (devices, no_gpu) = Device::available();
    About {
        version: env!("CARGO_PKG_VERSION"),
        error_codes: Error::CODES.to_vec(),
        architectures: architectures(),
        devices,
        no_gpu,
        cpu: prefixkv_kernels::simd::features(),
        threads: threads::count(),
        live: metrics::report(),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    match thread::Builder::new().name(name.into()).spawn(body) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Internal(format!("cannot start a thread: {error}"))),
    }
}

#[cfg(test)]
mod tests;
