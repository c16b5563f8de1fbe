// The least that a step must compute and read: the numerators of every figure that stands beside a limit.
import type { ModelInfo } from "../ts/index.ts";
import type { Shape } from "./random_model.ts";

/** Weights of the linear layers of all blocks: every token of a prompt meets each once. */
export function blockWeights(shape: Shape): number {
  const heads = (shape.heads + 2 * shape.kvHeads) * shape.headDim + shape.heads * shape.headDim;
  return shape.layers * shape.hidden * (heads + 3 * shape.intermediate);
}

/** Floating-point operations of a prompt of `n` tokens, of which only the last needs logits. */
export function prefillFlops(shape: Shape, n: number): number {
  const linear = 2 * blockWeights(shape) * n + 2 * shape.vocabulary * shape.hidden;
  // Two products over the lower triangle of the scores.
  const attention = (4 * shape.layers * shape.heads * shape.headDim * n * (n + 1)) / 2;
  return linear + attention;
}

/** Bytes that one decode step reads with `context` entries in the cache. */
export function decodeBytes(info: ModelInfo, context: number): number {
  return stepWeightBytes(info) + info.kvBytesPerToken * context;
}

/** Bytes of the weights that one decode step reads, of a model whose output layer has the embeddings for its weights. */
export function stepWeightBytes(info: ModelInfo): number {
  // Dense, both are one table, which the output layer reads. Quantised, the table stands beside it, and a step takes a single row.
  const dense = info.weights === "f32" || info.weights === "f16";
  return info.weightBytes - info.visionBytes - (dense ? 0 : info.vocabSize * info.hiddenSize * 2);
}
