//! Engines that end with the thread that has opened them.
//!
//! A runtime may end the thread of a worker without telling the objects that lived on it, whose models would then stay for as long as
//! the process. The system still runs the destructors of the thread's locals.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use super::state::Shared;

#[derive(Default)]
struct Owned(RefCell<Vec<Weak<Shared>>>);

thread_local! {
    static OWNED: Owned = Owned::default();
}

/// Closes an engine when the calling thread ends, if it is alive then. Its streams are not read after that, and nobody is called.
pub(super) fn close_with_thread(engine: &Arc<Shared>) {
    OWNED.with(|owned| {
        let mut engines = owned.0.borrow_mut();
        engines.retain(|engine| engine.strong_count() > 0);
        engines.push(Arc::downgrade(engine));
    });
}

impl Drop for Owned {
    fn drop(&mut self) {
        for engine in self.0.take() {
            if let Some(engine) = engine.upgrade() {
                engine.abandon();
            }
        }
    }
}
