// How far numbers lie apart.

export interface Distance {
  /** The mean of the absolute differences. */
  mean: number;
  worst: number;
}

export function distance(got: readonly number[], want: readonly number[]): Distance {
  if (got.length !== want.length || got.length === 0) throw new Error(`${got.length} numbers for ${want.length}`);
  let [sum, worst] = [0, 0];
  for (const [index, value] of got.entries()) {
    const difference = Math.abs(value - (want[index] ?? Number.NaN));
    sum += difference;
    // NaN stays NaN here, and so does not pass for small.
    worst = Math.max(worst, difference);
  }
  return { mean: sum / got.length, worst };
}

export function ppl(logprobs: readonly number[]): number {
  return Math.exp(-logprobs.reduce((sum, value) => sum + value, 0) / logprobs.length);
}

/** Positions from a bit each, the first the lowest of the first byte. */
export function positions(base64: string): Set<number> {
  const found = new Set<number>();
  for (const [byte, value] of Buffer.from(base64, "base64").entries()) {
    for (let bit = 0; bit < 8; bit++) if ((value >> bit) & 1) found.add(8 * byte + bit);
  }
  return found;
}

/** Positions from ranges such as "0-3,7". */
export function ranged(ranges: string): Set<number> {
  const found = new Set<number>();
  for (const range of ranges.split(",").filter((part) => part !== "")) {
    const [first = Number.NaN, last = first] = range.split("-").map(Number);
    for (let position = first; position <= last; position++) found.add(position);
  }
  return found;
}

/** The model's end token, which a golden has and a result leaves out. */
const END = 2;

/** How many greedy tokens are the same from the start, the end token included. */
export function agreeing(got: { tokens: readonly number[]; finish: string }, want: readonly number[]): number {
  const tokens = got.finish === "eos" ? [...got.tokens, END] : got.tokens;
  const differing = want.findIndex((token, index) => tokens[index] !== token);
  return differing < 0 ? want.length : differing;
}
