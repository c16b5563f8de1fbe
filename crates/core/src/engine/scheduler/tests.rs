use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::super::tests::{LONG, code, end};
use super::super::{CAPACITY, Codec, Engine, Ticket};
use super::*;
use crate::model::ModelInfo;
use crate::wire::{ModelRequest, SourceText};
use serde_json::json;

/// Does what its requests' prompts say, and writes down what it is told.
struct Fake {
    batch: usize,
    running: Vec<(u64, String, usize)>,
    log: Log,
    /// A step waits for one of these, until the other end is dropped.
    permits: Receiver<()>,
    /// The prompt that is read in pieces, and how many are left.
    reading: Option<(u64, String, usize)>,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn until(&self, line: &str) {
        let start = Instant::now();
        while !self.lines().iter().any(|other| other == line) {
            assert!(start.elapsed() < LONG, "no `{line}` in {:?}", self.lines());
            thread::yield_now();
        }
    }
}

struct NoCodec;

impl Codec for NoCodec {
    fn encode(&self, _: &str, _: bool) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    fn decode(&self, _: &[u32], _: bool) -> Result<String> {
        Ok(String::new())
    }
}

impl Runner for Fake {
    fn info(&self) -> ModelInfo {
        ModelInfo::default()
    }

    fn codec(&self) -> Arc<dyn Codec> {
        Arc::new(NoCodec)
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn start(&mut self, number: u64, request: &ModelRequest, _: &[Vec<u8>], events: &Events) -> Result<Started> {
        let ModelRequest::Generate(request) = request else { return Err(Error::Internal("only generate".into())) };
        let SourceText::Raw(what) = &request.source.text else { return Err(Error::Internal("only prompts".into())) };
        let what = what.clone();
        self.log.add(format!("start {what}"));
        match what.as_str() {
            "waits" if !self.running.is_empty() => return Ok(Started::Waits),
            "always waits" => return Ok(Started::Waits),
            "at once" => {
                events.finish(Event::Text { text: what });
                return Ok(Started::Finished);
            }
            "refuse" => return Err(Error::Prompt { reason: "as asked".into() }),
            "panic at start" => panic!("as asked"),
            what if what.starts_with("long") => {
                self.reading = Some((number, what.to_owned(), 3));
                return Ok(Started::Reading);
            }
            _ => self.running.push((number, what, request.max_tokens.unwrap_or(1))),
        }
        Ok(Started::Running)
    }

    fn read(&mut self, number: u64, events: &Events) -> Result<Started> {
        let (_, what, left) = self.reading.take_if(|(reading, ..)| *reading == number).unwrap();
        self.log.add(format!("read {what}"));
        events.check()?;
        match (what.as_str(), left - 1) {
            ("long panics", 1) => panic!("as asked"),
            ("long errs", 1) => return Err(Error::Prompt { reason: "as asked".into() }),
            (_, 0) => {
                self.running.push((number, what, 2));
                return Ok(Started::Running);
            }
            (_, left) => self.reading = Some((number, what, left)),
        }
        Ok(Started::Reading)
    }

    fn step(&mut self, requests: &[(u64, &Events)]) -> Vec<Result<Stepped>> {
        let place = |fake: &Fake, number: u64| fake.running.iter().position(|(n, ..)| *n == number).unwrap();
        let names: Vec<_> = requests.iter().map(|(number, _)| self.running[place(self, *number)].1.clone()).collect();
        self.log.add(format!("step {}", names.join(" ")));
        let _ = self.permits.recv();
        let one = |(number, events): &(u64, &Events)| {
            let place = place(self, *number);
            let (_, what, left) = &mut self.running[place];
            *left -= 1;
            let went = match (what.as_str(), *left) {
                ("panics", 0) => panic!("as asked"),
                ("errs", 0) => Err(Error::OutOfMemory { needed: 1, available: 0, advice: "as asked".into() }),
                (_, left) => {
                    events.send(Event::Token { id: left as u32, text: what.clone(), logprobs: None }).map(|()| left)
                }
            };
            if matches!(went, Ok(left) if left > 0) {
                return Ok(Stepped::Running);
            }
            let (_, what, _) = self.running.remove(place);
            went.map(|_| {
                events.finish(Event::Text { text: what });
                Stepped::Finished
            })
        };
        requests.iter().map(one).collect()
    }

    fn forget(&mut self, number: u64) {
        self.log.add(format!("forget {number}"));
        self.running.retain(|(other, ..)| *other != number);
    }

    fn is_sound(&self) -> bool {
        !self.log.lines().iter().any(|line| line == "start unsound")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.log.add("dropped".into());
    }
}

/// An engine whose steps wait for permits, until their sender is dropped.
fn engine(batch: usize) -> (Engine, Log, Sender<()>) {
    let (permit, permits) = channel();
    let log = Log::default();
    let of_fake = log.clone();
    let engine = Engine::start(Box::new(move |_| {
        Ok(Box::new(Fake { batch, running: Vec::new(), reading: None, log: of_fake, permits }))
    }));
    (engine.unwrap(), log, permit)
}

fn ask(engine: &Engine, what: &str, tokens: usize) -> Ticket {
    let request = json!({ "op": "generate", "prompt": what, "maxTokens": tokens }).to_string();
    engine.submit(&request, Vec::new()).unwrap()
}

/// All texts of a stream but the last, which must be a text, and a count that goes down to 0.
fn tokens(ticket: &Ticket) -> usize {
    let mut seen = Vec::new();
    let start = Instant::now();
    while let Some(events) = ticket.wait(LONG) {
        assert!(start.elapsed() < LONG, "the stream does not end");
        seen.extend(events);
    }
    let Some(Event::Text { .. }) = seen.pop() else { panic!("no answer") };
    for (left, event) in (0..seen.len()).rev().zip(&seen) {
        assert!(matches!(event, Event::Token { id, .. } if *id as usize == left));
    }
    seen.len()
}

#[test]
fn requests_join_one_at_a_time_between_steps() {
    let (engine, log, permit) = engine(3);
    let a = ask(&engine, "a", 4);
    log.until("step a");
    let others = [ask(&engine, "b", 1), ask(&engine, "c", 3), ask(&engine, "d", 1)];
    drop(permit);
    assert_eq!(tokens(&a), 4);
    assert_eq!(others.each_ref().map(tokens), [1, 3, 1]);
    let expected =
        ["start a", "step a", "start b", "step a b", "start c", "step a c", "start d", "step a c d", "step c"];
    assert_eq!(log.lines(), expected, "b ends after its one step, and a after four");
}

#[test]
fn at_most_so_many_run_and_the_rest_starts_in_order() {
    let (engine, log, permit) = engine(2);
    let first = ask(&engine, "a", 2);
    log.until("step a");
    let rest = [ask(&engine, "b", 3), ask(&engine, "at once", 1), ask(&engine, "c", 1)];
    drop(permit);
    assert_eq!((tokens(&first), tokens(&rest[0]), tokens(&rest[1]), tokens(&rest[2])), (2, 3, 0, 1));
    let expected = ["start a", "step a", "start b", "step a b", "start at once", "step b", "start c", "step b c"];
    assert_eq!(log.lines(), expected);
}

#[test]
fn others_step_between_the_pieces_of_a_prompt() {
    let (engine, log, permit) = engine(3);
    let a = ask(&engine, "a", 6);
    log.until("step a");
    let (long, b) = (ask(&engine, "long", 2), ask(&engine, "b", 1));
    drop(permit);
    assert_eq!((tokens(&a), tokens(&long), tokens(&b)), (6, 2, 1));
    let expected = [
        "start a",
        "step a",
        "start long",
        "step a",
        "read long",
        "step a",
        "read long",
        "step a",
        "read long",
        "step a long",
        "start b",
        "step a long b",
    ];
    assert_eq!(log.lines(), expected);
}

#[test]
fn a_prompt_that_ends_between_its_pieces_leaves_the_others_alone() {
    for (what, ends) in [("long errs", "prompt"), ("long panics", "internal"), ("long", "aborted")] {
        let (engine, log, permit) = engine(3);
        let a = ask(&engine, "a", 8);
        log.until("step a");
        let (long, b) = (ask(&engine, what, 2), ask(&engine, "b", 1));
        permit.send(()).unwrap();
        log.until(&format!("start {what}"));
        if what == "long" {
            long.cancel();
        }
        drop(permit);
        assert_eq!((code(&long), tokens(&a), tokens(&b)), (ends.into(), 8, 1));
        assert_eq!(log.lines().iter().any(|line| line.starts_with("forget")), what == "long panics");
    }
}

#[test]
fn a_batch_of_one_runs_one_after_the_other() {
    let (engine, log, permit) = engine(1);
    let tickets = [ask(&engine, "a", 2), ask(&engine, "at once", 1), ask(&engine, "b", 1)];
    drop(permit);
    assert_eq!(tickets.each_ref().map(tokens), [2, 0, 1]);
    assert_eq!(log.lines(), ["start a", "step a", "step a", "start at once", "start b", "step b"]);
}

#[test]
fn a_cancelled_request_leaves_at_the_next_step_and_the_others_go_on() {
    let (engine, log, permit) = engine(2);
    let (a, b) = (ask(&engine, "a", 100), ask(&engine, "b", 4));
    log.until("step a");
    permit.send(()).unwrap();
    log.until("step a b");
    a.cancel();
    drop(permit);
    assert_eq!((code(&a), tokens(&b)), ("aborted".into(), 4));
    assert_eq!(log.lines(), ["start a", "step a", "start b", "step a b", "step b", "step b", "step b"]);
}

#[test]
fn a_dropped_ticket_leaves_too() {
    let (engine, log, permit) = engine(2);
    let (a, b) = (ask(&engine, "a", 1_000_000), ask(&engine, "b", 3));
    log.until("step a");
    drop(a);
    drop(permit);
    assert_eq!(tokens(&b), 3);
    assert_eq!(log.lines(), ["start a", "step a", "start b", "step b", "step b", "step b"]);
}

#[test]
fn an_error_is_of_one_request_only() {
    let (engine, log, permit) = engine(3);
    let (a, errs, refused) = (ask(&engine, "a", 5), ask(&engine, "errs", 2), ask(&engine, "refuse", 1));
    log.until("step a");
    drop(permit);
    assert_eq!((code(&errs), code(&refused)), ("out-of-memory".into(), "prompt".into()));
    assert_eq!(tokens(&a), 5);
}

#[test]
fn a_panic_ends_the_requests_of_its_step_and_no_other() {
    let (engine, log, permit) = engine(3);
    let (a, panics) = (ask(&engine, "a", 5), ask(&engine, "panics", 2));
    log.until("step a");
    let (at_start, next) = (ask(&engine, "panic at start", 1), ask(&engine, "next", 2));
    drop(permit);
    let ended = end(&panics);
    assert!(ended["error"]["message"].as_str().unwrap().contains("as asked"), "{ended}");
    assert_eq!((code(&a), code(&at_start)), ("internal".into(), "internal".into()));
    assert_eq!(tokens(&next), 2);
    let lines = log.lines();
    assert!(lines.contains(&"forget 0".into()) && lines.contains(&"forget 1".into()), "{lines:?}");
}

#[test]
fn an_unsound_runner_ends_all_that_runs_and_waits() {
    let (engine, log, permit) = engine(3);
    // Full when the others panic, so that it is not in their step.
    let full = ask(&engine, "unsound", 1_000_000);
    let panics = ask(&engine, "panics", CAPACITY + 1);
    let queued = [ask(&engine, "a", 1_000_000), ask(&engine, "b", 1)];
    drop(permit);
    log.until("step a");
    // Read, it goes on until it panics.
    assert_eq!(code(&panics), "internal");
    for ticket in [full].iter().chain(&queued) {
        assert_eq!(code(ticket), "internal");
    }
    assert_eq!(end(&engine.close())["type"], "closed");
    assert!(log.lines().contains(&"dropped".into()));
}

#[test]
fn a_slow_reader_sits_out_and_gets_everything() {
    let (engine, log, permit) = engine(2);
    drop(permit);
    let slow = ask(&engine, "slow", 1000);
    let quick = ask(&engine, "quick", 1000);
    assert_eq!(tokens(&quick), 1000, "a full stream holds nobody up");
    let steps = |log: &Log| log.lines().iter().filter(|line| line.starts_with("step") && line.contains("slow")).count();
    assert_eq!(steps(&log), CAPACITY, "it has filled its stream and no more");
    // Nobody can take a step now; what comes starts all the same.
    assert_eq!(tokens(&ask(&engine, "next", 3)), 3);
    assert_eq!(steps(&log), CAPACITY);
    assert_eq!(tokens(&slow), 1000);
}

#[test]
fn full_streams_can_be_cancelled_dropped_and_closed() {
    let (engine, log, permit) = engine(3);
    drop(permit);
    let all = ["a", "b", "c"].map(|name| ask(&engine, name, 100_000));
    let steps = |name: &str| log.lines().iter().filter(|line| line.starts_with("step") && line.contains(name)).count();
    let start = Instant::now();
    while ["a", "b", "c"].iter().any(|name| steps(name) < CAPACITY) {
        assert!(start.elapsed() < LONG);
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(20));
    let [a, b, c] = all;
    a.cancel();
    assert_eq!(code(&a), "aborted");
    drop(b);
    let start = Instant::now();
    while steps("b") < CAPACITY + 1 {
        assert!(start.elapsed() < LONG, "{}", steps("b"));
        thread::yield_now();
    }
    assert_eq!(steps("c"), CAPACITY);
    assert_eq!(end(&engine.close())["type"], "closed");
    assert_eq!(code(&c), "disposed");
    assert!(log.lines().contains(&"dropped".into()));
}

#[test]
fn what_cannot_start_beside_others_waits_for_an_end_and_is_not_overtaken() {
    let (engine, log, permit) = engine(3);
    let a = ask(&engine, "a", 3);
    log.until("step a");
    let (waits, b) = (ask(&engine, "waits", 2), ask(&engine, "b", 1));
    drop(permit);
    assert_eq!((tokens(&a), tokens(&waits), tokens(&b)), (3, 2, 1));
    let expected = [
        "start a",
        "step a",
        "start waits",
        "step a",
        "step a",
        "start waits",
        "step waits",
        "start b",
        "step waits b",
    ];
    assert_eq!(log.lines(), expected);
    assert_eq!(code(&ask(&engine, "always waits", 1)), "internal", "there is nobody to wait for");
}

#[test]
fn what_waits_can_be_cancelled_on_the_spot() {
    let (engine, log, permit) = engine(3);
    let a = ask(&engine, "a", 100);
    log.until("step a");
    let (waits, b) = (ask(&engine, "waits", 2), ask(&engine, "b", 1));
    permit.send(()).unwrap();
    log.until("start waits");
    // Cancelled before it is put back, or after: its stream ends while `a` stands still.
    waits.cancel();
    assert_eq!(code(&waits), "aborted");
    drop(permit);
    assert_eq!((tokens(&b), tokens(&a)), (1, 100));
    let lines = log.lines();
    assert_eq!(lines.iter().filter(|line| *line == "start waits").count(), 1, "{lines:?}");
    assert!(lines.contains(&"step a b".into()), "{lines:?}");
}

#[test]
fn close_ends_all_that_run_and_wait() {
    let (engine, log, permit) = engine(2);
    let (a, b) = (ask(&engine, "a", 1_000_000), ask(&engine, "b", 1_000_000));
    log.until("step a");
    permit.send(()).unwrap();
    log.until("step a b");
    let (waits, queued) = (ask(&engine, "waits", 1), ask(&engine, "c", 1));
    let closed = engine.close();
    drop(permit);
    assert_eq!(end(&closed)["type"], "closed");
    for ticket in [a, b, waits, queued] {
        assert_eq!(code(&ticket), "disposed");
    }
    let lines = log.lines();
    assert_eq!(lines.last().unwrap(), "dropped");
    assert_eq!(lines.iter().filter(|line| line.starts_with("step")).count(), 2, "the step that ran was the last");
}

#[test]
fn many_requests_with_quick_slow_and_vanishing_readers() {
    let (engine, _, permit) = engine(7);
    drop(permit);
    let tickets: Vec<_> = (0..300).map(|number| ask(&engine, "many", 1 + number * 7 % 400)).collect();
    let mut kept = Vec::new();
    for (number, ticket) in tickets.into_iter().enumerate() {
        match number % 5 {
            0 => ticket.cancel(),
            1 => drop(ticket),
            _ => kept.push((number, ticket)),
        }
    }
    for (number, ticket) in kept {
        assert_eq!(tokens(&ticket), 1 + number * 7 % 400);
    }
}
