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
