use std::ffi::c_char;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use prefixkv_core::engine::{Codec, Engine, Events, Runner, Started};
use prefixkv_core::model::ModelInfo;
use prefixkv_core::wire::{Event, ModelRequest, SourceText};
use prefixkv_core::{Error, engine};
use serde_json::{Value, json};

use crate::handles::{self, Object};
use crate::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Does what its requests' prompts say.
struct Fake;

struct FakeCodec;

impl Codec for FakeCodec {
    fn encode(&self, text: &str, _special: bool) -> Result<Vec<u32>, Error> {
        assert_ne!(text, "panic", "as asked");
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, _tokens: &[u32], _skip_special: bool) -> Result<String, Error> {
        Ok(String::new())
    }
}

impl Runner for Fake {
    fn info(&self) -> ModelInfo {
        ModelInfo::default()
    }

    fn codec(&self) -> Arc<dyn Codec> {
        Arc::new(FakeCodec)
    }

    fn start(&mut self, _: u64, request: &ModelRequest, images: &[Vec<u8>], events: &Events) -> Result<Started, Error> {
        let ModelRequest::Generate(request) = request else { panic!("only generate") };
        let SourceText::Raw(what) = &request.source.text else { panic!("only prompts") };
        match what.as_str() {
            "panic" => panic!("as asked"),
            "endless" => loop {
                events.send(Event::Token { id: 7, text: "x".into(), logprobs: None })?;
            },
            _ => {
                for id in 0..request.max_tokens.unwrap_or(1) as u32 {
                    events.send(Event::Token { id, text: what.clone(), logprobs: None })?;
                }
                let sizes: Vec<String> = images.iter().map(|image| image.len().to_string()).collect();
                events.finish(Event::Text { text: sizes.join(" ") });
            }
        }
        Ok(Started::Finished)
    }

    fn is_sound(&self) -> bool {
        true
    }
}

/// A handle of an engine over a [`Fake`].
fn fake() -> u32 {
    let engine = Engine::start(Box::new(|_| Ok(Box::new(Fake)))).unwrap();
    handles::insert(Object::Engine(Arc::new(engine))).unwrap()
}

/// A call with room for its text: the status and the text.
fn call(call: impl FnOnce(*mut c_char, usize, *mut u32) -> i32) -> (i32, String) {
    let mut out = vec![0_u8; 1 << 16];
    let mut size = 0;
    let status = call(out.as_mut_ptr().cast(), out.len(), &mut size);
    out.truncate(size as usize);
    (status, String::from_utf8(out).unwrap())
}

fn code((status, text): &(i32, String)) -> (i32, String) {
    let error: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: `{text}`"));
    (*status, error["code"].as_str().unwrap().to_owned())
}

fn submit(engine: u32, request: &str, images: &[&[u8]]) -> (i32, String, u32) {
    let pointers: Vec<*const u8> = images.iter().map(|image| image.as_ptr()).collect();
    let lengths: Vec<usize> = images.iter().map(|image| image.len()).collect();
    let mut ticket = 99;
    // SAFETY: all pointers are of living vectors, with their lengths.
    let (status, text) = call(|out, capacity, size| unsafe {
        let json = request.as_ptr().cast();
        pkv_submit(
            engine,
            json,
            request.len(),
            pointers.as_ptr(),
            lengths.as_ptr(),
            images.len(),
            &mut ticket,
            out,
            capacity,
            size,
        )
    });
    (status, text, ticket)
}

fn ask(engine: u32, prompt: &str, tokens: usize) -> u32 {
    let request = json!({ "op": "generate", "prompt": prompt, "maxTokens": tokens }).to_string();
    let (status, text, ticket) = submit(engine, &request, &[]);
    assert_eq!((status, text.as_str()), (status::OK, ""));
    ticket
}

fn next(ticket: u32, timeout: u32) -> (i32, String) {
    // SAFETY: `call` passes a buffer with its length and a place for the size.
    call(|out, capacity, size| unsafe { pkv_next(ticket, timeout, out, capacity, size) })
}

/// All events of a ticket, which is released.
fn read(ticket: u32) -> Vec<Value> {
    let (start, mut events) = (Instant::now(), Vec::new());
    loop {
        let (status, text) = next(ticket, 100);
        match status {
            status::END => break,
            status::OK => assert!(start.elapsed() < PATIENCE, "the stream does not end"),
            size => {
                assert_eq!(size as usize, text.len());
                events.extend(serde_json::from_str::<Vec<Value>>(&text).unwrap());
            }
        }
    }
    assert_eq!(next(ticket, 0).0, status::END);
    assert_eq!(release(ticket), status::OK);
    events
}

fn close(engine: u32) -> u32 {
    let mut ticket = 0;
    // SAFETY: `call` passes a buffer with its length and a place for the size.
    let (status, _) = call(|out, capacity, size| unsafe { pkv_close(engine, &mut ticket, out, capacity, size) });
    assert_eq!(status, status::OK);
    ticket
}

fn release(handle: u32) -> i32 {
    // SAFETY: takes no pointer.
    unsafe { pkv_release(handle) }
}

fn cancel(ticket: u32) -> i32 {
    // SAFETY: takes no pointer.
    unsafe { pkv_cancel(ticket) }
}

#[test]
fn the_version_and_about() {
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { pkv_abi_version() }, ABI_VERSION);
    // SAFETY: `call` passes a buffer with its length and a place for the size.
    let (status, text) = call(|out, capacity, size| unsafe { pkv_about(out, capacity, size) });
    // All tests of this process are counted in `live`, also those at work meanwhile.
    let still = |mut about: Value| {
        assert!(about.as_object_mut().unwrap().remove("live").is_some_and(|live| live.is_object()));
        about
    };
    let told = still(serde_json::from_str(&text).unwrap());
    assert_eq!((status, told), (status::OK, still(engine::about().to_json())));
    let mut size = 0;
    // SAFETY: no buffer, and a place for the size.
    assert_eq!(unsafe { pkv_about(ptr::null_mut(), 0, &mut size) }, status::TOO_SMALL);
    assert_eq!(size as usize, text.len());
}

#[test]
fn a_request_with_images_is_answered_and_its_inputs_are_copied() {
    let engine = fake();
    let request = json!({ "op": "generate", "prompt": "ab", "maxTokens": 3 }).to_string();
    let picture = vec![1; 1000];
    let raw =
        json!({ "op": "generate", "messages": [{ "role": "user", "content": [{ "type": "image", "index": 0 }] }] });
    assert_eq!(submit(engine, &raw.to_string(), &[]).0, status::REFUSED);
    let (status, _, ticket) = submit(engine, &request, &[&picture, &[]]);
    drop((request, picture));
    assert_eq!(status, status::OK);
    let events = read(ticket);
    assert_eq!(events.iter().filter(|event| event["type"] == "token").count(), 3);
    assert_eq!(events.last().unwrap(), &json!({ "type": "text", "text": "1000 0" }));
    assert_eq!(release(engine), status::OK);
}

#[test]
fn events_that_do_not_fit_are_kept() {
    let engine = fake();
    let ticket = ask(engine, "kept", 20);
    let start = Instant::now();
    let mut size = 0;
    loop {
        let mut small = [b'-'; 8];
        // SAFETY: the buffer is as long as it says.
        let status = unsafe { pkv_next(ticket, 100, small.as_mut_ptr().cast(), small.len(), &mut size) };
        assert!(small.iter().all(|byte| *byte == b'-') && start.elapsed() < PATIENCE);
        if status == status::TOO_SMALL {
            break;
        }
        assert_eq!((status, size), (status::OK, 0));
    }
    assert!(size > 8);
    let mut exact = vec![0_u8; size as usize];
    // SAFETY: the buffer is as long as it says; the size may be null.
    let taken = unsafe { pkv_next(ticket, 0, exact.as_mut_ptr().cast(), exact.len(), ptr::null_mut()) };
    assert_eq!(taken, size as i32);
    let first = serde_json::from_slice::<Vec<Value>>(&exact).unwrap();
    let all: Vec<Value> = first.into_iter().chain(read(ticket)).collect();
    let ids: Vec<u64> = all.iter().filter_map(|event| event["id"].as_u64()).collect();
    assert_eq!(ids, (0..20).collect::<Vec<u64>>());
    release(engine);
}

#[test]
fn refusals_say_why_and_how_much_room_that_needs() {
    let engine = fake();
    let refused = submit(engine, r#"{"op":"dance"}"#, &[]);
    assert_eq!(code(&(refused.0, refused.1.clone())), (status::REFUSED, "option".into()));
    assert_eq!(refused.2, 0);
    let (mut size, mut ticket, request) = (0, 99, br#"{"op":"dance"}"#);
    // SAFETY: the request is as long as it says, the other pointers are null or of living values.
    let status = unsafe {
        let (json, none) = (request.as_ptr().cast(), ptr::null_mut());
        pkv_submit(engine, json, request.len(), ptr::null(), ptr::null(), 0, &mut ticket, none, 0, &mut size)
    };
    assert_eq!((status, size as usize, ticket), (status::REFUSED, refused.1.len(), 0));
    // SAFETY: `call` passes a buffer with its length; the rest are living values.
    let opened = call(|out, capacity, size| unsafe { pkv_open(c"{}".as_ptr(), 2, &mut ticket, out, capacity, size) });
    assert_eq!(code(&opened), (status::REFUSED, "option".into()));
    // SAFETY: as above.
    let read = call(|out, capacity, size| unsafe { pkv_inspect(c"[".as_ptr(), 1, &mut ticket, out, capacity, size) });
    assert_eq!(code(&read), (status::REFUSED, "option".into()));
    for (json, want) in [(r#"{"device":"gpu"}"#, "option"), (r#"{"device":"cpu"}"#, "device")] {
        // SAFETY: as above; the request is as long as it says.
        let checked = call(|out, capacity, size| unsafe {
            pkv_check_device(json.as_ptr().cast(), json.len(), &mut ticket, out, capacity, size)
        });
        assert_eq!(code(&checked), (status::REFUSED, want.into()));
    }
    release(engine);
}

#[test]
fn nonsense_pointers_and_lengths_are_refused() {
    let engine = fake();
    let (mut handle, mut out, mut size) = (0, [0_u8; 512], 0);
    let (text, capacity) = (out.as_mut_ptr().cast(), out.len());
    let null = ptr::null::<u8>();
    let huge = usize::MAX / 2 + 1;
    // SAFETY: what is null or too long is refused before it is followed, everything else is valid.
    unsafe {
        let mut submit = |json, length, images, lengths, count, ticket| {
            pkv_submit(engine, json, length, images, lengths, count, ticket, text, capacity, &raw mut size)
        };
        let json = c"{}".as_ptr();
        let none = ptr::null::<*const u8>();
        assert_eq!(submit(ptr::null(), 5, none, ptr::null(), 0, &raw mut handle), status::INVALID);
        assert_eq!(submit(json, usize::MAX, none, ptr::null(), 0, &raw mut handle), status::REFUSED);
        assert_eq!(submit(json, 2, none, &2, 1, &raw mut handle), status::INVALID);
        assert_eq!(submit(json, 2, &null, ptr::null(), 1, &raw mut handle), status::INVALID);
        assert_eq!(submit(json, 2, &null, &2, 1, &raw mut handle), status::INVALID);
        assert_eq!(submit(json, 2, &json.cast(), &huge, 1, &raw mut handle), status::INVALID);
        assert_eq!(submit(json, 2, &null, &2, usize::MAX, &raw mut handle), status::REFUSED);
        assert_eq!(submit(json, 2, none, ptr::null(), 0, ptr::null_mut()), status::INVALID);
        assert_eq!(submit(c"\xff".as_ptr(), 1, none, ptr::null(), 0, &raw mut handle), status::INVALID);
        assert_eq!(pkv_about(ptr::null_mut(), 5, &raw mut size), status::INVALID);
        assert_eq!(pkv_about(text, huge, &raw mut size), status::INVALID);
        assert_eq!(pkv_about(text, capacity, (&raw mut size).wrapping_byte_add(1)), status::INVALID);
    }
    assert_eq!(handle, 0);
    release(engine);
}

#[test]
fn stale_handles_and_those_of_another_kind_are_refused() {
    let engine = fake();
    let ticket = ask(engine, "a", 1);
    assert_eq!(code(&next(engine, 0)), (status::STALE, "option".into()));
    assert_eq!(submit(ticket, "{}", &[]).0, status::STALE);
    assert_eq!(cancel(engine), status::STALE);
    for handle in [ticket, engine] {
        assert_eq!(release(handle), status::OK);
        assert_eq!(release(handle), status::STALE);
    }
    assert_eq!((next(ticket, 0).0, cancel(ticket)), (status::STALE, status::STALE));
    assert_eq!((submit(engine, "{}", &[]).0, release(0)), (status::STALE, status::STALE));
}

#[test]
fn a_panic_of_the_engine_is_an_event_and_the_engine_goes_on() {
    let engine = fake();
    let error = read(ask(engine, "panic", 1)).pop().unwrap();
    assert_eq!((&error["type"], &error["error"]["code"]), (&json!("error"), &json!("internal")));
    assert!(error["error"]["message"].as_str().unwrap().contains("as asked"), "{error}");
    let (_, _, ticket) = submit(engine, r#"{"op":"tokenize","text":"panic"}"#, &[]);
    assert_eq!(read(ticket).pop().unwrap()["error"]["code"], "internal");
    assert_eq!(read(ask(engine, "on", 2)).len(), 3);
    release(engine);
}

#[test]
fn a_panic_inside_a_call_is_its_status() {
    // SAFETY: `call` passes a buffer with its length and a place for the size.
    let caught = call(|out, capacity, size| unsafe {
        call::guarded(memory::Out::new(out, capacity, size), |_| panic!("in the call"))
    });
    assert_eq!(code(&caught), (status::PANIC, "internal".into()));
    assert!(caught.1.contains("in the call"));
    assert_eq!(call::silent(|| panic!("in the call")), status::PANIC);
}

#[test]
fn cancelling_and_releasing_stop_the_work() {
    let engine = fake();
    let ticket = ask(engine, "endless", 1);
    assert!(next(ticket, 20_000).0 > 0);
    assert_eq!(cancel(ticket), status::OK);
    assert_eq!(read(ticket).pop().unwrap()["error"]["code"], "aborted");
    let abandoned = ask(engine, "endless", 1);
    assert!(next(abandoned, 20_000).0 > 0);
    assert_eq!(release(abandoned), status::OK);
    assert_eq!(read(ask(engine, "next", 1)).len(), 2);
    release(engine);
}

#[test]
fn closing_ends_everything_and_can_be_repeated() {
    let engine = fake();
    let running = ask(engine, "endless", 1);
    let waiting = ask(engine, "never", 1);
    assert!(next(running, 20_000).0 > 0);
    for _ in 0..2 {
        assert_eq!(read(close(engine)), [json!({ "type": "closed" })]);
    }
    for ticket in [running, waiting, ask(engine, "late", 1)] {
        assert_eq!(read(ticket).pop().unwrap()["error"]["code"], "disposed");
    }
    assert_eq!(release(engine), status::OK);
}

#[test]
fn a_ticket_has_one_reader_at_a_time_and_waiting_blocks_nobody_else() {
    let engine = fake();
    let busy = ask(engine, "endless", 1);
    let ticket = ask(engine, "later", 1);
    let reader = thread::spawn(move || {
        // The look below may be what is busy.
        loop {
            let taken = next(ticket, 20_000);
            if taken.0 != status::BUSY {
                return taken;
            }
        }
    });
    let start = Instant::now();
    while next(ticket, 0).0 != status::BUSY {
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(next(busy, 20_000).0 > 0);
    assert_eq!(release(busy), status::OK);
    assert!(reader.join().unwrap().0 > 0);
    release(ticket);
    release(engine);
}
