// The bytes and the loss of caches on samples with answers: the one measure of every search over caches.
import { createHash } from "node:crypto";
import { BudgetError } from "../errors.ts";
import type { ModelInfo } from "../generated/wire.ts";
import type { WirePrompt } from "../messages.ts";
import { lastEvent } from "../native/ticket.ts";
import { Place } from "../options/place.ts";
import { type Samples, stoppable } from "../options/samples.ts";
import type { Requests } from "../requests.ts";
import { packageVersion } from "../version.ts";
import type { Stages } from "./axes.ts";
import { readSample } from "./options.ts";
import { type Fault, Measurements } from "./partial.ts";
import type { Measured, Refused } from "./search.ts";

/** A sample as it is given. */
export interface Given {
  prompt: WirePrompt;
  answer?: string;
}

/** A sample with its reference. */
interface Sample {
  prompt: WirePrompt;
  answer: string;
}

/** The question that a search asks of its samples. */
export interface About {
  /** The call, for errors. */
  call: string;
  objective: "ppl" | "kl";
  signal: AbortSignal | undefined;
}

/** The samples of a call; throws an OptionError for an empty list. */
export async function readSamples(call: string, samples: Samples<unknown>, signal?: AbortSignal): Promise<Given[]> {
  const found: Given[] = [];
  for await (const sample of stoppable(samples, signal))
    found.push(readSample(sample, new Place(call, `samples[${found.length}]`)));
  if (found.length === 0) throw new Place(call, "samples").invalid("is empty");
  return found;
}

/** Measures caches on samples, each once: what was measured is known by its key. */
export class Evaluator {
  /** The measurements so far. */
  readonly known: Measurements<object>;
  readonly #requests: Requests;
  readonly #about: About;
  readonly #samples: Sample[] = [];

  private constructor(requests: Requests, about: About, known: Measurements<object>) {
    this.#requests = requests;
    this.#about = about;
    this.known = known;
  }

  /**
   * With the measurements that lie beside `file`, if they are of the same model, samples and objective and of the same `more`; throws a
   * `fault` where they are not.
   */
  static async open(
    requests: Requests,
    info: ModelInfo,
    about: About,
    given: readonly Given[],
    file: string | undefined,
    fault: Fault,
    head: Readonly<Record<string, unknown>>,
  ): Promise<Evaluator> {
    const { format, ...more } = head;
    const known = await Measurements.open<object>(file, fault, {
      format,
      version: 1,
      package: await packageVersion(),
      model: info.fingerprint,
      weights: info.weights,
      device: info.device,
      objective: about.objective,
      samples: file === undefined ? "" : await hashOf(requests, given, about.signal),
      ...more,
    });
    return new Evaluator(requests, about, known);
  }

  /** The samples that have been added. */
  get length(): number {
    return this.#samples.length;
  }

  /** Adds a sample; without an answer of its own it takes the one of the full cache. */
  async add({ prompt, answer }: Given): Promise<void> {
    this.#samples.push({ prompt, answer: answer ?? (await this.#answer(prompt, this.#samples.length)) });
  }

  /** A cache with the sample of a number. */
  async measure(cache: Stages, index: number): Promise<Measured | Refused> {
    const { prompt, answer } = this.#samples[index] as Sample;
    const name = createHash("sha256").update(JSON.stringify(cache)).digest("hex");
    return this.known.of(`${name} ${index}`, () => this.#score(cache, prompt, answer)) as Promise<Measured | Refused>;
  }

  /** The answer of the full cache. */
  async #answer(prompt: WirePrompt, index: number): Promise<string> {
    const { call, signal } = this.#about;
    const found = await this.known.of(`answer ${index}`, async (): Promise<{ answer: string }> => {
      const ticket = await this.#requests.ask("generate", { prompt, cache: undefined, signal, rest: {} });
      return { answer: (await lastEvent(ticket, "done", { signal })).text };
    });
    const { answer } = found as { answer: string };
    if (answer !== "") return answer;
    throw new Place(call, `samples[${index}]`).invalid("has no `answer`, and the full cache says nothing: give one");
  }

  async #score(cache: Stages, prompt: WirePrompt, answer: string): Promise<Measured | Refused> {
    const { signal, objective } = this.#about;
    const rest = { answer, ...(objective === "kl" && { kl: true }) };
    try {
      const ticket = await this.#requests.ask("score", { prompt, cache, signal, rest });
      const { memory, logprobs, kl = [] } = await lastEvent(ticket, "scored", { signal });
      const loss = objective === "kl" ? sum(kl) : -sum(logprobs);
      // Below 0 only by rounding; searches rely on losses that do not fall.
      return { bytes: memory.resident, loss: Math.max(0, loss), tokens: logprobs.length };
    } catch (error) {
      if (error instanceof BudgetError && typeof error.least === "number") return { least: error.least };
      throw error;
    }
  }
}

/** A hash over the texts of samples and the bytes of their images. */
async function hashOf(requests: Requests, samples: readonly Given[], signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash("sha256");
  for (const { prompt, answer } of samples) {
    const images = await requests.images(prompt.images, signal);
    const pictures = images.map((bytes) => createHash("sha256").update(bytes).digest("hex"));
    hash.update(`${JSON.stringify([prompt.fields, answer ?? null, pictures])}\n`);
  }
  return hash.digest("hex");
}

/** Nine digits: more than runs on different machines agree on. */
export function perToken(loss: number, tokens: number): number {
  return Number((loss / tokens).toPrecision(9));
}

export function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
