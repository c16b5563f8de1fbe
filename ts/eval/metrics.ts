import type { Kept, Memory, ModelInfo } from "../generated/wire.ts";
// Metrics of one answer and of one cache. docs/eval.md has the formulas with their sources.

/**
 * The share of places at which two token sequences are equal, over the longer length: |{ i : a[i] = b[i] }| / max(|a|, |b|);
 * 1 for two empty ones. An answer shifted by one token agrees in little after that place.
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

/** Entries that all layers keep; one of a layer counts as many heads as hold it, of `kvHeads`. */
export function entries(kept: readonly (readonly Kept[])[], kvHeads: number): number {
  const lanes = kept.flat().map(({ heads: [first, end], positions }) => positions.length * (end - first));
  return lanes.reduce((sum, lane) => sum + lane, 0) / kvHeads;
}

/** Bits that one number of a kept entry takes, its scales included; the same as the format has where nothing is quantised. */
export function effectiveBits(memory: Memory, info: Pick<ModelInfo, "kvHeads" | "headDim">): number {
  const kept = memory.keptPerLayer.reduce((sum, count) => sum + count, 0);
  return kept === 0 ? 0 : (8 * (memory.payload + memory.scales)) / (kept * 2 * info.kvHeads * info.headDim);
}
