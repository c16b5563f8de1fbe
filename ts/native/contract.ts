/**
 * What a door offers. Every door (Node-API now; the C ABI through bun:ffi and Deno.dlopen beside it) implements these
 * interfaces and nothing more; all logic is either above (ts/) or below (crates/core).
 *
 * Options cross as one JSON object, images as bytes. Every answer is a stream of events that the caller pulls.
 */
export interface Native {
  /** JSON of {@link About}. */
  about(): string;
  /**
   * Starts an engine thread that loads a model; `json` is a {@link LoadRequest}. Returns at once; the outcome comes through
   * {@link NativeEngine.loading}. Throws an Error whose message is the JSON of a {@link WireError} when `json` is refused.
   */
  open(json: string): NativeEngine;
  /** Reads a model folder's configuration without loading weights; `json` is `{ "source": DIR }`. Ends with an `inspected` event. */
  inspect(json: string): NativeTicket;
}

export interface NativeEngine {
  /** The ticket of the load: `progress` events, then `loaded` or `error`. */
  loading(): NativeTicket;
  /**
   * Queues one request ({@link EngineRequest} as JSON) with the bytes of its images. The bytes are copied before the call
   * returns. Throws like {@link Native.open} when the JSON is refused.
   */
  submit(json: string, images: Uint8Array[]): NativeTicket;
  /** Stops intake, cancels what runs, frees the model. Idempotent. Ends with a `closed` event once every byte is free. */
  close(): NativeTicket;
}

export interface NativeTicket {
  /**
   * Resolves with all ready events as one JSON array, waiting for at least one; with null when the stream has ended.
   * One call at a time.
   */
  next(): Promise<string | null>;
  /** Asks the work to stop; it ends with an `error` event of code `aborted` (or `done` with finish `aborted` once text exists). */
  cancel(): void;
}

/**
 * What the native code of an installation can do.
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
  version: string;
  /** Every error code that the core can raise. */
  errorCodes: string[];
  /** `architectures[0]` values that load. */
  architectures: string[];
  devices: string[];
  /** SIMD features that the kernels use on this machine, e.g. ["avx2", "fma", "f16c"]. */
  cpu: string[];
  /** Threads the process-wide pool has, or would start with. */
  threads: number;
}

export interface WireError {
  code: string;
  message: string;
  details: Record<string, unknown>;
}

export interface LoadRequest {
  /** An absolute path of a folder with config.json. */
  source: string;
  device?: "cpu" | "cuda" | `cuda:${number}` | "auto";
  weights?: "f32" | "f16" | "q8_0" | "q4_k";
  /** Process-wide; only the first load of a process can set it. */
  threads?: number;
}

export type WirePart = { type: "text"; text: string } | { type: "image"; index: number };

export interface WireMessage {
  role: string;
  content: string | WirePart[];
}

/** A method of the cache with its options, calibrations included as objects. */
export interface WireMethod {
  method: string;
  [option: string]: unknown;
}

interface PromptFields {
  /** Either messages, put through the chat template ... */
  messages?: WireMessage[];
  /** ... or a raw prompt, with one image placeholder per image. */
  prompt?: string;
}

export interface GenerateRequest extends PromptFields {
  op: "generate";
  /** One method, or several stages; the plain cache without. */
  cache?: WireMethod | WireMethod[];
  /** The conversation that `messages` go on with; its cache is that of the session. */
  session?: number;
  maxTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
  ignoreEos?: boolean;
}

export interface ScoreRequest extends PromptFields {
  op: "score";
  cache?: WireMethod | WireMethod[];
  answer: string;
  /** Asks which positions are kept after the prompt. */
  kept?: boolean;
}

/** Asks for the retained share per layer that a prompt leads to, for several sizes; evicts nothing. */
export interface ProfileRequest extends PromptFields {
  op: "profile";
  cache: WireMethod | WireMethod[];
  /** Retained shares of the whole, above 0 and at most 1. */
  keeps: number[];
}

export type EngineRequest =
  | GenerateRequest
  | ScoreRequest
  | ProfileRequest
  /** Starts a conversation that keeps its cache from turn to turn; ends with a `session` event, as its closing does. */
  | { op: "open-session"; cache?: WireMethod | WireMethod[] }
  | { op: "close-session"; session: number }
  | { op: "tokenize"; text: string; addSpecialTokens?: boolean }
  | { op: "detokenize"; tokens: number[]; skipSpecialTokens?: boolean };

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
  promptTokens: number;
  /** Positions of the prompt that the cache of a chat held already; 0 without one. */
  cachedTokens: number;
  /** Positions of the images that came with this request. */
  imageTokens: number;
  completionTokens: number;
}

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
  /** All steps after the first token. */
  decode: number;
  /** From submit to the first token. */
  firstToken: number;
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
  /** What an uncompressed cache of the same positions and format would take. */
  full: number;
  /** Entries kept x entry bytes. */
  payload: number;
  /** Positions and other bookkeeping. */
  metadata: number;
  /** Entries that are evicted but still stored, because their format frees them in groups. */
  dead: number;
  /** Payload, metadata, dead entries and slack: what the pool holds for this sequence at the end. */
  resident: number;
  /** The highest value of resident. */
  peak: number;
  /** Entries kept, per layer; the mean over the heads where they keep different numbers. */
  keptPerLayer: number[];
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
  heads: [first: number, end: number];
  /** Places in the prompt, rising. */
  positions: number[];
}

/**
 * What a model is: its architecture, sizes and formats.
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
  architecture: string;
  source: string;
  /** The same for the same sizes and weights, wherever they lie: calibrations are bound to it. Empty without weights. */
  fingerprint: string;
  parameters: number;
  weights: string;
  /** How the linear layers are really stored, e.g. { "q8_0": 71 } when q4_k does not fit the shapes. */
  weightFormats: Record<string, number>;
  weightBytes: number;
  device: string;
  threads: number;
  layers: number;
  hiddenSize: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocabSize: number;
  maxPositions: number;
  /** Bytes one position takes over all layers in the full cache. */
  kvBytesPerToken: number;
  /** Null for a text-only model. */
  image: { tokens: number; size: number; patch: number } | null;
}

export type WireEvent =
  | { type: "progress"; stage: string; done: number; total: number }
  | { type: "loaded"; info: ModelInfo }
  | { type: "inspected"; info: ModelInfo }
  /** The prompt has been read; decoding begins. */
  | { type: "prompt"; usage: Usage }
  | { type: "token"; id: number; text: string }
  | {
      type: "done";
      text: string;
      tokens: number[];
      finish: "eos" | "stop" | "length" | "aborted";
      usage: Usage;
      timings: Timings;
      memory: Memory;
    }
  | {
      type: "scored";
      tokens: number[];
      logprobs: number[];
      ppl: number;
      usage: Usage;
      timings: Timings;
      memory: Memory;
      /** Per layer, if asked for. */
      kept?: Kept[][];
    }
  /** The retained share of every layer, for each asked size. */
  | { type: "profiled"; retained: number[][]; usage: Usage; timings: Timings }
  /** A session has been opened or closed. */
  | { type: "session"; session: number }
  | { type: "tokens"; tokens: number[] }
  | { type: "text"; text: string }
  | { type: "closed" }
  | { type: "error"; error: WireError };
