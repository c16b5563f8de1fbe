// Written by `cargo xtask gen` from the types of crates/core; edit those instead.

/** A folder with a model. */
export interface SourceFields {
  /** An absolute path of a folder with config.json, of a GGUF file, or of a folder with one. */
  source: string;
  /**
   * The vision tower of a GGUF file, which llama.cpp keeps in a file of its own (mmproj): its absolute path, or false
   * for none.
   *
   * Default: the only one of the file's folder, where that holds no other language model.
   */
  vision?: TowerFile;
}

/** The path of a file, or false for none. */
export type TowerFile = string | false;

/** The adapters that are merged into a model. */
export interface AdapterFields {
  /**
   * Absolute paths of folders with LoRA adapters in the format of PEFT, which are merged into the weights one after the
   * other.
   *
   * Default: none.
   */
  adapters?: readonly string[];
}

/** How a model is loaded. */
export interface EngineOptions {
  /**
   * Where to compute: `cpu`, `cuda` or `cuda:N` for an NVIDIA GPU, or `auto` for the first GPU that can be used, else
   * the CPU.
   *
   * Default: `auto`.
   */
  device?: Device;
  /**
   * Hold the weights of the linear layers as `f32`, `f16`, `q8_0` or `q4_k`.
   *
   * Default: `f32`, or what a GGUF file has.
   */
  weights?: WeightFormat;
  /**
   * Whether the blocks of a GGUF file are used where the file has them, mapped into memory, or read.
   *
   * A mapped file is there at once and shared by all processes that map it, but one that is cut while it is in use ends
   * the process. False reads it, so that nothing which happens to the file afterwards matters.
   *
   * Default: true.
   */
  map?: boolean;
  /**
   * Threads of the whole process.
   *
   * Only the first load of a process can set them. Without it, `RAYON_NUM_THREADS` or the number of cores counts.
   *
   * Default: one per core.
   */
  threads?: number;
  /**
   * Most requests that are decoded together.
   *
   * With 1 they are answered one after the other. With more, requests that wait start while others decode: a prompt is
   * read between two steps of the others (a long one in pieces: `prefillChunk`), and a step reads the weights once for
   * all. On the CPU with weights in f32 or f16, up to 32 requests together get the bits of each alone; otherwise
   * answers can differ in the last bits. Each request keeps a cache of its own, so memory grows with their number;
   * `cacheLimit` holds for all together.
   *
   * Default: 1.
   */
  batch?: number;
  /**
   * Most positions of a prompt that are read between two tokens of other requests, or 0 to read all prompts whole.
   *
   * With `batch`, a longer prompt that comes while others generate is read in pieces, so that these wait for one piece
   * at a time. Nothing of it is evicted before the last piece: `memory.peak` is then the full cache's, and where
   * `cacheLimit` has no room for that the prompt is read whole.
   *
   * Default: 512.
   */
  prefillChunk?: number;
  /**
   * Most bytes that all key-value caches of the model take together, e.g. `2GiB`.
   *
   * A number, or a text such as `"2GiB"`. The caches of all requests and chats count. A prompt that would go past it is
   * refused before any work, with an OutOfMemoryError; with `batch`, one that would fit once others have ended waits
   * for that.
   *
   * Default: no limit.
   */
  cacheLimit?: ByteSize;
  /**
   * Most bytes of prompts' beginnings that are kept for later requests, e.g. `512MiB`.
   *
   * A prompt with pictures is then read in two parts, up to its last picture and from there on. The first part is kept
   * for requests that begin with the same text and the same bytes of pictures and have the same `cache`;
   * `usage.cachedTokens` says how many positions were not read again. It counts within `cacheLimit` and is the first to
   * go when a request needs room. How soon an answer comes then tells whether somebody has asked about the same
   * pictures before: leave it out where that is nobody's business.
   *
   * Default: none are kept.
   */
  prefixCache?: ByteSize;
  /**
   * Folds the Hadamard transform of values into the weights.
   *
   * Stores that keep values through such a transform (`akvqVl`; `int8`, `int4` and `int2` with `rotate`) then do
   * nothing for values while they generate, and those that keep them without undo it. Answers stay as they are but for
   * rounding, and calibrations fit. The heads of the model must be a power of two wide.
   *
   * Default: false.
   */
  rotateValues?: boolean;
}

/**
 * A device by its name: the CPU, an NVIDIA GPU (`cuda` is the first, as is `cuda:0`), or the first GPU that can be
 * used, else the CPU.
 */
export type Device = "cpu" | "cuda" | `cuda:${number}` | "auto";

/**
 * How the weights of linear layers are held in memory, whatever the file holds. Activations are f32.
 *
 * - `"f32"`: 4 bytes a weight.
 * - `"f16"`: 2 bytes a weight; products are computed in f32.
 * - `"q8_0"`: 8-bit blocks of 32 with one scale: 8.5 bits a weight.
 * - `"q4_k"`: 4-bit super-blocks of 256: 4.5 bits a weight. Rows that are no multiple of 256 long are held as q8_0.
 */
export type WeightFormat = "f32" | "f16" | "q8_0" | "q4_k";

/** A number of bytes, or a text such as `"64MiB"`. */
export type ByteSize = number | string;

/** How an engine ends. */
export interface OwnerFields {
  /** Closes the model when the calling thread ends: a terminated worker tells its objects nothing on some runtimes. */
  closeWithThread?: boolean;
}

/** Loads a model: `progress` events, then `loaded`. */
export interface LoadRequest extends SourceFields, AdapterFields, EngineOptions, OwnerFields {}

/** A picture to count the positions of. */
export interface AskedPicture {
  /** The size of a picture whose positions are to be counted. */
  picture?: PictureFields;
}

/** The size of a picture. */
export interface PictureFields {
  /** Columns of the upright picture, in pixels. */
  width: number;
  /** Rows of the upright picture, in pixels. */
  height: number;
  /**
   * The picture is each of so many frames of a video.
   *
   * Default: it is an image.
   */
  frames?: number;
  /**
   * Frames per second of the video.
   *
   * Default: 24, unless `times` says when each is shown.
   */
  fps?: number;
  /** When each frame of the video is shown, in seconds. */
  times?: readonly number[];
}

/** Reads a model folder's configuration without loading weights; ends with `inspected`. */
export interface InspectRequest extends SourceFields, AskedPicture {}

/** A device to check. */
export interface CheckFields {
  /** The GPU, by its name. */
  device: Device;
  /**
   * Also measures what the device can do.
   *
   * Default: false.
   */
  ceilings?: boolean;
  /**
   * How many shapes are tried.
   *
   * Default: `"all"`.
   */
  cases?: CheckCases;
}

/**
 * How thorough a check is.
 *
 * - `"all"`: Every shape.
 * - `"small"`: A few small ones.
 */
export type CheckCases = "all" | "small";

/** Compares the kernels of a GPU with those of the CPU: `progress` events, then `checked`. */
export interface CheckRequest extends CheckFields {}

/** The text to read: `messages`, put through the chat template, or a raw `prompt`. */
export interface PromptFields {
  /**
   * A conversation, for the model's chat template. Every image that comes with the request is in one of its messages,
   * by itself or as a frame of a video.
   */
  messages?: readonly WireMessage[];
  /**
   * How special tokens such as `</s>` spelled in the texts of `messages` are treated.
   *
   * `"parse"`, the way of transformers, makes them the tokens; `"text"` reads them as plain text, so that what users
   * write cannot end a turn or begin one. A raw prompt is written with its special tokens.
   *
   * Default: `"parse"`.
   */
  specialTokens?: SpecialTokens;
  /**
   * Tools that the model may call, as OpenAI writes them; `generate` takes them, with `messages`.
   *
   * The chat template must know tools, and write calls as Hermes and Qwen do: `<tool_call>` around a JSON object with
   * `name` and `arguments`. So does the answer, which is text: reading it is the caller's part.
   *
   * Default: none.
   */
  tools?: readonly WireTool[];
  /**
   * A raw prompt instead, with one image placeholder (`<image>`) per image, and the model's video placeholder per
   * video.
   */
  prompt?: string;
  /**
   * The videos of the prompt, in the order of their frames.
   *
   * Images that are frames of a video are no images of the prompt by themselves. A raw prompt has the video placeholder
   * of the model for each.
   *
   * Default: none.
   */
  videos?: readonly WireVideo[];
}

/** One turn of a conversation. */
export interface WireMessage {
  /** `user`, `assistant`, `system`, or what else the template knows. */
  role: string;
  /** Its text, images and videos. */
  content: WireContent;
  /** The calls of tools that an assistant has made; templates that know none leave them out. */
  toolCalls?: readonly WireToolCall[];
}

/** Content of a message. */
export type WireContent = string | readonly WirePart[];

/** A piece of a message. Templates see an image without its index: `{"type": "image"}`; a video likewise. */
export type WirePart = TextPart | ImagePart | VideoPart;

/** A piece of text. */
export interface TextPart {
  /** Which kind it is. */
  type: "text";
  /** The text. */
  text: string;
}

/** An image of the request. */
export interface ImagePart {
  /** Which kind it is. */
  type: "image";
  /** Which of those that come with the request, from 0. */
  index: number;
}

/** A video of the request. */
export interface VideoPart {
  /** Which kind it is. */
  type: "video";
  /** Which of its `videos`, from 0. */
  index: number;
}

/** A call of a tool. */
export interface WireToolCall {
  /** The tool's name. */
  name: string;
  /** Its arguments. */
  arguments: Record<string, unknown>;
}

/**
 * Treatment of a special token's text within a message.
 *
 * - `"parse"`: It becomes that token, as in transformers; only an image placeholder is text.
 * - `"text"`: It stays text.
 */
export type SpecialTokens = "parse" | "text";

/** A tool as OpenAI writes it. */
export type WireTool = { readonly type: "function"; readonly function: object };

/** A video whose frames are among the images that come with the request. All of them are seen: none is left out. */
export interface WireVideo {
  /** The first of its frames, from 0 among the images of the prompt; the others follow it. */
  first: number;
  /** How many frames it has. */
  frames: number;
  /**
   * Frames per second.
   *
   * Default: 24, unless `times` says when each is shown.
   */
  fps?: number;
  /** When each frame is shown, in seconds: growing, one for each. */
  times?: readonly number[];
}

/** The method of the cache. */
export interface CacheFields {
  /** The method that shrinks the cache; without one, every entry is kept. */
  cache?: WireCache;
}

/** One method, or several as stages. */
export type WireCache = readonly WireMethod[] | WireMethod;

/** A method of the cache with its options, calibrations included as objects. */
export type WireMethod = { readonly method: string; readonly [option: string]: unknown };

/** When a generation ends. */
export interface StoppingOptions {
  /**
   * The most tokens to generate.
   *
   * Default: 512, or what the model has room for.
   */
  maxTokens?: number;
  /**
   * Texts that end the generation.
   *
   * They are not part of the result.
   *
   * Default: none.
   */
  stop?: readonly string[];
  /**
   * Goes on after the model's end token.
   *
   * The answer then has `maxTokens` tokens, as benchmarks need.
   *
   * Default: false.
   */
  ignoreEos?: boolean;
}

/**
 * How to choose tokens. The options act in the order of transformers: `repetitionPenalty`, then `frequencyPenalty` and
 * `presencePenalty`, which it lacks, `temperature`, `topK`, `topP`, `minP`, and a draw with `seed`.
 */
export interface SamplingOptions {
  /**
   * 0 takes the most likely token each time; higher values spread the choice.
   *
   * Divides the logits. With 0, `topK`, `topP`, `minP` and `seed` do nothing. At most 100.
   *
   * Default: 0.
   */
  temperature?: number;
  /**
   * Choose among this many likeliest tokens.
   *
   * Those as likely as the last of them stay too. 0 is no limit.
   *
   * Default: no limit.
   */
  topK?: number;
  /**
   * Choose among the likeliest tokens that together have this probability.
   *
   * Acts on what `topK` has left. 1 is no limit.
   *
   * Default: no limit.
   */
  topP?: number;
  /**
   * Choose among tokens at least this share as likely as the likeliest.
   *
   * 0 is no limit.
   *
   * Default: no limit.
   */
  minP?: number;
  /**
   * Above 1, tokens that have occurred become less likely.
   *
   * Those of the prompt count too. Acts first, with a temperature of 0 as well. From 0.01 to 100.
   *
   * Default: 1.
   */
  repetitionPenalty?: number;
  /**
   * Above 0, tokens become less likely with each time that the answer has had them.
   *
   * So much is taken from a token's logit for each time, and added below 0. The prompt does not count. From -2 to 2, as
   * OpenAI has it.
   *
   * Default: 0.
   */
  frequencyPenalty?: number;
  /**
   * Above 0, tokens that the answer has had become less likely.
   *
   * So much is taken from their logits, however often they came. The prompt does not count. From -2 to 2, as OpenAI has
   * it.
   *
   * Default: 0.
   */
  presencePenalty?: number;
  /**
   * The same seed and request give the same text.
   *
   * Default: random.
   */
  seed?: number;
}

/** The report about the tokens of an answer. */
export interface LogprobOptions {
  /**
   * Also reports the log-probability of each token, and so many of the likeliest tokens in its place.
   *
   * They are the model's own, before any sampling option acts. From 0 to 20.
   *
   * Default: none.
   */
  logprobs?: number;
}

/** Continues a prompt; `prompt` and `token` events, then `done`. */
export interface GenerateRequest extends PromptFields, CacheFields, StoppingOptions, SamplingOptions, LogprobOptions {
  /** Which kind it is. */
  op: "generate";
}

/** The answer to score. */
export interface ScoreFields {
  /** The text whose probability is asked for. */
  answer: string;
  /** Also says which positions are kept after the prompt. */
  kept?: boolean;
  /**
   * Also reports each token's divergence from the full cache, which reads the answer alongside the method.
   *
   * It takes another prefill, as many steps and the memory of a full cache.
   */
  kl?: boolean;
}

/** Says how likely the model finds an answer; ends with `scored`. */
export interface ScoreRequest extends PromptFields, CacheFields, ScoreFields {
  /** Which kind it is. */
  op: "score";
}

/** The sizes to profile. */
export interface ProfileFields {
  /** Retained shares of the whole, above 0 and at most 1. */
  keeps: readonly number[];
}

/**
 * Asks for the retained share per layer that a prompt leads to, for several sizes; evicts nothing. Ends with
 * `profiled`.
 */
export interface ProfileRequest extends PromptFields, CacheFields, ProfileFields {
  /** Which kind it is. */
  op: "profile";
}

/** The layers to compare. */
export interface DistancesFields {
  /** The prompts over which keys and values are averaged. */
  prompts: readonly Sample[];
  /**
   * How the distance of two layers is taken.
   *
   * Default: `"paper"`.
   */
  variant?: DistanceVariant;
}

/** A prompt among several of one request. */
export interface Sample extends PromptFields, SampleFields {}

/** The images of a prompt among several. */
export interface SampleFields {
  /**
   * How many of the request's images are this prompt's, behind those of the prompts before it; its messages count them
   * from 0.
   *
   * Default: 0.
   */
  images?: number;
}

/**
 * How the distance of the averaged keys of two layers, and of their values, is taken.
 *
 * - `"paper"`: Between all of a layer as one long vector.
 * - `"official"`: Between single heads at single positions, averaged, as in the published code of KVSharer.
 */
export type DistanceVariant = "paper" | "official";

/** Asks how far apart the keys and values of layers are, averaged over prompts; ends with `distances`. */
export interface DistancesRequest extends DistancesFields {
  /** Which kind it is. */
  op: "distances";
}

/**
 * Asks how much a method, such as layers that share, leaves of a prompt's last hidden states; ends with `similarity`.
 */
export interface SimilarityRequest extends PromptFields, CacheFields {
  /** Which kind it is. */
  op: "similarity";
}

/** The bits to try. */
export interface SensitivityFields {
  /** Bits of keys and of values, each 2, 4, 8 or 16. */
  pairs: readonly (readonly [number, number])[];
}

/**
 * Asks how far the results of each layer's attention are off when its keys and values are stored in few bits; `cache`
 * is a store whose bits can be chosen, and says all but these. Ends with `sensitivity`.
 */
export interface SensitivityRequest extends PromptFields, CacheFields, SensitivityFields {
  /** Which kind it is. */
  op: "sensitivity";
}

/** The channels to put in order. */
export interface ChannelsFields {
  /** The prompts over which ranges and errors are taken. */
  prompts: readonly Sample[];
  /** Channels of a head that share a scale, as far as they divide a head. */
  group: number;
  /** First positions of each prompt that are left out. */
  sinks: number;
}

/**
 * Asks for an order of the channels of every head in which alike ones share a scale, and for the clips with the least
 * errors, over prompts; ends with `channels`.
 */
export interface ChannelsRequest extends ChannelsFields {
  /** Which kind it is. */
  op: "channels";
}

/** The codebooks to find. */
export interface CodebooksFields {
  /** The prompts whose keys and values are looked at. */
  prompts: readonly Sample[];
  /** Bits of a code: 2 or 4. */
  bits: number;
  /** The share of the numbers of a row that lie apart, from 0 to 0.25. */
  outliers: number;
}

/** Finds levels of codes and ranges of channels for keys and values from prompts; ends with `codebooks`. */
export interface CodebooksRequest extends CodebooksFields {
  /** Which kind it is. */
  op: "codebooks";
}

/** The directions to find. */
export interface DirectionsFields {
  /** The prompts whose keys and values are looked at. */
  prompts: readonly Sample[];
  /** How they are found. */
  init: DirectionsInit;
  /** The power of the mean magnitudes by which `init: "asvd"` scales the weights, from 0 to 4. */
  alpha: number;
  /** Whose directions. */
  heads: DirectionsHeads;
  /**
   * The rows that have directions together; those of two layers are found by `init: "covariance"`.
   *
   * Default: `"layer"`.
   */
  span?: DirectionsSpan;
  /** The share of all directions that is given, above 0 and at most 1; rounded up to a multiple of 8. */
  most: number;
}

/**
 * How directions are found: those in which the keys and values of the prompts lie (`"covariance"`), or the left
 * singular vectors of the weights, scaled by the size of what goes into them (`"asvd"`).
 *
 * - `"covariance"`:
 * - `"asvd"`:
 */
export type DirectionsInit = "covariance" | "asvd";

/**
 * Whose directions: of each KV head (`"each"`), or of all heads of a layer together (`"joint"`).
 *
 * - `"each"`:
 * - `"joint"`:
 */
export type DirectionsHeads = "each" | "joint";

/**
 * The rows that have directions together: the keys of a layer, and its values (`"layer"`); or the keys and values of
 * two neighbouring layers (`"pair"`).
 *
 * - `"layer"`:
 * - `"pair"`:
 */
export type DirectionsSpan = "layer" | "pair";

/**
 * Finds directions along which keys, before their rotary embedding, and values can be stored as fewer numbers; ends
 * with `directions`.
 */
export interface DirectionsRequest extends DirectionsFields {
  /** Which kind it is. */
  op: "directions";
}

/** The heads to score. */
export interface HeadsFields {
  /** The prompts that the heads are watched on, each with an answer or without. */
  prompts: readonly AnsweredSample[];
  /**
   * How they are scored.
   *
   * Default: `"image-hits"`.
   */
  measure?: HeadMeasure;
  /** Last positions of each prompt, with its answer, that are looked at. */
  queries: number;
}

/** A prompt among several of one request, with an answer or without. */
export interface AnsweredSample extends PromptFields, SampleFields, AnswerFields {}

/** The answer of a prompt among several. */
export interface AnswerFields {
  /** The text that follows the prompt, as `score` takes it. */
  answer?: string;
}

/**
 * How a head is scored, each as the mean over positions: whether it looks at an image most (`"image-hits"`), how much
 * of its attention images get (`"image-mass"`), or how much of it goes to where the next token stood before
 * (`"copies"`).
 *
 * - `"image-hits"`:
 * - `"image-mass"`:
 * - `"copies"`:
 */
export type HeadMeasure = "image-hits" | "image-mass" | "copies";

/**
 * Asks how much each attention head looks at images, or at earlier text that says what comes next, over prompts; ends
 * with `heads`.
 */
export interface HeadsRequest extends HeadsFields {
  /** Which kind it is. */
  op: "heads";
}

/** A generation outside of a session that also says what the cache held; ends with `traced`. */
export interface TraceRequest extends PromptFields, CacheFields, StoppingOptions, SamplingOptions {
  /** Which kind it is. */
  op: "trace";
}

/**
 * Starts a conversation that keeps its cache from turn to turn; ends with `session`, which has the name of the
 * conversation. Whoever knows the name may read, continue and close it.
 */
export interface OpenSessionRequest extends CacheFields {
  /** Which kind it is. */
  op: "open-session";
}

/** A conversation that is open. */
export interface SessionFields {
  /** The name that `open-session` or `fork-session` has answered with. */
  session: SessionId;
}

/**
 * The name of a session: 128 random bits from the operating system, written as 32 hexadecimal digits. Whoever knows it
 * may read, continue and close the session. `fmt::Debug` does not show it.
 */
export type SessionId = string;

/** A turn of a conversation, in `messages`; its cache is the session's. `prompt` and `token` events, then `done`. */
export interface TurnRequest extends SessionFields, PromptFields, StoppingOptions, SamplingOptions, LogprobOptions {
  /** Which kind it is. */
  op: "turn";
}

/**
 * Starts a conversation that goes on from where another is, and shares its cache until one of the two changes it; ends
 * with `session`, which has the name of the new one.
 */
export interface ForkSessionRequest extends SessionFields {
  /** Which kind it is. */
  op: "fork-session";
}

/** Ends a conversation and frees its cache; ends with `session`. */
export interface CloseSessionRequest extends SessionFields {
  /** Which kind it is. */
  op: "close-session";
}

/**
 * Reads a prompt about which questions are to be asked, one after the other or together, without reading it again:
 * `prompt`, then `prefilled`, which has the name of the prefix.
 */
export interface PrefillRequest extends PromptFields, CacheFields {
  /** Which kind it is. */
  op: "prefill";
}

/** A prefix that is open. */
export interface PrefixFields {
  /** The name that `prefill` or `restore-prefix` has answered with. */
  prefix: SessionId;
}

/** A question about a prefix. */
export interface QuestionFields {
  /**
   * The text that follows the prefix: behind its last message if that is the user's, else as a message of the user, or
   * behind its raw `prompt`.
   */
  question: string;
}

/** Asks a question about a prefix, which stays as it is; `prompt` and `token` events, then `done`. */
export interface AskRequest extends PrefixFields, QuestionFields, StoppingOptions, SamplingOptions {
  /** Which kind it is. */
  op: "ask";
}

/** The file of a snapshot. */
export interface SnapshotFields {
  /** Its absolute path. */
  path: string;
}

/** Writes a prefix to a file, in the place of what is there; ends with `saved`. */
export interface SavePrefixRequest extends PrefixFields, SnapshotFields {
  /** Which kind it is. */
  op: "save-prefix";
}

/** Opens a prefix that the same model has saved; ends with `prefilled`. */
export interface RestorePrefixRequest extends SnapshotFields {
  /** Which kind it is. */
  op: "restore-prefix";
}

/** Ends a prefix and frees its cache; ends with `forgotten`. Questions that run go on. */
export interface ClosePrefixRequest extends PrefixFields {
  /** Which kind it is. */
  op: "close-prefix";
}

/** The plan of a method outside the engine. */
export interface PlanFields {
  /** The `id` of the `view` that it answers. */
  view: SessionId;
  /** The plans for the lanes of the view, in its order. */
  lanes: readonly LaneReply[];
}

/** A plan for one lane. */
export interface LaneReply {
  /** The entries that stay, by their numbers in the view, ascending; without it all stay. */
  keep?: readonly number[];
  /** Entries that go and are added to one that stays. */
  merge?: readonly MergeReply[];
}

/** An entry that is merged into another. */
export interface MergeReply {
  /** The entry that goes, by its number in the view. */
  from: number;
  /** The one that it is added to, by its number in the view. */
  into: number;
  /** Its weight beside the one that stays, which counts 1. */
  weight: number;
}

/**
 * Answers a `view` with a plan; ends with `planned`. A fault of the plan is the error of the request that waits for it.
 */
export interface PlanRequest extends PlanFields {
  /** Which kind it is. */
  op: "plan";
}

/** Asks what the device of the model counts of its memory; ends with `memory`. */
export interface MemoryRequest {
  /** Which kind it is. */
  op: "memory";
}

/** A text for the tokenizer. */
export interface TokenizeFields {
  /** The text. */
  text: string;
  /**
   * Whether the model's leading token comes first.
   *
   * Default: true.
   */
  addSpecialTokens?: boolean;
}

/** Asks for the tokens of a text; ends with `tokens`. */
export interface TokenizeRequest extends TokenizeFields {
  /** Which kind it is. */
  op: "tokenize";
}

/** Asks how many positions a picture or a video takes; ends with `pieces`. */
export interface ImageTokensRequest extends PictureFields {
  /** Which kind it is. */
  op: "image-tokens";
}

/** Tokens for the tokenizer. */
export interface DetokenizeFields {
  /** Ids of tokens. */
  tokens: readonly number[];
  /**
   * Whether special tokens are left out of the text.
   *
   * Default: false.
   */
  skipSpecialTokens?: boolean;
}

/** Asks for the text of tokens; ends with `text`. */
export interface DetokenizeRequest extends DetokenizeFields {
  /** Which kind it is. */
  op: "detokenize";
}

/** Requests that an engine takes. */
export type EngineRequest =
  | GenerateRequest
  | ScoreRequest
  | ProfileRequest
  | DistancesRequest
  | SimilarityRequest
  | SensitivityRequest
  | ChannelsRequest
  | CodebooksRequest
  | DirectionsRequest
  | HeadsRequest
  | TraceRequest
  | OpenSessionRequest
  | TurnRequest
  | ForkSessionRequest
  | CloseSessionRequest
  | PrefillRequest
  | AskRequest
  | SavePrefixRequest
  | RestorePrefixRequest
  | ClosePrefixRequest
  | PlanRequest
  | MemoryRequest
  | TokenizeRequest
  | ImageTokensRequest
  | DetokenizeRequest;

/**
 * How much of the cache is kept: a share of all positions, above 0 and up to 1; so many entries per layer, on average;
 * or so many bytes, as a number or as a text such as `"64MiB"`. A share grows with the sequence, the other two are
 * caps.
 *
 * @example
 * ```ts
 * import { type Keep, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const keeps: Keep[] = [0.5, { tokens: 16 }, { bytes: "1MiB" }];
 * for (const keep of keeps) {
 *   const { memory } = await model.generate({ prompt: "USER: Which shapes are there? ASSISTANT:", cache: prefixkv({ keep }) });
 *   console.log(keep, memory.resident);
 * }
 * ```
 */
export type Keep =
  | number
  | { readonly tokens: number; readonly bytes?: never }
  | { readonly bytes: number | string; readonly tokens?: never };

/**
 * How much each layer keeps, found before: `model.calibrate` makes it, `prefixkv({ calibration })` uses it instead of a
 * search per prompt.
 *
 * @example
 * ```ts
 * import { type Calibration, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
 * const calibration: Calibration = await model.calibrate({ method: prefixkv(), samples, keeps: [0.4, 0.6] });
 * console.log(calibration.rows[0]?.retained);
 * ```
 */
export interface Calibration {
  /** `"prefixkv-calibration"`, which marks such a file. */
  format: string;
  /** The version of the format: 1. */
  version: number;
  /** The model that it belongs to; a size that is not said is not checked. */
  model: CalibratedModel;
  /** Prompts over which the shares are averaged. */
  samples?: number;
  /** The score from which the shares come; a method that uses them ranks by it. */
  score?: string;
  /** The score's option of this name. */
  window?: number;
  /** The score's option of this name. */
  pool?: string;
  /** The score's option of this name. */
  poolSize?: number;
  /**
   * Each layer is rounded by itself, as the published code does with its configurations, instead of meeting the asked
   * whole.
   */
  published?: boolean;
  /** Where it comes from, in words. */
  origin?: string;
  /** By rising `keep`; sizes in between are interpolated. */
  rows: readonly CalibrationRow[];
}

/** The model that a calibration belongs to. */
export interface CalibratedModel {
  /** Its name, for people. */
  name?: string;
  /**
   * Layers of the language model that methods size: all but those that read another's keys and values or that have a
   * window.
   */
  layers: number;
  /** KV heads per layer. */
  kvHeads?: number;
  /** Channels per head. */
  headDim?: number;
  /** `ModelInfo.fingerprint`; without one only the sizes are compared. */
  fingerprint?: string;
}

/** The shares for one size. */
export interface CalibrationRow {
  /** The retained share of the whole. */
  keep: number;
  /** The retained share of every layer. */
  retained: readonly number[];
}

/**
 * Which layers may read the keys and values of which others, found before: `model.calibrateSharing` makes it,
 * `kvsharer({ calibration })` uses it.
 *
 * @example
 * ```ts
 * import { kvsharer, load, type SharingCalibration } from "prefixkv";
 *
 * await using model = await load();
 * const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
 * const calibration: SharingCalibration = await model.calibrateSharing({ samples, layers: 2 });
 * const cache = kvsharer({ calibration, layers: 1 });
 * const { memory } = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache, maxTokens: 8 });
 * console.log(calibration.pairs, memory.keptPerLayer);
 * ```
 */
export interface SharingCalibration {
  /** `"prefixkv-sharing"`, which marks such a file. */
  format: string;
  /** The version of the format: 1. */
  version: number;
  /** The model that it belongs to, with all layers of its language model; a size that is not said is not checked. */
  model: CalibratedModel;
  /** Prompts over which keys and values, and then the likeness of the results, are averaged. */
  samples?: number;
  /** How the distances were taken: `"paper"` or `"official"`. */
  variant?: string;
  /** The likeness that every pair has left, at least. */
  threshold?: number;
  /** Where it comes from, in words. */
  origin?: string;
  /** In the order in which they were found: the first so many are a map of so many layers. */
  pairs: readonly SharedLayer[];
}

/** A layer that reads the keys and values of one before it. */
export interface SharedLayer {
  /** The layer that reads. */
  layer: number;
  /** The layer whose keys and values it reads; where that one reads another's, it is the other's. */
  source: number;
  /** How far apart the keys and values of the two are. */
  distance?: number;
  /**
   * The cosine of the last hidden states with this pair and all before it to those of the model as it is, the mean over
   * the samples.
   */
  similarity?: number;
}

/**
 * How many bits keys and values of each layer may take, found before: `model.calibrateBits` makes it, `kvtuner({
 * calibration })` uses it.
 *
 * @example
 * ```ts
 * import { type BitsCalibration, image, kvtuner, load } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
 * const samples = [{ messages, answer: "green" }];
 * const calibration: BitsCalibration = await model.calibrateBits({ samples, groups: 1, trials: 12 });
 * const { memory } = await model.generate({ messages, cache: kvtuner({ calibration, bits: 5 }), maxTokens: 8 });
 * console.log(calibration.points, memory.effectiveBits);
 * ```
 */
export interface BitsCalibration {
  /** `"prefixkv-bits"`, which marks such a file. */
  format: string;
  /** The version of the format: 1. */
  version: number;
  /** The model that it belongs to, with all layers of its language model; a size that is not said is not checked. */
  model: CalibratedModel;
  /** The quantiser that the bits were found for. */
  quantiser: BitsQuantiser;
  /** Prompts over which sensitivities and losses are averaged. */
  samples?: number;
  /** Tokens of their answers together. */
  tokens?: number;
  /**
   * The kind of the losses: `"kl"`, the divergence from the full cache, or `"ppl"`, the negative log-likelihood of the
   * answers; both in nats per token.
   */
  objective?: string;
  /** Where it comes from, in words. */
  origin?: string;
  /** The loss of the full cache. */
  full?: number;
  /** How many choices of bits were measured. */
  trials?: number;
  /** The bits of keys and of values whose sensitivity was measured in every layer. */
  tried?: readonly (readonly [number, number])[];
  /**
   * By layer, for each of `tried`, how far the results of its attention are off, relative to their length; empty for a
   * layer that reads another's keys and values.
   */
  sensitivity?: readonly (readonly number[])[];
  /** Layers that get the same bits. */
  groups?: readonly BitsGroup[];
  /** By rising bits and falling losses: no other choice that was measured has fewer bits and no larger a loss. */
  points: readonly BitsPoint[];
}

/** The numbers that share a scale and a zero, as `kvtuner` has them. */
export interface BitsQuantiser {
  /** Its option of this name. */
  group: number;
  /** Its option of this name. */
  window: number;
  /** Its option of this name: `"channel"` or `"entry"`. */
  keys: string;
}

/** Layers whose bits are chosen together. */
export interface BitsGroup {
  /** Their numbers. */
  layers: readonly number[];
  /** The bits of keys and of values that were left to choose from. */
  pairs: readonly (readonly [number, number])[];
}

/** A choice of bits for all layers. */
export interface BitsPoint {
  /** Bits of a number without its scales, the mean over layers, keys and values. */
  bits: number;
  /** The loss on the samples. */
  loss: number;
  /** The bits of keys and of values of every layer. */
  pairs: readonly (readonly [number, number])[];
}

/**
 * Which channels of a head share a scale, and how much of their range the codes cover, found before:
 * `model.calibrateChannels` makes it, `skvq({ calibration })` uses it.
 *
 * @example
 * ```ts
 * import { type ChannelsCalibration, image, load, skvq } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
 * const calibration: ChannelsCalibration = await model.calibrateChannels({ samples: [{ messages }], group: 16 });
 * const { memory } = await model.generate({ messages, cache: skvq({ calibration, window: 32 }), maxTokens: 8 });
 * console.log(calibration.layers[0]?.keys.clip2, memory.effectiveBits);
 * ```
 */
export interface ChannelsCalibration {
  /** `"prefixkv-channels"`, which marks such a file. */
  format: string;
  /** The version of the format: 1. */
  version: number;
  /** The model that it belongs to, with all layers of its language model; a size that is not said is not checked. */
  model: CalibratedModel;
  /** Channels that share a scale, for which the orders were found. */
  group: number;
  /** First positions of a prompt that were left out, since they stay whole. */
  sinks: number;
  /** Prompts over which ranges and errors are taken. */
  samples?: number;
  /** Where it comes from, in words. */
  origin?: string;
  /** Of every layer of the model. */
  layers: readonly ChannelsLayer[];
}

/** The channels of a layer. */
export interface ChannelsLayer {
  /** Of its keys. */
  keys: ChannelsSide;
  /** Of its values. */
  values: ChannelsSide;
}

/** The channels of the keys, or of the values, of a layer. */
export interface ChannelsSide {
  /**
   * For each KV head its channels in the order in which they are stored, so that neighbours share a scale; empty for a
   * layer that reads another's.
   */
  order: readonly (readonly number[])[];
  /** The part of a group's range that codes of 2 bits cover, in whole hundredths. */
  clip2: number;
  /** The same of 4 bits. */
  clip4: number;
}

/**
 * Levels of codes per layer, with the ranges of the channels of keys before their rotary embedding:
 * `model.calibrateKvquant` makes it, `kvquant({ calibration })` uses it.
 *
 * @example
 * ```ts
 * import { type CodebookCalibration, kvquant, load } from "prefixkv";
 *
 * await using model = await load();
 * const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
 * const calibration: CodebookCalibration = await model.calibrateKvquant({ samples, bits: 4 });
 * const { memory } = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache: kvquant({ calibration }), maxTokens: 8 });
 * console.log(calibration.layers.length, memory.effectiveBits);
 * ```
 */
export interface CodebookCalibration {
  /** `"prefixkv-codebooks"`, which marks such a file. */
  format: string;
  /** The version of the format: 1. */
  version: number;
  /** The model that it belongs to, with all layers of its language model; a size that is not said is not checked. */
  model: CalibratedModel;
  /** Bits of a code: 2 or 4. */
  bits: number;
  /**
   * The share of the numbers of each key and each value of a head that lie apart in f16, rounded up to a whole number
   * of them.
   */
  outliers: number;
  /** Prompts that were read for it. */
  samples?: number;
  /** Positions of them whose keys and values were looked at. */
  positions?: number;
  /** Where it comes from, in words. */
  origin?: string;
  /** One for each layer that has keys and values of its own, by rising number. */
  layers: readonly LayerCodebooks[];
}

/** The codebooks of a layer. */
export interface LayerCodebooks {
  /** Its number in the model. */
  layer: number;
  /** The levels of keys, rising, for channels whose range is from -1 to 1. */
  keys: readonly number[];
  /** The levels of values, rising, for entries whose range is from -1 to 1. */
  values: readonly number[];
  /** Half the range of each channel of each KV head's keys before their rotary embedding, head by head. */
  scales: readonly number[];
  /** The middle of that range. */
  zeros: readonly number[];
}

/**
 * Directions of keys, before their rotary embedding, and of values, the most important ones first:
 * `model.calibrateCskv` makes it, `cskv({ calibration })` uses it; or of keys and values of two layers together, from
 * `model.calibrateClla` for `clla`.
 *
 * @example
 * ```ts
 * import { cskv, type DirectionsCalibration, load } from "prefixkv";
 *
 * await using model = await load();
 * const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
 * const calibration: DirectionsCalibration = await model.calibrateCskv({ samples });
 * const { memory } = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache: cskv({ calibration }), maxTokens: 8 });
 * console.log(calibration.rank, memory.effectiveBits);
 * ```
 */
export interface DirectionsCalibration {
  /** `"prefixkv-directions"`, which marks such a file. */
  format: string;
  /** The version of the format: 1. */
  version: number;
  /** The model that it belongs to, with all layers of its language model; a size that is not said is not checked. */
  model: CalibratedModel;
  /** How they were found. */
  init: DirectionsInit;
  /** With `init: "asvd"`, the power of the mean magnitudes by which the weights are scaled. */
  alpha?: number;
  /** Whether each head has directions of its own, or all of a layer have some together. */
  heads: DirectionsHeads;
  /**
   * Whether keys and values of a layer have directions of their own each, as where it is left out, or those of two
   * layers some together.
   */
  span?: DirectionsSpan;
  /** How many of them there are, of keys and of values each. */
  rank: number;
  /** Prompts that were read for it. */
  samples?: number;
  /** Positions of them. */
  positions?: number;
  /** Where it comes from, in words. */
  origin?: string;
  /**
   * One for each layer that has keys and values of its own, by rising number; with `span: "pair"` two and two go
   * together, and of an odd number of layers the last is left out.
   */
  layers: readonly LayerDirections[];
}

/**
 * The directions of a layer, each a vector of whole numbers of which the largest magnitude is 127: base64 of 8 bits
 * each, `[heads, rank, head size]`, or `[rank, heads * head size]` of all heads together. They become unit vectors at
 * right angles when they are read. Of two layers they are the parts of longer vectors: keys and values of the first,
 * then of the second.
 */
export interface LayerDirections {
  /** Its number in the model. */
  layer: number;
  /** Of its keys, before their rotary embedding. */
  keys: string;
  /** Of its values. */
  values: string;
  /**
   * With `span: "pair"`, the root mean squares of the numbers of its keys and of its values, by which they are divided
   * before they are brought to coordinates.
   */
  sizes?: readonly [number, number];
}

/**
 * How much each attention head matters, found before: `model.calibrateHeads` makes it, `sparseMm({ calibration })` and
 * `headKv({ calibration })` size heads by it.
 *
 * @example
 * ```ts
 * import { type HeadsCalibration, image, load, sparseMm } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
 * const calibration: HeadsCalibration = await model.calibrateHeads({ samples: [{ messages, answer: "green" }] });
 * const { memory } = await model.generate({ messages, cache: sparseMm({ keep: 0.3, calibration }), maxTokens: 8 });
 * console.log(calibration.scores[0], memory.keptPerLayer);
 * ```
 */
export interface HeadsCalibration {
  /** `"prefixkv-heads"`, which marks such a file. */
  format: string;
  /** The version of the format: 1. */
  version: number;
  /** The model that it belongs to, with the layers that methods size; its `kvHeads` must be there. */
  model: CalibratedModel;
  /** How the heads were scored. */
  measure: HeadMeasure;
  /** Last positions of each sample that were looked at. */
  queries?: number;
  /** Prompts over which the scores are averaged: those of which some position counted. */
  samples?: number;
  /** Positions of them that counted. */
  positions?: number;
  /** Where it comes from, in words. */
  origin?: string;
  /**
   * For each layer that methods size, the score of every query head, from 0; those of the query heads of a KV head
   * count together.
   */
  scores: readonly (readonly number[])[];
}

/**
 * Capabilities of an installation's native code.
 *
 * @example
 * ```ts
 * import { about, type About } from "prefixkv";
 *
 * const { architectures }: About = await about();
 * console.log(architectures.includes("LlavaForConditionalGeneration"));
 * ```
 */
export interface About {
  /** The version of the native code. */
  version: string;
  /** Every error code that the core can raise. */
  errorCodes: string[];
  /** `architectures[0]` values that load. */
  architectures: string[];
  /** What `device` can be in this native file on this machine. */
  devices: string[];
  /** Why `devices` has no GPU; null where it has. */
  noGpu: string | null;
  /** SIMD features that the kernels use on this machine, e.g. `["avx2", "fma", "f16c"]`. */
  cpu: string[];
  /** Threads the process-wide pool has, or would start with. */
  threads: number;
  /** Counts of everything alive in this process now, over all models, workers and bindings. */
  live: Live;
}

/** Counts of everything alive in this process, over all models, workers and bindings. */
export interface Live {
  /** Models that are loading, loaded, or being freed. */
  models: number;
  /** Chats that have not been disposed. */
  sessions: number;
  /** Loads, inspections, requests and disposals that have not ended. */
  requests: number;
  /** Bytes that all key-value caches hold, metadata included. */
  cacheBytes: number;
  /** Layers of language models run so far, one for each prompt or token that has passed one; it only grows. */
  layersRun: number;
  /** Positions that these layers were run for, summed over the layers; it only grows. */
  rowsRun: number;
  /**
   * Of these, positions whose keys and values were not computed, since the layer reads those of another; it only grows.
   */
  rowsShared: number;
  /**
   * Pairs of a query and an entry, of every query head, for which attention of prompts has multiplied key and value,
   * summed over the layers of language models; one whose key alone was multiplied counts half. It only grows.
   */
  pairsRun: number;
}

/** One answer of a request, a load or a close. */
export type WireEvent =
  | ProgressEvent
  | LoadedEvent
  | InspectedEvent
  | CheckedEvent
  | PromptEvent
  | TokenEvent
  | ViewEvent
  | PlannedEvent
  | DoneEvent
  | ScoredEvent
  | ProfiledEvent
  | DistancesEvent
  | CodebooksEvent
  | DirectionsEvent
  | SimilarityEvent
  | SensitivityEvent
  | ChannelsEvent
  | HeadsEvent
  | TracedEvent
  | PrefilledEvent
  | SavedEvent
  | ForgottenEvent
  | SessionEvent
  | MemoryEvent
  | TokensEvent
  | PiecesEvent
  | TextEvent
  | ClosedEvent
  | ErrorEvent;

/**
 * How far a load has come: `done` of `total` in the unit of the stage (bytes, for `download` and most others).
 *
 * @example
 * ```ts
 * import { load, type Progress } from "prefixkv";
 *
 * const onProgress = ({ stage, done, total }: Progress) => console.log(stage, done / total);
 * const model = await load(undefined, { onProgress });
 * await model.dispose();
 * ```
 */
export interface Progress {
  /** The current stage: `download`, `weights` and others. */
  stage: string;
  /** How much of it is done. */
  done: number;
  /** How much there is in all. */
  total: number;
}

/** A step of a load or of a check. */
export interface ProgressEvent extends Progress {
  /** Which kind it is. */
  type: "progress";
}

/**
 * A model's architecture, sizes and formats.
 *
 * @example
 * ```ts
 * import { inspect, type ModelInfo } from "prefixkv";
 *
 * const info: ModelInfo = await inspect();
 * console.log(info.layers * info.kvHeads * info.headDim, info.image?.tokens);
 * ```
 */
export interface ModelInfo {
  /** `architectures[0]` of the configuration, or the class that it is loaded as where that is a name of its own. */
  architecture: string;
  /** The folder, or the GGUF file. */
  source: string;
  /** The folders of the adapters that are merged into its weights, in their order. */
  adapters: string[];
  /**
   * The same for the same sizes and weights, wherever they lie: calibrations are bound to it. Empty without weights.
   */
  fingerprint: string;
  /** Numbers in all weights. */
  parameters: number;
  /** The format in which the linear layers are to be held; `stored`: as a GGUF file has them. */
  weights: string;
  /** How the linear layers are really stored, e.g. `{ "q8_0": 71 }` when q4_k does not fit the shapes. */
  weightFormats: Record<string, number>;
  /**
   * Bytes of all weights as they are held; for a model that is only inspected, what they would take in f32, or of a
   * GGUF file as it has them.
   */
  weightBytes: number;
  /** How many of these are the vision tower's and the projector's; 0 for a text model. */
  visionBytes: number;
  /** Where it computes, e.g. `cpu` or `cuda:0`. */
  device: string;
  /** Threads of the process. */
  threads: number;
  /** Whether it was loaded with `rotateValues`. */
  rotatedValues: boolean;
  /** Layers of the language model. */
  layers: number;
  /** Width of the language model. */
  hiddenSize: number;
  /** Query heads per layer. */
  heads: number;
  /** KV heads per layer. */
  kvHeads: number;
  /** Channels per head. */
  headDim: number;
  /** Tokens that there are. */
  vocabSize: number;
  /** Most positions of prompt and answer together. */
  maxPositions: number;
  /** Bytes that one position takes over all layers in the full cache. */
  kvBytesPerToken: number;
  /** How it sees an image; null for a text-only model. */
  image: ImageInfo | null;
}

/** How a model sees an image. */
export interface ImageInfo {
  /** Positions that one image takes; null where that depends on its size, which `model.imageTokens` is asked about. */
  tokens: number | null;
  /**
   * Side of the square that the vision tower takes at a time, in pixels; null where it takes rectangles of many sizes.
   */
  size: number | null;
  /** Side of a patch, in pixels. */
  patch: number;
  /** The positions of a picture of the size that an inspection asked about; null where it asked about none. */
  picture: ImageTokens | null;
}

/**
 * The positions that a picture of some size, or a video of such frames, takes in a prompt.
 *
 * @example
 * ```ts
 * import { load } from "prefixkv";
 *
 * await using model = await load();
 * const { tokens, marks, pieces } = await model.imageTokens(1920, 1080);
 * console.log(tokens + marks, pieces.length);
 * ```
 */
export interface ImageTokens {
  /** Positions of the image itself, all its pieces together. */
  tokens: number;
  /** Tokens of the text that the model writes around pieces, as it is tokenised alone; 0 where it writes none. */
  marks: number;
  /** The pieces, in the order of their positions. */
  pieces: PieceTokens[];
}

/** A piece of a picture and its positions. */
export interface PieceTokens {
  /** Which one it is, with its rows and columns of cells. */
  piece: Piece;
  /** Positions that it takes. */
  tokens: number;
}

/** A part of an image that was seen by itself, in cells that each take one position, row by row. */
export interface Piece {
  /** Which part. */
  kind: PieceKind;
  /** Cells from top to bottom. */
  rows: number;
  /**
   * Cells from left to right. Positions beyond rows times columns are no cells: a class token before them, or marks of
   * line ends.
   */
  columns: number;
}

/** Which part of an image a piece is. */
export type PieceKind = BasePieceKind | TilePieceKind | TilesPieceKind | EndPieceKind | FramePieceKind;

/** All of the image. */
export interface BasePieceKind {
  /** Which kind it is. */
  type: "base";
}

/** A tile of the image in more detail. */
export interface TilePieceKind {
  /** Which kind it is. */
  type: "tile";
  /** From the top, from 0. */
  row: number;
  /** From the left, from 0. */
  column: number;
}

/**
 * All tiles of the image laid side by side and cut to its shape. Behind each row of cells stands one position that
 * shows nothing.
 */
export interface TilesPieceKind {
  /** Which kind it is. */
  type: "tiles";
  /** Tiles from top to bottom. */
  down: number;
  /** Tiles from left to right. */
  across: number;
}

/** No part: the position behind all others, which shows nothing. */
export interface EndPieceKind {
  /** Which kind it is. */
  type: "end";
}

/** A moment of a video: one frame, or those that the vision tower sees as one. */
export interface FramePieceKind {
  /** Which kind it is. */
  type: "frame";
  /** From 0. */
  frame: number;
}

/** A load has succeeded. */
export interface LoadedEvent {
  /** Which kind it is. */
  type: "loaded";
  info: ModelInfo;
}

/** A model folder has been read. */
export interface InspectedEvent {
  /** Which kind it is. */
  type: "inspected";
  info: ModelInfo;
}

/**
 * Result of the check of a GPU.
 *
 * @example
 * ```ts
 * import { checkDevice, type DeviceCheck, DeviceError } from "prefixkv";
 *
 * try {
 *   const { passed, kernels }: DeviceCheck = await checkDevice("cuda");
 *   console.log(passed, kernels.filter(({ failed }) => failed !== null));
 * } catch (error) {
 *   if (!(error instanceof DeviceError)) throw error;
 *   console.log(error.message);
 * }
 * ```
 */
export interface DeviceCheck {
  /** The device as `device` names it, e.g. `cuda:0`. */
  device: string;
  /** The name that the device reports. */
  name: string;
  /** The versions of the driver and of cuBLAS. */
  software: string[];
  /** Multiprocessors. */
  processors: number;
  /** Bytes of the device before the check. */
  memory: CheckedMemory;
  /** Whether every kernel gave what the CPU gives. */
  passed: boolean;
  /** Every kernel with each of its formats. */
  kernels: KernelCheck[];
  /** Measured ceilings of the device; null when they were not asked for, or when a kernel has failed. */
  ceilings: DeviceCeilings | null;
}

/** Bytes of a device. */
export interface CheckedMemory {
  /** Bytes that can be allocated. */
  free: number;
  /** All bytes of the device. */
  total: number;
}

/** A kernel compared with the CPU. */
export interface KernelCheck {
  /** E.g. `decode f16`. */
  kernel: string;
  /** Shapes that were tried. */
  cases: number;
  /** The largest error, in the unit of `tolerance`; null when a result was no number, or when there was none. */
  worst: number | null;
  /**
   * The largest error that is allowed: 0 where the bits must be the same, else in parts of the largest result, of each
   * sum of probabilities, or of the sum of the absolute products.
   */
  tolerance: number;
  /** The first case that went wrong, and how. */
  failed: string | null;
}

/** The speed of a device, measured. */
export interface DeviceCeilings {
  /** GB (10^9 bytes) per second that copies within the device read and write. */
  copy: number;
  /** GB per second that a kernel reads that writes next to nothing. */
  read: number;
  /** GB per second of weights that a product of one row reads, in f16. */
  row: number;
  /** GB per second from the host. */
  upload: number;
  /** TFLOP (10^12 additions and multiplications) per second of products of f16 matrices. */
  productF16: number;
  /** The same for f32. */
  productF32: number;
  /** Launches of a kernel that does next to nothing, per second. */
  launches: number;
  /** Writes of 1 KiB from the host, per second. */
  writes: number;
  /** Attention of a decode step to 32 heads of 128 elements, in f16. */
  decode: DecodeRate[];
  /** Causal attention over a prompt, in f16. */
  prefill: PrefillRate[];
}

/** The speed of a decode step. */
export interface DecodeRate {
  /** Sequences in one launch. */
  sequences: number;
  /** Entries of each. */
  entries: number;
  /** GB per second of keys and values. */
  read: number;
}

/** The speed of reading a prompt. */
export interface PrefillRate {
  /** Positions of the prompt. */
  positions: number;
  /** TFLOP per second. */
  tflops: number;
}

/** A device has been checked. */
export interface CheckedEvent {
  /** Which kind it is. */
  type: "checked";
  report: DeviceCheck;
}

/**
 * How many tokens a request took. `promptTokens` includes the image tokens, and in a chat all that was said before.
 *
 * @example
 * ```ts
 * import { load, type Usage } from "prefixkv";
 *
 * await using model = await load();
 * const { usage }: { usage: Usage } = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2 });
 * console.log(usage.promptTokens + usage.completionTokens);
 * ```
 */
export interface Usage {
  /** Positions of the prompt. */
  promptTokens: number;
  /** Positions of the prompt that the cache of a chat held already; 0 without one. */
  cachedTokens: number;
  /** Positions of the images and videos that came with this request. */
  imageTokens: number;
  /** Tokens that were generated or scored, without the final end token. */
  completionTokens: number;
}

/** The prompt has been read; decoding begins. */
export interface PromptEvent {
  /** Which kind it is. */
  type: "prompt";
  usage: Usage;
}

/**
 * The probability of a generated token, and the likeliest tokens in its place.
 *
 * @example
 * ```ts
 * import { load, type TokenLogprobs } from "prefixkv";
 *
 * await using model = await load();
 * const { logprobs } = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2, logprobs: 3 });
 * const [first]: TokenLogprobs[] = logprobs ?? [];
 * console.log(first?.logprob, first?.top.map(({ id }) => id));
 * ```
 */
export interface TokenLogprobs {
  /** The natural logarithm of the token's probability, as the model gives it before any sampling option acts. */
  logprob: number;
  /** The bytes that the token adds to a text, which may be a part of a character. */
  bytes: number[];
  /** As many of the likeliest tokens as were asked for, the likeliest first. */
  top: TokenLogprob[];
}

/**
 * A token that could have come.
 *
 * @example
 * ```ts
 * import type { TokenLogprob } from "prefixkv";
 *
 * const textOf = ({ bytes }: TokenLogprob): string => new TextDecoder().decode(Uint8Array.from(bytes));
 * console.log(textOf({ id: 7, logprob: -0.5, bytes: [104, 105] }));
 * ```
 */
export interface TokenLogprob {
  /** The token. */
  id: number;
  /** The natural logarithm of its probability. */
  logprob: number;
  /** The bytes that it would add. */
  bytes: number[];
}

/** One generated token. */
export interface TokenEvent {
  /** Which kind it is. */
  type: "token";
  /** The token's id. */
  id: number;
  /**
   * The text that is certain with it: empty while characters or a possible stop string are held back. All texts joined
   * are a prefix of the text of `done`.
   */
  text: string;
  /** Its probability; with `logprobs`. */
  logprobs?: TokenLogprobs;
}

/** A sequence as a method outside the engine is shown it, between two passes through the layers. */
export interface MethodView {
  /** After the prompt, or after a generated token. */
  moment: ViewMoment;
  /** Generated tokens since the prompt. */
  step: number;
  /** Positions seen, all of them. */
  positions: number;
  /** Entries that may stay over all lanes together, each counting its heads; null where the method has no size. */
  most: number | null;
  /** Spans that cover all positions, in order and without gaps. */
  spans: Span[];
  /** The lanes of all layers, in order. */
  lanes: LaneView[];
}

/**
 * When a method outside is asked.
 *
 * - `"prompt"`:
 * - `"step"`:
 */
export type ViewMoment = "prompt" | "step";

/** A run of positions of one modality. */
export interface Span {
  /** Their kind of content. */
  modality: Modality;
  /** The first position. */
  start: number;
  /** How many positions. */
  len: number;
}

/** The kind of content at a position. */
export type Modality = TextModality | ImageModality | GeneratedModality;

/** Text of the prompt. */
export interface TextModality {
  /** Which kind it is. */
  type: "text";
}

/** Patches of an image. */
export interface ImageModality {
  /** Which kind it is. */
  type: "image";
  /** Which of the prompt's image placeholders they stand for, from 0. */
  index: number;
  /** The piece of the image that they show. */
  piece: Piece;
}

/** Generated tokens. */
export interface GeneratedModality {
  /** Which kind it is. */
  type: "generated";
}

/**
 * Entries of some heads of a layer, in the order of their positions. Numbers are base64 of little-endian 32-bit values.
 */
export interface LaneView {
  /** The layer. */
  layer: number;
  /** First KV head and the one behind the last. */
  heads: [number, number];
  /** The positions of the entries, whole numbers. */
  positions: string;
  /**
   * The attention that each entry has got, the mean over the heads: at the prompt from the queries that `needs.sums`
   * names, at a step from the tokens since the last plan.
   */
  sums?: string;
  /** With `needs.keys`: `[entries, heads, head size]`, as attention reads them. */
  keys?: string;
  /** With `needs.values`, as `keys`. */
  values?: string;
  /**
   * With `needs.queries`, at the prompt: its last queries, `[queries, query heads, head size]`, as they have attended.
   */
  queries?: string;
}

/**
 * A method outside the engine is asked for its plan: the request goes on when `{ "op": "plan", "view": ID, "lanes":
 * [...] }` comes.
 */
export interface ViewEvent {
  /** Which kind it is. */
  type: "view";
  /** The id that the plan names. */
  id: SessionId;
  view: MethodView;
}

/** A plan has reached the request that waits for it. */
export interface PlannedEvent {
  /** Which kind it is. */
  type: "planned";
}

/**
 * Result of a generation.
 *
 * @example
 * ```ts
 * import { type GenerationResult, load } from "prefixkv";
 *
 * const model = await load();
 * const result: GenerationResult = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 4 });
 * console.log(result.finish, result.usage.completionTokens, result.memory.peak);
 * await model.dispose();
 * ```
 */
export interface GenerationResult {
  /** All text that was generated, without a stop string. */
  text: string;
  /** The ids of all tokens that were generated, without the end token. */
  tokens: number[];
  /** Why it ended: the model's end token, a stop string, `maxTokens`, or an abandoned iteration. */
  finish: Finish;
  /** Numbers of tokens. */
  usage: Usage;
  /** Milliseconds. */
  timings: Timings;
  /** Bytes of the key-value cache at the end. */
  memory: Memory;
  /** The probability of each token; with `logprobs`. */
  logprobs?: TokenLogprobs[];
}

/**
 * Why a generation has ended.
 *
 * - `"eos"`: The model's end token came.
 * - `"stop"`: A stop string has appeared.
 * - `"length"`: `maxTokens` are there.
 * - `"aborted"`: The caller has cancelled, or the engine has been closed.
 */
export type Finish = "eos" | "stop" | "length" | "aborted";

/**
 * How long the parts of a request took, in milliseconds.
 *
 * @example
 * ```ts
 * import { load, type Timings } from "prefixkv";
 *
 * await using model = await load();
 * const { timings }: { timings: Timings } = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2 });
 * console.log(timings.firstToken <= timings.total);
 * ```
 */
export interface Timings {
  /** Waiting in the engine's queue. */
  queued: number;
  /** Decoding and resizing images. */
  images: number;
  /** Vision tower and projector. */
  vision: number;
  /** The prompt through the language model. */
  prefill: number;
  /** All steps after the first token, and what other requests did in between. */
  decode: number;
  /** From submit to the first token. */
  firstToken: number;
  /** From submit to the end. */
  total: number;
}

/**
 * Bytes of the key-value cache of one sequence.
 *
 * @example
 * ```ts
 * import { load, type Memory } from "prefixkv";
 *
 * await using model = await load();
 * const { memory }: { memory: Memory } = await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2 });
 * console.log(memory.resident / memory.full);
 * ```
 */
export interface Memory {
  /** Bytes of a cache in the same format that keeps every position seen so far, without slack or metadata. */
  full: number;
  /** Keys and values of the entries kept, in the format in which each of them is stored. */
  payload: number;
  /** Scales of the entries that are stored in few bits; 0 without such a store. */
  scales: number;
  /** The part of `payload` that a store keeps in full precision, the most recent entries; 0 without one. */
  window: number;
  /** Positions and scores of the entries, and other bookkeeping. */
  metadata: number;
  /** Entries that are evicted but still stored, because their format frees them in groups; their scales included. */
  dead: number;
  /** Bits that a number of a kept key or value takes on average, scales included; 0 of an empty cache. */
  effectiveBits: number;
  /** Payload, scales, metadata, dead entries and slack: what the pool holds for this sequence at the end. */
  resident: number;
  /** Of `resident`, what other chats that were forked from the same one hold as well: in memory it is there once. */
  shared: number;
  /** The highest value of `resident`. */
  peak: number;
  /** Entries kept, per layer; the mean over the heads where they keep different numbers. */
  keptPerLayer: number[];
}

/** A generation has ended. */
export interface DoneEvent extends GenerationResult {
  /** Which kind it is. */
  type: "done";
}

/**
 * How likely the model finds an answer.
 *
 * @example
 * ```ts
 * import { load, type Score } from "prefixkv";
 *
 * const model = await load();
 * const score: Score = await model.score({ prompt: "USER: Hello ASSISTANT:", answer: " There is a star." });
 * console.log(score.tokens.length === score.logprobs.length, score.ppl);
 * await model.dispose();
 * ```
 */
export interface Score {
  /** The tokens of the answer. */
  tokens: number[];
  /** The natural logarithm of each token's probability. */
  logprobs: number[];
  /** exp of the mean negative log-probability. */
  ppl: number;
  /** Numbers of tokens. */
  usage: Usage;
  /** Milliseconds. */
  timings: Timings;
  /** Bytes of the key-value cache. */
  memory: Memory;
  /** Which positions of the prompt are kept, per layer and range of heads; with `kept: true`. */
  kept?: Kept[][];
  /**
   * How much is left at the end of the text, of each image and its pieces, and of the answer, in order of position;
   * with `kept: true`.
   */
  spans?: KeptSpan[];
  /**
   * The divergence KL(full || cache) = sum over the vocabulary of p (ln p - ln q), per answer token, in nats; with `kl:
   * true`. The time of the full cache counts in `timings.total` only.
   */
  kl?: number[];
}

/**
 * The positions that a range of heads of one layer keeps.
 *
 * @example
 * ```ts
 * import { type Kept, load, snapkv } from "prefixkv";
 *
 * await using model = await load();
 * const prompt = "USER: Which colors are there, and which shapes? ASSISTANT:";
 * const { kept } = await model.score({ prompt, answer: " Red.", cache: snapkv({ keep: 0.5 }), kept: true });
 * const [first]: Kept[] = kept[0] ?? [];
 * console.log(first?.heads, first?.positions);
 * ```
 */
export interface Kept {
  /** The first KV head and the one behind the last. */
  heads: [number, number];
  /** Positions in the sequence, rising. */
  positions: number[];
}

/** A run of positions of one modality, and how much of it a cache has left. */
export interface KeptSpan {
  /** Their kind of content. */
  modality: Modality;
  /** The first position. */
  start: number;
  /** How many positions. */
  len: number;
  /** The share of their entries that is left, of the layers that hold any and all their heads. */
  kept: number;
}

/** An answer has been scored. */
export interface ScoredEvent extends Score {
  /** Which kind it is. */
  type: "scored";
}

/** A prompt has been profiled. */
export interface ProfiledEvent {
  /** Which kind it is. */
  type: "profiled";
  /** The retained share of every layer, for each asked size. */
  retained: number[][];
  usage: Usage;
  timings: Timings;
}

/** How far apart the keys and values of two layers are. */
export interface LayerDistance {
  /** The later of the two. */
  layer: number;
  /** The other. */
  source: number;
  /** The mean of the distances of their keys and of their values. */
  distance: number;
}

/** Layers have been compared. */
export interface DistancesEvent {
  /** Which kind it is. */
  type: "distances";
  /** All pairs of layers that may share, the farthest apart first. */
  pairs: LayerDistance[];
  usage: Usage;
  timings: Timings;
}

/** Codebooks have been found. */
export interface CodebooksEvent {
  /** Which kind it is. */
  type: "codebooks";
  /** One for each layer that has keys and values of its own. */
  layers: LayerCodebooks[];
  /** Positions whose keys and values were looked at. */
  positions: number;
  usage: Usage;
  timings: Timings;
}

/** Directions have been found. */
export interface DirectionsEvent {
  /** Which kind it is. */
  type: "directions";
  /** One for each layer that has keys and values of its own. */
  layers: LayerDirections[];
  /** How many of keys and of values each. */
  rank: number;
  /** Positions of all prompts. */
  positions: number;
  usage: Usage;
  timings: Timings;
}

/** A prompt has been read with and without a method. */
export interface SimilarityEvent {
  /** Which kind it is. */
  type: "similarity";
  /** The cosine of the last hidden states of all positions, as one long vector each. */
  similarity: number;
  usage: Usage;
  timings: Timings;
}

/** A prompt has been read, and its layers tried in few bits. */
export interface SensitivityEvent {
  /** Which kind it is. */
  type: "sensitivity";
  /**
   * By layer of the model, for each asked pair of bits, `|O - O^| / |O|` of the results of its attention; empty for a
   * layer that reads another's keys and values.
   */
  layers: number[][];
  usage: Usage;
  timings: Timings;
}

/** Channels have been put in order. */
export interface ChannelsEvent {
  /** Which kind it is. */
  type: "channels";
  /** By layer of the model. */
  layers: ChannelsLayer[];
  usage: Usage;
  timings: Timings;
}

/** Attention heads have been scored. */
export interface HeadsEvent {
  /** Which kind it is. */
  type: "heads";
  /** For each layer that methods size, the score of every query head. */
  scores: number[][];
  /** Prompts of which some position counted. */
  samples: number;
  /** The positions that counted. */
  positions: number;
  usage: Usage;
  timings: Timings;
}

/**
 * Contents of the cache during a generation, and the order by which its entries were chosen. Positions count from 0
 * over the prompt and the answer; importance is known for those of the prompt.
 *
 * @example
 * ```ts
 * import { image, load, prefixkv, type Trace } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }];
 * const trace: Trace = await model.trace({ messages, cache: prefixkv({ keep: 0.3 }), maxTokens: 8 });
 * const [picture] = trace.images;
 * const first = trace.layers[0]?.kept[0]?.positions.filter((at) => picture?.cells.includes(at));
 * console.log(trace.threshold, picture?.rows, picture?.columns, first?.length);
 * ```
 */
export interface Trace extends GenerationResult {
  /**
   * The score that the method ranks entries by, as `custom`(CustomOptions.score) names it. The plain cache is ranked by
   * `columns`, and keeps everything.
   */
  score: string;
  /** The score in words, such as "attention from all queries of the prompt". */
  ranking: string;
  /** Whether the score is attention. Where it is not, shares of it mean nothing, and layers have no `cumulative`. */
  mass: boolean;
  /** The share of importance that PrefixKV's search has found for all layers; null for methods that look for none. */
  threshold: number | null;
  /** Spans that cover all positions, in order and without gaps; `index` counts the image placeholders of the prompt. */
  spans: Span[];
  /** The grids of the pictures, in the order of their placeholders. */
  images: TraceImage[];
  /** The layers after the prompt. */
  layers: TraceLayer[];
  /** The cache after the prompt, then after each token that was read; the last token of an answer is not. */
  steps: TraceStep[];
  /** Decisions of the method, in order; moments that changed nothing are left out. */
  plans: TracePlan[];
}

/**
 * A picture of a traced prompt as a grid of cells, each of which has a position. A picture that the model sees in tiles
 * and once as a whole has two: the tiles together, and the whole. A video has one for each of its pieces, a frame or
 * those that are seen as one.
 */
export interface TraceImage {
  /** Which of the prompt's image placeholders it is, from 0. */
  index: number;
  /**
   * Its number among the images of the request, where the frames of a video count one by one; of a video the first
   * frame of the piece.
   */
  source: number;
  /** Width of the upright picture, in pixels. */
  width: number;
  /** Height of the upright picture, in pixels. */
  height: number;
  /** Tiles that the cells lie in, 1 for a picture that is seen as a whole. */
  tiles: number;
  /** Rows of cells. */
  rows: number;
  /** Columns of cells. */
  columns: number;
  /** The position of each cell in the prompt, row by row from the top left. */
  cells: number[];
  /** Area that all cells together cover, in pixels of the picture; it reaches beyond a picture that is padded. */
  area: Area;
}

/** A rectangle in the pixels of a picture; it may reach beyond the picture. */
export interface Area {
  /** The left edge. */
  x: number;
  /** The top edge. */
  y: number;
  /** From the left edge to the right one. */
  width: number;
  /** From the top edge to the bottom one. */
  height: number;
}

/** A layer of a trace. */
export interface TraceLayer extends LayerRecord {
  /** The layer whose entries it reads: itself, or one before it. */
  source: number;
  /** Entries kept after the prompt, per range of heads. */
  kept: Kept[];
}

/** How the entries of a layer were ranked. */
export interface LayerRecord {
  /**
   * The score of each position of the prompt; the mean over the heads where they have their own. Empty for a layer that
   * methods leave to its window.
   */
  importance: number[];
  /** How much of the importance the best entries hold; null for a score without mass. */
  cumulative: Cumulative | null;
  /** The share of the importance that the kept entries hold; null for a score without mass. */
  retained: number | null;
}

/** The share of a layer's importance that the best `from`, `from` + 1, ... entries hold. */
export interface Cumulative {
  /** Entries that the first share is of: those that are kept in any case. */
  from: number;
  /** Rising to 1. */
  shares: number[];
}

/** The cache at one moment; sizes in bytes. */
export interface TraceStep {
  /** Positions seen. */
  positions: number;
  /** Bytes that the pool holds for the sequence. */
  resident: number;
  /** Entries kept x entry bytes. */
  payload: number;
  /** Bytes of a cache that keeps everything. */
  full: number;
  /** Entries held; the mean over the layers. */
  kept: number;
}

/** A method's decision at a moment. */
export interface TracePlan {
  /** When. */
  moment: TraceMoment;
  /** With `layer`: which one. */
  layer?: number;
  /** With `token` and `step`: the generated token, from 0. */
  step?: number;
  /** Lanes that are made small. */
  lanes: TraceLanePlan[];
  /** Single entries that go. */
  evict: TraceEviction[];
  /**
   * With `layer`: the positions of the prompt that later layers see; with `images`, those that any layer sees. Left out
   * where they see all that have come so far.
   */
  rows?: number[];
}

/**
 * When a method has decided: before the first layer, by what the vision tower has seen of the images; once a layer has
 * read the prompt, once all have, before a generated token is added, or after that.
 *
 * - `"images"`:
 * - `"layer"`:
 * - `"prompt"`:
 * - `"token"`:
 * - `"step"`:
 */
export type TraceMoment = "images" | "layer" | "prompt" | "token" | "step";

/** Changes to the entries of a lane. */
export interface TraceLanePlan {
  /** The layer. */
  layer: number;
  /** The lane, counted in its layer. */
  lane: number;
  /** The positions of the entries that stay; left out where all do. */
  keep?: number[];
  /** Entries that are added to ones that stay. */
  merge: TraceMerge[];
  /** Entries that are stored in other codecs from now on. */
  encode: TraceEncode[];
}

/** An entry that is merged into another. */
export interface TraceMerge {
  /** The position of the entry that goes. */
  from: number;
  /** The position of the one that it is added to. */
  into: number;
  /** Its weight beside the one that stays, which counts 1. */
  weight: number;
}

/** Entries that are stored in another codec. */
export interface TraceEncode {
  /** Bits that each of their numbers takes from now on, scales included; the mean over keys and values. */
  bits: number;
  /** The positions of the entries. */
  positions: number[];
  /** The layer that they are stored together with from now on; left out where they are those of one layer. */
  with?: number;
}

/** An entry that goes. */
export interface TraceEviction {
  /** The layer. */
  layer: number;
  /** The lane, counted in its layer. */
  lane: number;
  /** Where the entry stands. */
  position: number;
}

/** A traced generation has ended. */
export interface TracedEvent extends Trace {
  /** Which kind it is. */
  type: "traced";
}

/** A prompt has been read, or a snapshot, and questions can be asked about it. */
export interface PrefilledEvent {
  /** Which kind it is. */
  type: "prefilled";
  /** The name of the prefix. Whoever knows it may ask about it, save and close it. */
  prefix: SessionId;
  usage: Usage;
  timings: Timings;
  memory: Memory;
  /** Whether its method chooses by the question: it keeps all of the prefix until one comes, and acts for each anew. */
  waits: boolean;
}

/** A prefix has been saved. */
export interface SavedEvent {
  /** Which kind it is. */
  type: "saved";
  /** Bytes of the file. */
  bytes: number;
}

/** A prefix has been closed. */
export interface ForgottenEvent {
  /** Which kind it is. */
  type: "forgotten";
  prefix: SessionId;
}

/** A session has been opened or closed. */
export interface SessionEvent {
  /** Which kind it is. */
  type: "session";
  session: SessionId;
}

/** Bytes of a device by its own count; of the CPU there is none. */
export interface DeviceMemory extends Partial<GpuMemory> {
  /** The device as requests name it. */
  device: string;
}

/** Bytes of a GPU. */
export interface GpuMemory {
  /** Bytes that can be allocated, those that are kept for reuse included. */
  free: number;
  /** All bytes of the device. */
  total: number;
  /** Bytes of the pool from which the model allocates. */
  pool: DevicePool;
}

/**
 * Bytes of the pool from which this model allocates: weights, cache and working memory. Reserved bytes that are not
 * used are kept for the next allocation, or cannot be given back because a block among them is in use.
 */
export interface DevicePool {
  /** Bytes that the pool has of the device. */
  reserved: number;
  /** The highest value of `reserved`. */
  mostReserved: number;
  /** Bytes in use. */
  used: number;
  /** The highest value of `used`. */
  mostUsed: number;
}

/** Memory as the model's device counts it. */
export interface MemoryEvent extends DeviceMemory {
  /** Which kind it is. */
  type: "memory";
}

/** A text as tokens. */
export interface TokensEvent {
  /** Which kind it is. */
  type: "tokens";
  tokens: number[];
}

/** The positions of a picture. */
export interface PiecesEvent extends ImageTokens {
  /** Which kind it is. */
  type: "pieces";
}

/** Tokens as a text. */
export interface TextEvent {
  /** Which kind it is. */
  type: "text";
  text: string;
}

/** The engine is closed and its memory free. */
export interface ClosedEvent {
  /** Which kind it is. */
  type: "closed";
}

/** An error as it crosses a door. */
export interface WireError {
  /** The stable name of its kind; docs/errors.md has all. */
  code: string;
  /** The message for people: what was found and what to do. */
  message: string;
  /** The facts of the case by name, for programs. */
  details: Record<string, unknown>;
}

/** The work has failed. */
export interface ErrorEvent {
  /** Which kind it is. */
  type: "error";
  error: WireError;
}
