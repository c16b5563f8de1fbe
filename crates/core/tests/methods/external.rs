//! Methods whose plans come from outside the engine, through its JSON.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::case::from_base64;
use prefixkv_core::engine::{Engine, Ticket};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn engine(batch: usize) -> Engine {
    let source = root().join("models/tiny-llava").canonicalize().expect("a model");
    let engine = Engine::open(&json!({ "source": source, "batch": batch }).to_string()).expect("opens");
    let loading = engine.loading();
    until(&loading, "loaded");
    engine
}

fn submit(engine: &Engine, request: &Value) -> Ticket {
    engine.submit(&request.to_string(), Vec::new()).unwrap_or_else(|error| panic!("{request}: {error}"))
}

/// Reads on to an event of a type, or to the end of the stream.
fn until(ticket: &Ticket, kind: &str) -> Value {
    let start = Instant::now();
    let mut last = Value::Null;
    while start.elapsed() < Duration::from_secs(120) {
        let Some(events) = ticket.wait(Duration::from_millis(200)) else { return last };
        for event in &events {
            last = serde_json::to_value(event).expect("JSON");
            if last["type"] == kind {
                return last;
            }
        }
    }
    panic!("no {kind} within two minutes, last was {last}");
}

fn code(event: &Value) -> &str {
    event["error"]["code"].as_str().unwrap_or("none")
}

const PROMPT: &str = "USER: There is a green star at the top left and a blue ring at the bottom. What is there, and where? Say what is \
                      red as well. ASSISTANT:";

fn generate(cache: &Value) -> Value {
    json!({ "op": "generate", "prompt": PROMPT, "maxTokens": 12, "ignoreEos": true, "cache": cache })
}

/// Little-endian 32-bit words of base64.
fn words(text: &Value) -> Vec<[u8; 4]> {
    let bytes = from_base64(text.as_str().expect("base64"));
    bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]).collect()
}

fn floats(text: &Value) -> Vec<f32> {
    words(text).into_iter().map(f32::from_le_bytes).collect()
}

fn positions(lane: &Value) -> Vec<u32> {
    words(&lane["positions"]).into_iter().map(u32::from_le_bytes).collect()
}

fn answer(engine: &Engine, view: &Value, plan: impl FnMut(&Value) -> Value) -> Value {
    let lanes: Vec<Value> = view["view"]["lanes"].as_array().expect("lanes").iter().map(plan).collect();
    until(&submit(engine, &json!({ "op": "plan", "view": view["id"], "lanes": lanes })), "planned")
}

/// SnapKV by its definition: the best of the window's attention, pooled, and the window itself.
fn snapkv(lane: &Value, kept: usize) -> Value {
    let sums = floats(&lane["sums"]);
    let window = 32.min(kept / 2);
    let before = sums.len() - window;
    let pooled: Vec<f32> = (0..before)
        .map(|i| sums[i.saturating_sub(3)..(i + 4).min(before)].iter().copied().fold(0.0, f32::max))
        .collect();
    let mut order: Vec<usize> = (0..before).collect();
    order.sort_by(|a, b| pooled[*b].total_cmp(&pooled[*a]).then(a.cmp(b)));
    let mut keep: Vec<usize> = order[..kept - window].iter().copied().chain(before..sums.len()).collect();
    keep.sort_unstable();
    json!({ "keep": keep })
}

#[test]
fn a_plan_from_outside_keeps_what_snapkv_keeps() {
    let engine = engine(1);
    let answer_text = " There is a green star.";
    // Long enough that the window is no more than half of what stays.
    let prompt = PROMPT.repeat(4);
    let score =
        |cache: Value| json!({ "op": "score", "prompt": prompt, "answer": answer_text, "kept": true, "cache": cache });
    let keep = 0.5;
    let want = until(&submit(&engine, &score(json!({ "method": "snapkv", "keep": keep }))), "scored");
    let needs = json!({ "sums": "window", "window": 32, "lanes": "head" });
    let own = submit(&engine, &score(json!({ "method": "custom", "keep": keep, "needs": needs })));
    let view = until(&own, "view");
    let lanes = view["view"]["lanes"].as_array().expect("lanes").len();
    let layers = want["kept"].as_array().expect("layers").len();
    let most = view["view"]["most"].as_u64().expect("a size") as usize;
    let heads = lanes / layers;
    // As a uniform budget shares it out: what does not divide goes to the first layers.
    let whole = most / heads;
    let mut number = 0;
    let planned = answer(&engine, &view, |lane| {
        let layer = number / heads;
        number += 1;
        snapkv(lane, whole / layers + usize::from(layer < whole % layers))
    });
    assert_eq!(planned["type"], "planned");
    let got = until(&own, "scored");
    assert_eq!(got["kept"], want["kept"]);
    assert_eq!(got["logprobs"], want["logprobs"]);
}

#[test]
fn others_go_on_while_a_plan_is_waited_for() {
    let engine = engine(2);
    let parked = submit(&engine, &generate(&json!({ "method": "custom", "needs": {} })));
    let view = until(&parked, "view");
    let other = until(&submit(&engine, &generate(&json!({ "method": "full" }))), "done");
    assert_eq!(other["tokens"].as_array().expect("tokens").len(), 12);
    assert!(parked.poll().expect("goes on").is_empty(), "nothing comes before the plan");
    answer(&engine, &view, |_| json!({}));
    let done = until(&parked, "done");
    assert_eq!(done["tokens"], other["tokens"], "everything was kept");
}

#[test]
fn steps_are_asked_as_often_as_they_are_asked_for() {
    let engine = engine(1);
    let needs = json!({ "moments": ["step"], "every": 4, "sums": "columns", "keys": true, "values": true });
    let ticket = submit(&engine, &generate(&json!({ "method": "custom", "needs": needs, "keep": { "tokens": 20 } })));
    let mut seen = Vec::new();
    loop {
        let view = until(&ticket, "view");
        if view["type"] == "done" {
            let kept = &view["memory"]["keptPerLayer"][0];
            assert!(kept.as_f64().expect("a number") < 24.0, "{kept}");
            break;
        }
        assert_eq!(view["view"]["moment"], "step", "{view}");
        seen.push(view["view"]["step"].as_u64().expect("a number"));
        let lane = &view["view"]["lanes"][0];
        let (entries, sums) = (positions(lane), floats(&lane["sums"]));
        assert_eq!(entries.len(), sums.len());
        assert!(
            entries.is_sorted() && sums.iter().sum::<f32>() > 0.5,
            "what the tokens since the last plan have looked at"
        );
        assert_eq!(floats(&lane["keys"]).len(), floats(&lane["values"]).len());
        assert_eq!(floats(&lane["keys"]).len() % entries.len(), 0);
        let last: Vec<usize> = (entries.len() - 20..entries.len()).collect();
        answer(&engine, &view, |_| json!({ "keep": last }));
    }
    assert_eq!(seen, [4, 8], "of 12 tokens 11 are read");
}

#[test]
fn a_wrong_plan_is_an_error_of_its_request_and_of_nothing_else() {
    let engine = engine(1);
    let cache = json!({ "method": "custom", "needs": { "lanes": "head" }, "keep": 0.5 });
    let wrong = [
        (json!({ "keep": [3, 2] }), "must rise"),
        (json!({ "keep": [2, 2] }), "must rise"),
        (json!({ "keep": [1, 100_000] }), "no entry 100000"),
        (json!({ "keep": [] }), "at least one"),
        (json!({}), "`keep` allows"),
        (json!({ "merge": [{ "from": 1, "into": 0, "weight": 1 }] }), "which stay"),
        (json!({ "keep": [0, 1], "merge": [{ "from": 1, "into": 0, "weight": 1 }] }), "must go"),
        (json!({ "keep": [0, 1], "merge": [{ "from": 2, "into": 3, "weight": 1 }] }), "must go"),
        (json!({ "keep": [0], "merge": [{ "from": 2, "into": 0, "weight": 0 }] }), "above 0"),
        (
            json!({ "keep": [0], "merge": [{ "from": 2, "into": 0, "weight": 1 }, { "from": 2, "into": 0, "weight": 1 }] }),
            "twice",
        ),
    ];
    for (plan, part) in wrong {
        let ticket = submit(&engine, &generate(&cache));
        let view = until(&ticket, "view");
        assert_eq!(answer(&engine, &view, |_| plan.clone())["type"], "planned", "{plan}");
        let failed = until(&ticket, "error");
        assert_eq!(code(&failed), "plan", "{plan}: {failed}");
        assert!(failed["error"]["message"].as_str().expect("text").contains(part), "{plan}: {failed}");
        assert!(ticket.wait(Duration::from_secs(9)).is_none(), "the stream has ended");
        // The same plan comes too late.
        assert_eq!(code(&answer(&engine, &view, |_| plan.clone())), "plan");
    }
    let ticket = submit(&engine, &generate(&cache));
    let view = until(&ticket, "view");
    let few = json!({ "op": "plan", "view": view["id"], "lanes": [{}] });
    assert_eq!(until(&submit(&engine, &few), "planned")["type"], "planned");
    assert!(until(&ticket, "error")["error"]["message"].as_str().expect("text").contains("1 lanes"));
    // An answer that is no plan at all never reaches the request.
    let ticket = submit(&engine, &generate(&cache));
    let view = until(&ticket, "view");
    for lanes in [json!(1), json!([1]), json!([{ "keep": [-1] }]), json!([{ "keep": [0.5] }]), json!([{ "kept": [] }])]
    {
        let request = json!({ "op": "plan", "view": view["id"], "lanes": lanes });
        let Err(refused) = engine.submit(&request.to_string(), Vec::new()) else { panic!("{request} is taken") };
        assert_eq!(refused.code(), "option", "{request}");
    }
    answer(&engine, &view, |_| json!({ "keep": [0, 1, 2] }));
    assert_eq!(until(&ticket, "done")["type"], "done");
    assert_eq!(until(&submit(&engine, &generate(&json!({ "method": "full" }))), "done")["type"], "done");
}

#[test]
fn a_plan_that_never_comes_waits_for_the_abort() {
    let engine = engine(2);
    let ticket = submit(&engine, &generate(&json!({ "method": "custom", "needs": {} })));
    let view = until(&ticket, "view");
    ticket.cancel();
    assert_eq!(code(&until(&ticket, "error")), "aborted");
    assert_eq!(code(&answer(&engine, &view, |_| json!({}))), "plan", "nobody waits any more");
    let ticket = submit(&engine, &generate(&json!({ "method": "custom", "needs": {} })));
    until(&ticket, "view");
    assert_eq!(until(&engine.close(), "closed")["type"], "closed");
    assert_eq!(code(&until(&ticket, "error")), "disposed");
}

#[test]
fn a_conversation_outlives_a_wrong_plan() {
    let engine = engine(1);
    let cache = json!({ "method": "custom", "needs": {}, "keep": 0.9 });
    let session =
        until(&submit(&engine, &json!({ "op": "open-session", "cache": cache })), "session")["session"].clone();
    let turn = |text: &str| json!({ "op": "turn", "session": session, "maxTokens": 6, "messages": [{ "role": "user", "content": text }] });
    let all_but = |n: usize| move |lane: &Value| json!({ "keep": (0..positions(lane).len() - n).collect::<Vec<_>>() });
    let first = submit(&engine, &turn("What is there?"));
    answer(&engine, &until(&first, "view"), all_but(5));
    assert_eq!(until(&first, "done")["type"], "done");
    let second = submit(&engine, &turn("What else?"));
    answer(&engine, &until(&second, "view"), |_| json!({ "keep": [7, 7] }));
    assert_eq!(code(&until(&second, "error")), "plan");
    let third = submit(&engine, &turn("What else?"));
    answer(&engine, &until(&third, "view"), all_but(9));
    let done = until(&third, "done");
    assert!(done["usage"]["promptTokens"].as_u64() > Some(20), "{done}");
}

#[test]
fn a_trace_has_the_plans_from_outside() {
    let engine = engine(1);
    let mut request = generate(&json!({ "method": "custom", "needs": { "sums": "columns", "queries": 4 } }));
    request["op"] = json!("trace");
    let ticket = submit(&engine, &request);
    let view = until(&ticket, "view");
    let lane = &view["view"]["lanes"][0];
    let (queries, n) = (floats(&lane["queries"]).len(), positions(lane).len());
    assert!(queries > 0 && queries % 4 == 0, "{queries} numbers of 4 queries");
    answer(&engine, &view, |_| json!({ "keep": (2..n).collect::<Vec<_>>() }));
    let traced = until(&ticket, "traced");
    assert_eq!(traced["plans"][0]["moment"], "prompt");
    assert_eq!(traced["plans"][0]["lanes"][0]["keep"][0], 2);
    assert_eq!(traced["layers"][0]["kept"][0]["positions"][0], 2);
    assert_eq!(traced["score"], "custom");
}
