import { join } from "node:path";
import { OptionError } from "../errors.ts";
import { readText } from "../options/rules.ts";
import { badFiles } from "./errors.ts";
import { append, badLine, cut, readLines, readObject, writeWhole } from "./lines.ts";
import type {
  CellKey,
  FitKey,
  FitRecord,
  QualityRecord,
  ReferenceRecord,
  RunRecord,
  Summary,
  TimingRecord,
} from "./records.ts";
import { asFit, asQuality, asReference, asTiming } from "./shapes.ts";

/** The growing files of a run, in the order in which a sample is written to them: the last one decides what is done. */
export class RunFiles {
  readonly folder: string;
  readonly quality: QualityRecord[];
  readonly timings: TimingRecord[];
  readonly references: Map<string, number[]>;
  /** The calibrations that were found, in the order in which they are. */
  readonly fits: FitRecord[];
  readonly #check: () => Promise<void>;

  private constructor(
    folder: string,
    quality: QualityRecord[],
    timings: TimingRecord[],
    references: ReferenceRecord[],
    fits: FitRecord[],
    check: () => Promise<void>,
  ) {
    this.folder = folder;
    this.quality = quality;
    this.timings = timings;
    this.fits = fits;
    this.#check = check;
    this.references = new Map(references.map(({ sample, tokens }) => [sample, tokens]));
  }

  /**
   * Opens a folder for a run. Complete lines of an earlier run of the same kind are taken over, and the files are cut to them;
   * the folder of another run is refused. `check` is called before every write and throws when the folder is no longer this run's;
   * `fits` are the calibrations that the run finds before its lines.
   */
  static async open(
    folder: string,
    run: RunRecord,
    plan: readonly CellKey[],
    check: () => Promise<void> = async () => {},
    fits: readonly FitKey[] = [],
  ): Promise<RunFiles> {
    const known = await readRun(folder);
    if (known !== undefined) refuseOther(folder, known, run);
    const [found, quality, timings, references] = await Promise.all([
      readLines(folder, "calibrations.jsonl", asFit),
      readLines(folder, "quality.jsonl", asQuality),
      readLines(folder, "timings.jsonl", asTiming),
      readLines(folder, "reference.jsonl", asReference),
    ]);
    if (known === undefined && quality.values.length > 0)
      throw badFiles(folder, "it holds results but no run.json; take another folder");
    found.values.forEach((line, index) => {
      if (fitName(line) !== fitName(fits[index])) throw foreign(folder, "calibrations.jsonl", index);
    });
    checkPlan(folder, "quality.jsonl", quality.values, plan);
    checkPlan(folder, "timings.jsonl", timings.values, plan);
    const first = plan.filter(({ method }) => method === "full");
    references.values.forEach(({ sample }, index) => {
      if (sample !== first[index]?.sample) throw foreign(folder, "reference.jsonl", index);
    });
    // Lines depend on the calibrations.
    const fitted = found.values.length === fits.length;
    let done = fitted ? Math.min(quality.values.length, timings.values.length) : 0;
    const answered = (): number => plan.slice(0, done).filter(({ method }) => method === "full").length;
    // A line of the full cache without its reference has to be measured again.
    if (run.generate && answered() > references.values.length)
      done = plan.indexOf(first[references.values.length] as CellKey);
    if (fits.length > 0) await cut(folder, "calibrations.jsonl", found, found.values.length);
    await cut(folder, "quality.jsonl", quality, done);
    await cut(folder, "timings.jsonl", timings, done);
    await cut(folder, "reference.jsonl", references, run.generate ? answered() : 0);
    if (known === undefined) await writeWhole(join(folder, "run.json"), run);
    return new RunFiles(folder, quality.values, timings.values, references.values, found.values, check);
  }

  /** The full cache's answer to the sample of the last line, which lines of other methods are compared with. */
  lastAnswer(): { text: string; tokens: readonly number[] } | undefined {
    const line = this.quality.findLast(({ method }) => method === "full");
    const tokens = line && this.references.get(line.sample);
    return line && "text" in line && tokens ? { text: line.text ?? "", tokens } : undefined;
  }

  /** Writes a calibration that was found. */
  async addFit(fit: FitRecord): Promise<void> {
    await this.#check();
    await append(this.folder, "calibrations.jsonl", fit);
    this.fits.push(fit);
  }

  /** Writes a sample, its line of `quality.jsonl` last. */
  async add(quality: QualityRecord, timing: TimingRecord, reference?: ReferenceRecord): Promise<void> {
    await this.#check();
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
    await this.#check();
    await writeWhole(join(this.folder, "summary.json"), summary);
  }
}

/** The contents of a folder of results. */
export interface Results {
  run: RunRecord;
  quality: QualityRecord[];
  timings: TimingRecord[];
  /** Absent while the run is incomplete. */
  summary?: Summary;
}

/**
 * Reads a folder of results, complete or not.
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
  readText(folder, "readResults", "folder");
  const run = await readRun(folder);
  if (run === undefined) throw badFiles(folder, "it has no run.json, so it is no folder of results");
  const { values: quality } = await readLines(folder, "quality.jsonl", asQuality);
  const { values: timings } = await readLines(folder, "timings.jsonl", asTiming);
  const summary = await readObject<Summary>(join(folder, "summary.json"));
  return { run, quality, timings, ...(summary && { summary }) };
}

async function readRun(folder: string): Promise<RunRecord | undefined> {
  const file = join(folder, "run.json");
  const run = await readObject<RunRecord>(file);
  if (run === undefined) return undefined;
  if (run.version !== 1 && run.version !== 2)
    throw badFiles(file, `its version is ${String(run.version)}; this release reads 1 and 2`);
  const { model, data, methods, keeps } = run;
  if (!model || !data || !Array.isArray(methods) || !Array.isArray(keeps))
    throw badFiles(file, "it lacks model, data, methods or keeps");
  return run;
}

function checkPlan(folder: string, name: string, lines: readonly CellKey[], plan: readonly CellKey[]): void {
  lines.forEach(({ method, keep, sample }, index) => {
    const want = plan[index];
    if (want === undefined || want.method !== method || want.keep !== keep || want.sample !== sample)
      throw foreign(folder, name, index);
  });
}

function fitName(key: FitKey | undefined): string {
  return JSON.stringify(key && [key.method, key.stage, key.fold]);
}

function foreign(folder: string, name: string, index: number): Error {
  return badLine(join(folder, name), index + 1, "it does not belong to the run of run.json");
}

/** Throws if a folder holds another run than the requested one, listing the differences. */
function refuseOther(folder: string, known: RunRecord, asked: RunRecord): void {
  if (known.version !== asked.version)
    throw badFiles(folder, "an earlier release has begun it, and ran its lines in another order; take another folder");
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
