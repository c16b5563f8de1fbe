import { boundTo } from "./calibrate.ts";
import { calibrationFile, requireCalibrationFile, writeHeads } from "./calibration.ts";
import { compared } from "./compared.ts";
import type { HeadMeasure, HeadsCalibration, ModelInfo, Progress } from "./generated/wire.ts";
import type { PromptInput, WirePrompt } from "./messages.ts";
import { Place } from "./options/place.ts";
import { readPrompt } from "./options/requests.ts";
import {
  address,
  callback,
  fields,
  oneOf,
  own,
  type Rules,
  signal as signalRule,
  text,
  whole,
} from "./options/rules.ts";
import { type Samples, samples as samplesRule, stoppable } from "./options/samples.ts";
import type { Requests } from "./requests.ts";

/**
 * A prompt that heads are watched on, with an answer or without.
 *
 * @example
 * ```ts
 * import { type HeadsSample, image } from "prefixkv";
 *
 * const content = [image("scene.png"), "What color is the star?"];
 * const sample: HeadsSample = { messages: [{ role: "user", content }], answer: "The star is green." };
 * console.log(sample.answer);
 * ```
 */
export interface HeadsSample extends PromptInput {
  /** Text that follows the prompt, as `score` takes it: its positions are then the last ones. */
  answer?: string;
}

/**
 * Options of `calibrateHeads`, which scores the attention heads of the model for `sparseMm` and `headKv`. Every sample is read once, with the
 * full cache; a score is the mean over the positions of a sample that count, and then over the samples that have some.
 *
 * @example
 * ```ts
 * import { type CalibrateHeadsOptions, image, load, sparseMm } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
 * const options: CalibrateHeadsOptions = { samples: [{ messages, answer: "The star is green." }], file: "heads.json" };
 * const { scores } = await model.calibrateHeads(options);
 * const cache = sparseMm({ keep: 0.3, calibration: "./heads.json" });
 * const { memory } = await model.generate({ messages, cache });
 * console.log(scores.length, memory.keptPerLayer);
 * ```
 */
export interface CalibrateHeadsOptions {
  /** Prompts representative of the intended use, with at most 64 images in all; all of them are held. */
  samples: Iterable<HeadsSample> | AsyncIterable<HeadsSample>;
  /**
   * How heads are scored. `"image-hits"`, the default: the share of positions of text behind an image at which what the head looks at most,
   * the first position left out, is of an image. `"image-mass"`: the attention that it gives to images there. `"copies"`, for `headKv`: the
   * attention that it gives to earlier text with the token that comes next, as far as that is among its 20 most attended positions.
   */
  measure?: HeadMeasure;
  /** Last positions of each sample, its answer included, that are looked at: from 1 to 512, 32 by default. */
  queries?: number;
  /** A JSON file to write, whole or not at all. */
  file?: string | URL;
  /** Called after every sample that was read (stage `samples`). */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

const read = fields({
  samples: samplesRule,
  measure: oneOf("image-hits", "image-mass", "copies"),
  queries: whole,
  file: (value, place): string => calibrationFile(address(value, place)),
  onProgress: callback,
  signal: signalRule,
} satisfies Rules<CalibrateHeadsOptions>);

/** The most queries that the engine keeps of a sample. */
const most = 512;

/** Has the engine read the samples, and writes what it found. */
export async function calibrateHeads(requests: Requests, info: ModelInfo, options: unknown): Promise<HeadsCalibration> {
  const place = new Place("calibrateHeads");
  const { samples, measure = "image-hits", queries = 32, file, onProgress, signal } = read(options, place);
  if (samples === undefined) throw place.invalid("need `samples`, an array of prompts");
  if (queries < 1 || queries > most) throw place.field("queries").refuse(`a whole number from 1 to ${most}`, queries);
  if (file !== undefined) await requireCalibrationFile(file);
  const prompts = await answeredPrompts(samples, signal);
  const found = await compared(requests, "heads", prompts, { measure, queries }, { signal, onProgress });
  const calibration: HeadsCalibration = {
    format: "prefixkv-heads",
    version: 1,
    model: boundTo(info, found.scores.length),
    measure,
    queries,
    samples: found.samples,
    positions: found.positions,
    // Six digits, more than a size of a head can depend on.
    scores: found.scores.map((scores) => scores.map((score) => Number(score.toPrecision(6)))),
  };
  if (file !== undefined) await writeHeads(calibration, file);
  return calibration;
}

/** The prompts of all samples, of which there must be one, with their answers among the fields. */
async function answeredPrompts(samples: Samples<unknown>, signal: AbortSignal | undefined): Promise<WirePrompt[]> {
  const prompts: WirePrompt[] = [];
  for await (const sample of stoppable(samples, signal)) {
    const place = new Place("calibrateHeads", `samples[${prompts.length}]`);
    const { answer, ...prompt } = Object.fromEntries(own(sample, place));
    const { fields, images } = readPrompt(prompt, place);
    const given = answer === undefined ? {} : { answer: text(answer, place.field("answer")) };
    if (given.answer === "") throw place.field("answer").invalid("is empty; leave it out");
    prompts.push({ fields: { ...fields, ...given }, images });
  }
  if (prompts.length === 0) throw new Place("calibrateHeads").field("samples").invalid("is empty");
  return prompts;
}
