const atOnce = 4;

/** Does the same for all, a few at a time; after a failure it stops the others and waits for them to end. */
export async function inParallel<T, R>(
  items: readonly T[],
  each: (item: T) => Promise<R>,
  stop: () => void,
): Promise<R[]> {
  const results: R[] = [];
  const failures: unknown[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let at = next++; at < items.length && failures.length === 0; at = next++) {
      try {
        results[at] = await each(items[at] as T);
      } catch (error) {
        failures.push(error);
        stop();
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  if (failures.length > 0) throw failures[0];
  return results;
}
