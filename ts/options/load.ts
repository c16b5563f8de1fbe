import { fileURLToPath } from "node:url";
import type { checkDevice } from "../check_device.ts";
import type { HubOptions } from "../hub/options.ts";
import { type ReadPolicy, readPolicy } from "../images/policy.ts";
import type { about, inspect, LoadOptions } from "../load.ts";
import type { Device } from "../native/device.ts";
import type { Binding } from "../native/pick.ts";
import { Place } from "./place.ts";
import { address, callback, fields, flag, oneOf, type Rule, type Rules, signal, size, text, whole } from "./rules.ts";

/** A token is never shown. */
const token: Rule<string | false> = (value, place) => {
  if (value === false) return false;
  if (typeof value !== "string")
    throw place.invalid(`must be a string or false, found a value of type ${typeof value}`);
  return text(value, place);
};

const hubRules = {
  revision: text,
  token,
  offline: flag,
  cacheDir: text,
  endpoint: text,
  signal,
  onProgress: callback,
} satisfies Rules<HubOptions>;

const binding: Rule<Binding> = oneOf("auto", "napi", "ffi");

/** Which devices there are is the engine's to say. */
const device: Rule<Device> = (value, place) => text(value, place) as Device;

const loadRules = {
  ...hubRules,
  device,
  weights: oneOf("f32", "f16", "q8_0", "q4_k"),
  threads: whole,
  batch: whole,
  cacheLimit: size,
  images: readPolicy,
  binding,
} satisfies Rules<LoadOptions>;

const inspectRules = { ...hubRules, binding } satisfies Rules<InspectOptions>;
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
export type OwnLoadOptions = Omit<LoadOptions, "images"> & { images?: ReadPolicy };
type InspectOptions = Parameters<typeof inspect>[1] & object;
type AboutOptions = Parameters<typeof about>[0] & object;
type CheckOptions = Parameters<typeof checkDevice>[1] & object;

export function readLoad(options: unknown): OwnLoadOptions {
  return loadFields(options, new Place("load"));
}

export function readInspect(options: unknown): InspectOptions {
  return inspectFields(options, new Place("inspect"));
}

export function readAbout(options: unknown): AboutOptions {
  return aboutFields(options, new Place("about"));
}

export function readCheck(options: unknown): CheckOptions {
  return checkFields(options, new Place("checkDevice"));
}

/** The device of a check. */
export const readDevice = (value: unknown): Device => device(value, new Place("checkDevice", "device"));

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
    throw place.invalid("must be a path, a file: URL or a model of the hub (org/name)");
  }
}
