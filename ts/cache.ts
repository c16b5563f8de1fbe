import { readCalibration } from "./calibration.ts";
import type { PlannedMethod } from "./custom_plan.ts";
import { readFitFile } from "./fit/file.ts";
import { methods } from "./generated/method_table.ts";
import type { CacheMethod } from "./generated/methods.ts";
import type { WireMethod } from "./generated/wire.ts";
import type { Place } from "./options/place.ts";
import { isPlanned, readPlanned } from "./options/planned.ts";
import { address, items } from "./options/rules.ts";
import { aMethod, readStage } from "./options/stage.ts";

/**
 * The method that shrinks the cache, or several that work together; or the file of a {@link Fit}, by a path that ends in `.json` or a
 * `file:` URL, of which the configuration for the most bytes is taken. Without one, every entry is kept.
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
export type CacheOption =
  | CacheMethod
  | PlannedMethod
  | readonly (CacheMethod | PlannedMethod)[]
  | `${string}.json`
  | URL;

/**
 * The cache option of a call as a copy; which methods and options there are is left to the engine, which suggests the nearest.
 * Throws an OptionError for what JSON could not say.
 */
export function readCache(value: unknown, place: Place): CacheOption {
  if (isFile(value, place)) return address(value, place) as CacheOption;
  if (typeof value === "object" && value !== null) {
    if (place.read(() => Array.isArray(value))) return items(value as unknown[], place, readMethod) as CacheMethod[];
    if (place.read(() => value instanceof Promise)) throw place.refuse(aMethod, value, "await it first");
  }
  return readMethod(value, place) as CacheOption;
}

/** Whether a cache option names a file instead of methods. */
export function isFile(value: unknown, place: Place): boolean {
  if (typeof value === "string") return /\.json$/i.test(value);
  return place.look(value, (found) => Object.prototype.toString.call(found) === "[object URL]") === true;
}

function readMethod(value: unknown, place: Place): WireMethod {
  if (isPlanned(value, place)) return readPlanned(value, place) as unknown as WireMethod;
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

/** The function that decides, where a method has one. */
export function planOf(cache: CacheOption | undefined): PlannedMethod["plan"] | undefined {
  const stages = [cache].flat() as (PlannedMethod | undefined)[];
  return stages.find((stage) => stage?.plan !== undefined)?.plan;
}

/** The cache option as it crosses a door: calibrations by name or file and fits are read. `fingerprint` is the model's. */
export async function wireCache(
  given: CacheOption,
  signal?: AbortSignal,
  fingerprint = "",
): Promise<WireMethod | WireMethod[]> {
  const inFile = typeof given === "string" || given instanceof URL;
  const cache = inFile ? await readFitFile(given, fingerprint, signal) : given;
  if (Array.isArray(cache))
    return Promise.all(cache.map((stage: CacheMethod | PlannedMethod) => wireStage(stage, signal)));
  return wireStage(cache as CacheMethod | PlannedMethod, signal);
}

async function wireStage(given: CacheMethod | PlannedMethod, signal: AbortSignal | undefined): Promise<WireMethod> {
  if ("plan" in given) {
    const { plan: _, needs = {}, ...rest } = given;
    return { ...rest, needs };
  }
  const stage = given as WireMethod;
  const source = stage.calibration;
  if (typeof source !== "string") return stage;
  return { ...stage, calibration: await readCalibration(source, signal) };
}
