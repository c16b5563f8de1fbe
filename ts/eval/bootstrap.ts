// Percentile bootstrap intervals (Efron 1979) over samples, the same on every machine.

/**
 * A value with the ends of its interval.
 *
 * @example
 * ```ts
 * import { bootstrap, type Interval } from "prefixkv/eval";
 *
 * const { value, low, high }: Interval = bootstrap([1, 2, 3], (items) => items.reduce((a, b) => a + b, 0) / items.length);
 * console.log(low <= value && value <= high);
 * ```
 */
export interface Interval {
  /** The statistic of the samples themselves. */
  value: number;
  /** The lower end. */
  low: number;
  /** The upper end. */
  high: number;
}

/** How an interval is made. */
export interface Resampling {
  resamples: number;
  seed: number;
  /** The share of intervals that are to hold the true value. */
  coverage: number;
}

export const resampling: Resampling = { resamples: 2000, seed: 1, coverage: 0.95 };

/**
 * A statistic of `items` and its percentile bootstrap interval (Efron 1979): the items are drawn with replacement 2000 times, and the
 * interval holds the middle 95 % of the statistics. The same number of items is drawn the same way, whatever they are, so that
 * differences can be paired.
 *
 * @example
 * ```ts
 * import { bootstrap } from "prefixkv/eval";
 *
 * const mean = (items: readonly number[]) => items.reduce((sum, item) => sum + item, 0) / items.length;
 * console.log(bootstrap([2, 4, 4, 5, 9], mean, { resamples: 500, seed: 7 }));
 * ```
 */
export function bootstrap<T>(
  items: readonly T[],
  statistic: (items: readonly T[]) => number,
  options: Partial<Resampling> = {},
): Interval {
  const { resamples, seed, coverage } = { ...resampling, ...options };
  const draw = random(seed);
  const values = Array.from({ length: resamples }, () =>
    statistic(Array.from(items, () => items[Math.floor(draw() * items.length)] as T)),
  );
  return { value: statistic(items), ...ends(values, coverage) };
}

/** The sum of `of` over the sum of `per`: a mean that weighs each item by what it holds. */
export function ratio<T>(of: (item: T) => number, per: (item: T) => number): (items: readonly T[]) => number {
  return (items) => items.reduce((sum, item) => sum + of(item), 0) / items.reduce((sum, item) => sum + per(item), 0);
}

/** Numbers from 0 up to 1 (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The value below which the share `at` of the samples lies, interpolated. */
export function quantile(samples: readonly number[], at: number): number {
  if (samples.length === 0) throw new RangeError("no samples");
  const sorted = [...samples].sort((a, b) => a - b);
  const place = at * (sorted.length - 1);
  const below = Math.floor(place);
  const [left = Number.NaN, right = left] = sorted.slice(below, below + 2);
  // Equal ends give themselves, infinite ones included.
  return left === right ? left : left + (place - below) * (right - left);
}

/** The ends of the middle share of values. */
export function ends(values: readonly number[], coverage: number): { low: number; high: number } {
  const tail = (1 - coverage) / 2;
  return { low: quantile(values, tail), high: quantile(values, 1 - tail) };
}

/**
 * The same resamples as {@link bootstrap} draws, of many ratios of sums over the same items: the draws are made once.
 */
export class Resamples {
  readonly #draws: Uint32Array;
  readonly #items: number;
  readonly #options: Resampling;

  constructor(items: number, options: Partial<Resampling> = {}) {
    this.#options = { ...resampling, ...options };
    this.#items = items;
    const draw = random(this.#options.seed);
    this.#draws = new Uint32Array(items * this.#options.resamples);
    for (let place = 0; place < this.#draws.length; place += 1) this.#draws[place] = Math.floor(draw() * items);
  }

  /** The ratio of the sum of `of` to the sum of `per` in every resample, and first in the items themselves. */
  ratios(of: readonly number[], per: readonly number[]): { value: number; values: number[] } {
    const [numerators, denominators] = [Float64Array.from(of), Float64Array.from(per)];
    const values = Array.from({ length: this.#options.resamples }, (_, resample) => {
      let top = 0;
      let bottom = 0;
      for (let place = resample * this.#items; place < (resample + 1) * this.#items; place += 1) {
        const item = this.#draws[place] ?? 0;
        top += numerators[item] ?? 0;
        bottom += denominators[item] ?? 0;
      }
      return top / bottom;
    });
    const sum = (numbers: Float64Array): number => numbers.reduce((total, number) => total + number, 0);
    return { value: sum(numerators) / sum(denominators), values };
  }

  /** The ends of the interval of what the resamples gave. */
  ends(values: readonly number[]): { low: number; high: number } {
    return ends(values, this.#options.coverage);
  }
}
