//! Wakes an engine's thread when all its readers are slow.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Counts rings, so that one between a look at the world and the wait for a change of it is not lost.
#[derive(Default)]
pub(super) struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it has been rung.
    pub(super) fn rings(&self) -> u64 {
        *self.lock()
    }

    pub(super) fn ring(&self) {
        *self.lock() += 1;
        self.rung.notify_all();
    }

    /// Waits until it has been rung more than `seen` times.
    pub(super) fn wait(&self, seen: u64) {
        let heard = self.rung.wait_while(self.lock(), |rings| *rings <= seen);
        drop(heard.unwrap_or_else(PoisonError::into_inner));
    }
}
