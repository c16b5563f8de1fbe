/** Longer names are no slips of the finger. */
const longest = 64;

/**
 * The known name that was probably meant, by the rule of the engine: as few changes as a third of it, whatever its case and its `-` and `_`;
 * or else the only one that begins with what was written.
 */
export function nearest(found: string, known: readonly string[]): string | undefined {
  if (found.length > longest) return undefined;
  const plain = (name: string): string => name.replace(/[_-]/g, "").toLowerCase();
  const near = known
    .map((name) => ({ name, changes: distance(plain(found), plain(name)) }))
    .filter(({ name, changes }) => changes <= Math.max(1, Math.floor(name.length / 3)))
    .sort((a, b) => a.changes - b.changes);
  const begun = found.length < 3 ? [] : known.filter((name) => plain(name).startsWith(plain(found)));
  return near[0]?.name ?? (begun.length === 1 ? begun[0] : undefined);
}

/** How many insertions, deletions, replacements and swaps of neighbours turn one word into the other. */
export function distance(from: string, to: string): number {
  let before: number[] = [];
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1] === to[j - 1];
      let cost = Math.min((next[j - 1] ?? 0) + 1, (row[j] ?? 0) + 1, (row[j - 1] ?? 0) + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      if (swapped) cost = Math.min(cost, (before[j - 2] ?? 0) + 1);
      next.push(cost);
    }
    before = row;
    row = next;
  }
  return row[to.length] ?? 0;
}
