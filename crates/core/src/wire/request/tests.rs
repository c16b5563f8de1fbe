use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::model::Vision;

fn refused(request: Value, images: usize) -> (String, Option<String>) {
    match Request::parse(&request.to_string(), images) {
        Err(Error::Option { reason, suggestion }) => (reason, suggestion),
        other => panic!("{request} gave {other:?}"),
    }
}

fn refused_with(request: Value, images: usize, part: &str) {
    let (reason, _) = refused(request, images);
    assert!(reason.contains(part), "`{reason}` lacks `{part}`");
}

fn image(index: usize) -> Value {
    json!({ "type": "image", "index": index })
}

#[test]
fn a_full_generate_request_is_read() {
    let request = json!({
        "op": "generate",
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": [image(1), { "type": "text", "text": "and" }, image(0), image(1)] },
        ],
        "maxTokens": 7, "temperature": 0.5, "topK": 3, "topP": 0.9, "minP": 0.1, "repetitionPenalty": 1.1, "seed": 1,
        "stop": ["\n"], "ignoreEos": true,
    });
    let Ok(Request::Model(read)) = Request::parse(&request.to_string(), 2) else { panic!() };
    let ModelRequest::Generate(read) = *read else { panic!() };
    assert_eq!(read.source.order, [1, 0, 1].map(Medium::Image));
    assert_eq!(read.max_tokens, Some(7));
    assert!(read.ignore_eos);
}

#[test]
fn a_raw_prompt_takes_all_images_in_order() {
    let request = json!({ "op": "score", "prompt": "<image><image>", "answer": "a" }).to_string();
    let Ok(Request::Model(read)) = Request::parse(&request, 2) else { panic!() };
    let ModelRequest::Score(read) = *read else { panic!() };
    assert_eq!(read.source.order, [0, 1].map(Medium::Image));
}

#[test]
fn unknown_names_are_refused_with_a_suggestion() {
    let unknown = |request| refused(request, 0).1;
    assert_eq!(unknown(json!({ "op": "generate", "prompt": "a", "max_tokens": 1 })).unwrap(), "maxTokens");
    assert_eq!(unknown(json!({ "op": "generat", "prompt": "a" })).unwrap(), "generate");
    assert_eq!(unknown(json!({ "op": "score", "prompt": "a", "anwser": "b" })).unwrap(), "answer");
    let part = json!([{ "role": "user", "content": [{ "type": "txt", "text": "a" }] }]);
    assert_eq!(unknown(json!({ "op": "generate", "messages": part })).unwrap(), "text");
    assert_eq!(unknown(json!({ "op": "generate", "messages": [{ "rol": "user", "content": "" }] })).unwrap(), "role");
}

#[test]
fn wrong_types_and_ranges_are_refused() {
    let generate = |name: &str, value: Value| {
        let mut request = json!({ "op": "generate", "prompt": "a" });
        request[name] = value;
        request
    };
    refused_with(generate("maxTokens", json!("7")), 0, "`maxTokens` of generate: invalid type: string \"7\"");
    refused_with(generate("maxTokens", json!(0)), 0, "from 1 to 1000000, found 0");
    refused_with(generate("maxTokens", json!(1_000_001)), 0, "found 1000001");
    refused_with(generate("maxTokens", json!(-1)), 0, "`maxTokens`");
    refused_with(generate("maxTokens", json!(1.5)), 0, "`maxTokens`");
    refused_with(generate("temperature", Value::Null), 0, "null");
    refused_with(generate("stop", json!("a")), 0, "`stop`");
    refused_with(json!({ "prompt": "a" }), 0, "needs `op`");
    refused_with(json!({ "op": 1 }), 0, "found a number");
    refused_with(json!({ "op": "score", "prompt": "a", "answer": "" }), 0, "empty");
    refused_with(json!({ "op": "score", "prompt": "a", "answer": "b", "kl": 1 }), 0, "`kl` of score");
    refused_with(json!({ "op": "detokenize", "tokens": [-1] }), 0, "`tokens`");
    refused_with(json!({ "op": "tokenize" }), 0, "needs `text`");
    refused_with(json!({ "op": "memory", "device": "cpu" }), 0, "unknown field `device` in memory");
    refused_with(json!({ "op": "memory" }), 1, "memory takes no images");
    refused_with(json!([]), 0, "expected an object");
}

#[test]
fn sessions_belong_to_turns_forks_and_closings_only() {
    let session = "0123456789abcdef0123456789abcdef";
    let turn = |fields: Value| {
        let mut request = json!({ "op": "turn", "session": session, "messages": [{ "role": "user", "content": "a" }] });
        fields.as_object().unwrap().iter().for_each(|(name, value)| request[name] = value.clone());
        request
    };
    let read = |request: Value| Request::parse(&request.to_string(), 0);
    assert!(read(turn(json!({ "maxTokens": 3 }))).is_ok());
    assert!(read(json!({ "op": "close-session", "session": session })).is_ok());
    assert!(read(json!({ "op": "fork-session", "session": session })).is_ok());
    assert!(read(json!({ "op": "ask", "prefix": session, "question": "" })).is_ok());
    refused_with(json!({ "op": "save-prefix", "prefix": session, "path": "a" }), 0, "must be an absolute path");
    for op in ["generate", "prefill", "trace", "score", "profile", "open-session", "tokenize", "detokenize"] {
        let request = turn(json!({ "op": op }));
        refused_with(request.clone(), 0, "unknown field `");
        let mut only = request;
        only.as_object_mut().unwrap().remove("messages");
        refused_with(only, 0, "unknown field `session`");
    }
    refused_with(turn(json!({ "cache": { "method": "full" } })), 0, "unknown field `cache` in turn");
    refused_with(turn(json!({ "prompt": "a" })), 0, "found both");
    refused_with(json!({ "op": "turn", "session": session, "prompt": "a" }), 0, "not a raw `prompt`");
    refused_with(json!({ "op": "turn", "prompt": "a" }), 0, "turn needs `session`");
    for wrong in [json!(1), json!("1"), json!(null), json!([]), json!("0123456789ABCDEF0123456789ABCDEF")] {
        refused_with(turn(json!({ "session": wrong })), 0, "`session` of turn");
        refused_with(json!({ "op": "close-session", "session": wrong }), 0, "`session` of close-session");
    }
}

#[test]
fn prompts_of_one_request_have_images_of_their_own() {
    let turn = |index: usize| json!([{ "role": "user", "content": [{ "type": "image", "index": index }] }]);
    let prompts = json!([
        { "messages": turn(0), "images": 1 },
        { "prompt": "text" },
        { "prompt": "<image><image>", "images": 2, },
    ]);
    let request = json!({ "op": "distances", "prompts": prompts, "variant": "official" });
    let Ok(Request::Model(read)) = Request::parse(&request.to_string(), 3) else { panic!("{request}") };
    let ModelRequest::Distances(DistancesRequest { sources, variant }) = *read else { panic!("{request}") };
    assert_eq!(variant, DistanceVariant::Official);
    let of = |source: &Source| source.order.iter().map(|medium| medium.images().start).collect::<Vec<_>>();
    let found: Vec<_> = sources.iter().map(|(source, images)| (of(source), images.clone())).collect();
    assert_eq!(found, [(vec![0], 0..1), (vec![], 1..1), (vec![0, 1], 1..3)]);
    refused_with(request.clone(), 2, "`images` of prompts[2] is 2, and 1 of the request's 2 images are left for it");
    refused_with(request, 4, "the prompts of distances have 3 images, and 4 came with the request");
    let with = |prompts: Value| json!({ "op": "distances", "prompts": prompts });
    refused_with(with(json!([])), 0, "`prompts` of distances is empty");
    refused_with(with(json!({})), 0, "`prompts` of distances must be an array");
    refused_with(with(json!([3])), 0, "prompts[0]");
    refused_with(with(json!([{ "prompt": "a" }, { "prompt": "a", "image": 1 }])), 0, "unknown field `image`");
    refused_with(with(json!([{ "prompt": "a", "messages": turn(0) }])), 0, "found both");
    refused_with(with(json!([{ "messages": turn(1), "images": 1 }])), 1, "`index` of messages[0].content[0] is 1");
    refused_with(
        with(json!([{ "prompt": "a", "images": u64::MAX }])),
        0,
        "`images` of prompts[0] is 18446744073709551615",
    );
    refused_with(json!({ "op": "distances" }), 0, "needs `prompts`");
    refused_with(json!({ "op": "similarity", "prompt": "a" }), 0, "similarity needs `cache`");
}

#[test]
fn a_field_that_is_there_twice_is_refused() {
    for request in [
        r#"{"op":"generate","prompt":"a","op":"close-session"}"#,
        r#"{"op":"generate","prompt":"a","prompt":"b"}"#,
        r#"{"op":"generate","\u006fp":"score","prompt":"a"}"#,
    ] {
        let error = Request::parse(request, 0).unwrap_err().to_string();
        assert!(error.contains("is there twice"), "{error}");
    }
}

#[test]
fn prompts_and_images_must_agree() {
    let message = json!([{ "role": "user", "content": [image(0)] }]);
    refused_with(json!({ "op": "generate" }), 0, "needs `messages` or `prompt`");
    refused_with(json!({ "op": "generate", "prompt": "a", "messages": message }), 1, "found both");
    refused_with(json!({ "op": "generate", "messages": message }), 0, "is 0, but 0 images");
    refused_with(json!({ "op": "generate", "messages": message }), 2, "image 1 is in no message");
    refused_with(json!({ "op": "generate", "messages": [] }), 0, "empty");
    refused_with(json!({ "op": "generate", "messages": [{ "role": "user", "content": 1 }] }), 0, "found a number");
    let both = json!([{ "role": "user", "content": [{ "type": "image", "index": 0, "text": "a" }] }]);
    refused_with(json!({ "op": "generate", "messages": both }), 1, "messages[0].content[0] is an image");
    refused_with(json!({ "op": "generate", "prompt": "a" }), 65, "at most 64 images");
    refused_with(json!({ "op": "tokenize", "text": "a" }), 1, "takes no images");
}

#[test]
fn size_and_syntax_are_checked_first() {
    let long = format!(r#"{{"op":"tokenize","text":"{}"}}"#, "a".repeat(MAX_JSON));
    assert!(Request::parse(&long, 0).unwrap_err().to_string().contains("bytes of JSON"));
    assert!(Request::parse("{", 0).unwrap_err().to_string().contains("not JSON"));
    let deep = format!("{{\"op\":{}", "[".repeat(1 << 20));
    assert!(Request::parse(&deep, 0).unwrap_err().to_string().contains("not JSON"));
    assert!(Request::parse(&"[".repeat(1 << 20), 0).unwrap_err().to_string().contains("expected an object"));
}

#[test]
fn a_load_request_is_read() {
    let read = LoadRequest::parse(r#"{"source":"/m","weights":"q8_0","device":"cuda:1","threads":2}"#).unwrap();
    assert_eq!(read.options.source, PathBuf::from("/m"));
    assert_eq!(
        (read.threads, read.batching),
        (Some(2), Batching { batch: 1, prefill_chunk: Some(512), prefix_cache: 0 })
    );
    assert_eq!(LoadRequest::parse(r#"{"source":"/m","batch":256}"#).unwrap().batching.batch, 256);
    for (chunk, read) in [(100, Some(100)), (0, None)] {
        let load = LoadRequest::parse(&format!(r#"{{"source":"/m","prefillChunk":{chunk}}}"#)).unwrap();
        assert_eq!(load.batching.prefill_chunk, read);
    }
    assert!(!read.close_with_thread);
    assert!(LoadRequest::parse(r#"{"source":"/m","closeWithThread":true}"#).unwrap().close_with_thread);
    let limited = LoadRequest::parse(r#"{"source":"/m","cacheLimit":"1.5GiB"}"#).unwrap();
    assert_eq!(limited.options.cache_limit, Some(3 << 29));
    assert!(!limited.options.rotate_values);
    assert!(LoadRequest::parse(r#"{"source":"/m","rotateValues":true}"#).unwrap().options.rotate_values);
    for (said, read) in [
        ("", Vision::Beside),
        (r#","vision":false"#, Vision::None),
        (r#","vision":"/v.gguf""#, Vision::File("/v.gguf".into())),
    ] {
        let json = format!(r#"{{"source":"/m"{said}}}"#);
        assert_eq!(LoadRequest::parse(&json).unwrap().options.vision, read);
        assert_eq!(parse_inspect(&json).unwrap().vision, read);
    }
    let refused = |json: &str| LoadRequest::parse(json).unwrap_err().to_string();
    assert!(refused(r#"{"source":"/m","vision":true}"#).contains("the path of a file or false, found true"));
    assert!(refused(r#"{"source":"/m","vision":"v.gguf"}"#).contains("`vision` must be an absolute path"));
    assert!(refused(r#"{"source":"m"}"#).contains("absolute"));
    assert!(refused("{}").contains("needs `source`"));
    assert!(refused(r#"{"source":"/m","weights":"q9"}"#).contains("`weights` of load"));
    assert!(refused(r#"{"source":"/m","threads":0}"#).contains("from 1 to 1024"));
    assert!(refused(r#"{"source":"/m","prefillChunk":1000001}"#).contains("from 0 to 1000000"));
    assert!(refused(r#"{"source":"/m","rotateValues":1}"#).contains("`rotateValues` of load"));
    assert!(refused(r#"{"source":"/m","batch":0}"#).contains("from 1 to 256"));
    assert!(refused(r#"{"source":"/m","batch":257}"#).contains("found 257"));
    assert!(refused(r#"{"source":"/m","batch":1.5}"#).contains("`batch` of load"));
    assert!(refused(r#"{"source":"/m","weigths":"f32"}"#).contains("did you mean `weights`"));
    assert!(LoadRequest::parse(r#"{"source":"/m","device":"gpu"}"#).is_err());
}

#[test]
fn videos_are_frames_among_the_images() {
    let turn = |parts: Value| json!([{ "role": "user", "content": parts }]);
    let film = |first: usize, frames: usize| json!({ "first": first, "frames": frames, "fps": 2 });
    let video = |index: usize| json!({ "type": "video", "index": index });
    let ask = |parts: Value, videos: Value| json!({ "op": "generate", "messages": turn(parts), "videos": videos });
    let order = |request: Value, images: usize| {
        let Ok(Request::Model(read)) = Request::parse(&request.to_string(), images) else { panic!("{request}") };
        let ModelRequest::Generate(read) = *read else { panic!("{request}") };
        read.source.order.iter().map(Medium::images).collect::<Vec<_>>()
    };
    let both = json!([video(0), image(0), video(1)]);
    assert_eq!(order(ask(both, json!([film(1, 3), film(4, 1)])), 5), [1..4, 0..1, 4..5]);
    let raw = json!({ "op": "generate", "prompt": "a", "videos": [film(1, 2)] });
    assert_eq!(order(raw, 4), [0..1, 1..3, 3..4]);
    let many = ask(json!([video(0)]), json!([film(0, 700)]));
    assert_eq!(order(many, 700).first(), Some(&(0..700)));

    let refused =
        |parts: Value, videos: Value, images: usize, part: &str| refused_with(ask(parts, videos), images, part);
    let one = json!([video(0)]);
    refused(one.clone(), json!([film(0, 3)]), 2, "videos[0] has 3 frames from image 0 on, but 2 images came");
    refused(one.clone(), json!([film(9, 1)]), 2, "videos[0] has 1 frames from image 9 on");
    refused(json!([video(0), video(1)]), json!([film(0, 2), film(1, 1)]), 2, "videos[1] begins at image 1");
    refused(one.clone(), json!([film(0, 0)]), 0, "`videos` of generate");
    refused(one.clone(), json!([film(0, 769)]), 769, "`videos` of generate");
    refused(one.clone(), json!([{ "first": 0, "frames": 2, "times": [1, 1] }]), 2, "must grow");
    refused(one.clone(), json!([{ "first": 0, "frames": 2, "fps": 0 }]), 2, "above 0");
    refused(one.clone(), json!([{ "first": 0, "frames": 2, "rate": 1 }]), 2, "rate");
    refused(json!([image(1), video(0)]), json!([film(0, 2)]), 2, "is 1, which is a frame of video 0");
    refused(json!([video(1), video(0)]), json!([film(0, 2)]), 2, "is 1, but 1 videos came");
    refused(json!(["a"]), json!([]), 0, "messages[0].content[0]");
    refused(json!([image(0)]), json!([film(1, 1)]), 2, "video 0 is in no message; 1 came");
    refused(json!([{ "type": "video", "text": "a" }]), json!([]), 0, "is a video, so it has `index`");
    let few: Vec<Value> = (0..65).map(image).collect();
    refused(json!(few), json!([]), 65, "at most 64 images per request, found 65");
    let films: Vec<Value> = (0..8).map(|number| film(100 * number, 100)).collect();
    let shown: Vec<Value> = (0..8).map(video).collect();
    refused(json!(shown), json!(films), 800, "768 frames together, found 800");
    refused_with(json!({ "op": "generate", "prompt": "a" }), 900, "at most 832 images and frames");
    let several = json!({ "op": "distances", "prompts": [
        { "prompt": "a", "images": 400, "videos": [film(0, 400)] }, { "prompt": "a", "images": 400, "videos": [film(0, 400)] },
    ] });
    refused_with(several, 800, "768 frames together, found 800");
}

#[test]
fn the_positions_of_a_video_can_be_asked_for() {
    let ask = |fields: Value| {
        let mut request = json!({ "op": "image-tokens", "width": 40, "height": 30 });
        fields.as_object().unwrap().iter().for_each(|(name, value)| request[name] = value.clone());
        request
    };
    let Ok(Request::Text(TextRequest::ImageTokens(asked))) =
        Request::parse(&ask(json!({ "frames": 3, "fps": 2 })).to_string(), 0)
    else {
        panic!()
    };
    assert_eq!(asked.timing.unwrap().times(), [0.0, 0.5, 1.0]);
    refused_with(ask(json!({ "fps": 2 })), 0, "how many `frames`");
    refused_with(ask(json!({ "frames": 2, "times": [0] })), 0, "1 numbers for 2 frames");
}
