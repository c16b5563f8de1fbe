/**
 * Begins work on items, at most `most` at once, and gives each with its outcome in the order of the items: the next is begun when the outcome
 * of the first that runs has been taken. When the loop over it ends early, it waits until nothing runs any more.
 */
export async function* inOrder<Item, Outcome>(
  items: readonly Item[],
  most: number,
  begin: (item: Item) => Promise<Outcome>,
): AsyncGenerator<[Item, Promise<Outcome>], void> {
  const running: Promise<Outcome>[] = [];
  let begun = 0;
  try {
    for (const item of items) {
      while (running.length < most && begun < items.length) {
        const outcome = begin(items[begun++] as Item);
        // It is looked at when it is its turn.
        outcome.catch(() => {});
        running.push(outcome);
      }
      yield [item, running[0] as Promise<Outcome>];
      running.shift();
    }
  } finally {
    await Promise.allSettled(running);
  }
}
