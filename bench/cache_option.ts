// The `cache` of requests, until the library has types for it; then this file goes and its callers use `ts/generated/methods.ts`.
import type { GenerateOptions, GenerationResult, Model, Score, ScoreOptions } from "../ts/index.ts";

export interface Cache {
  method: string;
  keep?: number;
  [option: string]: unknown;
}

/** The positions that a range of heads keeps after the prompt. */
export interface Kept {
  heads: [first: number, end: number];
  positions: number[];
}

export async function generate(model: Model, options: GenerateOptions, cache: Cache): Promise<GenerationResult> {
  return await model.generate({ ...options, cache } as GenerateOptions);
}

/** A score with what each layer keeps after the prompt. */
export async function score(model: Model, options: ScoreOptions, cache: Cache): Promise<Score & { kept: Kept[][] }> {
  return (await model.score({ ...options, cache, kept: true } as ScoreOptions)) as Score & { kept: Kept[][] };
}
