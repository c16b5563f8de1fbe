//! A thread with some stack, for code that recurses over what a model folder says.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::panics::quiet_thread;
use crate::{Error, Result};

/// Address space for the stack, in bytes; memory is used only as far as it is touched. The deepest template that the parser and the
/// interpreter let through takes less than a quarter of it (`the_deepest_templates_fit_the_stack`).
pub(super) const STACK: usize = 16 << 20;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` to its end on a thread of its own.
///
/// # Errors
/// Those of `work`; [`Error::Prompt`] for a panic in it, [`Error::OutOfMemory`] when the thread cannot be made.
pub(super) fn run<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if HERE.get() {
        return work();
    }
    std::thread::scope(|scope| {
        let spawned =
            std::thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK).spawn_scoped(scope, || {
                quiet_thread();
                HERE.set(true);
                catch_unwind(AssertUnwindSafe(work))
            });
        let thread = spawned.map_err(|error| Error::OutOfMemory {
            needed: STACK as u64,
            available: 0,
            advice: format!(
                "no thread could be made for the chat template ({error}); raise the limit on the process's address space \
                 (`ulimit -v`) or on its threads"
            ),
        })?;
        let panicked = || Err(Error::Prompt { reason: "the chat template cannot be run".to_owned() });
        thread.join().unwrap_or_else(Err).unwrap_or_else(|_| panicked())
    })
}
