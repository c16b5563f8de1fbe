//! The frame of every call: panics are caught, failures turned into a status and a text.

use std::sync::{Arc, Mutex};

use prefixkv_core::Error;
use prefixkv_core::engine::{Engine, Ticket, catch};

use crate::handles::{self, Object, Stream};
use crate::memory::{Out, Place};
use crate::status;

/// Why a call does not do what it is asked.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Error),
    Stale(u32),
    Invalid(String),
    Busy,
}

impl Failure {
    pub(crate) fn invalid(reason: impl Into<String>) -> Failure {
        Failure::Invalid(reason.into())
    }

    fn status(&self) -> i32 {
        match self {
            Failure::Refused(_) => status::REFUSED,
            Failure::Stale(_) => status::STALE,
            Failure::Invalid(_) => status::INVALID,
            Failure::Busy => status::BUSY,
        }
    }

    fn error(self) -> Error {
        let reason = match self {
            Failure::Refused(error) => return error,
            Failure::Stale(handle) => format!("handle {handle} belongs to no living object of this kind"),
            Failure::Invalid(reason) => reason,
            Failure::Busy => "`next` is still pending; one call at a time".into(),
        };
        Error::Option { reason, suggestion: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Refused(error)
    }
}

/// Runs the body of a call and writes its failure as the JSON of a `WireError`.
pub(crate) fn guarded(out: Result<Out, i32>, body: impl FnOnce(&Out) -> Result<i32, Failure>) -> i32 {
    let out = match out {
        Ok(out) => out,
        Err(status) => return status,
    };
    out.write("");
    let (status, error) = match catch(|| body(&out)) {
        Ok(Ok(status)) => return status,
        Ok(Err(failure)) => (failure.status(), failure.error()),
        Err(panic) => (status::PANIC, Error::Internal(panic)),
    };
    out.write(&error.to_json().to_string());
    status
}

/// Like [`guarded`], for calls without a text.
pub(crate) fn silent(body: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    match catch(body) {
        Ok(outcome) => outcome.unwrap_or_else(|failure| failure.status()),
        Err(_) => status::PANIC,
    }
}

pub(crate) fn engine(handle: u32) -> Result<Arc<Engine>, Failure> {
    match handles::get(handle) {
        Some(Object::Engine(engine)) => Ok(engine),
        _ => Err(Failure::Stale(handle)),
    }
}

pub(crate) fn ticket(handle: u32) -> Result<Arc<Stream>, Failure> {
    match handles::get(handle) {
        Some(Object::Ticket(stream)) => Ok(stream),
        _ => Err(Failure::Stale(handle)),
    }
}

pub(crate) fn give_engine(place: &Place, engine: Engine) -> Result<i32, Failure> {
    give(place, Object::Engine(Arc::new(engine)))
}

pub(crate) fn give_ticket(place: &Place, ticket: Ticket) -> Result<i32, Failure> {
    give(place, Object::Ticket(Arc::new(Stream { ticket, unread: Mutex::new(None) })))
}

fn give(place: &Place, object: Object) -> Result<i32, Failure> {
    let Some(handle) = handles::insert(object) else {
        let reason = "there are too many handles; release those that are done with pkv_release".into();
        return Err(Failure::Refused(Error::Option { reason, suggestion: None }));
    };
    place.set(handle);
    Ok(status::OK)
}
