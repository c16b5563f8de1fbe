import { createHash } from "node:crypto";
import { boundTo } from "../calibrate.ts";
import { BudgetError } from "../errors.ts";
import type { ModelInfo } from "../generated/wire.ts";
import type { WirePrompt } from "../messages.ts";
import { lastEvent } from "../native/ticket.ts";
import { Place } from "../options/place.ts";
import { stoppable } from "../options/samples.ts";
import type { Requests } from "../requests.ts";
import { packageVersion } from "../version.ts";
import { Combination, combine, type Stages, steps } from "./axes.ts";
import { type Fit, type FitPoint, requireFitFile, writeFit } from "./file.ts";
import { type AskedFit, readFit, readSample } from "./options.ts";
import { Measurements } from "./partial.ts";
import { type Measured, type Refused, type Runner, Search } from "./search.ts";

/** A sample with its reference. */
interface Sample {
  prompt: WirePrompt;
  answer: string;
}

/** The text that stands for a sample that has none. */
interface Answered {
  answer: string;
}

type Known = Measured | Refused | Answered;

/** Searches methods, sizes and stores together for the best quality within each number of bytes. */
export async function fit(requests: Requests, info: ModelInfo, options: unknown): Promise<Fit> {
  const asked = readFit(options);
  const { objective, points, file, signal } = asked;
  if (file !== undefined) await requireFitFile(file);
  const combinations = await combine(points, signal);
  const given = await samplesOf(asked);
  const known = await Measurements.open<Known>(file, {
    format: "prefixkv-fit-partial",
    version: 1,
    package: await packageVersion(),
    model: info.fingerprint,
    weights: info.weights,
    device: info.device,
    objective,
    samples: file === undefined ? "" : await hashOf(requests, given, signal),
  });
  try {
    const found = await new Fitting(requests, info, asked, known).run(given, combinations);
    if (file !== undefined) await writeFit(found, file);
    await known.remove();
    return found;
  } finally {
    await known.close();
  }
}

async function samplesOf({ samples, signal }: AskedFit): Promise<{ prompt: WirePrompt; answer?: string }[]> {
  const found: { prompt: WirePrompt; answer?: string }[] = [];
  for await (const sample of stoppable(samples, signal))
    found.push(readSample(sample, new Place("fit", `samples[${found.length}]`)));
  if (found.length === 0) throw new Place("fit", "samples").invalid("is empty");
  return found;
}

/** A hash over the texts of samples and the bytes of their images. */
async function hashOf(
  requests: Requests,
  samples: readonly { prompt: WirePrompt; answer?: string }[],
  signal: AbortSignal | undefined,
): Promise<string> {
  const hash = createHash("sha256");
  for (const { prompt, answer } of samples) {
    const images = await requests.images(prompt.images, signal);
    const pictures = images.map((bytes) => createHash("sha256").update(bytes).digest("hex"));
    hash.update(`${JSON.stringify([prompt.fields, answer ?? null, pictures])}\n`);
  }
  return hash.digest("hex");
}

/** One fit. */
class Fitting {
  readonly #requests: Requests;
  readonly #info: ModelInfo;
  readonly #asked: AskedFit;
  readonly #known: Measurements<Known>;

  constructor(requests: Requests, info: ModelInfo, asked: AskedFit, known: Measurements<Known>) {
    this.#requests = requests;
    this.#info = info;
    this.#asked = asked;
    this.#known = known;
  }

  async run(
    given: readonly { prompt: WirePrompt; answer?: string }[],
    combinations: readonly Combination[],
  ): Promise<Fit> {
    const { budgets, objective } = this.#asked;
    const samples: Sample[] = [];
    const full: Measured[] = [];
    for (const [index, { prompt, answer }] of given.entries()) {
      const sample = { prompt, answer: answer ?? (await this.#answer(prompt, index)) };
      samples.push(sample);
      full.push((await this.#measure(new Combination([]).at(steps), sample, index)) as Measured);
      this.#say("samples", index + 1, given.length);
    }
    const order = full.map((_, index) => index).sort((a, b) => (full[b]?.bytes ?? 0) - (full[a]?.bytes ?? 0));
    const measure = (cache: Stages, index: number): Promise<Measured | Refused> =>
      this.#measure(cache, samples[index] as Sample, index);
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
      samples: samples.length,
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

  /** The answer of the full cache. */
  async #answer(prompt: WirePrompt, index: number): Promise<string> {
    const { signal } = this.#asked;
    const found = await this.#known.of(`answer ${index}`, async (): Promise<Answered> => {
      const ticket = await this.#requests.ask("generate", { prompt, cache: undefined, signal, rest: {} });
      return { answer: (await lastEvent(ticket, "done", { signal })).text };
    });
    const { answer } = found as Answered;
    if (answer !== "") return answer;
    throw new Place("fit", `samples[${index}]`).invalid("has no `answer`, and the full cache says nothing: give one");
  }

  async #measure(cache: Stages, { prompt, answer }: Sample, index: number): Promise<Measured | Refused> {
    const name = createHash("sha256").update(JSON.stringify(cache)).digest("hex");
    return this.#known.of(`${name} ${index}`, () => this.#score(cache, prompt, answer)) as Promise<Measured | Refused>;
  }

  async #score(cache: Stages, prompt: WirePrompt, answer: string): Promise<Measured | Refused> {
    const { signal, objective } = this.#asked;
    const rest = { answer, ...(objective === "kl" && { kl: true }) };
    try {
      const ticket = await this.#requests.ask("score", { prompt, cache, signal, rest });
      const { memory, logprobs, kl = [] } = await lastEvent(ticket, "scored", { signal });
      const loss = objective === "kl" ? sum(kl) : -sum(logprobs);
      // Below 0 only by rounding; the search relies on losses that do not fall.
      return { bytes: memory.resident, loss: Math.max(0, loss), tokens: logprobs.length };
    } catch (error) {
      if (error instanceof BudgetError && typeof error.least === "number") return { least: error.least };
      throw error;
    }
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

/** Nine digits: more than runs on different machines agree on. */
function perToken(loss: number, tokens: number): number {
  return Number((loss / tokens).toPrecision(9));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
