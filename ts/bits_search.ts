// Bits of keys and of values for every layer: which are left to each layer, which layers go together, and the search over them.
import type { BitsGroup, BitsPoint } from "./generated/wire.ts";

/** Bits of keys and of values. */
export type Pair = [keys: number, values: number];

/** Every pair that is tried, the most bits first. */
export const tried: readonly Pair[] = [8, 4, 2].flatMap((keys) => [8, 4, 2].map((values): Pair => [keys, values]));

/** Layers join while the logarithms of the sensitivities of all of them are no further apart. */
const alike = 0.25;
/** Errors below are alike. */
const nothing = 1e-12;

const bitsOf = ([keys, values]: Pair): number => keys + values;

/** The numbers of the pairs of `tried` that no other one beats in bits and in error, by rising bits. */
export function prune(errors: readonly number[]): number[] {
  const all = tried.map((pair, index) => ({ index, bits: bitsOf(pair), error: errors[index] ?? 0 }));
  // Of equal ones the first stays.
  const order = all.toSorted((a, b) => a.bits - b.bits || a.error - b.error || a.index - b.index);
  const left: typeof all = [];
  for (const one of order) {
    const least = left.at(-1);
    if (least === undefined || one.error < least.error) left.push(one);
  }
  return left.map(({ index }) => index);
}

/** Layers whose bits are chosen together, with the pairs that are left to them by rising bits. */
export interface Group {
  layers: number[];
  /** Numbers of `tried`. */
  pairs: number[];
}

/**
 * Layers with the same pairs left whose sensitivities are alike, by the first layer: the two nearest groups join while all of their layers
 * are within a distance, and then as long as there are more than `most` groups. A layer without sensitivities goes with the one before it.
 */
export function group(sensitivity: readonly (readonly number[])[], most: number): Group[] {
  const own = sensitivity.map((errors) => (errors.length > 0 ? prune(errors) : []));
  const layers = [...own.keys()].filter((layer) => (own[layer] ?? []).length > 0);
  const logs = sensitivity.map((errors) => errors.map((error) => Math.log(Math.max(error, nothing))));
  const apart = (a: number, b: number): number => {
    if (String(own[a]) !== String(own[b])) return Number.POSITIVE_INFINITY;
    return Math.max(...(own[a] ?? []).map((pair) => Math.abs((logs[a]?.[pair] ?? 0) - (logs[b]?.[pair] ?? 0))));
  };
  const between = layers.map((a) => layers.map((b) => apart(a, b)));
  let groups = layers.map((_, index) => [index]);
  for (;;) {
    let best = { by: Number.POSITIVE_INFINITY, first: 0, second: 0 };
    for (const [first, a] of groups.entries())
      for (const [second, b] of groups.entries()) {
        if (second <= first) continue;
        const by = Math.max(...a.flatMap((x) => b.map((y) => between[x]?.[y] ?? Number.POSITIVE_INFINITY)));
        if (by < best.by) best = { by, first, second };
      }
    if (best.by === Number.POSITIVE_INFINITY || (best.by > alike && groups.length <= most)) break;
    const joined = [...(groups[best.first] ?? []), ...(groups[best.second] ?? [])];
    groups = groups.flatMap((one, index) => (index === best.first ? [joined] : index === best.second ? [] : [one]));
  }
  const found = groups.map((indices) => indices.map((index) => layers[index] ?? 0));
  let before = found[0];
  for (const layer of sensitivity.keys()) {
    const its = found.find((group) => group.includes(layer));
    if (its === undefined) before?.push(layer);
    else before = its;
  }
  return found.map((group) => ({ layers: group.toSorted((a, b) => a - b), pairs: own[Math.min(...group)] ?? [] }));
}

/** The groups as a file has them. */
export function written(groups: readonly Group[]): BitsGroup[] {
  return groups.map(({ layers, pairs }) => ({ layers, pairs: pairs.map((index) => tried[index] as Pair) }));
}

/** A choice: for each group, which of its pairs; none for pairs that are the same everywhere whatever is left to a group. */
interface Choice {
  pairs: Pair[];
  of: number[] | undefined;
}

/** The mean over layers, keys and values. */
export function meanBits(pairs: readonly Pair[]): number {
  return pairs.reduce((sum, pair) => sum + bitsOf(pair), 0) / (2 * pairs.length);
}

/** Of the points those that no other one beats, by rising bits and falling losses. */
export function front<T extends { bits: number; loss: number }>(points: readonly T[]): T[] {
  const left: T[] = [];
  for (const point of points.toSorted((a, b) => a.bits - b.bits || a.loss - b.loss))
    if (left.length === 0 || point.loss < (left.at(-1) as T).loss) left.push(point);
  return left;
}

/** The search for the front of bits and loss over the groups. */
export class BitsSearch {
  /** How many choices are measured, at most. */
  readonly total: number;
  readonly #groups: readonly Group[];
  readonly #sensitivity: readonly (readonly number[])[];
  readonly #exhaustive: boolean;
  readonly #measured = new Map<string, BitsPoint & { of: number[] | undefined }>();

  constructor(groups: readonly Group[], sensitivity: readonly (readonly number[])[], trials: number) {
    this.#groups = groups;
    this.#sensitivity = sensitivity;
    const choices = groups.reduce((product, { pairs }) => product * pairs.length, 1);
    const all = choices + this.#uniform().filter(({ of }) => of === undefined).length;
    this.#exhaustive = all <= trials;
    this.total = Math.min(all, trials);
  }

  /** How many choices have been measured. */
  get trials(): number {
    return this.#measured.size;
  }

  /** Measures choices until all are measured that are worth it, and gives the front. */
  async run(loss: (pairs: readonly Pair[]) => Promise<number>, say: (done: number) => void): Promise<BitsPoint[]> {
    const measure = async (choices: readonly Choice[]): Promise<void> => {
      for (const { pairs, of } of choices) {
        if (this.trials >= this.total) return;
        const name = String(pairs);
        if (this.#measured.has(name)) continue;
        this.#measured.set(name, { bits: meanBits(pairs), loss: await loss(pairs), pairs, of });
        say(this.trials);
      }
    };
    await measure(this.#uniform());
    if (this.#exhaustive) await measure(this.#all());
    else {
      await measure(spread(this.#expected(), Math.floor((this.total - this.trials) / 2)));
      for (let before = -1; before < this.trials && this.trials < this.total; ) {
        before = this.trials;
        await measure(this.#neighbours());
      }
    }
    const points = [...this.#measured.values()];
    return front(points).map(({ bits, loss, pairs }) => ({ bits, loss, pairs }));
  }

  #choice(of: number[]): Choice {
    const pairs: Pair[] = this.#sensitivity.map(() => [8, 8]);
    for (const [index, { layers, pairs: left }] of this.#groups.entries())
      for (const layer of layers) pairs[layer] = tried[left[of[index] ?? 0] ?? 0] as Pair;
    return { pairs, of };
  }

  /** Every pair for all layers alike. */
  #uniform(): Choice[] {
    return tried.map((pair, index) => {
      const of = this.#groups.map(({ pairs }) => pairs.indexOf(index));
      return { pairs: this.#sensitivity.map((): Pair => pair), of: of.includes(-1) ? undefined : of };
    });
  }

  #all(): Choice[] {
    let found: number[][] = [[]];
    for (const { pairs } of this.#groups)
      found = found.flatMap((before) => pairs.map((_, index) => [...before, index]));
    return found.map((of) => this.#choice(of));
  }

  /** The front if the squares of the layers' sensitivities added up to the loss, by rising bits. */
  #expected(): Choice[] {
    let sums = new Map<number, { bits: number; loss: number; of: number[] }>([[0, { bits: 0, loss: 0, of: [] }]]);
    for (const { layers, pairs } of this.#groups) {
      const next: typeof sums = new Map();
      for (const before of sums.values())
        for (const [index, pair] of pairs.entries()) {
          const bits = before.bits + layers.length * bitsOf(tried[pair] as Pair);
          const squares = layers.map((layer) => (this.#sensitivity[layer]?.[pair] ?? 0) ** 2);
          const loss = before.loss + squares.reduce((sum, square) => sum + square, 0);
          const known = next.get(bits);
          if (known === undefined || loss < known.loss) next.set(bits, { bits, loss, of: [...before.of, index] });
        }
      sums = next;
    }
    return front([...sums.values()]).map(({ of }) => this.#choice(of));
  }

  /** The choices next to those of the front: one group with a pair more or fewer bits. */
  #neighbours(): Choice[] {
    const places = front([...this.#measured.values()]).flatMap(({ of }) => (of === undefined ? [] : [of]));
    return places.flatMap((of) =>
      this.#groups.flatMap(({ pairs }, index) =>
        [-1, 1]
          .map((step) => (of[index] as number) + step)
          .filter((place) => place >= 0 && place < pairs.length)
          .map((place) => this.#choice(of.with(index, place))),
      ),
    );
  }
}

/** At most so many of a list, evenly spread over it, both ends among them. */
function spread<T>(list: readonly T[], most: number): T[] {
  if (list.length <= most) return [...list];
  const at = (index: number): T => list[Math.round((index * (list.length - 1)) / Math.max(1, most - 1))] as T;
  return Array.from({ length: most }, (_, index) => at(index));
}
