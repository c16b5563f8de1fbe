// The parts of the contract that users get to see.

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
  /** SIMD features that the kernels use on this machine, e.g. ["avx2", "fma", "f16c"]. */
  cpu: string[];
  /** Threads the process-wide pool has, or would start with. */
  threads: number;
  /** What is alive in this process now, over all models, workers and bindings. */
  live: {
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
  };
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
  /** Positions of the images that came with this request. */
  imageTokens: number;
  /** Tokens that were generated or scored. */
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
  /** `architectures[0]` of the configuration. */
  architecture: string;
  /** The folder. */
  source: string;
  /** The same for the same sizes and weights, wherever they lie: calibrations are bound to it. Empty without weights. */
  fingerprint: string;
  /** Numbers in all weights. */
  parameters: number;
  /** The format in which the linear layers are to be held. */
  weights: string;
  /** How the linear layers are really stored, e.g. { "q8_0": 71 } when q4_k does not fit the shapes. */
  weightFormats: Record<string, number>;
  /** Bytes of all weights as they are held. */
  weightBytes: number;
  /** How many of these are the vision tower's and the projector's; 0 for a text model. */
  visionBytes: number;
  /** Where it computes. */
  device: string;
  /** Threads of the process. */
  threads: number;
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
  /** Bytes one position takes over all layers in the full cache. */
  kvBytesPerToken: number;
  /** Null for a text-only model. */
  image: { tokens: number; size: number; patch: number } | null;
}

/**
 * What the check of a GPU found.
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
  /** What the device calls itself. */
  name: string;
  /** The versions of the driver and of cuBLAS. */
  software: string[];
  /** Multiprocessors. */
  processors: number;
  /** Bytes of the device before the check. */
  memory: { free: number; total: number };
  /** Whether every kernel gave what the CPU gives. */
  passed: boolean;
  /** Every kernel with each of its formats. */
  kernels: {
    /** E.g. `decode f16`. */
    kernel: string;
    /** Shapes that were tried. */
    cases: number;
    /** The largest error, in the unit of `tolerance`; null when a result was no number, or when there was none. */
    worst: number | null;
    /** The largest error that is allowed: 0 where the bits must be the same, else in parts of the largest result, of each sum of
     * probabilities, or of the sum of the absolute products. */
    tolerance: number;
    /** The first case that went wrong, and how. */
    failed: string | null;
  }[];
  /** What the device can do; null when it was not asked for, or when a kernel has failed. */
  ceilings: {
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
    /** GB per second of keys and values that attention to 32 heads of 128 elements reads, in f16. */
    decode: { sequences: number; entries: number; read: number }[];
    /** TFLOP per second of causal attention over a prompt, in f16. */
    prefill: { positions: number; tflops: number }[];
  } | null;
}
