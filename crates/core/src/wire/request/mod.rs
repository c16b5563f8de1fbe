//! Requests, checked as far as they can be without a model: a request that is refused here never queues.
//!
//! Each operation is one entry of the table below, with its text and the groups of fields that it takes; the list of operations, the
//! known fields, the reader, the TypeScript types and the JSON schema follow from it.

mod load;
mod messages;
mod parts;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::distinct::Distinct;
use super::media::Medium;
use super::session_id::SessionId;
use crate::error::{Error, Result};
use crate::fields::{Fields, Parts, Unread, describe, nearest, refuse};
use crate::method::Method;
use crate::method::bits::Pair;
use crate::method::codebooks::MOST_APART;
use crate::method::external::PlanReply;
use crate::method::heads::HeadMeasure;
use crate::method::latent::{DirectionsHeads, DirectionsInit, DirectionsSpan};
use crate::method::store::Quantiser;
use crate::model::Asked;
use crate::sample::SamplerOptions;
use crate::text::{Message, SpecialTokens, StopStrings};
use messages::{Shown, check_messages, require_few};
use parts::{
    AnswerFields, AnsweredSample, CacheFields, ChannelsFields, CodebooksFields, DetokenizeFields, DirectionsFields,
    DistancesFields, HeadsFields, LogprobOptions, PictureFields, PlanFields, PrefixFields, ProfileFields, PromptFields,
    QuestionFields, Sample, SampleFields, ScoreFields, SensitivityFields, SessionFields, SnapshotFields, Stages,
    StoppingOptions, TokenizeFields, Tool,
};
pub use parts::{DistanceVariant, MAX_FRAMES};

use load::absolute;
pub use load::{Batching, CheckRequest, DOORS, Door, LoadRequest};
pub(crate) use load::{InspectRequest, parse_inspect};

/// Longest request, in bytes of JSON: the largest calibration of a model of 7 billion parameters, with room for a prompt. Images do not
/// count; they cross as bytes.
pub const MAX_JSON: usize = 32 << 20;
/// Most images and videos of one request.
pub const MAX_IMAGES: usize = 64;
/// Most pictures that come with one request: images, and frames of videos.
pub const MAX_PICTURES: usize = MAX_IMAGES + MAX_FRAMES;
/// Most requests that a model may decode together.
pub const MAX_BATCH: usize = 256;
/// Most tokens that a request may ask for.
pub const MAX_TOKENS: usize = 1_000_000;
/// Most sizes that one profile may ask for.
pub const MAX_KEEPS: usize = 1024;
/// Most tools of one request.
const MAX_TOOLS: usize = 128;
/// Most likeliest tokens that are reported in the place of one.
const MAX_LOGPROBS: usize = 20;
/// Most last positions whose queries one request may keep.
const MAX_QUERIES: usize = 512;
/// Most pairs of bits that one request may try: all that there are.
const MAX_PAIRS: usize = 16;

/// The requests that an engine takes.
#[derive(Debug)]
pub enum Request {
    /// Needs the model, so it waits in the queue.
    Model(Box<ModelRequest>),
    /// Needs the tokenizer or the image processor only.
    Text(TextRequest),
    /// Answers a request that runs.
    Plan { view: SessionId, plan: PlanReply },
}

/// A request for the model.
#[derive(Debug)]
pub enum ModelRequest {
    Generate(GenerateRequest),
    Score(ScoreRequest),
    Profile(ProfileRequest),
    Distances(DistancesRequest),
    Similarity(SimilarityRequest),
    Sensitivity(SensitivityRequest),
    Channels(ChannelsRequest),
    Codebooks(CodebooksRequest),
    Directions(DirectionsRequest),
    Heads(HeadsRequest),
    /// A generation that also says what the cache held and why.
    Trace(GenerateRequest),
    /// Starts a conversation that keeps its cache from turn to turn.
    OpenSession(Option<Arc<Method>>),
    /// Starts a conversation that goes on from where another is, and shares what that has in its cache.
    ForkSession(SessionId),
    CloseSession(SessionId),
    /// Reads a prompt that questions are to be asked about.
    Prefill(PrefillRequest),
    /// Asks about a prefix.
    Ask(AskRequest),
    SavePrefix {
        prefix: SessionId,
        path: PathBuf,
    },
    RestorePrefix(PathBuf),
    ClosePrefix(SessionId),
    /// Asks what the device of the model counts.
    Memory,
}

/// A request for the tokenizer, or for the image processor.
#[derive(Debug)]
pub enum TextRequest {
    Tokenize { text: String, special: bool },
    Detokenize { tokens: Vec<u32>, skip_special: bool },
    ImageTokens(Asked),
}

/// The input of the model.
#[derive(Debug)]
pub struct Source {
    pub text: SourceText,
    /// The treatment of special tokens that messages spell.
    pub special: SpecialTokens,
    /// The images and videos in the order of their placeholders.
    pub order: Vec<Medium>,
    /// The tools that the messages go with.
    pub tools: Vec<Value>,
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
    /// The method that makes the cache small; None is the plain cache.
    pub method: Option<Arc<Method>>,
    /// The method as it was asked for.
    pub cache: Option<Value>,
    /// The conversation that the messages continue; its method is the one that it was opened with.
    pub session: Option<SessionId>,
    pub max_tokens: Option<usize>,
    pub sampler: SamplerOptions,
    pub stop: StopStrings,
    /// Goes on after an end-of-sequence token, as benchmarks need.
    pub ignore_eos: bool,
    /// How many of the likeliest tokens are reported beside each token and its probability; None reports neither.
    pub logprobs: Option<usize>,
}

/// A prompt that questions are asked about.
#[derive(Debug)]
pub struct PrefillRequest {
    pub source: Source,
    pub method: Option<Arc<Method>>,
    /// The method as it was asked for.
    pub cache: Option<Value>,
}

/// A question about a prefix.
#[derive(Debug)]
pub struct AskRequest {
    pub prefix: SessionId,
    /// The text behind the prefix.
    pub text: String,
    pub max_tokens: Option<usize>,
    pub sampler: SamplerOptions,
    pub stop: StopStrings,
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
    /// Whether to compare every distribution with the full cache's.
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

/// Layers whose keys and values are compared.
#[derive(Debug)]
pub struct DistancesRequest {
    /// The prompts, each with its images among those of the request.
    pub sources: Vec<(Source, Range<usize>)>,
    pub variant: DistanceVariant,
}

/// Keys and values that codebooks are found from.
#[derive(Debug)]
pub struct CodebooksRequest {
    /// The prompts, each with its images among those of the request.
    pub sources: Vec<(Source, Range<usize>)>,
    /// 2 or 4.
    pub bits: u32,
    /// The share of the numbers of a row that lie apart.
    pub outliers: f64,
}

/// Keys and values, or what they are made from, that directions are found from.
#[derive(Debug)]
pub struct DirectionsRequest {
    /// The prompts, each with its images among those of the request.
    pub sources: Vec<(Source, Range<usize>)>,
    pub init: DirectionsInit,
    /// From 0 to 4.
    pub alpha: f64,
    pub heads: DirectionsHeads,
    pub span: DirectionsSpan,
    /// The share of all directions, above 0 and at most 1.
    pub most: f64,
}

/// A prompt whose last hidden states are compared.
#[derive(Debug)]
pub struct SimilarityRequest {
    pub source: Source,
    pub method: Arc<Method>,
}

/// A prompt with which layers are tried in few bits.
#[derive(Debug)]
pub struct SensitivityRequest {
    pub source: Source,
    pub quantiser: Quantiser,
    /// The most recent entries that stay whole.
    pub window: usize,
    pub pairs: Vec<Pair>,
}

/// Channels that are put in order.
#[derive(Debug)]
pub struct ChannelsRequest {
    /// The prompts, each with its images among those of the request.
    pub sources: Vec<(Source, Range<usize>)>,
    /// Channels that share a scale.
    pub group: usize,
    /// First positions of a prompt that are left out.
    pub sinks: usize,
}

/// Attention heads that are scored.
#[derive(Debug)]
pub struct HeadsRequest {
    pub sources: Vec<HeadsSource>,
    pub measure: HeadMeasure,
    /// Last positions of each prompt, with its answer, that are looked at.
    pub queries: usize,
}

/// A prompt that heads are watched on.
#[derive(Debug)]
pub struct HeadsSource {
    pub source: Source,
    /// Its images among those of the request.
    pub images: Range<usize>,
    pub answer: Option<String>,
}

/// An operation of an engine.
#[derive(Debug)]
pub struct Op {
    pub name: &'static str,
    /// The lines of its documentation.
    pub docs: &'static [&'static str],
    /// The names of the structs that its fields are declared in.
    pub parts: &'static [&'static str],
    /// Whether images may come with it.
    pub images: bool,
    /// The names of its fields, `op` aside.
    pub fields: fn() -> Vec<&'static str>,
    read: fn(Value, usize) -> Result<Request>,
}

macro_rules! ops {
    ($($(#[doc = $doc:literal])* $name:literal ($($part:ident),*) $(with $images:ident)? => $read:expr;)*) => {
        /// Every operation.
        pub const OPS: &[Op] = &[$(Op {
            name: $name,
            docs: &[$($doc),*],
            parts: &[$(stringify!($part)),*],
            images: ["", $(stringify!($images))?].len() > 1,
            fields: <($($part,)*) as Parts>::names,
            read: |value, images| read::<($($part,)*)>(value, $name, images, $read),
        }),*];
    };
}

ops! {
    /// Continues a prompt; `prompt` and `token` events, then `done`.
    "generate" (PromptFields, CacheFields, StoppingOptions, SamplerOptions, LogprobOptions) with images =>
        |(prompt, cache, stopping, sampler, LogprobOptions { logprobs }), ask| {
            let source = source(prompt, ask)?;
            let logprobs = logprobs.map(|most| most.0);
            let request = generate(source, asked(cache)?, stopping, sampler)?;
            Ok(model(ModelRequest::Generate(GenerateRequest { logprobs, ..request })))
        };
    /// Says how likely the model finds an answer; ends with `scored`.
    "score" (PromptFields, CacheFields, ScoreFields) with images =>
        |(prompt, cache, fields), ask| score(source(prompt, ask)?, method(cache)?, fields).map(ModelRequest::Score).map(model);
    /// Asks for the retained share per layer that a prompt leads to, for several sizes; evicts nothing. Ends with `profiled`.
    "profile" (PromptFields, CacheFields, ProfileFields) with images =>
        |(prompt, cache, fields), ask| {
            profile(source(prompt, ask)?, method(cache)?, fields).map(ModelRequest::Profile).map(model)
        };
    /// Asks how far apart the keys and values of layers are, averaged over prompts; ends with `distances`.
    "distances" (DistancesFields) with images =>
        |(DistancesFields { prompts, variant },), ask| {
            Ok(model(ModelRequest::Distances(DistancesRequest { sources: sources(prompts, ask)?, variant })))
        };
    /// Asks how much a method, such as layers that share, leaves of a prompt's last hidden states; ends with `similarity`.
    "similarity" (PromptFields, CacheFields) with images =>
        |(prompt, cache), ask| {
            let method = method(cache)?.ok_or_else(|| refuse("similarity needs `cache` with layers that share"))?;
            Ok(model(ModelRequest::Similarity(SimilarityRequest { source: source(prompt, ask)?, method })))
        };
    /// Asks how far the results of each layer's attention are off when its keys and values are stored in few bits; `cache` is a store whose
    /// bits can be chosen, and says all but these. Ends with `sensitivity`.
    "sensitivity" (PromptFields, CacheFields, SensitivityFields) with images =>
        |(prompt, cache, fields), ask| {
            sensitivity(source(prompt, ask)?, method(cache)?, fields).map(ModelRequest::Sensitivity).map(model)
        };
    /// Asks for an order of the channels of every head in which alike ones share a scale, and for the clips with the least errors, over
    /// prompts; ends with `channels`.
    "channels" (ChannelsFields) with images =>
        |(ChannelsFields { prompts, group, sinks },), ask| {
            let sources = sources(prompts, ask)?;
            Ok(model(ModelRequest::Channels(ChannelsRequest { sources, group: group.0, sinks: sinks.0 })))
        };
    /// Finds levels of codes and ranges of channels for keys and values from prompts; ends with `codebooks`.
    "codebooks" (CodebooksFields) with images => |(fields,), ask| codebooks(fields, ask).map(ModelRequest::Codebooks).map(model);
    /// Finds directions along which keys, before their rotary embedding, and values can be stored as fewer numbers; ends with `directions`.
    "directions" (DirectionsFields) with images =>
        |(fields,), ask| directions(fields, ask).map(ModelRequest::Directions).map(model);
    /// Asks how much each attention head looks at images, or at earlier text that says what comes next, over prompts; ends with `heads`.
    "heads" (HeadsFields) with images => |(fields,), ask| heads(fields, ask).map(ModelRequest::Heads).map(model);
    /// A generation outside of a session that also says what the cache held; ends with `traced`.
    "trace" (PromptFields, CacheFields, StoppingOptions, SamplerOptions) with images =>
        |(prompt, cache, stopping, sampler), ask| {
            let source = source(prompt, ask)?;
            generate(source, asked(cache)?, stopping, sampler).map(ModelRequest::Trace).map(model)
        };
    /// Starts a conversation that keeps its cache from turn to turn; ends with `session`, which has the name of the conversation. Whoever
    /// knows the name may read, continue and close it.
    "open-session" (CacheFields) => |(cache,), _| Ok(model(ModelRequest::OpenSession(method(cache)?)));
    /// A turn of a conversation, in `messages`; its cache is the session's. `prompt` and `token` events, then `done`.
    "turn" (SessionFields, PromptFields, StoppingOptions, SamplerOptions, LogprobOptions) with images =>
        |(session, prompt, stopping, sampler, logprobs), ask| {
            turn(session, source(prompt, ask)?, stopping, sampler, logprobs)
        };
    /// Starts a conversation that goes on from where another is, and shares its cache until one of the two changes it; ends with `session`,
    /// which has the name of the new one.
    "fork-session" (SessionFields) => |(fields,), _| Ok(model(ModelRequest::ForkSession(fields.session)));
    /// Ends a conversation and frees its cache; ends with `session`.
    "close-session" (SessionFields) => |(fields,), _| Ok(model(ModelRequest::CloseSession(fields.session)));
    /// Reads a prompt about which questions are to be asked, one after the other or together, without reading it again: `prompt`, then
    /// `prefilled`, which has the name of the prefix.
    "prefill" (PromptFields, CacheFields) with images => |(prompt, cache), ask| {
        let source = source(prompt, ask)?;
        let (method, cache) = asked(cache)?;
        Ok(model(ModelRequest::Prefill(PrefillRequest { source, method, cache })))
    };
    /// Asks a question about a prefix, which stays as it is; `prompt` and `token` events, then `done`.
    "ask" (PrefixFields, QuestionFields, StoppingOptions, SamplerOptions) =>
        |(PrefixFields { prefix }, QuestionFields { question }, stopping, sampler), _| {
            sampler.validate()?;
            let StoppingOptions { max_tokens, stop, ignore_eos } = stopping;
            let (max_tokens, stop) = (max_tokens.map(|tokens| tokens.0), StopStrings::new(stop)?);
            Ok(model(ModelRequest::Ask(AskRequest { prefix, text: question, max_tokens, sampler, stop, ignore_eos })))
        };
    /// Writes a prefix to a file, in the place of what is there; ends with `saved`.
    "save-prefix" (PrefixFields, SnapshotFields) => |(PrefixFields { prefix }, SnapshotFields { path }), _| {
        Ok(model(ModelRequest::SavePrefix { prefix, path: absolute("path", path)? }))
    };
    /// Opens a prefix that the same model has saved; ends with `prefilled`.
    "restore-prefix" (SnapshotFields) =>
        |(SnapshotFields { path },), _| Ok(model(ModelRequest::RestorePrefix(absolute("path", path)?)));
    /// Ends a prefix and frees its cache; ends with `forgotten`. Questions that run go on.
    "close-prefix" (PrefixFields) => |(fields,), _| Ok(model(ModelRequest::ClosePrefix(fields.prefix)));
    /// Answers a `view` with a plan; ends with `planned`. A fault of the plan is the error of the request that waits for it.
    "plan" (PlanFields) => |(PlanFields { view, lanes },), _| Ok(Request::Plan { view, plan: PlanReply { lanes } });
    /// Asks what the device of the model counts of its memory; ends with `memory`.
    "memory" () => |(), _| Ok(model(ModelRequest::Memory));
    /// Asks for the tokens of a text; ends with `tokens`.
    "tokenize" (TokenizeFields) => |(TokenizeFields { text, add_special_tokens },), _| {
        Ok(Request::Text(TextRequest::Tokenize { text, special: add_special_tokens.unwrap_or(true) }))
    };
    /// Asks how many positions a picture or a video takes; ends with `pieces`.
    "image-tokens" (PictureFields) => |(picture,), _| Ok(Request::Text(TextRequest::ImageTokens(picture.asked()?)));
    /// Asks for the text of tokens; ends with `text`.
    "detokenize" (DetokenizeFields) => |(DetokenizeFields { tokens, skip_special_tokens },), _| {
        Ok(Request::Text(TextRequest::Detokenize { tokens, skip_special: skip_special_tokens }))
    };
}

/// A request whose fields are read.
#[derive(Clone, Copy)]
struct Ask {
    op: &'static str,
    images: usize,
}

fn read<P: Parts>(
    value: Value,
    op: &'static str,
    images: usize,
    read: impl FnOnce(P, Ask) -> Result<Request>,
) -> Result<Request> {
    read(Fields::parts(value, op, &["op"])?, Ask { op, images })
}

impl Request {
    /// Reads a request that comes with `images` images.
    pub fn parse(json: &str, images: usize) -> Result<Request> {
        if images > MAX_PICTURES {
            return Err(refuse(format!("at most {MAX_PICTURES} images and frames per request, found {images}")));
        }
        let value = parse(json)?;
        let names: Vec<&str> = OPS.iter().map(|op| op.name).collect();
        let name = match value.get("op") {
            Some(Value::String(name)) => name,
            Some(other) => return Err(refuse(format!("`op` must be a string, found {}", describe(other)))),
            None => return Err(refuse(format!("a request needs `op`, one of {}", names.join(", ")))),
        };
        let Some(op) = OPS.iter().find(|op| op.name == name) else {
            return Err(Error::Option {
                reason: format!("unknown op `{name}`; known are {}", names.join(", ")),
                suggestion: nearest(name, &names),
            });
        };
        if images > 0 && !op.images {
            return Err(refuse(format!("{name} takes no images, found {images}")));
        }
        (op.read)(value, images)
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

fn generate(
    source: Source,
    (method, cache): (Option<Arc<Method>>, Option<Value>),
    StoppingOptions { max_tokens, stop, ignore_eos }: StoppingOptions,
    sampler: SamplerOptions,
) -> Result<GenerateRequest> {
    sampler.validate()?;
    let max_tokens = max_tokens.map(|tokens| tokens.0);
    Ok(GenerateRequest {
        source,
        method,
        cache,
        session: None,
        max_tokens,
        sampler,
        stop: StopStrings::new(stop)?,
        ignore_eos,
        logprobs: None,
    })
}

fn turn(
    SessionFields { session }: SessionFields,
    source: Source,
    stopping: StoppingOptions,
    sampler: SamplerOptions,
    LogprobOptions { logprobs }: LogprobOptions,
) -> Result<Request> {
    if matches!(source.text, SourceText::Raw(_)) {
        return Err(refuse("a turn of a session has `messages`, not a raw `prompt`"));
    }
    let request = generate(source, (None, None), stopping, sampler)?;
    Ok(model(ModelRequest::Generate(GenerateRequest {
        session: Some(session),
        logprobs: logprobs.map(|most| most.0),
        ..request
    })))
}

fn score(
    source: Source,
    method: Option<Arc<Method>>,
    ScoreFields { answer, kept, kl }: ScoreFields,
) -> Result<ScoreRequest> {
    if answer.is_empty() {
        return Err(refuse("`answer` of score is empty; there is nothing to score"));
    }
    Ok(ScoreRequest { source, method, answer, kept, kl })
}

fn profile(
    source: Source,
    method: Option<Arc<Method>>,
    ProfileFields { keeps }: ProfileFields,
) -> Result<ProfileRequest> {
    let method = method.ok_or_else(|| refuse("profile needs `cache` with a method that has sizes"))?;
    if keeps.is_empty() || keeps.len() > MAX_KEEPS || keeps.iter().any(|keep| !(*keep > 0.0 && *keep <= 1.0)) {
        return Err(refuse(format!("`keeps` of profile must be 1 to {MAX_KEEPS} shares above 0 and at most 1")));
    }
    Ok(ProfileRequest { source, method, keeps })
}

fn sensitivity(
    source: Source,
    method: Option<Arc<Method>>,
    SensitivityFields { pairs }: SensitivityFields,
) -> Result<SensitivityRequest> {
    let store = method.as_ref().and_then(|method| method.store()?.quantiser());
    let (quantiser, window) = store
        .ok_or_else(|| refuse("sensitivity needs `cache` with a store whose bits can be chosen, such as kvtuner"))?;
    let found: Option<Vec<Pair>> = pairs.iter().copied().map(Pair::new).collect();
    match found {
        Some(pairs) if !pairs.is_empty() && pairs.len() <= MAX_PAIRS => {
            Ok(SensitivityRequest { source, quantiser, window, pairs })
        }
        _ => Err(refuse(format!(
            "`pairs` of sensitivity must be 1 to {MAX_PAIRS} bits of keys and of values, each 2, 4, 8 or 16, such as [8, 4]"
        ))),
    }
}

fn codebooks(CodebooksFields { prompts, bits, outliers }: CodebooksFields, ask: Ask) -> Result<CodebooksRequest> {
    if bits != 2 && bits != 4 {
        return Err(refuse(format!("`bits` of {} must be 2 or 4, found {bits}", ask.op)));
    }
    if !(0.0..=MOST_APART).contains(&outliers) {
        return Err(refuse(format!(
            "`outliers` of {} must be a share from 0 to {MOST_APART}, found {outliers}",
            ask.op
        )));
    }
    Ok(CodebooksRequest { sources: sources(prompts, ask)?, bits, outliers })
}

fn directions(fields: DirectionsFields, ask: Ask) -> Result<DirectionsRequest> {
    let DirectionsFields { prompts, init, alpha, heads, span, most } = fields;
    if span == DirectionsSpan::Pair && init != DirectionsInit::Covariance {
        return Err(refuse(format!(
            "directions of two layers are those in which their keys and values lie: `span: \"pair\"` of {} goes with `init: \"covariance\"`",
            ask.op
        )));
    }
    if !(0.0..=4.0).contains(&alpha) {
        return Err(refuse(format!("`alpha` of {} must be a number from 0 to 4, found {alpha}", ask.op)));
    }
    if !(most > 0.0 && most <= 1.0) {
        return Err(refuse(format!("`most` of {} must be a share above 0 and at most 1, found {most}", ask.op)));
    }
    Ok(DirectionsRequest { sources: sources(prompts, ask)?, init, alpha, heads, span, most })
}

fn heads(HeadsFields { prompts, measure, queries }: HeadsFields, ask: Ask) -> Result<HeadsRequest> {
    let read = |prompt, place: &str| {
        let (prompt, images, answer) = Fields::parts::<(PromptFields, SampleFields, AnswerFields)>(prompt, place, &[])?;
        let AnsweredSample { prompt, images, answer } = AnsweredSample { prompt, images, answer };
        if answer.answer.as_ref().is_some_and(String::is_empty) {
            return Err(refuse(format!("`answer` of {place} is empty; leave it out")));
        }
        Ok((prompt, images, answer.answer))
    };
    let of = |(source, images, answer)| HeadsSource { source, images, answer };
    let sources = each(prompts.0, ask, read)?.into_iter().map(of).collect();
    Ok(HeadsRequest { sources, measure, queries: queries.0 })
}

/// The prompts of a request, each with its own of the request's images.
fn sources(prompts: Unread<Vec<Sample>>, ask: Ask) -> Result<Vec<(Source, Range<usize>)>> {
    let read = |prompt, place: &str| {
        let (prompt, images) = Fields::parts::<(PromptFields, SampleFields)>(prompt, place, &[])?;
        let Sample { prompt, images } = Sample { prompt, images };
        Ok((prompt, images, ()))
    };
    Ok(each(prompts.0, ask, read)?.into_iter().map(|(source, images, ())| (source, images)).collect())
}

/// The prompts of a request, each with its own of the request's images and what else `read` finds.
fn each<T>(
    prompts: Value,
    Ask { op, images }: Ask,
    read: impl Fn(Value, &str) -> Result<(PromptFields, SampleFields, T)>,
) -> Result<Vec<(Source, Range<usize>, T)>> {
    let Value::Array(prompts) = prompts else {
        return Err(refuse(format!("`prompts` of {op} must be an array, found {}", describe(&prompts))));
    };
    if prompts.is_empty() {
        return Err(refuse(format!("`prompts` of {op} is empty")));
    }
    let (mut sources, mut next) = (Vec::with_capacity(prompts.len()), 0);
    let (mut media, mut frames) = (0, 0);
    for (number, prompt) in prompts.into_iter().enumerate() {
        let place = format!("prompts[{number}]");
        let (prompt, SampleFields { images: own }, more) = read(prompt, &place)?;
        if own > images - next {
            return Err(refuse(format!(
                "`images` of {place} is {own}, and {} of the request's {images} images are left for it",
                images - next
            )));
        }
        media += prompt.videos.len();
        frames += prompt.videos.iter().map(|video| video.frames.0).sum::<usize>();
        let source = source(prompt, Ask { op, images: own })?;
        next += own;
        // All but the frames are images.
        require_few((next + media).saturating_sub(frames), frames)?;
        sources.push((source, next - own..next, more));
    }
    if next < images {
        return Err(refuse(format!("the prompts of {op} have {next} images, and {images} came with the request")));
    }
    Ok(sources)
}

/// The method of a request, and how it was asked for.
fn asked(CacheFields { cache }: CacheFields) -> Result<(Option<Arc<Method>>, Option<Value>)> {
    let Some(cache) = cache.map(Stages::value) else { return Ok((None, None)) };
    Ok((Method::parse(&cache)?, Some(cache)))
}

fn method(CacheFields { cache }: CacheFields) -> Result<Option<Arc<Method>>> {
    Ok(asked(CacheFields { cache })?.0)
}

fn source(fields: PromptFields, Ask { op, images }: Ask) -> Result<Source> {
    let PromptFields { messages, special_tokens, prompt, videos, tools } = fields;
    let tools = tools.into_iter().map(|Tool(tool)| tool).collect::<Vec<_>>();
    require_tools(&tools, op, messages.is_some())?;
    let shown = Shown::new(images, videos)?;
    if special_tokens.is_some() && prompt.is_some() {
        return Err(refuse("`specialTokens` is about `messages`; a raw `prompt` is written with its special tokens"));
    }
    let special = special_tokens.unwrap_or_default();
    match (messages, prompt) {
        (Some(_), Some(_)) => Err(refuse(format!("{op} takes `messages` or `prompt`, found both"))),
        (None, None) => Err(refuse(format!("{op} needs `messages` or `prompt`"))),
        (None, Some(text)) if text.is_empty() => Err(refuse("`prompt` is empty")),
        (None, Some(text)) => Ok(Source { text: SourceText::Raw(text), special, order: shown.media(), tools }),
        (Some(messages), None) => {
            let order = check_messages(&messages.0, &shown)?;
            let messages: Vec<Message> =
                serde_json::from_value(messages.0).map_err(|error| refuse(format!("`messages` of {op}: {error}")))?;
            if op != "generate" && messages.iter().any(|message| !message.tool_calls.is_empty()) {
                return Err(refuse(format!("messages with `toolCalls` are for generate, not for {op}")));
            }
            Ok(Source { text: SourceText::Messages(messages), special, order, tools })
        }
    }
}

/// Refuses tools that are none, or are where none can be.
fn require_tools(tools: &[Value], op: &str, messages: bool) -> Result<()> {
    if !tools.is_empty() && (op != "generate" || !messages) {
        return Err(refuse(format!("`tools` go with the `messages` of generate, not with {op}")));
    }
    if tools.len() > MAX_TOOLS {
        return Err(refuse(format!("a request may have {MAX_TOOLS} tools, found {}", tools.len())));
    }
    for (number, tool) in tools.iter().enumerate() {
        if tool["type"] != "function" || tool["function"]["name"].as_str().is_none_or(str::is_empty) {
            let form = "{ type: \"function\", function: { name, description, parameters } }";
            return Err(refuse(format!("`tools[{number}]` must be {form}, found {}", describe(tool))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
