//! How much work, memory and time one rendering may take.
//!
//! A template comes from whoever made the model folder, so everything that it can repeat, nest or grow is counted here before it
//! is done. A rendering has a thread of its own, and the counters belong to that thread.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::fail::{Fail, Res};

/// Most units of work: one for each node that is evaluated, and one for some bytes that are copied, searched or rewritten. A message
/// takes about a hundred, and so does each kilobyte of it, so this is some 50,000 messages, or the 4 MiB of a request a few times.
const WORK: u64 = 10_000_000;
/// Most bytes of text and of list entries that are held at a time.
const MEMORY: usize = 64 << 20;
/// Longest time; only a machine under great load meets it before the work is used up.
const TIME: Duration = Duration::from_secs(2);
/// Units of work between two looks at the clock.
const LOOK: u64 = 4096;

/// How much of the budget a rendering gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// One of the few that a load tries with a short message.
    Probe,
    Request,
}

thread_local! {
    static WORK_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    static HELD: Cell<usize> = const { Cell::new(0) };
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
    static NEXT_LOOK: Cell<u64> = const { Cell::new(0) };
}

/// Gives the calling thread the budget of one rendering.
pub(super) fn start(share: Share) {
    let part = if share == Share::Probe { 4 } else { 1 };
    WORK_LEFT.set(WORK / u64::from(part));
    HELD.set(0);
    DEADLINE.set(Some(Instant::now() + TIME / part));
    NEXT_LOOK.set(WORK / u64::from(part) - LOOK);
}

/// Takes units of work.
pub(super) fn work(units: usize) -> Res<()> {
    let left = WORK_LEFT.get();
    let Some(left) = left.checked_sub(units as u64) else {
        WORK_LEFT.set(0);
        return Err(Fail::limit("it takes too many steps"));
    };
    WORK_LEFT.set(left);
    if left <= NEXT_LOOK.get() {
        NEXT_LOOK.set(left.saturating_sub(LOOK));
        if DEADLINE.get().is_some_and(|deadline| Instant::now() > deadline) {
            return Err(Fail::limit("it takes too long"));
        }
    }
    Ok(())
}

/// Takes the work of copying `bytes`.
pub(super) fn copy(bytes: usize) -> Res<()> {
    work(bytes / 64 + 1)
}

/// Takes the work of writing each character of `bytes` anew.
pub(super) fn rewrite(bytes: usize) -> Res<()> {
    work(bytes / 2 + 1)
}

/// Takes the work of searching `bytes`.
pub(super) fn scan(bytes: usize) -> Res<()> {
    work(bytes / 8 + 1)
}

/// Refuses what would not fit beside what is held.
pub(super) fn room(bytes: usize) -> Res<()> {
    match HELD.get().checked_add(bytes) {
        Some(held) if held <= MEMORY => Ok(()),
        _ => Err(Fail::limit(format!("it takes more than {} MiB of memory", MEMORY >> 20))),
    }
}

/// Counts bytes as held until [`release`].
pub(super) fn hold(bytes: usize) -> Res<()> {
    room(bytes)?;
    HELD.set(HELD.get() + bytes);
    Ok(())
}

/// Counts bytes as held that are there already.
pub(super) fn held(bytes: usize) {
    HELD.set(HELD.get().saturating_add(bytes));
}

pub(super) fn release(bytes: usize) {
    HELD.set(HELD.get().saturating_sub(bytes));
}
