// Every method on the 60 held-out scenes: `npm run methods`. Writes bench/results/methods.json and docs/results/methods.md, which
// hold no times. What is done stays in .cache/bench/methods, so that an interrupted run goes on where it was.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { bootstrap, type Interval, ratio, resampling } from "../ts/eval/bootstrap.ts";
import { describes } from "../ts/eval/data/scenes.ts";
import { entries } from "../ts/eval/metrics.ts";
import { rougeL } from "../ts/eval/rouge.ts";
import {
  type CacheMethod,
  type Calibration,
  load,
  type Message,
  type Model,
  PrefixKvError,
  prefixkv,
} from "../ts/index.ts";
import { resultsFolder } from "./machine.ts";
import { markdown } from "./methods_report.ts";
import { ask, readSamples, type Sample } from "./scenes.ts";

/** A method without its size. */
export type Cache = { method: CacheMethod["method"]; keep?: number; [option: string]: unknown };

export interface Variant {
  id: string;
  title: string;
  cache: Cache;
  /** Uses sizes found on other scenes. */
  calibrated?: true;
}

/** A scene with a method. */
export interface Outcome {
  text: string;
  generated: number;
  nll: number;
  tokens: number;
  right: number;
  objects: number;
  rouge: number;
  /** Share of the prompt in all positions at the end of the reference answer. */
  promptShare: number;
  /** Kept shares of the positions seen, after the prompt and after the reference answer. */
  afterPrompt: number;
  atEnd: number;
  /** Entries kept after the prompt less those asked for, over all layers. */
  excess: number;
  /** Bytes over those of the full cache, after the reference answer. */
  resident: number;
  peak: number;
}

/** A method at a size, over all scenes. */
export interface Row {
  method: string;
  keep: number;
  ppl: Interval;
  right: Interval;
  rouge: Interval;
  afterPrompt: number;
  atEnd: number;
  /** The excess with the largest amount. */
  excess: number;
  resident: number;
  peak: number;
}

/** A size that does not hold what the method protects. */
export interface Refused {
  method: string;
  keep: number;
  least: number;
}

export interface Report {
  scenes: number;
  objects: number;
  answerTokens: number;
  /** Share of the prompt in all positions at the end of the reference descriptions. */
  promptShare: number;
  layers: number;
  weights: string;
  resampling: typeof resampling;
  methods: { id: string; title: string; cache: Cache }[];
  keeps: number[];
  full: Row;
  rows: (Row | Refused)[];
  /** The same over the scenes with even numbers only: the defaults of PrefixKV were chosen on the others. */
  even: Row[];
}

type Cell = { outcomes: Outcome[] } | { least: number };

const full: Variant = { id: "full", title: "full cache", cache: { method: "full" } };

export const variants: readonly Variant[] = [
  { id: "prefixkv", title: "PrefixKV", cache: { method: "prefixkv" } },
  { id: "prefixkv-paper", title: "PrefixKV as published", cache: { method: "prefixkv", variant: "paper" } },
  { id: "prefixkv-none", title: "PrefixKV, none while generating", cache: { method: "prefixkv", decode: "none" } },
  { id: "prefixkv-offline", title: "PrefixKV, offline", cache: { method: "prefixkv" }, calibrated: true },
  { id: "h2o", title: "H2O", cache: { method: "h2o" } },
  { id: "snapkv", title: "SnapKV", cache: { method: "snapkv" } },
  { id: "streaming", title: "StreamingLLM", cache: { method: "streaming" } },
  {
    id: "streaming-cache",
    title: "StreamingLLM, cache positions",
    cache: { method: "streaming", positions: "cache" },
  },
  { id: "knorm", title: "L2 norm", cache: { method: "knorm" } },
  { id: "random", title: "Random", cache: { method: "random" } },
];
export const sizes: readonly number[] = [0.8, 0.6, 0.5, 0.4, 0.2];

/** Scenes at a time: each has the bits that it gets alone, and the weights are read once for all. */
const together = 16;
/** A text may be this many tokens longer than that of the full cache: one that does not end would take all the time. */
const longer = 16;
const root = new URL("../", import.meta.url);
const done = new URL(".cache/bench/methods/", root);
const docs = new URL("docs/results/methods.md", root);
const results = (part: boolean): URL => new URL("methods.json", resultsFolder(part));

/** All scenes of a cell as one row. */
export function summarise(method: string, keep: number, outcomes: readonly Outcome[]): Row {
  const one = (): number => 1;
  const nll = ratio<Outcome>(
    (scene) => scene.nll,
    (scene) => scene.tokens,
  );
  const right = ratio<Outcome>(
    (scene) => scene.right,
    (scene) => scene.objects,
  );
  const mean = (of: (scene: Outcome) => number): number => short(ratio(of, one)(outcomes));
  const interval = (statistic: (scenes: readonly Outcome[]) => number): Interval => {
    const { value, low, high } = bootstrap(outcomes, statistic);
    return { value: short(value), low: short(low), high: short(high) };
  };
  return {
    method,
    keep,
    ppl: interval((scenes) => Math.exp(nll(scenes))),
    right: interval(right),
    rouge: interval(ratio((scene) => scene.rouge, one)),
    afterPrompt: mean((scene) => scene.afterPrompt),
    atEnd: mean((scene) => scene.atEnd),
    excess: outcomes.reduce((most, { excess }) => (Math.abs(excess) > Math.abs(most) ? excess : most), 0),
    resident: mean((scene) => scene.resident),
    peak: mean((scene) => scene.peak),
  };
}

/** One scene; throws the budget error of a size that does not hold what the method protects. */
async function scene(model: Model, sample: Sample, cache: Cache, reference: Outcome | undefined): Promise<Outcome> {
  const messages = ask(sample);
  const { layers, kvHeads } = model.info;
  const maxTokens = reference ? reference.generated + longer : 256;
  const method = cache as CacheMethod;
  const scored = await model.score({ messages, answer: sample.answer, cache: method, kept: true });
  const { text, tokens } = await model.generate({ messages, maxTokens, cache: method });
  const { memory, usage, kept } = scored;
  const held = entries(kept, kvHeads);
  const all = layers * usage.promptTokens;
  const seen = memory.full / model.info.kvBytesPerToken;
  return {
    text,
    generated: tokens.length,
    nll: -scored.logprobs.reduce((a, b) => a + b, 0),
    tokens: scored.tokens.length,
    right: sample.objects.filter((object) => describes(text, object)).length,
    objects: sample.objects.length,
    rouge: rougeL(text, reference?.text ?? text),
    promptShare: usage.promptTokens / seen,
    afterPrompt: held / all,
    atEnd: memory.keptPerLayer.reduce((sum, count) => sum + count, 0) / (layers * seen),
    excess: held - Math.floor((cache.keep ?? 1) * all + 0.5),
    resident: memory.resident / memory.full,
    peak: memory.peak / memory.full,
  };
}

/** Runs cells, keeping each that is whole. */
class Run {
  readonly #model: Model;
  readonly #samples: readonly Sample[];
  readonly #folder: URL;
  readonly #start = performance.now();
  #scenes = 0;
  /** Scenes that are still to be run. */
  left = 0;
  reference: readonly Outcome[] = [];

  constructor(model: Model, samples: readonly Sample[], folder: URL) {
    this.#model = model;
    this.#samples = samples;
    this.#folder = folder;
  }

  #file(variant: Variant, keep: number): URL {
    return new URL(`${variant.id}-${keep}.json`, this.#folder);
  }

  async found(variant: Variant, keep: number): Promise<Cell | undefined> {
    return JSON.parse(await readFile(this.#file(variant, keep), "utf8").catch(() => "null")) ?? undefined;
  }

  async cell(variant: Variant, keep: number, cacheOf: (index: number) => Cache): Promise<Cell> {
    const outcomes = new Array<Outcome>(this.#samples.length);
    let least = 0;
    const queue = this.#samples.entries();
    const one = async (): Promise<void> => {
      for (const [index, sample] of queue) {
        this.#say(`${variant.id} ${keep}, scene ${index + 1} of ${this.#samples.length}`);
        try {
          outcomes[index] = await scene(this.#model, sample, cacheOf(index), this.reference[index]);
        } catch (error) {
          if (!(error instanceof PrefixKvError && error.code === "budget")) throw error;
          least = Math.max(least, Number(error.details.least));
        }
        this.#scenes += 1;
        this.left -= 1;
      }
    };
    await Promise.all(Array.from({ length: together }, one));
    const cell = least > 0 ? { least } : { outcomes };
    const file = this.#file(variant, keep);
    const partial = new URL(`${file.href}.${process.pid}`);
    await writeFile(partial, JSON.stringify(cell));
    await rename(partial, file);
    return cell;
  }

  #say(what: string): void {
    const each = (performance.now() - this.#start) / this.#scenes;
    const left = this.#scenes > 0 ? `, ${Math.ceil((each * this.left) / 60_000)} min left` : "";
    process.stderr.write(`\r\x1b[K${what}${left}`);
  }
}

async function measure(
  model: Model,
  samples: readonly Sample[],
  methods: readonly Variant[],
  keeps: readonly number[],
): Promise<Report> {
  const folder = new URL(`${await state(samples.length)}/`, done);
  await mkdir(folder, { recursive: true });
  const run = new Run(model, samples, folder);
  const missing: [Variant, number][] = [];
  for (const variant of methods)
    for (const keep of keeps) if (!(await run.found(variant, keep))) missing.push([variant, keep]);
  const known = await run.found(full, 1);
  run.left = (missing.length + (known ? 0 : 1)) * samples.length;

  const plain = known ?? (await run.cell(full, 1, () => full.cache));
  if (!("outcomes" in plain)) throw new Error("the full cache was refused");
  run.reference = plain.outcomes;
  const needed = missing.filter(([variant]) => variant.calibrated).map(([, keep]) => keep);
  const calibrations = await crossCalibrations(model, samples, needed);
  for (const [variant, keep] of missing) {
    await run.cell(variant, keep, (index) => {
      const calibration = variant.calibrated && calibrations[index % calibrations.length];
      return { ...variant.cache, keep, ...(calibration && { calibration }) };
    });
  }
  if (run.left !== 0) throw new Error(`${run.left} scenes were not run`);
  process.stderr.write("\n");

  const rows: Report["rows"] = [];
  const even: Row[] = [];
  for (const keep of keeps) {
    for (const variant of methods) {
      const cell = await run.found(variant, keep);
      if (!cell) throw new Error(`${variant.id} ${keep} is missing`);
      if ("outcomes" in cell) {
        const scenes = cell.outcomes.filter((_, index) => index % 2 === 0);
        even.push(summarise(variant.id, keep, scenes));
      }
      rows.push(
        "outcomes" in cell ? summarise(variant.id, keep, cell.outcomes) : { method: variant.id, keep, ...cell },
      );
    }
  }
  const sum = (of: (scene: Outcome) => number): number => plain.outcomes.reduce((total, scene) => total + of(scene), 0);
  return {
    scenes: samples.length,
    objects: sum(({ objects }) => objects),
    answerTokens: sum(({ tokens }) => tokens),
    promptShare: short(sum(({ promptShare }) => promptShare) / samples.length),
    layers: model.info.layers,
    weights: model.info.weights,
    resampling,
    methods: methods.map(({ id, title, cache, calibrated }) => ({
      id,
      title,
      cache: { ...cache, ...(calibrated && { calibration: "of other scenes" }) },
    })),
    keeps: [...keeps],
    full: summarise(full.id, 1, plain.outcomes),
    rows,
    even,
  };
}

/** A calibration for the scenes with even numbers, from the others, and one the other way round: no scene is among its own. */
async function crossCalibrations(
  model: Model,
  samples: readonly Sample[],
  keeps: readonly number[],
): Promise<Calibration[]> {
  if (keeps.length === 0) return [];
  if (samples.length < 2) throw new Error("a calibration needs other scenes: take --limit 2 or more, or --methods");
  const groups = [1, 0].map((parity): Message[][] => samples.filter((_, index) => index % 2 === parity).map(ask));
  process.stderr.write("\r\x1b[Kcalibrating");
  const found: Calibration[] = [];
  for (const group of groups) {
    const given = group.map((messages) => ({ messages }));
    found.push(await model.calibrate({ method: prefixkv(), samples: given, keeps: [...keeps].sort((a, b) => a - b) }));
  }
  return found;
}

/** What results depend on: the native code, the model, the scenes, how many of them, and what is done with each. */
async function state(scenes: number): Promise<string> {
  const hash = createHash("sha256").update(String(scenes));
  const native = (await readdir(new URL("native/", root)))
    .filter((name) => name.endsWith(".node"))
    .sort()
    .map((name) => `native/${name}`);
  const ours = [
    "bench/methods.ts",
    "bench/scenes.ts",
    "ts/eval/data/scenes.ts",
    "ts/eval/metrics.ts",
    "ts/eval/rouge.ts",
  ];
  for (const file of [...native, "models/tiny-llava/model.safetensors", "data/scenes/samples.json", ...ours])
    hash.update(await readFile(new URL(file, root)));
  return hash.digest("hex").slice(0, 16);
}

/** Eight digits: what comes after them differs between machines. */
function short(value: number): number {
  return Number(value.toPrecision(8));
}

/** The things that a list names, all of them without one. */
function chosen<T>(
  list: string | undefined,
  all: readonly T[],
  of: (text: string) => T | undefined,
  known: string,
): readonly T[] {
  if (list === undefined) return all;
  return list.split(",").map((text) => {
    const found = of(text);
    if (found === undefined) throw new Error(`unknown \`${text}\`; there are ${known}`);
    return found;
  });
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      limit: { type: "string" },
      methods: { type: "string" },
      keeps: { type: "string" },
      fresh: { type: "boolean" },
      docs: { type: "boolean" },
      check: { type: "boolean" },
    },
  });
  if (options.check || options.docs) return await pages(options.check ?? false);
  const share = (text: string): number | undefined =>
    Number(text) > 0 && Number(text) <= 1 ? Number(text) : undefined;
  const methods = chosen(
    options.methods,
    variants,
    (text) => variants.find(({ id }) => id === text),
    variants.map(({ id }) => id).join(", "),
  );
  const keeps = chosen(options.keeps, sizes, share, "shares above 0 and at most 1");
  const samples = (await readSamples()).slice(0, options.limit === undefined ? undefined : Number(options.limit));
  if (samples.length === 0) throw new Error(`--limit ${options.limit} leaves no scenes`);
  const part = [options.limit, options.methods, options.keeps].some((option) => option !== undefined);
  if (options.fresh) await rm(done, { recursive: true, force: true });

  // Node 22 reads this file in the tests and has no `await using`.
  const model = await load(undefined, { batch: together });
  const report = await measure(model, samples, methods, keeps).finally(() => model.dispose());
  await mkdir(new URL("./", results(part)), { recursive: true });
  await writeFile(results(part), `${JSON.stringify(report, null, 2)}\n`);
  if (!part) await pages(false);
  process.stdout.write(markdown(report));
}

/** Writes the page of the results that are there, or fails when it is stale. */
async function pages(check: boolean): Promise<void> {
  const text = await readFile(results(false), "utf8").catch(() => {
    throw new Error("there are no results yet; run `npm run methods`");
  });
  const want = markdown(JSON.parse(text));
  if (!check) {
    await mkdir(new URL("./", docs), { recursive: true });
    await writeFile(docs, want);
  } else if ((await readFile(docs, "utf8").catch(() => "")).replaceAll("\r\n", "\n") !== want) {
    throw new Error("docs/results/methods.md is stale; run `npm run methods -- --docs`");
  }
}

if (import.meta.main) {
  await main().catch((error: Error) => {
    process.stderr.write(`\n${error.message}\n`);
    process.exit(1);
  });
}
