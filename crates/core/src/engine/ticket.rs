//! A bounded stream of events between the engine, which produces, and one reader, which pulls.
//!
//! The producer blocks while [`CAPACITY`] events wait, so a slow reader costs time, never memory. Cancelling, or dropping the
//! reader, wakes a blocked producer. The last event of a stream always gets through.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bell::Bell;
use crate::error::{Error, Result};
use crate::method::external::PlanReply;
use crate::metrics;
use crate::wire::{Event, SessionId};

/// Events that may wait for the reader before the producer does.
pub const CAPACITY: usize = 256;

type Waiter = Box<dyn FnOnce() + Send>;

/// A stream whose work begins at once.
pub fn stream() -> (Events, Ticket) {
    let (events, ticket) = queued(None);
    events.start();
    (events, ticket)
}

/// A stream whose work waits in a queue: until [`Events::start`], a cancel ends it on the spot. The bell is rung when the producer may
/// have to look after it: there is room again, or a reason to stop.
pub(super) fn queued(bell: Option<Arc<Bell>>) -> (Events, Ticket) {
    let state = State { live: Some(metrics::REQUESTS.one()), ..State::default() };
    let channel = Arc::new(Channel { state: Mutex::new(state), bell, ..Channel::default() });
    (Events { channel: channel.clone(), submitted: Instant::now() }, Ticket { channel })
}

/// Why work is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Aborted,
    Disposed,
}

impl Stop {
    pub(crate) fn error(self) -> Error {
        match self {
            Stop::Aborted => Error::Aborted,
            Stop::Disposed => Error::Disposed,
        }
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Event>,
    waiter: Option<Waiter>,
    started: bool,
    /// [`Events::send`] was called.
    sent: bool,
    ended: bool,
    reader_gone: bool,
    stop: Option<Stop>,
    /// The question that the producer waits to be answered, and the answer.
    asked: Option<(SessionId, Option<PlanReply>)>,
    /// Counted until the end.
    live: Option<metrics::One>,
}

#[derive(Default)]
struct Channel {
    state: Mutex<State>,
    /// There is room for the producer, or a reason to stop.
    room: Condvar,
    /// There is something for a reader in [`Ticket::wait`].
    ready: Condvar,
    bell: Option<Arc<Bell>>,
}

impl Channel {
    /// No code that can panic runs under the lock, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the producer.
    fn tell(&self) {
        self.room.notify_all();
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// Lets go of the lock before it calls the waiter, which may poll or register again.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waiter = state.waiter.take();
        drop(state);
        self.ready.notify_all();
        if let Some(waiter) = waiter {
            waiter();
        }
    }

    fn end(&self, mut state: MutexGuard<'_, State>, last: Event) {
        if state.ended {
            return;
        }
        state.ended = true;
        state.live = None;
        if !state.reader_gone {
            state.waiting.push_back(last);
        }
        self.wake(state);
    }

    /// Ends the reader's interest without calling its waiter, which may lead into a thread that is ending: it is never freed.
    fn orphan(&self) {
        let mut state = self.lock();
        state.reader_gone = true;
        let waiting = mem::take(&mut state.waiting);
        mem::forget(state.waiter.take());
        drop(state);
        self.tell();
        drop(waiting);
    }

    fn stop(&self, reason: Stop) {
        let mut state = self.lock();
        if state.ended || state.stop.is_some() {
            return;
        }
        state.stop = Some(reason);
        self.tell();
        if !state.started {
            self.end(state, Event::from(&reason.error()));
        }
    }
}

/// The producer's side. Dropped without an end, it ends the stream with an internal error, so no reader waits forever.
pub struct Events {
    channel: Arc<Channel>,
    submitted: Instant,
}

impl Events {
    /// When the work was asked for.
    pub fn submitted(&self) -> Instant {
        self.submitted
    }

    /// Adds an event, waiting for room. An error says why to stop; even then the event is in the stream, unless nobody reads,
    /// so that what was streamed and what a final `done` says agree.
    pub fn send(&self, event: Event) -> Result<()> {
        let channel = &self.channel;
        let full = |state: &mut State| {
            state.waiting.len() >= CAPACITY && state.stop.is_none() && !state.reader_gone && !state.ended
        };
        let mut state = channel.room.wait_while(channel.lock(), full).unwrap_or_else(PoisonError::into_inner);
        let stop = if state.reader_gone { Some(Stop::Aborted) } else { state.stop };
        state.sent = true;
        if !state.reader_gone && !state.ended {
            state.waiting.push_back(event);
            channel.wake(state);
        }
        stop.map_or(Ok(()), |stop| Err(stop.error()))
    }

    /// Adds an event without waiting: it takes the place of the same kind of event at the end of the stream, and is left out
    /// when the stream is full. For progress, of which only the newest matters.
    pub fn offer(&self, event: Event) {
        let mut state = self.channel.lock();
        if state.ended || state.reader_gone {
            return;
        }
        let newest = match (state.waiting.back(), &event) {
            (Some(Event::Progress(last)), Event::Progress(next)) => last.stage == next.stage,
            _ => false,
        };
        if newest {
            state.waiting.pop_back();
        } else if state.waiting.len() >= CAPACITY {
            return;
        }
        state.waiting.push_back(event);
        self.channel.wake(state);
    }

    /// Adds the last event, full or not.
    pub fn finish(&self, last: Event) {
        self.channel.end(self.channel.lock(), last);
    }

    /// Ends the stream with an error.
    pub fn fail(&self, error: &Error) {
        self.finish(Event::from(error));
    }

    /// An error once the work should stop: cancelled, its engine closed, or nobody reads any more.
    pub fn check(&self) -> Result<()> {
        let state = self.channel.lock();
        match state.stop {
            Some(stop) => Err(stop.error()),
            None if state.reader_gone => Err(Error::Aborted),
            None => Ok(()),
        }
    }

    /// Says that the work begins; false when the stream has already ended, so that there is nothing to do.
    pub(crate) fn start(&self) -> bool {
        let mut state = self.channel.lock();
        state.started = true;
        !state.ended && !state.reader_gone
    }

    /// Says that the work has not begun after all, and that nothing was sent; an error says that it is not wanted any more.
    pub(super) fn wait_again(&self) -> Result<()> {
        let mut state = self.channel.lock();
        state.started = false;
        state.stop.map_or(Ok(()), |stop| Err(stop.error()))
    }

    /// Sends a question that [`Ticket`]'s reader answers by its `name`; until then the stream is not ready.
    pub(super) fn ask(&self, name: SessionId, question: Event) -> Result<()> {
        self.channel.lock().asked = Some((name, None));
        self.send(question)
    }

    /// The answer to the last question; None while there is none.
    pub(super) fn take_answer(&self) -> Option<PlanReply> {
        let mut state = self.channel.lock();
        let answer = state.asked.as_mut()?.1.take();
        if answer.is_some() {
            state.asked = None;
        }
        answer
    }

    /// Whether the producer can go on: [`Events::send`] would return at once and no question is open, or there is a reason to stop.
    pub(super) fn is_ready(&self) -> bool {
        let state = self.channel.lock();
        let waits = matches!(state.asked, Some((_, None)));
        (state.waiting.len() < CAPACITY && !waits) || state.stop.is_some() || state.reader_gone || state.ended
    }

    /// Whether anything has been sent.
    pub(super) fn has_sent(&self) -> bool {
        self.channel.lock().sent
    }

    /// Whether [`Ticket::cancel`] was called; unlike [`Events::check`], a reader that went away does not count.
    pub(crate) fn cancelled(&self) -> bool {
        self.channel.lock().stop == Some(Stop::Aborted)
    }

    /// Whether no reader can want the work any more.
    pub(crate) fn is_dead(&self) -> bool {
        let state = self.channel.lock();
        state.ended || state.reader_gone
    }

    /// Lets the stream go on without its reader, whose thread is ending.
    pub(crate) fn orphan(&self) {
        self.channel.orphan();
    }

    /// A handle that stops the work from the engine's side.
    pub(crate) fn stopper(&self) -> Stopper {
        Stopper(self.channel.clone())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.finish(Event::from(&Error::Internal("the work ended without an answer".into())));
    }
}

/// Stops the work of a stream.
pub(crate) struct Stopper(Arc<Channel>);

impl Stopper {
    /// Answers the open question of this name; the answer comes back where there is none.
    pub(super) fn answer(&self, name: SessionId, answer: PlanReply) -> std::result::Result<(), PlanReply> {
        let mut state = self.0.lock();
        match &mut state.asked {
            Some((asked, open @ None)) if *asked == name => *open = Some(answer),
            _ => return Err(answer),
        }
        self.0.tell();
        Ok(())
    }

    pub(crate) fn stop(&self, reason: Stop) {
        self.0.stop(reason);
    }

    /// See [`Events::orphan`].
    pub(crate) fn orphan(&self) {
        self.0.orphan();
    }
}

/// The reader's side. Dropping it cancels the work.
pub struct Ticket {
    channel: Arc<Channel>,
}

impl Ticket {
    /// All events that are ready, perhaps none; `None` when the stream has ended and everything was read.
    pub fn poll(&self) -> Option<Vec<Event>> {
        self.take(self.channel.lock())
    }

    /// Like [`Ticket::poll`], with the events as one JSON array.
    pub fn poll_json(&self) -> Option<String> {
        self.poll().map(|events| Event::array(&events))
    }

    /// Like [`Ticket::poll`], but waits for the first event, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<Vec<Event>> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.ended;
        let waited = self.channel.ready.wait_timeout_while(self.channel.lock(), timeout, idle);
        self.take(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Calls `waiter` once, as soon as [`Ticket::poll`] has something to say: at once on this thread, or later on the
    /// producer's. One waiter at a time; dropping the ticket drops a waiter uncalled.
    pub fn on_ready(&self, waiter: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut state = self.channel.lock();
        if state.waiter.is_some() {
            return Err(Error::Option {
                reason: "this stream is already being waited for; one call of next at a time".into(),
                suggestion: None,
            });
        }
        if state.waiting.is_empty() && !state.ended {
            state.waiter = Some(Box::new(waiter));
        } else {
            drop(state);
            waiter();
        }
        Ok(())
    }

    /// Asks the work to stop. Events already queued can still be read; the stream ends soon after.
    pub fn cancel(&self) {
        self.channel.stop(Stop::Aborted);
    }

    fn take(&self, mut state: MutexGuard<'_, State>) -> Option<Vec<Event>> {
        if state.waiting.is_empty() && state.ended {
            return None;
        }
        let events = mem::take(&mut state.waiting);
        drop(state);
        if events.len() >= CAPACITY {
            self.channel.tell();
        }
        Some(events.into())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.channel.lock();
        state.reader_gone = true;
        // Both are dropped without the lock: a waiter may own anything.
        let dropped = (mem::take(&mut state.waiting), state.waiter.take());
        drop(state);
        self.channel.tell();
        drop(dropped);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.channel.lock();
        f.debug_struct("Ticket").field("waiting", &state.waiting.len()).field("ended", &state.ended).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::wire::Progress;

    const LONG: Duration = Duration::from_secs(10);

    fn token(id: u32) -> Event {
        Event::Token { id, text: String::new(), logprobs: None }
    }

    fn progress(stage: &'static str, done: u64, total: u64) -> Event {
        Event::Progress(Progress { stage, done, total })
    }

    fn ids(events: &[Event]) -> Vec<u32> {
        events.iter().filter_map(|event| if let Event::Token { id, .. } = event { Some(*id) } else { None }).collect()
    }

    fn code(event: &Event) -> &str {
        match event {
            Event::Error { error } => error.code,
            _ => "",
        }
    }

    fn until_blocked(ticket: &Ticket) {
        while ticket.channel.lock().waiting.len() < CAPACITY {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(20));
    }

    #[test]
    fn a_slow_reader_blocks_the_producer_and_gets_everything() {
        let (events, ticket) = stream();
        let producer = thread::spawn(move || {
            (0..2000).for_each(|id| events.send(token(id)).unwrap());
            events.finish(Event::Closed);
        });
        until_blocked(&ticket);
        assert_eq!(ticket.channel.lock().waiting.len(), CAPACITY);
        let mut seen = Vec::new();
        while let Some(batch) = ticket.wait(LONG) {
            assert!(!batch.is_empty() && batch.len() <= CAPACITY + 1);
            seen.extend(ids(&batch));
        }
        assert_eq!(seen, (0..2000).collect::<Vec<_>>());
        assert!(ticket.poll().is_none());
        producer.join().unwrap();
    }

    #[test]
    fn cancel_wakes_a_blocked_producer_and_the_end_gets_through() {
        let (events, ticket) = stream();
        let producer = thread::spawn(move || {
            let error = (0..).find_map(|id| events.send(token(id)).err()).unwrap();
            assert!(matches!(error, Error::Aborted));
            assert!(events.cancelled() && events.check().is_err());
            events.fail(&error);
        });
        until_blocked(&ticket);
        ticket.cancel();
        ticket.cancel();
        producer.join().unwrap();
        let rest = ticket.poll().unwrap();
        assert_eq!(rest.len(), CAPACITY + 2, "the event that was blocked and the end are there");
        assert_eq!(code(rest.last().unwrap()), "aborted");
        assert!(ticket.poll().is_none());
    }

    #[test]
    fn dropping_the_reader_wakes_a_blocked_producer() {
        let (events, ticket) = stream();
        let producer = thread::spawn(move || {
            let error = (0..).find_map(|id| events.send(token(id)).err()).unwrap();
            assert!(matches!(error, Error::Aborted) && events.is_dead() && !events.cancelled());
            events.finish(Event::Closed);
            events.channel.lock().waiting.len()
        });
        until_blocked(&ticket);
        drop(ticket);
        assert_eq!(producer.join().unwrap(), 0);
    }

    #[test]
    fn the_engine_can_stop_with_its_own_reason_and_the_first_reason_stays() {
        let (events, ticket) = stream();
        events.stopper().stop(Stop::Disposed);
        ticket.cancel();
        assert!(matches!(events.check(), Err(Error::Disposed)));
    }

    #[test]
    fn cancelling_queued_work_ends_it_on_the_spot() {
        let (events, ticket) = queued(None);
        ticket.cancel();
        assert_eq!(code(&ticket.poll().unwrap()[0]), "aborted");
        assert!(ticket.poll().is_none());
        assert!(!events.start());
        events.finish(Event::Closed);
        assert!(ticket.poll().is_none());
    }

    #[test]
    fn a_producer_that_vanishes_ends_the_stream() {
        let (events, ticket) = stream();
        drop(events);
        assert_eq!(code(&ticket.wait(LONG).unwrap()[0]), "internal");
        assert!(ticket.poll().is_none());
    }

    #[test]
    fn a_waiter_is_called_exactly_once_per_registration() {
        let (events, ticket) = stream();
        let ticket = Arc::new(ticket);
        let calls = Arc::new(AtomicUsize::new(0));
        let count = |calls: &Arc<AtomicUsize>| {
            let calls = calls.clone();
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        ticket.on_ready(count(&calls)).unwrap();
        assert!(ticket.on_ready(count(&calls)).is_err(), "one at a time");
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        (0..3).for_each(|id| events.send(token(id)).unwrap());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        ticket.on_ready(count(&calls)).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 2, "at once when something is ready");
        assert_eq!(ticket.poll().unwrap().len(), 3);
        ticket.on_ready(count(&calls)).unwrap();
        drop(events);
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        assert_eq!(ticket.poll().unwrap().len(), 1);
        ticket.on_ready(count(&calls)).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 4, "at once when the stream has ended");
    }

    #[test]
    fn a_reader_driven_by_wakes_sees_every_event_in_order() {
        let (events, ticket) = stream();
        let ticket = Arc::new(ticket);
        let producer = thread::spawn(move || {
            for id in 0..5000 {
                events.send(token(id)).unwrap();
                if id % 97 == 0 {
                    thread::yield_now();
                }
            }
            events.finish(Event::Closed);
        });
        let mut seen = Vec::new();
        loop {
            let (wake, woken) = std::sync::mpsc::channel();
            ticket.on_ready(move || wake.send(()).unwrap()).unwrap();
            woken.recv_timeout(LONG).expect("a wake was lost");
            let Some(batch) = ticket.poll() else { break };
            assert!(!batch.is_empty(), "woken for nothing");
            seen.extend(ids(&batch));
        }
        assert_eq!(seen, (0..5000).collect::<Vec<_>>());
        producer.join().unwrap();
    }

    #[test]
    fn dropping_the_reader_drops_its_waiter_uncalled() {
        let (events, ticket) = stream();
        let token = Arc::new(());
        let held = token.clone();
        ticket.on_ready(move || panic!("called {held:?}")).unwrap();
        drop(ticket);
        assert_eq!(Arc::strong_count(&token), 1);
        assert!(events.check().is_err());
    }

    #[test]
    fn an_orphaned_stream_stops_its_producer_and_never_calls_its_waiter() {
        let (events, ticket) = stream();
        ticket.on_ready(|| panic!("called")).unwrap();
        events.orphan();
        assert!(matches!(events.send(token(1)), Err(Error::Aborted)) && events.is_dead());
        events.finish(Event::Closed);
        assert!(ticket.poll().is_none());
    }

    #[test]
    fn progress_replaces_progress_and_never_blocks() {
        let (events, ticket) = stream();
        (0..5000).for_each(|done| events.offer(progress("weights", done, 5000)));
        events.offer(progress("ready", 1, 1));
        let seen = ticket.poll().unwrap();
        let seen: Vec<(&str, u64)> = seen
            .iter()
            .filter_map(|event| {
                if let Event::Progress(Progress { stage, done, .. }) = event { Some((*stage, *done)) } else { None }
            })
            .collect();
        assert_eq!(seen, [("weights", 4999), ("ready", 1)]);
        for _ in 0..CAPACITY {
            events.offer(progress("a", 0, 0));
            events.offer(progress("b", 0, 0));
        }
        assert_eq!(ticket.poll().unwrap().len(), CAPACITY);
    }

    #[test]
    fn wait_gives_up_after_its_timeout() {
        let (_events, ticket) = stream();
        assert!(ticket.wait(Duration::from_millis(5)).unwrap().is_empty());
    }
}
