//! The fields of requests, in the groups that requests share. Their docs are those of the options in every language.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{MAX_BATCH, MAX_LOGPROBS, MAX_QUERIES, MAX_TOKENS};
use crate::device::Device;
use crate::error::Result;
use crate::fields::{Unread, Whole, refuse};
use crate::media::Timing;
use crate::method::external::LaneReply;
use crate::method::heads::HeadMeasure;
use crate::method::latent::{DirectionsHeads, DirectionsInit, DirectionsSpan};
use crate::model::Asked;
use crate::text::{Message, SpecialTokens};
use crate::units::ByteSize;
use crate::weights::WeightFormat;
use crate::wire::SessionId;

/// Most frames of the videos of one request.
pub const MAX_FRAMES: usize = 768;
const _: () = assert!(MAX_FRAMES == crate::media::MOST_FRAMES);
/// Most pixels along a side of a picture.
const MAX_PICTURE: usize = 32_768;
const _: () = assert!(MAX_PICTURE == crate::media::MAX_SIDE as usize);
/// Most threads that a load may ask for.
const MAX_THREADS: usize = 1024;

/// The text to read: `messages`, put through the chat template, or a raw `prompt`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PromptFields {
    /// A conversation, for the model's chat template. Every image that comes with the request is in one of its messages, by itself or as a frame of a video.
    pub(crate) messages: Option<Unread<Vec<Message>>>,
    /// How special tokens such as `</s>` spelled in the texts of `messages` are treated.
    ///
    /// `"parse"`, the way of transformers, makes them the tokens; `"text"` reads them as plain text, so that what users write cannot end a
    /// turn or begin one.
    /// A raw prompt is written with its special tokens.
    ///
    /// Default: `"parse"`.
    pub(crate) special_tokens: Option<SpecialTokens>,
    /// Tools that the model may call, as OpenAI writes them; `generate` takes them, with `messages`.
    ///
    /// The chat template must know tools, and write calls as Hermes and Qwen do: `<tool_call>` around a JSON object with `name` and
    /// `arguments`. So does the answer, which is text: reading it is the caller's part.
    ///
    /// Default: none.
    #[serde(default)]
    pub(crate) tools: Vec<Tool>,
    /// A raw prompt instead, with one image placeholder (`<image>`) per image, and the model's video placeholder per video.
    pub(crate) prompt: Option<String>,
    /// The videos of the prompt, in the order of their frames.
    ///
    /// Images that are frames of a video are no images of the prompt by themselves. A raw prompt has the video placeholder of the model for each.
    ///
    /// Default: none.
    #[serde(default)]
    pub(crate) videos: Vec<VideoFields>,
}

/// A tool as OpenAI writes it.
///
/// ```json
/// { "type": "object", "properties": { "type": { "const": "function" }, "function": { "type": "object" } }, "required": ["type", "function"] }
/// ```
///
/// ```typescript
/// { readonly type: "function"; readonly function: object }
/// ```
#[derive(Debug, Deserialize)]
#[serde(transparent, rename = "WireTool")]
pub(crate) struct Tool(pub(crate) Value);

/// A video whose frames are among the images that come with the request. All of them are seen: none is left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename = "WireVideo")]
pub(crate) struct VideoFields {
    /// The first of its frames, from 0 among the images of the prompt; the others follow it.
    pub(crate) first: usize,
    /// How many frames it has.
    pub(crate) frames: Whole<1, MAX_FRAMES>,
    /// Frames per second.
    ///
    /// Default: 24, unless `times` says when each is shown.
    pub(crate) fps: Option<f64>,
    /// When each frame is shown, in seconds: growing, one for each.
    pub(crate) times: Option<Vec<f64>>,
}

/// The method of the cache.
#[derive(Debug, Deserialize)]
pub(crate) struct CacheFields {
    /// The method that shrinks the cache; without one, every entry is kept.
    pub(crate) cache: Option<Stages>,
}

/// One method, or several as stages.
#[derive(Debug, Deserialize)]
#[serde(untagged, rename = "WireCache")]
pub(crate) enum Stages {
    Several(Vec<Stage>),
    One(Stage),
}

impl Stages {
    /// As JSON has it.
    pub(crate) fn value(self) -> Value {
        match self {
            Stages::One(Stage(stage)) => stage,
            Stages::Several(stages) => Value::Array(stages.into_iter().map(|Stage(stage)| stage).collect()),
        }
    }
}

/// A method of the cache with its options, calibrations included as objects.
///
/// ```json
/// { "type": "object", "properties": { "method": { "type": "string" } }, "required": ["method"], "additionalProperties": true }
/// ```
///
/// ```typescript
/// { readonly method: string; readonly [option: string]: unknown }
/// ```
#[derive(Debug, Deserialize)]
#[serde(transparent, rename = "WireMethod")]
pub(crate) struct Stage(pub(crate) Value);

/// When a generation ends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoppingOptions {
    /// The most tokens to generate.
    ///
    /// Default: 512, or what the model has room for.
    pub(crate) max_tokens: Option<Whole<1, MAX_TOKENS>>,
    /// Texts that end the generation.
    ///
    /// They are not part of the result.
    ///
    /// Default: none.
    #[serde(default)]
    pub(crate) stop: Vec<String>,
    /// Goes on after the model's end token.
    ///
    /// The answer then has `maxTokens` tokens, as benchmarks need.
    ///
    /// Default: false.
    #[serde(default)]
    pub(crate) ignore_eos: bool,
}

/// The report about the tokens of an answer.
#[derive(Debug, Deserialize)]
pub(crate) struct LogprobOptions {
    /// Also reports the log-probability of each token, and so many of the likeliest tokens in its place.
    ///
    /// They are the model's own, before any sampling option acts. From 0 to 20.
    ///
    /// Default: none.
    pub(crate) logprobs: Option<Whole<0, MAX_LOGPROBS>>,
}

/// The answer to score.
#[derive(Debug, Deserialize)]
pub(crate) struct ScoreFields {
    /// The text whose probability is asked for.
    pub(crate) answer: String,
    /// Also says which positions are kept after the prompt.
    #[serde(default)]
    pub(crate) kept: bool,
    /// Also reports each token's divergence from the full cache, which reads the answer alongside the method.
    ///
    /// It takes another prefill, as many steps and the memory of a full cache.
    #[serde(default)]
    pub(crate) kl: bool,
}

/// The sizes to profile.
#[derive(Debug, Deserialize)]
pub(crate) struct ProfileFields {
    /// Retained shares of the whole, above 0 and at most 1.
    pub(crate) keeps: Vec<f64>,
}

/// The layers to compare.
#[derive(Debug, Deserialize)]
pub(crate) struct DistancesFields {
    /// The prompts over which keys and values are averaged.
    pub(crate) prompts: Unread<Vec<Sample>>,
    /// How the distance of two layers is taken.
    ///
    /// Default: `"paper"`.
    #[serde(default)]
    pub(crate) variant: DistanceVariant,
}

/// The bits to try.
#[derive(Debug, Deserialize)]
pub(crate) struct SensitivityFields {
    /// Bits of keys and of values, each 2, 4, 8 or 16.
    pub(crate) pairs: Vec<[u8; 2]>,
}

/// The channels to put in order.
#[derive(Debug, Deserialize)]
pub(crate) struct ChannelsFields {
    /// The prompts over which ranges and errors are taken.
    pub(crate) prompts: Unread<Vec<Sample>>,
    /// Channels of a head that share a scale, as far as they divide a head.
    pub(crate) group: Whole<8, 128>,
    /// First positions of each prompt that are left out.
    pub(crate) sinks: Whole<0, MAX_TOKENS>,
}

/// The heads to score.
#[derive(Debug, Deserialize)]
pub(crate) struct HeadsFields {
    /// The prompts that the heads are watched on, each with an answer or without.
    pub(crate) prompts: Unread<Vec<AnsweredSample>>,
    /// How they are scored.
    ///
    /// Default: `"image-hits"`.
    #[serde(default)]
    pub(crate) measure: HeadMeasure,
    /// Last positions of each prompt, with its answer, that are looked at.
    pub(crate) queries: Whole<1, MAX_QUERIES>,
}

/// The codebooks to find.
#[derive(Debug, Deserialize)]
pub(crate) struct CodebooksFields {
    /// The prompts whose keys and values are looked at.
    pub(crate) prompts: Unread<Vec<Sample>>,
    /// Bits of a code: 2 or 4.
    pub(crate) bits: u32,
    /// The share of the numbers of a row that lie apart, from 0 to 0.25.
    pub(crate) outliers: f64,
}

/// The directions to find.
#[derive(Debug, Deserialize)]
pub(crate) struct DirectionsFields {
    /// The prompts whose keys and values are looked at.
    pub(crate) prompts: Unread<Vec<Sample>>,
    /// How they are found.
    pub(crate) init: DirectionsInit,
    /// The power of the mean magnitudes by which `init: "asvd"` scales the weights, from 0 to 4.
    pub(crate) alpha: f64,
    /// Whose directions.
    pub(crate) heads: DirectionsHeads,
    /// The rows that have directions together; those of two layers are found by `init: "covariance"`.
    ///
    /// Default: `"layer"`.
    #[serde(default)]
    pub(crate) span: DirectionsSpan,
    /// The share of all directions that is given, above 0 and at most 1; rounded up to a multiple of 8.
    pub(crate) most: f64,
}

/// A prompt among several of one request.
#[derive(Debug, Deserialize)]
pub(crate) struct Sample {
    #[serde(flatten)]
    pub(crate) prompt: PromptFields,
    #[serde(flatten)]
    pub(crate) images: SampleFields,
}

/// The images of a prompt among several.
#[derive(Debug, Deserialize)]
pub(crate) struct SampleFields {
    /// How many of the request's images are this prompt's, behind those of the prompts before it; its messages count them from 0.
    ///
    /// Default: 0.
    #[serde(default)]
    pub(crate) images: usize,
}

/// A prompt among several of one request, with an answer or without.
#[derive(Debug, Deserialize)]
pub(crate) struct AnsweredSample {
    #[serde(flatten)]
    pub(crate) prompt: PromptFields,
    #[serde(flatten)]
    pub(crate) images: SampleFields,
    #[serde(flatten)]
    pub(crate) answer: AnswerFields,
}

/// The answer of a prompt among several.
#[derive(Debug, Deserialize)]
pub(crate) struct AnswerFields {
    /// The text that follows the prompt, as `score` takes it.
    pub(crate) answer: Option<String>,
}

/// How the distance of the averaged keys of two layers, and of their values, is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DistanceVariant {
    /// Between all of a layer as one long vector.
    #[default]
    Paper,
    /// Between single heads at single positions, averaged, as in the published code of KVSharer.
    Official,
}

/// A conversation that is open.
#[derive(Debug, Deserialize)]
pub(crate) struct SessionFields {
    /// The name that `open-session` or `fork-session` has answered with.
    pub(crate) session: SessionId,
}

/// A prefix that is open.
#[derive(Debug, Deserialize)]
pub(crate) struct PrefixFields {
    /// The name that `prefill` or `restore-prefix` has answered with.
    pub(crate) prefix: SessionId,
}

/// A question about a prefix.
#[derive(Debug, Deserialize)]
pub(crate) struct QuestionFields {
    /// The text that follows the prefix: behind its last message if that is the user's, else as a message of the user, or behind its raw `prompt`.
    pub(crate) question: String,
}

/// The file of a snapshot.
#[derive(Debug, Deserialize)]
pub(crate) struct SnapshotFields {
    /// Its absolute path.
    pub(crate) path: PathBuf,
}

/// The plan of a method outside the engine.
#[derive(Debug, Deserialize)]
pub(crate) struct PlanFields {
    /// The `id` of the `view` that it answers.
    pub(crate) view: SessionId,
    /// The plans for the lanes of the view, in its order.
    pub(crate) lanes: Vec<LaneReply>,
}

/// A text for the tokenizer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenizeFields {
    /// The text.
    pub(crate) text: String,
    /// Whether the model's leading token comes first.
    ///
    /// Default: true.
    pub(crate) add_special_tokens: Option<bool>,
}

/// Tokens for the tokenizer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DetokenizeFields {
    /// Ids of tokens.
    pub(crate) tokens: Vec<u32>,
    /// Whether special tokens are left out of the text.
    ///
    /// Default: false.
    #[serde(default)]
    pub(crate) skip_special_tokens: bool,
}

/// The size of a picture.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PictureFields {
    /// Columns of the upright picture, in pixels.
    pub(crate) width: Whole<1, MAX_PICTURE>,
    /// Rows of the upright picture, in pixels.
    pub(crate) height: Whole<1, MAX_PICTURE>,
    /// The picture is each of so many frames of a video.
    ///
    /// Default: it is an image.
    pub(crate) frames: Option<Whole<1, MAX_FRAMES>>,
    /// Frames per second of the video.
    ///
    /// Default: 24, unless `times` says when each is shown.
    pub(crate) fps: Option<f64>,
    /// When each frame of the video is shown, in seconds.
    pub(crate) times: Option<Vec<f64>>,
}

impl PictureFields {
    /// Its width, its height, and the timing of a video.
    pub(crate) fn asked(self) -> Result<Asked> {
        let PictureFields { width, height, frames, fps, times } = self;
        let timing = match frames {
            Some(frames) => Some(Timing::new(frames.0, fps, times)?),
            None if fps.is_some() || times.is_some() => {
                return Err(refuse("`fps` and `times` are of a video: say also how many `frames` it has"));
            }
            None => None,
        };
        Ok(Asked { width: width.0, height: height.0, timing })
    }
}

/// A picture to count the positions of.
#[derive(Debug, Deserialize)]
pub(crate) struct AskedPicture {
    /// The size of a picture whose positions are to be counted.
    pub(crate) picture: Option<PictureFields>,
}

/// A folder with a model.
#[derive(Debug, Deserialize)]
pub(crate) struct SourceFields {
    /// An absolute path of a folder with config.json, of a GGUF file, or of a folder with one.
    pub(crate) source: PathBuf,
    /// The vision tower of a GGUF file, which llama.cpp keeps in a file of its own (mmproj): its absolute path, or false for none.
    ///
    /// Default: the only one of the file's folder, where that holds no other language model.
    pub(crate) vision: Option<TowerFile>,
}

/// The path of a file, or false for none.
///
/// ```json
/// { "anyOf": [{ "type": "string" }, { "const": false }] }
/// ```
///
/// ```typescript
/// string | false
/// ```
#[derive(Debug)]
pub(crate) struct TowerFile(pub(crate) Option<PathBuf>);

impl<'de> Deserialize<'de> for TowerFile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<TowerFile, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(false) => Ok(TowerFile(None)),
            Value::String(path) => Ok(TowerFile(Some(path.into()))),
            other => Err(serde::de::Error::custom(format!("must be the path of a file or false, found {other}"))),
        }
    }
}

/// The adapters that are merged into a model.
#[derive(Debug, Deserialize)]
pub(crate) struct AdapterFields {
    /// Absolute paths of folders with LoRA adapters in the format of PEFT, which are merged into the weights one after the other.
    ///
    /// Default: none.
    #[serde(default)]
    pub(crate) adapters: Vec<PathBuf>,
}

/// How a model is loaded.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EngineOptions {
    /// Where to compute: `cpu`, `cuda` or `cuda:N` for an NVIDIA GPU, or `auto` for the first GPU that can be used, else the CPU.
    ///
    /// Default: `auto`.
    pub(crate) device: Option<Device>,
    /// Hold the weights of the linear layers as `f32`, `f16`, `q8_0` or `q4_k`.
    ///
    /// Default: `f32`, or what a GGUF file has.
    pub(crate) weights: Option<WeightFormat>,
    /// Whether the blocks of a GGUF file are used where the file has them, mapped into memory, or read.
    ///
    /// A mapped file is there at once and shared by all processes that map it, but one that is cut while it is in use ends the process.
    /// False reads it, so that nothing which happens to the file afterwards matters.
    ///
    /// Default: true.
    pub(crate) map: Option<bool>,
    /// Threads of the whole process.
    ///
    /// Only the first load of a process can set them. Without it, `RAYON_NUM_THREADS` or the number of cores counts.
    ///
    /// Default: one per core.
    pub(crate) threads: Option<Whole<1, MAX_THREADS>>,
    /// Most requests that are decoded together.
    ///
    /// With 1 they are answered one after the other. With more, requests that wait start while others decode: a prompt is read
    /// between two steps of the others (a long one in pieces: `prefillChunk`), and a step reads the weights once for all. On the CPU with weights in f32 or f16, up to 32
    /// requests together get the bits of each alone; otherwise answers can differ in the last bits. Each request keeps a cache of its own,
    /// so memory grows with their number; `cacheLimit` holds for all together.
    ///
    /// Default: 1.
    pub(crate) batch: Option<Whole<1, MAX_BATCH>>,
    /// Most positions of a prompt that are read between two tokens of other requests, or 0 to read all prompts whole.
    ///
    /// With `batch`, a longer prompt that comes while others generate is read in pieces, so that these wait for one piece at a time. Nothing of it is
    /// evicted before the last piece: `memory.peak` is then the full cache's, and where `cacheLimit` has no room for that the prompt is
    /// read whole.
    ///
    /// Default: 512.
    pub(crate) prefill_chunk: Option<Whole<0, MAX_TOKENS>>,
    /// Most bytes that all key-value caches of the model take together, e.g. `2GiB`.
    ///
    /// A number, or a text such as `"2GiB"`. The caches of all requests and chats count. A prompt that would go past it is refused before any work, with an OutOfMemoryError; with `batch`, one that would fit once others
    /// have ended waits for that.
    ///
    /// Default: no limit.
    pub(crate) cache_limit: Option<ByteSize>,
    /// Most bytes of prompts' beginnings that are kept for later requests, e.g. `512MiB`.
    ///
    /// A prompt with pictures is then read in two parts, up to its last picture and from there on. The first part is kept for requests that begin with the
    /// same text and the same bytes of pictures and have the same `cache`; `usage.cachedTokens` says how many positions were not read again. It counts
    /// within `cacheLimit` and is the first to go when a request needs room. How soon an answer comes then tells whether somebody has asked about the
    /// same pictures before: leave it out where that is nobody's business.
    ///
    /// Default: none are kept.
    pub(crate) prefix_cache: Option<ByteSize>,
    /// Folds the Hadamard transform of values into the weights.
    ///
    /// Stores that keep values through such a transform (`akvqVl`; `int8`, `int4` and `int2` with `rotate`) then do nothing for values while they
    /// generate, and those that keep them without undo it. Answers stay as they are but for rounding, and calibrations fit. The heads of the
    /// model must be a power of two wide.
    ///
    /// Default: false.
    #[serde(default)]
    pub(crate) rotate_values: bool,
}

/// How an engine ends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnerFields {
    /// Closes the model when the calling thread ends: a terminated worker tells its objects nothing on some runtimes.
    #[serde(default)]
    pub(crate) close_with_thread: bool,
}

/// A device to check.
#[derive(Debug, Deserialize)]
pub(crate) struct CheckFields {
    /// The GPU, by its name.
    pub(crate) device: Device,
    /// Also measures what the device can do.
    ///
    /// Default: false.
    #[serde(default)]
    pub(crate) ceilings: bool,
    /// How many shapes are tried.
    ///
    /// Default: `"all"`.
    pub(crate) cases: Option<CheckCases>,
}

/// How thorough a check is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckCases {
    /// Every shape.
    All,
    /// A few small ones.
    Small,
}
