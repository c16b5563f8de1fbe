// The files of a folder of results, line by line; docs/eval.md describes them.
import type { AnyCalibration } from "../calibration.ts";
import type { Keep } from "../generated/wire.ts";
import type { Interval } from "./bootstrap.ts";

/** A method with its options but without a size. */
export interface MethodRecord {
  id: string;
  /** One stage or several, calibrations being told by their hash. */
  cache: unknown;
}

/**
 * `run.json`: what was asked. A folder of results takes no other run.
 *
 * @example
 * ```ts
 * import { evaluate, readResults, type RunRecord } from "prefixkv/eval";
 *
 * await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * const { run }: { run: RunRecord } = await readResults("results-of-h2o");
 * console.log(run.model.architecture, run.data.samples);
 * ```
 */
export interface RunRecord {
  /** The version of the format. Version 1 had its lines cell by cell, not in rounds, and no spread of the times. */
  version: 1 | 2;
  /** Version of this package. */
  package: string;
  /** The measured model; `source` is the name of its folder. */
  model: {
    source: string;
    fingerprint: string;
    architecture: string;
    device: string;
    layers: number;
    kvHeads: number;
    weights: string;
    kvBytesPerToken: number;
  };
  /** The samples, with a hash over texts and pictures. */
  data: { name: string; samples: number; hash: string };
  /** The methods, the full cache first. */
  methods: MethodRecord[];
  /** The sizes, as shares. */
  keeps: number[];
  /** Threads of the process; results repeat to the byte for the same number. */
  threads: number;
  /** Lines that were measured at once, where that was more than one: the times are those of shared steps. */
  batch?: number;
  /** Of the resampling, and of `random` where it has no seed of its own. */
  seed: number;
  /** The method that the others are compared with. */
  baseline: string;
  /** Most tokens of a text, or false where none is generated. */
  generate: { maxTokens: number; beyond: number } | false;
  /** Whether distributions are compared with the full cache's. */
  kl: boolean;
}

/** The method, size and sample that a line of any file is about. */
export interface CellKey {
  method: string;
  keep: number;
  sample: string;
}

/**
 * A line of `quality.jsonl`: a sample with a method at a size. Holds no times and no paths.
 *
 * @example
 * ```ts
 * import { evaluate, type QualityRecord, readResults } from "prefixkv/eval";
 *
 * await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * const { quality }: { quality: QualityRecord[] } = await readResults("results-of-h2o");
 * console.log(quality.map((line) => ("refused" in line ? line.refused.least : line.ppl)));
 * ```
 */
export type QualityRecord = Measured | Refused;

/** The measurements of a sample. */
export interface Measured extends CellKey {
  /** The greedy answer. Absent, as the three after it, where nothing is generated. */
  text?: string;
  /** How many tokens the greedy answer has. */
  textTokens?: number;
  /** F1 against the full cache's answer. */
  rougeL?: number;
  /** Share of equal tokens with the full cache's answer. */
  agreement?: number;
  /** The negative log-likelihood of the reference answer, in nats. */
  nll: number;
  answerTokens: number;
  ppl: number;
  /** Mean divergence per answer token of the full cache's distribution from this one, in nats. */
  kl?: number;
  /** Accuracy of a short answer, 0 to 1. */
  correct?: number;
  /** Objects described right, of how many. */
  right?: number;
  objects?: number;
  /** Entries per layer at the end of the reference answer. */
  keptPerLayer: number[];
  keptShareAfterPrompt: number;
  keptShareAtEnd: number;
  /** The same of the prompt's text alone. Absent, as the two after it, where there is none, and in folders of an earlier release. */
  keptOfText?: number;
  /** Of the images. */
  keptOfImages?: number;
  /** Of the answer. */
  keptOfAnswer?: number;
  effectiveBits: number;
  payloadBytes: number;
  residentBytes: number;
  peakBytes: number;
  /** The bytes of a full cache of the same positions. */
  fullBytes: number;
}

/** A size too small for the entries that the method protects, and the least that works. */
export interface Refused extends CellKey {
  refused: { code: string; least: Keep };
}

/**
 * A line of `timings.jsonl`, in milliseconds: the generation's, or without texts the scoring's.
 *
 * @example
 * ```ts
 * import { evaluate, readResults, type TimingRecord } from "prefixkv/eval";
 *
 * await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * const { timings }: { timings: TimingRecord[] } = await readResults("results-of-h2o");
 * console.log(timings.map(({ engineMs, wallMs }) => wallMs / engineMs));
 * ```
 */
export interface TimingRecord extends CellKey {
  /** Decoding and resizing the picture. */
  imageMs: number;
  /** Vision tower and projector. */
  visionMs: number;
  /** The prompt through the language model, the method included. */
  prefillMs: number;
  /** All steps after the first token. */
  decodeMs: number;
  /** From submit to the first token. */
  firstTokenMs: number;
  /** Of the steps after the first token. */
  tokensPerSecond: number;
  /** All of the engine's work on this line. */
  engineMs: number;
  /** From the line before to this one. */
  wallMs: number;
}

/** A line of `reference.jsonl`: the tokens of the full cache's answer. */
export interface ReferenceRecord {
  sample: string;
  tokens: number[];
}

/** The key of a line of `calibrations.jsonl`: a stage of a method, and the fold it is for. */
export interface FitKey {
  method: string;
  stage: number;
  fold: number;
}

/** A line of `calibrations.jsonl`: the calibration found on the samples of the other folds. */
export interface FitRecord extends FitKey {
  /** Absent where every size is too small. */
  calibration?: AnyCalibration;
  /** Sizes too small for the entries that the method protects in those samples, and the least that works. */
  refused: { keep: number; least: Keep }[];
}

/** A difference from the baseline with its paired interval. */
export interface Difference {
  difference: number;
  low: number;
  high: number;
}

/**
 * A time or a speed over the rounds in which it was measured: every round has each method at each size once, in an order that moves on.
 *
 * @example
 * ```ts
 * import { evaluate, type Spread } from "prefixkv/eval";
 *
 * const { cells } = await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 3, out: "results-of-three" });
 * const show = ({ median, low, high, rounds }: Spread): string => `${median} (${low} to ${high}) over ${rounds} rounds`;
 * for (const { method, tokensPerSecond } of cells) if (tokensPerSecond) console.log(method, show(tokensPerSecond));
 * ```
 */
export interface Spread {
  /** The middle one. */
  median: number;
  /** The lower quartile. */
  low: number;
  /** The upper quartile. */
  high: number;
  /** How many there are. */
  rounds: number;
}

/** Times of fewer rounds are not shown: their quartiles would be meaningless. */
export const leastRounds = 3;

/** The metrics that have intervals. */
export const metrics = ["ppl", "rougeL", "agreement", "kl", "accuracy", "right"] as const;

/** One of the metrics that have intervals. */
export type Metric = (typeof metrics)[number];

/**
 * A method at a size over all samples; shares are means over them.
 *
 * @example
 * ```ts
 * import { type CellSummary, evaluate } from "prefixkv/eval";
 *
 * const { cells } = await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * const line = ({ method, keep, kl, versus }: CellSummary): unknown[] => [method, keep, kl?.value, versus?.ppl?.difference];
 * console.log(cells.map(line));
 * ```
 */
export interface CellSummary extends Partial<Record<Metric, Interval>> {
  /** The id of the method. */
  method: string;
  /** The size as a share; 1 for the full cache. */
  keep: number;
  /** Samples that were measured. */
  samples: number;
  /** Samples for which the size is too small for the entries that the method protects. */
  refused: number;
  /** The least size that works for all refused samples. */
  least?: Keep;
  /** Entries per layer at the end of the reference answer. */
  keptPerLayer?: number[];
  /** Entries over positions and layers, after the prompt. */
  keptShareAfterPrompt?: number;
  /** The same at the end of the reference answer. */
  keptShare?: number;
  /** The same of the prompts' text alone. */
  keptOfText?: number;
  /** Of the images. */
  keptOfImages?: number;
  /** Of the answers. */
  keptOfAnswer?: number;
  /** Bits that one number of a key or value takes, scales included. */
  effectiveBits?: number;
  /** Bytes of the cache relative to a full one, at the end of the reference answer. */
  residentShare?: number;
  /** Peak bytes relative to a full cache. */
  peakShare?: number;
  /** Of the steps after the first token, over the samples whose text has more than one. */
  tokensPerSecond?: Spread;
  /** The same relative to the full cache in the same round, which is the least sensitive to a machine that changes its speed. */
  speedup?: Spread;
  /** Milliseconds from submit to the first token. */
  firstTokenMs?: Spread;
  /** This cell less the baseline, over the samples that both have. */
  versus?: Partial<Record<Metric, Difference>>;
}

/**
 * `summary.json`: every method at every size, and how long it took.
 *
 * @example
 * ```ts
 * import { evaluate, type Summary } from "prefixkv/eval";
 *
 * const summary: Summary = await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * for (const { method, keep, ppl } of summary.cells) console.log(method, keep, ppl?.value);
 * ```
 */
export interface Summary {
  /** The version of the format, as in `run.json`. */
  version: 1 | 2;
  /** Every method at every size, the full cache first. */
  cells: CellSummary[];
  /** All time over the engine's. */
  overhead: { wallMs: number; engineMs: number; ratio: number };
}
