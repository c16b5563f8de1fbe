// Percentile bootstrap intervals (Efron 1979) over scenes, the same on every machine.
import { quantile } from "./stats.ts";

export interface Interval {
  value: number;
  low: number;
  high: number;
}

export interface Resampling {
  resamples: number;
  seed: number;
  /** The share of intervals that are to hold the true value. */
  coverage: number;
}

export const resampling: Resampling = { resamples: 2000, seed: 1, coverage: 0.95 };

/** A statistic of `items` and its interval. The same number of items is drawn the same way, whatever they are. */
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
  const tail = (1 - coverage) / 2;
  return { value: statistic(items), low: quantile(values, tail), high: quantile(values, 1 - tail) };
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
