import { createHash } from "node:crypto";
import { basename } from "node:path";
import type { CacheOption } from "../cache.ts";
import { type AnyCalibration, readCalibration } from "../calibration.ts";
import { methods as table } from "../generated/method_table.ts";
import { readText } from "../options/rules.ts";
import { readSetting } from "../options/setting.ts";
import { badOption } from "./errors.ts";
import { type Finder, finders } from "./finders.ts";
import type { MethodRecord } from "./records.ts";

/** A stage of a method without its size. */
export interface SizelessStage {
  readonly method: string;
  /**
   * As in the method's options, or `{ crossFit: N }` to have the evaluation calibrate by itself: the samples are dealt into N folds in
   * turn, and each sample is measured with the calibration found on all other folds. Beside `crossFit` stand options of the calibration,
   * such as `trials` of `model.calibrateBits` or `bits` of `model.calibrateKvquant`; for sizes of layers there are none.
   */
  readonly calibration?: unknown;
  readonly [option: string]: unknown;
}

/**
 * A method to measure under a name of its own: the options of `cache` without the size, which the evaluation sets.
 *
 * @example
 * ```ts
 * import { type EvalMethod, evaluate } from "prefixkv/eval";
 *
 * const methods: EvalMethod[] = [{ id: "text first", cache: { method: "prefixkv", score: "text" } }];
 * await evaluate({ methods, keeps: [0.5], limit: 1, out: "results-of-text-first" });
 * ```
 */
export interface EvalMethod {
  /** Names the method in the results. */
  id: string;
  /** The method without its size, or several stages. */
  cache: SizelessStage | readonly SizelessStage[];
}

/** Most methods of one evaluation. */
const most = 256;
/** Most folds of a calibration. */
const mostFolds = 100;
/** Options of a calibration that the evaluation sets. */
const ours = ["samples", "file", "resume", "onProgress", "signal"];

/**
 * Reads `prefixkv` or `prefixkv:score=text,decode=none`: a name and options behind a colon. Values are JSON or plain text.
 *
 * @example
 * ```ts
 * import { parseMethod } from "prefixkv/eval";
 *
 * console.log(parseMethod("snapkv:window=16,pool=mean"));
 * ```
 */
export function parseMethod(text: string): EvalMethod {
  readText(text, "parseMethod", "text");
  const [, name = "", list] = /^\s*([^:]*?)\s*(?::(.*))?$/s.exec(text) ?? [];
  const facts = table.find((method) => method.name === name);
  if (!facts) throw badOption(`there is no method \`${name}\`; there are ${table.map(({ name }) => name).join(", ")}`);
  const given = (list ?? "").split(",").filter((item) => item.trim() !== "");
  const shown: string[] = [];
  const options = given.map((item): [string, unknown] => {
    const { name: option, option: known, written, value } = readSetting(facts, item);
    if (!known) {
      const names = facts.options.map((candidate) => candidate.name).join(", ") || "none";
      throw badOption(`\`${item}\` of \`${text}\` is no OPTION=VALUE of ${name}; its options are ${names}`);
    }
    shown.push(`${option}=${known.kind === "calibration" ? basename(written) : written}`);
    return [option, value];
  });
  const id = shown.length === 0 ? name : `${name}:${shown.join(",")}`;
  return { id, cache: { method: name, ...Object.fromEntries(options) } };
}

/** Splits `prefixkv:score=text,decode=none,h2o` into its methods: an OPTION=VALUE belongs to the method before it. */
export function splitMethods(text: string): string[] {
  const found: string[] = [];
  for (const part of text.split(",")) {
    const before = found.at(-1);
    if (before?.includes(":") && /^\s*\w+\s*=/.test(part)) found[found.length - 1] = `${before},${part}`;
    else if (part.trim() !== "") found.push(part.trim());
  }
  return found;
}

/** A stage whose calibration the evaluation finds. */
export interface Fit {
  /** Its place among the stages. */
  index: number;
  folds: number;
  /** The stage without a calibration. */
  stage: SizelessStage;
  /** Finds it; undefined for sizes of layers, which depend on what is kept. */
  finder?: Finder | undefined;
  /** Options of the calibration. */
  options: Readonly<Record<string, unknown>>;
}

/** A method that is ready to be asked at any size. */
export interface Prepared {
  id: string;
  record: MethodRecord;
  fits: readonly Fit[];
  /** Whether a stage takes `keep`. A method that takes none is measured once, as of size 1. */
  sized: boolean;
  /**
   * The method at a size. Random draws depend on a seed and on the sample, so that samples are independent.
   * `calibration` returns the calibration found for a stage of `fits`.
   */
  at(
    keep: number,
    seed: number,
    sample: string,
    calibration?: (index: number) => AnyCalibration | undefined,
  ): CacheOption;
}

/** The full cache, which every evaluation begins with. */
export const full: Prepared = {
  id: "full",
  record: { id: "full", cache: { method: "full" } },
  fits: [],
  sized: false,
  at: () => ({ method: "full" }),
};

/** The methods with their calibrations read, without the full cache. */
export async function prepareMethods(
  given: readonly (string | EvalMethod)[],
  signal?: AbortSignal,
): Promise<Prepared[]> {
  if (given.length > most) throw badOption(`${given.length} \`methods\` are too many, at most ${most} are measured`);
  const read = given.map((method) => (typeof method === "string" ? parseMethod(method) : method));
  const ids = new Set<string>();
  for (const { id, cache } of read) {
    if (typeof id !== "string" || id === "") throw badOption("each of `methods` needs an `id`");
    if (ids.has(id)) throw badOption(`the method \`${id}\` is there twice in \`methods\`; give each an id of its own`);
    if (id === "full" && stagesOf(cache).some(({ method }) => method !== "full"))
      throw badOption("the id `full` belongs to the full cache; give the method another one");
    ids.add(id);
  }
  return Promise.all(read.filter(({ id }) => id !== "full").map((method) => prepare(method, signal)));
}

function stagesOf(cache: EvalMethod["cache"]): readonly SizelessStage[] {
  return Array.isArray(cache) ? (cache as readonly SizelessStage[]) : [cache as SizelessStage];
}

async function prepare({ id, cache }: EvalMethod, signal?: AbortSignal): Promise<Prepared> {
  const stages = stagesOf(cache);
  if (stages.some((stage) => typeof stage !== "object" || stage === null || typeof stage.method !== "string"))
    throw badOption(`the method \`${id}\` needs a \`cache\` with the name of a method`);
  const sized = stages.find((stage) => stage.keep !== undefined);
  if (sized) throw badOption(`the method \`${id}\` has a \`keep\`; the sizes of an evaluation are its \`keeps\``);
  const read = await Promise.all(stages.map((stage) => withCalibration(stage, signal)));
  const fits = read.flatMap((stage, index) => fitOf(id, stage, index));
  const isFit = (index: number): boolean => fits.some((fit) => fit.index === index);
  const shown = stages.map((stage, index) => (isFit(index) ? stage : withHash(stage, read[index]?.calibration)));
  const at: Prepared["at"] = (keep, seed, sample, calibration) => {
    const drawn = read.map((stage, index) => {
      if (isFit(index)) return { ...stage, calibration: calibration?.(index) };
      return stage.method === "random" ? { ...stage, seed: drawFor(stage.seed ?? seed, sample) } : stage;
    });
    const sized = drawn.map((stage) => (takesKeep(stage) ? { ...stage, keep } : stage));
    return (Array.isArray(cache) ? sized : sized[0]) as unknown as CacheOption;
  };
  const record = { id, cache: Array.isArray(cache) ? shown : shown[0] };
  return { id, record, fits, sized: stages.some(takesKeep), at };
}

/** The engine refuses the names that it does not know. */
function takesKeep({ method }: SizelessStage): boolean {
  return table.find(({ name }) => name === method)?.budget !== "outcome";
}

/** The fit of a stage that asks for one. */
function fitOf(id: string, { calibration, ...stage }: SizelessStage, index: number): Fit[] {
  if (typeof calibration !== "object" || calibration === null || !Object.hasOwn(calibration, "crossFit")) return [];
  const { crossFit: folds, ...rest } = calibration as { crossFit: unknown };
  const known = table.find(({ name }) => name === stage.method);
  const kind = known?.options.find(({ name }) => name === "calibration")?.kind;
  if (known && !kind) throw badOption(`the method \`${id}\` asks for a calibration, but ${stage.method} takes none`);
  const finder = kind && finders[kind];
  const other = Object.keys(rest).find((name) => !finder || ours.includes(name));
  if (other !== undefined)
    throw badOption(`the \`calibration\` of the method \`${id}\` has \`${other}\` beside \`crossFit\``);
  if (typeof folds !== "number" || !Number.isSafeInteger(folds) || folds < 2 || folds > mostFolds)
    throw badOption(
      `\`crossFit\` of the method \`${id}\` must be a whole number from 2 to ${mostFolds}, found ${JSON.stringify(folds)}`,
    );
  return [{ index, folds, stage, finder, options: rest }];
}

/** A seed for a sample, among those that `random` takes. */
function drawFor(seed: unknown, sample: string): number {
  const hash = createHash("sha256")
    .update(JSON.stringify([seed, sample]))
    .digest();
  return hash.readUInt32BE(0) % 1_000_000;
}

async function withCalibration(stage: SizelessStage, signal?: AbortSignal): Promise<SizelessStage> {
  const { calibration } = stage;
  if (typeof calibration !== "string" && !(calibration instanceof URL)) return stage;
  return { ...stage, calibration: await readCalibration(calibration, signal) };
}

/** A stage as recorded in `run.json`: a calibration by its hash, not its path. */
function withHash(stage: SizelessStage, calibration: unknown): SizelessStage {
  if (calibration === undefined) return stage;
  const hash = createHash("sha256").update(JSON.stringify(calibration)).digest("hex");
  return { ...stage, calibration: `sha256:${hash}` };
}

/** The sizes in the order given; throws for invalid ones. */
export function checkKeeps(keeps: readonly number[]): number[] {
  const wrong = keeps.find((keep) => typeof keep !== "number" || !(keep > 0 && keep <= 1));
  if (wrong !== undefined) throw badOption(`\`keeps\` are shares above 0 and up to 1, found ${String(wrong)}`);
  if (new Set(keeps).size !== keeps.length) throw badOption("`keeps` holds a size twice");
  return [...keeps];
}
