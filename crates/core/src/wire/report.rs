//! The reports that events carry.

use serde::Serialize;

use crate::cache::{Kept, KeptSpan, MemoryReport};

/// How far a load has come: `done` of `total` in the unit of the stage (bytes, for `download` and most others).
///
/// ```ts
/// import { load, type Progress } from "prefixkv";
///
/// const onProgress = ({ stage, done, total }: Progress) => console.log(stage, done / total);
/// const model = await load(undefined, { onProgress });
/// await model.dispose();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The current stage: `download`, `weights` and others.
    pub stage: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is in all.
    pub total: u64,
}

/// Why a generation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model's end token came.
    Eos,
    /// A stop string has appeared.
    Stop,
    /// `maxTokens` are there.
    Length,
    /// The caller has cancelled, or the engine has been closed.
    Aborted,
}

/// How many tokens a request took. `promptTokens` includes the image tokens, and in a chat all that was said before.
///
/// ```ts
/// import { load, type Usage } from "prefixkv";
///
/// await using model = await load();
/// const { usage }: { usage: Usage } = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2 });
/// console.log(usage.promptTokens + usage.completionTokens);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Positions of the prompt.
    pub prompt_tokens: usize,
    /// Positions of the prompt that the cache of a chat held already; 0 without one.
    pub cached_tokens: usize,
    /// Positions of the images and videos that came with this request.
    pub image_tokens: usize,
    /// Tokens that were generated or scored, without the final end token.
    pub completion_tokens: usize,
}

/// How long the parts of a request took, in milliseconds.
///
/// ```ts
/// import { load, type Timings } from "prefixkv";
///
/// await using model = await load();
/// const { timings }: { timings: Timings } = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2 });
/// console.log(timings.firstToken <= timings.total);
/// ```
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// Waiting in the engine's queue.
    pub queued: f64,
    /// Decoding and resizing images.
    pub images: f64,
    /// Vision tower and projector.
    pub vision: f64,
    /// The prompt through the language model.
    pub prefill: f64,
    /// All steps after the first token, and what other requests did in between.
    pub decode: f64,
    /// From submit to the first token.
    pub first_token: f64,
    /// From submit to the end.
    pub total: f64,
}

/// How far apart the keys and values of two layers are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerDistance {
    /// The later of the two.
    pub layer: usize,
    /// The other.
    pub source: usize,
    /// The mean of the distances of their keys and of their values.
    pub distance: f64,
}

/// Result of a generation.
///
/// ```ts
/// import { type GenerationResult, load } from "prefixkv";
///
/// const model = await load();
/// const result: GenerationResult = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 4 });
/// console.log(result.finish, result.usage.completionTokens, result.memory.peak);
/// await model.dispose();
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct GenerationResult {
    /// All text that was generated, without a stop string.
    pub text: String,
    /// The ids of all tokens that were generated, without the end token.
    pub tokens: Vec<u32>,
    /// Why it ended: the model's end token, a stop string, `maxTokens`, or an abandoned iteration.
    pub finish: Finish,
    /// Numbers of tokens.
    pub usage: Usage,
    /// Milliseconds.
    pub timings: Timings,
    /// Bytes of the key-value cache at the end.
    pub memory: MemoryReport,
    /// The probability of each token; with `logprobs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprobs>>,
}

/// The probability of a generated token, and the likeliest tokens in its place.
///
/// ```ts
/// import { load, type TokenLogprobs } from "prefixkv";
///
/// await using model = await load();
/// const { logprobs } = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2, logprobs: 3 });
/// const [first]: TokenLogprobs[] = logprobs ?? [];
/// console.log(first?.logprob, first?.top.map(({ id }) => id));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenLogprobs {
    /// The natural logarithm of the token's probability, as the model gives it before any sampling option acts.
    pub logprob: f32,
    /// The bytes that the token adds to a text, which may be a part of a character.
    pub bytes: Vec<u8>,
    /// As many of the likeliest tokens as were asked for, the likeliest first.
    pub top: Vec<TokenLogprob>,
}

/// A token that could have come.
///
/// ```ts
/// import type { TokenLogprob } from "prefixkv";
///
/// const textOf = ({ bytes }: TokenLogprob): string => new TextDecoder().decode(Uint8Array.from(bytes));
/// console.log(textOf({ id: 7, logprob: -0.5, bytes: [104, 105] }));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The bytes that it would add.
    pub bytes: Vec<u8>,
}

/// How likely the model finds an answer.
///
/// ```ts
/// import { load, type Score } from "prefixkv";
///
/// const model = await load();
/// const score: Score = await model.score({ prompt: "USER: Hello ASSISTANT:", answer: " There is a star." });
/// console.log(score.tokens.length === score.logprobs.length, score.ppl);
/// await model.dispose();
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The tokens of the answer.
    pub tokens: Vec<u32>,
    /// The natural logarithm of each token's probability.
    pub logprobs: Vec<f32>,
    /// exp of the mean negative log-probability.
    pub ppl: f64,
    /// Numbers of tokens.
    pub usage: Usage,
    /// Milliseconds.
    pub timings: Timings,
    /// Bytes of the key-value cache.
    pub memory: MemoryReport,
    /// Which positions of the prompt are kept, per layer and range of heads; with `kept: true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Vec<Vec<Kept>>>,
    /// How much is left at the end of the text, of each image and its pieces, and of the answer, in order of position; with `kept: true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<Vec<KeptSpan>>,
    /// The divergence KL(full || cache) = sum over the vocabulary of p (ln p - ln q), per answer token, in nats; with `kl: true`. The time
    /// of the full cache counts in `timings.total` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<Vec<f64>>,
}
