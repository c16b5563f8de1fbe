import { boundTo } from "../calibrate.ts";
import { BudgetError } from "../errors.ts";
import type { ModelInfo } from "../generated/wire.ts";
import type { Requests } from "../requests.ts";
import { Combination, combine, type Stages, steps } from "./axes.ts";
import { FitError } from "./error.ts";
import { Evaluator, type Given, perToken, readSamples, sum } from "./evaluator.ts";
import { type Fit, type FitPoint, requireFitFile, writeFit } from "./file.ts";
import { type AskedFit, readFit } from "./options.ts";
import { type Measured, type Refused, type Runner, Search } from "./search.ts";

/** Searches methods, sizes and stores together for the best quality within each number of bytes. */
export async function fit(requests: Requests, info: ModelInfo, options: unknown): Promise<Fit> {
  const asked = readFit(options);
  const { objective, points, file, signal } = asked;
  if (file !== undefined) await requireFitFile(file);
  const combinations = await combine(points, signal);
  const given = await readSamples("fit", asked.samples, signal);
  const about = { call: "fit", objective, signal };
  const fault = (message: string): FitError => new FitError("fit", message);
  const head = { format: "prefixkv-fit-partial" };
  const evaluator = await Evaluator.open(requests, info, about, given, file, fault, head);
  try {
    const found = await new Fitting(info, asked, evaluator).run(given, combinations);
    if (file !== undefined) await writeFit(found, file);
    await evaluator.known.remove();
    return found;
  } finally {
    await evaluator.known.close();
  }
}

/** One fit. */
class Fitting {
  readonly #info: ModelInfo;
  readonly #asked: AskedFit;
  readonly #evaluator: Evaluator;

  constructor(info: ModelInfo, asked: AskedFit, evaluator: Evaluator) {
    this.#info = info;
    this.#asked = asked;
    this.#evaluator = evaluator;
  }

  async run(given: readonly Given[], combinations: readonly Combination[]): Promise<Fit> {
    const { budgets, objective } = this.#asked;
    const evaluator = this.#evaluator;
    const full: Measured[] = [];
    for (const [index, sample] of given.entries()) {
      await evaluator.add(sample);
      full.push((await evaluator.measure(new Combination([]).at(steps), index)) as Measured);
      this.#say("samples", index + 1, given.length);
    }
    const order = full.map((_, index) => index).sort((a, b) => (full[b]?.bytes ?? 0) - (full[a]?.bytes ?? 0));
    const measure = (cache: Stages, index: number): Promise<Measured | Refused> => evaluator.measure(cache, index);
    const search = new Search(combinations, measure, order);
    const tokens = sum(full.map((each) => each.tokens));
    const curve: FitPoint[] = [];
    // A larger budget takes all that a smaller one does.
    let best: Runner | undefined;
    for (const [index, bytes] of budgets.entries()) {
      best = await search.best(bytes, best ? [best] : [], (done) =>
        this.#say("search", index * search.length + done, budgets.length * search.length),
      );
      if (best === undefined) throw nothingFits(bytes, await search.least());
      curve.push(pointOf(bytes, best, tokens));
    }
    return {
      format: "prefixkv-fit",
      version: 1,
      model: boundTo(this.#info),
      objective,
      samples: evaluator.length,
      tokens,
      full: {
        resident: Math.max(...full.map((each) => each.bytes)),
        loss: perToken(sum(full.map((each) => each.loss)), tokens),
      },
      cache: (curve.at(-1) as FitPoint).cache,
      curve,
    };
  }

  #say(stage: string, done: number, total: number): void {
    this.#asked.onProgress?.({ stage, done, total });
  }
}

function pointOf(bytes: number, { combination, size, bytes: resident, loss }: Runner, tokens: number): FitPoint {
  return { bytes, cache: combination.at(size), resident, loss: perToken(loss, tokens) };
}

function nothingFits(asked: number, least: number): BudgetError {
  return new BudgetError(
    "budget",
    `no combination of the methods and stores fits into ${asked} bytes with every sample; the least that one takes is ${least} bytes`,
    { asked: { bytes: asked }, least: { bytes: least } },
  );
}
