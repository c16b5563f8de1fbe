//! Requests that run on the embedded model.

use std::sync::OnceLock;
use std::time::Duration;

use prefixkv_core::engine::Engine;
use prefixkv_core::wire::{Event, SessionId};
use serde_json::{Value, json};

use super::request;
use crate::folder::{object, read, repository};
use crate::target::{Kind, Target, outcome, refusal};

pub const TARGET: Target = Target {
    name: "engine",
    reads: "requests with images, run on the embedded model",
    kind: Kind::Json,
    memory: 512 << 20,
    short: 100,
    words: request::TARGET.words,
    seeds,
    run,
};

const CODES: &[&str] = &["option", "prompt", "calibration", "budget", "context-overflow", "out-of-memory", "image"];

fn seeds() -> Vec<Vec<u8>> {
    let mut requests = request::requests();
    let session = requests.split_off(5);
    let mut all: Vec<Value> =
        requests.into_iter().map(|request| json!({ "images": [0], "requests": [request] })).collect();
    all.push(json!({ "images": [1], "requests": session }));
    all.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let source = repository("models/tiny-llava").canonicalize().expect("the embedded model");
        let engine = Engine::open(&json!({ "source": source, "cacheLimit": "64MiB" }).to_string()).expect("an engine");
        assert!(matches!(last(&engine.loading()), Event::Loaded { .. }));
        engine
    })
}

fn last(ticket: &prefixkv_core::engine::Ticket) -> Event {
    let mut last = None;
    while let Some(events) = ticket.wait(Duration::from_secs(1)) {
        last = events.into_iter().next_back().or(last);
    }
    last.expect("a stream has a last event")
}

fn run(data: &[u8]) -> String {
    const PICTURES: [&str; 3] = ["rgb.png", "one-pixel.png", "jpeg-420.jpg"];
    let Some(mut input) = object(data) else { return "no object".into() };
    let numbers: Vec<u64> =
        input.remove("images").and_then(|images| serde_json::from_value(images).ok()).unwrap_or_default();
    let images: Vec<Vec<u8>> = numbers
        .iter()
        .take(3)
        .map(|number| match PICTURES.get(*number as usize) {
            Some(name) => read(&format!("tests/golden/fixtures/images/{name}")),
            None => number.to_le_bytes().to_vec(),
        })
        .collect();
    let mut kinds = String::new();
    let mut sessions = Vec::new();
    let Some(Value::Array(requests)) = input.remove("requests") else { return "no requests".into() };
    for mut request in requests.into_iter().take(6) {
        small(&mut request, &sessions);
        let text = request.to_string();
        let with_images = text.contains("\"image\"") || text.contains("<image>");
        let submitted = engine().submit(&text, if with_images { images.clone() } else { Vec::new() });
        kinds.push_str(&match &submitted {
            Ok(ticket) => match last(ticket) {
                Event::Error { error } => refusal(&json!(error), CODES),
                Event::Session { session } => {
                    sessions.push(session);
                    "session".into()
                }
                event => ended(&event),
            },
            Err(_) => outcome(&submitted, CODES),
        });
    }
    for session in sessions {
        let closed = engine().submit(&json!({ "op": "close-session", "session": session }).to_string(), Vec::new());
        last(&closed.expect("a request that is sound"));
    }
    kinds
}

fn ended(event: &Event) -> String {
    let value = serde_json::to_value(event).expect("events are written");
    if let Event::Done(result) = event {
        assert!(result.tokens.len() <= 16 && result.memory.resident > 0);
    }
    if let Event::Scored(score) = event {
        assert!(score.tokens.len() == score.logprobs.len() && score.ppl >= 1.0);
        assert!(score.logprobs.iter().all(|logprob| *logprob <= 0.0));
    }
    value["type"].as_str().expect("a kind of event").to_owned()
}

/// Few tokens, and the first session of this input in the place of the seeds' name.
fn small(request: &mut Value, sessions: &[SessionId]) {
    let Some(fields) = request.as_object_mut() else { return };
    if matches!(fields.get("op").and_then(Value::as_str), Some("generate" | "turn" | "trace")) {
        match fields.get("maxTokens").map(Value::as_u64) {
            None => drop(fields.insert("maxTokens".into(), json!(4))),
            Some(Some(17..=1_000_000)) => drop(fields.insert("maxTokens".into(), json!(16))),
            _ => {}
        }
    }
    if fields.get("session").and_then(Value::as_str) == Some(request::SESSION)
        && let Some(real) = sessions.first()
    {
        fields.insert("session".into(), json!(real));
    }
}
