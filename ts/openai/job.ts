import type { Model } from "../model.ts";
import type { Facts } from "./facts.ts";
import type { Asked, Step } from "./form.ts";
import type { Metrics } from "./metrics.ts";
import { Refusal, refusalOf, unavailable } from "./refusal.ts";
import type { Turns } from "./turns.ts";

/** One request for a completion, from its arrival to the end of its answer, whoever ends it. */
export class Job {
  readonly arrived: number = performance.now();
  readonly #control = new AbortController();
  readonly #done = Promise.withResolvers<void>();
  #over = false;
  #why: Refusal | undefined;

  get signal(): AbortSignal {
    return this.#control.signal;
  }

  /** Resolves when the answer has ended. */
  get done(): Promise<void> {
    return this.#done.promise;
  }

  /** Milliseconds since the request came. */
  get age(): number {
    return performance.now() - this.arrived;
  }

  get over(): boolean {
    return this.#over;
  }

  /** Ends the work early; does nothing after the end. Tells whether it did. */
  stop(why: Refusal): boolean {
    if (this.#over || this.#why !== undefined) return false;
    this.#why = why;
    this.#control.abort();
    return true;
  }

  finish(): void {
    this.#over = true;
    this.#done.resolve();
  }

  /** The meaning of an error of this job: why it was stopped, if it was. */
  refusal(error: unknown): Refusal {
    return this.#why ?? refusalOf(error);
  }
}

export const gone = (): Refusal => new Refusal(499, "client_closed_request", "the client has gone");
export const stalled = (): Refusal => new Refusal(408, "stalled", "the stream was not read");
export const late = (): Refusal =>
  new Refusal(504, "answer_timeout", "the answer took longer than this server allows", {
    ...{ type: "server_error", headers: { "x-should-retry": "false" } },
  });
export const closing = (): Refusal => unavailable("server_shutting_down", "the server shuts down");

/** The steps of an answer: waits for the job's turn, then has one choice after the other generated. */
export async function* work(
  job: Job,
  { model, turns, metrics }: { model: Model; turns: Turns; metrics: Metrics },
  asked: Asked,
  facts: Facts,
): AsyncGenerator<Step, void, undefined> {
  const leave = await turns.take(job.signal);
  try {
    facts.queued = job.age;
    metrics.queued(job.age);
    const { seed } = asked.generate;
    for (let index = 0; index < asked.n; index++) {
      const own = seed === undefined ? {} : { seed: seed + index };
      const generation = model.generate({ ...asked.generate, ...own, signal: job.signal });
      for await (const { text, logprobs } of generation) {
        if (facts.firstToken === undefined) {
          facts.firstToken = job.age;
          metrics.firstToken(job.age);
        }
        yield { index, text, ...(logprobs && { logprobs }) };
      }
      const result = await generation;
      facts.results.push(result);
      yield { index, result };
    }
  } finally {
    leave();
  }
}
