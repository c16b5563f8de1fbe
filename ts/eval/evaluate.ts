import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { abortError } from "../errors.ts";
import type { ModelInfo } from "../generated/wire.ts";
import { load } from "../load.ts";
import type { Model } from "../model.ts";
import type { LoadOptions } from "../options/load.ts";
import { packageVersion } from "../version.ts";
import { CrossFit } from "./cross_fit.ts";
import { openData } from "./data/open.ts";
import { badOption } from "./errors.ts";
import { RunFiles } from "./files.ts";
import { withFolder } from "./folder_lock.ts";
import { inOrder } from "./in_order.ts";
import { attempt } from "./lines.ts";
import { Measurer, type Outcome, type Reference, round } from "./measure.ts";
import { checkKeeps, full, type Prepared, prepareMethods } from "./methods.ts";
import { type EvaluateOptions, readEvaluate } from "./options.ts";
import type { CellKey, RunRecord, Summary } from "./records.ts";
import { type EvalData, type EvalSample, hashOf } from "./samples.ts";
import { summarise } from "./summarise.ts";

/** Most lines at once. */
const maxBatch = 256;

/** A text may be this many tokens longer than the full cache's: one that does not end would take all the time. */
const beyond = 16;

/**
 * Measures methods at several sizes over samples: perplexity of the reference answers, closeness to the full cache's answers and
 * distributions, entries, bytes and times. Writes `run.json`, `quality.jsonl`, `timings.jsonl`, `reference.jsonl` and
 * `summary.json` to `out`; an interrupted run resumes when it is requested again, and its quality is the same to the
 * byte as without the interruption. Throws an OptionError when `out` holds another run, and an EvaluationError for data or files that cannot be used.
 *
 * @example
 * ```ts
 * import { evaluate } from "prefixkv/eval";
 *
 * const { cells } = await evaluate({ methods: ["prefixkv", "streaming"], keeps: [0.5], limit: 2, out: "results-of-scenes" });
 * for (const { method, keep, ppl, rougeL } of cells) console.log(method, keep, ppl, rougeL);
 * ```
 */
export async function evaluate(options: EvaluateOptions): Promise<Summary> {
  return measure(readEvaluate(options));
}

async function measure(options: EvaluateOptions): Promise<Summary> {
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal);
  const methods = await prepareMethods(options.methods, signal);
  const keeps = checkKeeps(options.keeps);
  const samples = await samplesOf(options);
  const { baseline = "full" } = options;
  if (baseline !== "full" && !methods.some(({ id }) => id === baseline))
    throw badOption(`\`baseline\` is \`${baseline}\`; there are full, ${methods.map(({ id }) => id).join(", ")}`);
  const fits = new CrossFit(methods, samples.samples);
  const { batch = 1 } = options;
  if (batch > maxBatch || batch < 1)
    throw badOption(`\`batch\` must be a whole number from 1 to ${maxBatch}, found ${batch}`);
  const loading = { ...loadingOf(batch), ...options.load, ...(signal && { signal }) };
  const model = options.model ?? (await load(options.source, loading));
  try {
    const run = await describeRun(options, model.info, samples, methods, keeps);
    return await new Evaluation(model, run, methods, samples.samples, fits, options).run();
  } finally {
    if (!options.model) await model.dispose();
  }
}

/** The options with which a model reads so many lines at once: prompts whole, as each by itself. */
export function loadingOf(batch: number): LoadOptions {
  return batch > 1 ? { batch, prefillChunk: 0 } : {};
}

async function samplesOf({ data, limit }: EvaluateOptions): Promise<EvalData> {
  const all = typeof data === "object" ? data : await openData(data);
  if (limit === undefined) return all;
  if (!Number.isSafeInteger(limit) || limit < 1)
    throw badOption(`\`limit\` must be a whole number from 1, found ${limit}`);
  return { ...all, samples: all.samples.slice(0, limit) };
}

async function describeRun(
  options: EvaluateOptions,
  info: ModelInfo,
  { name, samples }: EvalData,
  methods: readonly Prepared[],
  keeps: number[],
): Promise<RunRecord> {
  const { seed = 1, baseline = "full", generate = true, maxTokens = 256, kl = true, batch = 1 } = options;
  if (!Number.isSafeInteger(seed) || seed < 0) throw badOption(`\`seed\` must be a whole number from 0, found ${seed}`);
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1)
    throw badOption(`\`maxTokens\` must be a whole number from 1, found ${maxTokens}`);
  const { fingerprint, architecture, device, layers, kvHeads, weights, kvBytesPerToken } = info;
  return {
    version: 2,
    package: await packageVersion(),
    model: {
      source: sourceName(info.source),
      fingerprint,
      architecture,
      device,
      layers,
      kvHeads,
      weights,
      kvBytesPerToken,
    },
    data: { name, samples: samples.length, hash: await hashOf(samples) },
    methods: [full, ...methods].map(({ record }) => record),
    keeps,
    threads: info.threads,
    ...(batch > 1 && { batch }),
    seed,
    baseline,
    generate: generate && { maxTokens, beyond },
    kl,
  };
}

/** The name of a model without its path: the folder's name, or `org/name@revision` for one in the Hub cache. */
export function sourceName(path: string): string {
  const parts = path.split(/[\\/]/).filter((part) => part !== "");
  const [hub = "", kind, revision] = parts.slice(-3);
  if (kind === "snapshots" && hub.startsWith("models--"))
    return `${hub.slice("models--".length).replace("--", "/")}@${revision}`;
  return parts.at(-1) ?? "";
}

/** A method at a size. */
interface Cell {
  method: Prepared;
  keep: number;
}

/** One line of a run: a cell and a sample. */
interface Step {
  cell: Cell;
  sample: EvalSample;
  key: CellKey;
}

/**
 * The lines of a run in rounds: every sample with the full cache, against which the others are measured, then with every method at every
 * size, or once where it takes none. The order of these moves on by one from round to round, so that no method always runs when the machine is warm, or after the same
 * other one.
 */
function plan(samples: readonly EvalSample[], methods: readonly Prepared[], keeps: readonly number[]): Step[] {
  const sized = methods.filter((method) => method.sized);
  const others = [
    ...keeps.flatMap((keep) => sized.map((method): Cell => ({ method, keep }))),
    ...methods.filter((method) => !method.sized).map((method): Cell => ({ method, keep: 1 })),
  ];
  return samples.flatMap((sample, round) => {
    const at = others.length === 0 ? 0 : round % others.length;
    const cells: Cell[] = [{ method: full, keep: 1 }, ...others.slice(at), ...others.slice(0, at)];
    return cells.map((cell) => ({ cell, sample, key: { method: cell.method.id, keep: cell.keep, sample: sample.id } }));
  });
}

/** One run over its grid. */
class Evaluation {
  readonly #run: RunRecord;
  readonly #model: Model;
  readonly #steps: readonly Step[];
  readonly #fits: CrossFit;
  readonly #measurer: Measurer;
  readonly #options: EvaluateOptions;

  constructor(
    model: Model,
    run: RunRecord,
    methods: readonly Prepared[],
    samples: readonly EvalSample[],
    fits: CrossFit,
    options: EvaluateOptions,
  ) {
    this.#model = model;
    this.#run = run;
    this.#steps = plan(samples, methods, run.keeps);
    this.#measurer = new Measurer(model, run, fits, options.signal);
    this.#fits = fits;
    this.#options = options;
  }

  async run(): Promise<Summary> {
    const out = this.#options.out instanceof URL ? fileURLToPath(this.#options.out) : this.#options.out;
    await attempt(out, () => mkdir(out, { recursive: true }));
    return withFolder(out, async (check) => {
      const keys = this.#steps.map(({ key }) => key);
      const files = await RunFiles.open(out, this.#run, keys, check, this.#fits.keys);
      await this.#fits.find(files, this.#model, this.#run.keeps, this.#options.signal, (calibrating) => {
        this.#options.onProgress?.({ done: files.quality.length, total: keys.length, calibrating });
      });
      await this.#measure(files);
      const summary = summarise(this.#run, files.quality, files.timings);
      await files.finish(summary);
      return summary;
    });
  }

  async #measure(files: RunFiles): Promise<void> {
    const before = files.quality.length;
    const total = this.#steps.length;
    const start = performance.now();
    let last = start;
    // The text that the others of the round are compared with.
    let answer: Promise<Reference | undefined> = Promise.resolve(files.lastAnswer());
    const begin = ({ cell, sample }: Step): Promise<Outcome> => {
      if (cell.method !== full) return answer.then((found) => this.#measurer.measure(cell, sample, found));
      const outcome = this.#measurer.measure(cell, sample);
      answer = outcome.then(({ quality, tokens }) =>
        "text" in quality && tokens ? { text: quality.text ?? "", tokens } : undefined,
      );
      answer.catch(() => {});
      return outcome;
    };
    const steps = this.#steps.slice(before);
    let index = before;
    for await (const [{ cell, sample, key }, outcome] of inOrder(steps, this.#options.batch ?? 1, begin)) {
      const each = (last - start) / (index - before);
      this.#say(index, total, key, index > before ? each * (total - index) : undefined);
      const { quality, timing, tokens } = await outcome;
      const now = performance.now();
      const reference = cell.method === full && tokens ? { sample: sample.id, tokens } : undefined;
      await files.add(quality, { ...timing, wallMs: round(now - last) }, reference);
      last = now;
      index += 1;
    }
    this.#say(total, total);
  }

  #say(done: number, total: number, next?: CellKey, millisecondsLeft?: number): void {
    this.#options.onProgress?.({
      done,
      total,
      ...(next && { next }),
      ...(millisecondsLeft !== undefined && { millisecondsLeft }),
    });
  }
}
