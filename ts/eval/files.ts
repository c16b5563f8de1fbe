import { mkdir, open, readFile, rename, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { OptionError } from "../errors.ts";
import { badFiles, reasonOf } from "./errors.ts";
import type { CellKey, QualityRecord, ReferenceRecord, RunRecord, Summary, TimingRecord } from "./records.ts";

/** The lines of a file that are whole; what a broken-off write left behind the last one is not among them. */
interface Lines<T> {
  values: T[];
  /** Where each line ends, in bytes. */
  ends: number[];
}

/** The growing files of a run, in the order in which a sample is written to them: the last one decides what is done. */
export class RunFiles {
  readonly folder: string;
  readonly quality: QualityRecord[];
  readonly timings: TimingRecord[];
  readonly references: Map<string, number[]>;

  private constructor(
    folder: string,
    quality: QualityRecord[],
    timings: TimingRecord[],
    references: ReferenceRecord[],
  ) {
    this.folder = folder;
    this.quality = quality;
    this.timings = timings;
    this.references = new Map(references.map(({ sample, tokens }) => [sample, tokens]));
  }

  /**
   * Opens a folder for a run. What a run of the same kind left there is taken over as far as it is whole, and the files are cut to that;
   * the folder of another run is refused.
   */
  static async open(folder: string, run: RunRecord, plan: readonly CellKey[]): Promise<RunFiles> {
    await attempt(folder, () => mkdir(folder, { recursive: true }));
    const known = await readRun(folder);
    if (known !== undefined) refuseOther(folder, known, run);
    const [quality, timings, references] = await Promise.all([
      readLines<QualityRecord>(folder, "quality.jsonl"),
      readLines<TimingRecord>(folder, "timings.jsonl"),
      readLines<ReferenceRecord>(folder, "reference.jsonl"),
    ]);
    if (known === undefined && quality.values.length > 0)
      throw badFiles(folder, "it holds results but no run.json; take another folder");
    checkPlan(folder, "quality.jsonl", quality.values, plan);
    checkPlan(folder, "timings.jsonl", timings.values, plan);
    const first = plan.filter(({ method }) => method === "full");
    references.values.forEach(({ sample }, index) => {
      if (sample !== first[index]?.sample) throw foreign(folder, "reference.jsonl", index);
    });
    let done = Math.min(quality.values.length, timings.values.length);
    if (run.generate && references.values.length < first.length) done = Math.min(done, references.values.length);
    await cut(folder, "quality.jsonl", quality, done);
    await cut(folder, "timings.jsonl", timings, done);
    await cut(folder, "reference.jsonl", references, Math.min(done, first.length));
    if (known === undefined) await writeWhole(join(folder, "run.json"), run);
    return new RunFiles(folder, quality.values, timings.values, references.values);
  }

  /** Writes a sample, its line of `quality.jsonl` last. */
  async add(quality: QualityRecord, timing: TimingRecord, reference?: ReferenceRecord): Promise<void> {
    if (reference) {
      await append(this.folder, "reference.jsonl", reference);
      this.references.set(reference.sample, reference.tokens);
    }
    await append(this.folder, "timings.jsonl", timing);
    await append(this.folder, "quality.jsonl", quality);
    this.quality.push(quality);
    this.timings.push(timing);
  }

  async finish(summary: Summary): Promise<void> {
    await writeWhole(join(this.folder, "summary.json"), summary);
  }
}

/** What a folder of results holds. */
export interface Results {
  run: RunRecord;
  quality: QualityRecord[];
  timings: TimingRecord[];
  /** Absent while the run is not whole. */
  summary?: Summary;
}

/**
 * Reads a folder of results, whole or not.
 *
 * @example
 * ```ts
 * import { evaluate, readResults } from "prefixkv/eval";
 *
 * await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * const { run, quality } = await readResults("results-of-h2o");
 * console.log(run.keeps, quality.length);
 * ```
 */
export async function readResults(folder: string): Promise<Results> {
  const run = await readRun(folder);
  if (run === undefined) throw badFiles(folder, "it has no run.json, so it is no folder of results");
  const { values: quality } = await readLines<QualityRecord>(folder, "quality.jsonl");
  const { values: timings } = await readLines<TimingRecord>(folder, "timings.jsonl");
  const summary = await readObject<Summary>(join(folder, "summary.json"));
  return { run, quality, timings, ...(summary && { summary }) };
}

async function readRun(folder: string): Promise<RunRecord | undefined> {
  const file = join(folder, "run.json");
  const run = await readObject<RunRecord>(file);
  if (run === undefined) return undefined;
  if (run.version !== 1) throw badFiles(file, `its version is ${String(run.version)}; this release reads 1`);
  const { model, data, methods, keeps } = run;
  if (!model || !data || !Array.isArray(methods) || !Array.isArray(keeps))
    throw badFiles(file, "it lacks model, data, methods or keeps");
  return run;
}

async function readObject<T>(file: string): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw badFiles(file, reasonOf(error), { cause: error });
  }
  try {
    const value = JSON.parse(text) as T;
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // Said below.
  }
  throw badFiles(file, "it is no JSON object");
}

async function readLines<T>(folder: string, name: string): Promise<Lines<T>> {
  const file = join(folder, name);
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return { values: [], ends: [] };
    throw badFiles(file, reasonOf(error), { cause: error });
  }
  const lines: Lines<T> = { values: [], ends: [] };
  for (let start = 0; ; ) {
    const end = bytes.indexOf(10, start) + 1;
    if (end === 0) return lines;
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString("utf8", start, end));
    } catch {
      value = null;
    }
    if (typeof value !== "object" || value === null)
      throw badFiles(file, `line ${lines.values.length + 1} is no JSON object; delete the folder to begin anew`);
    lines.values.push(value as T);
    lines.ends.push(end);
    start = end;
  }
}

async function cut<T>(folder: string, name: string, lines: Lines<T>, count: number): Promise<void> {
  const file = join(folder, name);
  lines.values.length = count;
  const length = lines.ends[count - 1] ?? 0;
  await attempt(file, async () => {
    const handle = await open(file, "a");
    try {
      if ((await handle.stat()).size > length) await truncate(file, length);
    } finally {
      await handle.close();
    }
  });
}

function checkPlan(folder: string, name: string, lines: readonly CellKey[], plan: readonly CellKey[]): void {
  lines.forEach(({ method, keep, sample }, index) => {
    const want = plan[index];
    if (want?.method !== method || want.keep !== keep || want.sample !== sample) throw foreign(folder, name, index);
  });
}

function foreign(folder: string, name: string, index: number): Error {
  return badFiles(
    join(folder, name),
    `line ${index + 1} does not belong to the run of run.json; delete the folder to begin anew`,
  );
}

/** Throws when a folder's run is another than the asked one, saying in what. */
function refuseOther(folder: string, known: RunRecord, asked: RunRecord): void {
  const differences = differing("", known, asked);
  if (differences.length === 0) return;
  throw new OptionError(
    "option",
    `invalid option: \`out\` (${folder}) holds another run: ${differences.join("; ")}. Take another folder, or ask for the same`,
    { suggestion: null, differences },
  );
}

function differing(name: string, known: unknown, asked: unknown): string[] {
  const plain = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  if (plain(known) && plain(asked)) {
    const names = [...new Set([...Object.keys(known), ...Object.keys(asked)])];
    return names.flatMap((field) => differing(name === "" ? field : `${name}.${field}`, known[field], asked[field]));
  }
  const [was, is] = [JSON.stringify(known) ?? "nothing", JSON.stringify(asked) ?? "nothing"];
  return was === is ? [] : [`${name} was ${was}, asked is ${is}`];
}

/** One write of one line, so that a kill leaves at most one line broken. */
async function append(folder: string, name: string, value: object): Promise<void> {
  const file = join(folder, name);
  await attempt(file, () => writeFile(file, `${JSON.stringify(value)}\n`, { flag: "a" }));
}

/** Writes a file so that a reader never sees half of it. */
async function writeWhole(file: string, value: object): Promise<void> {
  await attempt(file, async () => {
    await writeFile(`${file}.new`, `${JSON.stringify(value, null, 2)}\n`);
    await rename(`${file}.new`, file);
  });
}

async function attempt<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw badFiles(file, reasonOf(error), { cause: error });
  }
}
