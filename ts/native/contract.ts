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
  /**
   * Compares the kernels of a GPU with those of the CPU; `json` is a {@link CheckRequest}. `progress` events, then `checked`. Throws
   * like {@link Native.open} when the JSON is refused, or the device is the CPU.
   */
  checkDevice(json: string): NativeTicket;
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

export interface LoadRequest {
  /** An absolute path of a folder with config.json. */
  source: string;
  device?: "cpu" | "cuda" | `cuda:${number}` | "auto";
  weights?: "f32" | "f16" | "q8_0" | "q4_k";
  /** Process-wide; only the first load of a process can set it. */
  threads?: number;
  /** Most requests that are decoded together, 1 to 256; 1 by default. */
  batch?: number;
  /** Bytes, or a text such as "2GiB". */
  cacheLimit?: number | string;
  /** Closes the model when the calling thread ends: a terminated worker tells its objects nothing on some runtimes. */
  closeWithThread?: boolean;
}

export interface CheckRequest {
  device: "cpu" | "cuda" | `cuda:${number}` | "auto";
  /** Whether to measure what the device can do. */
  ceilings?: boolean;
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
  /** Whether special tokens that messages spell are tokens, as without it, or plain text. */
  specialTokens?: "parse" | "text";
  /** ... or a raw prompt, with one image placeholder per image. */
  prompt?: string;
}

export interface GenerateRequest extends PromptFields {
  op: "generate";
  /** One method, or several stages; the plain cache without. */
  cache?: WireMethod | WireMethod[];
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

/** A turn of a conversation: its `messages` go on with it, and its cache is that of the session. */
export interface TurnRequest extends Omit<GenerateRequest, "op" | "prompt" | "cache"> {
  op: "turn";
  session: string;
}

export interface ScoreRequest extends PromptFields {
  op: "score";
  cache?: WireMethod | WireMethod[];
  answer: string;
  /** Asks which positions are kept after the prompt. */
  kept?: boolean;
  /** Asks for the divergence of every token's distribution from that of the full cache. */
  kl?: boolean;
}

/** Asks for the retained share per layer that a prompt leads to, for several sizes; evicts nothing. */
export interface ProfileRequest extends PromptFields {
  op: "profile";
  cache: WireMethod | WireMethod[];
  /** Retained shares of the whole, above 0 and at most 1. */
  keeps: number[];
}

/** A generation outside of a session that also says what the cache held; ends with `traced`. */
export interface TraceRequest extends Omit<GenerateRequest, "op"> {
  op: "trace";
}

export type EngineRequest =
  | GenerateRequest
  | ScoreRequest
  | ProfileRequest
  | TraceRequest
  | TurnRequest
  /**
   * Starts a conversation that keeps its cache from turn to turn; ends with a `session` event, as its closing does. `session` is its
   * name: 32 hexadecimal digits that cannot be guessed. Whoever knows it may read, continue and close the conversation.
   */
  | { op: "open-session"; cache?: WireMethod | WireMethod[] }
  | { op: "close-session"; session: string }
  /** What the device of the model counts of its memory; ends with a `memory` event. */
  | { op: "memory" }
  | { op: "tokenize"; text: string; addSpecialTokens?: boolean }
  | { op: "detokenize"; tokens: number[]; skipSpecialTokens?: boolean };
