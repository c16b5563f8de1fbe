// Written by `cargo xtask gen` from the specifications of the engine; edit those instead.
import type {
  BitsSource,
  CalibrationSource,
  ChannelsSource,
  CodebookSource,
  DirectionsSource,
  HeadsSource,
  SharingSource,
} from "../calibration.ts";
import { stage } from "../options/stage.ts";
import type { Keep } from "./wire.ts";

/**
 * A method that makes the cache small, with its options: a plain frozen object that can be sent, stored and compared. The
 * functions named as the methods make it; an object literal of the same form is as good.
 *
 * @example
 * ```ts
 * import { type CacheMethod, h2o, prefixkv } from "prefixkv";
 *
 * const methods: CacheMethod[] = [prefixkv({ keep: 0.5 }), h2o({ keep: { tokens: 64 } }), { method: "knorm", keep: 0.25 }];
 * console.log(JSON.stringify(methods));
 * ```
 */
export type CacheMethod =
  | Stage<"full">
  | Stage<"prefixkv", PrefixkvOptions>
  | Stage<"h2o", H2oOptions>
  | Stage<"snapkv", SnapkvOptions>
  | Stage<"pyramidkv", PyramidkvOptions>
  | Stage<"adakv", AdakvOptions>
  | Stage<"headKv", HeadKvOptions>
  | Stage<"sparseMm", SparseMmOptions>
  | Stage<"streaming", StreamingOptions>
  | Stage<"knorm", KnormOptions>
  | Stage<"keydiff", KeydiffOptions>
  | Stage<"tova", TovaOptions>
  | Stage<"observedAttention", ObservedAttentionOptions>
  | Stage<"expectedAttention", ExpectedAttentionOptions>
  | Stage<"lagkv", LagkvOptions>
  | Stage<"rkv", RkvOptions>
  | Stage<"chunkkv", ChunkkvOptions>
  | Stage<"cake", CakeOptions>
  | Stage<"vlCache", VlCacheOptions>
  | Stage<"tgvKv", TgvKvOptions>
  | Stage<"airCache", AirCacheOptions>
  | Stage<"kvzip", KvzipOptions>
  | Stage<"mixkv", MixkvOptions>
  | Stage<"elastic", ElasticOptions>
  | Stage<"lookM", LookMOptions>
  | Stage<"random", RandomOptions>
  | Stage<"fastv", FastvOptions>
  | Stage<"pyramidInfer", PyramidInferOptions>
  | Stage<"visionZip", VisionZipOptions>
  | Stage<"custom", CustomOptions>
  | Stage<"merge", MergeOptions>
  | Stage<"bf16", Bf16Options>
  | Stage<"fp8", Fp8Options>
  | Stage<"int8", Int8Options>
  | Stage<"int4", Int4Options>
  | Stage<"int2", Int2Options>
  | Stage<"turboquant", TurboquantOptions>
  | Stage<"kivi", KiviOptions>
  | Stage<"akvqVl", AkvqVlOptions>
  | Stage<"zipvl", ZipvlOptions>
  | Stage<"kvtuner", KvtunerOptions>
  | Stage<"skvq", SkvqOptions>
  | Stage<"think", ThinkOptions>
  | Stage<"lorc", LorcOptions>
  | Stage<"cskv", CskvOptions>
  | Stage<"kvquant", KvquantOptions>
  | Stage<"minicache", MinicacheOptions>
  | Stage<"clla", CllaOptions>
  | Stage<"kvsharer", KvsharerOptions>;

/** A method's options with its name. */
type Stage<Name extends string, Options = unknown> = Readonly<{ method: Name } & Options>;

/**
 * Full cache: keeps every entry.
 *
 * @example
 * ```ts
 * import { full, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: full() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function full(): Stage<"full"> {
  return stage("full", {});
}

/** Options of {@link prefixkv}. */
export interface PrefixkvOptions {
  /** How much of the cache is kept. May be left out where the calibration holds exactly one size. */
  keep?: Keep;
  /**
   * Attention from the last `window` queries with the size of the value and the difference of the key (MixKV), from the
   * text among these queries, from all of them, from the last one, from all text of the prompt, or from all queries.
   * One of `"mix"`, `"question"`, `"window"`, `"last"`, `"text"`, `"columns"`; `"mix"` by default, `"columns"` with
   * `variant` `"paper"` and `"official"`.
   */
  score?: "mix" | "question" | "window" | "last" | "text" | "columns";
  /**
   * Queries that count with `score: "mix"`, `"question"` and `"window"`. A whole number from 1 to 1,000,000; `32` by
   * default.
   */
  window?: number;
  /**
   * How neighbouring scores are joined, with `score: "mix"`, `"question"` and `"window"`. One of `"max"`, `"mean"`,
   * `"none"`; `"max"` by default, `"none"` with `variant` `"paper"` and `"official"`.
   */
  pool?: "max" | "mean" | "none";
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `7` by default. */
  poolSize?: number;
  /**
   * Sizes found before instead of a search per prompt: see model.calibrate. It brings its score along. A calibration,
   * its file, the name of a shipped one, or the evicted share of every layer.
   */
  calibration?: CalibrationSource;
  /**
   * Which split is the best: the one with the highest least retained share, the highest sum of them, or the least sum
   * of squares of the lost shares. One of `"least"`, `"sum"`, `"squares"`; `"sum"` by default, `"least"` with `variant`
   * `"paper"` and `"official"`.
   */
  objective?: "least" | "sum" | "squares";
  /**
   * The share of an even split that every layer gets in any case. A number from 0 to 1; `0.5` by default, `0` with
   * `variant` `"paper"` and `"official"`.
   */
  floor?: number;
  /**
   * Which entry goes while generating: the one with the lowest score, the one at a fixed distance, or none. One of
   * `"lowest-score"`, `"distance"`, `"none"`; `"lowest-score"` by default, `"distance"` with `variant` `"paper"` and
   * `"official"`.
   */
  decode?: "lowest-score" | "distance" | "none";
  /**
   * Places before the end of what the prompt has left, for `decode: "distance"`. A whole number from 0 to 1,000,000;
   * `25` by default.
   */
  distance?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  sinks?: number;
  /**
   * Last entries that are never evicted; with `variant: "tuned"` at most half of the size. A whole number from 0 to
   * 1,000,000; `8` by default, `1` with `variant` `"paper"` and `"official"`.
   */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Leave the sinks out of the cumulative importance. True or false; `false` by default. */
  excludeSink?: boolean;
  /**
   * `official` replays the published code's positions while generating. One of `"true"`, `"official"`; `"true"` by
   * default.
   */
  positions?: "true" | "official";
  /**
   * Other defaults: `paper` is the published method, `official` also replays the published code's search, which misses
   * the asked size by a little. One of `"tuned"`, `"paper"`, `"official"`; `"tuned"` by default.
   */
  variant?: "tuned" | "paper" | "official";
}

/**
 * PrefixKV: gives each layer its own size by one binary search over cumulative importance. Wang et al. 2024, PrefixKV,
 * arXiv 2412.03409 (NeurIPS 2025).
 *
 * @example
 * ```ts
 * import { image, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: prefixkv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function prefixkv(options: PrefixkvOptions = {}): Stage<"prefixkv", PrefixkvOptions> {
  return stage("prefixkv", options);
}

/** Options of {@link h2o}. */
export interface H2oOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** Share of what a head keeps that is its last entries. A number from 0 to 1; `0.5` by default. */
  recentShare?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: the one with the lowest score, or none. One of `"lowest-score"`, `"none"`;
   * `"lowest-score"` by default.
   */
  decode?: "lowest-score" | "none";
}

/**
 * H2O: keeps heavy hitters and recent entries, per layer and head. Zhang et al. 2023, H2O: Heavy-Hitter Oracle, arXiv
 * 2306.14048.
 *
 * @example
 * ```ts
 * import { h2o, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: h2o({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function h2o(options: H2oOptions): Stage<"h2o", H2oOptions> {
  return stage("h2o", options);
}

/** Options of {@link snapkv}. */
export interface SnapkvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * Queries that vote, and last entries that are kept; at most half of the size. A whole number from 1 to 1,000,000;
   * `32` by default.
   */
  window?: number;
  /** How neighbouring votes are joined. One of `"max"`, `"mean"`, `"none"`; `"max"` by default. */
  pool?: "max" | "mean" | "none";
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `7` by default. */
  poolSize?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one with the lowest score. One of `"none"`, `"lowest-score"`;
   * `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * SnapKV: keeps what the last queries of the prompt look at, per layer and head. Li et al. 2024, SnapKV, arXiv
 * 2404.14469.
 *
 * @example
 * ```ts
 * import { image, load, snapkv } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: snapkv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function snapkv(options: SnapkvOptions): Stage<"snapkv", SnapkvOptions> {
  return stage("snapkv", options);
}

/** Options of {@link pyramidkv}. */
export interface PyramidkvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * Queries that vote, and last entries that are kept; at most half of the size. A whole number from 1 to 1,000,000;
   * `8` by default.
   */
  window?: number;
  /**
   * The mean size over the last layer's, beside the window: how steep the pyramid is. A whole number from 1 to
   * 1,000,000; `20` by default.
   */
  beta?: number;
  /** How neighbouring votes are joined. One of `"max"`, `"mean"`, `"none"`; `"max"` by default. */
  pool?: "max" | "mean" | "none";
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `7` by default. */
  poolSize?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one with the lowest score. One of `"none"`, `"lowest-score"`;
   * `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * PyramidKV: keeps what the last queries look at, in sizes that fall from layer to layer. Cai et al. 2024, PyramidKV,
 * arXiv 2406.02069.
 *
 * @example
 * ```ts
 * import { image, load, pyramidkv } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: pyramidkv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function pyramidkv(options: PyramidkvOptions): Stage<"pyramidkv", PyramidkvOptions> {
  return stage("pyramidkv", options);
}

/** Options of {@link adakv}. */
export interface AdakvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * Queries that vote, and last entries that are kept; at most half of the size. A whole number from 1 to 1,000,000;
   * `32` by default.
   */
  window?: number;
  /** The share of an even split that every head gets in any case. A number from 0 to 1; `0.2` by default. */
  floor?: number;
  /** How neighbouring votes are joined. One of `"max"`, `"mean"`, `"none"`; `"max"` by default. */
  pool?: "max" | "mean" | "none";
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `7` by default. */
  poolSize?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one with the lowest score. One of `"none"`, `"lowest-score"`;
   * `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * AdaKV: splits each layer over its heads by what the last queries look at. Feng et al. 2024, AdaKV, arXiv 2407.11550.
 *
 * @example
 * ```ts
 * import { adakv, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: adakv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function adakv(options: AdakvOptions): Stage<"adakv", AdakvOptions> {
  return stage("adakv", options);
}

/** Options of {@link headKv}. */
export interface HeadKvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** The scores of heads that model.calibrateHeads has found. Such a calibration, or its file. */
  calibration?: HeadsSource;
  /**
   * Every head gives 1 / beta of what is beside the window to the pool that scores share out. A number from 1 to 1000;
   * `1.5` by default.
   */
  beta?: number;
  /**
   * Queries that vote, and last entries that are kept; at most half of the size. A whole number from 1 to 1,000,000;
   * `8` by default.
   */
  window?: number;
  /** How neighbouring votes are joined. One of `"max"`, `"mean"`, `"none"`; `"max"` by default. */
  pool?: "max" | "mean" | "none";
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `7` by default. */
  poolSize?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one with the lowest score. One of `"none"`, `"lowest-score"`;
   * `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * HeadKV: gives every head of the model as much as it fetches from earlier text. Fu et al. 2024, Not All Heads Matter:
 * A Head-Level KV Cache Compression Method with Integrated Retrieval and Reasoning, arXiv 2410.19258 (ICLR 2025).
 *
 * @example
 * ```ts
 * import { headKv, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: headKv({ keep: 0.5, calibration: await model.calibrateHeads({ samples: [{ messages: [{ role: "user", content }] }], measure: "copies" }) }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function headKv(options: HeadKvOptions): Stage<"headKv", HeadKvOptions> {
  return stage("headKv", options);
}

/** Options of {@link sparseMm}. */
export interface SparseMmOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** The scores of heads that model.calibrateHeads has found. Such a calibration, or its file. */
  calibration?: HeadsSource;
  /** The part of what is beside the window that all heads get alike. A number from 0 to 1; `0.1` by default. */
  ratio?: number;
  /**
   * Queries that vote, and last entries that are kept; at most half of the size. A whole number from 1 to 1,000,000;
   * `32` by default.
   */
  window?: number;
  /** How neighbouring votes are joined. One of `"max"`, `"mean"`, `"none"`; `"max"` by default. */
  pool?: "max" | "mean" | "none";
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `7` by default. */
  poolSize?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one with the lowest score. One of `"none"`, `"lowest-score"`;
   * `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * SparseMM: gives every head of the model as much as it looks at images. Wang et al. 2025, SparseMM: Head Sparsity
 * Emerges from Visual Concept Responses in MLLMs, arXiv 2506.05344 (ICCV 2025).
 *
 * @example
 * ```ts
 * import { image, load, sparseMm } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: sparseMm({ keep: 0.5, calibration: await model.calibrateHeads({ samples: [{ messages: [{ role: "user", content }] }] }) }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function sparseMm(options: SparseMmOptions): Stage<"sparseMm", SparseMmOptions> {
  return stage("sparseMm", options);
}

/** Options of {@link streaming}. */
export interface StreamingOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `4` by default. */
  sinks?: number;
  /**
   * `cache` rotates keys to their rank among the entries that are left. One of `"true"`, `"cache"`; `"true"` by
   * default.
   */
  positions?: "true" | "cache";
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: the oldest that is not protected, or none. One of `"oldest"`, `"none"`;
   * `"oldest"` by default.
   */
  decode?: "oldest" | "none";
}

/**
 * StreamingLLM: keeps the first entries and the last ones. Xiao et al. 2023, StreamingLLM, arXiv 2309.17453.
 *
 * @example
 * ```ts
 * import { image, load, streaming } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: streaming({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function streaming(options: StreamingOptions): Stage<"streaming", StreamingOptions> {
  return stage("streaming", options);
}

/** Options of {@link knorm}. */
export interface KnormOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one with the highest norm. One of `"none"`, `"lowest-score"`;
   * `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * L2 norm: keeps the keys with the lowest L2 norm, per layer and head. Devoto et al. 2024, A Simple and Effective L2
 * Norm-Based Strategy for KV Cache Compression, arXiv 2406.11430.
 *
 * @example
 * ```ts
 * import { image, knorm, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: knorm({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function knorm(options: KnormOptions): Stage<"knorm", KnormOptions> {
  return stage("knorm", options);
}

/** Options of {@link keydiff}. */
export interface KeydiffOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one that resembles the others most. One of `"none"`,
   * `"lowest-score"`; `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * KeyDiff: keeps the keys that resemble the others least, per layer and head. Park et al. 2025, KeyDiff, arXiv
 * 2504.15364.
 *
 * @example
 * ```ts
 * import { image, keydiff, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: keydiff({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function keydiff(options: KeydiffOptions): Stage<"keydiff", KeydiffOptions> {
  return stage("keydiff", options);
}

/** Options of {@link tova}. */
export interface TovaOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: the one that the newest token looks at least, or none. One of `"lowest-score"`,
   * `"none"`; `"lowest-score"` by default.
   */
  decode?: "lowest-score" | "none";
}

/**
 * TOVA: keeps what the newest token looks at, per layer, at every step. Oren et al. 2024, Transformers are Multi-State
 * RNNs, arXiv 2401.06104.
 *
 * @example
 * ```ts
 * import { image, load, tova } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: tova({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function tova(options: TovaOptions): Stage<"tova", TovaOptions> {
  return stage("tova", options);
}

/** Options of {@link observedAttention}. */
export interface ObservedAttentionOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * Observed attention: keeps what gets the most attention on average from those that see it, per layer and head.
 * ObservedAttentionPress of kvpress, after Zhang et al. 2023, H2O, arXiv 2306.14048.
 *
 * @example
 * ```ts
 * import { image, load, observedAttention } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: observedAttention({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function observedAttention(
  options: ObservedAttentionOptions,
): Stage<"observedAttention", ObservedAttentionOptions> {
  return stage("observedAttention", options);
}

/** Options of {@link expectedAttention}. */
export interface ExpectedAttentionOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * Positions behind the prompt over which rotations are averaged. A whole number from 1 to 65,536; `512` by default.
   */
  ahead?: number;
  /** Whether the covariance of the queries counts, or their mean alone. True or false; `true` by default. */
  covariance?: boolean;
  /** Whether the norm of the value counts. True or false; `true` by default. */
  values?: boolean;
  /** Added to the expected attention before the norm of the value counts. A number from 0 to 1; `0` by default. */
  epsilon?: number;
  /**
   * First entries, which are never evicted and whose queries do not count. A whole number from 0 to 1,000,000; `4` by
   * default.
   */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * Expected Attention: keeps what tokens to come are expected to look at, per layer and head. Devoto et al. 2025,
 * Expected Attention, arXiv 2510.00636.
 *
 * @example
 * ```ts
 * import { expectedAttention, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: expectedAttention({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function expectedAttention(
  options: ExpectedAttentionOptions,
): Stage<"expectedAttention", ExpectedAttentionOptions> {
  return stage("expectedAttention", options);
}

/** Options of {@link lagkv}. */
export interface LagkvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** Entries of a part. A whole number from 2 to 1,000,000; `128` by default. */
  lag?: number;
  /**
   * First entries, which belong to no part and are never evicted. A whole number from 0 to 1,000,000; `4` by default.
   */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * LagKV: keeps keys and values that stand out from the part behind them, per layer and head. Liang et al. 2025, LagKV,
 * arXiv 2504.04704.
 *
 * @example
 * ```ts
 * import { image, lagkv, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: lagkv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function lagkv(options: LagkvOptions): Stage<"lagkv", LagkvOptions> {
  return stage("lagkv", options);
}

/** Options of {@link rkv}. */
export interface RkvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * Generated tokens between two times that entries go. A whole number from 1 to 1,000,000; `32` by default, `128` with
   * `variant` `"paper"`.
   */
  every?: number;
  /**
   * Last tokens whose attention counts, and that are kept; at most half of the size. A whole number from 1 to
   * 1,000,000; `8` by default.
   */
  window?: number;
  /** The weight of attention beside redundancy. A number from 0 to 1; `0.1` by default. */
  attention?: number;
  /** The cosine above which two keys are alike. A number from 0 to 1; `0.5` by default. */
  alike?: number;
  /**
   * The newest of the entries alike to one that it does not make redundant. A whole number from 0 to 1,000,000; `1` by
   * default.
   */
  spared?: number;
  /**
   * Entries of a neighbourhood, whose highest share of attention counts; odd. A whole number from 1 to 1,000,000; `7`
   * by default.
   */
  poolSize?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** For answers of hundreds of tokens, or as published. One of `"short"`, `"paper"`; `"short"` by default. */
  variant?: "short" | "paper";
}

/**
 * R-KV: drops what repeats other entries, every few generated tokens, per layer and head. Cai et al. 2025, R-KV, arXiv
 * 2505.24133.
 *
 * @example
 * ```ts
 * import { image, load, rkv } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: rkv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function rkv(options: RkvOptions): Stage<"rkv", RkvOptions> {
  return stage("rkv", options);
}

/** Options of {@link chunkkv}. */
export interface ChunkkvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** Entries of a chunk. A whole number from 1 to 1,000,000; `20` by default. */
  chunk?: number;
  /**
   * Queries that vote, and last entries that are kept; at most half of the size. A whole number from 1 to 1,000,000;
   * `32` by default.
   */
  window?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one with the lowest score. One of `"none"`, `"lowest-score"`;
   * `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * ChunkKV: keeps whole chunks of neighbouring entries that the last queries look at, per layer. Liu et al. 2025,
 * ChunkKV, arXiv 2502.00299.
 *
 * @example
 * ```ts
 * import { chunkkv, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: chunkkv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function chunkkv(options: ChunkkvOptions): Stage<"chunkkv", ChunkkvOptions> {
  return stage("chunkkv", options);
}

/** Options of {@link cake}. */
export interface CakeOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * Queries that vote, and last entries that are kept; at most half of the mean size. A whole number from 2 to 4,096;
   * `32` by default.
   */
  window?: number;
  /**
   * How much the variance of an entry's attention counts beside its mean. A number from 0 to 1000000; `200` by default.
   */
  gamma?: number;
  /** The entropy of a layer counts by the power of 1 over this. A number from 0.05 to 100; `1` by default. */
  tau1?: number;
  /** The variance of a layer counts by the power of 1 over this. A number from 0.05 to 100; `1` by default. */
  tau2?: number;
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `5` by default. */
  poolSize?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * CAKE: gives layers what their attention prefers, and keeps what the last queries look at or quarrel about. Qin et al.
 * 2025, CAKE, arXiv 2503.12491.
 *
 * @example
 * ```ts
 * import { cake, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: cake({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function cake(options: CakeOptions): Stage<"cake", CakeOptions> {
  return stage("cake", options);
}

/** Options of {@link vlCache}. */
export interface VlCacheOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * The share of a row's largest probability from which on one counts as attention. A number from 0 to 1; `0.01` by
   * default.
   */
  threshold?: number;
  /** Last entries that are kept, as a share of the mean size. A number from 0 to 1; `0.1` by default. */
  recentShare?: number;
  /** Last queries whose attention is looked at for the sizes. A whole number from 1 to 1,000,000; `64` by default. */
  queries?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: none, or the one with the lowest score. One of `"none"`, `"lowest-score"`;
   * `"none"` by default.
   */
  decode?: "none" | "lowest-score";
}

/**
 * VL-Cache: keeps what the text behind the image looks at, more in layers whose attention is spread. Tu et al. 2024,
 * VL-Cache, arXiv 2410.23317.
 *
 * @example
 * ```ts
 * import { image, load, vlCache } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: vlCache({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function vlCache(options: VlCacheOptions): Stage<"vlCache", VlCacheOptions> {
  return stage("vlCache", options);
}

/** Options of {@link tgvKv}. */
export interface TgvKvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** Last positions behind the image that count. A whole number from 1 to 1,000,000; `128` by default. */
  queries?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * TGV-KV: keeps text first, and of images what the text that matters looks at. TGV-KV, arXiv 2606.03075.
 *
 * @example
 * ```ts
 * import { image, load, tgvKv } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: tgvKv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function tgvKv(options: TgvKvOptions): Stage<"tgvKv", TgvKvOptions> {
  return stage("tgvKv", options);
}

/** Options of {@link airCache}. */
export interface AirCacheOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** The share of the largest attention from which on text is of the elite. A number from 0 to 1; `0.9` by default. */
  threshold?: number;
  /**
   * Last positions behind the image of which the elite is chosen. A whole number from 1 to 1,000,000; `128` by default.
   */
  queries?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * AirCache: evicts of images only, by the few words that the end of the prompt looks at. Huang et al. 2025, AirCache,
 * arXiv 2503.23956.
 *
 * @example
 * ```ts
 * import { airCache, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: airCache({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function airCache(options: AirCacheOptions): Stage<"airCache", AirCacheOptions> {
  return stage("airCache", options);
}

/** Options of {@link kvzip}. */
export interface KvzipOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * How the whole is split: by one threshold for all heads and layers, or evenly. One of `"pooled"`, `"uniform"`;
   * `"pooled"` by default.
   */
  budget?: "pooled" | "uniform";
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `4` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * KVzip: keeps what the model needs to repeat its prompt, whatever is asked later. Kim et al. 2025, KVzip, arXiv
 * 2505.23416.
 *
 * @example
 * ```ts
 * import { image, kvzip, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: kvzip({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function kvzip(options: KvzipOptions): Stage<"kvzip", KvzipOptions> {
  return stage("kvzip", options);
}

/** Options of {@link mixkv}. */
export interface MixkvOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * Queries that vote, and last entries that are kept; at most half of the size. A whole number from 1 to 1,000,000;
   * `32` by default.
   */
  window?: number;
  /** How neighbouring votes are joined. One of `"max"`, `"mean"`, `"none"`; `"mean"` by default. */
  pool?: "max" | "mean" | "none";
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `5` by default. */
  poolSize?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * MixKV: mixes importance with diversity, by how alike the keys of a head are. Liu et al. 2025, MixKV, arXiv
 * 2510.20707.
 *
 * @example
 * ```ts
 * import { image, load, mixkv } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: mixkv({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function mixkv(options: MixkvOptions): Stage<"mixkv", MixkvOptions> {
  return stage("mixkv", options);
}

/** Options of {@link elastic}. */
export interface ElasticOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /**
   * Where entries go that do not stay after the prompt: into the anchor at the nearest position, or nowhere. One of
   * `"position"`, `"none"`; `"position"` by default.
   */
  merge?: "position" | "none";
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /**
   * Which entry goes while generating: the one at a fixed distance, the one with the lowest score, or none. One of
   * `"distance"`, `"lowest-score"`, `"none"`; `"distance"` by default.
   */
  decode?: "distance" | "lowest-score" | "none";
  /**
   * Places before the end of what the prompt has left, for `decode: "distance"`. A whole number from 0 to 1,000,000;
   * `25` by default.
   */
  distance?: number;
}

/**
 * Elastic Cache: keeps the anchors of each layer, and merges what goes into the nearest of them. Liu et al. 2024,
 * Elastic Cache, arXiv 2407.18121.
 *
 * @example
 * ```ts
 * import { elastic, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: elastic({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function elastic(options: ElasticOptions): Stage<"elastic", ElasticOptions> {
  return stage("elastic", options);
}

/** Options of {@link lookM}. */
export interface LookMOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** Share of what a head keeps that is its last entries. A number from 0 to 1; `0.5` by default. */
  recentShare?: number;
  /**
   * How entries that go are merged into those that stay, or not at all. One of `"pivot"`, `"mean"`, `"none"`; `"pivot"`
   * by default.
   */
  merge?: "pivot" | "mean" | "none";
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `0` by default. */
  sinks?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** Which entry goes while generating: none, or the oldest. One of `"none"`, `"oldest"`; `"none"` by default. */
  decode?: "none" | "oldest";
}

/**
 * LOOK-M: drops image entries before text, and merges them into the most similar that stay. Wan et al. 2024, LOOK-M,
 * arXiv 2406.18139.
 *
 * @example
 * ```ts
 * import { image, load, lookM } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: lookM({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function lookM(options: LookMOptions): Stage<"lookM", LookMOptions> {
  return stage("lookM", options);
}

/** Options of {@link random}. */
export interface RandomOptions {
  /** How much of the cache is kept. */
  keep: Keep;
  /** The same seed keeps the same entries. A whole number from 0 to 1,000,000; `0` by default. */
  seed?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  sinks?: number;
  /** Last entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  recent?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
}

/**
 * Random: keeps entries by chance: what every method must beat.
 *
 * @example
 * ```ts
 * import { image, load, random } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: random({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function random(options: RandomOptions): Stage<"random", RandomOptions> {
  return stage("random", options);
}

/** Options of {@link fastv}. */
export interface FastvOptions {
  /** Layers that read the whole prompt. A whole number from 1 to 1,000,000; `2` by default. */
  layer?: number;
  /** The share of image positions that later layers see. A number from 0 to 1; `0.5` by default. */
  images?: number;
}

/**
 * FastV: ends the way of image positions that get little attention after the first layers. Chen et al. 2024, An Image
 * is Worth 1/2 Tokens After Layer 2, arXiv 2403.06764.
 *
 * @example
 * ```ts
 * import { fastv, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: fastv() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function fastv(options: FastvOptions = {}): Stage<"fastv", FastvOptions> {
  return stage("fastv", options);
}

/** Options of {@link pyramidInfer}. */
export interface PyramidInferOptions {
  /**
   * The share of the context that the last layers pass on, each of what has come to it. A number from 0 to 1; `0.9` by
   * default, `0.8` with `variant` `"medium"`.
   */
  share?: number;
  /**
   * How that share is reached: along a cosine from 1 in the first layer, or at once. One of `"cosine"`, `"constant"`;
   * `"cosine"` by default.
   */
  schedule?: "cosine" | "constant";
  /**
   * Layers of which one passes less on. A whole number from 1 to 1,000,000; `1` by default, `2` with `variant`
   * `"medium"`, `3` with `variant` `"large"`.
   */
  interval?: number;
  /**
   * The share of the prompt, its last positions, that always goes on and ranks the others. A number from 0 to 1; `0.2`
   * by default.
   */
  recent?: number;
  /**
   * The weight of the prompt's last position beside the first of these. A number from 0 to 1000000; `1.2` by default.
   */
  distance?: number;
  /** First positions, which always go on. A whole number from 0 to 1,000,000; `4` by default. */
  sinks?: number;
  /** Positions before the last ones that are never made fewer. A whole number from 0 to 1,000,000; `64` by default. */
  least?: number;
  /** Generated tokens of which some go together; 0 to keep all. A whole number from 0 to 1,000,000; `16` by default. */
  block?: number;
  /** The share of a block that the first layer keeps. A number from 0 to 1; `0.9` by default. */
  blockShare?: number;
  /** How much of that share the last layers keep. A number from 0 to 1; `0.1` by default. */
  blockLast?: number;
  /**
   * The models that the defaults were chosen for: of 7 or 8, 13, or 70 billion parameters. One of `"small"`,
   * `"medium"`, `"large"`; `"small"` by default.
   */
  variant?: "small" | "medium" | "large";
}

/**
 * PyramidInfer: reads fewer positions of the prompt from layer to layer, those that its last ones look at. Yang et al.
 * 2024, PyramidInfer, arXiv 2405.12532 (Findings of ACL 2024).
 *
 * @example
 * ```ts
 * import { image, load, pyramidInfer } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: pyramidInfer() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function pyramidInfer(options: PyramidInferOptions = {}): Stage<"pyramidInfer", PyramidInferOptions> {
  return stage("pyramidInfer", options);
}

/** Options of {@link visionZip}. */
export interface VisionZipOptions {
  /**
   * The share of each image's positions that go on, contextual ones included. A number from 0 to 1; `0.3333` by
   * default.
   */
  images?: number;
  /** The share of these that others are merged into. A number from 0 to 1; `0.15625` by default. */
  contextual?: number;
}

/**
 * VisionZip: merges each image into fewer positions before the language model, by what its vision tower looks at. Yang
 * et al. 2024, VisionZip, arXiv 2412.04467 (CVPR 2025).
 *
 * @example
 * ```ts
 * import { image, load, visionZip } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: visionZip() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function visionZip(options: VisionZipOptions = {}): Stage<"visionZip", VisionZipOptions> {
  return stage("visionZip", options);
}

/** Options of {@link custom}. */
export interface CustomOptions {
  /** How much of the cache is kept. May be left out where the calibration holds exactly one size. */
  keep?: Keep;
  /**
   * The score that ranks entries. One of `"question"`, `"window"`, `"mix"`, `"last"`, `"text"`, `"columns"`,
   * `"observed"`, `"key-norm"`, `"key-diff"`, `"lag"`, `"recency"`, `"random"`; `"question"` by default.
   */
  score?:
    | "question"
    | "window"
    | "mix"
    | "last"
    | "text"
    | "columns"
    | "observed"
    | "key-norm"
    | "key-diff"
    | "lag"
    | "recency"
    | "random";
  /**
   * How the whole is split over layers and heads. One of `"uniform"`, `"prefix"`, `"pyramid"`, `"ada"`; `"uniform"` by
   * default.
   */
  budget?: "uniform" | "prefix" | "pyramid" | "ada";
  /**
   * Whether the heads of a layer share their entries or have their own; `"head"` by default with `budget: "ada"`. One
   * of `"layer"`, `"head"`; `"layer"` by default.
   */
  lanes?: "layer" | "head";
  /**
   * Which entry goes while generating: the one with the lowest score, the one at a fixed distance, the oldest, or none.
   * One of `"lowest-score"`, `"distance"`, `"oldest"`, `"none"`; `"lowest-score"` by default.
   */
  decode?: "lowest-score" | "distance" | "oldest" | "none";
  /**
   * Generated tokens between two times that entries go, with `decode: "lowest-score"`. A whole number from 1 to
   * 1,000,000; `1` by default.
   */
  every?: number;
  /**
   * Queries that count with `score: "question"`, `"window"` and `"mix"`. A whole number from 1 to 1,000,000; `32` by
   * default.
   */
  window?: number;
  /**
   * How neighbouring scores are joined, with `score: "question"` and `"window"`. One of `"max"`, `"mean"`, `"none"`;
   * `"max"` by default.
   */
  pool?: "max" | "mean" | "none";
  /** Entries of a neighbourhood; odd. A whole number from 1 to 1,000,000; `7` by default. */
  poolSize?: number;
  /** For `score: "lag"`: entries of a part of the prompt. A whole number from 2 to 1,000,000; `128` by default. */
  lag?: number;
  /** For `score: "random"`. A whole number from 0 to 1,000,000; `0` by default. */
  seed?: number;
  /**
   * For `budget: "prefix"`: sizes found before instead of a search per prompt. It brings its score along. A
   * calibration, its file, the name of a shipped one, or the evicted share of every layer.
   */
  calibration?: CalibrationSource;
  /**
   * For `budget: "ada"`, and for `"prefix"` where it is given: the share of an even split that every head or layer gets
   * in any case. A number from 0 to 1; `0.2` by default.
   */
  floor?: number;
  /**
   * For `budget: "prefix"`: the split with the highest least retained share, the highest sum of them, or the least sum
   * of squares of the lost shares. One of `"least"`, `"sum"`, `"squares"`; `"least"` by default.
   */
  objective?: "least" | "sum" | "squares";
  /**
   * For `budget: "pyramid"`: the mean size over the last layer's, beside the `recent` entries. A whole number from 1 to
   * 1,000,000; `20` by default.
   */
  beta?: number;
  /**
   * Places before the end of what the prompt has left, for `decode: "distance"`. A whole number from 0 to 1,000,000;
   * `25` by default.
   */
  distance?: number;
  /** First entries that are never evicted. A whole number from 0 to 1,000,000; `1` by default. */
  sinks?: number;
  /**
   * Last entries that are never evicted, as far as `recentShare` lets them. A whole number from 0 to 1,000,000; `8` by
   * default.
   */
  recent?: number;
  /** The most that `recent` takes of what a lane keeps. A number from 0 to 1; `0.5` by default. */
  recentShare?: number;
  /** Never evict positions that are text of the prompt. True or false; `false` by default. */
  protectText?: boolean;
  /** For `budget: "prefix"`: leave the sinks out of the cumulative importance. True or false; `false` by default. */
  excludeSink?: boolean;
  /**
   * `cache` rotates keys to their rank among the entries that are left. One of `"true"`, `"cache"`; `"true"` by
   * default.
   */
  positions?: "true" | "cache";
}

/**
 * Custom recipe: any score with any budget, put together from options.
 *
 * @example
 * ```ts
 * import { custom, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: custom({ keep: 0.5 }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function custom(options: CustomOptions = {}): Stage<"custom", CustomOptions> {
  return stage("custom", options);
}

/** Options of {@link merge}. */
export interface MergeOptions {
  /**
   * How much a merged entry counts beside the one that stays, with `rule: "mean"`. A number from 0 to 1; `1` by
   * default.
   */
  weight?: number;
  /** How what is merged is averaged. One of `"mean"`, `"pivot"`; `"mean"` by default. */
  rule?: "mean" | "pivot";
  /** By what the nearest of the entries that stay is found. One of `"key"`, `"position"`; `"key"` by default. */
  nearest?: "key" | "position";
  /** The least cosine at which an entry is merged, with `nearest: "key"`. A number from 0 to 1; `0` by default. */
  least?: number;
}

/**
 * Merging: a stage: adds what the method before it drops to the most similar entries that stay. Wan et al. 2024,
 * LOOK-M, arXiv 2406.18139 (its averaged merging).
 *
 * @example
 * ```ts
 * import { image, load, merge, snapkv } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: [snapkv({ keep: 0.5 }), merge()] });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function merge(options: MergeOptions = {}): Stage<"merge", MergeOptions> {
  return stage("merge", options);
}

/** Options of {@link bf16}. */
export interface Bf16Options {
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `0` by
   * default.
   */
  window?: number;
}

/**
 * bf16: stores what stays in bf16.
 *
 * @example
 * ```ts
 * import { bf16, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: bf16() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function bf16(options: Bf16Options = {}): Stage<"bf16", Bf16Options> {
  return stage("bf16", options);
}

/** Options of {@link fp8}. */
export interface Fp8Options {
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `0` by
   * default.
   */
  window?: number;
}

/**
 * 8 bits of floating point: stores what stays in 8 bits of floating point. Micikevicius et al. 2022, FP8 Formats for
 * Deep Learning, arXiv 2209.05433.
 *
 * @example
 * ```ts
 * import { fp8, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: fp8() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function fp8(options: Fp8Options = {}): Stage<"fp8", Fp8Options> {
  return stage("fp8", options);
}

/** Options of {@link int8}. */
export interface Int8Options {
  /**
   * Numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as
   * they divide a head. A whole number from 8 to 64; `32` by default.
   */
  group?: number;
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `0` by
   * default.
   */
  window?: number;
  /**
   * The numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or
   * channels of one entry. One of `"channel"`, `"entry"`; `"entry"` by default.
   */
  keys?: "channel" | "entry";
  /**
   * Store keys and values through a Hadamard transform, which spreads outliers over the channels of a head. True or
   * false; `false` by default.
   */
  rotate?: boolean;
  /**
   * Whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are
   * read, on the CPU only. One of `"after"`, `"before"`; `"after"` by default.
   */
  rope?: "after" | "before";
}

/**
 * 8 bits: stores what stays in 8 bits.
 *
 * @example
 * ```ts
 * import { image, int8, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: int8() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function int8(options: Int8Options = {}): Stage<"int8", Int8Options> {
  return stage("int8", options);
}

/** Options of {@link int4}. */
export interface Int4Options {
  /**
   * Numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as
   * they divide a head. A whole number from 8 to 64; `32` by default.
   */
  group?: number;
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `128` by
   * default.
   */
  window?: number;
  /**
   * The numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or
   * channels of one entry. One of `"channel"`, `"entry"`; `"channel"` by default.
   */
  keys?: "channel" | "entry";
  /**
   * Store keys and values through a Hadamard transform, which spreads outliers over the channels of a head. True or
   * false; `false` by default.
   */
  rotate?: boolean;
  /**
   * Whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are
   * read, on the CPU only. One of `"after"`, `"before"`; `"after"` by default.
   */
  rope?: "after" | "before";
}

/**
 * 4 bits (KIVI): stores what stays in 4 bits. Liu et al. 2024, KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV
 * Cache, arXiv 2402.02750.
 *
 * @example
 * ```ts
 * import { image, int4, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: int4() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function int4(options: Int4Options = {}): Stage<"int4", Int4Options> {
  return stage("int4", options);
}

/** Options of {@link int2}. */
export interface Int2Options {
  /**
   * Numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as
   * they divide a head. A whole number from 8 to 64; `32` by default.
   */
  group?: number;
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `128` by
   * default.
   */
  window?: number;
  /**
   * The numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or
   * channels of one entry. One of `"channel"`, `"entry"`; `"channel"` by default.
   */
  keys?: "channel" | "entry";
  /**
   * Store keys and values through a Hadamard transform, which spreads outliers over the channels of a head. True or
   * false; `false` by default.
   */
  rotate?: boolean;
  /**
   * Whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are
   * read, on the CPU only. One of `"after"`, `"before"`; `"after"` by default.
   */
  rope?: "after" | "before";
}

/**
 * 2 bits (KIVI): stores what stays in 2 bits. Liu et al. 2024, KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV
 * Cache, arXiv 2402.02750.
 *
 * @example
 * ```ts
 * import { image, int2, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: int2() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function int2(options: Int2Options = {}): Stage<"int2", Int2Options> {
  return stage("int2", options);
}

/** Options of {@link turboquant}. */
export interface TurboquantOptions {
  /** Bits of a code, 2 or 4. A whole number from 2 to 4; `4` by default. */
  bits?: number;
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `0` by
   * default.
   */
  window?: number;
}

/**
 * TurboQuant: stores what stays in levels of the normal distribution, after a random rotation. Zandieh et al. 2025,
 * TurboQuant: Online Vector Quantization with Near-optimal Distortion Rate, arXiv 2504.19874.
 *
 * @example
 * ```ts
 * import { image, load, turboquant } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: turboquant() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function turboquant(options: TurboquantOptions = {}): Stage<"turboquant", TurboquantOptions> {
  return stage("turboquant", options);
}

/** Options of {@link kivi}. */
export interface KiviOptions {
  /** Bits of a code, 2 or 4. A whole number from 2 to 4; `2` by default. */
  bits?: number;
  /**
   * Numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as
   * they divide a head. A whole number from 8 to 64; `32` by default.
   */
  group?: number;
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `128` by
   * default.
   */
  window?: number;
  /**
   * Whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are
   * read, on the CPU only. One of `"after"`, `"before"`; `"after"` by default.
   */
  rope?: "after" | "before";
}

/**
 * KIVI: stores what stays in 2 or 4 bits, keys per channel and values per entry. Liu et al. 2024, KIVI: A Tuning-Free
 * Asymmetric 2bit Quantization for KV Cache, arXiv 2402.02750.
 *
 * @example
 * ```ts
 * import { image, kivi, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: kivi() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function kivi(options: KiviOptions = {}): Stage<"kivi", KiviOptions> {
  return stage("kivi", options);
}

/** Options of {@link akvqVl}. */
export interface AkvqVlOptions {
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `128` by
   * default.
   */
  window?: number;
  /**
   * Tokens of a prompt that stay whole for their magnitude, in the layers behind the text layers. A whole number from 0
   * to 1,000,000; `15` by default.
   */
  pivots?: number;
  /**
   * First layers, in which text takes 4 bits and pivots are as other entries. A whole number from 0 to 1,000,000; `2`
   * by default.
   */
  textLayers?: number;
  /**
   * The part of a group's range that codes of 2 bits cover, in whole hundredths. A number from 0 to 1; `0.8` by
   * default.
   */
  clip?: number;
  /** Store keys and values through a Hadamard transform of each head. True or false; `true` by default. */
  hadamard?: boolean;
}

/**
 * AKVQ-VL: stores what stays in 2 bits, text of the first layers in 4, and keeps pivot tokens whole. Su et al. 2025,
 * AKVQ-VL: Attention-Aware KV Cache Adaptive 2-Bit Quantization for Vision-Language Models, arXiv 2501.15021.
 *
 * @example
 * ```ts
 * import { akvqVl, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: akvqVl() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function akvqVl(options: AkvqVlOptions = {}): Stage<"akvqVl", AkvqVlOptions> {
  return stage("akvqVl", options);
}

/** Options of {@link zipvl}. */
export interface ZipvlOptions {
  /** The share of the attention that the entries in 4 bits hold. A number from 0 to 1; `0.975` by default. */
  mass?: number;
  /** Last queries that are asked, and as many of the others. A whole number from 1 to 1,000,000; `64` by default. */
  probes?: number;
  /**
   * Who takes part in a layer's attention while a prompt is read: every position, or the first class alone. One of
   * `"whole"`, `"sparse"`; `"whole"` by default.
   */
  prefill?: "whole" | "sparse";
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `0` by
   * default.
   */
  window?: number;
}

/**
 * ZipVL: stores the entries that hold most of a layer's attention in 4 bits, the others in 2; can have these alone
 * attend while a prompt is read. He et al. 2024, ZipVL: Efficient Large Vision-Language Models with Dynamic Token
 * Sparsification, arXiv 2410.08584.
 *
 * @example
 * ```ts
 * import { image, load, zipvl } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: zipvl() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function zipvl(options: ZipvlOptions = {}): Stage<"zipvl", ZipvlOptions> {
  return stage("zipvl", options);
}

/** Options of {@link kvtuner}. */
export interface KvtunerOptions {
  /** The bits that model.calibrateBits has found. Such a calibration, or its file. */
  calibration?: BitsSource;
  /**
   * The most bits of a number, the mean over layers, keys and values: the best of the calibration within them; its last
   * point where it is left out. A number from 2 to 16.
   */
  bits?: number;
  /**
   * Bits by hand instead: of keys and of values, for each layer or once for all; 8 and 4 for all without a calibration.
   * An array such as `[[8, 4], [4, 2]]`.
   */
  pairs?: readonly (readonly [keys: number, values: number])[];
  /**
   * Numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as
   * they divide a head. A whole number from 8 to 64; `32` by default.
   */
  group?: number;
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `32` by
   * default.
   */
  window?: number;
  /**
   * The numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or
   * channels of one entry. One of `"channel"`, `"entry"`; `"channel"` by default.
   */
  keys?: "channel" | "entry";
}

/**
 * KVTuner: stores what stays in bits that every layer has of its own, for keys and for values. Li et al. 2025, KVTuner:
 * Sensitivity-Aware Layer-Wise Mixed-Precision KV Cache Quantization, arXiv 2502.04420 (ICML 2025).
 *
 * @example
 * ```ts
 * import { image, kvtuner, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: kvtuner() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function kvtuner(options: KvtunerOptions = {}): Stage<"kvtuner", KvtunerOptions> {
  return stage("kvtuner", options);
}

/** Options of {@link skvq}. */
export interface SkvqOptions {
  /** The orders and clips that model.calibrateChannels has found. Such a calibration, or its file. */
  calibration?: ChannelsSource;
  /** Bits of a code, 2 or 4. A whole number from 2 to 4; `2` by default. */
  bits?: number;
  /**
   * Channels of an entry that share a scale and a zero, a multiple of 8, as far as they divide a head; a calibration
   * says its own. A whole number from 8 to 128; `64` by default.
   */
  group?: number;
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `128` by
   * default.
   */
  window?: number;
  /** First positions of the sequence that stay whole. A whole number from 0 to 1,000,000; `5` by default. */
  sinks?: number;
  /**
   * The part of a group's range that codes cover, in whole hundredths; a calibration says its own for each layer. A
   * number from 0 to 1; `0.92` by default.
   */
  clip?: number;
}

/**
 * SKVQ: stores what stays in 2 or 4 bits, with alike channels in a group, clipped ranges, and the first and last
 * entries whole. Duanmu et al. 2024, SKVQ: Sliding-window Key and Value Cache Quantization for Large Language Models,
 * arXiv 2405.06219.
 *
 * @example
 * ```ts
 * import { image, load, skvq } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: skvq() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function skvq(options: SkvqOptions = {}): Stage<"skvq", SkvqOptions> {
  return stage("skvq", options);
}

/** Options of {@link think}. */
export interface ThinkOptions {
  /** The share of a head's key channels that is stored. A number from 0 to 1; `0.6` by default. */
  channels?: number;
  /** Last queries of a prompt that choose the channels. A whole number from 1 to 1,000,000; `32` by default. */
  queries?: number;
  /**
   * Most recent entries that keep all channels, per layer and head. A whole number from 0 to 1,000,000; `32` by
   * default.
   */
  window?: number;
  /**
   * Bits of a code for the channels and the values; "whole" is the precision of new entries. One of `"whole"`, `"8"`,
   * `"4"`, `"2"`; `"whole"` by default.
   */
  bits?: "whole" | "8" | "4" | "2";
}

/**
 * ThinK: stores the channels of keys that the prompt's last queries use, and leaves out the others. Xu et al. 2024,
 * ThinK: Thinner Key Cache by Query-Driven Pruning, arXiv 2407.21018.
 *
 * @example
 * ```ts
 * import { image, load, think } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: think() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function think(options: ThinkOptions = {}): Stage<"think", ThinkOptions> {
  return stage("think", options);
}

/** Options of {@link lorc}. */
export interface LorcOptions {
  /**
   * The share of a head's coordinates that is stored in the layer that keeps most. A number from 0 to 1; `0.75` by
   * default.
   */
  most?: number;
  /**
   * The share of a head's coordinates that is stored in the layer that keeps least. A number from 0 to 1; `0.5` by
   * default.
   */
  least?: number;
  /** Most recent entries that stay whole, per layer and head. A whole number from 0 to 1,000,000; `32` by default. */
  window?: number;
  /**
   * Whether each head has directions of its own, or all of a layer have some together. One of `"each"`, `"joint"`;
   * `"each"` by default.
   */
  heads?: "each" | "joint";
  /**
   * Whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are
   * read. One of `"after"`, `"before"`; `"before"` by default.
   */
  rope?: "after" | "before";
}

/**
 * LoRC: stores keys and values as fewer numbers, along the directions in which the model's weights put most of them.
 * Zhang et al. 2024, LoRC: Low-Rank Compression for LLMs KV Cache with a Progressive Compression Strategy, arXiv
 * 2410.03111.
 *
 * @example
 * ```ts
 * import { image, load, lorc } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: lorc() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function lorc(options: LorcOptions = {}): Stage<"lorc", LorcOptions> {
  return stage("lorc", options);
}

/** Options of {@link cskv}. */
export interface CskvOptions {
  /** The directions that model.calibrateCskv has found. Such a calibration, or its file. */
  calibration?: DirectionsSource;
  /** The share of the coordinates of keys that is stored. A number from 0 to 1; `0.5` by default. */
  keys?: number;
  /** The share of the coordinates of values that is stored. A number from 0 to 1; `0.5` by default. */
  values?: number;
  /** Most recent entries that stay whole, per layer and head. A whole number from 0 to 1,000,000; `32` by default. */
  window?: number;
  /**
   * Bits of a code for the coordinates; "whole" is the precision of new entries. One of `"whole"`, `"8"`, `"4"`;
   * `"whole"` by default.
   */
  bits?: "whole" | "8" | "4";
}

/**
 * CSKV: stores keys and values as fewer numbers, along directions that a calibration has found, recent ones whole. Wang
 * et al. 2024, CSKV: Training-Efficient Channel Shrinking for KV Cache in Long-Context Scenarios, arXiv 2409.10593.
 *
 * @example
 * ```ts
 * import { cskv, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: cskv({ calibration: await model.calibrateCskv({ samples: [{ messages: [{ role: "user", content }] }] }) }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function cskv(options: CskvOptions = {}): Stage<"cskv", CskvOptions> {
  return stage("cskv", options);
}

/** Options of {@link kvquant}. */
export interface KvquantOptions {
  /** The codebooks that model.calibrateKvquant has found. Such a calibration, or its file. */
  calibration?: CodebookSource;
  /** First positions that stay in full precision. A whole number from 0 to 1,000,000; `1` by default. */
  sinks?: number;
  /**
   * Most recent entries that stay in full precision, per layer and head. A whole number from 0 to 1,000,000; `0` by
   * default.
   */
  window?: number;
}

/**
 * KVQuant: stores what stays in levels that a calibration has found, keys before their rotary embedding, outliers
 * apart. Hooper et al. 2024, KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization, arXiv
 * 2401.18079.
 *
 * @example
 * ```ts
 * import { image, kvquant, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: kvquant({ calibration: await model.calibrateKvquant({ samples: [{ messages: [{ role: "user", content }] }] }) }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function kvquant(options: KvquantOptions = {}): Stage<"kvquant", KvquantOptions> {
  return stage("kvquant", options);
}

/** Options of {@link minicache}. */
export interface MinicacheOptions {
  /** The share of the layers before the first pair. A number from 0 to 1; `0.5` by default. */
  from?: number;
  /**
   * How far the direction is on the way from the lower layer's to the upper layer's. A number from 0 to 1; `0.6` by
   * default.
   */
  t?: number;
  /**
   * The share of the entries that stays unmerged, whose angles are the largest. A number from 0 to 1; `0.05` by
   * default.
   */
  retain?: number;
  /** Most recent entries that stay whole, per layer and head. A whole number from 0 to 1,000,000; `32` by default. */
  window?: number;
  /**
   * Bits of a code for directions and for entries that stay unmerged; "whole" is as new entries are. One of `"whole"`,
   * `"8"`, `"4"`, `"2"`; `"whole"` by default.
   */
  bits?: "whole" | "8" | "4" | "2";
}

/**
 * MiniCache: stores the directions of keys and values of two neighbouring layers once, with a size for each layer. Liu
 * et al. 2024, MiniCache: KV Cache Compression in Depth Dimension for Large Language Models, arXiv 2405.14366.
 *
 * @example
 * ```ts
 * import { image, load, minicache } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: minicache() });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function minicache(options: MinicacheOptions = {}): Stage<"minicache", MinicacheOptions> {
  return stage("minicache", options);
}

/** Options of {@link clla}. */
export interface CllaOptions {
  /** The directions that model.calibrateClla has found. Such a calibration, or its file. */
  calibration?: DirectionsSource;
  /**
   * The numbers that are stored of the keys and values of two layers, as a share of all. A number from 0 to 1; `0.5` by
   * default.
   */
  latent?: number;
  /** Most recent entries that stay whole, per layer and head. A whole number from 0 to 1,000,000; `32` by default. */
  window?: number;
  /**
   * Bits of a code for the latent and for entries that are not joined; "whole" is as new entries are. One of `"whole"`,
   * `"8"`, `"4"`; `"whole"` by default.
   */
  bits?: "whole" | "8" | "4";
}

/**
 * CLLA: stores the keys and values of two neighbouring layers as one latent, which a calibration has found, recent ones
 * whole. Yang et al. 2024, Lossless KV Cache Compression to 2%, arXiv 2410.15252.
 *
 * @example
 * ```ts
 * import { clla, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: clla({ calibration: await model.calibrateClla({ samples: [{ messages: [{ role: "user", content }] }] }) }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function clla(options: CllaOptions = {}): Stage<"clla", CllaOptions> {
  return stage("clla", options);
}

/** Options of {@link kvsharer}. */
export interface KvsharerOptions {
  /** The map that model.calibrateSharing has found. Such a calibration, or its file. */
  calibration?: SharingSource;
  /**
   * How many layers share: the first so many of the calibration, all of them where it is left out. A whole number from
   * 0 to 1,000,000.
   */
  layers?: number;
  /**
   * A map by hand instead: by the number of a layer that shares, the layer that it reads. An object such as `{ "6": 2
   * }`.
   */
  sources?: Readonly<Record<number, number>>;
}

/**
 * KVSharer: lets layers read the keys and values of layers before them. Yang et al. 2024, KVSharer: Efficient Inference
 * via Layer-Wise Dissimilar KV Cache Sharing, arXiv 2410.18517.
 *
 * @example
 * ```ts
 * import { image, kvsharer, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache: kvsharer({ sources: { 6: 2 } }) });
 * console.log(memory.resident / memory.full);
 * ```
 */
export function kvsharer(options: KvsharerOptions = {}): Stage<"kvsharer", KvsharerOptions> {
  return stage("kvsharer", options);
}
