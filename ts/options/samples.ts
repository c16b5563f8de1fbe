import { abortError } from "../errors.ts";
import { until } from "../stop.ts";
import type { Rule } from "./rules.ts";

/** Samples as a caller gives them. */
export type Samples<T> = Iterable<T> | AsyncIterable<T>;

/** Any iterable of samples, which are read one by one. */
// biome-ignore lint/suspicious/noExplicitAny: what is in it is read later
export const samples: Rule<Samples<any>> = (value, place) => {
  const given = place.look(value, (samples) => Symbol.iterator in samples || Symbol.asyncIterator in samples);
  if (given !== true) throw place.refuse("an array, or another iterable, of prompts", value);
  return value as Samples<unknown>;
};

/** The samples until the signal fires, however long the next one takes. */
export async function* stoppable(
  samples: Samples<unknown>,
  signal: AbortSignal | undefined,
): AsyncGenerator<unknown, void, undefined> {
  const source = Symbol.asyncIterator in samples ? samples[Symbol.asyncIterator]() : samples[Symbol.iterator]();
  try {
    for (;;) {
      if (signal?.aborted) throw abortError(signal);
      const { done, value } = await until(Promise.resolve(source.next()), signal);
      if (done) return;
      yield value;
    }
  } finally {
    // A generator that never yields does not end either; nobody waits for it.
    Promise.resolve(source.return?.()).catch(() => {});
  }
}
