// How far real weights may move a log-probability of text.txt from what 32-bit torch finds with the same file: docs/design/real.md.
import type { Cell, Format } from "./cells.ts";

/** llama.cpp's mean with Q8_0 weights on the same tokens. */
export const LLAMA_CPP_Q8_0 = 0.0631;

/** The standard error of such a mean, over 2,064 tokens. */
const ERROR = 0.0016;

/** llama.cpp's with 32-bit weights and an f16 cache. */
const F16_CACHE = 0.00113;

/** Torch's, when the weights are rounded to f16 and everything else is 32 bits. */
const F16_WEIGHTS = 0.00143;

/** For a single log-probability, where nothing is rounded but sums. */
export const EXACT = 1e-3;

/** For the mean over the text. */
export const MEAN: Record<Format, number> = {
  f32: EXACT,
  f16: F16_WEIGHTS + F16_CACHE,
  // No noisier than llama.cpp, as far as two means of so many tokens can tell.
  q8_0: LLAMA_CPP_Q8_0 + 2 * ERROR,
  // Only the rows of 1,536 have 4.5 bits, a third of the linear weights; they may add as much noise as the rest, which is q8_0.
  q4_k: Math.SQRT2 * LLAMA_CPP_Q8_0,
};

/** By how much the perplexity may differ, as a share. */
export const PERPLEXITY: Record<Format, number> = { f32: 1e-4, f16: 1e-3, q8_0: 0.01, q4_k: 0.03 };

/**
 * The gap between the two best logits above which both must agree: the difference of two log-probabilities, each of them off by at most
 * so much.
 */
export const DECIDED: Record<Format, number> = { f32: 2 * EXACT, f16: 0.05, q8_0: 1.5, q4_k: 3 };

/**
 * The format whose bounds hold where the golden is of the same weights. Those of the GGUF file are exact as they are stored, but activations
 * are rounded to 8 bits as in q8_0, which has that noise and one of its weights.
 */
export function noise({ weights }: Cell): Format {
  return weights === "stored" ? "q8_0" : weights;
}

/**
 * The format whose bounds hold where the golden is of the f32 file: torch's mean with the f16 file is 0.0014, with the bf16 file 0.0077, which
 * lies between f16 and q8_0.
 */
export function rounding(cell: Cell): Format {
  const { file } = cell;
  const weights = noise(cell);
  if (file === "bf16" && (weights === "f32" || weights === "f16")) return "q8_0";
  return file === "f16" && weights === "f32" ? "f16" : weights;
}
