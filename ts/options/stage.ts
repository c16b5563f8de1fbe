import { readCalibrationSource } from "../calibration.ts";
import { methods } from "../generated/method_table.ts";
import { Place } from "./place.ts";
import { deepFreeze, plain } from "./plain.ts";
import { own } from "./rules.ts";

/** A method with its options as a frozen object that can be cloned and written as JSON. */
export function stage<Name extends string, Options extends object>(
  method: Name,
  options: Options,
): Readonly<{ method: Name } & Options> {
  const { method: _, ...made } = readStage(options, new Place(method), method);
  return deepFreeze({ method, ...made }) as unknown as Readonly<{ method: Name } & Options>;
}

export const aMethod = "a method such as prefixkv({ keep: 0.5 }), or an array of methods";

/** The options of a method in copies. */
export function readStage(options: unknown, place: Place, method?: string): Record<string, unknown> {
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
