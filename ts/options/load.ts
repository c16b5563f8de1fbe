import { fileURLToPath } from "node:url";
import { engineRules } from "../generated/rules.ts";
import type { CheckFields, Device, EngineOptions, Progress } from "../generated/wire.ts";
import type { HubOptions } from "../hub/options.ts";
import { type ImagePolicy, type ReadPolicy, readPolicy } from "../images/policy.ts";
import type { Binding } from "../native/pick.ts";
import { Place } from "./place.ts";
import {
  address,
  callback,
  fields,
  flag,
  list,
  number,
  oneOf,
  type Rule,
  type Rules,
  signal,
  text,
  whole,
} from "./rules.ts";

/**
 * How to load a model.
 *
 * @example
 * ```ts
 * import { load, type LoadOptions } from "prefixkv";
 *
 * const options: LoadOptions = { weights: "q8_0", device: "cpu" };
 * const model = await load(undefined, options);
 * console.log(model.info.weightFormats);
 * await model.dispose();
 * ```
 */
export interface LoadOptions extends HubOptions, Omit<EngineOptions, "device"> {
  /**
   * Where to compute: `cpu`, the default, or an NVIDIA GPU, which needs the CUDA build to be installed (`cuda` is the first,
   * as is `cuda:0`). `auto` uses the first GPU that works, else the CPU, and warns once why.
   */
  device?: Device;
  /**
   * A LoRA adapter in the format of PEFT, which is merged into the weights: a folder, a `file:` URL or a Hub name (`org/name`,
   * `org/name@revision`). Several are merged one after the other.
   */
  adapter?: string | URL | readonly (string | URL)[];
  /**
   * How the native code is reached: `napi` is Node-API, on every runtime; `ffi` is the C ABI through the foreign functions of Bun or
   * Deno; `auto`, the default, takes what measures best on this runtime.
   */
  binding?: Binding;
  /**
   * Of a GGUF file, the file of its vision tower (llama.cpp's mmproj), or of a Hub model its name or a pattern that only one matches; false
   * loads the language model alone. Without it, the tower of a folder that holds one language model and one tower; of a Hub model the one
   * in F16, else in BF16, F32 or Q8_0.
   */
  vision?: string | URL | false;
  /** Which images its requests may name by address or path; see ImagePolicy. */
  images?: ImagePolicy;
  /** Stops the load; see AbortError. */
  signal?: AbortSignal;
  /** Called as the load proceeds. */
  onProgress?: (progress: Progress) => void;
}

/** Options of `inspect`. */
export interface InspectOptions extends HubOptions {
  /**
   * The size, in pixels, of a picture whose positions `image.picture` of the result is to count; with `frames`, of each frame of a
   * video, whose times may be said as `video` takes them.
   */
  picture?: { width: number; height: number; frames?: number; fps?: number; times?: readonly number[] };
  /** The vision tower of a GGUF file; see LoadOptions. */
  vision?: string | URL | false;
  /** How the native code is reached; see LoadOptions. */
  binding?: Binding;
}

/** Options of `about`. */
export interface AboutOptions {
  /** The build to ask: the CPU build, which is the default, or the CUDA build. */
  device?: "cpu" | "cuda";
}

/** Options of `checkDevice`. */
export interface CheckOptions extends Pick<CheckFields, "ceilings"> {
  /** Called with the stages `kernels` and `ceilings`. */
  onProgress?: (progress: Progress) => void;
  /** Stops the check; see AbortError. */
  signal?: AbortSignal;
  /** How the native code is reached; see LoadOptions. */
  binding?: Binding;
}

/** A token is never shown. */
const token: Rule<string | false> = (value, place) => {
  if (value === false) return false;
  if (typeof value !== "string")
    throw place.invalid(`must be a string or false, found a value of type ${typeof value}`);
  return text(value, place);
};

/** A path or a name, or false for none. */
const vision: Rule<string | false> = (value, place) => {
  if (value === false) return false;
  const found = address(value, place);
  if (found === "") throw place.invalid("is empty; false leaves the vision tower out");
  if (typeof found === "string" && !/^file:/i.test(found)) return found;
  try {
    return fileURLToPath(found);
  } catch {
    throw place.invalid("must be a path, a file: URL, the name of a file of a Hub model, or false");
  }
};

const hubRules = {
  revision: text,
  file: text,
  token,
  offline: flag,
  cacheDir: text,
  endpoint: text,
  signal,
  onProgress: callback,
} satisfies Rules<HubOptions>;

const binding: Rule<Binding> = oneOf("auto", "napi", "ffi");

const adapterName: Rule<string | URL> = (value, place) => {
  const found = address(value, place);
  if (found === "") throw place.invalid("is empty; leave it out to load the model as it is");
  if (typeof found !== "string" && found.protocol !== "file:")
    throw place.invalid("must be a path, a file: URL or a Hub name (org/name)");
  return found;
};
const adapterNames = list(adapterName);
const adapter: Rule<string | URL | readonly (string | URL)[]> = (value, place) =>
  place.read(() => Array.isArray(value)) ? adapterNames(value, place) : adapterName(value, place);

const loadRules = {
  ...hubRules,
  ...engineRules,
  vision,
  adapter,
  images: readPolicy,
  binding,
} satisfies Rules<LoadOptions>;

const sides = fields({ width: whole, height: whole, frames: whole, fps: number, times: list(number) });
const picture: Rule<NonNullable<InspectOptions["picture"]>> = (value, place) => {
  const { width, height, ...video } = sides(value, place);
  if (width === undefined || height === undefined) throw place.refuse("{ width, height } in pixels", value);
  return { width, height, ...video };
};
const inspectRules = { ...hubRules, vision, picture, binding } satisfies Rules<InspectOptions>;
const aboutRules = { device: oneOf("cpu", "cuda") } satisfies Rules<AboutOptions>;
const checkRules = {
  ceilings: flag,
  onProgress: callback,
  signal,
  binding,
} satisfies Rules<CheckOptions>;

const [loadFields, inspectFields] = [fields(loadRules), fields(inspectRules)];
const [aboutFields, checkFields] = [fields(aboutRules), fields(checkRules)];

/** The options of `load` in copies. */
export type OwnLoadOptions = Omit<LoadOptions, "images" | "vision"> & { images?: ReadPolicy; vision?: string | false };
export function readLoad(options: unknown): OwnLoadOptions {
  return loadFields(options, new Place("load"));
}

export function readInspect(options: unknown): Omit<InspectOptions, "vision"> & { vision?: string | false } {
  return inspectFields(options, new Place("inspect"));
}

export function readAbout(options: unknown): AboutOptions {
  return aboutFields(options, new Place("about"));
}

export function readCheck(options: unknown): CheckOptions {
  return checkFields(options, new Place("checkDevice"));
}

/** The device of a check. */
export const readDevice = (value: unknown): Device => engineRules.device(value, new Place("checkDevice", "device"));

/** The source of a model, a `file:` URL as its path; undefined is the embedded model. */
export function readSource(value: unknown, call: "load" | "inspect"): string | undefined {
  if (value === undefined) return undefined;
  const place = new Place(call, "source");
  const found = address(value, place);
  if (found === "") throw place.invalid("is empty; leave it out for the model that comes with the package");
  if (typeof found === "string" && !/^file:/i.test(found)) return found;
  try {
    return fileURLToPath(found);
  } catch {
    throw place.invalid("must be a path, a file: URL or a Hub model (org/name)");
  }
}
