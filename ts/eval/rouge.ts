// ROUGE-L (Lin 2004) of two texts, as the Python package rouge-score computes it without stemming.

/** The words of a text: runs of the letters a to z and digits, after lowering the case. Everything else separates. */
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

/**
 * ROUGE-L F1 of a text against a reference, from 0 to 1: with L the length of the longest common subsequence of words,
 * precision P = L / words of the text and recall R = L / words of the reference, it is 2PR / (P + R); 0 when either has no words.
 * Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"; equal to the Python package `rouge-score` without stemming.
 *
 * @example
 * ```ts
 * import { rougeL } from "prefixkv/eval";
 *
 * console.log(rougeL("police the gunman", "police killed the gunman")); // 6 / 7
 * ```
 */
export function rougeL(text: string, reference: string): number {
  const [ours, theirs] = [words(text), words(reference)];
  const shared = common(ours, theirs);
  return shared === 0 ? 0 : (2 * shared) / (ours.length + theirs.length);
}

function at(row: Uint32Array, index: number): number {
  return row[index] ?? 0;
}
