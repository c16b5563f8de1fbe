import { join } from "node:path";
import { OptionError } from "../errors.ts";
import type { Spread } from "../eval/records.ts";
import { readingReason, readRegularText } from "../regular_file.ts";
import type { Interval } from "./charts/quality.ts";

/** No file of an evaluation may be larger. */
const maxBytes = 512 * 1024 * 1024;

/** `run.json`: what was evaluated. */
export interface RunFile {
  version: 1 | 2;
  model: { source: string; architecture: string; layers: number; kvBytesPerToken: number; weights: string };
  data: { name: string; samples: number };
  methods: { id: string; cache: Record<string, unknown> }[];
  keeps: number[];
  threads?: number;
  batch?: number;
  seed?: number;
  baseline?: string;
}

/** A cell of `summary.json`: a method at one size, over all samples. */
export interface SummaryRow {
  method: string;
  /** Null for the full cache, which has no size. */
  keep: number | null;
  samples: number;
  refused: number;
  ppl?: Interval;
  rougeL?: Interval;
  agreement?: Interval;
  kl?: Interval;
  accuracy?: Interval;
  right?: Interval;
  keptPerLayer: number[];
  keptShare: number;
  residentShare: number;
  peakShare?: number;
  /** Speeds over rounds; earlier releases measured none. */
  tokensPerSecond?: Spread;
  speedup?: Spread;
  firstTokenMs?: Spread;
}

/** An evaluation's folder. */
export interface EvalFolder {
  run: RunFile;
  rows: SummaryRow[];
}

/** Reads what a report needs of the folder of an evaluation; throws an OptionError that names the file and the field. */
export async function readEval(folder: string): Promise<EvalFolder> {
  const run = object(await json(folder, "run.json"), "run.json");
  if (run.version !== 1 && run.version !== 2)
    throw wrong("run.json", `has the version ${String(run.version)}; this release reads versions 1 and 2`);
  checkFields(object(run.model, "run.json: `model`"), "run.json: `model`", {
    source: "string",
    architecture: "string",
    layers: "number",
    kvBytesPerToken: "number",
    weights: "string",
  });
  checkFields(object(run.data, "run.json: `data`"), "run.json: `data`", { name: "string", samples: "number" });
  if (!Array.isArray(run.methods)) throw wrong("run.json", "has no list `methods`");
  for (const [index, method] of run.methods.entries()) {
    const where = `run.json: methods[${index}]`;
    checkFields(object(method, where), where, { id: "string" });
  }
  if (!Array.isArray(run.keeps) || run.keeps.some((keep) => typeof keep !== "number"))
    throw wrong("run.json", "has no list of numbers `keeps`");
  const summary = object(await json(folder, "summary.json"), "summary.json");
  if (!Array.isArray(summary.cells)) throw wrong("summary.json", "has no list `cells`");
  const rows = summary.cells.map((value: unknown, index: number) => row(value, `summary.json: cells[${index}]`));
  if (rows.length === 0) throw wrong("summary.json", "has no cells; the evaluation has not finished a sample");
  return { run: run as unknown as RunFile, rows };
}

async function json(folder: string, name: string): Promise<unknown> {
  const file = join(folder, name);
  let text: string;
  try {
    text = await readRegularText(file, maxBytes);
  } catch (cause) {
    const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    const reason = missing ? "is missing" : `cannot be read: ${readingReason(cause)}`;
    throw new OptionError("option", `${folder} is no folder of an evaluation: ${name} ${reason}`, { file }, { cause });
  }
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new OptionError("option", `${file} is not JSON: ${String(cause)}`, { file }, { cause });
  }
}

function checkFields(fields: Record<string, unknown>, where: string, kinds: Record<string, "string" | "number">): void {
  for (const [name, kind] of Object.entries(kinds))
    if (typeof fields[name] !== kind) throw wrong(where, `has no ${kind === "string" ? "text" : "number"} \`${name}\``);
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw wrong(where, "is no object");
}

const intervals = ["ppl", "rougeL", "agreement", "kl", "accuracy", "right"] as const;
const shares = ["keptShare", "residentShare"] as const;
const spreads = ["tokensPerSecond", "speedup", "firstTokenMs"] as const;

function row(value: unknown, where: string): SummaryRow {
  const fields = object(value, where);
  if (typeof fields.method !== "string") throw wrong(where, "has no text `method`");
  if (!Number.isInteger(fields.samples)) throw wrong(where, "has no whole number `samples`");
  // A size at which every sample was refused has no numbers.
  const empty = fields.samples === 0;
  const number = (name: string): number => {
    const found = fields[name];
    if (typeof found === "number" && Number.isFinite(found)) return found;
    if (empty) return 0;
    throw wrong(where, `has no number \`${name}\``);
  };
  const kept = fields.keptPerLayer ?? [];
  if (!Array.isArray(kept) || kept.some((entry) => typeof entry !== "number")) {
    throw wrong(where, "has no list of numbers `keptPerLayer`");
  }
  const found = intervals.flatMap((name) => {
    const interval = fields[name];
    return interval === undefined || interval === null ? [] : [[name, readInterval(interval, `${where}.${name}`)]];
  });
  const measured = spreads.flatMap((name) => {
    const value = fields[name];
    // A number alone is one of an earlier release: the middle of one stretch of time, which says as much of the machine.
    return typeof value !== "object" || value === null ? [] : [[name, readSpread(value, `${where}.${name}`)]];
  });
  return {
    method: fields.method,
    keep: fields.method === "full" || typeof fields.keep !== "number" ? null : fields.keep,
    samples: fields.samples as number,
    refused: typeof fields.refused === "number" ? fields.refused : 0,
    keptPerLayer: kept as number[],
    keptShare: number(shares[0]),
    residentShare: number(shares[1]),
    ...Object.fromEntries(found),
    ...(typeof fields.peakShare === "number" && { peakShare: fields.peakShare }),
    ...Object.fromEntries(measured),
  };
}

function readInterval(value: unknown, where: string): Interval {
  const { value: middle, low = middle, high = middle } = object(value, where);
  if (![middle, low, high].every((number) => typeof number === "number" && Number.isFinite(number))) {
    throw wrong(where, "is no { value, low, high } of finite numbers");
  }
  return { value: middle as number, low: low as number, high: high as number };
}

function readSpread(value: object, where: string): Spread {
  const { median, low, high, rounds } = value as Record<string, unknown>;
  if (![median, low, high, rounds].every((number) => typeof number === "number" && Number.isFinite(number)))
    throw wrong(where, "is no { median, low, high, rounds } of finite numbers");
  return { median, low, high, rounds } as Spread;
}

function wrong(where: string, what: string): OptionError {
  return new OptionError("option", `${where} ${what}`, { suggestion: null });
}
