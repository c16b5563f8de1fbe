use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::model::ModelInfo;
use crate::wire::{ModelRequest, Progress, SourceText};

pub(super) const LONG: Duration = Duration::from_secs(20);

/// Does what its requests' prompts say.
struct Fake {
    counters: Arc<Counters>,
    /// `wait` returns when something comes.
    gate: Receiver<()>,
}

#[derive(Default)]
struct Counters {
    runs: AtomicUsize,
    alive: AtomicUsize,
    unsound: AtomicBool,
}

struct FakeCodec(Arc<Counters>);

impl FakeCodec {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.alive.fetch_add(1, Ordering::SeqCst);
        FakeCodec(counters.clone())
    }
}

impl Drop for FakeCodec {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.counters.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Codec for FakeCodec {
    fn encode(&self, text: &str, _special: bool) -> Result<Vec<u32>> {
        assert_ne!(text, "panic", "as asked");
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, tokens: &[u32], _skip_special: bool) -> Result<String> {
        Ok(tokens.iter().map(|token| char::from(*token as u8)).collect())
    }
}

impl Runner for Fake {
    fn info(&self) -> ModelInfo {
        ModelInfo { source: "fake".into(), ..ModelInfo::default() }
    }

    fn codec(&self) -> Arc<dyn Codec> {
        Arc::new(FakeCodec::new(&self.counters))
    }

    fn start(&mut self, _: u64, request: &ModelRequest, _images: &[Vec<u8>], events: &Events) -> Result<Started> {
        self.counters.runs.fetch_add(1, Ordering::SeqCst);
        let ModelRequest::Generate(request) = request else { return Err(Error::Internal("only generate".into())) };
        let SourceText::Raw(what) = &request.source.text else { return Err(Error::Internal("only prompts".into())) };
        let token = || Event::Token { id: 7, text: "x".into(), logprobs: None };
        match what.as_str() {
            "panic" => panic!("as asked"),
            "refuse" => return Err(Error::Prompt { reason: "as asked".into() }),
            "forget" => return Ok(Started::Finished),
            "endless" => loop {
                events.send(token())?;
            },
            "wait" => self.gate.recv_timeout(LONG).map_err(|error| Error::Internal(error.to_string()))?,
            _ => (0..request.max_tokens.unwrap_or(1)).try_for_each(|_| events.send(token()))?,
        }
        events.finish(Event::Text { text: what.clone() });
        Ok(Started::Finished)
    }

    fn is_sound(&self) -> bool {
        !self.counters.unsound.load(Ordering::SeqCst)
    }
}

/// An engine over a [`Fake`] that loads once `load` says so.
fn slow() -> (Engine, Arc<Counters>, Sender<Result<()>>, Sender<()>) {
    let counters = Arc::new(Counters::default());
    let of_fake = counters.clone();
    let (load, loaded) = channel::<Result<()>>();
    let (open, gate) = channel();
    let engine = Engine::start(Box::new(move |progress| {
        let outcome = loop {
            progress(Event::Progress(Progress { stage: "weights", done: 0, total: 1 }))?;
            if let Ok(outcome) = loaded.recv_timeout(Duration::from_millis(1)) {
                break outcome;
            }
        };
        outcome?;
        of_fake.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Fake { counters: of_fake, gate }))
    }));
    (engine.unwrap(), counters, load, open)
}

fn ready() -> (Engine, Arc<Counters>, Sender<()>) {
    let (engine, counters, load, open) = slow();
    load.send(Ok(())).unwrap();
    (engine, counters, open)
}

fn ask(engine: &Engine, what: &str) -> Ticket {
    engine.submit(&json!({ "op": "generate", "prompt": what }).to_string(), Vec::new()).unwrap()
}

fn tokenize(engine: &Engine, text: &str) -> Ticket {
    engine.submit(&json!({ "op": "tokenize", "text": text }).to_string(), Vec::new()).unwrap()
}

/// The last event of a stream, as JSON.
pub(super) fn end(ticket: &Ticket) -> Value {
    let mut last = None;
    let start = Instant::now();
    while let Some(events) = ticket.wait(LONG) {
        assert!(start.elapsed() < LONG, "the stream does not end");
        last = events.into_iter().next_back().or(last);
    }
    serde_json::to_value(last.unwrap()).unwrap()
}

pub(super) fn code(ticket: &Ticket) -> String {
    let end = end(ticket);
    end["error"]["code"].as_str().unwrap_or_else(|| panic!("{end} is no error")).to_owned()
}

fn until_running(ticket: &Ticket) {
    assert!(!ticket.wait(LONG).unwrap().is_empty());
}

#[test]
fn requests_run_in_order_and_queue_while_loading() {
    let (engine, counters, load, _open) = slow();
    let (first, second, text) = (ask(&engine, "one"), ask(&engine, "two"), tokenize(&engine, "ab"));
    assert!(first.wait(Duration::from_millis(20)).unwrap().is_empty());
    assert_eq!(counters.runs.load(Ordering::SeqCst), 0);
    let loading = engine.loading();
    load.send(Ok(())).unwrap();
    let loaded = end(&loading);
    assert_eq!((&loaded["type"], &loaded["info"]["source"]), (&json!("loaded"), &json!("fake")));
    assert_eq!(end(&text)["tokens"], json!([97, 98]));
    assert_eq!((end(&first)["text"].clone(), end(&second)["text"].clone()), (json!("one"), json!("two")));
    assert_eq!(end(&engine.loading())["type"], "loaded", "a late watcher gets the outcome");
}

#[test]
fn a_failed_load_ends_what_waits_and_what_comes() {
    let (engine, _, load, _open) = slow();
    let (queued, text, loading) = (ask(&engine, "one"), tokenize(&engine, "ab"), engine.loading());
    load.send(Err(Error::Prompt { reason: "as asked".into() })).unwrap();
    for ticket in [loading, queued, text, ask(&engine, "two"), tokenize(&engine, "c"), engine.loading()] {
        assert_eq!(code(&ticket), "prompt");
    }
    assert_eq!(end(&engine.close())["type"], "closed");
}

#[test]
fn a_load_can_be_cancelled_or_closed() {
    let (engine, ..) = slow();
    let loading = engine.loading();
    until_running(&loading);
    loading.cancel();
    assert_eq!(code(&loading), "aborted");
    let (engine, _, _load, _open) = slow();
    let (loading, queued) = (engine.loading(), ask(&engine, "one"));
    assert_eq!(end(&engine.close())["type"], "closed");
    assert_eq!((code(&loading), code(&queued)), ("disposed".into(), "disposed".into()));
}

#[test]
fn a_panicking_load_is_an_error() {
    let engine = Engine::start(Box::new(|_| panic!("as asked"))).unwrap();
    let end = end(&engine.loading());
    assert!(end["error"]["message"].as_str().unwrap().contains("as asked"), "{end}");
}

/// A load can be busy with something that nothing stops, as a file of a strange model may want it.
#[test]
fn a_load_that_is_stuck_holds_up_nobody() {
    let (gate, wait) = channel::<()>();
    let engine = Engine::start(Box::new(move |_| {
        let _ = wait.recv();
        Err(Error::Aborted)
    }))
    .unwrap();
    let started = Instant::now();
    let loading = engine.loading();
    loading.cancel();
    let code = |events: Option<Vec<Event>>| match events.unwrap().pop().unwrap() {
        Event::Error { error } => json!(error.code),
        other => panic!("{other:?}"),
    };
    assert_eq!(code(loading.wait(LONG)), "aborted");
    let closed = engine.close().wait(LONG).unwrap();
    assert!(matches!(closed[..], [Event::Closed]), "{closed:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(gate);
}

#[test]
fn cancel_stops_running_and_queued_work() {
    let (engine, counters, _open) = ready();
    let (running, queued, last) = (ask(&engine, "endless"), ask(&engine, "one"), ask(&engine, "last"));
    until_running(&running);
    queued.cancel();
    assert_eq!(code(&queued), "aborted", "at once, though another request runs");
    running.cancel();
    assert_eq!(code(&running), "aborted");
    assert_eq!(end(&last)["text"], "last");
    assert_eq!(counters.runs.load(Ordering::SeqCst), 2);
}

#[test]
fn dropping_a_ticket_stops_its_work() {
    let (engine, _, _open) = ready();
    let running = ask(&engine, "endless");
    until_running(&running);
    drop(running);
    assert_eq!(end(&ask(&engine, "next"))["text"], "next");
}

#[test]
fn text_work_does_not_wait_for_a_generation() {
    let (engine, _, open) = ready();
    let running = ask(&engine, "wait");
    let detokenize = engine.submit(r#"{"op":"detokenize","tokens":[97,98]}"#, Vec::new()).unwrap();
    assert_eq!(end(&detokenize), json!({ "type": "text", "text": "ab" }));
    let tickets: Vec<_> = (0..100).map(|_| tokenize(&engine, "a")).collect();
    tickets.iter().for_each(|ticket| assert_eq!(end(ticket)["tokens"], json!([97])));
    assert!(running.poll().unwrap().is_empty());
    open.send(()).unwrap();
    assert_eq!(end(&running)["text"], "wait");
}

#[test]
fn close_ends_everything_and_frees() {
    let (engine, counters, _open) = ready();
    let (running, queued) = (ask(&engine, "endless"), ask(&engine, "one"));
    until_running(&running);
    let (closed, again) = (engine.close(), engine.close());
    assert_eq!(end(&closed), json!({ "type": "closed" }));
    assert_eq!(counters.alive.load(Ordering::SeqCst), 0, "runner and codec are dropped before `closed`");
    assert_eq!(end(&again)["type"], "closed");
    assert_eq!(end(&engine.close())["type"], "closed");
    for ticket in [running, queued, ask(&engine, "late"), tokenize(&engine, "late"), engine.loading()] {
        assert_eq!(code(&ticket), "disposed");
    }
    assert!(engine.submit("{}", Vec::new()).is_err(), "a bad request is refused all the same");
}

#[test]
fn a_panic_is_an_error_and_the_engine_goes_on() {
    let (engine, ..) = ready();
    let panicked = end(&ask(&engine, "panic"));
    let message = panicked["error"]["message"].as_str().unwrap();
    assert!(panicked["error"]["code"] == "internal" && message.contains("as asked"), "{message}");
    assert_eq!(code(&tokenize(&engine, "panic")), "internal");
    assert_eq!(end(&tokenize(&engine, "a"))["tokens"], json!([97]));
    assert_eq!(end(&ask(&engine, "next"))["text"], "next");
    assert_eq!(code(&ask(&engine, "refuse")), "prompt");
    assert_eq!(code(&ask(&engine, "forget")), "internal", "a stream never stays open");
}

#[test]
fn an_unsound_model_is_freed_and_refuses() {
    let (engine, counters, _open) = ready();
    counters.unsound.store(true, Ordering::SeqCst);
    let (panicked, queued) = (ask(&engine, "panic"), ask(&engine, "next"));
    assert_eq!((code(&panicked), code(&queued)), ("internal".into(), "internal".into()));
    let late = end(&ask(&engine, "late"));
    assert!(late["error"]["message"].as_str().unwrap().contains("as asked"), "{late}");
    assert_eq!(end(&engine.close())["type"], "closed");
    assert_eq!(counters.alive.load(Ordering::SeqCst), 0);
}

#[test]
fn dropping_the_engine_closes_it() {
    let (engine, counters, _open) = ready();
    let running = ask(&engine, "endless");
    until_running(&running);
    let shared = Arc::downgrade(&engine.shared);
    drop(engine);
    assert_eq!(code(&running), "disposed");
    let start = Instant::now();
    while shared.strong_count() > 0 {
        assert!(start.elapsed() < LONG, "the engine's thread lives on");
        std::thread::yield_now();
    }
    assert_eq!(counters.alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_slow_reader_of_one_request_gets_all_of_it() {
    let (engine, ..) = ready();
    let request = json!({ "op": "generate", "prompt": "many", "maxTokens": 3000 }).to_string();
    let ticket = engine.submit(&request, Vec::new()).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let mut seen = 0;
    while let Some(events) = ticket.wait(LONG) {
        seen += events.len();
    }
    assert_eq!(seen, 3001);
}

#[test]
fn many_tickets_in_flight() {
    let (engine, counters, _open) = ready();
    let tickets: Vec<_> = (0..1000).map(|number| ask(&engine, &number.to_string())).collect();
    tickets.iter().step_by(3).for_each(Ticket::cancel);
    tickets.iter().for_each(|ticket| assert!(matches!(end(ticket)["type"].as_str(), Some("text" | "error"))));
    assert!(counters.runs.load(Ordering::SeqCst) >= 600);
}

#[test]
fn about_names_what_the_build_can() {
    let about = about().to_json();
    assert_eq!(about["errorCodes"].as_array().unwrap().len(), Error::CODES.len());
    assert!(about["threads"].as_u64().unwrap() >= 1);
}

#[test]
fn a_model_that_is_owned_by_a_thread_is_closed_with_it() {
    let (send, receive) = channel();
    let owner = thread::spawn(move || {
        let (engine, counters, open) = ready();
        owned::close_with_thread(&engine.shared);
        let (running, waiting) = (ask(&engine, "endless"), ask(&engine, "go on"));
        until_running(&running);
        waiting.on_ready(|| panic!("the reader's thread has ended")).unwrap();
        // As a runtime does that ends the thread without a word.
        std::mem::forget((engine, running, waiting, open));
        send.send(counters).unwrap();
    });
    owner.join().unwrap();
    let counters = receive.recv().unwrap();
    let start = Instant::now();
    while counters.alive.load(Ordering::SeqCst) > 0 {
        assert!(start.elapsed() < LONG, "the model is still there");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn opening_and_inspecting_a_missing_folder_are_errors_of_the_stream() {
    let engine = Engine::open(r#"{"source":"/nowhere"}"#).unwrap();
    assert_eq!(code(&engine.loading()), "model-not-found");
    assert_eq!(code(&Engine::inspect(r#"{"source":"/nowhere"}"#).unwrap()), "model-not-found");
    assert!(Engine::open("{}").is_err());
}

#[test]
fn a_check_of_a_device_is_refused_where_there_is_nothing_to_check() {
    let refusal = |json: &str| Engine::check_device(json).map(|_| ()).unwrap_err();
    let cpu = refusal(r#"{"device":"cpu"}"#);
    assert_eq!((cpu.code(), cpu.to_string().contains("nothing to check")), ("device", true));
    for (json, part) in [
        ("{}", "device"),
        (r#"{"device":"gpu"}"#, "`cuda:N`"),
        (r#"{"device":"cuda","ceiling":true}"#, "`ceilings`"),
        (r#"{"device":"cuda","ceilings":1}"#, "ceilings"),
    ] {
        let error = refusal(json);
        assert!(error.code() == "option" && error.to_string().contains(part), "{error}");
    }
    // No machine has so many, and few have one.
    let missing = end(&Engine::check_device(r#"{"device":"cuda:4096"}"#).unwrap());
    assert_eq!(
        (&missing["error"]["code"], &missing["error"]["details"]["device"]),
        (&"device".into(), &"cuda:4096".into())
    );
}
