import { BitsSearch, group, type Pair, tried, written } from "./bits_search.ts";
import { boundTo } from "./calibrate.ts";
import { calibrationFile, requireCalibrationFile, writeBits } from "./calibration.ts";
import { CalibrationError } from "./errors.ts";
import { Evaluator, type Given, perToken, readSamples, sum } from "./fit/evaluator.ts";
import type { FitSample } from "./fit/options.ts";
import type { Measured } from "./fit/search.ts";
import type { KvtunerOptions } from "./generated/methods.ts";
import type { BitsCalibration, ModelInfo, Progress } from "./generated/wire.ts";
import { lastEvent } from "./native/ticket.ts";
import { Place } from "./options/place.ts";
import { address, callback, fields, oneOf, type Rules, signal as signalRule, whole } from "./options/rules.ts";
import { samples as samplesRule } from "./options/samples.ts";
import type { Requests } from "./requests.ts";

/**
 * Options of `calibrateBits`, KVTuner's search for the bits that keys and values of each layer can do with. One pass over each sample says
 * how far the attention of every layer is off in each pair of bits; what is left of these is searched by scoring the samples.
 *
 * @example
 * ```ts
 * import { type CalibrateBitsOptions, image, kvtuner, load } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
 * const options: CalibrateBitsOptions = { samples: [{ messages, answer: "green" }], trials: 16, file: "bits.json" };
 * const { points } = await model.calibrateBits(options);
 * const cache = kvtuner({ calibration: "./bits.json", bits: 4 });
 * const { memory } = await model.generate({ messages, cache });
 * console.log(points, memory.effectiveBits);
 * ```
 */
export interface CalibrateBitsOptions {
  /**
   * Prompts representative of the intended use, with reference answers or without; without one, the text that the full cache generates. They
   * must be longer than `window` by 32 positions, or nothing of them is stored in few bits.
   */
  samples: Iterable<FitSample> | AsyncIterable<FitSample>;
  /**
   * The loss on the samples, on average over the tokens of all answers: `"kl"`, the divergence from the full cache, by default; or `"ppl"`,
   * the negative log-likelihood of the answers.
   */
  objective?: "kl" | "ppl";
  /** Numbers that share a scale and a zero, as `kvtuner` has them; 32 by default. The file says it. */
  group?: number;
  /** Most recent entries that stay whole, likewise; 32 by default. */
  window?: number;
  /** The numbers of the keys that share a scale, likewise; `"channel"` by default. */
  keys?: "channel" | "entry";
  /** How many groups of layers there are to be at most, as far as layers with the same pairs left can be joined; 8 by default. */
  groups?: number;
  /** How many choices are measured on all samples, at most; 200 by default. At least 10, the nine pairs for all layers alike among them. */
  trials?: number;
  /**
   * A JSON file to write, whole or not at all. Measurements are kept in a file beside it, named `.partial` at the end, so that the same
   * call goes on where it was interrupted.
   */
  file?: string | URL;
  /** Called after every sample that was read (stage `samples`) and after every choice that was measured (stage `search`). */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. With a `file`, what has been measured is kept. */
  signal?: AbortSignal;
}

const read = fields({
  samples: samplesRule,
  objective: oneOf("kl", "ppl"),
  group: whole,
  window: whole,
  keys: oneOf("channel", "entry"),
  groups: whole,
  trials: whole,
  file: (value, place): string => calibrationFile(address(value, place)),
  onProgress: callback,
  signal: signalRule,
} satisfies Rules<CalibrateBitsOptions>);

/** Measures the layers, then searches for the front of bits and loss. */
export async function calibrateBits(requests: Requests, info: ModelInfo, options: unknown): Promise<BitsCalibration> {
  const place = new Place("calibrateBits");
  const { samples, objective = "kl", groups: most = 8, trials = 200, ...rest } = read(options, place);
  const { group: size = 32, window = 32, keys = "channel", file, onProgress, signal } = rest;
  if (samples === undefined) throw place.invalid("need `samples`, an array of prompts");
  if (most < 1) throw place.field("groups").refuse("a whole number from 1", most);
  if (trials <= tried.length) throw place.field("trials").refuse(`a whole number from ${tried.length + 1}`, trials);
  if (file !== undefined) await requireCalibrationFile(file);
  const given = await readSamples("calibrateBits", samples, signal);
  const quantiser = { group: size, window, keys };
  const fault = (message: string): CalibrationError => new CalibrationError("calibration", message);
  const about = { call: "calibrateBits", objective, signal };
  const head = { format: "prefixkv-bits-partial", ...quantiser };
  const evaluator = await Evaluator.open(requests, info, about, given, file, fault, head);
  try {
    const sensitivity = await sensitivities(requests, evaluator, given, quantiser, { onProgress, signal });
    const full = await losses(evaluator, { method: "full" });
    const groups = group(sensitivity, most);
    const search = new BitsSearch(groups, sensitivity, trials);
    const store = { method: "kvtuner", ...quantiser } as const;
    const points = await search.run(
      async (pairs) => (await losses(evaluator, { ...store, pairs })).loss,
      (done) => onProgress?.({ stage: "search", done, total: search.total }),
    );
    const found: BitsCalibration = {
      format: "prefixkv-bits",
      version: 1,
      model: boundTo(info, sensitivity.length),
      quantiser,
      samples: given.length,
      tokens: full.tokens,
      objective,
      full: full.loss,
      trials: search.trials,
      tried: tried.map((pair) => [...pair] as Pair),
      sensitivity,
      groups: written(groups),
      points,
    };
    if (file !== undefined) await writeBits(found, file);
    await evaluator.known.remove();
    return found;
  } finally {
    await evaluator.known.close();
  }
}

type Watched = Pick<CalibrateBitsOptions, "onProgress" | "signal">;

/** By layer and pair, the mean over the samples. */
async function sensitivities(
  requests: Requests,
  evaluator: Evaluator,
  given: readonly Given[],
  quantiser: Pick<KvtunerOptions, "group" | "window" | "keys">,
  { onProgress, signal }: { [K in keyof Watched]: Watched[K] | undefined },
): Promise<number[][]> {
  const cache = { method: "kvtuner", ...quantiser } as const;
  let sums: number[][] = [];
  for (const [index, sample] of given.entries()) {
    const found = await evaluator.known.of(`sensitivity ${index}`, async () => {
      const asked = { prompt: sample.prompt, cache, signal, rest: { pairs: tried } };
      const { layers } = await lastEvent(await requests.ask("sensitivity", asked), "sensitivity", { signal });
      return { layers };
    });
    const { layers } = found as { layers: number[][] };
    sums = layers.map((errors, layer) => errors.map((error, pair) => error + (sums[layer]?.[pair] ?? 0)));
    await evaluator.add(sample);
    onProgress?.({ stage: "samples", done: index + 1, total: given.length });
  }
  // Nine digits, as losses have them.
  return sums.map((errors) => errors.map((error) => Number((error / given.length).toPrecision(9))));
}

/** The loss of a cache over all samples, per token. */
async function losses(
  evaluator: Evaluator,
  cache: KvtunerOptions & { method: "kvtuner" | "full" },
): Promise<{ loss: number; tokens: number }> {
  const measured: Measured[] = [];
  for (let index = 0; index < evaluator.length; index += 1)
    measured.push((await evaluator.measure([cache as Parameters<Evaluator["measure"]>[0][number]], index)) as Measured);
  const tokens = sum(measured.map((each) => each.tokens));
  return { loss: perToken(sum(measured.map((each) => each.loss)), tokens), tokens };
}
