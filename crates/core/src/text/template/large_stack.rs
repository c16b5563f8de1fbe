//! A thread with much stack, for code that recurses over what a model folder says.

use crate::{Error, Result};

/// Address space for the stack, in bytes; memory is used only as far as it is touched.
const STACK: usize = 256 << 20;

/// Runs `work` to its end on a thread of its own. A panic in it becomes [`Error::Prompt`].
pub(super) fn run<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| Error::Internal(format!("no thread for the chat template: {error}")))?
            .join()
            .unwrap_or_else(|_| Err(Error::Prompt { reason: "the chat template makes minijinja panic".to_owned() }))
    })
}
