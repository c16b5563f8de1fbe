import type { Model } from "../model.ts";
import { readLoad } from "../options/load.ts";
import { Place } from "../options/place.ts";
import { plain } from "../options/plain.ts";
import {
  address,
  callback,
  fields,
  flag,
  list,
  number,
  own,
  type Rule,
  type Rules,
  signal,
  text,
  whole,
} from "../options/rules.ts";
import type { EvaluateOptions } from "./evaluate.ts";
import type { EvalMethod } from "./methods.ts";
import type { ReproduceOptions } from "./reproduce/reproduce.ts";
import type { EvalData } from "./samples.ts";

const model: Rule<Model> = (value, place) => {
  const able = place.look(value, (found) => typeof (found as Model).generate === "function" && "info" in found);
  if (able !== true) throw place.refuse("a model of load()", value);
  return value as Model;
};

const data: Rule<EvalData | string> = (value, place) => {
  if (typeof value === "string") return text(value, place);
  const read = fields({ name: text, samples: list((sample, at) => Object.fromEntries(own(sample, at))) })(value, place);
  if (read.name === undefined || read.samples === undefined)
    throw place.refuse("data of openData() or dataOf()", value);
  return read as unknown as EvalData;
};

const method: Rule<string | EvalMethod> = (value, place) =>
  typeof value === "string" ? text(value, place) : (plain(value, place, "a text or { id, cache }") as EvalMethod);

const folder: Rule<string | URL> = (value, place) => {
  const found = address(value, place);
  if (found === "") throw place.invalid("is empty; name a folder");
  return found;
};

const evaluateFields = fields({
  model,
  source: address,
  load: (value, place) => {
    own(value, place);
    return readLoad(value);
  },
  data,
  methods: list(method, "an array of methods"),
  keeps: list(number, "an array of shares"),
  out: folder,
  limit: whole,
  baseline: text,
  generate: flag,
  maxTokens: whole,
  kl: flag,
  seed: whole,
  signal,
  onProgress: callback,
} satisfies Rules<EvaluateOptions>);

const reproduceFields = fields({
  table: text,
  model,
  data: text,
  images: text,
  out: text,
  limit: whole,
  signal,
  onProgress: callback,
} satisfies Rules<ReproduceOptions>);

/** The options of `evaluate` in copies; throws an OptionError. */
export function readEvaluate(options: unknown): EvaluateOptions {
  const place = new Place("evaluate");
  return needed(evaluateFields(options, place), place, ["methods", "keeps", "out"]) as EvaluateOptions;
}

/** The options of `reproduce` in copies; throws an OptionError. */
export function readReproduce(options: unknown): ReproduceOptions {
  const place = new Place("reproduce");
  return needed(reproduceFields(options, place), place, ["table", "model", "out"]) as ReproduceOptions;
}

/** A text that is an argument of a call. */
export function readText(value: unknown, call: string, name: string): string {
  const place = new Place(call, name);
  const found = text(value, place);
  if (found === "") throw place.invalid("is empty");
  return found;
}

function needed<T extends object>(read: T, place: Place, names: readonly string[]): T {
  for (const name of names) if (!Object.hasOwn(read, name)) throw place.field(name).invalid("is missing");
  return read;
}
