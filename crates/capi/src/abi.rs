//! The exported functions.

use std::ffi::c_char;
use std::sync::TryLockError;
use std::time::Duration;

use prefixkv_core::engine::{self, Engine};
use prefixkv_core::wire::Event;

use crate::call::{Failure, engine, give_engine, give_ticket, guarded, silent, ticket};
use crate::handles::{self, Object};
use crate::memory::{Out, Place, images as copy_images, json as copy_json};
use crate::{ABI_VERSION, status};

exports! {
    /// The version of the ABI that the library has; compare it with PKV_ABI_VERSION before anything else.
    fn pkv_abi_version() -> u32 {
        ABI_VERSION
    }

    /// Writes what this build can do on this machine, a JSON object: version, errorCodes, architectures, devices, cpu, threads; and
    /// `live`, what is alive in this process: models, sessions, requests, cacheBytes, and layersRun, rowsRun, rowsShared and pairsRun, which only grow.
    fn pkv_about(out: *mut c_char, capacity: usize, size: *mut u32) -> i32 {
        // SAFETY: the caller promises what `Out` asks for.
        guarded(unsafe { Out::new(out, capacity, size) }, |out| {
            let fits = out.write(&engine::about().to_json().to_string());
            Ok(if fits { status::OK } else { status::TOO_SMALL })
        })
    }

    /// Starts an engine that loads a model on a thread of its own, and returns at once; pkv_loading tells how it goes. `json` is
    /// an object with `source`, an absolute path of a folder in the Hugging Face layout, and perhaps device, weights, threads,
    /// batch, cacheLimit, and closeWithThread, which closes the model when the calling thread ends.
    fn pkv_open(
        json: *const c_char,
        json_length: usize,
        engine: *mut u32,
        out: *mut c_char,
        capacity: usize,
        size: *mut u32,
    ) -> i32 {
        // SAFETY: the caller promises what `Out` asks for.
        guarded(unsafe { Out::new(out, capacity, size) }, |_| {
            // SAFETY: the caller promises what `Place` and `copy_json` ask for.
            let (place, json) = unsafe { (Place::new(engine)?, copy_json(json, json_length)?) };
            give_engine(&place, Engine::open(&json)?)
        })
    }

    /// Reads the configuration of the model folder in `{ "source": DIR }`, without its weights. The ticket ends with an event
    /// `inspected` or `error`.
    fn pkv_inspect(
        json: *const c_char,
        json_length: usize,
        ticket: *mut u32,
        out: *mut c_char,
        capacity: usize,
        size: *mut u32,
    ) -> i32 {
        // SAFETY: the caller promises what `Out` asks for.
        guarded(unsafe { Out::new(out, capacity, size) }, |_| {
            // SAFETY: the caller promises what `Place` and `copy_json` ask for.
            let (place, json) = unsafe { (Place::new(ticket)?, copy_json(json, json_length)?) };
            give_ticket(&place, Engine::inspect(&json)?)
        })
    }

    /// Compares the kernels of the GPU in `{ "device": "cuda:0", "ceilings": true }` with those of the CPU and, if asked for, measures what
    /// it can do. `"cases": "small"` leaves the large shapes out, for tools that watch every access. The ticket gives events `progress` and ends with `checked` or `error`.
    fn pkv_check_device(
        json: *const c_char,
        json_length: usize,
        ticket: *mut u32,
        out: *mut c_char,
        capacity: usize,
        size: *mut u32,
    ) -> i32 {
        // SAFETY: the caller promises what `Out` asks for.
        guarded(unsafe { Out::new(out, capacity, size) }, |_| {
            // SAFETY: the caller promises what `Place` and `copy_json` ask for.
            let (place, json) = unsafe { (Place::new(ticket)?, copy_json(json, json_length)?) };
            give_ticket(&place, Engine::check_device(&json)?)
        })
    }

    /// A ticket of the load: events `progress`, then `loaded` or `error`. Cancelling it stops the load.
    fn pkv_loading(engine: u32, ticket: *mut u32, out: *mut c_char, capacity: usize, size: *mut u32) -> i32 {
        // SAFETY: the caller promises what `Out` asks for.
        guarded(unsafe { Out::new(out, capacity, size) }, |_| {
            // SAFETY: the caller promises what `Place` asks for.
            let place = unsafe { Place::new(ticket) }?;
            give_ticket(&place, self::engine(engine)?.loading())
        })
    }

    /// Queues a request. `images` and `lengths` are two arrays of `count` entries, the bytes of the encoded pictures and their
    /// number; both may be null when `count` is 0. Everything is copied before the call returns.
    fn pkv_submit(
        engine: u32,
        json: *const c_char,
        json_length: usize,
        images: *const *const u8,
        lengths: *const usize,
        count: usize,
        ticket: *mut u32,
        out: *mut c_char,
        capacity: usize,
        size: *mut u32,
    ) -> i32 {
        // SAFETY: the caller promises what `Out` asks for.
        guarded(unsafe { Out::new(out, capacity, size) }, |_| {
            // SAFETY: the caller promises what `Place`, `copy_json` and `copy_images` ask for.
            let (place, json, images) = unsafe {
                (Place::new(ticket)?, copy_json(json, json_length)?, copy_images(images, lengths, count)?)
            };
            give_ticket(&place, self::engine(engine)?.submit(&json, images)?)
        })
    }

    /// Takes all ready events, as one JSON array, and returns its size in bytes; 0 when there is none yet, PKV_END after the
    /// last. With a timeout it waits for the first event, at most for so many milliseconds. One call at a time per ticket.
    fn pkv_next(ticket: u32, timeout_ms: u32, out: *mut c_char, capacity: usize, size: *mut u32) -> i32 {
        // SAFETY: the caller promises what `Out` asks for.
        guarded(unsafe { Out::new(out, capacity, size) }, |out| {
            let stream = self::ticket(ticket)?;
            let mut unread = match stream.unread.try_lock() {
                Ok(unread) => unread,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Err(Failure::Busy),
            };
            let text = match unread.take() {
                Some(text) => text,
                None => match stream.ticket.wait(Duration::from_millis(timeout_ms.into())) {
                    None => return Ok(status::END),
                    Some(events) if events.is_empty() => return Ok(status::OK),
                    Some(events) => Event::array(&events),
                },
            };
            if out.write(&text) {
                return Ok(i32::try_from(text.len()).unwrap_or(i32::MAX));
            }
            *unread = Some(text);
            Ok(status::TOO_SMALL)
        })
    }

    /// Asks the work of a ticket to stop. Queued events can still be read; the stream ends soon after, with an event `error` of
    /// code `aborted`, or `done` with finish `aborted` once there is text.
    fn pkv_cancel(ticket: u32) -> i32 {
        silent(|| {
            self::ticket(ticket)?.ticket.cancel();
            Ok(status::OK)
        })
    }

    /// Stops intake, ends all work with errors of code `disposed` and frees the model; then the ticket says `closed`. Can be
    /// repeated. The handle stays valid until it is released.
    fn pkv_close(engine: u32, ticket: *mut u32, out: *mut c_char, capacity: usize, size: *mut u32) -> i32 {
        // SAFETY: the caller promises what `Out` asks for.
        guarded(unsafe { Out::new(out, capacity, size) }, |_| {
            // SAFETY: the caller promises what `Place` asks for.
            let place = unsafe { Place::new(ticket) }?;
            give_ticket(&place, self::engine(engine)?.close())
        })
    }

    /// Gives a handle back: a ticket is cancelled, an engine closes itself without waiting. Every handle needs it, once.
    fn pkv_release(handle: u32) -> i32 {
        silent(|| {
            let object = handles::remove(handle).ok_or(Failure::Stale(handle))?;
            if let Object::Ticket(stream) = &object {
                // A call of pkv_next on another thread may hold the stream for as long as its timeout.
                stream.ticket.cancel();
            }
            drop(object);
            Ok(status::OK)
        })
    }
}
