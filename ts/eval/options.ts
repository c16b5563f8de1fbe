import type { Model } from "../model.ts";
import { type LoadOptions, readLoad } from "../options/load.ts";
import { Place } from "../options/place.ts";
import { plain } from "../options/plain.ts";
import {
  address,
  callback,
  fields,
  flag,
  list,
  number,
  own,
  type Rule,
  type Rules,
  signal,
  text,
  whole,
} from "../options/rules.ts";

import type { EvalMethod } from "./methods.ts";
import type { CellKey } from "./records.ts";

import type { EvalData } from "./samples.ts";

/**
 * Options of `evaluate`: what to measure, and where to write it.
 *
 * @example
 * ```ts
 * import { type EvaluateOptions, evaluate } from "prefixkv/eval";
 *
 * const options: EvaluateOptions = { methods: ["prefixkv:score=text", "h2o"], keeps: [0.5], limit: 1, out: "results-of-two" };
 * const { cells } = await evaluate(options);
 * console.log(cells.map(({ method, keep, keptShare }) => [method, keep, keptShare]));
 * ```
 */
export interface EvaluateOptions {
  /** A loaded model; it is not disposed. */
  model?: Model;
  /** Without `model`: what `load` takes; the embedded model by default. */
  source?: string | URL;
  /** How `source` is loaded. */
  load?: LoadOptions;
  /** Samples, or what `openData` takes; the 60 scenes of the package by default. */
  data?: EvalData | string;
  /** Methods as `NAME`, `NAME:OPTION=VALUE,...` or with an id of their own. The full cache always comes first. */
  methods: readonly (string | EvalMethod)[];
  /** Retained shares, above 0 and up to 1. */
  keeps: readonly number[];
  /** The folder to write to. A folder with part of the same run is continued; one with another run is refused. */
  out: string | URL;
  /** Use only the first so many samples. */
  limit?: number;
  /** The id that others are compared with; `"full"`, the full cache, by default, else a method at the same size. */
  baseline?: string;
  /** Whether to generate texts; true by default. Without them there is no ROUGE-L, no agreement and no accuracy. */
  generate?: boolean;
  /** The most tokens of a text; 256 by default. A text is at most 16 tokens longer than the full cache's. */
  maxTokens?: number;
  /** Whether to compare whole distributions with the full cache's; true by default, at the cost of another pass per line. */
  kl?: boolean;
  /**
   * Lines that are measured at once; 1 by default. The model is loaded with as large a `batch`; one that is given should be. Quality is the
   * same to the byte; times are those of steps that are shared, and say nothing about a method.
   */
  batch?: number;
  /** Of the resampling, and of `random` where it has no seed of its own; 1 by default. */
  seed?: number;
  /** Stops the work; see AbortError. Lines already written are kept, and a later run resumes after them. */
  signal?: AbortSignal;
  /** Called before every line, at the end, and for every prompt read while calibrating. */
  onProgress?: (progress: EvalProgress) => void;
}

/** How far an evaluation has come: `done` of `total` lines. */
export interface EvalProgress {
  done: number;
  total: number;
  /** The next line; absent at the end and while calibrating. */
  next?: CellKey;
  /** While calibrating: the method, and how many of the prompts for it have been read. */
  calibrating?: { method: string; done: number; total: number };
  /** An estimate, once a line has been measured. */
  millisecondsLeft?: number;
}

/**
 * Options of `reproduce`.
 *
 * @example
 * ```ts
 * import { load } from "prefixkv";
 * import type { ReproduceOptions } from "prefixkv/eval";
 *
 * await using model = await load();
 * const options: ReproduceOptions = { table: "prefixkv-ablation", model, out: "table", limit: 1 };
 * console.log(options.table);
 * ```
 */
export interface ReproduceOptions {
  /** The name of the table. */
  table: string;
  /** LLaVA-1.5 7B or 13B; any other model stands in. */
  model: Model;
  /** The data that the table names, by path; the scenes of the package stand in. */
  data?: string;
  /** The folder of the pictures, where it is not the usual one. */
  images?: string;
  /** The folder of the results. */
  out: string;
  /** Only the first samples. */
  limit?: number;
  /** Stops the work; the same call goes on later. */
  signal?: AbortSignal;
  /** Called after every sample. */
  onProgress?: (progress: EvalProgress) => void;
}

const model: Rule<Model> = (value, place) => {
  const able = place.look(value, (found) => typeof (found as Model).generate === "function" && "info" in found);
  if (able !== true) throw place.refuse("a model of load()", value);
  return value as Model;
};

const data: Rule<EvalData | string> = (value, place) => {
  if (typeof value === "string") return text(value, place);
  const read = fields({ name: text, samples: list((sample, at) => Object.fromEntries(own(sample, at))) })(value, place);
  if (read.name === undefined || read.samples === undefined)
    throw place.refuse("data of openData() or dataOf()", value);
  return read as unknown as EvalData;
};

const method: Rule<string | EvalMethod> = (value, place) =>
  typeof value === "string" ? text(value, place) : (plain(value, place, "a text or { id, cache }") as EvalMethod);

const folder: Rule<string | URL> = (value, place) => {
  const found = address(value, place);
  if (found === "") throw place.invalid("is empty; name a folder");
  return found;
};

const evaluateFields = fields({
  model,
  source: address,
  load: (value, place) => {
    own(value, place);
    return readLoad(value);
  },
  data,
  methods: list(method, "an array of methods"),
  keeps: list(number, "an array of shares"),
  out: folder,
  limit: whole,
  baseline: text,
  generate: flag,
  maxTokens: whole,
  kl: flag,
  batch: whole,
  seed: whole,
  signal,
  onProgress: callback,
} satisfies Rules<EvaluateOptions>);

const reproduceFields = fields({
  table: text,
  model,
  data: text,
  images: text,
  out: text,
  limit: whole,
  signal,
  onProgress: callback,
} satisfies Rules<ReproduceOptions>);

/** The options of `evaluate` in copies; throws an OptionError. */
export function readEvaluate(options: unknown): EvaluateOptions {
  const place = new Place("evaluate");
  return needed(evaluateFields(options, place), place, ["methods", "keeps", "out"]) as EvaluateOptions;
}

/** The options of `reproduce` in copies; throws an OptionError. */
export function readReproduce(options: unknown): ReproduceOptions {
  const place = new Place("reproduce");
  return needed(reproduceFields(options, place), place, ["table", "model", "out"]) as ReproduceOptions;
}

function needed<T extends object>(read: T, place: Place, names: readonly string[]): T {
  for (const name of names) if (!Object.hasOwn(read, name)) throw place.field(name).invalid("is missing");
  return read;
}
