//! The requests of `ts/native/contract.ts`, checked as far as they can be without a model: what is refused here never queues.

use std::path::PathBuf;
use std::sync::Arc;

use prefixkv_kernels::cuda::check::Cases;
use serde_json::Value;

use super::distinct::Distinct;
use super::threads;
use crate::error::{Error, Result};
use crate::fields::{Fields, describe, nearest, refuse};
use crate::method::Method;
use crate::model::{Device, LoadOptions, WeightFormat};
use crate::sample::SamplerOptions;
use crate::text::{Message, SpecialTokens, StopStrings};
use crate::units::bytes;
use crate::wire::SessionId;

/// Longest request, in bytes of JSON. Images do not count; they cross as bytes.
pub const MAX_JSON: usize = 8 << 20;
/// Most images of one request.
pub const MAX_IMAGES: usize = 64;
/// Most requests that a model may decode together.
pub const MAX_BATCH: usize = 256;
/// Most tokens that a request may ask for.
pub const MAX_TOKENS: usize = 1_000_000;

/// A model folder to load.
#[derive(Debug)]
pub struct LoadRequest {
    pub options: LoadOptions,
    pub device: Device,
    /// Most requests that are decoded together.
    pub batch: usize,
    /// Size of the process-wide pools.
    pub threads: Option<usize>,
    /// Whether the model is closed when the thread that opens it ends.
    pub close_with_thread: bool,
}

impl LoadRequest {
    /// Reads a `LoadRequest`.
    pub fn parse(json: &str) -> Result<LoadRequest> {
        let known = ["source", "device", "weights", "threads", "batch", "cacheLimit", "closeWithThread"];
        let mut fields = Fields::new(parse(json)?, "load", &known)?;
        let source = source(&mut fields)?;
        let device = fields.take::<String>("device")?.map_or(Ok(Device::Auto), |name| name.parse())?;
        let weights = fields.take("weights")?.unwrap_or(WeightFormat::F32);
        let threads = fields.within("threads", 1..=threads::MAX)?;
        let batch = fields.within("batch", 1..=MAX_BATCH)?.unwrap_or(1);
        let cache_limit = fields.take::<Value>("cacheLimit")?.map(|value| bytes("cacheLimit", &value)).transpose()?;
        let close_with_thread = fields.take("closeWithThread")?.unwrap_or(false);
        Ok(LoadRequest {
            options: LoadOptions { source, weights, cache_limit },
            device,
            batch,
            threads,
            close_with_thread,
        })
    }
}

/// Reads the `{ "source": DIR }` of an inspection.
pub(super) fn parse_inspect(json: &str) -> Result<PathBuf> {
    source(&mut Fields::new(parse(json)?, "inspect", &["source"])?)
}

/// A device to check.
#[derive(Debug)]
pub struct CheckRequest {
    pub device: Device,
    /// Whether to measure what the device can do.
    pub ceilings: bool,
    pub cases: Cases,
}

impl CheckRequest {
    /// Reads the `{ "device": NAME, "ceilings": BOOL, "cases": "all" | "small" }` of a check.
    pub fn parse(json: &str) -> Result<CheckRequest> {
        let mut fields = Fields::new(parse(json)?, "check", &["device", "ceilings", "cases"])?;
        let device = fields.need::<String>("device")?.parse()?;
        let cases = match fields.take::<String>("cases")?.as_deref() {
            None | Some("all") => Cases::All,
            Some("small") => Cases::Small,
            Some(other) => return Err(refuse(format!("`cases` must be \"all\" or \"small\", found {other:?}"))),
        };
        Ok(CheckRequest { device, ceilings: fields.take("ceilings")?.unwrap_or(false), cases })
    }
}

fn source(fields: &mut Fields) -> Result<PathBuf> {
    let source: PathBuf = fields.need("source")?;
    if !source.is_absolute() {
        return Err(refuse(format!("`source` must be an absolute path, found `{}`", source.display())));
    }
    Ok(source)
}

/// What an engine can be asked.
#[derive(Debug)]
pub enum Request {
    /// Needs the model, so it waits in the queue.
    Model(Box<ModelRequest>),
    /// Needs the tokenizer only.
    Text(TextRequest),
}

/// A request for the model.
#[derive(Debug)]
pub enum ModelRequest {
    Generate(GenerateRequest),
    Score(ScoreRequest),
    Profile(ProfileRequest),
    /// A generation that also says what the cache held and why.
    Trace(GenerateRequest),
    /// Starts a conversation that keeps its cache from turn to turn.
    OpenSession(Option<Arc<Method>>),
    CloseSession(SessionId),
    /// Asks what the device of the model counts.
    Memory,
}

/// A request for the tokenizer.
#[derive(Debug)]
pub enum TextRequest {
    Tokenize { text: String, special: bool },
    Detokenize { tokens: Vec<u32>, skip_special: bool },
}

/// What the model is to read.
#[derive(Debug)]
pub struct Source {
    pub text: SourceText,
    /// What becomes of special tokens that messages spell.
    pub special: SpecialTokens,
    /// The images in the order of their placeholders, as indices into the request's images.
    pub order: Vec<usize>,
}

/// The text of a prompt.
#[derive(Debug)]
pub enum SourceText {
    /// Goes through the chat template.
    Messages(Vec<Message>),
    /// Goes to the tokenizer as it is, with one placeholder per image.
    Raw(String),
}

/// A text to continue.
#[derive(Debug)]
pub struct GenerateRequest {
    pub source: Source,
    /// What makes the cache small; None is the plain cache.
    pub method: Option<Arc<Method>>,
    /// The conversation that the messages continue, whose method is that of its opening.
    pub session: Option<SessionId>,
    pub max_tokens: Option<usize>,
    pub sampler: SamplerOptions,
    pub stop: StopStrings,
    /// Goes on after an end-of-sequence token, as benchmarks need.
    pub ignore_eos: bool,
}

/// An answer to take the probability of.
#[derive(Debug)]
pub struct ScoreRequest {
    pub source: Source,
    pub method: Option<Arc<Method>>,
    pub answer: String,
    /// Whether to say which positions are kept after the prompt.
    pub kept: bool,
    /// Whether to compare every distribution with that of the full cache.
    pub kl: bool,
}

/// A prompt whose retained shares per layer are asked for.
#[derive(Debug)]
pub struct ProfileRequest {
    pub source: Source,
    pub method: Arc<Method>,
    /// Sizes of the whole, each above 0 and at most 1.
    pub keeps: Vec<f64>,
}

/// Most sizes that one profile may ask for.
pub const MAX_KEEPS: usize = 1024;

const OPS: [&str; 10] = [
    "generate",
    "score",
    "profile",
    "trace",
    "open-session",
    "turn",
    "close-session",
    "memory",
    "tokenize",
    "detokenize",
];
const GENERATE: [&str; 14] = [
    "op",
    "messages",
    "specialTokens",
    "prompt",
    "cache",
    "maxTokens",
    "temperature",
    "topK",
    "topP",
    "minP",
    "repetitionPenalty",
    "seed",
    "stop",
    "ignoreEos",
];

impl Request {
    /// Reads an `EngineRequest` that comes with `images` images.
    pub fn parse(json: &str, images: usize) -> Result<Request> {
        if images > MAX_IMAGES {
            return Err(refuse(format!("at most {MAX_IMAGES} images per request, found {images}")));
        }
        let value = parse(json)?;
        let op = match value.get("op") {
            Some(Value::String(op)) => op.clone(),
            Some(other) => return Err(refuse(format!("`op` must be a string, found {}", describe(other)))),
            None => return Err(refuse(format!("a request needs `op`, one of {}", OPS.join(", ")))),
        };
        if images > 0 && !matches!(op.as_str(), "generate" | "turn" | "score" | "profile" | "trace") {
            return Err(refuse(format!("{op} takes no images, found {images}")));
        }
        match op.as_str() {
            "generate" => {
                let fields = Fields::new(value, "generate", &GENERATE)?;
                generate(fields, "generate", images).map(ModelRequest::Generate).map(model)
            }
            "turn" => {
                let known: Vec<&str> =
                    GENERATE.iter().copied().filter(|field| *field != "cache").chain(["session"]).collect();
                let mut fields = Fields::new(value, "turn", &known)?;
                let session = fields.need("session")?;
                let mut request = generate(fields, "turn", images)?;
                if matches!(request.source.text, SourceText::Raw(_)) {
                    return Err(refuse("a turn of a session has `messages`, not a raw `prompt`"));
                }
                request.session = Some(session);
                Ok(model(ModelRequest::Generate(request)))
            }
            "score" => {
                let fields = Fields::new(
                    value,
                    "score",
                    &["op", "messages", "specialTokens", "prompt", "cache", "answer", "kept", "kl"],
                )?;
                score(fields, images).map(ModelRequest::Score).map(model)
            }
            "profile" => {
                let fields =
                    Fields::new(value, "profile", &["op", "messages", "specialTokens", "prompt", "cache", "keeps"])?;
                profile(fields, images).map(ModelRequest::Profile).map(model)
            }
            "trace" => {
                let fields = Fields::new(value, "trace", &GENERATE)?;
                generate(fields, "trace", images).map(ModelRequest::Trace).map(model)
            }
            "open-session" => {
                let mut fields = Fields::new(value, "open-session", &["op", "cache"])?;
                Ok(model(ModelRequest::OpenSession(method(&mut fields)?)))
            }
            "close-session" => {
                let mut fields = Fields::new(value, "close-session", &["op", "session"])?;
                Ok(model(ModelRequest::CloseSession(fields.need("session")?)))
            }
            "memory" => Fields::new(value, "memory", &["op"]).map(|_| model(ModelRequest::Memory)),
            "tokenize" => {
                let mut fields = Fields::new(value, "tokenize", &["op", "text", "addSpecialTokens"])?;
                let text = fields.need("text")?;
                let special = fields.take("addSpecialTokens")?.unwrap_or(true);
                Ok(Request::Text(TextRequest::Tokenize { text, special }))
            }
            "detokenize" => {
                let mut fields = Fields::new(value, "detokenize", &["op", "tokens", "skipSpecialTokens"])?;
                let tokens = fields.need("tokens")?;
                let skip_special = fields.take("skipSpecialTokens")?.unwrap_or(false);
                Ok(Request::Text(TextRequest::Detokenize { tokens, skip_special }))
            }
            _ => Err(Error::Option {
                reason: format!("unknown op `{op}`; known are {}", OPS.join(", ")),
                suggestion: nearest(&op, &OPS),
            }),
        }
    }
}

fn model(request: ModelRequest) -> Request {
    Request::Model(Box::new(request))
}

fn parse(json: &str) -> Result<Value> {
    if json.len() > MAX_JSON {
        return Err(refuse(format!("a request may have {MAX_JSON} bytes of JSON, found {}", json.len())));
    }
    match serde_json::from_str(json) {
        Ok(Distinct(fields)) => Ok(Value::Object(fields)),
        Err(error) if error.is_data() => Err(refuse(format!("the request cannot be read: {error}"))),
        Err(error) => Err(refuse(format!("the request is not JSON: {error}"))),
    }
}

fn generate(mut fields: Fields, op: &str, images: usize) -> Result<GenerateRequest> {
    let source = prompt(&mut fields, op, images)?;
    let method = method(&mut fields)?;
    let max_tokens = fields.within("maxTokens", 1..=MAX_TOKENS)?;
    let mut sampler = SamplerOptions::default();
    fields.set("temperature", &mut sampler.temperature)?;
    fields.set("topK", &mut sampler.top_k)?;
    fields.set("topP", &mut sampler.top_p)?;
    fields.set("minP", &mut sampler.min_p)?;
    fields.set("repetitionPenalty", &mut sampler.repetition_penalty)?;
    fields.set("seed", &mut sampler.seed)?;
    sampler.validate()?;
    let stop = StopStrings::new(fields.take("stop")?.unwrap_or_default())?;
    let ignore_eos = fields.take("ignoreEos")?.unwrap_or(false);
    Ok(GenerateRequest { source, method, session: None, max_tokens, sampler, stop, ignore_eos })
}

fn score(mut fields: Fields, images: usize) -> Result<ScoreRequest> {
    let source = prompt(&mut fields, "score", images)?;
    let method = method(&mut fields)?;
    let kept = fields.take("kept")?.unwrap_or(false);
    let kl = fields.take("kl")?.unwrap_or(false);
    let answer: String = fields.need("answer")?;
    if answer.is_empty() {
        return Err(refuse("`answer` of score is empty; there is nothing to score"));
    }
    Ok(ScoreRequest { source, method, answer, kept, kl })
}

fn profile(mut fields: Fields, images: usize) -> Result<ProfileRequest> {
    let source = prompt(&mut fields, "profile", images)?;
    let method = method(&mut fields)?.ok_or_else(|| refuse("profile needs `cache` with a method that has sizes"))?;
    let keeps: Vec<f64> = fields.need("keeps")?;
    if keeps.is_empty() || keeps.len() > MAX_KEEPS || keeps.iter().any(|keep| !(*keep > 0.0 && *keep <= 1.0)) {
        return Err(refuse(format!("`keeps` of profile must be 1 to {MAX_KEEPS} shares above 0 and at most 1")));
    }
    Ok(ProfileRequest { source, method, keeps })
}

fn method(fields: &mut Fields) -> Result<Option<Arc<Method>>> {
    match fields.take::<Value>("cache")? {
        Some(value) => Method::parse(&value),
        None => Ok(None),
    }
}

fn prompt(fields: &mut Fields, op: &str, images: usize) -> Result<Source> {
    let special = fields.take::<String>("specialTokens")?;
    if special.is_some() && fields.has("prompt") {
        return Err(refuse("`specialTokens` is about `messages`; a raw `prompt` is written with its special tokens"));
    }
    let special = match special.as_deref() {
        None | Some("parse") => SpecialTokens::Parse,
        Some("text") => SpecialTokens::Text,
        Some(other) => {
            return Err(refuse(format!("`specialTokens` of {op} must be \"parse\" or \"text\", found {other:?}")));
        }
    };
    match (fields.take::<Value>("messages")?, fields.take::<String>("prompt")?) {
        (Some(_), Some(_)) => Err(refuse(format!("{op} takes `messages` or `prompt`, found both"))),
        (None, None) => Err(refuse(format!("{op} needs `messages` or `prompt`"))),
        (None, Some(text)) if text.is_empty() => Err(refuse("`prompt` is empty")),
        (None, Some(text)) => Ok(Source { text: SourceText::Raw(text), special, order: (0..images).collect() }),
        (Some(messages), None) => {
            let order = check_messages(&messages, images)?;
            let messages =
                serde_json::from_value(messages).map_err(|error| refuse(format!("`messages` of {op}: {error}")))?;
            Ok(Source { text: SourceText::Messages(messages), special, order })
        }
    }
}

/// Checks the shape of messages with errors that say where, and gives the images in the order in which they are mentioned.
fn check_messages(messages: &Value, images: usize) -> Result<Vec<usize>> {
    let Value::Array(list) = messages else {
        return Err(refuse(format!("`messages` must be an array, found {}", describe(messages))));
    };
    if list.is_empty() {
        return Err(refuse("`messages` is empty"));
    }
    let mut order = Vec::new();
    for (number, message) in list.iter().enumerate() {
        let place = format!("messages[{number}]");
        let mut fields = Fields::new(message.clone(), place.as_str(), &["role", "content"])?;
        if fields.need::<String>("role")?.is_empty() {
            return Err(refuse(format!("`role` of {place} is empty")));
        }
        match fields.need::<Value>("content")? {
            Value::String(_) => {}
            Value::Array(parts) => {
                for (number, part) in parts.into_iter().enumerate() {
                    order.extend(check_part(part, format!("{place}.content[{number}]"), images)?);
                }
            }
            other => {
                let found = describe(&other);
                return Err(refuse(format!(
                    "`content` of {place} must be a string or an array of parts, found {found}"
                )));
            }
        }
    }
    match (0..images).find(|index| !order.contains(index)) {
        Some(index) => Err(refuse(format!("image {index} is in no message; {images} came with the request"))),
        None => Ok(order),
    }
}

fn check_part(part: Value, place: String, images: usize) -> Result<Option<usize>> {
    let mut fields = Fields::new(part, place.as_str(), &["type", "text", "index"])?;
    let (text, index) = (fields.take::<String>("text")?, fields.take::<usize>("index")?);
    match (fields.need::<String>("type")?.as_str(), text, index) {
        ("text", Some(_), None) => Ok(None),
        ("image", None, Some(index)) if index < images => Ok(Some(index)),
        ("image", None, Some(index)) => {
            Err(refuse(format!("`index` of {place} is {index}, but {images} images came with the request")))
        }
        ("text", ..) => Err(refuse(format!("{place} is a text, so it has `text` and nothing else"))),
        ("image", ..) => Err(refuse(format!("{place} is an image, so it has `index` and nothing else"))),
        (other, ..) => Err(Error::Option {
            reason: format!("`type` of {place} is `{other}`; known are text, image"),
            suggestion: nearest(other, &["text", "image"]),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        assert_eq!(read.source.order, [1, 0, 1]);
        assert_eq!(read.max_tokens, Some(7));
        assert!(read.ignore_eos);
    }

    #[test]
    fn a_raw_prompt_takes_all_images_in_order() {
        let request = json!({ "op": "score", "prompt": "<image><image>", "answer": "a" }).to_string();
        let Ok(Request::Model(read)) = Request::parse(&request, 2) else { panic!() };
        let ModelRequest::Score(read) = *read else { panic!() };
        assert_eq!(read.source.order, [0, 1]);
    }

    #[test]
    fn unknown_names_are_refused_with_a_suggestion() {
        let unknown = |request| refused(request, 0).1;
        assert_eq!(unknown(json!({ "op": "generate", "prompt": "a", "max_tokens": 1 })).unwrap(), "maxTokens");
        assert_eq!(unknown(json!({ "op": "generat", "prompt": "a" })).unwrap(), "generate");
        assert_eq!(unknown(json!({ "op": "score", "prompt": "a", "anwser": "b" })).unwrap(), "answer");
        let part = json!([{ "role": "user", "content": [{ "type": "txt", "text": "a" }] }]);
        assert_eq!(unknown(json!({ "op": "generate", "messages": part })).unwrap(), "text");
        assert_eq!(
            unknown(json!({ "op": "generate", "messages": [{ "rol": "user", "content": "" }] })).unwrap(),
            "role"
        );
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
    fn sessions_belong_to_turns_and_closings_only() {
        let session = "0123456789abcdef0123456789abcdef";
        let turn = |fields: Value| {
            let mut request =
                json!({ "op": "turn", "session": session, "messages": [{ "role": "user", "content": "a" }] });
            fields.as_object().unwrap().iter().for_each(|(name, value)| request[name] = value.clone());
            request
        };
        let read = |request: Value| Request::parse(&request.to_string(), 0);
        assert!(read(turn(json!({ "maxTokens": 3 }))).is_ok());
        assert!(read(json!({ "op": "close-session", "session": session })).is_ok());
        for op in ["generate", "trace", "score", "profile", "open-session", "tokenize", "detokenize"] {
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
        assert_eq!((read.threads, read.batch), (Some(2), 1));
        assert_eq!(LoadRequest::parse(r#"{"source":"/m","batch":256}"#).unwrap().batch, 256);
        assert!(!read.close_with_thread);
        assert!(LoadRequest::parse(r#"{"source":"/m","closeWithThread":true}"#).unwrap().close_with_thread);
        let limited = LoadRequest::parse(r#"{"source":"/m","cacheLimit":"1.5GiB"}"#).unwrap();
        assert_eq!(limited.options.cache_limit, Some(3 << 29));
        let refused = |json: &str| LoadRequest::parse(json).unwrap_err().to_string();
        assert!(refused(r#"{"source":"m"}"#).contains("absolute"));
        assert!(refused("{}").contains("needs `source`"));
        assert!(refused(r#"{"source":"/m","weights":"q9"}"#).contains("`weights` of load"));
        assert!(refused(r#"{"source":"/m","threads":0}"#).contains("from 1 to 1024"));
        assert!(refused(r#"{"source":"/m","batch":0}"#).contains("from 1 to 256"));
        assert!(refused(r#"{"source":"/m","batch":257}"#).contains("found 257"));
        assert!(refused(r#"{"source":"/m","batch":1.5}"#).contains("`batch` of load"));
        assert!(refused(r#"{"source":"/m","weigths":"f32"}"#).contains("did you mean `weights`"));
        assert!(LoadRequest::parse(r#"{"source":"/m","device":"gpu"}"#).is_err());
    }
}
