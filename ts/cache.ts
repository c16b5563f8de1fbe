import { type CalibrationSource, readCalibration } from "./calibration.ts";
import type { CacheMethod } from "./generated/methods.ts";
import type { WireMethod } from "./native/contract.ts";

/**
 * How much of the cache is kept: a share of all positions, above 0 and up to 1; so many entries per layer, on average; or so
 * many bytes, as a number or as a text such as `"64MiB"`. A share grows with the sequence, the other two are caps.
 *
 * @example
 * ```ts
 * import { type Keep, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const keeps: Keep[] = [0.5, { tokens: 16 }, { bytes: "1MiB" }];
 * for (const keep of keeps) {
 *   const { memory } = await model.generate({ prompt: "USER: Which shapes are there? ASSISTANT:", cache: prefixkv({ keep }) });
 *   console.log(keep, memory.resident);
 * }
 * ```
 */
export type Keep =
  | number
  | { readonly tokens: number; readonly bytes?: never }
  | { readonly bytes: number | string; readonly tokens?: never };

/**
 * What makes the cache small: a method, or several that work together. Without one, every entry is kept.
 *
 * @example
 * ```ts
 * import { type CacheOption, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const cache: CacheOption = prefixkv({ keep: 0.5 });
 * console.log((await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 8, cache })).memory.keptPerLayer);
 * ```
 */
export type CacheOption = CacheMethod | readonly CacheMethod[];

/** A method with its options as a frozen object that can be cloned and written as JSON. */
export function stage<Name extends string, Options extends object>(
  method: Name,
  options: Options,
): Readonly<{ method: Name } & Options> {
  const made: Record<string, unknown> = { method };
  for (const [name, value] of Object.entries(options)) {
    if (value instanceof URL) made[name] = value.href;
    else if (name === "keep" && typeof value === "object" && value !== null) made[name] = Object.freeze({ ...value });
    else if (value !== undefined && name !== "method") made[name] = value;
  }
  return Object.freeze(made) as Readonly<{ method: Name } & Options>;
}

/** The cache option as it crosses a door: calibrations by name or file are read. What is no method is left to the engine. */
export async function wireCache(cache: CacheOption, signal?: AbortSignal): Promise<WireMethod | WireMethod[]> {
  if (Array.isArray(cache)) return Promise.all(cache.map((stage: CacheMethod) => wireStage(stage, signal)));
  return wireStage(cache as CacheMethod, signal);
}

async function wireStage(given: CacheMethod, signal: AbortSignal | undefined): Promise<WireMethod> {
  const stage = given as WireMethod;
  const source = typeof stage === "object" && stage !== null ? stage.calibration : undefined;
  if (typeof source !== "string" && !(source instanceof URL)) return stage;
  return { ...stage, calibration: await readCalibration(source as CalibrationSource, signal) };
}
