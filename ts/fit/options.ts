import { isFile, readCache } from "../cache.ts";
import { parseBytes } from "../format.ts";
import type { CacheMethod } from "../generated/methods.ts";
import type { Progress } from "../generated/wire.ts";
import type { PromptInput, WirePrompt } from "../messages.ts";
import { Place } from "../options/place.ts";
import { isPlanned } from "../options/planned.ts";
import { readPrompt } from "../options/requests.ts";
import {
  address,
  callback,
  fields,
  items,
  oneOf,
  own,
  type Rule,
  type Rules,
  signal,
  size,
  text,
} from "../options/rules.ts";
import { type Samples, samples } from "../options/samples.ts";
import { type AxisName, pointsOf, type Stages } from "./axes.ts";
import { fitFile } from "./file.ts";

/**
 * A prompt that is representative of the intended use, with the answer that the cache is to be good for.
 *
 * @example
 * ```ts
 * import { type FitSample, image } from "prefixkv";
 *
 * const content = [image("scene.png"), "What color is the star?"];
 * const sample: FitSample = { messages: [{ role: "user", content }], answer: "green" };
 * console.log(sample.answer);
 * ```
 */
export interface FitSample extends PromptInput {
  /** The reference, as `score` takes it; without one, the text that the full cache generates. */
  answer?: string;
}

/**
 * Options of `fit`, which searches how many entries a cache keeps and in how many bits it stores them, for the best quality that fits
 * into a number of bytes. Each sample is scored with what the search tries: a few times per method, store and number of bytes.
 *
 * @example
 * ```ts
 * import { type FitOptions, image, int4, int8, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
 * const choice = { methods: [prefixkv()], stores: [int8(), int4({ window: 16 })] };
 * const options: FitOptions = { bytes: "1MiB", samples: [{ messages, answer: "green" }], ...choice };
 * const { cache, curve } = await model.fit(options);
 * const { text, memory } = await model.generate({ messages, cache });
 * console.log(text, memory.resident, curve[0]?.resident);
 * ```
 */
export interface FitOptions {
  /**
   * The most bytes that the cache may hold at the end of an answer (`memory.resident`), as a number or a text such as `"32MiB"`; several
   * of them make a curve.
   */
  bytes: number | string | readonly (number | string)[];
  /** Prompts representative of the intended use, with reference answers or without. All must be there before the search begins. */
  samples: Iterable<FitSample> | AsyncIterable<FitSample>;
  /**
   * The loss that is made small, on average over the tokens of all answers: `"ppl"`, the negative log-likelihood of the answers, by default; or
   * `"kl"`, the divergence from the full cache, which takes another pass per measurement.
   */
  objective?: "ppl" | "kl";
  /**
   * Methods that choose entries, each alone or with the stages behind it; a `keep` of theirs is ignored. By default `prefixkv()`, with
   * `decode: "none"` and with `variant: "paper"`. To keep every entry is always one of the choices.
   */
  methods?: readonly (CacheMethod | readonly CacheMethod[])[];
  /**
   * Ways to store what stays. By default all that there are as they come, those with a `window` of more than 16 also with 16, and those
   * with `bits` also with 2. Full precision is always one of the choices.
   */
  stores?: readonly CacheMethod[];
  /**
   * Maps of layers that share, such as `kvsharer({ calibration: "./map.json", layers: 2 })`; by default none. That no layer shares is always
   * one of the choices.
   */
  sharing?: readonly CacheMethod[];
  /**
   * A JSON file to write, whole or not at all. Measurements are kept in a file beside it, named `.partial` at the end, so that the same
   * call goes on where it was interrupted.
   */
  file?: string | URL;
  /** Called as the work goes on: while the samples are read, and while the search runs. */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. With a `file`, what has been measured is kept. */
  signal?: AbortSignal;
}

/** The options of a fit in copies. */
export interface AskedFit extends Pick<FitOptions, "onProgress" | "signal"> {
  /** Rising. */
  budgets: number[];
  samples: Samples<unknown>;
  objective: "ppl" | "kl";
  points: Record<AxisName, readonly Stages[]>;
  file: string | undefined;
}

const bytes: Rule<number> = (value, place) => {
  const given = size(value, place);
  const found = typeof given === "string" ? parseBytes(given) : given;
  if (found === undefined || found < 1) throw place.refuse('a number of bytes from 1 or a text such as "64MiB"', value);
  return found;
};

const budgets: Rule<number[]> = (value, place) => {
  if (!place.read(() => Array.isArray(value))) return [bytes(value, place)];
  const found = items(value as unknown[], place, bytes);
  if (found.length === 0) throw place.invalid("is empty");
  return [...new Set(found)].sort((a, b) => a - b);
};

const points: Rule<Stages[]> = (value, place) => {
  if (!place.read(() => Array.isArray(value))) throw place.refuse("an array of methods", value);
  return items(value as unknown[], place, (item, at) => {
    if (isFile(item, at)) throw at.refuse("a method or an array of them", item);
    const read = readCache(item, at);
    if ([read].flat().some((stage) => isPlanned(stage, at)))
      throw at.invalid("cannot be stored: a method with a `plan` is code; leave it out");
    return [read].flat() as CacheMethod[];
  });
};

const read = fields({
  bytes: budgets,
  samples,
  objective: oneOf("ppl", "kl"),
  methods: points,
  stores: points,
  sharing: points,
  file: (value, place): string => fitFile(address(value, place)),
  onProgress: callback,
  signal,
} satisfies Rules<FitOptions>);

/** The options of `fit`; throws an OptionError. */
export function readFit(options: unknown): AskedFit {
  const place = new Place("fit");
  const { bytes, samples, objective = "ppl", file, onProgress, signal, ...given } = read(options, place);
  if (bytes === undefined) throw place.invalid('need `bytes`, such as "32MiB"');
  if (samples === undefined) throw place.invalid("need `samples`, an array of prompts");
  return {
    budgets: bytes,
    samples,
    objective,
    points: pointsOf((name) => given[name]),
    file,
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
  };
}

/** A sample of a fit: its prompt, and its answer if it has one. */
export function readSample(sample: unknown, place: Place): { prompt: WirePrompt; answer?: string } {
  const given = Object.fromEntries(own(sample, place));
  const { answer, ...prompt } = given;
  const read = readPrompt(prompt, place);
  if (answer === undefined) return { prompt: read };
  const found = text(answer, place.field("answer"));
  if (found === "") throw place.field("answer").invalid("is empty; leave it out to take what the full cache answers");
  return { prompt: read, answer: found };
}
