//! Which request starts, and which go on together.
//!
//! Requests start in the order in which they came, at most one between two steps of those that run. One whose prompt is read in pieces
//! gets one piece between two steps, and the next request starts when it is through. A request whose stream is full
//! sits out steps until its reader has made room, so that a slow reader holds up nobody else.
use super::runner::{Runner, Started, Stepped};
use super::state::{Job, Shared};
use super::ticket::Events;
use crate::error::{Error, Result};
use crate::panics::catch;
use crate::wire::{Event, ModelRequest};

pub(super) struct Scheduler<'a> {
    shared: &'a Shared,
    runner: &'a mut dyn Runner,
    /// In the order of their starts.
    running: Vec<Running>,
    started: u64,
}

/// A request that goes from step to step.
struct Running {
    number: u64,
    events: Events,
    /// Its prompt is read in pieces and not there yet.
    reading: bool,
}

impl<'a> Scheduler<'a> {
    pub(super) fn new(shared: &'a Shared, runner: &'a mut dyn Runner) -> Self {
        Scheduler { shared, runner, running: Vec::new(), started: 0 }
    }

    /// Runs requests until the engine closes; an error is a panic that has left the runner unsound, and everything that ran has
    /// ended with it.
    pub(super) fn run(mut self) -> Result<()> {
        loop {
            let rings = self.shared.bell.rings();
            let read = self.read()?;
            let next = if read { None } else { self.next() };
            let idle = next.is_none() && !read;
            if let Some(job) = next {
                self.start(job)?;
            } else if self.running.is_empty() {
                return Ok(());
            }
            let stepped = self.step()?;
            if idle && !stepped {
                self.shared.bell.wait(rings);
            }
        }
    }

    /// The next job that is still wanted and may start now. Waits for one while nothing runs; then `None` says that the engine closes.
    fn next(&self) -> Option<Job<ModelRequest>> {
        if self.running.len() >= self.runner.batch().max(1) {
            return None;
        }
        let alone = self.running.is_empty();
        let mut state = self.shared.lock();
        loop {
            if alone {
                state = self.shared.wait_while(state, |state| state.queue.is_empty() && !state.closing);
            }
            if state.closing {
                return None;
            }
            let may_start = |job: &Job<_>| alone || !job.waits || job.events.is_dead();
            if !state.queue.front().is_some_and(may_start) {
                return None;
            }
            let job = state.queue.pop_front()?;
            if job.events.start() {
                state.running.push((self.started, job.events.stopper()));
                return Some(job);
            }
        }
    }

    fn start(&mut self, job: Job<ModelRequest>) -> Result<()> {
        let number = self.started;
        self.started += 1;
        let started = catch(|| self.runner.start(number, &job.request, &job.images, &job.events));
        match started {
            Ok(Ok(Started::Running)) => self.running.push(Running { number, events: job.events, reading: false }),
            Ok(Ok(Started::Reading)) => self.running.push(Running { number, events: job.events, reading: true }),
            Ok(Ok(Started::Finished)) => self.release(number),
            Ok(Ok(Started::Waits)) if self.running.is_empty() => {
                self.release(number);
                job.events.fail(&Error::Internal("a request waits for others, but none runs".into()));
            }
            Ok(Ok(Started::Waits)) => self.put_back(number, job),
            Ok(Err(error)) => {
                self.release(number);
                job.events.fail(&error);
            }
            Err(panic) => {
                self.release(number);
                return self.panicked(panic, vec![job.events]);
            }
        }
        Ok(())
    }

    /// Reads the next piece of the prompt on its way; false when there is none.
    fn read(&mut self) -> Result<bool> {
        let Some(place) = self.running.iter().position(|running| running.reading) else { return Ok(false) };
        let Running { number, events, .. } = &self.running[place];
        let number = *number;
        match catch(|| self.runner.read(number, events)) {
            Ok(Ok(Started::Reading)) => {}
            Ok(Ok(Started::Running)) => self.running[place].reading = false,
            Ok(Ok(Started::Finished)) => drop(self.take(number)),
            Ok(Ok(Started::Waits)) => {
                let error = Error::Internal("a request waits in the middle of its prompt".into());
                self.take(number).iter().for_each(|events| events.fail(&error));
            }
            Ok(Err(error)) => self.take(number).iter().for_each(|events| events.fail(&error)),
            Err(panic) => {
                let _ = catch(|| self.runner.forget(number));
                let ended = self.take(number).into_iter().collect();
                self.panicked(panic, ended)?;
            }
        }
        Ok(true)
    }

    /// Makes a job the next of the queue again, for when one of the others has ended.
    fn put_back(&self, number: u64, mut job: Job<ModelRequest>) {
        job.waits = true;
        if let Err(error) = job.events.wait_again() {
            self.shared.lock().running.retain(|(other, _)| *other != number);
            return job.events.fail(&error);
        }
        let mut state = self.shared.lock();
        state.running.retain(|(other, _)| *other != number);
        if state.closing {
            drop(state);
            return job.events.fail(&Error::Disposed);
        }
        state.queue.push_front(job);
    }

    /// Takes all whose streams have room one step further; false when there are none.
    fn step(&mut self) -> Result<bool> {
        let ready = |running: &&Running| !running.reading && running.events.is_ready();
        let requests: Vec<_> =
            self.running.iter().filter(ready).map(|running| (running.number, &running.events)).collect();
        if requests.is_empty() {
            return Ok(false);
        }
        let stepped = catch(|| self.runner.step(&requests));
        let numbers: Vec<u64> = requests.into_iter().map(|(number, _)| number).collect();
        match stepped {
            Ok(outcomes) => {
                let missing = || Err(Error::Internal("a step without an outcome".into()));
                let outcomes = outcomes.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
                for (number, outcome) in numbers.into_iter().zip(outcomes) {
                    match outcome.unwrap_or_else(missing) {
                        Ok(Stepped::Running) => {}
                        Ok(Stepped::Finished) => drop(self.take(number)),
                        Err(error) => self.take(number).iter().for_each(|events| events.fail(&error)),
                    }
                }
            }
            Err(panic) => {
                let events = numbers.iter().filter_map(|number| self.take(*number)).collect();
                // A task that panics here as well has let go of its memory or will be found unsound.
                let _ = catch(|| numbers.iter().for_each(|number| self.runner.forget(*number)));
                self.panicked(panic, events)?;
            }
        }
        Ok(true)
    }

    /// Takes a request out of those that run.
    fn take(&mut self, number: u64) -> Option<Events> {
        self.release(number);
        let place = self.running.iter().position(|running| running.number == number)?;
        Some(self.running.remove(place).events)
    }

    /// A request has ended: it is not to be stopped any more, and whoever waits for that may try again.
    fn release(&self, number: u64) {
        let mut state = self.shared.lock();
        state.running.retain(|(other, _)| *other != number);
        state.queue.iter_mut().for_each(|job| job.waits = false);
    }

    /// Ends what has panicked, and everything that runs if the runner is unsound now.
    fn panicked(&mut self, panic: String, ended: Vec<Events>) -> Result<()> {
        let error = Error::Internal(panic);
        ended.iter().for_each(|events| events.fail(&error));
        if catch(|| self.runner.is_sound()).unwrap_or(false) {
            return Ok(());
        }
        self.shared.lock().running.clear();
        self.running.iter().for_each(|running| running.events.finish(Event::from(&error)));
        Err(error)
    }
}

#[cfg(test)]
mod tests;
