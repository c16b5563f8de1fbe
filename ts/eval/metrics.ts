// What is measured of one answer and of one cache. Formulas with their sources stand in docs/eval.md.
import type { Kept, Memory, ModelInfo } from "../native/report.ts";

/**
 * The share of places at which two token sequences are equal, over the longer length: |{ i : a[i] = b[i] }| / max(|a|, |b|);
 * 1 for two empty ones. An answer that slips by one token agrees in little after that place.
 *
 * @example
 * ```ts
 * import { agreement } from "prefixkv/eval";
 *
 * console.log(agreement([1, 2, 3, 4], [1, 2, 5])); // 0.5
 * ```
 */
export function agreement(a: readonly number[], b: readonly number[]): number {
  const longer = Math.max(a.length, b.length);
  if (longer === 0) return 1;
  return a.filter((token, index) => index < b.length && token === b[index]).length / longer;
}

const articles = new Set(["a", "an", "the"]);
const numbers: ReadonlyMap<string, string> = new Map(
  ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"].map((word, number) => [
    word,
    String(number),
  ]),
);

/**
 * An answer without what VQA accuracy ignores: case, the punctuation at words' ends, articles, repeated space; number words up to ten
 * become digits.
 */
export function normalAnswer(text: string): string {
  return text
    .toLowerCase()
    .split(/\s+/)
    .map((word) => word.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, ""))
    .map((word) => numbers.get(word) ?? word)
    .filter((word) => word !== "" && !articles.has(word))
    .join(" ");
}

/**
 * Accuracy of a short answer, 0 to 1: with one accepted answer 1 where both are equal after normalising (lower case, no punctuation at
 * the ends of words, no articles, number words to digits); with several people's answers min(1, equal ones / 3), as VQA v2 has it
 * (Antol et al. 2015, arXiv 1505.00468).
 *
 * @example
 * ```ts
 * import { vqaAccuracy } from "prefixkv/eval";
 *
 * console.log(vqaAccuracy("The triangle.", ["triangle"]), vqaAccuracy("two", ["2", "2", "three"]));
 * ```
 */
export function vqaAccuracy(text: string, answers: readonly string[]): number {
  const said = normalAnswer(text);
  const equal = answers.filter((answer) => normalAnswer(answer) === said).length;
  return answers.length <= 1 ? equal : Math.min(1, equal / Math.min(3, answers.length));
}

/** Entries that all layers keep; one of a layer counts as many heads as hold it, of `kvHeads`. */
export function entries(kept: readonly (readonly Kept[])[], kvHeads: number): number {
  const lanes = kept.flat().map(({ heads: [first, end], positions }) => positions.length * (end - first));
  return lanes.reduce((sum, lane) => sum + lane, 0) / kvHeads;
}

/** Bits that one number of a kept entry takes, its scales included; the same as the format has where nothing is quantised. */
export function effectiveBits(memory: Memory, info: Pick<ModelInfo, "kvHeads" | "headDim">): number {
  const kept = memory.keptPerLayer.reduce((sum, count) => sum + count, 0);
  return kept === 0 ? 0 : (8 * memory.payload) / (kept * 2 * info.kvHeads * info.headDim);
}
