import { pathToFileURL } from "node:url";
import type { CacheOption } from "../cache.ts";
import { parseBytes } from "../format.ts";
import { type MethodFacts, methods } from "../generated/method_table.ts";
import type { CacheMethod } from "../generated/methods.ts";
import type { Keep } from "../generated/wire.ts";
import { readSetting } from "../options/setting.ts";
import { nearest } from "../suggest.ts";
import { UsageError } from "./args.ts";
import type { Values } from "./values.ts";

/** The method and the stages behind it that the flags name, if any; throws a UsageError for invalid flags. */
export function cacheOption(values: Values): CacheOption | undefined {
  const fit = values.text("fit");
  if (fit !== undefined) {
    const other = ["method", "keep", "set", "calibration", "stage"].find((flag) => values.has(flag));
    if (other !== undefined) throw new UsageError(`--fit says the whole of the cache; leave out --${other}`);
    return pathToFileURL(fit);
  }
  const method = methodOption(values);
  const stages = values.texts("stage").map(parseStage);
  if (stages.length === 0) return method;
  if (method === undefined) throw new UsageError("--stage needs --method NAME, which it goes with");
  // Layers that share come before what chooses from the others.
  const [first, behind] = [true, false].map((shares) =>
    stages.filter((stage) => (findMethod(stage.method).role === "shares") === shares),
  );
  return [...(first ?? []), method, ...(behind ?? [])];
}

/** The method that the flags name, if any; throws a UsageError for invalid flags. */
export function methodOption(values: Values, fallback?: CacheMethod["method"]): CacheMethod | undefined {
  const name = values.text("method") ?? fallback;
  if (name === undefined) {
    const flag = ["keep", "set", "calibration"].find((flag) => values.has(flag));
    if (flag === undefined) return undefined;
    throw new UsageError(`--${flag} needs --method NAME; \`prefixkv methods\` lists the methods`);
  }
  const facts = findMethod(name);
  const keep = values.text("keep");
  const calibration = values.text("calibration");
  const options = Object.fromEntries(values.texts("set").map((text) => parseSet(facts, text)));
  const method: Record<string, unknown> = {
    method: facts.name,
    ...(keep !== undefined && { keep: parseKeep(keep) }),
    ...options,
    ...(calibration !== undefined && { calibration }),
  };
  // The engine checks values and says what is wrong with them.
  return method as unknown as CacheMethod;
}

/** Reads `merge`, `merge,weight=0.5` or `int4,window=64`. */
function parseStage(text: string): CacheMethod {
  const [name = "", ...settings] = text.split(",");
  const facts = findMethod(name.trim());
  if (facts.role === "chooses")
    throw new UsageError(`--stage needs a stage, and ${facts.name} is a method: --method ${facts.name}`);
  const options = Object.fromEntries(settings.map((setting) => parseSet(facts, setting, "--stage")));
  return { method: facts.name, ...options } as unknown as CacheMethod;
}

/** Looks a method up; throws a UsageError with the nearest name. */
export function findMethod(name: string): MethodFacts {
  const facts = methods.find((method) => method.name === name);
  if (facts) return facts;
  const names = methods.map((method) => method.name);
  throw new UsageError(`unknown method \`${name}\`; there are ${names.join(", ")}`, nearest(name, names));
}

/** Reads `0.5`, `256tokens` or `64MiB`. */
export function parseKeep(text: string): Keep {
  const tokens = /^\s*(\d+)\s*tokens?\s*$/i.exec(text)?.[1];
  if (tokens !== undefined) return { tokens: Number(tokens) };
  const share = text.trim() === "" ? Number.NaN : Number(text);
  if (share > 0 && share <= 1) return share;
  const bytes = Number.isNaN(share) ? parseBytes(text) : undefined;
  if (bytes !== undefined) return { bytes };
  throw new UsageError(`--keep needs a share above 0 and up to 1, 256tokens or 64MiB, not \`${text}\``);
}

function parseSet(facts: MethodFacts, text: string, flag = "--set"): [name: string, value: unknown] {
  const { name, option, value } = readSetting(facts, text);
  if (name === "") throw new UsageError(`${flag} needs NAME=VALUE, not \`${text}\``);
  if (option) return [name, value];
  const names = facts.options.map((candidate) => candidate.name);
  const list = names.length === 0 ? "none" : names.join(", ");
  throw new UsageError(`${facts.name} has no option \`${name}\`; its options are: ${list}`, nearest(name, names));
}
