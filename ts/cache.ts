import { readCalibration, readCalibrationSource } from "./calibration.ts";
import { type CacheMethod, methods } from "./generated/methods.ts";
import type { WireMethod } from "./native/contract.ts";
import { Place } from "./options/place.ts";
import { deepFreeze, plain } from "./options/plain.ts";
import { items, own } from "./options/rules.ts";

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
  const { method: _, ...made } = readStage(options, new Place(method), method);
  return deepFreeze({ method, ...made }) as unknown as Readonly<{ method: Name } & Options>;
}

/**
 * The cache option of a call as a copy; which methods and options there are is left to the engine, which suggests the nearest.
 * Throws an OptionError for what JSON could not say.
 */
export function readCache(value: unknown, place: Place): CacheOption {
  if (typeof value === "object" && value !== null) {
    if (place.read(() => Array.isArray(value))) return items(value as unknown[], place, readMethod) as CacheMethod[];
    if (place.read(() => value instanceof Promise)) throw place.refuse(aMethod, value, "await it first");
  }
  return readMethod(value, place) as CacheOption;
}

const aMethod = "a method such as prefixkv({ keep: 0.5 }), or an array of methods";

function readMethod(value: unknown, place: Place): WireMethod {
  if (typeof value === "object" && value !== null) return readStage(value, place) as WireMethod;
  const name = typeof value === "function" ? place.read(() => value.name) : value;
  const facts = methods.find((facts) => facts.name === name);
  if (facts === undefined) throw place.refuse(aMethod, value);
  const call = `${facts.name}(${facts.budget === "outcome" ? "" : "{ keep: 0.5 }"})`;
  throw place.invalid(
    typeof value === "function"
      ? `is the function ${facts.name} itself; call it: ${call}`
      : `is the name of a method; call the method: ${call}`,
    facts.name,
  );
}

function readStage(options: unknown, place: Place, method?: string): Record<string, unknown> {
  const made: Record<string, unknown> = Object.create(null);
  const given = own(options, place, place.path === "" ? undefined : aMethod);
  const named = method ?? given.find(([name]) => name === "method")?.[1];
  const known = methods.find(({ name }) => name === named)?.options ?? [];
  for (const [name, value] of given) {
    const at = place.field(name);
    const option = known.find((option) => option.name === name);
    if (name === "calibration") made[name] = readCalibrationSource(value, at);
    else if (name === "keep") made[name] = ofType(["number", "object"], plain(value, at, aKeep), at, aKeep);
    else made[name] = ofType(types[option?.kind ?? "any"], plain(value, at, option?.values), at, option?.values);
  }
  return made;
}

const aKeep = "a share above 0 and up to 1, { tokens: N } or { bytes: N }";

/** The types of an option's values; their ranges are the engine's to check. */
const types: Record<string, readonly string[] | undefined> = {
  count: ["number"],
  share: ["number"],
  flag: ["boolean"],
  choice: ["string"],
};

function ofType(types: readonly string[] | undefined, value: unknown, place: Place, allowed = ""): unknown {
  if (types?.includes(typeof value) === false) throw place.refuse(allowed, value);
  return value;
}

/** The cache option as it crosses a door: calibrations by name or file are read. */
export async function wireCache(cache: CacheOption, signal?: AbortSignal): Promise<WireMethod | WireMethod[]> {
  if (Array.isArray(cache)) return Promise.all(cache.map((stage: CacheMethod) => wireStage(stage, signal)));
  return wireStage(cache as CacheMethod, signal);
}

async function wireStage(given: CacheMethod, signal: AbortSignal | undefined): Promise<WireMethod> {
  const stage = given as WireMethod;
  const source = stage.calibration;
  if (typeof source !== "string") return stage;
  return { ...stage, calibration: await readCalibration(source, signal) };
}
