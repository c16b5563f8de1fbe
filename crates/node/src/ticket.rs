//! `NativeTicket` of the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, JsDeferred, JsValue, Result};
use napi_derive::napi;
use prefixkv_core::Error;
use prefixkv_core::engine::{Engine, Ticket};
use prefixkv_core::wire::Event;

use crate::refusal::thrown;

type Settle = Box<dyn FnOnce(Env) -> Result<Option<String>> + Send>;

/// A stream of events. It keeps its engine alive, and a pending `next` keeps both alive, so that what JavaScript still waits
/// for is not collected.
#[napi]
pub struct NativeTicket {
    stream: Arc<Stream>,
}

struct Stream {
    ticket: Ticket,
    /// A promise of `next` is not settled yet. Read and written on the JavaScript thread only.
    pending: AtomicBool,
    _engine: Option<Arc<Engine>>,
}

impl NativeTicket {
    pub(crate) fn new(ticket: Ticket, engine: Option<Arc<Engine>>) -> Self {
        NativeTicket { stream: Arc::new(Stream { ticket, pending: AtomicBool::new(false), _engine: engine }) }
    }
}

#[napi]
impl NativeTicket {
    /// Resolves with all ready events, or null at the end. No thread waits: the promise is settled by whoever produces the
    /// first event, through a thread-safe function, which keeps the event loop alive until then and becomes a no-op when its
    /// environment ends first.
    #[napi(catch_unwind, ts_return_type = "Promise<string | null>")]
    pub fn next<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Option<String>>> {
        let stream = self.stream.clone();
        if stream.pending.load(Ordering::Relaxed) {
            let reason = "`next` is still pending; one call at a time".into();
            return PromiseRaw::reject(env, thrown(Error::Option { reason, suggestion: None }));
        }
        match stream.ticket.poll() {
            None => return PromiseRaw::resolve(env, None),
            Some(events) if !events.is_empty() => return PromiseRaw::resolve(env, Some(Event::array(&events))),
            Some(_) => {}
        }
        let (deferred, promise): (JsDeferred<Option<String>, Settle>, _) = env.create_deferred()?;
        stream.pending.store(true, Ordering::Relaxed);
        let settle = deferred.clone();
        let waiting = self.stream.ticket.on_ready(move || {
            let events = stream.ticket.poll_json();
            settle.resolve(Box::new(move |_| {
                stream.pending.store(false, Ordering::Relaxed);
                Ok(events)
            }));
        });
        if let Err(error) = waiting {
            deferred.reject(thrown(error));
        }
        Ok(PromiseRaw::new(env.raw(), promise.raw()))
    }

    /// Asks the work to stop.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.stream.ticket.cancel();
    }
}
