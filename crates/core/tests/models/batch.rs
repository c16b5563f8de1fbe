//! Requests that are decoded together, over the embedded model: each must get what it gets alone.

use std::time::{Duration, Instant};

use prefixkv_core::backend::cpu::FEW;
use prefixkv_core::engine::{CAPACITY, Engine, Ticket};
use prefixkv_core::method::Method;
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sequence::Sequence;
use prefixkv_core::weights::WeightFormat;
use prefixkv_core::wire::Event;
use serde_json::{Value, json};

use crate::folder::root;

const LONG: Duration = Duration::from_secs(120);

fn engine(options: Value) -> Engine {
    let mut request = options;
    request["source"] = json!(root().join("models/tiny-llava").canonicalize().expect("the embedded model"));
    Engine::open(&request.to_string()).expect("opens")
}

fn submit(engine: &Engine, request: &Value) -> Ticket {
    let images = if request.to_string().contains(r#""image""#) {
        vec![std::fs::read(root().join("data/scenes/scene-001.png")).expect("a scene")]
    } else {
        Vec::new()
    };
    engine.submit(&request.to_string(), images).unwrap_or_else(|error| panic!("{request}: {error}"))
}

/// All events of a stream.
fn read(ticket: &Ticket) -> Vec<Value> {
    let (start, mut all) = (Instant::now(), Vec::new());
    while let Some(events) = ticket.wait(LONG) {
        assert!(start.elapsed() < LONG, "the stream does not end");
        let Value::Array(events) = serde_json::from_str(&Event::array(&events)).expect("JSON") else {
            panic!("a list")
        };
        all.extend(events);
    }
    all
}

fn end(ticket: &Ticket) -> Value {
    read(ticket).pop().expect("an end")
}

fn done(ticket: &Ticket) -> Value {
    let end = end(ticket);
    assert!(end["type"] == "done" || end["type"] == "scored", "{end}");
    end
}

/// The parts of an answer that do not depend on when it was given.
fn answer(mut end: Value) -> Value {
    end["timings"] = Value::Null;
    end
}

fn about_the_scene(text: &str, options: Value) -> Value {
    let mut request = options;
    request["op"] = json!("generate");
    let content = json!([{ "type": "image", "index": 0 }, { "type": "text", "text": text }]);
    request["messages"] = json!([{ "role": "user", "content": content }]);
    request
}

/// Goes on until its stream is full, and then only when it is read.
fn endless() -> Value {
    json!({ "op": "generate", "prompt": "USER: Hello ASSISTANT:", "maxTokens": CAPACITY + 50, "ignoreEos": true })
}

/// Waits until a stream holds all that it can hold unread.
fn until_full(ticket: &Ticket) {
    let start = Instant::now();
    while !format!("{ticket:?}").contains(&format!("waiting: {CAPACITY},")) {
        assert!(start.elapsed() < LONG, "{ticket:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn different() -> Vec<Value> {
    let describe = "Describe the image in detail.";
    vec![
        about_the_scene(describe, json!({ "maxTokens": 90, "ignoreEos": true })),
        about_the_scene(describe, json!({ "maxTokens": 40, "cache": { "method": "prefixkv", "keep": 0.4 } })),
        about_the_scene("How many objects are there?", json!({ "cache": { "method": "h2o", "keep": 0.5 } })),
        json!({ "op": "generate", "prompt": "USER: Which shapes are there? ASSISTANT:", "maxTokens": 60, "ignoreEos": true,
            "temperature": 0.9, "topP": 0.9, "seed": 7 }),
        about_the_scene(describe, json!({ "stop": ["."], "cache": { "method": "snapkv", "keep": { "tokens": 50 } } })),
        about_the_scene(describe, json!({ "maxTokens": 1 })),
        about_the_scene(describe, json!({ "repetitionPenalty": 1.3, "cache": { "method": "streaming", "keep": 0.3 } })),
    ]
}

/// Answers of different lengths, with the full cache beside some.
fn scored() -> Vec<Value> {
    let score = |text: &str, answer: &str, options: Value| {
        let mut request = about_the_scene(text, options);
        (request["op"], request["answer"]) = (json!("score"), json!(answer));
        request
    };
    let (describe, long) =
        ("Describe the image in detail.", "There is a small red square in the top left, and a large star.");
    vec![
        score(describe, long, json!({ "kept": true })),
        score(describe, long, json!({ "kl": true, "cache": { "method": "prefixkv", "keep": 0.4 } })),
        score(describe, "A star.", json!({ "kl": true, "kept": true, "cache": { "method": "h2o", "keep": 0.3 } })),
        score(
            "How many?",
            &long.repeat(4),
            json!({ "kl": true, "cache": [{ "method": "snapkv", "keep": 0.5 }, { "method": "int4" }] }),
        ),
        score("How many?", "2", json!({ "kl": true })),
    ]
}

#[test]
fn each_request_gets_what_it_gets_alone() {
    let alone = engine(json!({}));
    let different = || different().into_iter().chain(scored()).collect::<Vec<_>>();
    let expected: Vec<Value> = different().iter().map(|request| answer(done(&submit(&alone, request)))).collect();
    for batch in [2, 4, 16] {
        let engine = engine(json!({ "batch": batch }));
        // Never read until the others are there, so that they can only have run beside it.
        let first = submit(&engine, &endless());
        let tickets: Vec<Ticket> = different().iter().map(|request| submit(&engine, request)).collect();
        for (ticket, expected) in tickets.iter().zip(&expected) {
            assert_eq!(&answer(done(ticket)), expected, "of {batch}");
        }
        assert_eq!(answer(done(&first)), answer(done(&submit(&alone, &endless()))));
    }
}

#[test]
fn the_events_of_each_come_in_order() {
    let engine = engine(json!({ "batch": 4 }));
    let tickets: Vec<Ticket> = different().iter().map(|request| submit(&engine, request)).collect();
    for ticket in &tickets {
        let events = read(ticket);
        assert_eq!(events[0]["type"], "prompt");
        let Some((done, tokens)) = events[1..].split_last() else { panic!("no end") };
        let ids: Vec<&Value> = tokens.iter().map(|token| &token["id"]).collect();
        let all = done["tokens"].as_array().expect("a list");
        assert_eq!(ids, all.iter().collect::<Vec<_>>());
        let number = |name: &str| done["timings"][name].as_f64().expect("a number");
        assert!(number("queued") <= number("firstToken") && number("firstToken") <= number("total"), "{done}");
        assert!(number("queued") + number("prefill") <= number("firstToken"), "{done}");
    }
}

#[test]
fn all_kinds_of_requests_run_beside_generations() {
    let alone = engine(json!({}));
    let batched = engine(json!({ "batch": 2 }));
    let standing = submit(&batched, &endless());
    let cache = json!({ "method": "prefixkv", "keep": 0.4 });
    let scene = |op: &str| {
        let mut request = about_the_scene("Describe the image in detail.", json!({ "cache": cache.clone() }));
        request["op"] = json!(op);
        request
    };
    let mut score = scene("score");
    score["answer"] = json!("There is a star.");
    let mut profile = scene("profile");
    profile["keeps"] = json!([0.3, 0.6]);
    let mut trace = scene("trace");
    trace["maxTokens"] = json!(5);
    for request in [score, profile, trace] {
        let (ours, theirs) = (end(&submit(&batched, &request)), end(&submit(&alone, &request)));
        assert_ne!(ours["type"], "error", "{ours}");
        assert_eq!(answer(ours), answer(theirs));
    }
    assert_eq!(done(&standing)["finish"], "length");
}

#[test]
fn prompts_in_pieces_get_the_answers_of_whole_ones() {
    // All of a prompt is held until its last piece.
    let of = |mut done: Value| {
        done["memory"]["peak"] = Value::Null;
        answer(done)
    };
    let frees_layer_by_layer =
        about_the_scene("What is there?", json!({ "cache": { "method": "snapkv", "keep": 0.5 } }));
    let requests: Vec<Value> = different().into_iter().chain([frees_layer_by_layer]).collect();
    let alone = engine(json!({}));
    let expected: Vec<Value> = requests.iter().map(|request| done(&submit(&alone, request))).collect();
    for (chunk, is_cut) in [(64, true), (100, true), (0, false), (512, false)] {
        let cut = engine(json!({ "prefillChunk": chunk, "batch": 4 }));
        let standing = submit(&cut, &endless());
        let tickets: Vec<Ticket> = requests.iter().map(|request| submit(&cut, request)).collect();
        let answers: Vec<Value> = tickets.iter().map(done).collect();
        for (answer, expected) in answers.iter().zip(&expected) {
            assert_eq!(of(answer.clone()), of(expected.clone()), "{chunk}");
        }
        let of_last = |answers: &[Value]| bytes(answers.last().expect("an answer"));
        assert_eq!(of_last(&answers) > of_last(&expected), is_cut, "{chunk}: what is held at the peak");
        drop(standing);
    }
    // Alone, a prompt holds nobody up and is read whole.
    let alone = engine(json!({ "prefillChunk": 64, "batch": 4 }));
    assert_eq!(bytes(&done(&submit(&alone, &requests[7]))), bytes(&expected[7]));
}

#[test]
fn a_prompt_that_fits_only_whole_is_read_whole() {
    let scene =
        about_the_scene("What is there?", json!({ "maxTokens": 3, "cache": { "method": "snapkv", "keep": 0.2 } }));
    let alone = engine(json!({}));
    let (want, long) = (done(&submit(&alone, &scene)), done(&submit(&alone, &endless())));
    let batched = engine(json!({ "prefillChunk": 64, "batch": 2, "cacheLimit": bytes(&long) + bytes(&want) * 5 / 4 }));
    let standing = submit(&batched, &endless());
    until_full(&standing);
    assert_eq!(answer(done(&submit(&batched, &scene))), answer(want));
    assert_eq!(done(&standing)["finish"], "length");
}

#[test]
fn a_turn_that_ends_between_its_pieces_loses_nothing_but_time() {
    let cut = engine(json!({ "prefillChunk": 1, "batch": 3 }));
    let standing = submit(&cut, &endless());
    let session = open(&cut);
    done(&submit(&cut, &turn(&session, "What is there?", 5)));
    let long = submit(&cut, &turn(&session, &"word ".repeat(300), 5));
    // They come after the turn, however long its prompt takes.
    let forks = [(); 2].map(|()| submit(&cut, &json!({ "op": "fork-session", "session": session })));
    std::thread::sleep(Duration::from_millis(100));
    assert!(forks[0].poll().expect("waits").is_empty());
    long.cancel();
    assert_eq!(end(&long)["error"]["code"], "aborted");
    for fork in forks {
        let name = end(&fork)["session"].as_str().expect("a name").to_owned();
        let next = done(&submit(&cut, &turn(&name, "And where?", 5)));
        // The conversation of before, without the turn that was broken off.
        assert!(next["usage"]["promptTokens"].as_u64() < Some(100), "{next}");
    }
    drop(standing);
}

fn turn(session: &str, text: &str, tokens: usize) -> Value {
    let messages = json!([{ "role": "user", "content": text }]);
    json!({ "op": "turn", "session": session, "messages": messages, "maxTokens": tokens })
}

fn open(engine: &Engine) -> String {
    end(&submit(engine, &json!({ "op": "open-session" })))["session"].as_str().expect("a name").to_owned()
}

#[test]
fn turns_of_a_session_stay_in_order_and_those_of_others_run_beside() {
    let texts = ["What is there?", "Which color has it?", "And where is it?"];
    let alone = engine(json!({}));
    let session = open(&alone);
    let expected = texts.map(|text| answer(done(&submit(&alone, &turn(&session, text, 20)))));
    let batched = engine(json!({ "batch": 4 }));
    let standing = submit(&batched, &endless());
    let (one, other) = (open(&batched), open(&batched));
    let tickets: Vec<Ticket> = texts
        .iter()
        .flat_map(|text| [&one, &other].map(|session| submit(&batched, &turn(session, text, 20))))
        .collect();
    let closed = submit(&batched, &json!({ "op": "close-session", "session": one }));
    for (number, ticket) in tickets.iter().enumerate() {
        assert_eq!(answer(done(ticket)), expected[number / 2], "turn {number}");
    }
    assert_eq!(end(&closed), json!({ "type": "session", "session": one }));
    let late = end(&submit(&batched, &turn(&one, "Hello", 2)));
    assert!(late["error"]["message"].as_str().expect("a message").contains("no such session"), "{late}");
    assert_eq!(done(&standing)["finish"], "length");
    let elsewhere = end(&submit(&alone, &turn(&other, "Hello", 2)));
    assert!(elsewhere["error"]["message"].as_str().expect("a message").contains("no such session"), "{elsewhere}");
    let here = done(&submit(&batched, &turn(&other, "Hello", 2)));
    assert!(here["usage"]["cachedTokens"].as_u64() > Some(0), "{here}");
}

fn fork(engine: &Engine, session: &str) -> Value {
    end(&submit(engine, &json!({ "op": "fork-session", "session": session })))
}

#[test]
fn forks_of_a_session_answer_as_sessions_with_the_same_turns() {
    let caches = [json!({ "method": "full" }), json!({ "method": "h2o", "keep": 0.5 })];
    let follow = ["Which color has it?", "And where is it?"];
    for cache in caches {
        let open = |engine: &Engine| {
            let opened = end(&submit(engine, &json!({ "op": "open-session", "cache": cache })));
            opened["session"].as_str().expect("a name").to_owned()
        };
        let text = |done: &Value| (done["text"].clone(), done["tokens"].clone(), done["usage"].clone());
        let separate = engine(json!({}));
        let expected = follow.map(|question| {
            let session = open(&separate);
            done(&submit(&separate, &turn(&session, "What is there?", 30)));
            text(&done(&submit(&separate, &turn(&session, question, 20))))
        });
        let engine = engine(json!({ "batch": 4 }));
        let session = open(&engine);
        let first = submit(&engine, &turn(&session, "What is there?", 30));
        // Asked for while the turn runs: they come after it.
        let names = follow.map(|_| fork(&engine, &session)["session"].as_str().expect("a name").to_owned());
        let resident = done(&first)["memory"]["resident"].as_u64().expect("bytes");
        let turns: Vec<Ticket> =
            names.iter().zip(follow).map(|(name, question)| submit(&engine, &turn(name, question, 20))).collect();
        for (ticket, expected) in turns.iter().zip(&expected) {
            let answer = done(ticket);
            assert_eq!(&text(&answer), expected, "{cache}");
            let shared = answer["memory"]["shared"].as_u64().expect("bytes");
            let full = cache["method"] == "full";
            assert!(!full || shared >= resident / 10 * 9, "{shared} of {resident}");
            assert!(shared <= answer["memory"]["resident"].as_u64().expect("bytes"));
        }
        // Each is closed on its own.
        end(&submit(&engine, &json!({ "op": "close-session", "session": session })));
        assert_eq!(fork(&engine, &session)["error"]["code"], "option");
        assert!(done(&submit(&engine, &turn(&names[1], "Hello", 2)))["usage"]["cachedTokens"].as_u64() > Some(0));
    }
}

#[test]
fn a_cancelled_turn_keeps_what_was_there() {
    let batched = engine(json!({ "batch": 3 }));
    let session = open(&batched);
    let other = submit(&batched, &different()[0]);
    let mut endless = turn(&session, "What is there?", CAPACITY + 50);
    endless["ignoreEos"] = json!(true);
    let cancelled = submit(&batched, &endless);
    assert_eq!(read_one(&cancelled)["type"], "prompt");
    cancelled.cancel();
    let end = done(&cancelled);
    assert_eq!(end["finish"], "aborted");
    assert!(!end["tokens"].as_array().expect("a list").is_empty());
    let next = done(&submit(&batched, &turn(&session, "And now?", 5)));
    assert!(next["usage"]["cachedTokens"].as_u64() > Some(0), "{next}");
    assert_eq!(answer(done(&other)), answer(done(&submit(&engine(json!({})), &different()[0]))));
}

/// The first event, without those after it.
fn read_one(ticket: &Ticket) -> Value {
    let events = ticket.wait(LONG).expect("not at its end");
    serde_json::from_str::<Value>(&Event::array(&events)).expect("JSON")[0].clone()
}

fn text(tokens: usize) -> Value {
    json!({ "op": "generate", "prompt": "USER: Hello ASSISTANT:", "maxTokens": tokens, "ignoreEos": true })
}

fn bytes(end: &Value) -> u64 {
    end["memory"]["peak"].as_u64().expect("bytes")
}

#[test]
fn the_cap_ends_one_and_the_others_go_on() {
    let alone = engine(json!({}));
    let expected = done(&submit(&alone, &text(200)));
    let batched = engine(json!({ "batch": 2, "cacheLimit": bytes(&expected) * 3 / 2 }));
    let ends = [submit(&batched, &text(200)), submit(&batched, &text(200))].map(|ticket| end(&ticket));
    let (done, failed): (Vec<_>, Vec<_>) = ends.iter().partition(|end| end["type"] == "done");
    assert_eq!((done.len(), failed.len()), (1, 1), "{ends:?}");
    assert_eq!(failed[0]["error"]["code"], "out-of-memory");
    assert_eq!(done[0]["tokens"], expected["tokens"]);
    assert_eq!(self::done(&submit(&batched, &text(200)))["tokens"], expected["tokens"], "all of it is free again");
}

#[test]
fn a_prompt_without_room_waits_for_an_end_unless_it_never_fits() {
    let alone = engine(json!({}));
    let scene = about_the_scene("Describe the image in detail.", json!({ "maxTokens": 3 }));
    let (long, seen) = (done(&submit(&alone, &endless())), done(&submit(&alone, &scene)));
    // Either fits alone, with some to spare.
    let limit = bytes(&long).max(bytes(&seen)) * 5 / 4;
    let batched = engine(json!({ "batch": 4, "cacheLimit": limit }));
    let standing = submit(&batched, &endless());
    let huge = json!({ "op": "generate", "prompt": "a b c ".repeat(400), "maxTokens": 1 });
    let huge = end(&submit(&batched, &huge));
    assert_eq!(huge["error"]["code"], "out-of-memory", "though another runs: {huge}");
    // Once the first cannot go on, it holds what leaves no room for the picture.
    until_full(&standing);
    let (waits, behind) = (submit(&batched, &scene), submit(&batched, &text(1)));
    std::thread::sleep(Duration::from_millis(50));
    assert!(waits.poll().expect("no end").is_empty() && behind.poll().expect("no end").is_empty());
    assert_eq!(done(&standing)["tokens"], long["tokens"]);
    let waited = done(&waits);
    assert_eq!(waited["tokens"], seen["tokens"]);
    assert!(waited["timings"]["queued"].as_f64() >= Some(50.0), "{waited}");
    assert_eq!(done(&behind)["usage"]["completionTokens"], 1);
    // Nothing runs: refused as ever.
    let refused = end(&submit(&batched, &json!({ "op": "generate", "prompt": "a b c ".repeat(400), "maxTokens": 1 })));
    assert_eq!(refused["error"]["code"], "out-of-memory");
    assert_eq!(refused["error"]["details"]["needed"], huge["error"]["details"]["needed"]);
}

#[test]
fn closing_ends_all_and_frees() {
    let batched = engine(json!({ "batch": 4 }));
    let tickets: Vec<Ticket> = (0..6).map(|_| submit(&batched, &endless())).collect();
    assert_eq!(read_one(&tickets[3])["type"], "prompt");
    assert_eq!(end(&batched.close())["type"], "closed");
    for ticket in &tickets {
        assert_eq!(end(ticket)["error"]["code"], "disposed");
    }
}

/// Sequences of different lengths, methods and sizes.
fn sequences(model: &Model, n: usize) -> Vec<Sequence> {
    let vocab = model.info().vocab_size as u32;
    let caches = [
        json!({ "method": "full" }),
        json!({ "method": "prefixkv", "keep": 0.4 }),
        json!({ "method": "h2o", "keep": 0.5 }),
        json!({ "method": "knorm", "keep": { "tokens": 30 } }),
        json!({ "method": "streaming", "keep": 0.3 }),
    ];
    let read = |index: usize| {
        let tokens: Vec<u32> =
            (0..150 - 3 * index as u32).map(|i| (i * 7919 + i * i * 31) % (vocab - 10) + 5).collect();
        let prompt = model.expand(&tokens, 0).expect("text");
        let method = Method::parse(&caches[index % caches.len()]).expect("a method");
        let mut sequence = model.new_sequence_with(method, false).expect("a sequence");
        model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).expect("reads");
        sequence
    };
    (0..n).map(read).collect()
}

#[test]
fn requests_together_get_the_bits_of_each_alone() {
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
    for (folder, weights, n, steps) in [
        ("tests/golden/fixtures/llama-linear-tied", WeightFormat::F32, FEW, 6u32),
        ("tests/golden/fixtures/llama-linear-tied", WeightFormat::F16, 7, 12),
        ("models/tiny-llava", WeightFormat::F32, 4, 7),
        ("models/tiny-llava", WeightFormat::F16, FEW, 6),
        // Weights in blocks have no such bound.
        ("tests/golden/fixtures/llama-linear-tied", WeightFormat::Q8_0, FEW + 5, 6),
        ("models/tiny-llava", WeightFormat::Q8_0, 7, 8),
        ("models/tiny-llava", WeightFormat::Q4K, FEW + 1, 4),
    ] {
        let options = LoadOptions { weights, ..LoadOptions::new(root().join(folder)) };
        let model = Model::load(&options, &mut |_| Ok(())).expect("loads");
        let (mut batch, mut singles) = (sequences(&model, n), sequences(&model, n));
        for step in 0..steps {
            let tokens: Vec<u32> = (0..n as u32).map(|index| 5 + 37 * index + 11 * step).collect();
            // One after the other leaves, so that the others change their places.
            let gone = step as usize / 2;
            let mut members: Vec<&mut Sequence> = batch[gone..].iter_mut().collect();
            let rows = model.decode_batch(&tokens[gone..], &mut members).expect("decodes");
            for (index, row) in rows.into_iter().enumerate() {
                let alone = model.decode(tokens[gone + index], &mut singles[gone + index]).expect("decodes");
                assert!(bits(&row.expect("no limit")) == bits(&alone), "{folder} {weights:?}, {index} of step {step}");
            }
        }
    }
}
