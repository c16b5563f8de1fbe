// Intervals of what was measured token by token on one text. Neighbouring tokens are alike, so they are drawn in blocks of neighbours, as
// they stand in the text: the moving-block bootstrap (Künsch 1989, The Jackknife and the Bootstrap for General Stationary Observations).
import { ends, type Interval, random, resampling } from "../ts/eval/bootstrap.ts";

/** Tokens of a block: a sentence or so. */
export const blockTokens = 15;

/**
 * A function of the mean of `values`, with its interval: as many tokens as there are, drawn in blocks with replacement, 2000 times. The same number
 * of values is drawn the same way, so that differences of two caches are paired.
 */
export function ofTokens(
  values: readonly number[],
  of: (mean: number) => number = (mean: number): number => mean,
  length: number = blockTokens,
): Interval {
  const n = values.length;
  if (n === 0) throw new RangeError("no tokens");
  const size = Math.min(length, n);
  const draw = random(resampling.seed);
  // Sums up to each place, so that a block is one subtraction.
  const sums = [0];
  for (const value of values) sums.push((sums.at(-1) ?? 0) + value);
  const sum = (start: number, count: number): number => (sums[start + count] ?? 0) - (sums[start] ?? 0);
  const means = Array.from({ length: resampling.resamples }, () => {
    let total = 0;
    for (let drawn = 0; drawn < n; drawn += size) {
      total += sum(Math.floor(draw() * (n - size + 1)), Math.min(size, n - drawn));
    }
    return of(total / n);
  });
  return { value: of(sum(0, n) / n), ...ends(means, resampling.coverage) };
}
