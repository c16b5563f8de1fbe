// ROUGE-L (Lin 2004) of two texts, with the tokens of Google's rouge-score without stemming.

export function words(text: string): string[] {
  return text.toLowerCase().match(/[a-z0-9]+/g) ?? [];
}

/** Length of the longest common subsequence. */
export function common(a: readonly string[], b: readonly string[]): number {
  let above = new Uint32Array(b.length + 1);
  for (const word of a) {
    const row = new Uint32Array(b.length + 1);
    for (const [index, other] of b.entries())
      row[index + 1] = word === other ? at(above, index) + 1 : Math.max(at(above, index + 1), at(row, index));
    above = row;
  }
  return at(above, b.length);
}

/** The F1 of precision and recall; 0 when a text has no words, as in rouge-score. */
export function rougeL(text: string, reference: string): number {
  const [ours, theirs] = [words(text), words(reference)];
  const shared = common(ours, theirs);
  return shared === 0 ? 0 : (2 * shared) / (ours.length + theirs.length);
}

function at(row: Uint32Array, index: number): number {
  return row[index] ?? 0;
}
