import { OptionError } from "../errors.ts";
import { type Combination, type Stages, steps } from "./axes.ts";

/** One sample with one cache: bytes at the end of the answer, and the loss, in nats over all tokens of the answer. */
export interface Measured {
  bytes: number;
  loss: number;
  tokens: number;
}

/** A size that a sample refuses, with the least share that it takes. */
export interface Refused {
  least: number;
}

/** Every size is refused. */
const never: Refused = { least: Number.POSITIVE_INFINITY };

/** Measures a cache with the sample of a number. */
export type Measure = (cache: Stages, sample: number) => Promise<Measured | Refused>;

/** A combination at a size on its way through the samples. */
export interface Runner {
  combination: Combination;
  size: number;
  /** The samples in the order in which it meets them, those first that have refused a larger size. */
  order: readonly number[];
  /** How many of them are behind it. */
  done: number;
  /** The sum of their losses. */
  loss: number;
  /** The greatest of their bytes. */
  bytes: number;
}

/** Sizes are found to so much of themselves, or to a step. */
const exact = 0.01;
/** Every so manieth size is tried above the one that bisection finds ... */
const stride = steps / 20;
/** ... until bytes are this many times the budget: on short prompts, groups of 32 make waves of about a fifth. */
const beyond = 1.25;

/** Searches the combinations for the one with the least loss within a number of bytes. */
export class Search {
  readonly #combinations: readonly Combination[];
  readonly #measure: Measure;
  /** The samples in the order in which they are measured, those first that need most. */
  readonly #order: readonly number[];
  /** Bytes by size, for each combination and sample. */
  readonly #seen = new Map<Combination, Map<number, Map<number, number>>>();

  constructor(combinations: readonly Combination[], measure: Measure, order: readonly number[]) {
    this.#combinations = combinations;
    this.#measure = measure;
    this.#order = order;
  }

  /** Steps of a call of {@link Search.best}, at most. */
  get length(): number {
    return this.#combinations.length + this.#order.length;
  }

  /**
   * The combination with the least loss among the largest sizes that fit, and among these `known`; undefined where nothing fits.
   *
   * Losses only grow with the samples. So the one whose loss is least goes on, and the first that is through has won: what is left behind
   * it is worse already.
   */
  async best(budget: number, known: readonly Runner[], say: (done: number) => void): Promise<Runner | undefined> {
    const runners = [...known];
    const start = async (combination: Combination, most: number, order: readonly number[]): Promise<void> => {
      const size = await this.#largest(combination, most, order[0] ?? 0, budget);
      if (size !== undefined) runners.push({ combination, size, order, done: 0, loss: 0, bytes: 0 });
    };
    for (const [index, combination] of this.#combinations.entries()) {
      await start(combination, combination.most, this.#order);
      say(index + 1);
    }
    for (let furthest = 0; ; ) {
      const [lead] = runners.toSorted((a, b) => a.loss - b.loss || b.done - a.done);
      const sample = lead?.order[lead.done];
      if (lead === undefined || sample === undefined) return lead;
      const measured = await this.#at(lead.combination, lead.size, sample);
      if (measured && measured.bytes <= budget) {
        lead.loss += measured.loss;
        lead.bytes = Math.max(lead.bytes, measured.bytes);
        lead.done += 1;
      } else {
        runners.splice(runners.indexOf(lead), 1);
        await start(lead.combination, lead.size - 1, [sample, ...lead.order.filter((other) => other !== sample)]);
      }
      furthest = Math.max(furthest, lead.done);
      say(this.#combinations.length + furthest);
    }
  }

  /** The least bytes that any combination takes, by the greatest over the samples. */
  async least(): Promise<number> {
    const runners = this.#combinations.map((combination) => ({ combination, done: 0, bytes: 0 }));
    for (;;) {
      const [lead] = runners.toSorted((a, b) => a.bytes - b.bytes || b.done - a.done);
      const sample = this.#order[lead?.done ?? 0];
      if (lead === undefined || sample === undefined) return lead?.bytes ?? 0;
      const { combination } = lead;
      const measured = await this.#at(combination, combination.least, sample);
      if (measured) Object.assign(lead, { done: lead.done + 1, bytes: Math.max(lead.bytes, measured.bytes) });
      else if (combination.least <= combination.most) Object.assign(lead, { done: 0, bytes: 0 });
      else runners.splice(runners.indexOf(lead), 1);
    }
  }

  /**
   * The largest size up to `most` whose bytes with a sample are measured to be within the budget, as far as it is found; undefined where
   * the least is not. Where a store fills and frees whole groups, bytes fall here and there as sizes rise: what a bisection finds then is one
   * place where they pass the budget, and sizes above it are tried too, until their bytes are far beyond.
   */
  async #largest(combination: Combination, most: number, sample: number, budget: number): Promise<number | undefined> {
    const fits = async (size: number): Promise<boolean> => {
      const measured = await this.#at(combination, size, sample);
      return measured !== undefined && measured.bytes <= budget;
    };
    while (combination.least <= most) {
      const { least } = combination;
      if (await fits(least)) break;
      if (combination.least === least) return undefined;
    }
    if (combination.least > most) return undefined;
    if (await fits(most)) return most;
    const seen = this.#bytes(combination, sample);
    const largest = (): number =>
      Math.max(...[...seen].filter(([size, bytes]) => size < most && bytes <= budget).map(([size]) => size));
    for (;;) {
      let low = largest();
      let high = Math.min(...[...seen.keys()].filter((size) => size > low));
      for (let turn = 1; high - low > Math.max(1, low * exact); turn += 1) {
        // Bytes all but rise in proportion: mostly the interval is cut where a straight line meets the budget.
        const [below = 0, above = 0] = [seen.get(low), seen.get(high)];
        const share = turn % 3 === 0 ? 0.5 : (budget - below) / (above - below);
        const size = Math.min(high - 1, Math.max(low + 1, Math.floor(low + share * (high - low))));
        if (await fits(size)) low = size;
        else high = size;
      }
      if (!combination.grouped) return low;
      for (let size = stride * Math.ceil((low + 1) / stride); size < most; size += stride) {
        await fits(size);
        if ((seen.get(size) ?? 0) > beyond * budget) break;
      }
      if (largest() === low) return low;
    }
  }

  /** A sample with a combination at a size; undefined where it refuses the size, which raises the least of the combination. */
  async #at(combination: Combination, size: number, sample: number): Promise<Measured | undefined> {
    const measured = await this.#measure(combination.at(size), sample).catch((error: unknown) => {
      // A store may not go with a method, such as one that reads the attention in its own way.
      if (combination.joint && error instanceof OptionError && error.code === "option") return never;
      throw error;
    });
    if ("least" in measured) {
      combination.least = Math.max(size + 1, Math.ceil(steps * measured.least - 1e-9));
      return undefined;
    }
    this.#bytes(combination, sample).set(size, measured.bytes);
    return measured;
  }

  #bytes(combination: Combination, sample: number): Map<number, number> {
    const samples = this.#seen.get(combination) ?? new Map<number, Map<number, number>>();
    const found = samples.get(sample) ?? new Map<number, number>();
    this.#seen.set(combination, samples.set(sample, found));
    return found;
  }
}
