//! Panics of the engine's threads become errors, without a report on stderr.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Silences the panic report of the calling thread. The process's hook stays in place for all other threads.
pub(crate) fn quiet_thread() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                PLACE.set(info.location().map(ToString::to_string));
            } else {
                previous(info);
            }
        }));
    });
    QUIET.set(true);
}

/// Runs `job`; a panic comes back as its message and place. The caller decides what of the state that `job` touched is sound.
pub fn catch<T>(job: impl FnOnce() -> T) -> Result<T, String> {
    PLACE.set(None);
    panic::catch_unwind(AssertUnwindSafe(job)).map_err(|payload| {
        let message = message(payload.as_ref());
        match PLACE.take() {
            Some(place) => format!("{message} (at {place})"),
            None => message,
        }
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_its_message_and_place() {
        let found = std::thread::spawn(|| {
            quiet_thread();
            catch(|| panic!("lane {} is gone", 3)).unwrap_err()
        });
        let found = found.join().unwrap();
        assert!(found.starts_with("lane 3 is gone (at ") && found.contains("panics.rs"), "{found}");
    }
}
