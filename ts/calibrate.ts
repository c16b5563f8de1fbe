import { type CacheOption, isFile, readCache } from "./cache.ts";
import { calibrationFile, requireCalibrationFile, writeCalibration } from "./calibration.ts";
import { BudgetError } from "./errors.ts";
import { methods } from "./generated/method_table.ts";
import type { CacheMethod } from "./generated/methods.ts";
import type { CalibratedModel, Calibration, ModelInfo, Progress } from "./generated/wire.ts";
import type { PromptInput, WirePrompt } from "./messages.ts";
import { lastEvent } from "./native/ticket.ts";
import { Place } from "./options/place.ts";
import { readPrompt } from "./options/requests.ts";
import { address, callback, fields, list, number, type Rules, signal as signalRule } from "./options/rules.ts";
import { samples as samplesRule, stoppable } from "./options/samples.ts";
import type { Requests } from "./requests.ts";

/**
 * Options of `calibrate`. Every sample is read once, the retained share of each layer is recorded for every size, and the shares
 * are averaged over the samples. The result is bound to the model by its fingerprint and sizes.
 *
 * @example
 * ```ts
 * import { type CalibrateOptions, image, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "Describe the image in detail."];
 * const options: CalibrateOptions = { method: prefixkv(), samples: [{ messages: [{ role: "user", content }] }], file: "mine.json" };
 * const { rows } = await model.calibrate(options);
 * const cache = prefixkv({ keep: 0.3, calibration: "./mine.json" });
 * const { memory } = await model.generate({ messages: [{ role: "user", content }], cache });
 * console.log(rows.length, memory.peak);
 * ```
 */
export interface CalibrateOptions {
  /** The method to calibrate; its `keep` is ignored. Only methods that search per prompt can be calibrated. */
  method: CacheMethod;
  /** Prompts representative of the intended use. */
  samples: Iterable<PromptInput> | AsyncIterable<PromptInput>;
  /**
   * Sizes, as shares of all positions; by default 0.05 to 0.95 in steps of 0.05, except those too small for the protected
   * entries of some sample. A requested size that is too small is a BudgetError.
   */
  keeps?: readonly number[];
  /** A JSON file to write, whole or not at all. */
  file?: string | URL;
  /** Called after every sample; `total` is 0 while the number of samples is not known. */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

const defaultKeeps: readonly number[] = Array.from({ length: 19 }, (_, index) => (index + 1) / 20);

const read = fields({
  method: (value, place) => {
    if (place.read(() => Array.isArray(value)) || isFile(value, place))
      throw place.refuse("one method such as prefixkv()", value);
    return readCache(value, place) as CacheMethod;
  },
  samples: samplesRule,
  keeps: list(number, "an array of shares"),
  file: (value, place): string => calibrationFile(address(value, place)),
  onProgress: callback,
  signal: signalRule,
} satisfies Rules<CalibrateOptions>);

/** Runs the samples one after the other and averages what they say. */
export async function calibrate(requests: Requests, info: ModelInfo, options: unknown): Promise<Calibration> {
  const place = new Place("calibrate");
  const { method, samples, keeps: asked, file, onProgress, signal } = read(options, place);
  if (method === undefined) throw place.invalid("need `method`, such as prefixkv()");
  if (samples === undefined) throw place.invalid("need `samples`, an array of prompts");
  let keeps = asked === undefined ? defaultKeeps : [...new Set(asked)].sort((a, b) => a - b);
  const total = Array.isArray(samples) ? samples.length : 0;
  if (file !== undefined) await requireCalibrationFile(file);
  const sums = new Map<number, number[]>();
  let count = 0;
  for await (const sample of stoppable(samples, signal)) {
    const prompt = readPrompt(sample, new Place("calibrate", `samples[${count}]`));
    const found = await profile(requests, { method, prompt, signal }, keeps, asked === undefined);
    keeps = [...found.keys()];
    for (const [keep, retained] of found) {
      const sum = sums.get(keep);
      sums.set(keep, sum === undefined ? retained : sum.map((value, layer) => value + (retained[layer] ?? 0)));
    }
    count += 1;
    onProgress?.({ stage: "samples", done: count, total });
  }
  if (count === 0) throw place.field("samples").invalid("is empty");
  const rows = keeps.map((keep) => ({ keep, retained: (sums.get(keep) ?? []).map((sum) => sum / count) }));
  const calibration: Calibration = {
    format: "prefixkv-calibration",
    version: 1,
    model: boundTo(info, rows[0]?.retained.length),
    samples: count,
    ...ranking(method),
    rows,
  };
  if (file !== undefined) await writeCalibration(calibration, file);
  return calibration;
}

/** The model that something found for it belongs to; `layers` are those that methods size. */
export function boundTo(info: ModelInfo, layers: number = info.layers): CalibratedModel {
  const { kvHeads, headDim, fingerprint } = info;
  const name = info.source.split(/[\\/]/).filter(Boolean).at(-1) ?? info.architecture;
  return { name, layers, kvHeads, headDim, fingerprint };
}

/** The retained shares of one sample by size; `fewer` leaves sizes out that are too small for it. */
async function profile(
  requests: Requests,
  { method, prompt, signal }: { method: CacheMethod; prompt: WirePrompt; signal: AbortSignal | undefined },
  keeps: readonly number[],
  fewer: boolean,
): Promise<Map<number, number[]>> {
  // The sizes come from `keeps`; the method's own must only be valid.
  const cache = { ...method, keep: 1 } as CacheOption;
  for (let left = keeps; ; ) {
    try {
      const asked = { prompt, cache, signal, rest: { keeps: left } };
      const ticket = await requests.ask("profile", asked);
      const { retained } = await lastEvent(ticket, "profiled", { signal });
      return new Map(left.map((keep, index) => [keep, retained[index] ?? []]));
    } catch (error) {
      const least = error instanceof BudgetError ? Number(error.details.least) : Number.NaN;
      const feasible = left.filter((keep) => keep >= least);
      if (!fewer || feasible.length === 0 || feasible.length === left.length) throw error;
      left = feasible;
    }
  }
}

/** The score of a method and its options, which the sizes follow from. */
function ranking(method: CacheMethod): Pick<Calibration, "score" | "window" | "pool" | "poolSize"> {
  const facts = methods.find(({ name }) => name === method.method);
  const given = method as Readonly<Record<string, unknown>>;
  const variant = facts?.variants[String(given.variant)];
  const of = (name: string): unknown =>
    given[name] ?? variant?.[name] ?? facts?.options.find((option) => option.name === name)?.default;
  const score = of("score");
  if (typeof score !== "string") return {};
  const used = ["mix", "question", "window"].includes(score) ? ["score", "window", "pool", "poolSize"] : ["score"];
  return Object.fromEntries(used.map((name) => [name, of(name)]));
}
