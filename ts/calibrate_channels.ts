import { boundTo } from "./calibrate.ts";
import { calibrationFile, requireCalibrationFile, writeChannels } from "./calibration.ts";
import { compared, promptsOf } from "./compared.ts";
import type { ChannelsCalibration, ModelInfo, Progress } from "./generated/wire.ts";
import type { PromptInput } from "./messages.ts";
import { Place } from "./options/place.ts";
import { address, callback, fields, type Rules, signal as signalRule, whole } from "./options/rules.ts";
import { samples as samplesRule } from "./options/samples.ts";
import type { Requests } from "./requests.ts";

/**
 * Options of `calibrateChannels`, SKVQ's search for an order of the channels of every head in which alike ones share a scale, and for the
 * part of their range that codes should cover. Every sample is read twice: for the ranges of the channels, and for the errors of the codes.
 *
 * @example
 * ```ts
 * import { type CalibrateChannelsOptions, image, load, skvq } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
 * const options: CalibrateChannelsOptions = { samples: [{ messages }], group: 16, file: "channels.json" };
 * const { layers } = await model.calibrateChannels(options);
 * const { memory } = await model.generate({ messages, cache: skvq({ calibration: "./channels.json", window: 32 }) });
 * console.log(layers.length, memory.effectiveBits);
 * ```
 */
export interface CalibrateChannelsOptions {
  /** Prompts representative of the intended use, with at most 64 images in all; all of them are held. */
  samples: Iterable<PromptInput> | AsyncIterable<PromptInput>;
  /**
   * Channels of a head that share a scale, a multiple of 8, as `skvq` has them; 64 by default. As long as a head is, there is nothing to put
   * in order, and in heads that it does not divide it is the largest part that does. The file says it.
   */
  group?: number;
  /** First positions of each sample that are left out, since `skvq` keeps them whole; 5 by default. */
  sinks?: number;
  /** A JSON file to write, whole or not at all. */
  file?: string | URL;
  /** Called after every sample that was read, twice for each (stage `samples`). */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

const read = fields({
  samples: samplesRule,
  group: whole,
  sinks: whole,
  file: (value, place): string => calibrationFile(address(value, place)),
  onProgress: callback,
  signal: signalRule,
} satisfies Rules<CalibrateChannelsOptions>);

/** Has the engine read the samples, and writes what it found. */
export async function calibrateChannels(
  requests: Requests,
  info: ModelInfo,
  options: unknown,
): Promise<ChannelsCalibration> {
  const place = new Place("calibrateChannels");
  const { samples, group = 64, sinks = 5, file, onProgress, signal } = read(options, place);
  if (samples === undefined) throw place.invalid("need `samples`, an array of prompts");
  if (group < 8 || group > 128 || group % 8 !== 0) {
    throw place.field("group").refuse("a multiple of 8 up to 128", group);
  }
  if (file !== undefined) await requireCalibrationFile(file);
  const prompts = await promptsOf("calibrateChannels", samples, signal);
  const { layers } = await compared(requests, "channels", prompts, { group, sinks }, { signal, onProgress });
  const calibration: ChannelsCalibration = {
    format: "prefixkv-channels",
    version: 1,
    model: boundTo(info),
    group,
    sinks,
    samples: prompts.length,
    layers,
  };
  if (file !== undefined) await writeChannels(calibration, file);
  return calibration;
}
